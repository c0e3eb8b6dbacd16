"""What a search found: a ranked table, the same as CSV, and a picture of parallel coordinates."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np

from codes.trainer.sweep_space import Dimension

_WIDTH, _HEIGHT = 150, 420  # pixels between axes, and of an axis
_LEFT, _TOP, _FOOT = 80, 46, 34
_INK, _PAPER, _GREY = (30, 30, 30), (255, 255, 255), (190, 190, 190)


def ranked(trials: list[Any]) -> list[Any]:
    """Completed trials, best first, then those that were stopped, the furthest first, then those that failed."""
    ended = [trial for trial in trials if trial.state.name in ("COMPLETE", "PRUNED", "FAIL")]
    return sorted(ended, key=lambda trial: (_order(trial), -(trial.last_step or 0), value_of(trial) or math.inf))


def _order(trial: Any) -> int:
    return ("COMPLETE", "PRUNED", "FAIL").index(trial.state.name)


def value_of(trial: Any) -> float | None:
    """A trial's figure: the best of a completed one, the last of one that was stopped."""
    if trial.state.name == "COMPLETE":
        return trial.value
    return trial.intermediate_values[trial.last_step] if trial.intermediate_values else None


def rows(trials: list[Any], space: list[Dimension]) -> list[list[str]]:
    """The table, with a heading."""
    table = [["rank", "trial", "figure", "steps", "state", *_short_names(space)]]
    for rank, trial in enumerate(ranked(trials), 1):
        value = value_of(trial)
        state = {"COMPLETE": "done", "PRUNED": "stopped", "FAIL": "failed"}[trial.state.name]
        values = [_shown(trial.params.get(dimension.key, "")) for dimension in space]
        place = str(rank) if state == "done" else ""
        shown = "" if value is None else f"{value:.4f}"
        table.append([place, str(trial.number), shown, str(trial.last_step or 0), state, *values])
    return table


def _short_names(space: list[Dimension]) -> list[str]:
    """Each key's last part, with as much before it as tells it from the others."""
    parts = [dimension.key.split(".") for dimension in space]
    names = []
    for own in parts:
        length = 1
        while sum(other[-length:] == own[-length:] for other in parts) > 1:
            length += 1
        names.append(".".join(own[-length:]))
    return names


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table_text(table: list[list[str]]) -> str:
    """Columns side by side."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def write(folder: Path, trials: list[Any], space: list[Dimension]) -> str:
    """Write table.csv and parallel.png; returns the table as text."""
    from codes.data.audio.picture import save_png

    table = rows(trials, space)
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(table)
    if any(value_of(trial) is not None for trial in trials):
        save_png(folder / "parallel.png", parallel_coordinates(trials, space))
    return table_text(table)


def parallel_coordinates(trials: list[Any], space: list[Dimension]) -> np.ndarray:
    """A line for each trial over an axis for each key and one for the figure; the best is drawn last and thickest.

    Returns:
        uint8 (H, W, 3).
    """
    from PIL import Image, ImageDraw

    shown = [trial for trial in ranked(trials) if value_of(trial) is not None]
    axes = [_Axis.of(name, dimension) for name, dimension in zip(_short_names(space), space, strict=True)]
    axes.append(_Axis.of_figure([float(value_of(trial) or 0) for trial in shown]))
    size = (2 * _LEFT + _WIDTH * (len(axes) - 1), _TOP + _HEIGHT + _FOOT)
    image = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(image)
    for rank, trial in reversed(list(enumerate(shown))):
        values = [trial.params[dimension.key] for dimension in space] + [value_of(trial)]
        points = [
            (_LEFT + _WIDTH * n, axis.height(value)) for n, (axis, value) in enumerate(zip(axes, values, strict=True))
        ]
        done = trial.state.name == "COMPLETE"
        draw.line(points, fill=_colour(rank / max(len(shown) - 1, 1)) if done else _GREY, width=4 if rank == 0 else 2)
    for number, axis in enumerate(axes):
        x = _LEFT + _WIDTH * number
        draw.line([(x, _TOP), (x, _TOP + _HEIGHT)], fill=_INK, width=1)
        draw.text((x, 12), axis.name, fill=_INK, anchor="mt")
        for value, text in axis.ticks:
            draw.line([(x - 4, axis.height(value)), (x + 4, axis.height(value))], fill=_INK)
            place = (x - 7, axis.height(value))
            draw.rectangle(draw.textbbox(place, text, anchor="rm"), fill=_PAPER)
            draw.text(place, text, fill=_INK, anchor="rm")
    draw.text((_LEFT, _TOP + _HEIGHT + 16), f"{len(shown)} trials; blue: best, red: worst, grey: stopped", fill=_INK)
    return np.asarray(image)


def _colour(share: float) -> tuple[int, int, int]:
    """Blue for the best (0) over grey-violet to red for the worst (1)."""
    return int(30 + 200 * share), int(90 - 40 * share), int(220 - 170 * share)


class _Axis:
    """Where values stand on an axis, low ones below.

    Args:
        name: what stands above it.
        places: of values: a number for each choice, or a function's of them.
        ticks: values that are written.
    """

    def __init__(self, name: str, places: dict[Any, float] | None, low: float, high: float, log: bool) -> None:
        self.name, self.places, self.log = name, places, log
        self.low, self.high = (self._scale(low), self._scale(high)) if places is None else (low, high)
        ends = [low, high] if low != high else [low]
        middle = math.sqrt(low * high) if log and places is None else (low + high) / 2
        numbers = ends if low == high else [low, middle, high]
        self.ticks = [(v, str(v)) for v in places] if places else [(v, f"{v:.4g}") for v in numbers]

    @classmethod
    def of(cls, name: str, dimension: Dimension) -> "_Axis":
        """The axis of a key of the space."""
        if dimension.choices:
            places = {choice: float(number) for number, choice in enumerate(dimension.choices)}
            return cls(name, places, 0.0, float(len(places) - 1), False)
        return cls(name, None, dimension.low, dimension.high, dimension.log)

    @classmethod
    def of_figure(cls, values: list[float]) -> "_Axis":
        """The axis of what the trials reached."""
        return cls("figure", None, min(values), max(values), False)

    def _scale(self, value: float) -> float:
        return math.log(value) if self.log else float(value)

    def height(self, value: Any) -> float:
        """Pixels from the top."""
        place = self.places[value] if self.places is not None else self._scale(value)
        share = (place - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return _TOP + _HEIGHT * (1 - share)
