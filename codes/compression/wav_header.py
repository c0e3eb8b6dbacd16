"""What a WAV file has around its samples, kept so that decoding gives back the same file, byte for byte.

A WAV is RIFF (RIFX with its numbers the other way round; RF64 or BW64 beyond 4 GiB): chunks of four letters, a size, so
many bytes, and one more to make it even. All before the samples is its head, all after them its tail, whatever it is:
tags, cue points, another program's notes, or bytes that are no chunk at all. Only "fmt " and "data" are understood.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from codes.compression.codec import CodedFileError
from codes.compression.pcm_bytes import SampleBytes

_PCM, _EXTENSIBLE = 1, 0xFFFE
_OTHER_FORMATS = {2: "ADPCM", 3: "floating point", 6: "A-law", 7: "mu-law", 17: "ADPCM", 85: "MP3"}
_UNKNOWN_SIZES = (0xFFFFFFFF, 0x7FFFFFFF)
_IN_DS64 = 0xFFFFFFFF
_MOST_CHUNKS = 10_000
_MOST_KEPT_BYTES = 1 << 28  # of head and tail
_KEPT = struct.Struct("<BBQQ")
_BIG_ENDIAN, _UNSIGNED = 1, 2
_GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")  # of WAVE_FORMAT_EXTENSIBLE, behind the format's number


class NotPcmWavError(ValueError):
    """A WAV file whose samples are no integers, or whose header contradicts itself; the message is the reason."""


class FullPaddingError(NotPcmWavError):
    """The bits that should be empty by the header are not: see `read_wav`'s ``whole_container``."""


@dataclass(frozen=True, kw_only=True)
class WavHeader:
    """A WAV file without its samples.

    Attributes:
        head: bytes from the file's start to its first sample.
        tail: bytes behind its last whole frame.
        samples: how it writes its samples.
    """

    head: bytes
    tail: bytes
    samples: SampleBytes

    def pack(self) -> bytes:
        """As it stands in a coded file."""
        flags = (_BIG_ENDIAN if self.samples.big_endian else 0) | (_UNSIGNED if self.samples.is_unsigned else 0)
        numbers = _KEPT.pack(self.samples.num_bytes, flags, len(self.head), len(self.tail))
        return numbers + zlib.compress(self.head + self.tail, 9)

    @classmethod
    def unpack(cls, data: bytes) -> "WavHeader":
        """The way back.

        Raises:
            CodedFileError: it is no such thing.
        """
        if len(data) < _KEPT.size:
            raise CodedFileError(f"its part that keeps the original header has {len(data)} bytes")
        num_bytes, flags, head_bytes, tail_bytes = _KEPT.unpack_from(data)
        if not 1 <= num_bytes <= 4 or flags > 3 or head_bytes + tail_bytes > _MOST_KEPT_BYTES:
            raise CodedFileError("its part that keeps the original header is not what an encoder writes")
        unpacker = zlib.decompressobj()
        try:
            kept = unpacker.decompress(data[_KEPT.size :], head_bytes + tail_bytes + 1)
        except zlib.error as error:
            raise CodedFileError(f"the original header cannot be unpacked: {error}") from error
        if len(kept) != head_bytes + tail_bytes:
            raise CodedFileError("the original header is not as long as it should be")
        samples = SampleBytes(
            num_bytes=num_bytes, big_endian=bool(flags & _BIG_ENDIAN), is_unsigned=bool(flags & _UNSIGNED)
        )
        return cls(head=kept[:head_bytes], tail=kept[head_bytes:], samples=samples)


