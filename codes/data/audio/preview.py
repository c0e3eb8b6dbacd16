"""What ``python -m codes.data.audio.NAME`` prints: a dataset's options from its constructor, its files, items, speed.

The command line's options are the constructor's arguments, so that a new dataset gets all of this from three lines::

    if __name__ == "__main__":
        from codes.data.audio import preview

        preview.main("stereo_chunk")
"""

import argparse
import time
import types
import typing
from pathlib import Path
from typing import Any

import numpy as np

from codes import registry
from codes.convert import Converter
from codes.data.audio import picture
from codes.data.dataset import SKIPPED, Dataset, warnings_in_report
from codes.yaml_source import OptionError, parse_yaml

_NUM_PICTURED = 3  # items, or fewer where they would be too high
_MOST_PIXELS = 2100  # height of the picture
_WAVEFORM_PIXELS, _SPECTROGRAM_PIXELS = 80, 200  # height of a channel
_LEAST_SCALE = 0.1  # of those heights, for items of many channels
_MOST_CHANNELS = 32  # of sound; what has more rows is a spectrogram
_TIMED_SECONDS = 1.0


def main(name: str, arguments: list[str] | None = None) -> None:
    """Show the dataset of that name. Bad input ends with exit status 2 and one line on stderr.

    Args:
        name: the dataset's name in the registry.
        arguments: the command line, by default the process's own.
    """
    cls = registry.find("dataset", name)
    if cls is None:
        reasons = "; ".join(registry.broken().values())
        raise SystemExit(f"no dataset {name!r}: {reasons or ', '.join(registry.classes('dataset'))}")
    parser = _parser(name, cls)
    options = vars(parser.parse_args(arguments))
    out, num_items = Path(options.pop("out")), options.pop("items")
    try:
        with warnings_in_report():
            dataset = cls(**{key: value for key, value in options.items() if value is not None})
        _show(dataset, num_items, out)
    except (ValueError, OSError) as error:
        parser.exit(2, f"error: {error}\n")


def _parser(name: str, cls: type) -> argparse.ArgumentParser:
    about = registry.summary(cls).split("\n\n")[0]
    parser = argparse.ArgumentParser(prog=f"python -m codes.data.audio.{name}", description=about)
    for option in registry.options_of(cls).values():
        default = "" if option.required else f" (default: {option.default})"
        flags = dict.fromkeys(["--" + option.name.replace("_", "-"), "--" + option.name])  # the YAML's way as well
        text = (option.doc + default).replace("%", "%%")
        parser.add_argument(*flags, required=option.required, help=text, **_argument(option.annotation))
    parser.add_argument("--items", type=int, default=5, help="how many items to list (default: 5)")
    parser.add_argument("--out", default=f"{name}_preview.png", help="the picture (default: %(default)s)")
    return parser


def _argument(annotation: Any) -> dict[str, Any]:
    """argparse's settings for a type: what is no path and no text is written as in the YAML."""
    members = [member for member in _members(annotation) if member is not types.NoneType]
    if any(member in (str, Path) for member in members):
        lists = any(typing.get_origin(member) is list for member in members)
        return {"type": Path if Path in members else str, **({"nargs": "+"} if lists else {})}
    if members == [bool]:
        return {"action": argparse.BooleanOptionalAction}
    return {"type": lambda text: _from_yaml(text, annotation), "metavar": _placeholder(members)}


def _members(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of an annotation, without their ranges."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _members(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(inner for member in typing.get_args(annotation) for inner in _members(member))
    return (annotation,)


def _placeholder(members: list[Any]) -> str:
    """What stands for the value in the help: the words that are allowed, or the kind of value."""
    words = [str(word) for member in members if typing.get_origin(member) is typing.Literal
             for word in typing.get_args(member)]  # fmt: skip
    return "{" + ",".join(words) + "}" if words and len(members) == 1 else "|".join([*words, "VALUE"])


def _from_yaml(text: str, annotation: Any) -> Any:
    """A value as it would stand in the YAML: ``16``, ``[0, 20]``, ``{select: [0, 1]}``."""
    problems: list[Any] = []
    try:
        value = Converter(problems, []).convert(parse_yaml(text, "<command line>", problems), annotation, "it")
    except OptionError as error:
        raise argparse.ArgumentTypeError(error.problems[0][1]) from error
    if problems:
        raise argparse.ArgumentTypeError("; ".join(message for _, message in problems))
    return value


def _show(dataset: Dataset, num_items: int, out: Path) -> None:
    """Print what the dataset found, some items and its speed; write the picture."""
    for line in getattr(dataset, "report", list)():
        print(line)
    indices = np.unique(np.linspace(0, len(dataset) - 1, min(num_items, len(dataset))).astype(int))
    items = [dataset.item(int(index), np.random.default_rng(int(index))) for index in indices]
    for item in items:
        item.pop(SKIPPED, None)
    print(f"\nitems {', '.join(map(str, indices))} of {len(dataset)}:")
    for row in _table(items):
        print(row)
    print(f"\n{_items_per_second(dataset):.0f} items/s on one core")
    pictured = _sounds(items[0]) or _bands(items[0])
    if pictured:
        shown = items[: _num_pictured(items, pictured)]
        picture.save_png(out, _picture(shown, pictured, getattr(dataset, "bits", 16)))
        number = "1 item" if len(shown) == 1 else f"{len(shown)} items, one below the other"
        print(f"wrote {out}: {', '.join(pictured)} of {number}")


def _table(items: list[dict[str, Any]]) -> list[str]:
    rows = [("key", "shape", "dtype", "range over these items")]
    for key in items[0]:
        values = [item[key] for item in items]
        rows.append((key, *_describe(values)))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)), row[3]]) for row in rows
    ]


