"""Augmentation: what changes the sound of some items and not their meaning; here those that change samples one by one.

All take float audio, or integer audio, which keeps dtype and depth: it is scaled to [-1, 1), changed, rounded and
saturated. So they can stand between `wav` and `pcm_quantize`. What an item gets follows from its seed alone (see
`codes/randomness.py`), whatever batch it is in, bit for bit on one device. Only Fourier transforms round differently in
batches of different size: behind them (`augment_time.py`, `augment_filter.py`, coloured noise) floats agree to 1e-6;
integers are transformed in float64, so that they agree all the same.
Usually they are for training only: `train: true`, beside a `direct` with `eval: true` under the same key.
"""

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor

from codes.trainer.injector import Injector
from codes.trainer.injectors.pcm import MuLawInjector, in_range, samples_and_bits

Span = float | tuple[float, float]  # one number, or [low, high] to draw from


def span(name: str, value: Span, least: float = -math.inf, most: float = math.inf) -> tuple[float, float]:
    """A number or a range as (low, high).

    Raises:
        ValueError: it is none, or not within least .. most.
    """
    limits = value if isinstance(value, (tuple, list)) else (value, value)
    low, high = limits if len(limits) == 2 else (math.nan, math.nan)
    if not (math.isfinite(low) and math.isfinite(high) and least <= low <= high <= most):
        bounds = [
            f"{word} {bound:g}" for word, bound in (("at least", least), ("at most", most)) if math.isfinite(bound)
        ]
        allowed = f", {' and '.join(bounds)}" if bounds else ""
        raise ValueError(f"{name} must be a finite number or [low, high]{allowed}, got {value}")
    return low, high


class Augmentation(Injector, abstract=True):
    """Changes some items of a batch. A subclass defines `change`, in floats; integers are converted around it.

    Args:
        probability: share of the items that are changed.
        input_bits: bits of an integer sample. None: those of the dataset.
    """

    transforms: ClassVar[bool] = False  # whether Fourier transforms are at work

    def __init__(self, *, probability: float, input_bits: int | None) -> None:
        if not 0 <= probability <= 1:
            raise ValueError(f"probability must be 0 to 1, got {probability}")
        self.probability = probability
        self.input_bits = input_bits if input_bits is None else in_range("input_bits", input_bits, 1, 32)

    def forward(self, wav: Tensor) -> Tensor:
        """wav: (B, C, T) float in [-1, 1] or integer -> the same dtype; items that are not changed keep their bits.

        Raises:
            ValueError: the shape or the dtype is not that of audio.
        """
        self.require(wav)
        chosen = self.draw_uniform(wav, 0, 1) < self.probability if self.probability < 1 else None
        if wav.is_floating_point():
            changed = self.change(wav.to(torch.promote_types(wav.dtype, torch.float32))).to(wav.dtype)
        else:
            changed = self.change_integers(wav)
        return changed if chosen is None else torch.where(per_item(chosen, wav), changed, self.keep(wav))

    def require(self, wav: Tensor) -> None:
        """Refuse shapes that the injector cannot take."""
        if wav.ndim != 3:
            raise ValueError(f"expected audio (B, C, T), got {tuple(wav.shape)}")

    def change(self, x: Tensor) -> Tensor:
        """x: (B, C, T) float32 or float64 -> the changed audio."""
        raise NotImplementedError

    def change_integers(self, wav: Tensor) -> Tensor:
        """wav: (B, C, T) integer -> `change` of it; in float64 where float32 would show in the rounding."""
        samples, bits = samples_and_bits(wav, self.input_bits)
        full = 2.0 ** (bits - 1)
        x = self.change(samples.to(torch.float64 if bits > 16 or self.transforms else torch.float32) * (1 / full))
        changed = (x * full).round_().clamp_(-full, full - 1)
        return (changed + 128 if wav.dtype == torch.uint8 else changed).to(wav.dtype)

    def keep(self, wav: Tensor) -> Tensor:
        """What an item that is not changed becomes: itself."""
        return wav

    def draw_span(self, x: Tensor, limits: tuple[float, float]) -> Tensor:
        """(B, 1, ...) float64 for each item, evenly from low .. high; in float64, whose last bit does not matter."""
        return per_item(self.draw_uniform(x, *limits).double(), x)

    def draw_log_span(self, x: Tensor, limits: tuple[float, float]) -> Tensor:
        """As `draw_span`, evenly in the logarithm: for frequencies and times."""
        return self.draw_span(x, (math.log(limits[0]), math.log(limits[1]))).exp().clamp(*limits)


def per_item(values: Tensor, x: Tensor) -> Tensor:
    """values: (B,), x: (B, ...) -> values: (B, 1, ...), which broadcast over x."""
    return values.view(-1, *[1] * (x.ndim - 1))


