"""Line charts and bars as HTML with inline SVG.

The SVG is stretched to the width that there is, with strokes that keep their own; all text is HTML beside it, so that
it stays readable on a telephone. What the pointer reads out comes from the chart's data attribute (script.js).
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

Point = tuple[float, float]
MOST_POINTS = 600  # of a line: more than there are pixels
_SIZE = 1000  # of the SVG's own units
_PAD = 0.06  # of the range, left free above and below
_EDGE = 0.01  # of the width, left free on both sides
_EARLY = 0.2  # of the steps: may leave the chart at its top
_FEW = 8  # points of a line that is shown whole
_APART = 0.07  # of the height, between names of levels


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a chart.

    Args:
        name: in the legend.
        points: (x, y), by x.
        run: number of the run, which chooses the colour.
        look: train (thin), val (with dots) or faint.
    """

    name: str
    points: Sequence[Point]
    run: int = 0
    look: str = "train"


@dataclass(frozen=True, kw_only=True)
class Level:
    """A horizontal line: something to compare with.

    Args:
        name: in the legend.
        value: its height.
        run: number of the run that it belongs to; None: all.
        wanted: whether it must be in the picture.
    """

    name: str
    value: float
    run: int | None = None
    wanted: bool = False


def chart(
    title: str, lines: Sequence[Line], levels: Sequence[Level] = (), *, note: str = "", x_name: str = "step"
) -> str:
    """A chart; nothing where no line has a point.

    Args:
        title: above it.
        lines: what is drawn.
        levels: horizontal lines; those far outside are named in the legend alone.
        note: explains the title, or gives the unit.
        x_name: what x is, in the readout.
    """
    lines = [Line(name=line.name, points=thinned(line.points), run=line.run, look=line.look) for line in lines]
    lines = [line for line in lines if line.points]
    if not lines:
        return ""
    left = min(line.points[0][0] for line in lines)
    right = max(line.points[-1][0] for line in lines)
    right = right if right > left else left + 1
    edge = _EDGE * (right - left)  # dots stay whole
    low, high = _range(lines, levels)
    box = (left - edge, right + edge, low, high)
    drawn = "".join(_level(level, box) for level in levels) + "".join(_line(line, box) for line in lines)
    data = {
        "box": box, "x": x_name,
        "lines": [{"name": line.name, "run": line.run, "points": [_rounded(p) for p in line.points]} for line in lines],
    }  # fmt: skip
    return (
        f'<figure class="chart" data-chart="{escape(json.dumps(data))}"><figcaption><b>{escape(title)}</b> '
        f'<span class="note">{escape(note)}</span></figcaption>{_legend(lines, levels, low, high)}'
        f'<div class="frame">{_ticks(box)}{_level_names(levels, box)}'
        f'<svg viewBox="0 0 {_SIZE} {_SIZE}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(title)}">{_grid(box)}{drawn}</svg><i class="cursor"></i>'
        f'<output class="readout"></output></div></figure>'
    )


def thinned(points: Sequence[Point]) -> list[Point]:
    """Finite points; of very many, the least and the greatest of each stretch."""
    finite = [point for point in points if math.isfinite(point[1])]
    if len(finite) <= MOST_POINTS:
        return finite
    kept: list[Point] = []
    stretches = MOST_POINTS // 2
    for number in range(stretches):
        part = finite[number * len(finite) // stretches : (number + 1) * len(finite) // stretches]
        kept += sorted({min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])})
    return kept


def _range(lines: Sequence[Line], levels: Sequence[Level]) -> tuple[float, float]:
    """The heights that are shown: the first steps may begin above them, and levels far off stay outside."""
    late = [y for line in lines for x, y in line.points if x > _early(line) or len(line.points) <= _FEW]
    every = [y for line in lines for _, y in line.points]
    values = late or every
    low, high = min(every), max(values)
    span = (high - low) or abs(high) or 1.0
    if max(every) - high < 0.5 * span:
        high = max(every)
    for level in sorted(levels, key=lambda level: not level.wanted):
        near = low - span <= level.value <= high + span / 2
        if level.wanted or near:
            low, high = min(low, level.value), max(high, level.value)
    span = (high - low) or abs(high) or 1.0
    floor = 0.0 if 0 <= low <= 0.15 * span else low - _PAD * span
    return floor, high + _PAD * span


def _early(line: Line) -> float:
    return line.points[0][0] + _EARLY * (line.points[-1][0] - line.points[0][0])


