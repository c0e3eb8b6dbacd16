"""Discriminators of codecs and vocoders: `multi_scale_stft_discriminator` and `multi_period_discriminator`.

Each looks at audio in several ways at once and gives a verdict for every place, and what its layers found, which
`feature_matching` compares. The first sees complex spectra of several window lengths (EnCodec; Défossez et al., 2022),
the second every p-th sample (HiFi-GAN; Kong et al., 2020).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from codes import mel
from codes.models.network import Network

SLOPE = 0.2  # of the leaky rectifiers
Judged = tuple[Tensor, list[Tensor]]


class MultiScaleStftDiscriminator(Network):
    """Verdicts on spectra: wav (B, C, T) float -> verdicts (B, M), and the layers' features, a list.

    Args:
        windows: window lengths in samples, one part each; the hop is a quarter of it.
        num_channels: of the audio.
        filters: channels of every convolution.
        dilations: in time, of the convolutions that halve the frequencies.
    """

    def __init__(
        self, *, windows: list[int] | None = None, num_channels: int = 1, filters: int = 32,
        dilations: list[int] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.windows = [2048, 1024, 512, 256, 128] if windows is None else windows
        dilations = [1, 2, 4] if dilations is None else dilations
        if not self.windows or min(self.windows) < 16 or any(window % 4 for window in self.windows):
            raise ValueError(f"windows must be multiples of 4, 16 or more, got {self.windows}")
        if num_channels < 1 or filters < 1 or any(dilation < 1 for dilation in dilations):
            raise ValueError("num_channels, filters and dilations must be 1 or more")
        self.parts = nn.ModuleList(self._part(2 * num_channels, filters, dilations) for _ in self.windows)

    def _part(self, width_in: int, filters: int, dilations: list[int]) -> nn.ModuleList:
        layers = [nn.Conv2d(width_in, filters, (3, 9), padding=(1, 4))]
        layers += [
            nn.Conv2d(filters, filters, (3, 9), (1, 2), padding=(dilation, 4), dilation=(dilation, 1))
            for dilation in dilations
        ]
        layers += [nn.Conv2d(filters, filters, 3, padding=1), nn.Conv2d(filters, 1, 3, padding=1)]
        return nn.ModuleList(weight_norm(layer) for layer in layers)

    def forward(self, wav: Tensor) -> Judged:
        """wav: (B, C, T) float -> verdicts (B, M), high where it seems real; features, each (B, filters, F, N)."""
        judged = [
            _judge(part, self._picture(wav, window)) for part, window in zip(self.parts, self.windows, strict=True)
        ]
        return _together(judged)

    def _picture(self, wav: Tensor, window: int) -> Tensor:
        """wav: (B, C, T) -> real and imaginary parts as channels: (B, 2 C, F, window / 2 + 1)."""
        with torch.autocast(wav.device.type, enabled=False):
            found = torch.view_as_real(mel.spectrum(wav, window, window // 4))  # (B, C, N, F, 2)
        return found.permute(0, 1, 4, 3, 2).flatten(1, 2)


class MultiPeriodDiscriminator(Network):
    """Verdicts on every p-th sample: wav (B, C, T) float -> verdicts (B, M), and the layers' features, a list.

    Args:
        periods: one part each.
        num_channels: of the audio.
        filters: channels of the first convolution; each further one has four times as many, up to most_filters.
        most_filters: channels that no convolution exceeds.
        layers: convolutions of stride 3.
    """

    def __init__(
        self, *, periods: list[int] | None = None, num_channels: int = 1, filters: int = 32, most_filters: int = 1024,
        layers: int = 4,
    ) -> None:  # fmt: skip
        super().__init__()
        self.periods = [2, 3, 5, 7, 11] if periods is None else periods
        if not self.periods or min(self.periods) < 1:
            raise ValueError(f"periods must be 1 or more, got {self.periods}")
        if min(num_channels, filters, most_filters, layers) < 1:
            raise ValueError("num_channels, filters, most_filters and layers must be 1 or more")
        self.parts = nn.ModuleList(self._part(num_channels, filters, most_filters, layers) for _ in self.periods)

    def _part(self, width_in: int, filters: int, most_filters: int, num_layers: int) -> nn.ModuleList:
        widths = [min(filters * 4**level, most_filters) for level in range(num_layers)]
        layers = [
            nn.Conv2d(before, width, (5, 1), (3, 1), padding=(2, 0))
            for before, width in zip([width_in, *widths[:-1]], widths, strict=True)
        ]
        layers += [nn.Conv2d(widths[-1], widths[-1], (5, 1), padding=(2, 0))]
        layers += [nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0))]
        return nn.ModuleList(weight_norm(layer) for layer in layers)

    def forward(self, wav: Tensor) -> Judged:
        """wav: (B, C, T) float -> verdicts (B, M), high where it seems real; features, each (B, filters, N, period)."""
        judged = []
        for part, period in zip(self.parts, self.periods, strict=True):
            whole = functional.pad(wav, (0, -wav.shape[-1] % period))
            judged.append(_judge(part, whole.unflatten(-1, (-1, period))))
        return _together(judged)


def _judge(layers: Any, x: Tensor) -> Judged:
    """x: (B, C, ...) through the layers -> verdicts (B, M) and what each layer but the last found."""
    features = []
    for layer in layers[:-1]:
        x = functional.leaky_relu(layer(x), SLOPE)
        features.append(x)
    return layers[-1](x).flatten(1), features


def _together(judged: list[Judged]) -> Judged:
    return torch.cat([verdict for verdict, _ in judged], 1), [found for _, features in judged for found in features]
