"""Datasets of published corpora: the layout is checked, and the split that was published is the one that is taken.

A corpus says where it is to be had and how its folder looks (`Corpus`); a dataset of it says in which folders its audio
lies (`PublishedDataset.folders`), which of the files it takes and under which name (`PublishedDataset.take`), and what
it knows of each (`PublishedDataset.facts`). `OfficialSplitDataset` adds the published split.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from codes.data.audio.chunk_dataset import ChunkDataset
from codes.data.audio.listing.folder import Scan
from codes.data.audio.listing.index_entry import IndexEntry
from codes.data.audio.recordings import Segment
from codes.data.audio.splits import Sides

OfficialSplit = Literal["official", "file", "folder", "list", "interval"]

_MOST_NAMED = 6


class LayoutError(ValueError):
    """A folder is not laid out as the corpus was published."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A published corpus.

    Args:
        name: what it is called.
        home: the public address of its home page.
        layout: what its folder holds, in words that follow "looked for".
        get: how to get it, a sentence's end.
    """

    name: str
    home: str
    layout: str
    get: str

    def error(self, root: Path, problem: str | None = None) -> LayoutError:
        """What was looked for in a folder, what is there instead, and where to get the corpus."""
        there = problem or f"found {_listing(root)}"
        return LayoutError(
            f"path: {root} is not {self.name} as it was published: looked for {self.layout}; {there}. "
            f"{self.name} is to be had at {self.home}: {self.get}"
        )

    def root(self, path: Path, names: Iterable[str], markers: Iterable[str]) -> Path:
        """The corpus's own folder: ``path``, or one of these names in it, whichever holds any of ``markers``.

        Raises:
            LayoutError: neither does.
        """
        for folder in (path, *(path / name for name in names)):
            if any((folder / marker).exists() for marker in markers):
                return folder
        raise self.error(path)


def _listing(root: Path) -> str:
    """What is there, in a few words."""
    if not root.exists():
        return "that it does not exist"
    if not root.is_dir():
        return "a file, not a folder"
    try:
        names = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in root.iterdir())
    except OSError as error:
        return f"that it cannot be listed ({error.strerror})"
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return (", ".join(names[:_MOST_NAMED]) + more) or "nothing in it"


class PublishedDataset(ChunkDataset, abstract=True):
    """Chunks of a published corpus; ``path`` is its folder, or the one that it was unpacked in."""

    corpus: ClassVar[Corpus]

    def folders(self, root: Path) -> list[Path]:
        """The folders in which the audio lies; check the layout here. Called before `take`.

        Raises:
            LayoutError: by ``self.corpus.error``.
        """
        raise NotImplementedError(f"{type(self).__name__} must define folders")

    def take(self, file: IndexEntry) -> IndexEntry | str:
        """The file, under a name that the split goes by, or why it is not taken (as in "3 of another microphone")."""
        return file

    def facts(self, file: IndexEntry) -> dict[str, Any]:
        """The keys of an item that follow from its file."""
        return {}

    def find(self, paths: Sequence[Path], index: Path | None) -> Scan:
        """The corpus's files, sorted by name.

        Raises:
            LayoutError: it is not laid out as it was published.
        """
        if len(paths) != 1:
            raise ValueError(f"path: give one folder, that of {self.corpus.name}, got {len(paths)}")
        root = Path(paths[0]).expanduser().absolute()
        folders = self.folders(root)
        if not any(_holds_files(folder) for folder in folders):
            raise self.corpus.error(root, f"found no file in {', '.join(map(str, folders[:_MOST_NAMED]))}")
        found = super().find(folders, index)
        files: list[IndexEntry] = []
        left_out = {reason: list(names) for reason, names in found.left_out.items()}
        for file in found.files:
            taken = self.take(file)
            if isinstance(taken, str):
                left_out.setdefault(taken, []).append(file.path)
            else:
                files.append(taken)
        if not files:
            reasons = ", ".join(f"{len(names)} {reason}" for reason, names in sorted(left_out.items()))
            raise self.corpus.error(root, f"found only {reasons}")
        files.sort(key=lambda file: (file.relative, file.path))
        return replace(found, files=files, left_out=left_out, notes=[*found.notes, *self.remarks(files)])

    def remarks(self, files: list[IndexEntry]) -> list[str]:
        """What a person should know of the files that are taken."""
        return []

    def chunk(self, segment: Segment, start_frame: int) -> dict[str, Any]:
        """The chunk, with what is known of its file."""
        return {**super().chunk(segment, start_frame), **self.facts(segment.recording.file)}


def _holds_files(folder: Path) -> bool:
    return any(path.is_file() for path in itertools.islice(folder.rglob("*"), 100_000))


class OfficialSplitDataset(PublishedDataset, abstract=True):
    """A corpus that was published with its division into training and validation.

    Args:
        split: "official": as it was published (val_fraction is not used); or one's own: by "file", by "folder", by
            "list" or by "interval" (a stretch of each file is kept for validation).
    """

    def __init__(self, *, split: OfficialSplit = "official", **audio: Any) -> None:
        self._official = split == "official"
        super().__init__(split="file" if split == "official" else split, **audio)

    def official_sides(self, files: list[IndexEntry]) -> Sides:
        """Training files and validation files as they were published."""
        raise NotImplementedError(f"{type(self).__name__} must define official_sides")

    def sides(self, files: list[IndexEntry]) -> Sides:
        """As published, or as the options say.

        Raises:
            ValueError: there is no file for the phase.
        """
        if not self._official:
            return super().sides(files)
        train, val = self.official_sides(files)
        other = "val" if self.phase == "train" else "train"
        if not (train if self.phase == "train" else val):
            raise ValueError(
                f"split: official has no file of {self.corpus.name} for phase {self.phase!r}: of the {len(files)} "
                f"files here {len(train)} are to train and {len(val)} to validate; take phase {other!r}, another "
                "subset or another split"
            )
        return train, val
