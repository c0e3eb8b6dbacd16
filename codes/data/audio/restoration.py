"""Audio of a lower sample rate or bit depth, and what it was before: bandwidth and bit-depth restoration.

    python -m codes.data.audio.restoration --path DIR --low-rate 8000 [--low-bits 8 --companding mu_law ...]

experiments/bandwidth_restoration.yml and experiments/bit_depth_restoration.yml train on it.
"""

import math
from typing import Annotated, Any, Literal

import numpy as np

from codes.data.audio.channel_layout import ChannelChoice
from codes.data.audio.chunk_dataset import ChunkDataset
from codes.data.audio.recordings import Segment
from codes.data.audio.resample import reach_seconds, resample
from codes.registry import Range

Companding = Literal["linear", "mu_law"]


class RestorationDataset(ChunkDataset):
    """Chunks, and the same as they would be after a detour over a lower sample rate or bit depth: ``degraded``.

    ``degraded`` has the shape, rate and depth of ``wav``, sample by sample in time with it. Chunks are chosen as by
    `mono_chunk`.

    Args:
        low_rate: sample rate of the detour in Hz, below that of the audio; null: no such detour.
        low_bits: bit depth of the detour, below bits; null: no such detour.
        companding: how samples are brought to low_bits: "linear" (rounded, the lowest bits are zeros) or "mu_law"
            (finer steps for quiet samples, mu = 2^low_bits - 1).
        channels: "each": every channel of every file by itself; "mono": the mean of all channels; "exact": mono files
            only; {select: [i]} takes one channel; {aggregate: [[weights]]} mixes them.
    """

    num_channels = 1
    provides = {
        **ChunkDataset.provides,
        "wav": "PCM, (1, context_frames + chunk_frames), int16 for bits <= 16, else int32",
        "degraded": "the same after the detour, same shape and dtype",
    }

    def __init__(
        self,
        *,
        low_rate: Annotated[int, Range(least=1)] | None = None,
        low_bits: Annotated[int, Range(least=1, most=24)] | None = None,
        companding: Companding = "linear",
        channels: ChannelChoice = "each",
        **audio: Any,
    ) -> None:
        if low_rate is None and low_bits is None:
            raise ValueError("low_rate or low_bits must be given: what is to be restored")
        self._low_rate, self._low_bits = low_rate, low_bits
        self._companding: Companding = companding
        super().__init__(channels=channels, **audio)
        rate_hz = self.recordings[0].sample_rate_hz
        if low_rate is not None and low_rate >= rate_hz:
            raise ValueError(f"low_rate is {low_rate} Hz, it must be below the {rate_hz} Hz of the audio")
        if low_bits is not None and low_bits >= self.bits:
            raise ValueError(f"low_bits is {low_bits}, it must be below bits, {self.bits}")

    def chunk(self, segment: Segment, start_frame: int) -> dict[str, Any]:
        """The chunk and its degraded copy, made with what lies around it, so that no edge is heard."""
        item = super().chunk(segment, start_frame)
        around, frames = self._around(item["sample_rate"]), item["wav"].shape[1]
        wide = self.window(segment, start_frame - self.context_frames - around, frames + 2 * around)
        return {**item, "degraded": self._degrade(wide, item["sample_rate"])[:, around : around + frames]}

    def _around(self, rate_hz: int) -> int:
        """How far a sample reaches over the two resamplings, in frames."""
        return 0 if self._low_rate is None else math.ceil(2 * reach_seconds(self._low_rate, rate_hz) * rate_hz)

    def _degrade(self, pcm: np.ndarray, rate_hz: int) -> np.ndarray:
        if self._low_rate is not None:
            low = resample(pcm, rate_hz, self._low_rate, self.bits)
            pcm = resample(low, self._low_rate, rate_hz, self.bits)[:, : pcm.shape[1]]
        if self._low_bits is not None:
            pcm = coarsen(pcm, self.bits, self._low_bits, self._companding)
        return pcm


def coarsen(pcm: np.ndarray, bits: int, low_bits: int, companding: Companding) -> np.ndarray:
    """Integers of ``bits`` bits to the nearest of 2^low_bits values, at the same scale, shape and dtype.

    With mu-law (ITU-T G.711 approximates it) the values are evenly spaced in sign(x) ln(1 + mu |x|) / ln(1 + mu).
    """
    limit, levels = 2.0 ** (bits - 1), 2.0 ** (low_bits - 1)
    x = pcm / limit
    if companding == "linear":
        coarse = np.clip(np.rint(x * levels), -levels, levels - 1) / levels
    else:
        mu = 2.0**low_bits - 1
        codes = np.floor((np.sign(x) * np.log1p(mu * np.abs(x)) / np.log1p(mu) + 1) / 2 * mu + 0.5)
        even = 2 * codes / mu - 1
        coarse = np.sign(even) * np.expm1(np.abs(even) * np.log1p(mu)) / mu
    return np.clip(np.rint(coarse * limit), -limit, limit - 1).astype(pcm.dtype)


if __name__ == "__main__":
    from codes.data.audio import preview

    preview.main("restoration")
