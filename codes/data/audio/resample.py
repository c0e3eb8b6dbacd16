"""Integer PCM at another sample rate: windowed sinc interpolation, streamed, the same bit for bit however it is cut.

The filter is that of ``torchaudio.functional.resample`` with "sinc_interp_kaiser", width 96, rolloff 0.95 and beta
14.77, in float64. Measured, with frequencies as shares of the lower of both Nyquist frequencies: within 0.01 dB up to
0.915 (20.2 kHz of 44.1 kHz), -3 dB at 0.943, and -142 dB or less from 1.0 on, which is below the noise of 23 bits.
(torchaudio's Hann window at width 64 and rolloff 0.945 has -62 dB at 1.0, and would alias audibly.)

An output sample j is y[j] = sum_i x[i] h(i / from - j / to). As from / to = a / b in lowest terms, b phases of h serve
all j. Phases that lie close together share a matrix (phases, taps), and a stretch of input is its product with a matrix
of windows. The stretches lie on a grid that begins with the signal and all have one shape, the last one padded with
zeros: so every output sample is computed by the very same sum however the input came in.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from codes.data.audio.reader import AudioFile

VERSION = 1  # raise it when any output changes: caches of resampled audio are named by it
_WIDTH = 96  # zero crossings of the sinc on either side
_ROLLOFF = 0.95  # cutoff, as a share of the lower Nyquist frequency
_BETA = 14.769656459379492  # of the Kaiser window
_FLOAT_BITS = 24  # that floating point files are rounded to
_MOST_TAPS = 1 << 24  # in all phases together: 128 MiB
_STRETCH_FRAMES = 32_768  # of input that are computed at once, about


def num_resampled(num_frames: int, from_hz: int, to_hz: int) -> int:
    """Frames that ``num_frames`` at one rate become at another: ceil(num_frames * to_hz / from_hz)."""
    return -(-num_frames * to_hz // from_hz)


def reach_seconds(from_hz: int, to_hz: int) -> float:
    """How far from its place, on either side, a resampled sample still depends on the signal."""
    return (_WIDTH / _ROLLOFF + 2.0) / min(from_hz, to_hz)


def resample(pcm: np.ndarray, from_hz: int, to_hz: int, bits: int) -> np.ndarray:
    """A whole signal at another rate; see `resample_blocks`, whose ``num_clipped`` this leaves out.

    Args:
        pcm: (C, T) integers of ``bits`` bits.

    Returns:
        (C, ceil(T * to_hz / from_hz)) integers of ``bits`` bits: int16 up to 16 bits, int32 above.
    """
    return resample_counted(pcm, from_hz, to_hz, bits)[0]


def resample_counted(pcm: np.ndarray, from_hz: int, to_hz: int, bits: int) -> tuple[np.ndarray, int]:
    """A whole signal at another rate, as `resample` gives it, and how many of its samples were clipped."""
    cut = (pcm[:, start : start + _STRETCH_FRAMES] for start in range(0, max(1, pcm.shape[1]), _STRETCH_FRAMES))
    blocks = resample_blocks(cut, from_hz, to_hz, bits)
    parts = list(blocks)
    whole = np.concatenate(parts, axis=1) if parts else np.zeros((len(pcm), 0), _dtype(bits))
    return whole, blocks.num_clipped


def read_sound(path: Path, to_hz: int, *, stream: int = 0) -> np.ndarray:
    """A whole file at that rate: (C, T) float32 in -1 .. 1.

    Raises:
        AudioReadError: it cannot be read.
    """
    with AudioFile(path, stream=stream, float_bits=_FLOAT_BITS) as audio:
        pcm, info = audio.read(), audio.info
    made = resample(pcm, info.sample_rate_hz, to_hz, info.bits)
    return (made / 2.0 ** (info.bits - 1)).astype(np.float32)


def resample_blocks(blocks: Iterable[np.ndarray], from_hz: int, to_hz: int, bits: int) -> "ResampledBlocks":
    """A signal at another rate, block by block in bounded memory, equal bit for bit to `resample` of the whole.

    Samples are rounded to the nearest integer and held within their depth; those that lay beyond it are counted.
    Equal rates give the blocks back as they are.

    Args:
        blocks: (C, n) integers of ``bits`` bits each, of any lengths, which follow one another.
        from_hz: their sample rate.
        to_hz: the rate wanted.
        bits: 1 to 32.

    Returns:
        An iterator of (C, m) blocks, int16 up to 16 bits and int32 above, with the attribute ``num_clipped``.

    Raises:
        ValueError: a rate below 1, bits outside 1 .. 32, rates whose filter would be too large (both are named), or,
            while iterating, blocks that are not (C, n) integers or that differ in C.
    """
    return ResampledBlocks(blocks, from_hz, to_hz, bits)


class ResampledBlocks:
    """What `resample_blocks` returns: an iterator of blocks that counts what it clips (each sample of each channel)."""

    def __init__(self, blocks: Iterable[np.ndarray], from_hz: int, to_hz: int, bits: int) -> None:
        if from_hz < 1 or to_hz < 1:
            raise ValueError(f"cannot resample from {from_hz} Hz to {to_hz} Hz: both rates must be 1 Hz or more")
        if not 1 <= bits <= 32:
            raise ValueError(f"cannot resample samples of {bits} bits: allowed are 1 to 32")
        self.num_clipped = 0
        self._bits = bits
        self._ratio = (from_hz, to_hz)
        checked = _checked(blocks, bits)
        self._blocks = checked if from_hz == to_hz else self._resampled(checked, _filter(from_hz, to_hz))

    def __iter__(self) -> Iterator[np.ndarray]:
        return self

    def __next__(self) -> np.ndarray:
        return next(self._blocks)

    def _resampled(self, blocks: Iterator[np.ndarray], polyphase: "_Filter") -> Iterator[np.ndarray]:
        """Cut the signal, with a filter's half of zeros before it, into stretches that overlap by a filter."""
        num_in = num_out = 0
        held: np.ndarray | None = None
        for block in blocks:
            num_in += block.shape[1]
            if held is None:
                held = np.zeros((len(block), polyphase.half), block.dtype)
            held = np.concatenate([held, block], axis=1)
            while held.shape[1] >= polyphase.stretch:
                made = self._to_integers(polyphase.apply(held[:, : polyphase.stretch]))
                held = held[:, polyphase.step :]
                num_out += made.shape[1]
                yield made
        total = num_resampled(num_in, *self._ratio)
        while held is not None and num_out < total:
            padding = max(0, polyphase.stretch - held.shape[1])
            padded = np.pad(held, ((0, 0), (0, padding)))
            samples = polyphase.apply(padded[:, : polyphase.stretch])[:, : total - num_out]
            held = padded[:, polyphase.step :]
            num_out += samples.shape[1]
            yield self._to_integers(samples)

    def _to_integers(self, samples: np.ndarray) -> np.ndarray:
        lowest, highest = -float(1 << (self._bits - 1)), float((1 << (self._bits - 1)) - 1)
        rounded = np.rint(samples)
        held = np.clip(rounded, lowest, highest)
        self.num_clipped += int(np.count_nonzero(held != rounded))
        return held.astype(_dtype(self._bits))


