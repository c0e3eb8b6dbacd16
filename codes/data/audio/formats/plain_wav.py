"""The samples of 16-bit WAV files, read straight from where they stand: as few bytes and copies as there can be.

Most training data is such files, and most of the time that a library takes for two seconds of one goes into buffers and
into taking the channels apart. `reader.AudioFile` stays the judge of what a file holds: this only reads what it has
found sound, and only where the first and last frames read both ways are the same.
"""

import io
import os
import sys
from pathlib import Path

import numpy as np

from codes.data.audio.formats.info import opening_error
from codes.data.audio.formats.wav_chunks import samples_start
from codes.data.audio.reader import AudioFile, AudioReadError

_FORMATS = ("WAV PCM_16", "WAVEX PCM_16")
_BLOCK_SAMPLES = 1 << 19  # of all channels: what is read at once, 1 MiB
_COMPARED_FRAMES = 16


class PlainWav:
    """An open WAV of 16-bit samples; made by `open_plain_wav`."""

    def __init__(self, path: Path, file: io.FileIO, first_byte: int, num_channels: int) -> None:
        self._path, self._file, self._first_byte, self._num_channels = path, file, first_byte, num_channels

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, start_frame: int, num_frames: int, scratch: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """(num_channels, num_frames) int16; the range must be within the file.

        Args:
            scratch: `new_scratch`'s memory, written over; one serves all files of a thread.
            out: where the samples go; None: new memory.

        Raises:
            AudioReadError: the file cannot be read there, or ends before.
        """
        channels = self._num_channels
        pcm = np.empty((channels, num_frames), np.int16) if out is None else out
        most = len(scratch) // channels
        for first in range(0, num_frames, most):
            part = pcm[:, first : first + most]
            block = part[0] if channels == 1 else scratch[: channels * part.shape[1]]
            self._fill(block, start_frame + first)
            if channels == 2:
                _split_pairs(block, part)
            elif channels > 2:
                part[:] = block.reshape(-1, channels).T
        return pcm

    def _fill(self, block: np.ndarray, start_frame: int) -> None:
        """Read the interleaved samples from ``start_frame`` on."""
        wanted = block.data.cast("B")
        place = self._first_byte + 2 * self._num_channels * start_frame
        try:
            while wanted:
                got = os.preadv(self._file.fileno(), [wanted], place)
                if got == 0:
                    raise AudioReadError(f"{self._path}: truncated since it was opened: it ends at byte {place}")
                wanted, place = wanted[got:], place + got
        except AudioReadError:
            raise
        except OSError as error:
            raise AudioReadError(f"{self._path}: broken at or after frame {start_frame}: {error.strerror}") from error


def open_plain_wav(audio: AudioFile) -> PlainWav | None:
    """The same file to be read straight; None where that cannot be done, or not on this system.

    Raises:
        AudioReadError: the file cannot be opened or read.
        OSError: too many files are open.
    """
    if audio.info.format not in _FORMATS or audio.info.bits != 16 or audio.info.num_channels > _BLOCK_SAMPLES:
        return None
    if sys.byteorder != "little" or not hasattr(os, "preadv"):
        return None
    file = None
    try:
        file = io.FileIO(audio.path)
        first_byte = samples_start(audio.raw)
        plain = PlainWav(audio.path, file, first_byte or 0, audio.info.num_channels)
        if hasattr(os, "posix_fadvise"):  # chunks are taken here and there: reading ahead fetches what nobody wants
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        if first_byte is not None and _agree(plain, audio):
            file = None  # it is plain's now
            return plain
        return None
    except AudioReadError:
        raise
    except OSError as error:
        raise opening_error(audio.path, error) from error
    finally:
        if file is not None:
            file.close()


def new_scratch() -> np.ndarray:
    """Memory for `PlainWav.read`."""
    return np.empty(_BLOCK_SAMPLES, np.int16)


def _agree(plain: PlainWav, audio: AudioFile) -> bool:
    """Whether both give the same first and last frames."""
    num_frames = min(_COMPARED_FRAMES, audio.info.num_frames)
    scratch = np.empty(num_frames * audio.info.num_channels, np.int16)
    return all(
        np.array_equal(plain.read(start, num_frames, scratch), audio.read(start, num_frames))
        for start in (0, audio.info.num_frames - num_frames)
    )


def _split_pairs(block: np.ndarray, pcm: np.ndarray) -> None:
    """Interleaved L0 R0 L1 R1 ... to (2, n), as halves of 32-bit words: much faster than by steps of two.

    ``block`` is written over.
    """
    pairs = block.view(np.int32)
    pcm[0] = pairs  # keeps the lower half, the left channel
    pairs >>= 16
    pcm[1] = pairs
