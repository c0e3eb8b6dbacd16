"""What others make of the same samples: FLAC, WavPack, TTA, ALAC, gzip, lzma and PNG, and programs that a user has.

Every figure is the size of what a coder wrote, headers included, with the part of it that is header beside. Samples go
in as integers with their own number of channels: FLAC fed with interleaved stereo as one channel loses a quarter, and
PCM that passes through floats is no longer the recording. `flac`, `wavpack`, `tta` and `alac` are those of libsndfile
and FFmpeg, which come with wheels (FFmpeg's WavPack is not the program's equal); names ending in `-program` are command
line programs looked for on PATH.

    flac           libFLAC at level 8
    wavpack        FFmpeg's encoder at level 4; wavpack-slow, only where it is asked for, at level 8
    flac-best      the smallest of libFLAC level 8 and FFmpeg level 12, channels together and apart
    png            bytes as pixels of a nearly square grey picture, as in "Language Modeling Is Compression"
    gzip, lzma     of the bytes of a WAV file without its header, at their highest levels
"""

import functools
import gzip
import io
import lzma
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from codes.compression import baselines
from codes.compression.program_codecs import PROGRAMS, code_with_program, find_program

_FRAMES_PER_PACKET = 65_536


@dataclass(frozen=True)
class CodedSize:
    """Bytes that a coder wrote, and how many of them are header rather than samples."""

    total_bytes: int
    header_bytes: int


class NotCodedError(ValueError):
    """A coder does not take such audio; the message says why."""


Coder = Callable[[np.ndarray, int, int], CodedSize]


def coders(names: list[str] | None = None) -> dict[str, Coder]:
    """The coders there are here, or some of them: name -> function of (pcm (C, T), bits, sample_rate_hz).

    The functions raise `NotCodedError` for audio that a coder does not take.

    Raises:
        ValueError: one that is asked for does not exist or is not installed; names those that are.
    """
    found = dict(_coders())
    if names is None:
        return {name: coder for name, coder in found.items() if name not in ONLY_BY_NAME}
    missing = [name for name in names if name not in found]
    if missing:
        programs = [f"{name} ({PROGRAMS[name].command} is not on PATH)" for name in missing if name in PROGRAMS]
        unknown = [name for name in missing if name not in PROGRAMS]
        raise ValueError(f"no such coder here: {', '.join([*programs, *unknown])} (there are {', '.join(found)})")
    return {name: found[name] for name in names}


def _coders() -> Iterator[tuple[str, Coder]]:
    yield "flac", functools.partial(_flac, best=False)
    yield "flac-best", functools.partial(_flac, best=True)
    if baselines.has_av():
        for name in AV_CODERS:
            yield name, functools.partial(_through_av, name)
    yield "gzip", functools.partial(_of_bytes, functools.partial(gzip.compress, compresslevel=9, mtime=0))
    yield "lzma", functools.partial(_of_bytes, functools.partial(lzma.compress, preset=9 | lzma.PRESET_EXTREME))
    yield "png", functools.partial(_of_bytes, png)
    for name in PROGRAMS:
        if find_program(name) is not None:
            yield name, functools.partial(_through_program, name)


