"""Arithmetic on signals: shift and scale, and noise."""

import math
from typing import Annotated, Literal

from torch import Tensor

from codes.registry import StateKey
from codes.trainer.injector import Injector
from codes.trainer.injectors.augment import Augmentation, NoiseColour, Span, coloured, decibels, per_item, span


class NormalizeInjector(Injector):
    """(x - shift) / scale. x: any shape -> same shape, float; integers become float32. Inverse of `denormalize`.

    `scale: 32768` turns 16-bit integer PCM into float audio in [-1, 1).

    Args:
        shift: what becomes 0.
        scale: what becomes 1 above it, not 0.
    """

    def __init__(self, *, shift: float = 0.0, scale: float = 1.0) -> None:
        _require_affine(shift, scale)
        self.shift = shift
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """x: (...) -> (x - shift) / scale: (...) float."""
        return (_to_float(x) - self.shift) / self.scale

    def inverse(self, x: Tensor) -> Tensor:
        """x: (...) -> x scale + shift: (...) float."""
        return _to_float(x) * self.scale + self.shift


class DenormalizeInjector(Injector):
    """x scale + shift. x: any shape -> same shape, float; integers become float32. Inverse of `normalize`.

    Args:
        shift: what 0 becomes.
        scale: what a step of 1 becomes, not 0.
    """

    def __init__(self, *, shift: float = 0.0, scale: float = 1.0) -> None:
        _require_affine(shift, scale)
        self.shift = shift
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """x: (...) -> x scale + shift: (...) float."""
        return _to_float(x) * self.scale + self.shift

    def inverse(self, x: Tensor) -> Tensor:
        """x: (...) -> (x - shift) / scale: (...) float."""
        return (_to_float(x) - self.shift) / self.scale


class AddNoiseInjector(Augmentation):
    """Gaussian noise added to audio. x: (B, ...) float in [-1, 1] or integer -> same shape and dtype.

    What an item gets follows from its seed; integers keep their depth, rounded and saturated. Set either `scale` or
    `snr_db`. At an SNR the ratio of each item is exact, and silence stays silent.

    Args:
        scale: standard deviation of the noise, 0 or more; full scale is 1, of integers too. Or the key of such a
            number, as scheduled_scalar makes one.
        snr_db: signal to noise power ratio of each item in dB, a number or [low, high].
        mode: normal, or uniform: evenly from 0 to scale.
        colour: white, or a power that falls by 3 dB (pink) or 6 dB (brown) an octave.
        probability: share of the items that are changed.
        input_bits: bits of an integer sample. None: those of the dataset.
    """

    def __init__(
        self, *, scale: Annotated[float | str | None, StateKey()] = None, snr_db: Span | None = None,
        mode: Literal["normal", "uniform"] = "normal", colour: NoiseColour = "white", probability: float = 1.0,
        input_bits: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(probability=probability, input_bits=input_bits)
        if (scale is None) == (snr_db is None):
            raise ValueError(f"add_noise takes either scale or snr_db, got scale {scale} and snr_db {snr_db}")
        if isinstance(scale, float | int) and not (scale >= 0 and math.isfinite(scale)):
            raise ValueError(f"scale must be a finite number, 0 or more, got {scale}")
        if mode == "uniform" and (scale is None or colour != "white"):
            raise ValueError("mode uniform takes a scale, and no colour")
        self.scale: float | Tensor | None = None if isinstance(scale, str) else scale
        self.mode = mode
        self.snr_db = None if snr_db is None else span("snr_db", snr_db)
        self.colour: NoiseColour = colour

    def forward(self, wav: Tensor, scale: float | Tensor | None = None) -> Tensor:
        """wav: (B, ...); scale: a number, in place of the option -> wav + noise."""
        if scale is not None:
            self.scale = scale
        return super().forward(wav)

    def require(self, wav: Tensor) -> None:
        """Any shape that has items."""
        if wav.ndim < 1:
            raise ValueError("expected audio (B, ...), got a single number")

    def change(self, x: Tensor) -> Tensor:
        """x: (B, ...) -> x + noise."""
        if self.mode == "uniform":
            assert self.scale is not None
            return x + self.draw_uniform(x, 0, 1, *x.shape[1:]).to(x.dtype) * self.scale
        noise = self.draw_normal(x, *x.shape[1:]).to(x.dtype)
        if x.ndim > 1:
            noise = coloured(noise, self.colour)
        if self.scale is not None:
            return x + noise * self.scale
        assert self.snr_db is not None
        ratio = decibels(-self.draw_span(x, self.snr_db))
        return x + noise * (_level(x) / _level(noise).clamp(min=1e-30) * ratio).to(x.dtype)


def _level(x: Tensor) -> Tensor:
    """x: (B, ...) -> root mean square of each item: (B, 1, ...), in float64, that the order of adding does not show."""
    wide = x.double()
    return per_item(wide.square().flatten(1).mean(1).sqrt() if x.ndim > 1 else wide.abs(), x)


def _to_float(x: Tensor) -> Tensor:
    """Floats as they are, integers as float32 (exact up to 24 bits)."""
    return x if x.is_floating_point() else x.float()


def _require_affine(shift: float, scale: float) -> None:
    if not math.isfinite(shift):
        raise ValueError(f"shift must be a finite number, got {shift}")
    if scale == 0 or not math.isfinite(scale):
        raise ValueError(f"scale must be a finite number other than 0, got {scale}")