@dataclass(frozen=True, kw_only=True)
class WavFile:
    """A WAV file of integers, open: its header, and where its samples are."""

    file: BinaryIO
    header: WavHeader
    sample_rate_hz: int
    num_channels: int
    bits: int
    num_frames: int

    @property
    def is_usual(self) -> bool:
        """Whether `usual_header` makes the same header, so that none need be kept."""
        return self.header == usual_header(self.sample_rate_hz, self.num_channels, self.bits, self.num_frames)

    def blocks(self, block_frames: int) -> Iterator[np.ndarray]:
        """The samples, (C, T) int32 a block.

        Raises:
            FullPaddingError: there is something in the bits that should be empty.
            OSError: the file is shorter than it was.
        """
        frame_bytes = self.num_channels * self.header.samples.num_bytes
        for first in range(0, self.num_frames, block_frames):
            num_bytes = min(block_frames, self.num_frames - first) * frame_bytes
            self.file.seek(len(self.header.head) + first * frame_bytes)
            data = self.file.read(num_bytes)
            if len(data) != num_bytes:
                raise OSError(f"the file has become shorter: it ends after frame {first + len(data) // frame_bytes}")
            pcm = self.header.samples.unpack(data, self.num_channels, self.bits)
            if pcm is None:
                raise FullPaddingError(f"its samples have more than the {self.bits} bits that its header gives")
            yield pcm


@dataclass(frozen=True)
class _Format:
    num_channels: int
    sample_rate_hz: int
    bits: int
    sample_bytes: int


def read_wav(file: BinaryIO, *, whole_container: bool = False) -> WavFile | None:
    """Read a WAV's header and what follows its samples; None where the file is no WAV.

    Args:
        whole_container: take all bits that a sample's bytes have for its depth, even if the header gives fewer.

    Raises:
        NotPcmWavError: its samples are no integers of 1 to 4 bytes, or there are none.
    """
    size = file.seek(0, 2)
    file.seek(0)
    riff = file.read(12)
    if len(riff) < 12 or riff[:4] not in (b"RIFF", b"RIFX", b"RF64", b"BW64") or riff[8:] != b"WAVE":
        return None
    order = ">" if riff[:4] == b"RIFX" else "<"
    form, data_start, data_bytes = _find_samples(file, size, order)
    frame_bytes = form.num_channels * form.sample_bytes
    num_frames = min(data_bytes, size - data_start) // frame_bytes
    end = data_start + num_frames * frame_bytes
    if data_start + size - end > _MOST_KEPT_BYTES:
        raise NotPcmWavError(f"{data_start + size - end} bytes are no samples, more than {_MOST_KEPT_BYTES}")
    file.seek(0)
    head = file.read(data_start)
    file.seek(end)
    tail = file.read()
    samples = SampleBytes(num_bytes=form.sample_bytes, big_endian=order == ">", is_unsigned=form.sample_bytes == 1)
    return WavFile(
        file=file,
        header=WavHeader(head=head, tail=tail, samples=samples),
        sample_rate_hz=form.sample_rate_hz,
        num_channels=form.num_channels,
        bits=8 * form.sample_bytes if whole_container else form.bits,
        num_frames=num_frames,
    )


