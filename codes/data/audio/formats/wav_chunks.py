"""The chunks of a WAV, RF64, AIFF or CAF, for what libsndfile leaves out: samples before their format, wrong lengths.

A RIFF file is the word RIFF, a size, the word WAVE, and chunks: four letters, a size, so many bytes, and one more to
make it even. Readers want the chunk "fmt " before "data"; the definition does not say so. AIFF is built in the same
way, with its numbers the other way round. RF64 (EBU Tech 3306) and BW64 are WAV whose sizes above 4 GB stand in a chunk
"ds64" at the start. CAF has sizes of 8 bytes, and no byte to make them even.
"""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from codes.data.audio.formats.info import AudioReadError, RawFile

_UNKNOWN_LENGTHS = (0, 0x7FFFFFFF, 0xFFFFFFFF)
_UNKNOWN_LONG_LENGTHS = (0, 2**64 - 1)  # of RF64 and CAF
_IN_DS64 = 0xFFFFFFFF
_MOST_DS64_BYTES = 1 << 16
_PCM_TAGS = (1, 3, 0xFFFE)  # integers, floating point, and either in WAVE_FORMAT_EXTENSIBLE
_MOST_CHUNKS = 10_000
_TAGS = (b"TAG", b"ID3", b"APETAGEX")  # notes that programs hang on behind the last chunk
_MOST_FORMAT_BYTES = 4096
_MOST_CAF_HEADER_BYTES = 1 << 20


@dataclass(frozen=True)
class _Chunk:
    """``end``: where the next one starts."""

    name: bytes
    start: int
    num_bytes: int
    end: int


def _is_wav(raw: RawFile) -> bool:
    return raw.head[:4] == b"RIFF" and raw.head[8:12] == b"WAVE"


def _is_rf64(raw: RawFile) -> bool:
    return raw.head[:4] in (b"RF64", b"BW64") and raw.head[8:12] == b"WAVE"


def _is_aiff(raw: RawFile) -> bool:
    return raw.head[:4] == b"FORM" and raw.head[8:12] in (b"AIFF", b"AIFC")


def _is_caf(raw: RawFile) -> bool:
    return raw.head[:4] == b"caff"


