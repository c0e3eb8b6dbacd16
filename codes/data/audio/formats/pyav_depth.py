"""What FFmpeg knows of a format and PyAV does not tell: the true depth of its samples, and the length it promises."""

import re
import struct
from dataclasses import dataclass
from typing import Any

from codes.data.audio.formats.flac_end import ends_as_promised, stream_info
from codes.data.audio.formats.info import AudioReadError, RawFile

_EXACT = ("aiff", "au", "caf", "mov", "ogg", "tta", "wav", "wv")  # whose duration is a number of frames
_MICROSECONDS = 1_000_000


def true_bits(raw: RawFile, context: Any, container_bits: int) -> int:
    """The depth of a lossless format's samples, which FFmpeg left-justifies in ``container_bits``.

    Formats whose header is not read here (APE, TAK, TrueHD, ...) have at most 24 bits in FFmpeg.

    Raises:
        AudioReadError: the header gives a depth that cannot be.
    """
    bits = _header_bits(context.name, bytes(context.extradata or b""), raw.head)
    if bits is None:
        bits = min(container_bits, 24)
    if not 1 <= bits <= container_bits:
        raise AudioReadError(f"{raw.path}: says its samples have {bits} bits, and has samples of {container_bits}")
    return bits


def _header_bits(codec: str, extradata: bytes, head: bytes) -> int | None:
    """From FLAC's STREAMINFO, ALAC's cookie, TTA's header, the name of a PCM format, or WavPack's first block."""
    if codec == "flac" and len(extradata) >= 34:
        return stream_info(extradata).bits
    if codec == "alac" and len(extradata) >= 18:
        return extradata[17]
    if codec == "tta" and len(extradata) >= 10:
        return extradata[8] | extradata[9] << 8
    if named := re.match(r"pcm_[su](\d+)", codec):
        return int(named[1])
    block = head.find(b"wvpk") if codec == "wavpack" else -1
    if 0 <= block <= len(head) - 28:
        (flags,) = struct.unpack_from("<I", head, block + 24)
        return 8 * ((flags & 3) + 1) - (flags >> 13 & 31)
    return None


@dataclass(frozen=True)
class Promise:
    """The length in a header. ``is_exact``: not a rounded duration. ``is_likely``: the file does not contradict it."""

    num_frames: int | None
    is_exact: bool = False
    is_likely: bool = True


def promise(raw: RawFile, container: Any, stream: Any, sample_rate_hz: int) -> Promise:
    """What the header promises; ``num_frames`` is None where that is nothing, or an estimate from the file's size."""
    demuxer = container.format.name.split(",")[0]
    extradata = bytes(stream.codec_context.extradata or b"")
    if demuxer == "flac" and len(extradata) >= 34:
        info = stream_info(extradata)
        return Promise(info.num_frames, True, ends_as_promised(raw, info)) if info.num_frames else Promise(None)
    if demuxer in ("matroska", "asf") and container.duration:
        return Promise(container.duration * sample_rate_hz // _MICROSECONDS)
    if stream.duration is None or (demuxer not in _EXACT and not (demuxer == "mp3" and _counts_its_frames(raw))):
        return Promise(None)
    frames = stream.duration * stream.time_base * sample_rate_hz
    # An edit list that starts within a packet gives it a time before 0; then the duration is rounded.
    is_cut = len(stream.index_entries) > 0 and stream.index_entries[0].timestamp != (stream.start_time or 0)
    return Promise(int(frames), frames.denominator == 1 and not is_cut)


def _counts_its_frames(raw: RawFile) -> bool:
    """Whether the first frame of an MP3 holds the number of frames (the tag of Xing, LAME or Fraunhofer)."""
    start = 0
    if raw.head.startswith(b"ID3") and len(raw.head) >= 10:
        size = raw.head[6:10]
        start = 10 + (size[0] << 21 | size[1] << 14 | size[2] << 7 | size[3])
    return re.search(rb"Xing|Info|VBRI", raw.peek(start, 64)) is not None
