"""When gradients are not finite again and again: which files, which key, which line, and how to replay it."""

import shlex
from pathlib import Path
from typing import Any

import torch

from codes.entries import Experiment
from codes.trainer.build import Parts
from codes.trainer.state import split_batch
from codes.trainer.step import batch_seed
from codes.trainer.trace import Record, trace

FINITE = "this batch is finite now: the cause is in dropout or in the loss scale"


class NonFiniteError(RuntimeError):
    """Too many updates in a row were skipped; the message says what was found."""


def explain(experiment: Experiment, parts: Parts, batch: dict[str, Any], number: int, checkpoint: Path) -> str:
    """Trace a batch and say where it first stops being finite.

    Args:
        batch: as the loader gave it.
        number: the step at which it was used.
        checkpoint: where the state at that step is kept, for the replay.
    """
    _, found = find_nonfinite(experiment, parts, batch, number)
    lines = [found]
    lines += [f"files of the batch: {', '.join(map(str, files))}" for files in _files(batch)]
    again = ["python", "train.py", "-opt", str(experiment.file), *experiment.overrides, "--replay", str(checkpoint)]
    lines.append(f"replay it with: {shlex.join(again)}")
    return "\n".join(lines)


def find_nonfinite(
    experiment: Experiment, parts: Parts, batch: dict[str, Any], number: int
) -> tuple[list[Record], str]:
    """Trace the micro-batches of a batch, with the seeds of training, until one is not finite.

    Returns:
        the records of that micro-batch, or else of the last, and what was found in a line.
    """
    options = experiment.options.train
    seed = batch_seed(options.manual_seed, number)
    records: list[Record] = []
    for micro in range(len(split_batch(batch, options.mega_batch_factor))):
        records = trace(parts, batch, number, seed, options.mega_batch_factor, micro)
        found = _search(parts, records)
        if found is not None:
            return records, found
    return records, FINITE


def first_nonfinite(parts: Parts, records: list[Record]) -> str:
    """The first key, or else the first parameter or gradient, that is not finite, with its YAML line."""
    return _search(parts, records) or FINITE


def _search(parts: Parts, records: list[Record]) -> str | None:
    for record in records:
        if not record.finite():
            bad = int((~torch.isfinite(record.value)).sum())
            where = f"{record.mark}, {record.maker} of step {record.step}" if record.mark else "the dataset"
            return f"first non-finite value: {record.key!r} {record.shape()}, {bad} of {record.value.numel()} ({where})"
    for name, network in parts.networks.items():
        for key, p in network.named_parameters():
            if not torch.isfinite(p).all():
                return f"first non-finite value: parameter {key} of network {name}"
            if p.grad is not None and not torch.isfinite(p.grad).all():
                return f"all values are finite; first non-finite gradient: parameter {key} of network {name}"
    return None


def _files(batch: dict[str, Any]) -> list[list[Any]]:
    found = batch.get("path", batch.get("filenames"))
    return [list(dict.fromkeys(found))] if isinstance(found, list) else []