def _describe(values: list[Any]) -> tuple[str, str, str]:
    """Shape, dtype and range of one key's values."""
    if isinstance(values[0], str):
        return "-", "str", ", ".join(sorted(set(values))[:3])
    arrays = [np.asarray(value) for value in values]
    lowest, highest = min(array.min() for array in arrays), max(array.max() for array in arrays)
    shape = "-" if arrays[0].ndim == 0 else str(arrays[0].shape)
    dtype = str(arrays[0].dtype) if arrays[0].ndim else type(values[0]).__name__
    return shape, dtype, f"{lowest} .. {highest}"


def _items_per_second(dataset: Dataset) -> float:
    rng = np.random.default_rng(0)
    start_s, count = time.perf_counter(), 0
    while time.perf_counter() - start_s < _TIMED_SECONDS:
        dataset.item(count % len(dataset), rng)
        count += 1
    return count / (time.perf_counter() - start_s)


def _sounds(item: dict[str, Any]) -> list[str]:
    """The keys that hold sound: floats or integers of at most 32 bits (C, T)."""
    tables = [(key, value) for key, value in _tables(item) if value.dtype != np.int64]  # those are codes
    return [key for key, value in tables if value.dtype.kind in "if" and len(value) <= _MOST_CHANNELS]


def _bands(item: dict[str, Any]) -> list[str]:
    """The keys that hold a spectrogram: floats (bands, frames)."""
    return [key for key, value in _tables(item) if value.dtype.kind == "f" and len(value) > _MOST_CHANNELS]


def _tables(item: dict[str, Any]) -> list[tuple[str, np.ndarray]]:
    return [(key, v) for key, v in item.items() if isinstance(v, np.ndarray) and v.ndim == 2 and v.size]


def _heights(item: dict[str, Any], keys: list[str]) -> tuple[int, int]:
    """Pixels of an item's channels, and of what stands around them: titles, seconds, gaps."""
    num_channels = sum(len(item[key]) for key in keys)
    return num_channels * (_WAVEFORM_PIXELS + _SPECTROGRAM_PIXELS), 48 * len(keys) + 8 * num_channels


def _num_pictured(items: list[dict[str, Any]], keys: list[str]) -> int:
    """How many items the picture has room for; at least one."""
    heights = np.cumsum([sum(_heights(item, keys)) for item in items[:_NUM_PICTURED]])
    return max(1, int((heights <= _MOST_PIXELS).sum()))


def _picture(items: list[dict[str, Any]], keys: list[str], bits: int) -> np.ndarray:
    """Waveform and spectrogram of each item's sounds."""
    images = []
    for item in items:
        rate_hz = int(item.get("sample_rate", 44_100))
        panels, around = _heights(item, keys)
        scale = min(1.0, max(_LEAST_SCALE, (_MOST_PIXELS - around) / panels))
        for key in keys:
            if len(item[key]) > _MOST_CHANNELS:
                images.append(picture.titled_image(picture.bands_image(item[key]), f"{key}, bands over frames"))
                continue
            wav = item[key] if item[key].dtype.kind == "f" else item[key] / 2.0 ** (bits - 1)
            title = f"{key}  {Path(item.get('path', '')).name}"
            waveform = picture.waveform_image(wav, rate_hz, height=int(scale * _WAVEFORM_PIXELS))
            images.append(picture.titled_image(waveform, title))
            images.append(picture.spectrogram_image(wav, rate_hz, height=int(scale * _SPECTROGRAM_PIXELS)))
    return picture.stack_images(images)
