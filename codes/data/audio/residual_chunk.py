"""Chunks of described audio: what adaptive prediction leaves of a recording, and what it knows before each sample.

    python -m codes.data.audio.residual_chunk --path DIR

Adaptation needs the whole past of a sample, so a recording is predicted from its start, piece by piece, once: what
comes of it is kept in a cache of its own and mapped into memory. An item is a stretch of one channel, contiguous in
time, for a recurrent network that is trained by truncated back-propagation.
"""

import itertools
from bisect import bisect_right
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from codes.adaptive.cascade_options import AdaptiveOptions
from codes.adaptive.feature_cache import FeatureCache
from codes.adaptive.features import Described
from codes.data.audio.audio_dataset import AudioDataset
from codes.data.audio.demo_corpus import cache_root
from codes.data.audio.listing.index_entry import IndexEntry
from codes.data.audio.recordings import Segment
from codes.registry import Output, Range

_MOST_OPEN = 256  # pieces kept mapped


class ResidualChunkDataset(AudioDataset):
    """One channel's features and residuals; see `codes.adaptive.features`.

    Any number of channels (pairs, and a single one where one is left), sample rates and bit depths go together: samples
    are taken as they are in the file, whatever `bits` says. Training items are chunks that start anywhere; validation
    items are all whole chunks of all channels. The first ``context_frames`` of an item are there to warm a recurrent
    state up and are not to be scored.

    Args:
        chunk_frames: frames of an item that are scored.
        context_frames: frames before them.
        piece_frames: recordings are cut into pieces of this length, each predicted by itself as a coded block is.
        adaptive: the adaptive prediction; null is its default.
        feature_folder: where described pieces are kept; null: in the user's cache.
    """

    provides = {
        "wav": "PCM, (1, context_frames + chunk_frames) int32",
        "features": "(context_frames + chunk_frames, F) float32",
        "offsets": "the cascades' predictions less the stack's, in units, (context_frames + chunk_frames, K) float32",
        "residual": "samples less the stack's predictions, (context_frames + chunk_frames) float32",
        "unit": "the size of residuals to be expected, (context_frames + chunk_frames) float32",
        "path": "the file, str",
        "start_frame": "the frame of the file at which the item starts, int",
    }

    def __init__(
        self,
        *,
        chunk_frames: Annotated[int, Range(least=1)] = 1024,
        context_frames: Annotated[int, Range(least=0)] = 64,
        piece_frames: Annotated[int, Range(least=256)] = 131072,
        adaptive: AdaptiveOptions | None = None,
        feature_folder: Annotated[Path, Output()] | None = None,
        **audio: Any,
    ) -> None:
        self.item_frames, self.chunk_frames, self.context_frames = (
            chunk_frames + context_frames,
            chunk_frames,
            context_frames,
        )
        if self.item_frames > piece_frames:
            raise ValueError(f"piece_frames is {piece_frames}: it must be at least an item's {self.item_frames} frames")
        self.piece_frames = piece_frames
        self.adaptive = adaptive or AdaptiveOptions()
        self.shortest_frames = self.item_frames
        self._feature_cache = FeatureCache(feature_folder or cache_root() / "adaptive")
        self._described: dict[tuple[str, int], tuple[np.ndarray, Described]] = {}
        super().__init__(**audio)
        self._pieces = [piece for segment in self.segments for piece in self._cut(segment)]
        if audio.get("val_seconds") is not None and self.phase == "val":
            self._pieces = self._thinned(self._pieces, audio["val_seconds"])
        counts = [self._choices(length) * channels for _, _, length, channels in self._pieces]
        self._ends = list(itertools.accumulate(counts))

    def _choose_rate(self, files: list[IndexEntry], sample_rate: int | None, others: str) -> list[IndexEntry]:
        """Prediction adapts: any rates go together, unless one is asked for."""
        return files if sample_rate is None else super()._choose_rate(files, sample_rate, others)

    def _note_depths(self) -> None:
        """Nothing is shifted."""

    def _cut(self, segment: Segment) -> list[tuple[Segment, int, int, int]]:
        """Pieces of a segment: (segment, start, frames, channels)."""
        channels = 1 if segment.channel is not None else segment.recording.file.info.num_channels
        first, frames = segment.start_frame, segment.num_frames
        starts = range(first, first + frames, self.piece_frames)
        cut = [(segment, start, min(self.piece_frames, first + frames - start), channels) for start in starts]
        return [piece for piece in cut if piece[2] >= self.item_frames]

    def _thinned(self, pieces: list[tuple[Segment, int, int, int]], seconds: float) -> list:
        """Pieces cut to their first frames, so that all together last no longer than ``seconds``."""
        total = sum(length / segment.recording.sample_rate_hz for segment, _, length, _ in pieces)
        share = min(seconds / total, 1.0)
        if share < 1:
            self._notes.append(f"validates on the start of every piece, {seconds:.0f} of {total:.0f} seconds")
        return [(s, start, max(self.item_frames, int(n * share)), channels) for s, start, n, channels in pieces]

    def _choices(self, length: int) -> int:
        """Places in a piece at which an item can begin."""
        if self.phase == "train":
            return length - self.item_frames + 1
        return (length - self.context_frames) // self.chunk_frames

    def __len__(self) -> int:
        """Train: as many items as the samples would make. Val: the whole chunks that there are."""
        if self.phase == "val":
            return self._ends[-1]
        return max(1, sum(length * channels for _, _, length, channels in self._pieces) // self.chunk_frames)

    def item(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """Train: a random stretch of a random channel. Val: chunk ``index``.

        Raises:
            IndexError: there is no such item.
            AudioReadError: the file cannot be read.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of a dataset of {len(self)}")
        choice = index if self.phase == "val" else int(rng.integers(self._ends[-1]))
        number = bisect_right(self._ends, choice)
        segment, start, length, channels = self._pieces[number]
        place, channel = divmod(choice - (self._ends[number - 1] if number else 0), channels)
        if self.phase == "val":
            place *= self.chunk_frames
        pcm, described = self._describe(segment, start, length)
        span = slice(place, place + self.item_frames)
        return {
            "wav": np.ascontiguousarray(pcm[channel : channel + 1, span]),
            "features": described.features[channel, span].astype(np.float32),
            "offsets": described.offsets[channel, span].astype(np.float32),
            "residual": np.array(described.residuals[channel, span]),
            "unit": np.array(described.units[channel, span]),
            "path": str(segment.recording.file.path),
            "start_frame": start + place,
        }

    def _describe(self, segment: Segment, start: int, length: int) -> tuple[np.ndarray, Described]:
        """Samples (C, T) int32 and description of a piece, kept at hand."""
        key = (f"{segment.recording.file.path}:{segment.channel}", start)
        if key not in self._described:
            if len(self._described) >= _MOST_OPEN:
                del self._described[next(iter(self._described))]
            pcm = self.layout.apply(
                self._reader.read(segment.recording, start, length), segment.recording.bits, segment.channel
            )
            pcm = np.ascontiguousarray(pcm, np.int32)
            self._described[key] = pcm, self._feature_cache.describe(pcm, self.adaptive)
        return self._described[key]


if __name__ == "__main__":
    from codes.data.audio import preview

    preview.main("residual_chunk")