def _place(point: Point, box: tuple[float, float, float, float]) -> tuple[float, float]:
    left, right, low, high = box
    return _SIZE * (point[0] - left) / (right - left), _SIZE * (high - point[1]) / (high - low)


def _line(line: Line, box: tuple[float, float, float, float]) -> str:
    places = [_place(point, box) for point in line.points]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    drawn = f'<path class="line {line.look} run-{line.run}" d="{path}"/>'
    if line.look == "val" or len(places) == 1:
        dots = "".join(f"M{x:.1f} {y:.1f}h.01" for x, y in places)
        drawn += f'<path class="dots run-{line.run}" d="{dots}"/>'
    return drawn


def _level(level: Level, box: tuple[float, float, float, float]) -> str:
    y = _place((box[0], level.value), box)[1]
    colour = "" if level.run is None else f" run-{level.run}"
    return f'<path class="level{colour}" d="M0 {y:.1f}H{_SIZE}"/>' if 0 <= y <= _SIZE else ""


def _level_names(levels: Sequence[Level], box: tuple[float, float, float, float]) -> str:
    """Names at the lines themselves, as far as there is room between them."""
    taken: list[float] = []
    names = ""
    for level in sorted(levels, key=lambda level: not level.wanted):
        at = _place((box[0], level.value), box)[1] / _SIZE
        if _APART <= at <= 1 and all(abs(at - other) >= _APART for other in taken):
            taken.append(at)
            colour = "" if level.run is None else f" run-{level.run}"
            names += f'<span class="name{colour}" style="top:{at:.2%}">{escape(level.name)}</span>'
    return names


def _legend(lines: Sequence[Line], levels: Sequence[Level], low: float, high: float) -> str:
    """Names of lines, and of levels with their values."""
    marks = [f'<span><i class="key {line.look} run-{line.run}"></i>{escape(line.name)}</span>' for line in lines]
    for level in levels:
        colour = "" if level.run is None else f" run-{level.run}"
        where = "" if low <= level.value <= high else " ↑" if level.value > high else " ↓"
        text = f"{level.name} {number_text(level.value)}{where}"
        marks.append(f'<span><i class="key level{colour}"></i>{escape(text)}</span>')
    starts = [line for line in lines if line.points[0][1] > high]
    if starts:
        first = max(line.points[0][1] for line in starts)
        marks.append(f'<span class="note">begins at {number_text(first)}, above the picture</span>')
    return f'<div class="legend">{"".join(marks)}</div>'


def _grid(box: tuple[float, float, float, float]) -> str:
    rows = [_place((box[0], value), box)[1] for value in ticks(box[2], box[3])]
    return f'<path class="grid" d="{"".join(f"M0 {y:.1f}H{_SIZE}" for y in rows)}"/>'


def _ticks(box: tuple[float, float, float, float]) -> str:
    left, right, low, high = box
    names = "".join(
        f'<span class="y" style="top:{_place((left, value), box)[1] / _SIZE:.2%}">{number_text(value)}</span>'
        for value in ticks(low, high)
    )
    for value in ticks(left, right):
        at = (value - left) / (right - left)
        names += f'<span class="x" style="left:{at:.2%}">{number_text(value)}</span>'
    return names


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round values between two others: steps of 1, 2 or 5 times a power of ten."""
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return [low]
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next((power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= most), 10 * power)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def number_text(value: float) -> str:
    """A number as people read it: thousands as k and M, four digits, small ones as powers."""
    size = abs(value)
    for limit, name in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= limit:
            return f"{value / (1e3 if name == 'k' else limit):.4g}{name}"
    return f"{value:.4g}"


def _rounded(point: Point) -> tuple[float, float]:
    return point[0], float(f"{point[1]:.6g}")


def bars(rows: Iterable[tuple[str, float, str]], unit: str = "") -> str:
    """Horizontal bars: (name, value, class), the longest as wide as there is room."""
    rows = [row for row in rows if math.isfinite(row[1])]
    longest = max((abs(value) for _, value, _ in rows), default=0) or 1.0
    items = "".join(
        f'<div class="bar {look}"><span>{escape(name)}</span><i style="width:{100 * abs(value) / longest:.1f}%"></i>'
        f"<b>{value:.3f}</b></div>"
        for name, value, look in rows
    )
    return f'<div class="bars" title="{escape(unit)}">{items}</div>' if items else ""
