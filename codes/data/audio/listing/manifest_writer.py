"""Lists of audio files for this and for other programs, from the entries of an index.

The forms are those that `codes.data.audio.listing.manifests` reads.
"""

import gzip
import json
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from codes.data.audio.listing import index_entry
from codes.data.audio.listing.index_entry import IndexEntry


def write_manifest(path: Path, kind: str, entries: Sequence[IndexEntry]) -> None:
    """Write a list of audio files, whole or not at all; compressed where the name ends in ``.gz``.

    An index, lengths and Trilobyte JSON name files relative to the folder that was searched, and by their whole paths
    where two files share a relative one; the others always by their whole paths.

    Args:
        path: the file.
        kind: ``jsonl`` (an index), ``lengths``, ``trilobyte``, ``audiocraft``, ``nemo`` or ``lhotse`` (recordings).
        entries: the files.

    Raises:
        OSError: it cannot be written.
    """
    data = manifest_text(kind, entries).encode("ascii")
    replace_file(path, gzip.compress(data, mtime=0) if path.name.lower().endswith(".gz") else data)


def manifest_text(kind: str, entries: Sequence[IndexEntry]) -> str:
    """What `write_manifest` writes; plain ASCII."""
    names = [entry.relative for entry in entries]
    names = names if len(set(names)) == len(names) else [str(entry.path) for entry in entries]
    records = [WRITERS[kind](name, entry) for name, entry in zip(names, entries, strict=True)]
    if kind in ("lengths", "trilobyte"):
        return json.dumps(dict(zip(names, records, strict=True)), indent=0) + "\n"
    return "".join(json.dumps(record) + "\n" for record in records)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file aside and then put it in place, so that nobody ever sees half of it.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.parent / f".{secrets.token_hex(8)}.part"
    try:
        aside.write_bytes(data)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _trilobyte_record(_name: str, entry: IndexEntry) -> dict[str, Any]:
    info = entry.info
    return {
        "length": info.num_frames,
        "sample_rate": info.sample_rate_hz,
        "bits_per_sample": info.bits,
        "n_channels": info.num_channels,
    }


def _audiocraft_record(_name: str, entry: IndexEntry) -> dict[str, Any]:
    facts = {"path": str(entry.path), "duration": entry.seconds, "sample_rate": entry.info.sample_rate_hz}
    return {**facts, "amplitude": None, "weight": None, "info_path": None}


def _nemo_record(_name: str, entry: IndexEntry) -> dict[str, Any]:
    return {"audio_filepath": str(entry.path), "duration": entry.seconds, "text": ""}


def _lhotse_record(name: str, entry: IndexEntry) -> dict[str, Any]:
    channels = list(range(entry.info.num_channels))
    return {
        "id": name,
        "sources": [{"type": "file", "channels": channels, "source": str(entry.path)}],
        "sampling_rate": entry.info.sample_rate_hz,
        "num_samples": entry.info.num_frames,
        "duration": entry.seconds,
        "channel_ids": channels,
    }


WRITERS: dict[str, Callable[[str, IndexEntry], Any]] = {
    "jsonl": lambda _, entry: index_entry.to_record(entry),
    "lengths": lambda _, entry: entry.info.num_frames,
    "trilobyte": _trilobyte_record,
    "audiocraft": _audiocraft_record,
    "nemo": _nemo_record,
    "lhotse": _lhotse_record,
}
