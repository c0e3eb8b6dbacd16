"""Arithmetic on signals: shift and scale, and noise."""

import math

import torch
from torch import Tensor

from codes.trainer.injector import Injector


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


class AddNoiseInjector(Injector):
    """Gaussian white noise added to float audio. x: (B, ...) -> (B, ...), same dtype; silence at an SNR stays silent.

    The noise comes from the injector's own seeded generator. Set either `scale` or `snr_db`.

    Args:
        scale: standard deviation of the noise, 0 or more.
        snr_db: signal to noise power ratio of each item in dB.
    """

    def __init__(self, *, scale: float | None = None, snr_db: float | None = None) -> None:
        if (scale is None) == (snr_db is None):
            raise ValueError(f"add_noise takes either scale or snr_db, got scale {scale} and snr_db {snr_db}")
        if scale is not None and not (scale >= 0 and math.isfinite(scale)):
            raise ValueError(f"scale must be a finite number, 0 or more, got {scale}")
        if snr_db is not None and not math.isfinite(snr_db):
            raise ValueError(f"snr_db must be a finite number, got {snr_db}")
        self.scale = scale
        self.snr_db = snr_db

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, ...) float -> x + noise: (B, ...).

        Raises:
            ValueError: x is not float audio.
        """
        if not x.is_floating_point() or x.ndim < 1:
            raise ValueError(
                f"expected float audio (B, ...), got {x.dtype} of shape {tuple(x.shape)}: "
                "put a normalize before add_noise"
            )
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        noise = torch.randn(x.shape, dtype=wide.dtype, device=x.device, generator=self.generator(x.device))
        return (wide + noise * self._amplitude(wide)).to(x.dtype)

    def _amplitude(self, x: Tensor) -> Tensor | float:
        """Standard deviation of the noise: one number, or one an item, (B, 1, ...)."""
        if self.scale is not None:
            return self.scale
        assert self.snr_db is not None
        root_mean_square = x.square().flatten(1).mean(1).sqrt() if x.ndim > 1 else x.abs()
        return root_mean_square.view(-1, *[1] * (x.ndim - 1)) * 10 ** (-self.snr_db / 20)


def _to_float(x: Tensor) -> Tensor:
    """Floats as they are, integers as float32 (exact up to 24 bits)."""
    return x if x.is_floating_point() else x.float()


def _require_affine(shift: float, scale: float) -> None:
    if not math.isfinite(shift):
        raise ValueError(f"shift must be a finite number, got {shift}")
    if scale == 0 or not math.isfinite(scale):
        raise ValueError(f"scale must be a finite number other than 0, got {scale}")
