"""What a run left in its folder, as the report reads it: whatever is missing or broken is left out."""

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from codes.trainer.environment import recorded_environments
from codes.trainer.metrics import read_metrics

Series = list[tuple[int, float]]  # (step, value), by step
Curve = list[float | None]  # values by place
_MOST_HEADER_BYTES = 100_000_000  # of a safetensors file, as its own library has it


class ReportError(ValueError):
    """A folder that is no run."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """A run.

    Args:
        folder: where it is.
        name: what it is called.
        options: its options.yml.
        text: the same as it stands in the file.
        lines: of metrics.jsonl.
        baselines: figures of FLAC and of single samples; empty where they were not measured.
        best: value and step of the best validation, or None.
        environments: where it was computed, in order.
        parameters: numbers in each of its networks' files.
        log: lines of log.txt.
    """

    folder: Path
    name: str
    options: dict[str, Any]
    text: str
    lines: list[dict[str, Any]]
    baselines: dict[str, Any] = field(default_factory=dict)
    best: dict[str, float] | None = None
    environments: list[dict[str, Any]] = field(default_factory=list)
    parameters: dict[str, int] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)

    @property
    def steps(self) -> int:
        """The last step with a figure."""
        return max((line["step"] for line in self.lines), default=0)

    @property
    def planned_steps(self) -> int:
        """How many it was to have."""
        planned = self.option("train.niter")
        return planned if isinstance(planned, int) else self.steps

    def option(self, dotted: str, default: Any = None) -> Any:
        """A value of its options, by its keys joined by dots."""
        value: Any = self.options
        for key in dotted.split("."):
            if not isinstance(value, dict) or key not in value:
                return default
            value = value[key]
        return value

    def names(self, split: str) -> list[str]:
        """The figures of a split that are numbers, in the order in which they first come."""
        found = [key for line in self._of(split) for key, value in line.items() if _is_number(value) and key != "step"]
        return list(dict.fromkeys(found))

    def series(self, split: str, name: str) -> Series:
        """A figure of a split, by step."""
        return [(line["step"], float(line[name])) for line in self._of(split) if _is_number(line.get(name))]

    def curve_names(self) -> list[str]:
        """The validation figures that are lists."""
        return list(
            dict.fromkeys(k for line in self._of("val") for k, value in line.items() if isinstance(value, list))
        )

    def curves(self, name: str) -> list[tuple[int, Curve]]:
        """A validation figure that is a list, by step."""
        found = [(line["step"], line[name]) for line in self._of("val") if isinstance(line.get(name), list)]
        return [(step, [float(v) if _is_number(v) else None for v in values]) for step, values in found]

    def _of(self, split: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line.get("split") == split]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_run(folder: Path) -> Record:
    """Read a run's folder.

    Raises:
        ReportError: it has neither options nor figures.
    """
    options_file, metrics = folder / "options.yml", folder / "metrics.jsonl"
    if not options_file.is_file() and not metrics.is_file():
        raise ReportError(f"{folder} is no run: it has no options.yml and no metrics.jsonl")
    text = _text(options_file)
    options = _yaml(text)
    checkpoints = folder / "checkpoints"
    marks = _json(checkpoints / "marks.json")
    best = marks.get("best") if isinstance(marks, dict) else None
    baselines = _json(folder / "baselines.json")
    return Record(
        folder=folder, name=str(options.get("name") or folder.resolve().name), options=options, text=text,
        lines=[line for line in read_metrics(metrics) if isinstance(line["step"], int)] if metrics.is_file() else [],
        baselines=baselines.get("figures", {}) if isinstance(baselines, dict) else {},
        best=best if isinstance(best, dict) and all(_is_number(best.get(key)) for key in ("value", "step")) else None,
        environments=recorded_environments(folder), parameters=_parameters(checkpoints),
        log=_text(folder / "log.txt").splitlines(),
    )  # fmt: skip


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _yaml(text: str) -> dict[str, Any]:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path) or "null")
    except ValueError:
        return None


def _parameters(checkpoints: Path) -> dict[str, int]:
    """Numbers in each network's file of the newest checkpoint, from the files' headers; without moving averages."""
    found = sorted(path.parent for path in checkpoints.glob("step_*/manifest.json") if path.parent.suffix == "")
    files = sorted(found[-1].glob("*.safetensors")) if found else []
    counts = {path.stem: _count(path) for path in files if not path.stem.endswith("_ema")}
    return {name: count for name, count in counts.items() if count is not None}


def _count(path: Path) -> int | None:
    """Numbers in a safetensors file: the header is JSON, after its length as eight bytes."""
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            if size > _MOST_HEADER_BYTES:
                return None
            header = json.loads(file.read(size))
        shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
    except (OSError, ValueError, struct.error, KeyError, TypeError):
        return None
    total = 0
    for shape in shapes:
        product = 1
        for length in shape:
            product *= length
        total += product
    return total
