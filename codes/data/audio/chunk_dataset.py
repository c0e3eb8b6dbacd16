"""The base classes of datasets whose items are windows of a recording: random ones to train, all of them to validate.

A whole dataset::

    class MidSideChunkDataset(ChunkDataset):
        '''Chunks of mid and side.'''

        num_channels = 2
        provides = {**ChunkDataset.provides, "mid_side": "(2, context_frames + chunk_frames) int32"}

        def finish(self, item, rng):
            left, right = item["wav"].astype(np.int32)
            return {**item, "mid_side": np.stack([left + right, left - right])}
"""

import itertools
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any

import numpy as np

from codes.data.audio.audio_dataset import AudioDataset
from codes.data.audio.recordings import Segment
from codes.data.audio.redraws import first_readable


class WindowDataset(AudioDataset, abstract=True):
    """Chunks of PCM, with the frames before each as context.

    Training items are chunks that start anywhere, every start in every file being equally likely; the validation items
    are all whole chunks of the validation side, one after the other. Context before the start of the file (or of its
    side of the split) is zeros. A subclass sets ``chunk_frames`` and ``context_frames`` before it calls this
    constructor, and says what it makes of a chunk in `finish`.
    """

    chunk_frames: int
    context_frames: int = 0

    provides = {
        "wav": "PCM, (num_channels, context_frames + chunk_frames), int16 for bits <= 16, else int32",
        "path": "the file, str",
        "start_frame": "the frame of the file at which the chunk (not its context) starts, int",
        "sample_rate": "frames per second, int",
        "bit_depth": "bits of the file itself, int",
    }

    def __init__(self, **audio: Any) -> None:
        self.shortest_frames = self.chunk_frames
        super().__init__(**audio)
        starts = [segment.num_frames - self.chunk_frames + 1 for segment in self.segments]
        self._first_chunks, chunks = self._middle(audio.get("val_seconds") if self.phase == "val" else None)
        self._ends = list(itertools.accumulate(starts if self.phase == "train" else chunks))  # of a segment's choices
        whole_chunks = self._num_frames() // self.chunk_frames
        self._num_items = max(1, whole_chunks) if self.phase == "train" else self._ends[-1]

    def finish(self, item: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Make of a chunk what the dataset gives; subclasses override it. All randomness must come from ``rng``."""
        return item

    def __len__(self) -> int:
        """Train: as many chunks as the frames would make. Val: the whole chunks that there are."""
        return self._num_items

    def item(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """Train: a random chunk, whatever the index. Val: chunk ``index``, whatever ``rng``.

        With on_error: skip, a training chunk that cannot be read is counted under `SKIPPED`, and another one drawn.

        Raises:
            IndexError: there is no such item.
            AudioReadError: the file cannot be read, or is not what it was when it was scanned.
        """
        if not 0 <= index < self._num_items:
            raise IndexError(f"item {index} of a dataset of {len(self)}")
        if self.phase == "val":
            return self.finish(self.chunk(*self._place(index)), rng)
        if self.on_error == "fail":
            return self.finish(self.chunk(*self._drawn(rng)), rng)
        places = (self._drawn(rng) for _ in itertools.count())
        return first_readable(
            (place[0].recording.file.path, lambda at=place: self.finish(self.chunk(*at), rng)) for place in places
        )

    def _drawn(self, rng: np.random.Generator) -> tuple[Segment, int]:
        """A random place: a number below 2^53 times a fraction of 53 bits, a third of the time of rng.integers()."""
        return self._place(int(rng.random() * self._ends[-1]))

    def _place(self, choice: int) -> tuple[Segment, int]:
        """Segment and start of the chunk of that number among all that can be chosen."""
        number = bisect_right(self._ends, choice)
        within = choice - (self._ends[number - 1] if number else 0)
        segment = self.segments[number]
        if self.phase == "val":
            within = (self._first_chunks[number] + within) * self.chunk_frames
        return segment, segment.start_frame + within

    def chunk(self, segment: Segment, start_frame: int) -> dict[str, Any]:
        """The chunk that starts at that frame of the recording, with its context."""
        return {
            "wav": self.window(segment, start_frame - self.context_frames, self.context_frames + self.chunk_frames),
            "path": str(segment.recording.file.path),
            "start_frame": start_frame,
            "sample_rate": segment.recording.sample_rate_hz,
            "bit_depth": segment.recording.bits,
        }

    def window(self, segment: Segment, start_frame: int, num_frames: int) -> np.ndarray:
        """(num_channels, num_frames) integers; zeros before the segment's start and after its end."""
        end = segment.start_frame + segment.num_frames
        if segment.start_frame <= start_frame and start_frame + num_frames <= end:
            return self.read(segment, start_frame, num_frames)
        first, last = max(segment.start_frame, start_frame), min(end, start_frame + num_frames)
        pcm = self.read(segment, first, last - first)
        before, after = first - start_frame, start_frame + num_frames - last
        return np.pad(pcm, ((0, 0), (before, after)))

    def scored_audio(self, most_frames: int | None = None) -> Iterator[tuple[str, np.ndarray, int, int]]:
        """What the whole chunks of each segment hold: (path, PCM (num_channels, frames), bits, sample rate in Hz).

        For val these are exactly the frames that its items hold as chunks, for the baselines to code as well.

        Args:
            most_frames: of a longer segment only so many from its middle; None: all, however long it is.
        """
        for segment, first, chunks in zip(self.segments, self._first_chunks, self._num_chunks, strict=True):
            frames = chunks * self.chunk_frames
            if not frames:
                continue
            kept = frames if most_frames is None else min(frames, most_frames)
            start = segment.start_frame + first * self.chunk_frames + (frames - kept) // 2
            pcm = self.read(segment, start, kept)
            yield str(segment.recording.file.path), pcm, self.bits, segment.recording.sample_rate_hz

    def scored_seconds(self) -> float:
        """How much audio `scored_audio` gives."""
        rates = [segment.recording.sample_rate_hz for segment in self.segments]
        return sum(n * self.chunk_frames / rate for n, rate in zip(self._num_chunks, rates, strict=True))

    def _middle(self, seconds: float | None) -> tuple[list[int], list[int]]:
        """First chunk and number of chunks of each segment: all, or the middle of each, `seconds` together."""
        chunks = [segment.num_frames // self.chunk_frames for segment in self.segments]
        self._num_chunks = chunks
        total = self.scored_seconds()
        if seconds is not None and total > seconds:
            ends = [int(end * seconds / total + 1e-9) for end in itertools.accumulate(chunks, initial=0)]
            self._num_chunks = [after - before for before, after in itertools.pairwise(ends)]
            if not any(self._num_chunks):
                self._num_chunks[int(np.argmax(chunks))] = 1
            taken = sum(kept > 0 for kept in self._num_chunks)
            which = "every file" if taken == len(chunks) else f"{taken} of {len(chunks)} files"
            self._notes.append(
                f"validates on the middle of {which}, {self.scored_seconds():.0f} of {total:.0f} seconds"
            )
        return [(n - kept) // 2 for n, kept in zip(chunks, self._num_chunks, strict=True)], self._num_chunks


class ChunkDataset(WindowDataset, abstract=True):
    """Chunks of a length that the YAML says; see `WindowDataset`.

    Args:
        chunk_frames: length of a chunk in frames (samples of one channel).
        context_frames: frames before the chunk that are given as well.
    """

    def __init__(self, *, chunk_frames: int = 8192, context_frames: int = 0, **audio: Any) -> None:
        if chunk_frames < 1:
            raise ValueError(f"chunk_frames is {chunk_frames}, it must be at least 1")
        if context_frames < 0:
            raise ValueError(f"context_frames is {context_frames}, it must be at least 0")
        self.chunk_frames, self.context_frames = chunk_frames, context_frames
        super().__init__(**audio)