def _dtype(bits: int) -> Any:
    return np.int16 if bits <= 16 else np.int32


def _checked(blocks: Iterable[np.ndarray], bits: int) -> Iterator[np.ndarray]:
    num_channels: int | None = None
    for block in blocks:
        if block.ndim != 2 or not np.issubdtype(block.dtype, np.signedinteger):
            raise ValueError(f"a block to resample is {block.dtype} {block.shape}, allowed are integers (channels, n)")
        if num_channels is not None and len(block) != num_channels:
            raise ValueError(f"a block to resample has {len(block)} channels, those before it have {num_channels}")
        num_channels = len(block)
        yield block.astype(_dtype(bits), copy=False)


@dataclass(frozen=True, kw_only=True)
class _Filter:
    """A polyphase filter: an input period of ``step`` / ``num_periods`` frames gives one output of every phase.

    ``groups`` are matrices (phases, taps) and the frame of the padded period that their first tap falls on.
    """

    half: int  # frames on either side of an output's place that it takes in
    period: int  # frames of input
    num_periods: int  # computed at once
    groups: list[tuple[int, np.ndarray]]

    @property
    def step(self) -> int:
        """Frames of input from one stretch to the next."""
        return self.period * self.num_periods

    @property
    def stretch(self) -> int:
        """Frames of input that a stretch takes in."""
        return self.step + 2 * self.half

    def apply(self, stretch: np.ndarray) -> np.ndarray:
        """(C, stretch) integers -> (C, num_periods * phases) float64."""
        padded = stretch.astype(np.float64)
        made = [self._apply_group(padded, start, taps) for start, taps in self.groups]
        return np.concatenate(made, axis=2).reshape(len(padded), -1)

    def _apply_group(self, padded: np.ndarray, start: int, taps: np.ndarray) -> np.ndarray:
        """(C, num_periods, phases): channel by channel, so that a channel's samples do not depend on the others."""
        last = start + (self.num_periods - 1) * self.period + taps.shape[1]
        windows = np.lib.stride_tricks.sliding_window_view(padded[:, start:last], taps.shape[1], axis=1)
        return np.stack([np.ascontiguousarray(channel[:: self.period]) @ taps.T for channel in windows])


