"""Recordings with something else in the background, and what it is: for detectors of noise, and for denoising.

    python -m codes.data.audio.audio_with_noise --path DIR [--env-noise-paths NOISE --music-paths MUSIC ...]

Its options and keys are those of DL-Art-School's dataset, whose YAML calls it unsupervised_audio_with_noise.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from codes.data.audio.clip_dataset import ClipDataset
from codes.data.audio.unsupervised_audio import UnsupervisedAudioDataset
from codes.registry import Range

NOTHING, NOISE, MUSIC, VOICE = range(4)
_CLIP_VOLUME = (0.5, 0.8)
_MUSIC_SHARE = 0.5  # music is mostly further in the background


class AudioWithNoiseDataset(UnsupervisedAudioDataset):
    """Clips as `unsupervised_audio` gives them, at a random volume and with nothing, noise, music or a voice added.

    ``label`` says which: 0 nothing, 1 noise, 2 music, 3 another recording of ``path``. What there are no files for is
    not drawn. The sum is held within -1 .. 1; where it did not have to be, ``clip - aug`` is the recording alone.

    Args:
        env_noise_paths: folders of noise recordings; null: no noise.
        music_paths: folders of music; null: no music.
        min_noise_volume: least factor of what is added; half of it for music.
        max_noise_volume: greatest factor of what is added; half of it for music.
        env_noise_cache: no effect, as cache_path.
        music_cache: no effect, as cache_path.
    """

    provides = {
        **UnsupervisedAudioDataset.provides,
        "clip": "the recording and what was added, (1, pad_to_samples) float32 in -1 .. 1",
        "label": "0 nothing added, 1 noise, 2 music, 3 another recording, int",
        "aug": "what was added, (1, pad_to_samples) float32",
        "augpath": "its file, str; empty for nothing",
        "augvol": "its volume as a factor, float",
        "clipvol": "that of the recording, float",
    }

    def __init__(
        self,
        *,
        env_noise_paths: list[Path] | None = None,
        music_paths: list[Path] | None = None,
        min_noise_volume: Annotated[float, Range(least=0)] = 0.2,
        max_noise_volume: Annotated[float, Range(least=0)] = 0.5,
        env_noise_cache: str | None = None,
        music_cache: str | None = None,
        **clips: Any,
    ) -> None:
        if min_noise_volume > max_noise_volume:
            raise ValueError(f"min_noise_volume is {min_noise_volume}, above max_noise_volume, {max_noise_volume}")
        self._volumes = min_noise_volume, max_noise_volume
        super().__init__(**clips)
        self._sources: dict[int, ClipDataset] = {}
        for label, paths in ((NOISE, env_noise_paths), (MUSIC, music_paths)):
            if paths:
                self._sources[label] = self._background(paths, clips)
        if len(self.segments) > 1:
            self._sources[VOICE] = self
        self._notes.append(f"what is added: labels {', '.join(map(str, [NOTHING, *sorted(self._sources)]))}")

    def _background(self, paths: list[Path], clips: Mapping[str, Any]) -> ClipDataset:
        """Recordings to add, read as the others are."""
        kept = ("on_error", "max_errors", "cache", "cache_folder", "float_bits", "channels", "bits")
        how = {name: clips[name] for name in kept if name in clips}
        sounds = UnsupervisedAudioDataset(path=paths, sample_rate=self.sample_rate_hz, **how)
        self.num_errors += sounds.num_errors
        self._notes.append(f"added from {', '.join(map(str, paths))}: {sounds.report()[-1]}")
        return sounds

    def fingerprint(self) -> dict[str, Any]:
        """That of the recordings, and of what is added."""
        others = {f"added_{n}": s.fingerprint()["digest"] for n, s in self._sources.items() if s is not self}
        return {**super().fingerprint(), **others}

    def clip(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """A recording with what ``rng`` adds."""
        item = super().clip(index, rng)
        label = int(rng.choice([NOTHING, *sorted(self._sources)]))
        clip_volume = float(rng.uniform(*_CLIP_VOLUME))
        item |= {"label": label, "augpath": "", "augvol": 0.0, "clipvol": clip_volume}
        clip = item["clip"] * np.float32(clip_volume)
        item["aug"] = np.zeros_like(clip)
        if label != NOTHING:
            source = self._sources[label]
            number = int(rng.integers(len(source)))
            if source is self and number == index:
                number = (number + 1) % len(source)
            volume = float(rng.uniform(*self._volumes)) * (_MUSIC_SHARE if label == MUSIC else 1.0)
            item["aug"] = self._added(source, number, label, rng) * np.float32(volume)
            item |= {"augpath": str(source.clip_path(number)), "augvol": volume}
        item["clip"] = np.clip(clip + item["aug"], -1, 1)
        return item

    def _added(self, source: ClipDataset, number: int, label: int, rng: np.random.Generator) -> np.ndarray:
        """(1, pad_to_samples): a stretch of a recording; a shorter one lies anywhere in it; a voice may come and go."""
        assert self.longest_frames is not None
        frames = min(self.longest_frames, source.segments[number].num_frames)
        sound = source.excerpt(number, frames, rng)
        if label == VOICE and rng.integers(2):
            sound = sound * swell(frames, rng)
        before = int(rng.integers(self.longest_frames - frames + 1))
        return np.pad(sound, ((0, 0), (before, self.longest_frames - frames - before)))


class UnsupervisedAudioWithNoiseDataset(AudioWithNoiseDataset):
    """DL-Art-School's name of audio_with_noise."""


def swell(num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """An envelope (num_frames,) float32 in 0 .. 1 that rises, stays and falls, each for a random time."""
    shares = rng.dirichlet([1.0, 1.0, 2.0, 1.0, 1.0])  # silence, rise, 1, fall, silence
    ends = np.rint(np.cumsum(shares) * num_frames).astype(int)
    rise, fall = ends[1] - ends[0], ends[3] - ends[2]
    envelope = np.zeros(num_frames, np.float32)
    envelope[ends[0] : ends[1]] = np.sin(np.arange(rise) / max(1, rise) * np.pi / 2)
    envelope[ends[1] : ends[2]] = 1.0
    envelope[ends[2] : ends[3]] = np.cos(np.arange(fall) / max(1, fall) * np.pi / 2)
    return envelope


if __name__ == "__main__":
    from codes.data.audio import preview

    preview.main("audio_with_noise")
