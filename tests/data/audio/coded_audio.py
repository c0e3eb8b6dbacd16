"""Files of coded audio for the tests, written by FFmpeg through PyAV; and FFmpeg's own decoding of a file."""

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

CODED = {
    "lame.mp3": ("libmp3lame", {}),
    "no_xing.mp3": ("libmp3lame", {"mux": {"write_xing": "0", "id3v2_version": "0"}}),
    "mono.mp3": ("libmp3lame", {"num_channels": 1, "sample_rate_hz": 22_050}),
    "edit_list.m4a": ("aac", {}),
    "fragments.mp4": ("aac", {"mux": {"movflags": "frag_keyframe+empty_moov", "frag_duration": "200000"}}),
    "adts.aac": ("aac", {"container": "adts"}),
    "aac.mka": ("aac", {}),
    "music.opus": ("libopus", {"sample_rate_hz": 48_000}),
    "voice.opus": ("libopus", {"sample_rate_hz": 16_000, "num_channels": 1}),
    "opus.webm": ("libopus", {"sample_rate_hz": 48_000}),
    "opus.mp4": ("libopus", {"sample_rate_hz": 48_000}),
    "vorbis.ogg": ("vorbis", {"options": {"strict": "experimental"}}),
    "audio.mp2": ("mp2", {}),
    "audio.ac3": ("ac3", {}),
}
LOSSLESS = {
    "alac16.m4a": ("alac", "s16p", 16),
    "alac24.m4a": ("alac", "s32p", 24),
    "wavpack16.wv": ("wavpack", "s16p", 16),
    "wavpack32.wv": ("wavpack", "s32p", 32),
    "tta16.tta": ("tta", "s16", 16),
    "tta24.tta": ("tta", "s32", 24),
    "tta8.tta": ("tta", "u8", 8),
    "flac.ogg": ("flac", "s16", 16),
    "flac.mka": ("flac", "s16", 16),
    "flac.mp4": ("flac", "s16", 16),
    "pcm24.mka": ("pcm_s24le", "s32", 24),
    "pcm32.mka": ("pcm_s32le", "s32", 32),
    "pcm16.mov": ("pcm_s16be", "s16", 16),
    "pcm8.avi": ("pcm_u8", "u8", 8),
}


def tones(num_channels: int, num_frames: int, sample_rate_hz: int) -> np.ndarray:
    """(C, T) floats: a tone a channel, and noise."""
    time = np.arange(num_frames) / sample_rate_hz
    noise = np.random.default_rng(0).normal(0, 0.05, (num_channels, num_frames))
    return noise + np.stack([0.4 * np.sin(2 * np.pi * (300 + 100 * c) * time) for c in range(num_channels)])


def write_silent_video(path: Path) -> None:
    """Three pictures and no sound."""
    with av.open(str(path), "w") as out:
        video: Any = out.add_stream("mpeg4", rate=10, width=64, height=64, pix_fmt="yuv420p")
        for _ in range(3):
            out.mux(video.encode(av.VideoFrame(64, 64, "yuv420p")))
        out.mux(video.encode(None))


def write_coded(
    path: Path | io.BytesIO,
    codec: str,
    pcm: np.ndarray,
    *,
    sample_rate_hz: int,
    sample_format: str = "",
    container: str | None = None,
    options: dict[str, str] | None = None,
    mux: dict[str, str] | None = None,
) -> None:
    """``pcm`` (C, T), floats or integers that fill their type, as a file of that codec."""
    kind = {"float64": "dbl", "int32": "s32", "int16": "s16", "uint8": "u8"}[str(pcm.dtype)]
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(pcm)]
    with av.open(path if isinstance(path, io.BytesIO) else str(path), "w", format=container, options=mux or {}) as out:
        stream: Any = out.add_stream(codec, rate=sample_rate_hz)
        stream.codec_context.layout = layout
        if sample_format:
            stream.codec_context.format = sample_format
        stream.codec_context.options = options or {}
        _encode(out, stream, pcm, kind, layout, sample_rate_hz)


def _encode(out: Any, stream: Any, pcm: np.ndarray, kind: str, layout: str, sample_rate_hz: int) -> None:
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(pcm.T).reshape(1, -1), format=kind, layout=layout)
    frame.sample_rate, frame.time_base, frame.pts = sample_rate_hz, Fraction(1, sample_rate_hz), 0
    wanted = stream.codec_context.format
    resampler = av.AudioResampler(format=wanted.name if wanted else kind, layout=layout, rate=sample_rate_hz)
    for piece in [*resampler.resample(frame), *resampler.resample(None)]:
        out.mux(stream.encode(piece))
    out.mux(stream.encode(None))


def write_lossy(folder: Path, name: str, num_frames: int = 30_000) -> Path:
    """One of `CODED`."""
    codec, how = CODED[name]
    how = dict(how)
    rate, channels = how.pop("sample_rate_hz", 44_100), how.pop("num_channels", 2)
    write_coded(folder / name, codec, tones(channels, num_frames, rate), sample_rate_hz=rate, **how)
    return folder / name


def write_lossless(folder: Path, name: str, pcm: np.ndarray) -> Path:
    """One of `LOSSLESS`: ``pcm`` (C, T) at its depth."""
    codec, sample_format, bits = LOSSLESS[name]
    full = pcm << (32 - bits) if bits > 16 else pcm << (16 - bits)
    full = (pcm + 128).astype(np.uint8) if bits == 8 else full.astype(np.int32 if bits > 16 else np.int16)
    options = {"strict": "experimental"}
    write_coded(folder / name, codec, full, sample_rate_hz=44_100, sample_format=sample_format, options=options)
    return folder / name


def decoded(path: Path, stream: int = 0) -> np.ndarray:
    """What FFmpeg makes of a file from its start, (C, T) in its own sample type."""
    pieces = []
    with av.open(str(path)) as container:
        for frame in container.decode(audio=stream):
            samples = frame.to_ndarray()
            planar = samples if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels).T
            pieces.append(planar)
    return np.concatenate(pieces, 1)


def to_int16(samples: np.ndarray) -> np.ndarray:
    """FFmpeg's conversion without dither, done by FFmpeg's resampler for float frames; integers as they are."""
    if samples.dtype.kind != "f":
        return samples
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(samples)]
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout)
    frame.sample_rate = 44_100
    pieces = av.AudioResampler(format="s16p").resample(frame)
    return np.concatenate([piece.to_ndarray() for piece in pieces], 1)
