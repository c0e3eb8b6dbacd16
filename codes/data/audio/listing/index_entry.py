"""One audio file of an index, and the line of JSON that it is written as.

A line holds ``relative``, ``path``, ``num_frames``, ``sample_rate_hz``, ``bits``, ``num_channels``, ``format``,
``lossy``, ``seeks`` and ``mark`` (older lines lack them), ``content_hash``, ``size_bytes`` and ``mtime_ns``. Lines are
plain ASCII: whatever is not stands as ``\\u`` escapes, so that names that are no valid UTF-8 come back as they were.
"""

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codes.data.audio.reader import AudioInfo, AudioReadError

KEYS = ("relative", "path", "num_frames", "size_bytes", "mtime_ns")  # what a line is recognised by
_MARK_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class IndexEntry:
    """An audio file: its header, and what tells whether it is still the same.

    Args:
        relative: its path below the folder that was searched, "/" between parts.
        path: where it is.
        info: frames, rate, depth, channels, format.
        content_hash: SHA-256 of the file's bytes in hexadecimal; None where it was not asked for.
        size_bytes: its size.
        mtime_ns: when it was changed last, in nanoseconds since 1970.
        float_bits: the depth that floating point samples were read at, which ``info`` depends on.
        mark: `sample_mark` of its bytes, which tells another recording of the same length; None in older indexes.
        stream: which of the file's audio streams is meant.
    """

    relative: str
    path: Path
    info: AudioInfo
    content_hash: str | None = None
    size_bytes: int = 0
    mtime_ns: int = 0
    float_bits: int | None = None
    mark: str | None = None
    stream: int = 0

    @property
    def seconds(self) -> float:
        """Its duration."""
        return self.info.num_frames / self.info.sample_rate_hz

    def hashed(self) -> str:
        """The hash of the file's bytes: the one that is known, or else made now by reading the file through.

        Raises:
            AudioReadError: the file cannot be read.
        """
        if self.content_hash is not None:
            return self.content_hash
        try:
            return hash_file(self.path)
        except OSError as error:
            raise AudioReadError(f"{self.path}: cannot be read: {error.strerror}") from error


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sample_mark(path: Path, size_bytes: int) -> str:
    """CRC-32 of three pieces of 4096 bytes (start, middle, end), in hexadecimal: cheap, where a hash reads everything.

    Raises:
        OSError: it cannot be read.
    """
    checksum = 0
    with path.open("rb", buffering=0) as file:
        for start in (0, size_bytes // 2, max(0, size_bytes - _MARK_BYTES)):
            file.seek(start)
            checksum = zlib.crc32(file.read(_MARK_BYTES), checksum)
    return f"{checksum:08x}"


def to_record(entry: IndexEntry) -> dict[str, Any]:
    """The entry as the object that is written as a line."""
    record = {
        "relative": entry.relative,
        "path": str(entry.path),
        **vars(entry.info),
        "content_hash": entry.content_hash,
        "size_bytes": entry.size_bytes,
        "mtime_ns": entry.mtime_ns,
    }
    optional = {"mark": entry.mark, "float_bits": entry.float_bits}
    return {**record, **{key: value for key, value in optional.items() if value is not None}}


def from_record(record: Mapping[str, Any]) -> IndexEntry:
    """The entry of a line's object.

    Raises:
        ValueError: a key is missing or its value is not what it must be; the message names the key.
    """
    info = AudioInfo(
        num_frames=_number(record, "num_frames", least=1),
        sample_rate_hz=_number(record, "sample_rate_hz", least=1),
        bits=_number(record, "bits", least=1),
        num_channels=_number(record, "num_channels", least=1),
        format=_text(record, "format"),
        lossy=_flag(record, "lossy"),
        seeks=_flag(record, "seeks") if "seeks" in record else not record["lossy"],
    )
    return IndexEntry(
        relative=_text(record, "relative"),
        path=Path(_text(record, "path")),
        info=info,
        content_hash=None if record.get("content_hash") is None else _text(record, "content_hash"),
        size_bytes=_number(record, "size_bytes", least=0),
        mtime_ns=_number(record, "mtime_ns", least=None),
        float_bits=None if record.get("float_bits") is None else _number(record, "float_bits", least=1),
        mark=None if record.get("mark") is None else _text(record, "mark"),
    )


def _number(record: Mapping[str, Any], key: str, least: int | None) -> int:
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or (least is not None and value < least):
        wanted = "a whole number" if least is None else f"a whole number from {least} on"
        raise ValueError(f"{key} is {value!r}, {wanted} is wanted")
    return value


def _text(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key} is {value!r}, a text is wanted")
    return value


def _flag(record: Mapping[str, Any], key: str) -> bool:
    value = record.get(key)
    if not isinstance(value, bool):
        raise ValueError(f"{key} is {value!r}, true or false is wanted")
    return value
