"""One audio file, decoded once from end to end in bounded memory, and what is measured of it."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codes.data.audio.health.signals import Clipping, Depth, Levels, PcmHash
from codes.data.audio.health.spectrum import Band, MeanSpectrum, find_band
from codes.data.audio.reader import AudioFile, AudioInfo

_BLOCK_FRAMES = 1 << 18


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What a file's samples are like. Shares are of 1; full scale is 1.0 or 0 dB.

    Args:
        peak: the greatest absolute sample, as a share of full scale.
        rms_db: power over all channels against a full-scale square wave; -inf for silence.
        offsets: each channel's DC offset as a share of full scale; 0 where it is not there throughout.
        num_clipped_runs: see `codes.data.audio.health.signals.Clipping`.
        clipped_share: samples in these runs.
        silent_share: hundredths of a second that are zero in all channels.
        longest_silence_seconds: the longest stretch of them.
        dead_channels: channels that never change, counted from 0.
        equal_channels: (i, j, gain): channel j is gain times channel i; 1.0 where they are equal sample by sample.
        real_bits: the depth without the lowest bits that are always zero; 0 for digital silence.
        num_values: different values, at most 65536.
        grid_step: where these are few and most of them equally far apart, how far; else 0.
        band: where the spectrum ends; None for files too short to tell (about half a second).
        pcm_hash: hash of the samples; equal for equal sound in another container, or with zeros as more bits.
    """

    peak: float
    rms_db: float
    offsets: list[float]
    num_clipped_runs: int
    clipped_share: float
    silent_share: float
    longest_silence_seconds: float
    dead_channels: list[int]
    equal_channels: list[tuple[int, int, float]]
    real_bits: int
    num_values: int
    grid_step: int
    band: Band | None
    pcm_hash: str


def measure(path: Path, *, float_bits: int | None = None, known: AudioInfo | None = None) -> Measures:
    """Decode a file and measure it.

    Args:
        path: the file.
        float_bits: the depth for floating point samples; None refuses them.
        known: what an earlier probe said of it.

    Raises:
        AudioReadError: it cannot be read to its end.
    """
    with AudioFile(path, float_bits=float_bits, known=known) as file:
        return _measure(file)


def _measure(file: AudioFile) -> Measures:
    info = file.info
    hundredth = max(1, info.sample_rate_hz // 100)
    levels, clipping = Levels(info.num_channels, hundredth), Clipping(info.num_channels)
    depth, spectrum, hashes = Depth(), MeanSpectrum(info.bits), PcmHash(info.num_channels, info.bits)
    for block in file.blocks(max(1, _BLOCK_FRAMES // (10 * hundredth)) * 10 * hundredth):
        depth.add(block)
        clipping.add(block, depth.step)
        levels.add(block)
        spectrum.add(block)
        hashes.add(block)
    full_scale = 2.0 ** (info.bits - 1)
    peak = int(np.max(np.maximum(levels.highest, -levels.lowest)))
    runs, clipped = clipping.totals(info.bits)
    silent_share, longest_silence = levels.silence()
    power, mean_power = spectrum.power(), np.trace(levels.products) / (levels.num_frames * info.num_channels)
    return Measures(
        peak=peak / full_scale,
        rms_db=float(10.0 * np.log10(mean_power / full_scale**2)) if mean_power else -np.inf,
        offsets=[float(offset) for offset in levels.offsets() / full_scale],
        num_clipped_runs=runs,
        clipped_share=clipped / (levels.num_frames * info.num_channels),
        silent_share=silent_share,
        longest_silence_seconds=longest_silence,
        dead_channels=np.flatnonzero(levels.highest == levels.lowest).tolist(),
        equal_channels=_equal_channels(levels, depth.step, hashes.channels()),
        real_bits=info.bits - depth.step.bit_length() + 1 if mean_power else 0,
        num_values=depth.num_values,
        grid_step=depth.grid_step(),
        band=find_band(power, info.sample_rate_hz, depth.step) if power is not None and mean_power else None,
        pcm_hash=_joined(info.sample_rate_hz, hashes.channels()),
    )


def _equal_channels(levels: Levels, step: int, hashes: list[str]) -> list[tuple[int, int, float]]:
    """Pairs up to a gain; those whose samples have equal hashes have exactly 1.0."""
    alike = {(i, j): gain for i, j, gain in levels.equal_up_to_gain(step)}
    for i, first in enumerate(hashes):
        for j in range(i + 1, len(hashes)):
            if hashes[j] == first and levels.highest[i] != levels.lowest[i]:
                alike[i, j] = 1.0
    return [(i, j, gain) for (i, j), gain in sorted(alike.items())]


def _joined(sample_rate_hz: int, hashes: list[str]) -> str:
    return hashlib.sha256(f"{sample_rate_hz} {' '.join(hashes)}".encode()).hexdigest()