def _chunks(raw: RawFile) -> Iterator[_Chunk]:
    """The chunks from the start on, the last of which may end beyond the file's end."""
    start, header_format, even = (8, ">4sQ", 1) if _is_caf(raw) else (12, ">4sI" if _is_aiff(raw) else "<4sI", 2)
    header_bytes = struct.calcsize(header_format)
    long_sizes: dict[bytes, int] = {}
    for _ in range(_MOST_CHUNKS):
        header = raw.peek(start, header_bytes) if start + header_bytes <= raw.size_bytes else b""
        if len(header) < header_bytes:
            return
        name, num_bytes = struct.unpack(header_format, header)
        start += header_bytes
        if name == b"ds64" and _is_rf64(raw):
            long_sizes = _long_sizes(raw.peek(start, min(num_bytes, _MOST_DS64_BYTES)))
        elif name == b"data" or num_bytes == _IN_DS64:
            num_bytes = long_sizes.get(name, num_bytes)
        chunk = _Chunk(name, start, num_bytes, start + -(-num_bytes // even) * even)
        yield chunk
        start = chunk.end


def _long_sizes(ds64: bytes) -> dict[bytes, int]:
    """The sizes in a chunk "ds64": of the file, the samples, a number of frames, and a table of other chunks' sizes."""
    if len(ds64) < 24:
        return {}
    sizes = dict(struct.iter_unpack("<4sQ", ds64[28 : 28 + max(0, len(ds64) - 28) // 12 * 12]))
    return {**sizes, b"data": int.from_bytes(ds64[8:16], "little")}


def samples_start(raw: RawFile) -> int | None:
    """The byte at which the samples of a WAV start; None of other files."""
    return next((chunk.start for chunk in _chunks(raw) if chunk.name == b"data"), None) if _is_wav(raw) else None


def check_chunks(raw: RawFile) -> None:
    """Refuse a file whose samples go on after the length in its header: what follows is neither chunk nor tag.

    And an RF64 or CAF whose samples end before it; of WAV and AIFF libsndfile's log tells that.

    Raises:
        AudioReadError: so it is.
    """
    is_long = _is_rf64(raw) or _is_caf(raw)
    if not (is_long or _is_wav(raw) or _is_aiff(raw)):
        return
    chunks = _chunks(raw)
    promised = next((chunk for chunk in chunks if chunk.name in (b"data", b"SSND")), None)
    if promised is None or promised.num_bytes in (_UNKNOWN_LONG_LENGTHS if is_long else _UNKNOWN_LENGTHS):
        return
    present = raw.size_bytes - promised.start
    if is_long and present < promised.num_bytes:
        raise AudioReadError(f"{raw.path}: truncated: promises {promised.num_bytes} bytes of samples and has {present}")
    if promised.end >= raw.size_bytes:
        return
    broken = next((chunk for chunk in chunks if not _is_sound(chunk, raw.size_bytes)), None)
    header_bytes = 12 if _is_caf(raw) else 8
    if broken is not None and not _is_harmless(raw.peek(broken.start - header_bytes, 1 << 16)):
        raise AudioReadError(
            f"{raw.path}: its header promises {promised.num_bytes} bytes of samples, and after them come "
            f"{raw.size_bytes - broken.start + header_bytes} bytes that are no chunks: the length is wrong"
        )


def _is_sound(chunk: _Chunk, size_bytes: int) -> bool:
    name = chunk.name.decode("latin-1")
    return (
        name.isascii()
        and name.isprintable()
        and name not in ("RIFF", "RF64", "FORM", "caff")
        and chunk.end <= size_bytes + 1
    )


def _is_harmless(rest: bytes) -> bool:
    return rest.startswith(_TAGS) or not any(rest)


def check_wav_format(raw: RawFile) -> None:
    """Refuse PCM whose header contradicts itself on the size of a frame: FFmpeg would read one and seek by the other.

    Raises:
        AudioReadError: so it is.
    """
    form = next((chunk for chunk in _chunks(raw) if chunk.name == b"fmt "), None) if _is_wav(raw) else None
    content = raw.peek(form.start, 16) if form is not None else b""
    if len(content) < 16:
        return
    tag, num_channels, _, _, frame_bytes, bits = struct.unpack("<HHIIHH", content)
    if tag in _PCM_TAGS and frame_bytes != num_channels * ((bits + 7) // 8):
        raise AudioReadError(
            f"{raw.path}: says that a frame has {frame_bytes} bytes and is {num_channels} samples of {bits} bits"
        )


def in_usual_order(raw: RawFile) -> io.RawIOBase | None:
    """A WAV whose samples stand before their format, as a file where they stand behind it; None for other files."""
    if not _is_wav(raw):
        return None
    found: dict[bytes, _Chunk] = {}
    for chunk in _chunks(raw):
        found.setdefault(chunk.name, chunk)
        if chunk.name == b"fmt ":
            break
    form, data = found.get(b"fmt "), found.get(b"data")
    if form is None or data is None or not 16 <= form.num_bytes <= _MOST_FORMAT_BYTES:
        return None
    content = raw.peek(form.start, form.end - form.start)
    header = b"WAVEfmt " + struct.pack("<I", form.num_bytes) + content + b"data" + struct.pack("<I", data.num_bytes)
    header = b"RIFF" + struct.pack("<I", min(len(header) + data.num_bytes, 0xFFFFFFFF)) + header
    return _Spliced(header, raw, data)


def with_length(raw: RawFile) -> io.RawIOBase | None:
    """A CAF whose samples have the length -1, which is "until the end", as a file that gives it; None for others."""
    if not _is_caf(raw):
        return None
    data = next((chunk for chunk in _chunks(raw) if chunk.name == b"data"), None)
    if data is None or data.num_bytes != 2**64 - 1 or data.start > _MOST_CAF_HEADER_BYTES:
        return None
    return _Spliced(raw.peek(0, data.start - 8) + struct.pack(">Q", raw.size_bytes - data.start), raw, data)


class _Spliced(io.RawIOBase):
    """A header in memory, and a part of a file behind it."""

    def __init__(self, header: bytes, raw: RawFile, data: _Chunk) -> None:
        self._header = header
        self._file = raw.file
        self._start = data.start
        self._size = len(header) + min(data.num_bytes, raw.size_bytes - data.start)
        self._place = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = max(0, offset + (0, self._place, self._size)[whence])
        return self._place

    def read(self, size: int = -1) -> bytes:
        size = max(0, min(size if size >= 0 else self._size, self._size - self._place))
        found = self._header[self._place : self._place + size]
        if len(found) < size:
            self._file.seek(self._start + self._place + len(found) - len(self._header))
            found += self._file.read(size - len(found))
        self._place += len(found)
        return found

    def readinto(self, buffer) -> int:  # pyright: ignore[reportMissingParameterType]
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)
