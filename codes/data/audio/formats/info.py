"""What the parts of the reader share: the error, what a file holds, and opening a file with its troubles named."""

import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

# A FLAC frame of 65535 equal samples takes about 14 bytes; no format here packs tighter.
MOST_FRAMES_PER_BYTE = 65_536
_HEAD_BYTES = 4096
_TOO_MANY = {errno.EMFILE: "this program", errno.ENFILE: "this machine"}


class AudioReadError(OSError):
    """A file that cannot be read as audio; the message names the file and what is wrong with it."""

    def __init__(self, message: str) -> None:
        super().__init__(
            message.encode("utf-8", "backslashreplace").decode()
        )  # a name that is not UTF-8 can be printed


class SilentVideoError(AudioReadError):
    """A video without sound: nothing is wrong with it, but there is nothing to read."""


@dataclass(frozen=True, kw_only=True)
class AudioInfo:
    """What an audio file holds. ``bits`` is the depth of the integers that `read` gives; ``format`` is for people.

    ``lossy`` formats (MP3, AAC, Opus, ...) have no depth of their own and always give 16 bits. Where ``seeks`` is
    False, a read at an offset decodes from the file's start: most lossy formats, and lossless ones in Ogg, Matroska,
    APE or TAK.
    """

    num_frames: int
    sample_rate_hz: int
    bits: int
    num_channels: int
    format: str
    lossy: bool = False
    seeks: bool = field(default=True, compare=False)  # how it is read, and no part of what it holds


@dataclass(frozen=True, kw_only=True)
class RawFile:
    """A regular file, open and at its start: its size and its first bytes."""

    path: Path
    file: BinaryIO
    size_bytes: int
    head: bytes

    def peek(self, start: int, num_bytes: int) -> bytes:
        """Bytes from ``start`` on, fewer at the end; the file stands where it stood, as its decoder relies on that."""
        if start + num_bytes <= len(self.head):
            return self.head[start : start + num_bytes]
        if start >= self.size_bytes:  # a place beyond 2^63, which broken files name, cannot even be sought
            return b""
        place = self.file.tell()
        self.file.seek(start)
        found = self.file.read(num_bytes)
        self.file.seek(place)
        return found


class Decoder(Protocol):
    """One open file in one library: ``fill`` writes the frames from ``start_frame`` on into an integer array (C, n)."""

    info: AudioInfo

    def fill(self, start_frame: int, pcm: np.ndarray) -> None: ...

    def close(self) -> None: ...


def open_file(path: Path) -> RawFile:
    """Open a file that may hold audio.

    Raises:
        AudioReadError: missing, not permitted, a folder or another thing that is no file, or empty.
        OSError: too many files are open, which is no fault of this one.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise AudioReadError(f"{path}: is a folder, not an audio file")
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for somebody to write into it
            raise AudioReadError(f"{path}: is not a regular file")
        file = path.open("rb", buffering=0)
    except AudioReadError:
        raise
    except ValueError as error:  # a NUL in the name
        raise AudioReadError(f"{path!r}: cannot be opened: {error}") from error
    except OSError as error:
        raise opening_error(path, error) from error
    try:
        head = file.read(_HEAD_BYTES)
        file.seek(0)
    except OSError as error:
        file.close()
        raise AudioReadError(f"{path}: cannot be opened: {error.strerror}") from error
    if not head:
        file.close()
        raise AudioReadError(f"{path}: is empty (0 bytes)")
    return RawFile(path=path, file=file, size_bytes=status.st_size, head=head)


def opening_error(path: Path, error: OSError) -> OSError:
    """An `AudioReadError` that says why a file cannot be opened; a plain OSError where that is no fault of the file."""
    if error.errno in _TOO_MANY:
        message = f"{path}: cannot be opened: {_TOO_MANY[error.errno]} has too many files open; the file may be sound"
        return OSError(error.errno, f"{message}: close some, or raise the limit (ulimit -n)")
    broken = " (a link to nothing)" if os.path.islink(path) and not os.path.exists(path) else ""
    return AudioReadError(f"{path}: cannot be opened: {error.strerror}{broken}")


def check_stream(path: Path, stream: int, num_streams: int) -> None:
    """Refuse an audio stream that the file does not have.

    Raises:
        AudioReadError: ``stream`` is not in 0 .. num_streams - 1.
    """
    if not 0 <= stream < num_streams:
        what = "audio stream" if num_streams == 1 else "audio streams"
        raise AudioReadError(f"{path}: audio stream {stream} was asked for, the file has {num_streams} {what}")


def check_frames(path: Path, num_frames: int, size_bytes: int) -> None:
    """Refuse a number of frames that no format packs into so many bytes.

    Raises:
        AudioReadError: the number is negative or impossibly large.
    """
    if num_frames < 0 or num_frames > size_bytes * MOST_FRAMES_PER_BYTE:
        raise AudioReadError(f"{path}: says it has {num_frames} frames, which its {size_bytes} bytes cannot hold")


def float_to_bits(path: Path, samples: np.ndarray, bits: int) -> np.ndarray:
    """Floating point samples, full scale 1.0, as integers of ``bits`` bits: round(x * 2^(bits-1)), saturated.

    Ties go to the even integer. The same shape; int16 up to 16 bits, int32 above.

    Raises:
        AudioReadError: a sample is not a number.
    """
    limit = 2.0 ** (bits - 1)
    # float32 is exact up to 16 bits: scaling by a power of two changes no digit, and the integers fit.
    with np.errstate(invalid="ignore", over="ignore"):  # NaN is refused below, and infinity is clipped
        scaled = np.rint(samples * samples.dtype.type(limit) if bits <= 16 else samples.astype(np.float64) * limit)
    if np.isnan(scaled).any():
        raise AudioReadError(f"{path}: holds samples that are not numbers (NaN)")
    return np.clip(scaled, -limit, limit - 1).astype(np.int16 if bits <= 16 else np.int32)


def refuse_floating(path: Path, name: str, float_bits: int | None) -> int:
    """The depth for floating point samples: ``float_bits``, where it is given.

    Raises:
        AudioReadError: it is None.
    """
    if float_bits is None:
        raise AudioReadError(
            f"{path}: holds floating point samples ({name}), and only integer PCM is read exactly; "
            "convert it to 16 or 24 bits first, or set float_bits to the depth to round to"
        )
    return float_bits


def drop_padding(path: Path, pcm: np.ndarray, bits: int, *, check: bool) -> np.ndarray:
    """Integers that fill int16 or int32 at their own depth: shifted right, in place.

    Raises:
        AudioReadError: ``check``, and the bits below the samples are not zero: the file has more bits than it says.
    """
    padding_bits = 8 * pcm.dtype.itemsize - bits
    if padding_bits == 0:
        return pcm
    if check and np.bitwise_or.reduce(pcm, axis=None) & ((1 << padding_bits) - 1):
        raise AudioReadError(f"{path}: says its samples have {bits} bits, and has samples of more bits than that")
    pcm >>= padding_bits
    return pcm
