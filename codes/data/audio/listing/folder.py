"""The audio files that a dataset is made of.

A scan takes folders (searched through and through), files and lists of files, reads every header, and counts what it
leaves out and why; it is `listing/index.py` with the manners of training: what cannot be read stops it, unless that is
asked to be collected. Which of them are for validation says `codes.data.audio.splits`.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from codes.data.audio.demo_corpus import cache_root
from codes.data.audio.listing.index import Index, build_index
from codes.data.audio.listing.index_entry import IndexEntry
from codes.data.audio.listing.walk import EXTENSIONS as EXTENSIONS
from codes.data.audio.listing.walk import no_audio_message
from codes.data.audio.reader import AudioReadError

INDEX_VERSION = 1  # raise it when the reader says other things of the same file


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What was found, sorted by relative path.

    Args:
        files: the files that can be read.
        left_out: reason -> paths.
        errors: files that cannot be read -> what is wrong with them; empty unless they were to be collected.
        notes: what a person should know besides.
    """

    files: list[IndexEntry]
    left_out: dict[str, list[Path]] = field(default_factory=dict)
    errors: dict[Path, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def scan(
    paths: Sequence[str | os.PathLike[str]],
    *,
    on_error: Literal["fail", "collect"] = "fail",
    known: Path | None = None,
    hashes: bool = False,
    workers: int | None = None,
    progress: bool = False,
    float_bits: int | None = None,
    manifest_root: Path | None = None,
) -> Scan:
    """All audio files in these folders and below, those of these paths that are files, and those that lists name.

    A file that is reached in several ways counts once. Hidden files and folders are left out.

    Args:
        paths: folders, audio files, lists of audio files (.json, .jsonl, either with .gz).
        on_error: what to do about files that cannot be read: "fail" or "collect" them.
        known, hashes, workers, progress, float_bits, manifest_root: see `codes.data.audio.listing.index.build_index`.

    Raises:
        FileNotFoundError: a path does not exist.
        ValueError: there is no audio file; the message says what there is instead.
        AudioReadError: some audio files cannot be read; the message names the first and counts the others. With
            "collect" only where that is so of all.
        ManifestError: a list of files cannot be read as one.
    """
    index = build_index(
        paths,
        known=known,
        hashes=hashes,
        workers=workers,
        progress=progress,
        float_bits=float_bits,
        manifest_root=manifest_root,
    )
    if not index.entries and not index.errors:
        raise ValueError(no_audio_message(paths, index.left_out))
    if index.errors and (on_error == "fail" or not index.entries):
        raise AudioReadError(_errors_message(index))
    return Scan(files=index.entries, left_out=index.left_out, errors=index.errors, notes=index.notes)


def remembered_index(paths: Sequence[Path]) -> Path | None:
    """Where the index of these paths is kept in the user's cache; None where that cannot be written."""
    folder = cache_root() / "indexes"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    places = "\n".join(os.path.abspath(path) for path in paths)
    return folder / f"{hashlib.sha256(os.fsencode(f'{INDEX_VERSION}{places}')).hexdigest()[:24]}.jsonl"


def _errors_message(index: Index) -> str:
    first, num_errors = next(iter(index.errors.values())), len(index.errors)
    if num_errors == 1:
        return first
    return f"{first} (and {num_errors - 1} more of {num_errors + len(index.entries)} files cannot be read)"