@lru_cache(maxsize=4)
def _filter(from_hz: int, to_hz: int) -> _Filter:
    """The filter of these rates, with periods lengthened or phases grouped so that a matrix is half filled or more."""
    divisor = math.gcd(from_hz, to_hz)
    num_in, num_out = from_hz // divisor, to_hz // divisor
    cutoff = min(1.0, num_out / num_in) * _ROLLOFF  # as a share of the input's Nyquist frequency
    half = math.ceil(_WIDTH / cutoff) + 1
    repeats = max(1, 2 * half // num_in)
    num_in, num_out = num_in * repeats, num_out * repeats
    phases_a_group = min(num_out, max(1, half * num_out // num_in)) if num_in > 2 * half else num_out
    taps_a_phase = phases_a_group * num_in // num_out + 2 * half + 1
    if num_out * taps_a_phase > _MOST_TAPS:
        raise ValueError(
            f"cannot resample from {from_hz} Hz to {to_hz} Hz: their ratio is {num_out} / {num_in} in lowest terms, "
            f"which takes {num_out * taps_a_phase} filter taps, allowed are {_MOST_TAPS}; choose a rate that shares a "
            "larger divisor with the file's"
        )
    groups = []
    for first in range(0, num_out, phases_a_group):
        phases = np.arange(first, min(num_out, first + phases_a_group))
        groups.append(_taps(phases, num_in, num_out, half, cutoff))
    num_periods = max(16, _STRETCH_FRAMES // num_in) if num_in < _STRETCH_FRAMES else 4
    return _Filter(half=half, period=num_in, num_periods=num_periods, groups=groups)


def _taps(phases: np.ndarray, num_in: int, num_out: int, half: int, cutoff: float) -> tuple[int, np.ndarray]:
    """The matrix (phases, taps) of some phases that follow one another, and where in the padded period it begins.

    Output p of a period lies at p * num_in / num_out frames; its tap at frame i is h(i - that place), where
    h(t) = cutoff sinc(cutoff t) w(cutoff t / width), w the Kaiser window.
    """
    places = phases * num_in // num_out
    fractions = (phases * num_in % num_out) / num_out
    start = int(places[0])
    num_taps = int(places[-1]) - start + 2 * half
    frames = np.arange(num_taps) - half + start
    times = cutoff * ((frames[None, :] - places[:, None]) - fractions[:, None])  # in zero crossings
    inside = np.sqrt(np.clip(1.0 - (times / _WIDTH) ** 2, 0.0, None))
    window = np.where(np.abs(times) < _WIDTH, np.i0(_BETA * inside) / np.i0(_BETA), 0.0)
    return start, cutoff * np.sinc(times) * window
