"""`--check` and `--replay`: one real batch through every step, and a table of what flowed where."""

from pathlib import Path

import torch

from codes import registry
from codes.entries import Experiment, StepEntry
from codes.trainer import checkpoint as checkpoints
from codes.trainer import cost, wandb_log
from codes.trainer.build import Parts, build
from codes.trainer.eight_bit import AdamW8bit
from codes.trainer.evaluation import dataset_lines
from codes.trainer.nonfinite import find_nonfinite, first_nonfinite
from codes.trainer.optim import Updater
from codes.trainer.sampling import make_sampler
from codes.trainer.trace import Record, trace
from codes.yaml_source import Mark, OptionError


def check(experiment: Experiment, devices: int | None = None, gpu: str | None = None) -> str:
    """Build the experiment, push one batch through every step, and describe what happened.

    Args:
        devices, gpu: reckon what it would cost on so many GPUs, and on that one.

    Raises:
        OptionError: an entry cannot be built.
    """
    wandb_log.require_package(experiment)
    parts = build(experiment)
    options = experiment.options
    records = _trace_or_explain(experiment, parts)
    if options.samples is not None:
        make_sampler(experiment, parts)
    lines = [f"{experiment.file}: {options.name}"]
    lines += dataset_lines(parts)
    micro = options.train.mega_batch_factor
    lines += ["", f"one batch of {options_batch(experiment)} in {micro} micro-batch(es), the first one:"]
    lines += table(["key", "shape", "made by", "line", "read by"], [_row(record, experiment) for record in records])
    lines += [
        "",
        *table(["network", "parameters", "trained", "weights", "gradients", "optimizer"], _network_rows(parts)),
    ]
    lines += ["", *parts.notes]
    if devices is not None or gpu is not None:
        lines += [*_cost(experiment, parts, devices or 1, gpu), ""]
    lines.append(_verdict(parts, records))
    return "\n".join(lines)


def _cost(experiment: Experiment, parts: Parts, devices: int, gpu: str | None) -> list[str]:
    try:
        return cost.lines(experiment, parts, devices, gpu)
    except ValueError as error:
        raise OptionError([(experiment.datasets["train"].mark, str(error))]) from error


def _trace_or_explain(experiment: Experiment, parts: Parts) -> list[Record]:
    """Trace the first batch; what an injector, a loss or the data raises becomes a located problem."""
    try:
        return trace(parts, parts.train_loader.batch(0), 1, 0, experiment.options.train.mega_batch_factor)
    except Exception as error:
        problem = located(experiment, error) or (experiment.datasets["train"].mark, registry.reason(error))
        raise OptionError([problem]) from error


def located(experiment: Experiment, error: Exception) -> tuple[Mark, str] | None:
    """What an injector or a loss of the experiment raised, with its place in the YAML; None for other errors."""
    places = {str(entry.mark): entry for step in experiment.steps for entry in [*step.injectors, *step.losses]}
    for note in getattr(error, "__notes__", []):
        for text, entry in places.items():
            if note.endswith(f", {text}"):
                return entry.mark, f"{entry.name}: {registry.reason(error)}"
    return None


def options_batch(experiment: Experiment) -> int:
    """The training batch size."""
    return int(experiment.datasets["train"].flags.batch_size)


def _verdict(parts: Parts, records: list[Record]) -> str:
    finite = all(record.finite() for record in records)
    return "everything checks" if finite else f"warning: {first_nonfinite(parts, records)}"


def _row(record: Record, experiment: Experiment) -> list[str]:
    maker = f"{record.step}.{record.maker}" if record.maker else "dataset"
    line = str(record.mark.line) if record.mark else str(experiment.datasets["train"].mark.line)
    shape = record.shape()
    if record.key.startswith("loss "):
        shape = f"{float(record.value):.4f}"
    return [record.key, shape, maker, line, ", ".join(_readers(record.key, experiment.steps))]


def _readers(key: str, steps: list[StepEntry]) -> list[str]:
    found = []
    for step in steps:
        found += [f"{step.name}.{entry.name}" for entry in step.injectors if key in entry.flags.in_]
        found += [f"{step.name}.{loss.name}" for loss in step.losses if key in loss.reads.values()]
    return found


def _network_rows(parts: Parts) -> list[list[str]]:
    rows = []
    for name, network in parts.networks.items():
        updaters = parts.updaters.get(name, [])
        trained = {id(p): p for updater in updaters for p in updater.parameters}.values()
        rows.append([
            name, f"{sum(p.numel() for p in network.parameters()):,}", f"{sum(p.numel() for p in trained):,}",
            _size(cost.bytes_of(network.parameters())), _size(cost.bytes_of(trained)),
            _size(sum(_state_bytes(updater) for updater in updaters)),
        ])  # fmt: skip
    return rows


def _state_bytes(updater: Updater) -> int:
    """Memory that an optimizer's state takes once it has run: two moments for AdamW, one for the others."""
    if isinstance(updater.optimizer, AdamW8bit):
        return round(cost.MOMENTS["adamw8bit"] * cost.bytes_of(updater.parameters))
    moments = 2 if isinstance(updater.optimizer, torch.optim.AdamW) else 1
    return moments * cost.bytes_of(updater.parameters)


def _size(number: int) -> str:
    return f"{number / 2**20:.1f} MiB"


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Aligned columns as lines of text."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    rule = ["-" * width for width in widths]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, rule, *rows)
    ]


def replay(experiment: Experiment, checkpoint: Path) -> str:
    """Load a checkpoint's weights, trace the batch that it stopped at, and show every value's range.

    Args:
        checkpoint: a checkpoint folder, such as a run leaves under ``nonfinite/``.
    """
    checkpoints.verify(checkpoint)
    parts = build(experiment)
    for name, network in parts.networks.items():
        path = checkpoint / f"{name}.safetensors"
        if path.is_file():
            checkpoints.fit_weights(network, name, checkpoints.load_weights(path), path, strict=True)
    number = checkpoints.step_of(checkpoint)
    batch = parts.train_loader.batch(number - 1)
    records, found = find_nonfinite(experiment, parts, batch, number)
    rows = [[record.key, record.shape(), _range(record), str(record.mark or "dataset")] for record in records]
    return "\n".join([f"batch {number} of {experiment.file}", *table(["key", "shape", "range", "line"], rows),
                      found])  # fmt: skip


def _range(record: Record) -> str:
    value = record.value
    if not isinstance(value, torch.Tensor) or value.numel() == 0 or value.dtype == torch.bool:
        return ""
    return f"{float(value.min()):.6g} .. {float(value.max()):.6g}"
