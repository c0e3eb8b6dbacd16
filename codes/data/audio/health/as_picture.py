"""A diagnosis as a picture: lengths, bandwidths against sample rates, levels, and findings by kind.

Four panels, drawn with PIL in the colours of `codes.data.audio.picture`.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from codes.data.audio.health.as_text import counts, duration, printable
from codes.data.audio.health.diagnosis import TITLES, Diagnosis, verdict
from codes.data.audio.picture import colours

_WIDTH, _HEIGHT = 1280, 900
_PANEL = (600, 370)  # pixels
_PLOT = (70, 44, 14, 40)  # margins within a panel: left, top, right, bottom
_PAPER, _PLOT_PAPER, _INK, _FAINT = (14, 13, 22), (24, 22, 36), (232, 230, 238), (134, 130, 150)
_SEVERITY = {"error": (236, 72, 84), "warning": (247, 168, 76), "note": (104, 160, 214)}
_GOOD = (104, 196, 140)
_MOST_BARS = 14
_DOT = 4  # pixels
_ROUND_SECONDS = (0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 36000.0)


def picture(diagnosis: Diagnosis) -> np.ndarray:
    """uint8 (900, 1280, 3)."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (_WIDTH, _HEIGHT), _PAPER)
    draw = ImageDraw.Draw(image)
    _title(draw, diagnosis)
    for number, panel in enumerate((_lengths, _bandwidths, _levels, _kinds)):
        left, top = 26 + (number % 2) * (_PANEL[0] + 28), 92 + (number // 2) * (_PANEL[1] + 24)
        panel(_Panel(draw, left, top), diagnosis)
    return np.asarray(image)


class _Panel:
    """One panel with a plot in it, whose coordinates run from 0 to 1, y upwards."""

    def __init__(self, draw: Any, left: int, top: int) -> None:
        self.draw = draw
        self.corner = (left, top)
        self.left, self.top = left + _PLOT[0], top + _PLOT[1]
        self.right, self.bottom = left + _PANEL[0] - _PLOT[2], top + _PANEL[1] - _PLOT[3]

    def frame(self, title: str, below: str = "") -> None:
        self.draw.rectangle((self.left, self.top, self.right, self.bottom), fill=_PLOT_PAPER)
        _text(self.draw, (self.corner[0] + 4, self.corner[1] + 10), title, 17, _INK)
        _text(self.draw, ((self.left + self.right) // 2, self.bottom + 22), below, 12, _FAINT, "ma")

    def x(self, share: float) -> float:
        return self.left + share * (self.right - self.left)

    def y(self, share: float) -> float:
        return self.bottom - share * (self.bottom - self.top)

    def x_tick(self, share: float, name: str) -> None:
        self.draw.line((self.x(share), self.bottom, self.x(share), self.bottom + 4), fill=_FAINT)
        _text(self.draw, (self.x(share), self.bottom + 6), name, 12, _FAINT, "ma")

    def y_tick(self, share: float, name: str) -> None:
        self.draw.line((self.left, self.y(share), self.right, self.y(share)), fill=(44, 41, 60))
        _text(self.draw, (self.left - 8, self.y(share)), name, 12, _FAINT, "rm")

    def dot(self, x: float, y: float, colour: tuple[int, int, int]) -> None:
        x, y = self.x(x), self.y(y)
        self.draw.ellipse((x - _DOT, y - _DOT, x + _DOT, y + _DOT), fill=colour, outline=_PLOT_PAPER)


def _text(draw: Any, place: tuple[float, float], text: str, size: int, colour: Any, anchor: str = "la") -> None:
    from PIL import ImageFont

    draw.text(place, printable(text), font=ImageFont.load_default(size), fill=colour, anchor=anchor)


def _title(draw: Any, diagnosis: Diagnosis) -> None:
    names = ", ".join(root.name or str(root) for root in diagnosis.roots)
    shown = names if len(names) <= 60 else f"{names[:57]}..."
    _text(draw, (30, 18), f"{shown}: {counts(diagnosis)[0][1]}", 23, _INK)
    is_safe = diagnosis.is_safe()
    text = verdict(diagnosis)
    text = text if len(text) <= 165 else f"{text[:162]}..."
    _text(draw, (30, 54), text, 14, _GOOD if is_safe else _SEVERITY["error"])


def _lengths(panel: _Panel, diagnosis: Diagnosis) -> None:
    """How many files have which length, on a logarithmic scale."""
    panel.frame("length of files", "duration, logarithmic")
    seconds = np.array([file.seconds for file in diagnosis.files if file.seconds > 0])
    if len(seconds) == 0:
        return
    low, high = math.log(seconds.min() / 1.3), math.log(seconds.max() * 1.3)
    numbers, _ = np.histogram(np.log(seconds), bins=28, range=(low, high))
    most = int(numbers.max())
    for share in _round_shares(most):
        panel.y_tick(0.94 * share / most, f"{share:g}")
    for number, count in enumerate(numbers):
        if count:
            box = (panel.x(number / 28) + 1, panel.y(0.94 * count / most), panel.x((number + 1) / 28) - 1, panel.bottom)
            panel.draw.rectangle(box, fill=tuple(colours(np.array(0.35 + 0.45 * count / most)).tolist()))
    places = [at for at in _ROUND_SECONDS if low <= math.log(at) <= high]
    for at in places if len(places) > 1 else np.exp([low + 0.1 * (high - low), high - 0.1 * (high - low)]):
        panel.x_tick((math.log(at) - low) / (high - low), duration(at) if at >= 1 else f"{at:.2g} s")


def _round_shares(most: int) -> list[int]:
    """Up to five round numbers up to ``most``."""
    step = next(
        step for step in (factor * 10**power for power in range(12) for factor in (1, 2, 5)) if most <= 5 * step
    )
    return list(range(0, most + 1, step))


def _bandwidths(panel: _Panel, diagnosis: Diagnosis) -> None:
    """Each file's bandwidth in the column of its sample rate; a line where half the rate is."""
    panel.frame("bandwidth against sample rate", "sample rate; dots are files, the line is half the rate")
    files = [file for file in diagnosis.readable if file.measures and file.measures.band]
    rates = sorted({file.info.sample_rate_hz for file in files if file.info})
    if not rates:
        return
    top_hz = 1.06 * rates[-1] / 2
    for hz in range(0, int(top_hz) + 1, 4000 if top_hz < 30000 else 8000):
        panel.y_tick(hz / top_hz, f"{hz // 1000} kHz" if hz else "0")
    worst = _worst(diagnosis, "band_limited")
    for number, rate in enumerate(rates):
        middle = (number + 0.5) / len(rates)
        half = 0.42 / len(rates)
        panel.x_tick(middle, f"{rate / 1000:g} kHz")
        line = (panel.x(middle - half), panel.y(rate / 2 / top_hz), panel.x(middle + half), panel.y(rate / 2 / top_hz))
        panel.draw.line(line, fill=_FAINT)
        column = [file for file in files if file.info and file.info.sample_rate_hz == rate]
        for place, file in enumerate(column):
            assert file.measures is not None
            assert file.measures.band is not None
            across = middle + half * (2.0 * (place + 0.5) / len(column) - 1.0)
            panel.dot(across, file.measures.band.bandwidth_hz / top_hz, worst.get(file.path, _GOOD))


def _levels(panel: _Panel, diagnosis: Diagnosis) -> None:
    """Each file's power against its peak, in dB."""
    panel.frame("level", "power in dB of full scale; upwards: peak in dB")
    measures = [(file.path, file.measures) for file in diagnosis.readable if file.measures and file.measures.peak]
    if not measures:
        return
    powers = np.array([measure.rms_db for _, measure in measures])
    peaks = np.array([20.0 * math.log10(measure.peak) for _, measure in measures])
    left, bottom = (10.0 * math.floor(min(-3.0, values.min() - 2.0) / 10.0) for values in (powers, peaks))
    for db in np.arange(left, 1.0, 10.0 if left > -90.0 else 20.0):
        panel.x_tick(1.0 - 0.97 * db / left, f"{db:g}")
    for db in np.arange(bottom, 1.0, 2.0 if bottom > -15.0 else 10.0 if bottom > -90.0 else 20.0):
        panel.y_tick(0.97 * (1.0 - db / bottom), f"{db:g}")
    worst = _worst(diagnosis, "clipping", "silent", "quiet", "silence", "offset")
    for (path, _), power, peak in zip(measures, powers, peaks, strict=True):
        panel.dot(1.0 - 0.97 * power / left, 0.97 * (1.0 - peak / bottom), worst.get(path, _GOOD))


def _worst(diagnosis: Diagnosis, *kinds: str) -> dict[Path, tuple[int, int, int]]:
    """The colour of each file that findings of these kinds are about; the worst finding decides."""
    found: dict[Path, tuple[int, int, int]] = {}
    for finding in diagnosis.findings:
        if finding.kind in kinds:
            for path in finding.files:
                found.setdefault(path, _SEVERITY[finding.severity])
    return found


def _kinds(panel: _Panel, diagnosis: Diagnosis) -> None:
    """How many files the findings of each kind are about, one where they are about none; the worst on top."""
    tally: dict[tuple[str, str], int] = {}
    for finding in diagnosis.findings:
        key = (finding.severity, TITLES[finding.kind])
        tally[key] = tally.get(key, 0) + max(1, len(finding.files))
    _text(panel.draw, (panel.corner[0] + 4, panel.corner[1] + 10), "findings, by files", 17, _INK)
    place = panel.corner[0] + _PANEL[0] - 14
    for severity in ("note", "warning", "error"):
        name = f"{diagnosis.count(severity)} {severity}{'' if diagnosis.count(severity) == 1 else 's'}"
        _text(panel.draw, (place, panel.corner[1] + 12), name, 14, _SEVERITY[severity], "ra")
        place -= 96
    if not tally:
        _text(panel.draw, (panel.x(0.4), panel.y(0.5)), "nothing was found", 15, _GOOD, "mm")
        return
    left, most = panel.corner[0] + 268, max(tally.values())
    pitch = min(29.0, (panel.bottom - panel.top) / min(len(tally), _MOST_BARS))
    for number, ((severity, title), count) in enumerate(list(tally.items())[:_MOST_BARS]):
        top = panel.top + 4 + number * pitch
        right = left + max(4.0, (panel.right - 40 - left) * count / most)
        _text(panel.draw, (left - 10, top + 0.35 * pitch), title, 13, _INK, "rm")
        panel.draw.rectangle((left, top, right, top + 0.7 * pitch), fill=_SEVERITY[severity])
        _text(panel.draw, (right + 8, top + 0.35 * pitch), str(count), 13, _INK, "lm")
    if len(tally) > _MOST_BARS:
        more = f"and {len(tally) - _MOST_BARS} more kinds"
        _text(panel.draw, (left, panel.bottom + 8), more, 13, _FAINT)
