"""HiFi-GAN's generator (Kong et al. 2020): mel spectrograms to sound, with the names of its published weights."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from codes.models.network import Network

SLOPE = 0.1


class HifiGan(Network):
    """Log-mel spectrogram of magnitudes (B, bands, F) -> sound (B, 1, F * product of upsample_rates) in [-1, 1].

    Args:
        bands: of the mel spectrogram
        upsample_rates: of the transposed convolutions
        upsample_kernel_sizes: of them
        upsample_initial_channel: width before the first; each one halves it
        resblock: 1: pairs of dilated convolutions; 2: single ones
        resblock_kernel_sizes: of the residual blocks, which see several scales at once
        resblock_dilation_sizes: of each of them
    """

    def __init__(
        self, *, bands: int = 80, upsample_rates: list[int] | None = None,
        upsample_kernel_sizes: list[int] | None = None, upsample_initial_channel: int = 512, resblock: int = 1,
        resblock_kernel_sizes: list[int] | None = None, resblock_dilation_sizes: list[list[int]] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        rates, sizes = upsample_rates or [8, 8, 2, 2], upsample_kernel_sizes or [16, 16, 4, 4]
        kernels = resblock_kernel_sizes or [3, 7, 11]
        dilations = resblock_dilation_sizes or [[1, 3, 5]] * len(kernels)
        if len(rates) != len(sizes) or len(kernels) != len(dilations) or resblock not in (1, 2):
            raise ValueError("upsample_rates and upsample_kernel_sizes, and the resblock lists, must go in pairs")
        self.scales = len(kernels)
        width = upsample_initial_channel
        self.conv_pre = weight_norm(nn.Conv1d(bands, width, 7, padding=3))
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
        for rate, size in zip(rates, sizes, strict=True):
            up = nn.ConvTranspose1d(width, width // 2, size, rate, padding=(size - rate) // 2)
            self.ups.append(weight_norm(up))
            width //= 2
            self.resblocks += [
                DilatedBlock(width, k, d, resblock == 1) for k, d in zip(kernels, dilations, strict=True)
            ]
        self.conv_post = weight_norm(nn.Conv1d(width, 1, 7, padding=3))

    def forward(self, mel: Tensor) -> Tensor:
        """mel: (B, bands, F) -> (B, 1, T)."""
        x = self.conv_pre(mel)
        for number, up in enumerate(self.ups):
            x = up(functional.leaky_relu(x, SLOPE))
            blocks = self.resblocks[number * self.scales : (number + 1) * self.scales]
            x = torch.stack([block(x) for block in blocks]).mean(0)
        return torch.tanh(self.conv_post(functional.leaky_relu(x)))

    def released_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Published files hold the older names of weight norm's two parts."""
        names = {".weight_g": ".parametrizations.weight.original0", ".weight_v": ".parametrizations.weight.original1"}
        return {
            next((k.removesuffix(old) + new for old, new in names.items() if k.endswith(old)), k): value
            for k, value in weights.items()
        }


class DilatedBlock(nn.Module):
    """Dilated convolutions, each (with a plain one after it) added to its input: (B, C, T) -> (B, C, T)."""

    def __init__(self, width: int, kernel: int, dilations: list[int], paired: bool) -> None:
        super().__init__()

        def convolutions(rates: list[int]) -> nn.ModuleList:
            made = [nn.Conv1d(width, width, kernel, dilation=d, padding=d * (kernel - 1) // 2) for d in rates]
            return nn.ModuleList([weight_norm(layer) for layer in made])

        self.paired = paired
        if paired:
            self.convs1, self.convs2 = convolutions(dilations), convolutions([1] * len(dilations))
        else:
            self.convs = convolutions(dilations)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, T) -> (B, C, T)."""
        if not self.paired:
            for layer in self.convs:
                x = x + layer(functional.leaky_relu(x, SLOPE))
            return x
        for first, second in zip(self.convs1, self.convs2, strict=True):
            x = x + second(functional.leaky_relu(first(functional.leaky_relu(x, SLOPE)), SLOPE))
        return x
