"""Recordings without text, each cut or filled up to one length; and others from the same folder.

    python -m codes.data.audio.unsupervised_audio --path DIR [--pad-to-seconds 4 --extra-samples 2 ...]

Its options and keys are those of DL-Art-School's dataset of this name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from codes.data.audio.clip_dataset import ClipDataset, padded
from codes.data.audio.listing.folder import Scan
from codes.registry import Range


class UnsupervisedAudioDataset(ClipDataset):
    """Recordings as ``clip``: a stretch of a long one that starts anywhere, a short one filled up with silence.

    Args:
        sampling_rate: DL-Art-School's name of sample_rate.
        pad_to_seconds: length of a clip in seconds.
        pad_to_samples: length of a clip in samples, instead of pad_to_seconds.
        min_length: shorter recordings are left out, in samples.
        resample_clip: give a second stretch of the recording as well, ``resampled_clip``, mostly of another place.
        extra_samples: so many stretches of other recordings of the same folder as well, ``alt_clips``.
        extra_sample_length: their length in samples.
        extra_from_self: the recording itself may be among those; as in DL-Art-School where there is no other.
        endswith: take only files whose path ends in one of these.
        not_endswith: leave out files whose path ends in one of these.
        exclusions: text files that name, one a line, paths or names of files to leave out.
        cache_path: no effect: what is found in a folder is remembered in the user's cache, or in index.
    """

    provides = {
        "clip": "(1, pad_to_samples) float32 in -1 .. 1",
        "clip_lengths": "samples of the clip that are no filling, int",
        "path": "the file, str",
        "sample_rate": "samples per second, int",
        "resampled_clip": "another stretch of the recording, (1, pad_to_samples) float32, with resample_clip",
        "alt_clips": "others of the folder, (extra_samples, 1, extra_sample_length) float32, with extra_samples",
        "alt_contains_self": "whether the recording itself is among them, bool",
    }

    def __init__(
        self,
        *,
        sampling_rate: Annotated[int, Range(least=1)] | None = None,
        pad_to_seconds: Annotated[float, Range(above=0)] = 10.0,
        pad_to_samples: Annotated[int, Range(least=1)] | None = None,
        min_length: Annotated[int, Range(least=0)] = 0,
        resample_clip: bool = False,
        extra_samples: Annotated[int, Range(least=0)] = 0,
        extra_sample_length: Annotated[int, Range(least=1)] = 44_000,
        extra_from_self: bool = False,
        endswith: list[str] | None = None,
        not_endswith: list[str] | None = None,
        exclusions: list[Path] | None = None,
        cache_path: str | None = None,
        **clips: Any,
    ) -> None:
        if sampling_rate is not None:
            clips["sample_rate"] = sampling_rate
        self._endings = tuple(endswith or ("",)), tuple(not_endswith or ())
        self._excluded = {line for file in exclusions or [] for line in _lines(file)}
        self._resample_clip, self._extra = resample_clip, (extra_samples, extra_sample_length)
        self.shortest_frames = max(1, min_length)
        super().__init__(**clips)
        self.longest_frames = pad_to_samples or max(1, round(pad_to_seconds * self.sample_rate_hz))
        if cache_path is not None:
            self._notes.append("cache_path has no effect: what is found is remembered in the user's cache")
        if extra_samples:
            self.find_companions(extra_from_self, "alone in their folder (extra_from_self: true lets them pass)")

    @classmethod
    def provided_keys(cls, options: Mapping[str, Any]) -> dict[str, str]:
        """The keys of an item; some only where they are asked for."""
        unasked = [] if options.get("resample_clip") else ["resampled_clip"]
        unasked += [] if options.get("extra_samples") else ["alt_clips", "alt_contains_self"]
        return {key: text for key, text in cls.provides.items() if key not in unasked}

    def find(self, paths: Sequence[Path], index: Path | None) -> Scan:
        """The files, without those that endings and exclusions leave out.

        Raises:
            ValueError: no file is left.
        """
        found = super().find(paths, index)
        wanted, unwanted = self._endings
        files = [
            file
            for file in found.files
            if str(file.path).endswith(wanted)
            and not str(file.path).endswith(unwanted)
            and not {str(file.path), file.relative, file.path.name} & self._excluded
        ]
        if not files:
            raise ValueError(f"path: endswith, not_endswith and exclusions leave out all {len(found.files)} files")
        left_out = dict(found.left_out)
        if len(files) < len(found.files):
            kept = {file.path for file in files}
            left_out["by endswith, not_endswith or exclusions"] = [f.path for f in found.files if f.path not in kept]
        return replace(found, files=files, left_out=left_out)

    def clip(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """Recording ``index``, cut where ``rng`` says."""
        assert self.longest_frames is not None
        starts = self._starts(index, rng)
        frames = min(self.longest_frames, self.segments[index].num_frames)
        clips = [padded(self.sound(index, start, frames), self.longest_frames) for start in starts]
        item: dict[str, Any] = {
            "clip": clips[0],
            "clip_lengths": frames,
            "path": str(self.clip_path(index)),
            "sample_rate": self.sample_rate_hz,
        }
        if self._resample_clip:
            item["resampled_clip"] = clips[1]
        if self.companions is not None:
            item["alt_clips"], _, item["alt_contains_self"] = self.related(index, *self._extra, rng)
        return item

    def _starts(self, index: int, rng: np.random.Generator) -> list[int]:
        """Where the clip starts, and where the second one does: half of what there is to choose from further off."""
        assert self.longest_frames is not None
        spare = max(0, self.segments[index].num_frames - self.longest_frames)
        if not self._resample_clip:
            return [int(rng.integers(spare + 1))]
        sides = rng.permutation([-1, 1])
        return [int(np.clip(rng.integers(spare + 1) + side * (spare // 2), 0, spare)) for side in sides]


def _lines(file: Path) -> list[str]:
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"exclusions: {file} cannot be read: {getattr(error, 'strerror', None) or error}") from error


if __name__ == "__main__":
    from codes.data.audio import preview

    preview.main("unsupervised_audio")
