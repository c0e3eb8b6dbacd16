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
from codes.data.audio import picture
from codes.data.dataset import Dataset

_NUM_PICTURED = 3
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
        dataset = cls(**{key: value for key, value in options.items() if value is not None})
        _show(dataset, num_items, out)
    except (ValueError, OSError) as error:
        parser.exit(2, f"error: {error}\n")


def _parser(name: str, cls: type) -> argparse.ArgumentParser:
    about = registry.summary(cls).split("\n\n")[0]
    parser = argparse.ArgumentParser(prog=f"python -m codes.data.audio.{name}", description=about)
    for option in registry.options_of(cls).values():
        default = "" if option.required else f" (default: {option.default})"
        flag = "--" + option.name.replace("_", "-")
        text = (option.doc + default).replace("%", "%%")
        parser.add_argument(flag, required=option.required, help=text, **_argument(option.annotation))
    parser.add_argument("--items", type=int, default=5, help="how many items to list (default: 5)")
    parser.add_argument("--out", default=f"{name}_preview.png", help="the picture (default: %(default)s)")
    return parser


def _argument(annotation: Any) -> dict[str, Any]:
    """argparse's settings for a type: scalars, Literal, list of scalars, and unions of them with None."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        members = [_argument(member) for member in inner if member is not types.NoneType]
        return next((member for member in members if "nargs" in member), members[0])
    if origin is typing.Literal:
        return {"type": type(inner[0]), "choices": inner}
    if origin is list:
        return {**_argument(inner[0]), "nargs": "+"}
    if annotation is bool:
        return {"action": argparse.BooleanOptionalAction}
    if annotation in (str, int, float, Path):
        return {"type": annotation}
    raise TypeError(f"no command line option for the type {annotation}")


def _show(dataset: Dataset, num_items: int, out: Path) -> None:
    """Print what the dataset found, some items and its speed; write the picture."""
    for line in getattr(dataset, "report", list)():
        print(line)
    indices = np.unique(np.linspace(0, len(dataset) - 1, min(num_items, len(dataset))).astype(int))
    items = [dataset.item(int(index), np.random.default_rng(int(index))) for index in indices]
    print(f"\nitems {', '.join(map(str, indices))} of {len(dataset)}:")
    for row in _table(items):
        print(row)
    print(f"\n{_items_per_second(dataset):.0f} items/s on one core")
    image = _picture(items[:_NUM_PICTURED], getattr(dataset, "bits", 16))
    if image is not None:
        picture.save_png(out, image)
        print(f"wrote {out}")


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


def _picture(items: list[dict[str, Any]], bits: int) -> np.ndarray | None:
    """Waveform and spectrogram of each item's ``wav``, or None where there is none."""
    if "wav" not in items[0]:
        return None
    images = []
    for item in items:
        wav = np.asarray(item["wav"]) / 2.0 ** (bits - 1)
        rate_hz = int(item.get("sample_rate", 44_100))
        images += [picture.waveform_image(wav, rate_hz), picture.spectrogram_image(wav, rate_hz)]
    return picture.stack_images(images)
