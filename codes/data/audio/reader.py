"""Audio files as exact integers: what a file holds, and its samples at its own bit depth.

    from codes.data.audio.reader import AudioFile, probe, read

A file of b bits gives integers in -2^(b-1) .. 2^(b-1) - 1, int16 up to 16 bits and int32 above; integer PCM never
passes through floating point. libsndfile reads what it reads exactly (`sndfile`), FFmpeg the rest
(`pyav`): MP3, AAC, ALAC, Opus, Vorbis, WavPack, TTA, WMA, the sound of MP4 and Matroska, and FLAC of any depth
or of unknown length. A read at an offset equals the same slice of the whole file, in every format.

Files of floating point samples are refused unless ``float_bits`` says which integers they stand for.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np

from codes.data.audio.formats.info import AudioInfo, AudioReadError, Decoder, RawFile, SilentVideoError, open_file
from codes.data.audio.formats.pyav import PyAvDecoder, num_audio_streams
from codes.data.audio.formats.sndfile import NotForSndfileError, SndfileDecoder
from codes.data.audio.formats.wav_chunks import check_wav_format

__all__ = ["AudioFile", "AudioInfo", "AudioReadError", "SilentVideoError", "num_streams", "probe", "read", "to_bits"]

# Files that libsndfile need not be asked about: Ogg, ID3 and MPEG frames, MP4, Matroska, WavPack, TTA, ASF.
_FOR_FFMPEG = re.compile(rb"OggS|ID3|\xff[\xe0-\xff]|....ftyp|\x1aE\xdf\xa3|wvpk|TTA1|0&\xb2u\x8ef\xcf\x11", re.S)
_FLOAT_BITS = (8, 32)


class AudioFile:
    """An open audio file: ``info``, ``read`` and ``blocks``. A context manager.

    Attributes:
        raw: the open file and its first bytes, for readers of one format.
        info: what it holds; ``num_frames`` is exact. Opening a lossy file or one of unknown length decodes it all.
        seeks_exactly: ``info.seeks``. False for most lossy formats, and for lossless ones in Ogg and Matroska: a read
            behind the last one decodes from the file's start. That is exact but slow; reads in order cost no more than
            decoding once.

    Args:
        path: the file.
        stream: number of the audio stream, from 0; only MP4, Matroska and their like have several.
        float_bits: round floating point samples to so many bits, 8 to 32: round(x * 2^(float_bits-1)), saturated. None
            refuses them. Integer files are read as they are.
        known: what an earlier `probe` said: a lossy file is not decoded to count its frames then.

    Raises:
        AudioReadError: missing, not permitted, empty, not audio, of floating point samples, broken or truncated.
        OSError: too many files are open.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, stream: int = 0, float_bits: int | None = None,
        known: AudioInfo | None = None,
    ) -> None:  # fmt: skip
        if float_bits is not None and not _FLOAT_BITS[0] <= float_bits <= _FLOAT_BITS[1]:
            raise ValueError(f"float_bits is {float_bits}, it must be {_FLOAT_BITS[0]} to {_FLOAT_BITS[1]}, or None")
        self.path = Path(path)
        self.raw = open_file(self.path)
        try:
            self._decoder = _decoder(self.raw, stream, float_bits, known)
        except BaseException:
            self.raw.file.close()
            raise
        self.info: AudioInfo = self._decoder.info
        if known is not None and self.info != known:
            self.close()
            raise AudioReadError(f"{self.path}: has changed: was {facts(known)}, is {facts(self.info)}")
        self.seeks_exactly: bool = self.info.seeks

    def __enter__(self) -> "AudioFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._decoder.close()
        self.raw.file.close()

    def read(self, start_frame: int = 0, num_frames: int | None = None) -> np.ndarray:
        """Frames from ``start_frame`` on (all that follow where ``num_frames`` is None) as integers.

        Returns:
            (channels, frames), int16 for up to 16 bits and int32 above, in -2^(bits-1) .. 2^(bits-1) - 1.

        Raises:
            AudioReadError: the range is not within the file, the file is broken, ends before it says it does or goes on
                after it, or its channels or rate change.
        """
        num_frames = self._checked(start_frame, num_frames)
        dtype = np.int16 if self.info.bits <= 16 else np.int32
        try:
            pcm = np.empty((self.info.num_channels, num_frames), dtype)
            if num_frames:
                self._decoder.fill(start_frame, pcm)
        except MemoryError as error:
            raise AudioReadError(f"{self.path}: {num_frames} frames do not fit into memory") from error
        return pcm

    def blocks(
        self, block_frames: int = 65_536, start_frame: int = 0, num_frames: int | None = None
    ) -> Iterator[np.ndarray]:
        """The same frames as `read` gives, in arrays of ``block_frames`` (the last may be shorter): bounded memory.

        Raises:
            AudioReadError: as `read`.
        """
        if block_frames < 1:
            raise ValueError(f"block_frames is {block_frames}, it must be at least 1")
        end = start_frame + self._checked(start_frame, num_frames)
        for first in range(start_frame, end, block_frames):
            yield self.read(first, min(block_frames, end - first))

    def _checked(self, start_frame: int, num_frames: int | None) -> int:
        """The number of frames asked for."""
        if num_frames is None:
            num_frames = self.info.num_frames - start_frame
        if start_frame < 0 or num_frames < 0 or start_frame + num_frames > self.info.num_frames:
            raise AudioReadError(
                f"{self.path}: frames {start_frame} to {start_frame + num_frames} were asked for, "
                f"the file has {self.info.num_frames}"
            )
        return num_frames


