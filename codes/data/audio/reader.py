"""Audio files as exact integers: what a file holds, and its samples at its own bit depth.

Samples never pass through floating point: a file of b bits gives integers in -2^(b-1) .. 2^(b-1) - 1, int16 up to 16
bits and int32 above. All formats of libsndfile are read (WAV, FLAC, AIFF, CAF, W64, RF64, AU, and the lossy OGG, Opus
and MP3, which have no bit depth of their own and come out as 16 bits). Files of floating point samples are refused:
which integers they stand for is a decision, and not one for a reader.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

# libsndfile's name of a sample type -> bits. What is not named here and not refused is lossy and decodes to 16 bits.
_BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
_BITS |= {"ALAC_16": 16, "ALAC_20": 20, "ALAC_24": 24, "ALAC_32": 32}
_FLOATING = ("FLOAT", "DOUBLE")
# A FLAC frame of 65535 equal samples takes about 14 bytes; no format here packs tighter.
_MOST_FRAMES_PER_BYTE = 65_536
_UNKNOWN_LENGTHS = (0, 0x7FFFFFFF, 0xFFFFFFFF)  # what programs that stream write for "until the end"
# How libsndfile's log says that a file is shorter than its header: WAV, CAF, AIFF and AU; then RF64; then W64.
_LENGTH_NOTES = (
    (r"^\s*(?:data|SSND|Data Size)\s*: (?P<promised>\d+) \(should be (?P<present>\d+)\)", "bytes of samples"),
    (r"Calculated frame count (?P<present>\d+) does not match value from 'ds64' chunk of (?P<promised>\d+)", "frames"),
    (r"^riff : (?P<promised>\d+) \(should be (?P<present>\d+)\)", "bytes"),
)


class AudioReadError(OSError):
    """A file that cannot be read as audio; the message names the file and what is wrong with it."""


@dataclass(frozen=True, kw_only=True)
class AudioInfo:
    """What an audio file holds. ``bits`` is the depth of the integers that `read` gives; ``format`` is for people."""

    num_frames: int
    sample_rate_hz: int
    bits: int
    num_channels: int
    format: str


class AudioFile:
    """An open audio file: ``info`` and ``read``. A context manager.

    Raises:
        AudioReadError: missing, not permitted, empty, not audio, of floating point samples, or truncated.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file = _open(self.path)
        try:
            self.info = _info(self.path, self._file)
        except AudioReadError:
            self._file.close()
            raise

    def __enter__(self) -> "AudioFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, start_frame: int = 0, num_frames: int | None = None) -> np.ndarray:
        """Frames from ``start_frame`` on (all that follow where ``num_frames`` is None) as integers.

        Returns:
            (channels, frames), int16 for up to 16 bits and int32 above, in -2^(bits-1) .. 2^(bits-1) - 1.

        Raises:
            AudioReadError: the range is not within the file, or the file ends before it says it does.
        """
        info = self.info
        if num_frames is None:
            num_frames = info.num_frames - start_frame
        if start_frame < 0 or num_frames < 0 or start_frame + num_frames > info.num_frames:
            raise AudioReadError(
                f"{self.path}: frames {start_frame} to {start_frame + num_frames} were asked for, "
                f"the file has {info.num_frames}"
            )
        return _to_depth(self._read_left_justified(start_frame, num_frames), info.bits)

    def _read_left_justified(self, start_frame: int, num_frames: int) -> np.ndarray:
        """libsndfile's integers (frames, channels), which are scaled up to fill int16 or int32."""
        import soundfile

        dtype = "int16" if self.info.bits <= 16 else "int32"
        if num_frames == 0:
            return np.zeros((0, self.info.num_channels), dtype)
        try:
            self._file.seek(start_frame)
            pcm = self._file.read(num_frames, dtype=dtype, always_2d=True)
        except (soundfile.SoundFileError, RuntimeError, OSError) as error:
            raise AudioReadError(f"{self.path}: broken at or after frame {start_frame}: {error}") from error
        if len(pcm) != num_frames:
            raise AudioReadError(
                f"{self.path}: truncated or broken: it promises {self.info.num_frames} frames and ends after "
                f"{start_frame + len(pcm)}"
            )
        return pcm


