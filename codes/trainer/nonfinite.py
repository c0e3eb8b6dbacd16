"""When gradients are not finite again and again: which files, which key, which line, and how to replay it."""

import shlex
from pathlib import Path
from typing import Any

import torch

from codes.entries import Experiment
from codes.trainer.build import Parts
from codes.trainer.trace import Record, trace


class NonFiniteError(RuntimeError):
    """Too many updates in a row were skipped; the message says what was found."""


def explain(experiment: Experiment, parts: Parts, batch: dict[str, Any], number: int, checkpoint: Path) -> str:
    """Trace a batch and say where it first stops being finite.

    Args:
        batch: as the loader gave it.
        number: the step at which it was used.
        checkpoint: where the state at that step is kept, for the replay.
    """
    records = trace(parts, batch, number, 0, experiment.options.train.mega_batch_factor)
    lines = [first_nonfinite(parts, records)]
    lines += [f"files of the batch: {', '.join(map(str, files))}" for files in _files(batch)]
    again = ["python", "train.py", "-opt", str(experiment.file), *experiment.overrides, "--replay", str(checkpoint)]
    lines.append(f"replay it with: {shlex.join(again)}")
    return "\n".join(lines)


def first_nonfinite(parts: Parts, records: list[Record]) -> str:
    """The first key, or else the first parameter or gradient, that is not finite, with its YAML line."""
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
    return "this batch is finite with fresh random draws: the cause is in dropout or in the loss scale"


def _files(batch: dict[str, Any]) -> list[list[Any]]:
    found = batch.get("path", batch.get("filenames"))
    return [list(dict.fromkeys(found))] if isinstance(found, list) else []
