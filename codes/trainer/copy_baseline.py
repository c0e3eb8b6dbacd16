"""What copying would reach on a task: the least that a model of it must beat.

A task's dataset gives an input beside what is to be predicted, or its step splits the channels. The copy says that a
sample is the input's sample at its place, or the sample before it, or the end of what was given once more. Two figures
say how good that is, over the very samples that the model is validated on:

- mean square: of the difference from the real samples, both in [-1, 1);
- bits per sample: of the differences of the codes that the model predicts (`pcm_quantize`, `mu_law`), coded by the
  two-sided geometric distribution P(d) ~ theta^|d| with the best theta of each item, as if it cost nothing to say.
  With m the mean of |d| that is theta = (sqrt(1 + m^2) - 1) / m, and the code takes
  -log2((1 - theta) / (1 + theta)) - m log2(theta) bits.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from codes.entries import Entry, Experiment
from codes.trainer.build import Parts

AT_ITS_PLACE = {"noisy": "the noisy sample at its place", "degraded": "the degraded sample at its place"}
CONTINUED = (("past", "future", None), ("prev", "next", "next_mask"))
CODERS = ("pcm_quantize", "mu_law")


@dataclass
class CopyFigures:
    """Of one way of copying: sums over samples."""

    bits: float = 0.0
    squares: float = 0.0
    samples: float = 0.0

    def add(self, copy: Tensor, real: Tensor, mask: Tensor, depth: int, codes: Callable[[Tensor], Tensor]) -> None:
        """copy, real (B, T) integers of `depth` bits; mask (B, T) bool; codes: what the model predicts of samples."""
        counted, number = mask.double(), mask.double().sum(1)
        magnitude = (codes(real).long() - codes(copy).long()).abs() * counted
        mean = magnitude.sum(1) / number.clamp(min=1)
        self.bits += float((geometric_bits(mean) * number).sum())
        difference = (real.double() - copy.double()) * counted / 2 ** (depth - 1)
        self.squares += float(difference.square().sum())
        self.samples += float(number.sum())


def geometric_bits(mean: Tensor) -> Tensor:
    """Bits per value of integers whose mean absolute value is `mean`, by the best two-sided geometric code."""
    theta = mean / ((1 + mean.square()).sqrt() + 1)
    return torch.log2((1 + theta) / (1 - theta)) - torch.special.xlogy(mean, theta) / math.log(2)


def copies(batch: dict[str, Any], judged: slice, split: bool = False) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
    """(what is copied, copy (B, T), real (B, T), mask (B, T)) of a task's batch; nothing where it is no task.

    Args:
        batch: as the loader gives it.
        judged: the frames of ``wav`` that the loss counts.
        split: whether one channel of ``wav`` is given and the other predicted.
    """
    places = [(title, batch[key][:, 0], batch["wav"][:, 0]) for key, title in AT_ITS_PLACE.items() if key in batch]
    if split:  # as far apart in either direction
        places.append(("the given channel at its place", batch["wav"][:, 0], batch["wav"][:, 1]))
    for title, copy, real in places:
        yield title, copy[:, judged], real[:, judged], torch.ones_like(real[:, judged], dtype=torch.bool)
    for before, after, mask in CONTINUED:
        if after not in batch:
            continue
        past, real = batch[before][:, 0], batch[after][:, 0]
        counted = batch[mask] if mask else torch.ones_like(real, dtype=torch.bool)
        yield "the sample before it", torch.cat([past[:, -1:], real[:, :-1]], 1), real, counted
        again = past[:, -real.shape[1] :]
        repeats = -(-real.shape[1] // again.shape[1])
        yield "silence", torch.zeros_like(real), real, counted
        yield f"the end of {before} once more", again.repeat(1, repeats)[:, : real.shape[1]], real, counted


def measure(parts: Parts, experiment: Experiment) -> dict[str, CopyFigures]:
    """Figures of each way of copying on the validation items; empty where there is no task or no validation set."""
    dataset, loader = parts.datasets.get("val"), parts.val_loader
    found: dict[str, CopyFigures] = {}
    split = _injector(experiment, ("channel_split",)) is not None
    if loader is None or not hasattr(dataset, "chunk_frames") or not (split or _is_task(experiment)):
        return found
    coder, codes = _injector(experiment, CODERS), lambda samples: samples
    if coder is not None:
        codes = coder.built_from.build(parts.networks).forward
    judged = judged_frames(experiment, dataset.chunk_frames)  # type: ignore[union-attr]
    total, limit = len(loader), experiment.options.eval.max_batches
    numbers = range(total) if limit is None or limit >= total else [n * total // limit for n in range(limit)]
    for number in numbers:
        ways = list(copies(loader.batch(number), judged, split))
        if not ways:
            break
        for title, copy, real, mask in ways:
            found.setdefault(title, CopyFigures()).add(copy, real, mask, dataset.bits, codes)  # type: ignore[union-attr]
    return found


def _is_task(experiment: Experiment) -> bool:
    """Whether the dataset gives something beside what is to be predicted."""
    component = experiment.datasets.get("val", experiment.datasets["train"]).built_from
    keys = {*AT_ITS_PLACE, *(after for _, after, _ in CONTINUED)}
    return bool(keys & set(component.cls.provided_keys(component.options)))


def judged_frames(experiment: Experiment, chunk_frames: int) -> slice:
    """The frames of an item that the loss counts: those that `narrow` cuts out for its target, else the chunk."""
    for step in experiment.steps:
        targets = {loss.reads.get("target") for loss in step.losses}
        for entry in step.injectors:
            if entry.built_from.type == "narrow" and targets & set(entry.flags.out):
                options = entry.built_from.options
                start, length = options.get("start", 0), options.get("length")
                return slice(start, None if length is None else start + length or None)
    return slice(-chunk_frames, None)


def _injector(experiment: Experiment, types: tuple[str, ...]) -> Entry | None:
    """The first injector of one of these types."""
    entries = [entry for step in experiment.steps for entry in step.injectors]
    return next((entry for entry in entries if entry.built_from.type in types), None)


def report(parts: Parts, experiment: Experiment, best: dict[str, float] | None) -> list[str]:
    """Lines for the end of a run: what copying reaches, beside the model's best validation where it is in bits."""
    found = {title: figures for title, figures in measure(parts, experiment).items() if figures.samples}
    if not found:
        return []
    in_bits = any(loss.loss.measures_bits for step in parts.steps for loss in step.losses)
    in_bits = in_bits and _injector(experiment, CODERS) is not None and experiment.options.eval.best_by is None
    samples = int(next(iter(found.values())).samples)
    lines = [f"copying, on the same {samples:,} samples (differences by the best geometric code of each item):"]
    width = max(len(title) for title in found)
    for title, figures in found.items():
        bits, square = figures.bits / figures.samples, figures.squares / figures.samples
        line = f"  {title:<{width}}  {bits:7.3f} bits/sample  mean square {square:.3g}"
        if in_bits and best is not None:
            share = 100 * best["value"] / bits if bits else math.inf
            line += f"  (the model: {best['value']:.3f}, {share:.1f} % of it)"
        lines.append(line)
    return lines
