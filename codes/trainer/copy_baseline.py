"""What copying would reach on a task: the least that a model of it must beat.

A task's dataset gives an input beside what is to be predicted, or its step splits the channels. The copy says that a
sample is the input's sample at its place, or the sample before it, or the end of what was given once more. It knows no
more than the model: of one that predicts vectors of n frames, the real frames stand only before those n; of one that
makes all of next at once, only prev. Two figures say how good it is, over the very samples that the model is validated
on, and a third where the step has a `mel_distance` of audio:

- mean square: of the difference from the real samples, both in [-1, 1);
- mel distance: as that loss measures it, of whole items;
- bits per sample: of the differences of the codes that the model predicts (`pcm_quantize`, `mu_law`), coded by the
  two-sided geometric distribution P(d) ~ theta^|d| with the best theta of each item, as if it cost nothing to say.
  With m the mean of |d| that is theta = (sqrt(1 + m^2) - 1) / m, and the code takes
  -log2((1 - theta) / (1 + theta)) - m log2(theta) bits.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codes.entries import Entry, Experiment, LossEntry
from codes.trainer.build import Parts
from codes.trainer.losses import PixLoss
from codes.trainer.losses_codec import MelDistanceLoss
from codes.trainer.metrics import read_metrics

AT_ITS_PLACE = {"noisy": "the noisy sample at its place", "degraded": "the degraded sample at its place"}
CONTINUED = (("past", "future", None), ("prev", "next", "next_mask"))
CODERS = ("pcm_quantize", "mu_law")
STILL_AUDIO = ("normalize", "squeeze", "unsqueeze", "narrow")  # injectors that leave samples what they are
SQUARE, MEL = "mean square", "mel distance"
Distances = Callable[[Tensor, Tensor], Tensor]


@dataclass
class CopyFigures:
    """Of one way of copying: sums over samples."""

    bits: float = 0.0
    squares: float = 0.0
    samples: float = 0.0
    distances: float = 0.0
    items: int = 0  # whose distance was measured

    def add(
        self, copy: Tensor, real: Tensor, mask: Tensor, depth: int, codes: Callable[[Tensor], Tensor],
        distances: Distances | None = None,
    ) -> None:  # fmt: skip
        """copy, real (B, T) integers of `depth` bits; mask (B, T) bool; codes: what the model predicts of samples.

        distances: of two sounds (B, T) in [-1, 1) -> (B,).
        """
        counted, number = mask.double(), mask.double().sum(1)
        magnitude = (codes(real).long() - codes(copy).long()).abs() * counted
        mean = magnitude.sum(1) / number.clamp(min=1)
        self.bits += float((geometric_bits(mean) * number).sum())
        difference = (real.double() - copy.double()) * counted / 2 ** (depth - 1)
        self.squares += float(difference.square().sum())
        self.samples += float(number.sum())
        if distances is not None:
            whole = mask.all(1)
            self.distances += float(distances(*(x[whole].float() / 2 ** (depth - 1) for x in (real, copy))).sum())
            self.items += int(whole.sum())

    def shown(self) -> dict[str, float]:
        """The figures that are no bits, by name."""
        found = {SQUARE: self.squares / self.samples}
        return found | {MEL: self.distances / self.items} if self.items else found


def geometric_bits(mean: Tensor) -> Tensor:
    """Bits per value of integers whose mean absolute value is `mean`, by the best two-sided geometric code."""
    theta = mean / ((1 + mean.square()).sqrt() + 1)
    return torch.log2((1 + theta) / (1 - theta)) - torch.special.xlogy(mean, theta) / math.log(2)


def copies(
    batch: dict[str, Any], judged: slice, split: bool = False, stride: int = 1
) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
    """(what is copied, copy (B, T), real (B, T), mask (B, T)) of a task's batch; nothing where it is no task.

    Args:
        batch: as the loader gives it.
        judged: the frames of ``wav`` that the loss counts.
        split: whether one channel of ``wav`` is given and the other predicted.
        stride: frames that the model makes at once, knowing the real ones before them; 0: all of them.
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
        yield *_copied_before(past, real, stride, before), real, counted
        again = past[:, -real.shape[1] :]
        repeats = -(-real.shape[1] // again.shape[1])
        yield "silence", torch.zeros_like(real), real, counted
        yield f"the end of {before} once more", again.repeat(1, repeats)[:, : real.shape[1]], real, counted


def _copied_before(past: Tensor, real: Tensor, stride: int, key: str) -> tuple[str, Tensor]:
    """The nearest real frames that stand before those that are made at once: past (B, P), real (B, T) -> (B, T)."""
    if stride == 0:
        return f"the last sample of {key}, held", past[:, -1:].expand_as(real)
    known = torch.nn.functional.pad(torch.cat([past, real], 1), (stride, 0))
    title = "the sample before it" if stride == 1 else f"the {stride} samples before it once more"
    return title, known[:, past.shape[1] : past.shape[1] + real.shape[1]]


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
    depth: int = dataset.bits  # type: ignore[union-attr]
    compared, stride = audio_losses(experiment), frames_at_once(parts, experiment)
    distances = None if MEL not in compared else compared[MEL].built_from.build(parts.networks).distances
    total, limit = len(loader), experiment.options.eval.max_batches
    numbers = range(total) if limit is None or limit >= total else [n * total // limit for n in range(limit)]
    for number in numbers:
        ways = list(copies(loader.batch(number), judged, split, stride))
        if not ways:
            break
        for title, copy, real, mask in ways:
            found.setdefault(title, CopyFigures()).add(copy, real, mask, depth, codes, distances)
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


def audio_losses(experiment: Experiment) -> dict[str, LossEntry]:
    """The losses that compare what a network made with the real audio to be predicted, by what they measure."""
    found: dict[str, LossEntry] = {}
    for entry in (loss for step in experiment.steps for loss in step.losses):
        component = entry.built_from
        square = issubclass(component.cls, PixLoss) and component.options.get("criterion") == "l2"
        name = SQUARE if square else MEL if component.cls is MelDistanceLoss else None
        if name and "fake" in entry.reads and _is_predicted_audio(experiment, entry.reads["real"]):
            found.setdefault(name, entry)
    return found


def _makers(experiment: Experiment) -> dict[str, Entry]:
    """Which injector writes a key."""
    return {key: entry for step in experiment.steps for entry in step.injectors for key in entry.flags.out}


def _is_predicted_audio(experiment: Experiment, key: str) -> bool:
    makers = _makers(experiment)
    while key in makers and makers[key].built_from.type in STILL_AUDIO:
        key = makers[key].flags.in_[0]
    return key in [after for _, after, _ in CONTINUED]


def frames_at_once(parts: Parts, experiment: Experiment) -> int:
    """How many frames the model makes at once: 0 for all of an item, of which it knows no real one."""
    makers, waiting = _makers(experiment), [entry.reads["fake"] for entry in audio_losses(experiment).values()]
    if not waiting:
        return 1
    known: set[str] = set()
    while waiting:
        key = waiting.pop()
        if key not in known and key in makers:
            waiting += makers[key].flags.in_
        known.add(key)
    if not known & {"wav", *(after for _, after, _ in CONTINUED)}:
        return 0
    coders = [parts.networks[entry.built_from.options["autoencoder"].name] for key in known
              if (entry := makers.get(key)) and entry.built_from.type == "encode_latents"]  # fmt: skip
    return int(coders[0].stride) if coders else 1  # type: ignore[arg-type]


def _injector(experiment: Experiment, types: tuple[str, ...]) -> Entry | None:
    """The first injector of one of these types."""
    entries = [entry for step in experiment.steps for entry in step.injectors]
    return next((entry for entry in entries if entry.built_from.type in types), None)


def report(
    parts: Parts, experiment: Experiment, best: dict[str, float] | None, metrics: Path | None = None
) -> list[str]:
    """Lines for the end of a run: what copying reaches, beside the model's best validation.

    metrics: the run's figures, among which those of its losses of audio stand.
    """
    found = {title: figures for title, figures in measure(parts, experiment).items() if figures.samples}
    if not found:
        return []
    in_bits = any(loss.loss.measures_bits for step in parts.steps for loss in step.losses)
    in_bits = in_bits and _injector(experiment, CODERS) is not None and experiment.options.eval.best_by is None
    model = model_figures(experiment, best, metrics)
    samples = int(next(iter(found.values())).samples)
    lines = [f"copying, on the same {samples:,} samples (differences by the best geometric code of each item):"]
    width = max(len(title) for title in found)
    for title, figures in found.items():
        bits, shown = figures.bits / figures.samples, figures.shown()
        line = f"  {title:<{width}}  {bits:7.3f} bits/sample" + "".join(f"  {k} {v:.3g}" for k, v in shown.items())
        if in_bits and best is not None:
            share = 100 * best["value"] / bits if bits else math.inf
            line += f"  (the model: {best['value']:.3f}, {share:.1f} % of it)"
        both = [(k, model[k], 100 * model[k] / v if v else math.inf) for k, v in shown.items() if k in model]
        if both:
            line += "  (the model: " + "; ".join(f"{k} {own:.3g}, {part:.1f} % of it" for k, own, part in both) + ")"
        lines.append(line)
    return lines


def model_figures(experiment: Experiment, best: dict[str, float] | None, metrics: Path | None) -> dict[str, float]:
    """What the losses of audio were at the best validation, by what they measure."""
    if best is None or metrics is None or not metrics.is_file():
        return {}
    lines = [line for line in read_metrics(metrics) if line.get("split") == "val" and line["step"] == best["step"]]
    names = [loss.name for step in experiment.steps for loss in step.losses]
    titles = {kind: entry.name for kind, entry in audio_losses(experiment).items() if names.count(entry.name) == 1}
    return {kind: lines[-1][name] for kind, name in titles.items() if lines and name in lines[-1]}