def usual_header(sample_rate_hz: int, num_channels: int, bits: int, num_frames: int) -> WavHeader:
    """The header of a WAV that another format's PCM is written to, or that need not be kept.

    44 bytes where the depth is 8, 16, 24 or 32; else WAVE_FORMAT_EXTENSIBLE, which tells the true depth; RF64 where the
    sizes do not fit 32 bits.
    """
    sample_bytes = -(-bits // 8)
    frame_bytes = sample_bytes * num_channels
    data_bytes = num_frames * frame_bytes
    byte_rate = min(sample_rate_hz * frame_bytes, 0xFFFFFFFF)
    numbers = (num_channels, sample_rate_hz, byte_rate, min(frame_bytes, 0xFFFF), 8 * sample_bytes)
    if bits % 8 == 0:
        form = b"fmt " + struct.pack("<IHHIIHH", 16, _PCM, *numbers)
    else:
        form = b"fmt " + struct.pack("<IHHIIHHHHIH", 40, _EXTENSIBLE, *numbers, 22, bits, 0, _PCM) + _GUID_TAIL
    padding = bytes(data_bytes % 2)
    riff_bytes = 4 + len(form) + 8 + data_bytes + len(padding)
    if riff_bytes <= 0xFFFFFFFF:
        head = struct.pack("<4sI4s", b"RIFF", riff_bytes, b"WAVE") + form + struct.pack("<4sI", b"data", data_bytes)
    else:
        sizes = struct.pack("<4sIQQQI", b"ds64", 28, riff_bytes + 36, data_bytes, num_frames, 0)
        head = struct.pack("<4sI4s", b"RF64", _IN_DS64, b"WAVE") + sizes + form
        head += struct.pack("<4sI", b"data", _IN_DS64)
    samples = SampleBytes(num_bytes=sample_bytes, is_unsigned=sample_bytes == 1)
    return WavHeader(head=head, tail=padding, samples=samples)


def _find_samples(file: BinaryIO, size: int, order: str) -> tuple[_Format, int, int]:
    """The format, and where the samples start and how many bytes they say they are."""
    form: _Format | None = None
    data: tuple[int, int] | None = None
    long_data_bytes: int | None = None
    place = 12
    for _ in range(_MOST_CHUNKS):
        file.seek(place)
        head = file.read(8)
        if len(head) < 8:
            break
        name, num_bytes = struct.unpack(f"{order}4sI", head)
        if name == b"ds64":
            sizes = file.read(16)
            long_data_bytes = struct.unpack("<8xQ", sizes)[0] if len(sizes) == 16 else None
        elif name == b"fmt ":
            form = _read_format(file.read(min(num_bytes, 40)), order)
        elif name == b"data":
            if num_bytes in _UNKNOWN_SIZES:
                num_bytes = size - place - 8
                if long_data_bytes is not None:
                    num_bytes = min(num_bytes, long_data_bytes)
            elif num_bytes == 0 and not _is_chunk(file.read(8), size - place - 16, order):
                num_bytes = size - place - 8  # written by a program that did not come back to fill it in
            data = (place + 8, num_bytes)
        if form is not None and data is not None:
            return form, *data
        place += 8 + num_bytes + num_bytes % 2
    missing = '"fmt "' if form is None else '"data"'
    raise NotPcmWavError(f"it has no chunk {missing}, so that its samples are unknown")


def _is_chunk(head: bytes, left_bytes: int, order: str) -> bool:
    """Whether a chunk begins with these eight bytes, or the file ends here."""
    if not head:
        return True
    name, num_bytes = struct.unpack(f"{order}4sI", head) if len(head) == 8 else (b"\0", 0)
    return name.isascii() and name.decode("latin-1").isprintable() and num_bytes <= left_bytes + 1


def _read_format(content: bytes, order: str) -> _Format:
    if len(content) < 16:
        raise NotPcmWavError(f'its chunk "fmt " has {len(content)} bytes, at least 16 are needed')
    tag, num_channels, rate, _, frame_bytes, bits = struct.unpack_from(f"{order}HHIIHH", content)
    container_bits = bits
    if tag == _EXTENSIBLE and len(content) >= 26:
        valid_bits, _, tag = struct.unpack_from(f"{order}HIH", content, 18)
        bits = valid_bits if 0 < valid_bits <= container_bits else container_bits
    if tag != _PCM:
        kind = _OTHER_FORMATS.get(tag, f"in the format {tag}")
        raise NotPcmWavError(f"its samples are {kind}, not integers")
    sample_bytes = frame_bytes // num_channels if num_channels else 0
    if not 1 <= sample_bytes <= 4 or frame_bytes != sample_bytes * num_channels or rate == 0:
        raise NotPcmWavError(
            f"its header gives {num_channels} channels at {rate} Hz in frames of {frame_bytes} bytes: a sample must "
            "have 1 to 4 bytes"
        )
    if not 8 * sample_bytes - 8 < container_bits <= 8 * sample_bytes and not 1 <= bits <= 8 * sample_bytes:
        raise NotPcmWavError(f"its header gives samples of {bits} bits in {sample_bytes} bytes")
    return _Format(num_channels, rate, max(1, bits), sample_bytes)