def container_bits(bits: int) -> int:
    """The depth that a file has for samples of ``bits`` bits: whole bytes."""
    return -(-bits // 8) * 8


def in_container(pcm: np.ndarray, bits: int) -> np.ndarray:
    """(C, T) integers of ``bits`` bits -> (T, C) int32 of `container_bits`, their empty low bits zero."""
    return np.ascontiguousarray(pcm.T.astype(np.int32)) << (container_bits(bits) - bits)


def pcm_bytes(pcm: np.ndarray, bits: int) -> bytes:
    """Samples as a WAV file holds them: interleaved, little-endian, 8 bits unsigned, more bits signed."""
    frames, num_bytes = in_container(pcm, bits), container_bits(bits) // 8
    if num_bytes == 1:
        return (frames + 128).astype(np.uint8).tobytes()
    return frames.astype("<i4")[..., None].view(np.uint8)[..., :num_bytes].tobytes()


def _flac(pcm: np.ndarray, bits: int, sample_rate_hz: int, *, best: bool) -> CodedSize:
    if bits > 24 or pcm.shape[0] > 8:
        raise NotCodedError(f"FLAC here takes up to 24 bits and 8 channels, not {bits} and {pcm.shape[0]}")
    streams = baselines.flac_streams(pcm, bits, sample_rate_hz, only_libflac=not best)
    return min((flac_size(stream) for stream in streams), key=lambda size: size.total_bytes)


def flac_size(stream: bytes) -> CodedSize:
    """Sizes of a FLAC file, its metadata blocks being header; padding and seek points are left out of both."""
    needed = 4 + 4 + 34  # fLaC, and the one block that must be there
    return CodedSize(needed + len(baselines.audio_frames(stream)), needed)


def _of_bytes(compress: Callable[[bytes], bytes], pcm: np.ndarray, bits: int, sample_rate_hz: int) -> CodedSize:
    """A compressor of bytes; its header is what one byte costs, as in "Language Modeling Is Compression"."""
    return CodedSize(len(compress(pcm_bytes(pcm, bits))), len(compress(b"\0")))


def png(data: bytes) -> bytes:
    """Bytes as pixels of a grey picture as near to a square as its factors allow.

    Where these are further apart than 1 to 4 the last row of a square is filled up instead: a prime number of bytes
    would be a picture one pixel wide.
    """
    from PIL import Image

    height = next(size for size in range(round(math.sqrt(len(data))), 0, -1) if len(data) % size == 0)
    width = len(data) // height
    if width > 4 * height:
        height = width = math.isqrt(len(data) - 1) + 1
        height = -(-len(data) // width)
        data = data + bytes(width * height - len(data))
    buffer = io.BytesIO()
    Image.frombytes("L", (width, height), data).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


@dataclass(frozen=True, kw_only=True)
class AvCoder:
    """An encoder of FFmpeg: its name, the file format it goes into, its sample format for each depth, its options."""

    encoder: str
    muxer: str
    sample_formats: dict[int, str]
    options: dict[str, str]


_WAVPACK_FORMATS = {8: "u8p", 16: "s16p", 24: "s32p", 32: "s32p"}
AV_CODERS = {
    "wavpack": AvCoder(
        encoder="wavpack", muxer="wv", sample_formats=_WAVPACK_FORMATS, options={"compression_level": "4"}
    ),
    "wavpack-slow": AvCoder(  # 2 % smaller, and ten times as long
        encoder="wavpack", muxer="wv", sample_formats=_WAVPACK_FORMATS, options={"compression_level": "8"}
    ),
    "tta": AvCoder(encoder="tta", muxer="tta", sample_formats={8: "u8", 16: "s16", 24: "s32"}, options={}),
    # its own choice of 4 to 6 coefficients: more make it larger
    "alac": AvCoder(encoder="alac", muxer="ipod", sample_formats={16: "s16p", 24: "s32p"}, options={}),
}
ONLY_BY_NAME = ("wavpack-slow",)


def _through_av(name: str, pcm: np.ndarray, bits: int, sample_rate_hz: int) -> CodedSize:
    stream, audio_bytes = av_stream(name, pcm, bits, sample_rate_hz)
    return CodedSize(len(stream), len(stream) - audio_bytes)


def av_stream(name: str, pcm: np.ndarray, bits: int, sample_rate_hz: int) -> tuple[bytes, int]:
    """A file by one of FFmpeg's encoders, and how many of its bytes are packets of audio.

    Raises:
        NotCodedError: it does not take that depth or so many channels.
    """
    import av

    coder, depth, num_channels = AV_CODERS[name], container_bits(bits), pcm.shape[0]
    if depth not in coder.sample_formats or num_channels > 2:
        depths = ", ".join(str(known) for known in coder.sample_formats)
        raise NotCodedError(f"{name} here takes {depths} bits and 1 or 2 channels, not {bits} and {num_channels}")
    sample_format, layout = coder.sample_formats[depth], "mono" if num_channels == 1 else "stereo"
    packed = _packed(in_container(pcm, bits), depth)
    container, audio_bytes = io.BytesIO(), 0
    try:
        with av.open(container, "w", format=coder.muxer) as output:
            stream: Any = output.add_stream(coder.encoder, rate=sample_rate_hz, options=coder.options)
            stream.codec_context.format = sample_format
            stream.codec_context.layout = layout
            frames = _av_frames(packed, sample_format, layout, sample_rate_hz)
            for packet in (packet for frame in [*frames, None] for packet in stream.encode(frame)):
                audio_bytes += packet.size
                output.mux(packet)
    except av.FFmpegError as error:
        raise NotCodedError(f"{name} does not take this audio: {error}") from error
    return container.getvalue(), audio_bytes


def _packed(frames: np.ndarray, depth: int) -> np.ndarray:
    """(T, C) integers as FFmpeg holds them: 8 bits unsigned, 24 bits in the high bits of 32."""
    if depth == 8:
        return (frames + 128).astype(np.uint8)
    return frames.astype(np.int16) if depth == 16 else frames << (32 - depth)


def _av_frames(packed: np.ndarray, sample_format: str, layout: str, sample_rate_hz: int) -> Iterator[object]:
    import av

    for first in range(0, len(packed), _FRAMES_PER_PACKET):
        block = packed[first : first + _FRAMES_PER_PACKET]
        array = block.T if sample_format.endswith("p") else block.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(array), format=sample_format, layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = sample_rate_hz, first, Fraction(1, sample_rate_hz)
        yield frame


def _through_program(name: str, pcm: np.ndarray, bits: int, sample_rate_hz: int) -> CodedSize:
    """A program's file; of FLAC the metadata is header, of others what one frame of silence costs."""
    depth = container_bits(bits)
    coded = code_with_program(name, pcm_bytes(pcm, bits), pcm.shape[0], depth, sample_rate_hz)
    if coded[:4] == b"fLaC":
        return flac_size(coded)
    return CodedSize(len(coded), min(len(coded), _program_header(name, pcm.shape[0], depth, sample_rate_hz)))


@functools.cache
def _program_header(name: str, num_channels: int, depth: int, sample_rate_hz: int) -> int:
    silence = pcm_bytes(np.zeros((num_channels, 1), np.int32), depth)
    try:
        return len(code_with_program(name, silence, num_channels, depth, sample_rate_hz))
    except OSError:  # a program that wants more than one frame
        return 0
