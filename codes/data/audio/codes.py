"""Windows of codes of audio that were made once by scripts/encode_audio.py.

Reading them is copying: no audio is decoded and no codec runs. A window is whole frames, so it begins at codebook 0.
"""

import hashlib
import itertools
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from codes.data.audio.codes_cache import CodedRecording, CodesCache
from codes.data.audio.splits import Split
from codes.data.dataset import Dataset
from codes.registry import Range


class CodesDataset(Dataset):
    """Windows of cached codes: random ones to train, all whole ones to validate.

    Args:
        path: a folder that scripts/encode_audio.py wrote.
        phase: "train" or "val": which side of the split.
        frames: frames of a window.
        num_codebooks: codebooks that are given, the first ones; null: all that were cached.
        split: how train and val are divided: "interval" (a stretch of each recording) or "file".
        val_fraction: share of the duration that is kept for validation.
        val_position: for interval: where the stretch lies: 0 at the start of each recording, 0.5 in its middle.
        split_seed: for file: which recordings validate.
    """

    provides = {
        "codes": "(num_codebooks, frames) int64, 0 .. codebook size - 1",
        "path": "the audio file, str",
        "start_frame": "the audio frame at which the window starts, int",
        "sample_rate": "of the codec, Hz, int",
    }

    def __init__(
        self,
        *,
        path: Path,
        phase: Literal["train", "val"] = "train",
        frames: Annotated[int, Range(least=1)] = 256,
        num_codebooks: Annotated[int, Range(least=1)] | None = None,
        split: Literal["interval", "file"] = "interval",
        val_fraction: float = 0.1,
        val_position: float = 0.5,
        split_seed: int = 0,
    ) -> None:
        self.cache, self.phase, self.frames = CodesCache(path), phase, frames
        made = self.cache.description
        self.codec_hash, self.coded_channels, self.sample_rate_hz = (
            made.weights_hash, made.coded_channels, made.sample_rate_hz,
        )  # fmt: skip
        rows = made.num_codebooks * made.coded_channels
        self.num_codebooks = num_codebooks or rows
        if self.num_codebooks > rows or (made.coded_channels > 1 and self.num_codebooks < rows):
            raise ValueError(f"num_codebooks is {num_codebooks}: {path} holds {rows}")
        kind = Split(by=split, val_fraction=val_fraction, val_position=val_position, seed=split_seed)
        everything = self.cache.recordings()
        train, val = kind.files(everything)  # type: ignore[arg-type]  # all that it asks of a file
        sides: Any = train if phase == "train" else val
        self.segments = [
            (recording, start, length)
            for recording in sides
            for start, length in kind.intervals(recording.num_frames, phase)
            if length >= frames
        ]
        if not self.segments:
            longest = max((recording.num_frames for recording in everything), default=0)
            what = f"frames is {frames}: no stretch for phase {phase!r} has as many (split: {kind.describe()}"
            raise ValueError(f"{what}; the longest recording has {longest} frames)")
        counts = [length - frames + 1 if phase == "train" else length // frames for _, _, length in self.segments]
        self._ends = list(itertools.accumulate(counts))
        self._opened: dict[str, np.ndarray] = {}
        for recording, _, _ in self.segments:
            self._codes(recording)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}}  # a worker maps the files itself

    def __len__(self) -> int:
        """Train: as many windows as the frames would make. Val: the whole windows that there are."""
        if self.phase == "val":
            return self._ends[-1]
        return max(1, sum(length for _, _, length in self.segments) // self.frames)

    def _codes(self, recording: CodedRecording) -> np.ndarray:
        found = self._opened.get(recording.key)
        if found is None:
            found = self._opened[recording.key] = self.cache.open(recording)
        return found

    def item(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """Train: a random window, whatever the index. Val: window `index`.

        Raises:
            IndexError: there is no such item.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of a dataset of {len(self)}")
        choice = index if self.phase == "val" else int(rng.integers(self._ends[-1]))
        number = bisect_right(self._ends, choice)
        within = choice - (self._ends[number - 1] if number else 0)
        recording, first, _ = self.segments[number]
        start = first + within * (self.frames if self.phase == "val" else 1)
        window = self._codes(recording)[start : start + self.frames, : self.num_codebooks]
        return {
            "codes": np.ascontiguousarray(window.T).astype(np.int64),
            "path": recording.path,
            "start_frame": start * self.cache.description.hop_samples,
            "sample_rate": self.sample_rate_hz,
        }

    def scored_codes(self) -> Iterator[tuple[str, np.ndarray]]:
        """(path, codes (K, F) int64) of every stretch of this side of the split."""
        for recording, start, length in self.segments:
            part = self._codes(recording)[start : start + length, : self.num_codebooks]
            yield recording.path, np.ascontiguousarray(part.T).astype(np.int64)

    def fingerprint(self) -> dict[str, Any]:
        """Stretches, their names and the codec's weights."""
        listed = [(recording.key, start, length) for recording, start, length in self.segments]
        digest = hashlib.sha256(repr((listed, self.codec_hash)).encode()).hexdigest()[:16]
        return {"frames": sum(length for _, _, length in self.segments), "digest": digest}

    def report(self) -> list[str]:
        """What there is, in lines for people."""
        made, frames = self.cache.description, sum(length for _, _, length in self.segments)
        seconds = frames * made.hop_samples / made.sample_rate_hz
        return [
            f"{self.cache.root}: {frames:,} frames of {self.num_codebooks} codes ({seconds / 60:.2f} min in "
            f"{len(self.segments)} stretches) by {made.codec}; {len(self)} items an epoch"
        ]


if __name__ == "__main__":
    from codes.data.audio import preview

    preview.main("codes")
