"""The header of a coded file (.wsl): everything but the packets. docs/wsl-format.md is the specification.

    header, with the codecs that the packets need | seek table | original header | model, where embedded | packets

Numbers are unsigned and little-endian. Each part has a CRC-32 of its own, so that damage is named, and so that a header
with one wrong bit can be mended: that is how `--keep-going` gets at the packets behind it.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from codes.compression.codec import CODEC_NAMES, CODEC_NUMBERS, PROFILES, CodedFileError

MAGIC = b"\x89WSL\r\n\x1a\n"
VERSION = 1
MOST_CODECS = 8
MOST_BLOCK_SAMPLES = 1 << 24  # of all channels together: what a decoder holds at once, 64 MiB as int32
MOST_FRAMES = 1 << 48

# What stands in for the original file: nothing (its PCM came from another format), the usual WAV header, the header
# that is stored, or a file of any kind whose bytes are the samples.
LAYOUTS = ("none", "usual", "stored", "bytes")

_FIXED = struct.Struct("<8sBBBBHIIQ16sIQ")
_CRC = struct.Struct("<I")
_HAS_MODEL, _HAS_FINGERPRINT = 1 << 6, 1 << 7
MODEL_HASH_BYTES, FINGERPRINT_BYTES = 16, 8  # so many of them stand in the file: the first
ENTRY_BYTES = 2 + MODEL_HASH_BYTES + FINGERPRINT_BYTES  # of a codec in the header
MOST_HEADER_BYTES = _FIXED.size + MOST_CODECS * ENTRY_BYTES + _CRC.size


@dataclass(frozen=True, kw_only=True)
class CodecEntry:
    """A codec that packets of the file need, with what makes it this one and no other; see `codec.BlockCodec`.

    Attributes:
        model_hash: the first `MODEL_HASH_BYTES` bytes of the model's hash; all zero where it has no model.
        fingerprint: the first `FINGERPRINT_BYTES` bytes; all zero where it has none.
    """

    name: str
    profile: str
    model_hash: bytes = bytes(MODEL_HASH_BYTES)
    fingerprint: bytes = bytes(FINGERPRINT_BYTES)

    def pack(self) -> bytes:
        flags = PROFILES.index(self.profile)
        flags |= _HAS_MODEL if any(self.model_hash) else 0
        flags |= _HAS_FINGERPRINT if any(self.fingerprint) else 0
        parts = [bytes([CODEC_NUMBERS[self.name], flags])]
        parts += [self.model_hash] if flags & _HAS_MODEL else []
        parts += [self.fingerprint] if flags & _HAS_FINGERPRINT else []
        return b"".join(parts)


@dataclass(frozen=True, kw_only=True)
class Header:
    """What the header says.

    Attributes:
        num_channels: 1 to 65535.
        bits: 1 to 32, of every sample.
        block_frames: frames of every block but the last.
        md5: of the PCM, as `pcm_bytes.md5_bytes` gives it.
        layout: one of `LAYOUTS`.
        metadata_bytes: size of the original header's part of the file, with its CRC.
        model_bytes: size of the embedded model; 0 where it is not.
    """

    sample_rate_hz: int
    num_channels: int
    bits: int
    num_frames: int
    block_frames: int
    md5: bytes
    layout: str = "none"
    codecs: tuple[CodecEntry, ...] = ()
    metadata_bytes: int = 0
    model_bytes: int = 0

    @property
    def groups(self) -> tuple[range, ...]:
        """The channels of each packet of a block: pairs in order, and a single at the end of an odd number."""
        return tuple(range(first, min(first + 2, self.num_channels)) for first in range(0, self.num_channels, 2))

    @property
    def num_blocks(self) -> int:
        return -(-self.num_frames // self.block_frames)

    @property
    def num_packets(self) -> int:
        return self.num_blocks * len(self.groups)

    def frames_of(self, block: int) -> int:
        """How many frames a block has."""
        return min(self.block_frames, self.num_frames - block * self.block_frames)

    def place(self, packet: int) -> str:
        """A packet for people: block, time and channels."""
        block, group = divmod(packet, len(self.groups))
        channels = self.groups[group]
        start = block * self.block_frames
        end = start + self.frames_of(block)
        text = f"block {block} ({start / self.sample_rate_hz:.2f} to {end / self.sample_rate_hz:.2f} s"
        if self.num_channels > 2:
            text += f", channel {channels[0]}" if len(channels) == 1 else f", channels {channels[0]} and {channels[1]}"
        return text + ")"

    def pack(self) -> bytes:
        fixed = _FIXED.pack(
            MAGIC,
            VERSION,
            LAYOUTS.index(self.layout),
            self.bits,
            len(self.codecs),
            self.num_channels,
            self.sample_rate_hz,
            self.block_frames,
            self.num_frames,
            self.md5,
            self.metadata_bytes,
            self.model_bytes,
        )
        return with_crc(fixed + b"".join(entry.pack() for entry in self.codecs))


def with_crc(data: bytes) -> bytes:
    """The data and the CRC-32 of it."""
    return data + _CRC.pack(zlib.crc32(data))


def has_good_crc(data: bytes) -> bool:
    """Whether data ends in the CRC-32 of what stands before it."""
    return len(data) >= _CRC.size and zlib.crc32(data[: -_CRC.size]) == _CRC.unpack(data[-_CRC.size :])[0]


def mended(data: bytes, *, most_bytes: int = 4096) -> bytes | None:
    """Data whose last four bytes are its CRC, with the one bit flipped that makes that true; None if none does."""
    if len(data) > most_bytes:
        return None
    return next((candidate for candidate in _with_one_bit_flipped(data) if has_good_crc(candidate)), None)


def read_header(head: bytes, *, mend: bool = False) -> tuple[Header, int]:
    """The header at the start of a file's first `MOST_HEADER_BYTES` bytes, and its length in bytes.

    Args:
        mend: accept a header that is right but for one bit.

    Raises:
        CodedFileError: not a coded file, of another version, truncated, damaged, or impossible.
    """
    if mend:
        for candidate in _with_one_bit_flipped(head):
            try:
                return read_header(candidate)
            except CodedFileError:
                continue
    if head[:8] != MAGIC:
        raise CodedFileError(f"not a coded file, or damaged in its header: it begins with {head[:8]!r}, not {MAGIC!r}")
    if len(head) < _FIXED.size + _CRC.size:
        raise CodedFileError(f"truncated in its header: {len(head)} bytes")
    if head[8] != VERSION:
        raise CodedFileError(f"is of version {head[8]}, this program reads version {VERSION}; or damaged in its header")
    end = _end_of_entries(head)
    if end is None or not has_good_crc(head[: end + _CRC.size]):
        truncated = end is None or end + _CRC.size > len(head)
        raise CodedFileError("truncated or damaged in its header" if truncated else "damaged in its header")
    return _checked(_unpacked(head, end)), end + _CRC.size


def _with_one_bit_flipped(data: bytes) -> Iterator[bytes]:
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << (bit % 8)
        yield bytes(flipped)


def _end_of_entries(head: bytes) -> int | None:
    """Where the list of codecs ends; None where it would be too long or goes on after what was read."""
    end = _FIXED.size
    if head[11] > MOST_CODECS:
        return None
    for _ in range(head[11]):
        if end + 2 > len(head):
            return None
        flags = head[end + 1]
        end += 2 + (MODEL_HASH_BYTES if flags & _HAS_MODEL else 0)
        end += FINGERPRINT_BYTES if flags & _HAS_FINGERPRINT else 0
    return end if end <= len(head) else None


def _unpacked(head: bytes, end: int) -> Header:
    _, _, layout, bits, _, num_channels, rate, block_frames, num_frames, md5, meta, model = _FIXED.unpack_from(head)
    if layout >= len(LAYOUTS):
        raise CodedFileError(f"has an unknown layout {layout}")
    return Header(
        sample_rate_hz=rate,
        num_channels=num_channels,
        bits=bits,
        num_frames=num_frames,
        block_frames=block_frames,
        md5=md5,
        layout=LAYOUTS[layout],
        codecs=tuple(_entries(head[_FIXED.size : end])),
        metadata_bytes=meta,
        model_bytes=model,
    )


def _entries(data: bytes) -> Iterator[CodecEntry]:
    while data:
        number, flags = data[0], data[1]
        profile = flags & ~(_HAS_MODEL | _HAS_FINGERPRINT)
        if number not in CODEC_NAMES or profile >= len(PROFILES):
            raise CodedFileError(f"needs an unknown codec {number} in profile {profile}")
        data = data[2:]
        model_hash, fingerprint = bytes(MODEL_HASH_BYTES), bytes(FINGERPRINT_BYTES)
        if flags & _HAS_MODEL:
            model_hash, data = data[:MODEL_HASH_BYTES], data[MODEL_HASH_BYTES:]
        if flags & _HAS_FINGERPRINT:
            fingerprint, data = data[:FINGERPRINT_BYTES], data[FINGERPRINT_BYTES:]
        yield CodecEntry(
            name=CODEC_NAMES[number], profile=PROFILES[profile], model_hash=model_hash, fingerprint=fingerprint
        )


def _checked(header: Header) -> Header:
    """The header, if it can be: nothing is allocated by what it says before this, or before sizes fit the file's."""
    if not 1 <= header.bits <= 32 or header.num_channels == 0 or header.sample_rate_hz == 0:
        raise CodedFileError(
            f"has an impossible header: {header.num_channels} channels of {header.bits} bits at "
            f"{header.sample_rate_hz} Hz"
        )
    if header.block_frames == 0 or header.block_frames * header.num_channels > MOST_BLOCK_SAMPLES:
        raise CodedFileError(
            f"has an impossible header: blocks of {header.block_frames} frames of {header.num_channels} channels, "
            f"at most {MOST_BLOCK_SAMPLES} samples are allowed"
        )
    if header.num_frames > MOST_FRAMES:
        raise CodedFileError(f"has an impossible header: {header.num_frames} frames")
    return header
