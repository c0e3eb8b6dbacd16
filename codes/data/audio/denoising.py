"""Noisy audio and what it was before: the task of denoising.

    python -m codes.data.audio.denoising --path DIR [--snr-db '[0, 20]' --noise pink ...]

The noise is synthesised in a colour, or comes from a folder of recordings. experiments/denoising.yml trains on it.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from codes.data.audio.channel_layout import ChannelChoice
from codes.data.audio.chunk_dataset import ChunkDataset
from codes.data.audio.mono_chunk import MonoChunkDataset
from codes.data.audio.noise import NoiseColour, add_at_snr, coloured_noise
from codes.data.dataset import SKIPPED


class DenoisingDataset(ChunkDataset):
    """Chunks with noise added at a given signal to noise ratio: ``noisy`` and ``wav``, the clean audio.

    Chunks are chosen as by `mono_chunk`. Noisy samples are integers of the same depth, rounded and held at full scale.
    Whatever is drawn follows from seed, epoch and item, so validation noise is the same each time.

    Args:
        snr_db: signal to noise ratio in dB, one number or [lowest, highest], over the context and the chunk.
        noise: colour of synthesised noise: "white", "pink" (falls by 3 dB an octave) or "brown" (6 dB).
        noise_path: a folder of noise recordings to take instead; resampled to the rate of the audio.
        channels: "each": every channel of every file by itself; "mono": the mean of all channels; "exact": mono files
            only; {select: [i]} takes one channel; {aggregate: [[weights]]} mixes them.
    """

    num_channels = 1
    provides = {
        **ChunkDataset.provides,
        "wav": "clean PCM, (1, context_frames + chunk_frames), int16 for bits <= 16, else int32",
        "noisy": "the same with noise, same shape and dtype",
        "snr_db": "the signal to noise ratio that was drawn, float",
    }

    def __init__(
        self,
        *,
        snr_db: tuple[float, float] | float = (0.0, 30.0),
        noise: NoiseColour = "white",
        noise_path: Path | None = None,
        channels: ChannelChoice = "each",
        **audio: Any,
    ) -> None:
        low, high = (snr_db, snr_db) if isinstance(snr_db, (int, float)) else snr_db
        self._snr_db = float(low), float(high)
        if not (self._snr_db[0] <= self._snr_db[1] and all(map(math.isfinite, self._snr_db))):
            raise ValueError(f"snr_db must be one number or [lowest, highest], got {list(self._snr_db)}")
        self._colour: NoiseColour = noise
        super().__init__(channels=channels, **audio)
        self._recorded = (
            self._noise_recordings(noise_path, audio.get("cache_folder")) if noise_path is not None else None
        )

    def _noise_recordings(self, path: Path, cache_folder: Path | None) -> MonoChunkDataset:
        """Random stretches of the recordings, each as long as an item."""
        recordings = MonoChunkDataset(
            path=path, chunk_frames=self.context_frames + self.chunk_frames, bits=self.bits, val_fraction=0.0,
            sample_rate=self.recordings[0].sample_rate_hz, on_error=self.on_error, float_bits=self.float_bits,
            max_errors=self.max_errors, cache_folder=cache_folder,
        )  # fmt: skip
        self.num_errors += recordings.num_errors
        self._notes.append(f"noise: {recordings.report()[-1]}")
        return recordings

    def fingerprint(self) -> dict[str, Any]:
        """That of the audio, and of the noise where it is recorded."""
        noise = {} if self._recorded is None else {"noise": self._recorded.fingerprint()["digest"]}
        return {**super().fingerprint(), **noise}

    def finish(self, item: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Adds the noise."""
        snr_db = float(rng.uniform(self._snr_db[0], self._snr_db[1]))
        if self._recorded is None:
            noise = coloured_noise(rng, self._colour, item["wav"].shape)
        else:
            recorded = self._recorded.item(0, rng)
            noise = recorded["wav"].astype(np.float64)
            item = {**item, **({SKIPPED: recorded[SKIPPED]} if SKIPPED in recorded else {})}
        return {**item, "noisy": add_at_snr(item["wav"], noise, snr_db, self.bits), "snr_db": snr_db}


if __name__ == "__main__":
    from codes.data.audio import preview

    preview.main("denoising")