def probe(path: str | os.PathLike[str], *, stream: int = 0, float_bits: int | None = None) -> AudioInfo:
    """What a file holds: from its header where that is exact, else by decoding it; see `AudioFile`.

    Raises:
        AudioReadError: see `AudioFile`.
    """
    with AudioFile(path, stream=stream, float_bits=float_bits) as file:
        return file.info


def read(
    path: str | os.PathLike[str],
    start_frame: int = 0,
    num_frames: int | None = None,
    *,
    stream: int = 0,
    float_bits: int | None = None,
) -> np.ndarray:
    """Samples of a file, (channels, frames) integers at the file's own bit depth; see `AudioFile.read`.

    Raises:
        AudioReadError: see `AudioFile` and `AudioFile.read`.
    """
    with AudioFile(path, stream=stream, float_bits=float_bits) as file:
        return file.read(start_frame, num_frames)


def num_streams(path: str | os.PathLike[str]) -> int:
    """How many audio streams a file has: several in a STEM MP4, one in most.

    Raises:
        AudioReadError: missing, not permitted, empty, or not audio.
    """
    raw = open_file(Path(path))
    try:
        if _FOR_FFMPEG.match(raw.head):
            return num_audio_streams(raw)
        try:
            SndfileDecoder(raw, 0, float_bits=32).close()
        except NotForSndfileError as error:
            PyAvDecoder(raw, 0, 32, str(error)).close()  # the name alone can mislead FFmpeg: this decodes a piece
            return num_audio_streams(raw, str(error))
        return 1
    finally:
        raw.file.close()


def facts(info: AudioInfo) -> str:
    """What a file holds, in a few words."""
    return f"{info.num_frames} frames, {info.num_channels} channels, {info.bits} bits, {info.sample_rate_hz} Hz"


def to_bits(pcm: np.ndarray, bits: int, wanted_bits: int) -> np.ndarray:
    """Samples of one bit depth at another: shifted, so that going down drops the lowest bits (towards -infinity).

    Going up and down again is exact. int16 for up to 16 bits, int32 above.
    """
    dtype = np.int16 if wanted_bits <= 16 else np.int32
    if wanted_bits == bits:
        return pcm.astype(dtype, copy=False)
    if wanted_bits < bits:
        return (pcm >> (bits - wanted_bits)).astype(dtype, copy=False)
    return pcm.astype(dtype, copy=False) << (wanted_bits - bits)


def _decoder(raw: RawFile, stream: int, float_bits: int | None, known: AudioInfo | None) -> Decoder:
    """libsndfile's where it reads the file exactly, else FFmpeg's."""
    known_frames = known.num_frames if known else None
    if _FOR_FFMPEG.match(raw.head):
        return PyAvDecoder(raw, stream, float_bits, known_frames=known_frames)
    try:
        return SndfileDecoder(raw, stream, float_bits)
    except NotForSndfileError as error:
        reason = str(error)
    check_wav_format(raw)
    return PyAvDecoder(raw, stream, float_bits, reason, known_frames)
