"""The files of a dataset as it reads them: each at one rate, from the file itself or from the cache of decoded PCM.

A file that can be read exactly at any place is read there, and kept open: opening a WAV takes as long as reading two
seconds of it. Of 16-bit WAV the samples are taken straight from the file. A file that cannot be (a lossy one, or one of
another sample rate than is wanted) is decoded once into the cache. In any case a read gives the same integers as a read
of the whole.
"""

import collections
import functools
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from codes.data.audio.formats.plain_wav import PlainWav, new_scratch, open_plain_wav
from codes.data.audio.listing.index_entry import IndexEntry
from codes.data.audio.pcm_cache import CachedPcm
from codes.data.audio.pcm_entry import files_allowed
from codes.data.audio.reader import AudioFile, AudioReadError
from codes.data.batch_rows import BatchRows

_MOST_OPEN = 64  # recordings a process, each of which takes up to three descriptors


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A file at the dataset's sample rate: read from the file, or from its decoded copy where there is one."""

    file: IndexEntry
    cached: CachedPcm | None = None
    float_bits: int | None = None

    @functools.cached_property
    def num_frames(self) -> int:
        """Frames at the dataset's rate."""
        return self.cached.num_frames if self.cached else self.file.info.num_frames

    @functools.cached_property
    def sample_rate_hz(self) -> int:
        """The dataset's rate."""
        return self.cached.sample_rate_hz if self.cached else self.file.info.sample_rate_hz

    @functools.cached_property
    def bits(self) -> int:
        """Depth of the integers that are read."""
        return self.file.info.bits

    @property
    def seconds(self) -> float:
        """Its duration."""
        return self.num_frames / self.sample_rate_hz


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A stretch of a recording that belongs to one phase; ``channel`` where each channel stands for itself."""

    recording: Recording
    start_frame: int
    num_frames: int
    channel: int | None = None

    @property
    def seconds(self) -> float:
        """Its duration."""
        return self.num_frames / self.recording.sample_rate_hz


@dataclass
class _Opened:
    """An open file and what its status was; a file that changes under the reader is found by it."""

    audio: AudioFile
    plain: PlainWav | None  # the same, read straight
    size_bytes: int
    mtime_ns: int

    def close(self) -> None:
        """Close the file."""
        self.audio.close()
        if self.plain is not None:
            self.plain.close()


@dataclass
class RecordingReader:
    """Reads recordings and keeps the files it read last open; nothing open crosses into another process."""

    rows: BatchRows | None = None  # where to take memory from
    _open: "collections.OrderedDict[tuple[Path, int], _Opened]" = field(default_factory=collections.OrderedDict)
    _process: int = -1
    _scratch: np.ndarray = field(default_factory=new_scratch)

    def __del__(self) -> None:
        for opened in self._open.values():
            opened.close()

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()

    def read(self, recording: Recording, start_frame: int, num_frames: int) -> np.ndarray:
        """(C, num_frames) integers of ``recording.bits`` bits, an array of the caller's own or one of ``rows``.

        Raises:
            AudioReadError: the file cannot be read, or is not what it was when it was scanned.
        """
        if recording.cached is not None:
            out = None if self.rows is None else self._memory(recording, num_frames)
            return recording.cached.read(start_frame, num_frames, out)
        try:
            found = self._opened(recording)
            if found.plain is None or start_frame < 0 or start_frame + num_frames > recording.num_frames:
                return found.audio.read(start_frame, num_frames)
            return found.plain.read(start_frame, num_frames, self._scratch, self._memory(recording, num_frames))
        except AudioReadError:
            self._close(recording)
            raise

    def _memory(self, recording: Recording, num_frames: int) -> np.ndarray | None:
        """What the batch has for so many frames; None: new memory, which the caller makes."""
        if self.rows is None or not 0 < num_frames <= recording.num_frames:
            return None
        dtype = np.dtype(np.int16 if recording.bits <= 16 else np.int32)
        return self.rows.take((recording.file.info.num_channels, num_frames), dtype)

    def _opened(self, recording: Recording) -> _Opened:
        if self._process != os.getpid():  # a forked worker must not move the file positions of its parent
            self._open, self._process = collections.OrderedDict(), os.getpid()
        file = recording.file
        try:
            status = os.stat(file.path)
        except OSError as error:
            raise AudioReadError(f"{file.path}: cannot be opened: {error.strerror}") from error
        found = self._open.get((file.path, file.stream))
        if found is not None and (found.size_bytes, found.mtime_ns) == (status.st_size, status.st_mtime_ns):
            self._open.move_to_end((file.path, file.stream))
            return found
        self._close(recording)
        audio = AudioFile(file.path, stream=file.stream, float_bits=recording.float_bits, known=file.info)
        if file.mtime_ns and (status.st_size, status.st_mtime_ns) != (file.size_bytes, file.mtime_ns):
            audio.close()
            raise AudioReadError(f"{file.path}: has changed since it was scanned: it was written again")
        try:
            found = _Opened(audio, open_plain_wav(audio), status.st_size, status.st_mtime_ns)
        except BaseException:
            audio.close()
            raise
        self._open[file.path, file.stream] = found
        if len(self._open) > _most_open():
            self._open.popitem(last=False)[1].close()
        return found

    def _close(self, recording: Recording) -> None:
        found = self._open.pop((recording.file.path, recording.file.stream), None)
        if found is not None:
            found.close()


@functools.cache
def _most_open() -> int:
    """How many recordings stay open: fewer where the system allows few open files, as other datasets need some too."""
    return max(2, min(_MOST_OPEN, files_allowed() // 16))
