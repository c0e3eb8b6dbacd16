"""Which audio is for training and which for validation: by file, by folder, by a list, or an interval of each file.

Whichever it is, no frame is on both sides. Files and folders are ranked by a hash of their names, and the first ranks
validate, as many as the share of the duration asks for: a file more or less moves those at the border at most, and
never reshuffles the others. For a side that cannot move at all there is the list.
"""

import fnmatch
import hashlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from codes.data.audio.listing.index_entry import IndexEntry

SplitKind = Literal["file", "folder", "list", "interval"]
Sides = tuple[list[IndexEntry], list[IndexEntry]]


@dataclass(frozen=True, kw_only=True)
class Split:
    """How audio is divided.

    Args:
        by: "file": whole files; "folder": whole folders directly under the one that was searched (an artist, a
            speaker), a file that lies in none counting as one; "list": the files that a list names validate;
            "interval": a stretch of each file validates, and the rest of it trains.
        val_fraction: share of the duration that validates, 0 to 1; of each file for "interval".
        seed: which files or folders those are.
        val_list: for "list": a text file with a relative path or pattern (``*``, ``?``) a line; # for comments.
        val_position: for "interval": where the stretch lies in each file: 0 at its start, 0.5 in the middle, 1 at its
            end.

    Raises:
        ValueError: an option is out of range, or missing, or of another kind of split.
    """

    by: SplitKind = "file"
    val_fraction: float = 0.1
    seed: int = 0
    val_list: Path | None = None
    val_position: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 <= self.val_fraction <= 1.0:
            raise ValueError(f"val_fraction is {self.val_fraction}, allowed are 0 to 1")
        if not 0.0 <= self.val_position <= 1.0:
            raise ValueError(f"val_position is {self.val_position}, allowed are 0 (the start) to 1 (the end)")
        if (self.val_list is not None) != (self.by == "list"):
            needs = "split: list needs" if self.by == "list" else f"split: {self.by} does not take"
            raise ValueError(f"val_list: {needs} val_list, the file that names the validation files")
        if self.val_list is not None and not self.val_list.is_file():
            reason = "is no file" if self.val_list.exists() else "does not exist"
            raise ValueError(f"val_list: {self.val_list} {reason}")

    def files(self, files: Sequence[IndexEntry]) -> Sides:
        """Training files and validation files, each in the order given; for "interval" all files are on both sides.

        Raises:
            ValueError: there is nothing to divide, or the list names a file that is not there.
        """
        if self.by == "list":
            return _by_list(files, self.val_list)
        if self.val_fraction in (0.0, 1.0):
            return (list(files), []) if self.val_fraction == 0.0 else ([], list(files))
        if self.by == "interval":
            return list(files), list(files)
        return split(files, self.val_fraction, self.seed, _top_folder if self.by == "folder" else _itself)

    def intervals(self, num_frames: int, phase: str) -> list[tuple[int, int]]:
        """The stretches (start, number of frames) of a file that belong to a phase."""
        if self.by != "interval" or self.val_fraction in (0.0, 1.0):
            return [(0, num_frames)]
        held = round(self.val_fraction * num_frames)
        start = round(self.val_position * (num_frames - held))
        if phase == "val":
            return [(start, held)]
        return [(0, start), (start + held, num_frames - start - held)]

    def describe(self) -> str:
        """In a few words, for people."""
        if self.by == "list":
            return f"by the list {self.val_list}"
        where = f", the stretch around {self.val_position:g}" if self.by == "interval" else ""
        return f"by {self.by}, {self.val_fraction:g} to validate{where}"


def _itself(file: IndexEntry) -> Hashable:
    return file.relative


def _top_folder(file: IndexEntry) -> Hashable:
    """The first folder of the path; a file in no folder stands for itself."""
    return file.relative.split("/")[0]


def split(
    files: Sequence[IndexEntry], val_fraction: float, seed: int, group: Callable[[IndexEntry], Hashable] = _itself
) -> Sides:
    """Training files and validation files, groups kept together, each in the order given.

    Groups are ranked by a hash of seed and name; the first ranks, as many as come nearest to ``val_fraction`` of the
    whole duration, are for validation. At least one group is on either side. A new file takes a rank between the
    others: at most groups at the border change sides.

    Raises:
        ValueError: there is one group only and two sides.
    """
    seconds: dict[Hashable, float] = {}
    for file in files:
        seconds[group(file)] = seconds.get(group(file), 0.0) + file.seconds
    if len(seconds) < 2:
        what = "one file" if group is _itself else f"one folder ({next(iter(seconds), '')})"
        raise ValueError(
            f"split: {what} cannot be divided into train and val, which never share one ({files[0].path}): give two or "
            "more, or split: interval to hold out a stretch of each file, or val_fraction: 0 for no validation"
        )
    ranked = sorted(seconds, key=lambda name: _rank(str(name), seed))
    val = set(ranked[: _num_val([seconds[name] for name in ranked], val_fraction)])
    return [file for file in files if group(file) not in val], [file for file in files if group(file) in val]


def _rank(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogateescape")).digest()


def _num_val(seconds: Sequence[float], val_fraction: float) -> int:
    """How many of the first ranks come nearest to the wanted share of the duration."""
    target_s = val_fraction * sum(seconds)
    best, best_distance, total_s = 1, float("inf"), 0.0
    for count, duration_s in enumerate(seconds[:-1], start=1):
        total_s += duration_s
        if abs(total_s - target_s) < best_distance:
            best, best_distance = count, abs(total_s - target_s)
    return best


def _by_list(files: Sequence[IndexEntry], val_list: Path | None) -> Sides:
    """The files that a list names on the side of validation; every line must name something."""
    assert val_list is not None
    try:
        lines = val_list.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"val_list: {val_list} cannot be read: {reason}") from error
    relatives = {file.relative for file in files}
    val: set[str] = set()
    for number, line in enumerate(lines, start=1):
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        named = {pattern} & relatives or set(fnmatch.filter(relatives, pattern) if "*" in line or "?" in line else ())
        if not named:
            raise ValueError(f"val_list: {val_list}:{number}: {pattern!r} is none of the {len(files)} files found")
        val |= named
    return [file for file in files if file.relative not in val], [file for file in files if file.relative in val]
