"""The base class of datasets whose items are whole recordings as floats, filled up with silence to one length."""

import itertools
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from codes.data.audio.audio_dataset import AudioDataset
from codes.data.audio.channel_layout import ChannelChoice
from codes.data.audio.companions import Companions, similar_files
from codes.data.audio.listing.index_entry import IndexEntry
from codes.data.audio.recordings import Segment
from codes.data.audio.redraws import first_readable
from codes.data.audio.splits import Sides, SplitKind
from codes.registry import Range


class ClipDataset(AudioDataset, abstract=True):
    """Whole recordings of one channel; item n is recording n, and what is drawn for it follows from ``rng``.

    Args:
        sample_rate: frames per second of the audio given, in Hz; files of another rate are resampled, once.
        channels: "mono": the mean of all channels; "exact": mono files only; {select: [i]} takes one channel;
            {aggregate: [[weights]]} mixes them.
        float_bits: files of floating point samples are taken as integers of so many bits; null: they are errors.
        split: how train and val are divided: by "file", by "folder" (which keeps speakers apart) or by "list"; used
            where val_fraction or val_list is given.
        val_fraction: share of the duration that is kept for validation, 0 to 1; null: nothing is divided, and all that
            path names belongs to the phase, as in DL-Art-School.
    """

    num_channels = 1
    longest_frames: int | None = None  # an item's length, where all are filled up to one

    def __init__(
        self,
        *,
        sample_rate: Annotated[int, Range(least=1)] = 22050,
        channels: ChannelChoice = "mono",
        float_bits: Annotated[int, Range(least=8, most=32)] | None = 16,
        split: SplitKind = "file",
        val_fraction: float | None = None,
        **audio: Any,
    ) -> None:
        if split == "interval":
            raise ValueError("split: interval would cut recordings, which are items: allowed are file, folder and list")
        self.sample_rate_hz = sample_rate
        self.companions: Companions | None = None
        self._undivided = val_fraction is None and split == "file"
        how = {"channels": channels, "float_bits": float_bits, "split": split}
        share = 0.1 if val_fraction is None else val_fraction
        super().__init__(sample_rate=sample_rate, val_fraction=share, **how, **audio)
        if self.phase == "val" and audio.get("val_seconds") is not None:
            self._keep_some(audio["val_seconds"])

    def clip(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """Item ``index``; subclasses define it. All randomness must come from ``rng``."""
        raise NotImplementedError(f"{type(self).__name__} must define clip(self, index, rng)")

    def group(self, segment: Segment) -> str:
        """What clips that go together have in common; by default their folder."""
        return str(segment.recording.file.path.parent)

    def sides(self, files: list[IndexEntry]) -> Sides:
        """Training and validation files; all on both sides where nothing is divided."""
        return (list(files), list(files)) if self._undivided else super().sides(files)

    def _one_phase(self, files: list[IndexEntry]) -> list[IndexEntry]:
        if not self._undivided:
            return super()._one_phase(files)
        self._notes.append(f"not divided: all that path names is for {self.phase} (val_fraction divides it)")
        return files

    def __len__(self) -> int:
        """As many items as clips."""
        return len(self.segments)

    def item(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """Clip ``index``. With on_error: skip, training counts a file that cannot be read, and draws another clip.

        Raises:
            IndexError: there is no such item.
            AudioReadError: the file cannot be read, or is not what it was when it was scanned.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of a dataset of {len(self)}")
        if self.on_error == "fail" or self.phase == "val":
            return self.clip(index, rng)
        others = (int(rng.integers(len(self))) for _ in itertools.count())
        chosen = itertools.chain([index], others)
        return first_readable((self.clip_path(number), lambda n=number: self.clip(n, rng)) for number in chosen)

    def sound(self, number: int, start_frame: int = 0, num_frames: int | None = None) -> np.ndarray:
        """(1, num_frames) float32 in -1 .. 1 of clip ``number``, from that frame of it on."""
        segment = self.segments[number]
        num_frames = segment.num_frames - start_frame if num_frames is None else num_frames
        pcm = self.read(segment, segment.start_frame + start_frame, num_frames)
        return pcm.astype(np.float32) * np.float32(2.0 ** (1 - self.bits))

    def excerpt(self, number: int, num_frames: int, rng: np.random.Generator) -> np.ndarray:
        """(1, num_frames) float32: a stretch of clip ``number`` that starts anywhere; a shorter clip is filled up."""
        spare = self.segments[number].num_frames - num_frames
        if spare <= 0:
            return padded(self.sound(number), num_frames)
        return self.sound(number, int(rng.integers(spare + 1)), num_frames)

    def related(
        self, number: int, count: int, num_frames: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, bool]:
        """Excerpts of companions of a clip.

        Returns:
            (count, 1, num_frames) float32, their lengths before they were filled up (count,) int64, and whether the
            clip itself is among them.
        """
        assert self.companions is not None
        chosen = self.companions.draw(number, count, rng)
        clips = np.stack([self.excerpt(other, num_frames, rng) for other in chosen])
        lengths = np.array([min(num_frames, self.segments[other].num_frames) for other in chosen], np.int64)
        return clips, lengths, number in chosen

    def _keep_some(self, seconds: float) -> None:
        """Validate on so much audio: clips spread evenly over all of them."""
        total = sum(segment.seconds for segment in self.segments)
        if total > seconds:
            count = max(1, int(len(self.segments) * seconds / total))
            self._notes.append(f"validates on {count} of {len(self.segments)} clips, as val_seconds says")
            places = np.linspace(0, len(self.segments) - 1, count).round().astype(int)
            self.segments = [self.segments[place] for place in places]

    def find_companions(self, with_self: bool, lonely: str) -> None:
        """Find out which clips go together, and leave out those that have no other.

        Args:
            with_self: a clip may be its own companion: then none is left out.
            lonely: the reason to give for those that are left out.

        Raises:
            ValueError: none is left.
        """
        companions = self._companions(with_self)
        alone = [number for number in range(len(self.segments)) if not companions.count(number)]
        if alone:
            if len(alone) == len(self.segments):
                raise ValueError(f"path: all {len(alone)} clips are {lonely}")
            self._leave_out([self.segments[number] for number in alone], lonely)
            out = set(alone)
            self.segments = [segment for number, segment in enumerate(self.segments) if number not in out]
            companions = self._companions(with_self)
        self.companions = companions

    def _companions(self, with_self: bool) -> Companions:
        listed = similar_files([segment.recording.file.path for segment in self.segments])
        return Companions([self.group(segment) for segment in self.segments], listed, with_self)

    def clip_path(self, number: int) -> Path:
        """The file of clip ``number``."""
        return self.segments[number].recording.file.path


def padded(wav: np.ndarray, num_frames: int) -> np.ndarray:
    """(..., T) with zeros after it -> (..., num_frames)."""
    return np.pad(wav, [(0, 0)] * (wav.ndim - 1) + [(0, num_frames - wav.shape[-1])])