def probe(path: str | os.PathLike[str]) -> AudioInfo:
    """What a file holds, from its header.

    Raises:
        AudioReadError: see `AudioFile`.
    """
    with AudioFile(path) as file:
        return file.info


def read(path: str | os.PathLike[str], start_frame: int = 0, num_frames: int | None = None) -> np.ndarray:
    """Samples of a file, (channels, frames) integers at the file's own bit depth; see `AudioFile.read`.

    Raises:
        AudioReadError: see `AudioFile` and `AudioFile.read`.
    """
    with AudioFile(path) as file:
        return file.read(start_frame, num_frames)


def to_bits(pcm: np.ndarray, bits: int, wanted_bits: int) -> np.ndarray:
    """Samples of one bit depth at another: shifted, so that going down drops the lowest bits (towards -infinity).

    Going up and down again is exact. int16 for up to 16 bits, int32 above.
    """
    dtype = np.int16 if wanted_bits <= 16 else np.int32
    if wanted_bits <= bits:
        return (pcm >> (bits - wanted_bits)).astype(dtype, copy=False)
    return pcm.astype(dtype, copy=False) << (wanted_bits - bits)


def _open(path: Path) -> Any:
    """The file open in soundfile; checked first, as libsndfile says no more than "System error" of most troubles."""
    try:
        import soundfile
    except (ImportError, OSError) as error:
        raise ImportError(f"reading audio needs soundfile (pip install soundfile): {error}") from error
    if path.is_dir():
        raise AudioReadError(f"{path}: is a folder, not an audio file")
    try:
        with path.open("rb") as file:
            is_empty = not file.read(1)
    except OSError as error:
        raise AudioReadError(f"{path}: cannot be opened: {error.strerror}") from error
    if is_empty:
        raise AudioReadError(f"{path}: is empty (0 bytes)")
    try:
        return soundfile.SoundFile(path)
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError) as error:
        reason = getattr(error, "error_string", str(error))
        raise AudioReadError(f"{path}: is not audio that libsndfile reads: {reason}") from error


def _info(path: Path, file: Any) -> AudioInfo:
    if file.subtype in _FLOATING:
        raise AudioReadError(
            f"{path}: holds floating point samples ({file.subtype}), and only integer PCM is read exactly; "
            "convert it to 16 or 24 bits first"
        )
    size_bytes = path.stat().st_size
    if file.frames < 0 or file.frames > size_bytes * _MOST_FRAMES_PER_BYTE:
        raise AudioReadError(f"{path}: says it has {file.frames} frames, which its {size_bytes} bytes cannot hold")
    _check_length(path, file)
    if file.frames == 0:
        raise AudioReadError(f"{path}: has no samples in it (0 frames)")
    return AudioInfo(
        num_frames=file.frames,
        sample_rate_hz=file.samplerate,
        bits=_BITS.get(file.subtype, 16),
        num_channels=file.channels,
        format=f"{file.format} {file.subtype}",
    )


def _check_length(path: Path, file: Any) -> None:
    """Refuse a file whose header promises more samples than follow: libsndfile only notes it in its log."""
    for pattern, unit in _LENGTH_NOTES:
        note = re.search(pattern, file.extra_info, re.M)
        if note is None:
            continue
        promised, present = int(note["promised"]), int(note["present"])
        if promised > present and promised not in _UNKNOWN_LENGTHS:
            raise AudioReadError(f"{path}: truncated: promises {promised} {unit} and has {present}")


def _to_depth(pcm: np.ndarray, bits: int) -> np.ndarray:
    """(frames, channels) that fill int16 or int32 to (channels, frames) at the file's own depth."""
    container_bits = 8 * pcm.dtype.itemsize
    return np.ascontiguousarray(pcm.T) >> (container_bits - bits)