class RandomGainInjector(Augmentation):
    """Louder or quieter. wav: (B, C, T) -> same shape and dtype. Integers saturate, floats may leave [-1, 1].

    Args:
        gain_db: gain in dB, a number or [low, high].
        probability: share of the items that are changed.
        input_bits: bits of an integer sample. None: those of the dataset.
    """

    def __init__(self, *, gain_db: Span = (-6.0, 6.0), probability: float = 1.0, input_bits: int | None = None) -> None:
        super().__init__(probability=probability, input_bits=input_bits)
        self.gain_db = span("gain_db", gain_db, -120, 120)

    def change(self, x: Tensor) -> Tensor:
        """x: (B, C, T) -> x gain."""
        return x * decibels(self.draw_span(x, self.gain_db)).to(x.dtype)


def decibels(level_db: Tensor) -> Tensor:
    """Level in dB -> factor of the amplitude."""
    return (level_db * (math.log(10) / 20)).exp()


class RandomPolarityInjector(Augmentation):
    """The sign of every sample turned over. wav: (B, C, T) -> same shape and dtype; the lowest integer saturates.

    Args:
        probability: share of the items that are changed.
        input_bits: bits of an integer sample. None: those of the dataset.
    """

    def __init__(self, *, probability: float = 0.5, input_bits: int | None = None) -> None:
        super().__init__(probability=probability, input_bits=input_bits)

    def change(self, x: Tensor) -> Tensor:
        """x: (B, C, T) -> -x."""
        return -x


class RandomChannelSwapInjector(Augmentation):
    """Two channels exchanged. wav: (B, C, T) of any dtype -> same shape and dtype.

    Args:
        channels: the two channels, counted from 0.
        probability: share of the items that are changed.
    """

    def __init__(self, *, channels: tuple[int, int] = (0, 1), probability: float = 0.5) -> None:
        super().__init__(probability=probability, input_bits=None)
        if min(channels) < 0 or channels[0] == channels[1]:
            raise ValueError(f"channels must be two different channels, counted from 0, got {list(channels)}")
        self.channels = channels

    def require(self, wav: Tensor) -> None:
        """Refuse audio that lacks one of the channels."""
        super().require(wav)
        if wav.shape[1] <= max(self.channels):
            raise ValueError(f"expected audio with channels {list(self.channels)}, got (B, C, T) {tuple(wav.shape)}")

    def change(self, x: Tensor) -> Tensor:
        """x: (B, C, T) -> x with the two channels exchanged."""
        first, second = self.channels
        parts = list(x.unbind(1))
        parts[first], parts[second] = parts[second], parts[first]
        return torch.stack(parts, 1)

    def change_integers(self, wav: Tensor) -> Tensor:
        """The same: no sample changes."""
        return self.change(wav)


class MuLawRoughenInjector(Augmentation):
    """Coded by mu-law and decoded: rough as an old telephone. wav: (B, C, T) -> same shape and dtype.

    It is `mu_law` and its inverse, so samples outside [-1, 1] saturate.

    Args:
        bits: bits of the codes between, 2 to 16.
        mu: strength of the companding, above 0. None: 2^bits - 1.
        probability: share of the items that are changed.
        input_bits: bits of an integer sample. None: those of the dataset.
    """

    def __init__(
        self, *, bits: int = 8, mu: float | None = None, probability: float = 1.0, input_bits: int | None = None
    ) -> None:
        super().__init__(probability=probability, input_bits=input_bits)
        self.mu_law = MuLawInjector(bits=bits, mu=mu)

    def change(self, x: Tensor) -> Tensor:
        """x: (B, C, T) -> the nearest that mu-law can say."""
        return self.mu_law.inverse(self.mu_law.forward(x.float())).to(x.dtype)


NoiseColour = Literal["white", "pink", "brown"]


def coloured(noise: Tensor, colour: NoiseColour) -> Tensor:
    """White noise (..., T) filtered to a power that falls with frequency: pink 3 dB, brown 6 dB an octave, no DC.

    The expected power stays that of the white noise.
    """
    if colour == "white":
        return noise
    num_frames = noise.shape[-1]
    frequencies = torch.arange(num_frames // 2 + 1, device=noise.device, dtype=torch.float64)
    weights = frequencies.clamp(min=1) ** (-0.5 if colour == "pink" else -1.0) * (frequencies > 0)
    twice = torch.where((frequencies > 0) & (2 * frequencies < num_frames), 2.0, 1.0)  # bins that stand for two
    power = (weights.square() * twice).sum() / num_frames
    weights = weights / power.clamp(min=1e-30).sqrt()
    return torch.fft.irfft(torch.fft.rfft(noise) * weights.to(noise.dtype), n=num_frames)
