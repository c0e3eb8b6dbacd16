"""What a transcript says of one recording, and how lists of them are read line by line."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from codes.data.audio.listing.walk import EXTENSIONS


class TranscriptError(ValueError):
    """Transcripts that cannot be read; the message names the file and the row."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A recording and its text.

    Args:
        audio: the file, which may be missing.
        text: as it was written.
        where: "metadata.csv:17", for people.
        speaker: who speaks, where that is known.
        codes: numbers that were made of the recording beforehand, where there are any.
        source: the number of the list it comes from, where there are several.
        start_seconds: where in the file it begins.
        seconds: how long it is; None: up to the file's end.
    """

    audio: Path
    text: str
    where: str
    speaker: str | None = None
    codes: tuple[int, ...] | None = None
    source: int = 0
    start_seconds: float = 0.0
    seconds: float | None = None


@dataclass(kw_only=True)
class Transcripts:
    """What was read.

    Args:
        rows: recordings with text, in the order of the file.
        problems: rows that cannot be understood: what is wrong, with file and row.
        without_text: recordings that lie beside the others and that no row names.
        notes: what a person should know besides.
    """

    rows: list[Row] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    without_text: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def extend(self, others: Iterable["Transcripts"]) -> "Transcripts":
        """These and others, one after the other; their rows know which of them they come from."""
        for number, other in enumerate(others):
            self.rows += [replace(row, source=number) for row in other.rows] if number else other.rows
            self.problems += other.problems
            self.without_text += other.without_text
            self.notes += other.notes
        return self


def refuse(problems: Sequence[str], num_rows: int) -> None:
    """Stop at rows that cannot be used, if there are any.

    Args:
        problems: what is wrong with each, with file and row.
        num_rows: how many rows there are.

    Raises:
        TranscriptError: names the first, counts the others, and says how to go on without them.
    """
    if problems:
        more = f" (and {len(problems) - 1} more such rows)" if len(problems) > 1 else ""
        raise TranscriptError(
            f"path: {problems[0]}{more}, of {num_rows}; on_error: skip leaves such rows out and counts them"
        )


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, without their ends, with their numbers from 1.

    Raises:
        TranscriptError: the file cannot be read, or is not UTF-8; the line is named.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise TranscriptError(f"path: {path} cannot be read: {error.strerror}") from error
    for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            text = line.decode("utf-8").rstrip("\r")
        except UnicodeDecodeError as error:
            raise TranscriptError(f"{path}:{number}: is not UTF-8: {error.reason} at byte {error.start}") from error
        if text.strip():
            yield number, text


def is_audio_name(text: str) -> bool:
    """Whether text looks like the name of an audio file."""
    return text.strip().lower().endswith(EXTENSIONS)


def beside(folder: Path, name: str) -> Path:
    """The file that a list names, relative to the list's folder; names written on Windows count as well."""
    name = name.strip()
    path = folder / name
    return folder / name.replace("\\", "/") if "\\" in name and not path.exists() else path


def numbers(text: str) -> tuple[int, ...] | None:
    """``[1, 2, 3]`` or ``1 2 3`` as numbers; None where it is something else."""
    inner = text.strip().removeprefix("[").removesuffix("]").strip()
    if not re.fullmatch(r"\d+(?:(?:\s*,\s*|\s+)\d+)*", inner):
        return None
    return tuple(int(number) for number in re.split(r"[\s,]+", inner))
