"""Whether a FLAC file ends where its header says: a look at its last frame, without decoding anything.

libsndfile believes STREAMINFO: of a truncated file it notices nothing until the end is read, and of a file that goes on
behind the promised length (a wrong header, or two files joined) nothing at all. Every frame of FLAC starts with its own
number, so the last one tells (RFC 9639, section 9.1). The pattern that starts a frame may also stand within one by
chance: so this finds that a file is right, and that it is wrong only decoding can say.
"""

import re
from dataclasses import dataclass

from codes.data.audio.formats.info import RawFile

_RATES_HZ = (None, 88_200, 176_400, 192_000, 8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000)
_MOST_WINDOW_BYTES = 1 << 22
_MOST_HEADER_BYTES = 16


@dataclass(frozen=True)
class StreamInfo:
    """FLAC's STREAMINFO. ``num_frames`` is 0 where it is unknown."""

    block_frames: int
    most_bytes_a_block: int
    sample_rate_hz: int
    num_channels: int
    bits: int
    num_frames: int


def stream_info(block: bytes) -> StreamInfo:
    """From the 34 bytes of the block (RFC 9639, section 8.2)."""
    packed = int.from_bytes(block[10:18], "big")
    return StreamInfo(
        block_frames=int.from_bytes(block[2:4], "big"),
        most_bytes_a_block=int.from_bytes(block[7:10], "big"),
        sample_rate_hz=packed >> 44,
        num_channels=(packed >> 41 & 7) + 1,
        bits=(packed >> 36 & 31) + 1,
        num_frames=packed & (1 << 36) - 1,
    )


def ends_as_promised(raw: RawFile, info: StreamInfo) -> bool:
    """Whether the last thing that looks like a frame reaches just to the promised length, at the promised rate."""
    window = max(2 * (info.most_bytes_a_block or 1 << 16), 4096) + 1024
    start = max(0, raw.size_bytes - min(window, _MOST_WINDOW_BYTES))
    tail = raw.peek(start, raw.size_bytes - start)
    for found in reversed(list(re.finditer(rb"\xff[\xf8\xf9]", tail))):
        frame = _frame(tail[found.start() :][:_MOST_HEADER_BYTES].ljust(_MOST_HEADER_BYTES, b"\0"), info)
        if frame is not None:
            return frame == (info.num_frames, info.sample_rate_hz, info.num_channels)
    return False


def _frame(header: bytes, info: StreamInfo) -> tuple[int, int, int] | None:
    """Where a frame ends (in samples of a channel), its rate and channels; None: no frame starts like this."""
    block_code, rate_code, channel_code = header[2] >> 4, header[2] & 15, header[3] >> 4
    number, place = _coded_number(header)
    if number is None or block_code == 0 or rate_code == 15 or channel_code > 10:
        return None
    block_bytes = {6: 1, 7: 2}.get(block_code, 0)
    rate_bytes = {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    end = place + block_bytes + rate_bytes
    if end >= len(header) or _crc8(header[:end]) != header[end]:
        return None
    frames = _block_frames(block_code, header[place : place + block_bytes])
    rate_hz = _rate_hz(rate_code, header[place + block_bytes : end])
    first = number if header[1] & 1 else number * info.block_frames
    return first + frames, rate_hz or info.sample_rate_hz, channel_code + 1 if channel_code < 8 else 2


def _coded_number(header: bytes) -> tuple[int | None, int]:
    """The number of the frame or sample, coded as UTF-8 codes characters, and where it ends."""
    first = header[4]
    if first < 0x80:
        return first, 5
    num_more = 7 - (~first & 0xFF).bit_length()
    if not 1 <= num_more <= 6:
        return None, 5
    number = first & (1 << 6 - num_more) - 1
    for byte in header[5 : 5 + num_more]:
        if byte & 0xC0 != 0x80:
            return None, 5
        number = number << 6 | byte & 0x3F
    return number, 5 + num_more


def _block_frames(code: int, more: bytes) -> int:
    if more:
        return int.from_bytes(more, "big") + 1
    return 192 if code == 1 else 576 << (code - 2) if code < 6 else 256 << (code - 8)


def _rate_hz(code: int, more: bytes) -> int | None:
    """None: as in STREAMINFO."""
    if more:
        return int.from_bytes(more, "big") * {12: 1000, 13: 1, 14: 10}[code]
    return _RATES_HZ[code]


def _crc8(content: bytes) -> int:
    """x^8 + x^2 + x + 1, from 0."""
    crc = 0
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x07 if crc & 0x80 else crc << 1) & 0xFF
    return crc
