"""Vocos (Siuzdak 2023): mel spectrograms to a complex spectrum of sound, with the names of its published weights."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from codes.models.network import Network

MOST_MAGNITUDE = 100.0


class Vocos(Network):
    """Log-mel spectrogram of magnitudes (B, bands, F) -> sound (B, 1, T).

    T is (F - 1) * hop where frames are centred (padding: center), F * hop otherwise (same).

    Args:
        bands: of the mel spectrogram
        dim: width
        intermediate_dim: width inside a block
        num_layers: blocks
        window: samples of a frame of the spectrum
        hop: samples between two frames
        padding: how frames lie
    """

    def __init__(
        self, *, bands: int = 100, dim: int = 512, intermediate_dim: int = 1536, num_layers: int = 8,
        window: int = 1024, hop: int = 256, padding: Literal["center", "same"] = "center",
    ) -> None:  # fmt: skip
        super().__init__()
        sizes = bands, dim, intermediate_dim, num_layers
        if min(sizes) < 1 or not 0 < hop <= window:
            raise ValueError(
                "bands, dim, intermediate_dim and num_layers must be 1 or more, hop 1 to window, "
                f"got {', '.join(str(size) for size in (*sizes, hop, window))}"
            )
        self.backbone = VocosBackbone(bands, dim, intermediate_dim, num_layers)
        self.head = SpectrumHead(dim, window, hop, padding == "center")

    def forward(self, mel: Tensor) -> Tensor:
        """mel: (B, bands, F) -> (B, 1, T)."""
        return self.head(self.backbone(mel))[:, None]

    def released_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Published files also hold what makes the mel spectrogram, and a window, which follow from the sizes."""
        return {k: v for k, v in weights.items() if not k.startswith(("feature_extractor.", "head.istft."))}


class VocosBackbone(nn.Module):
    """ConvNeXt blocks at the rate of the frames: (B, bands, F) -> (B, F, dim)."""

    def __init__(self, bands: int, dim: int, intermediate_dim: int, num_layers: int) -> None:
        super().__init__()
        self.embed = nn.Conv1d(bands, dim, 7, padding=3)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        blocks = [ConvNextBlock(dim, intermediate_dim, 1 / num_layers) for _ in range(num_layers)]
        self.convnext = nn.Sequential(*blocks)
        self.final_layer_norm = nn.LayerNorm(dim, eps=1e-6)
        for layer in self.modules():
            if isinstance(layer, (nn.Conv1d, nn.Linear)):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, mel: Tensor) -> Tensor:
        """mel: (B, bands, F) -> (B, F, dim)."""
        x = self.norm(self.embed(mel).transpose(1, 2)).transpose(1, 2)
        return self.final_layer_norm(self.convnext(x).transpose(1, 2))


class ConvNextBlock(nn.Module):
    """A convolution in each channel, then two linear maps, scaled and added to the input: (B, C, F) -> (B, C, F)."""

    def __init__(self, dim: int, intermediate_dim: int, scale: float) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, intermediate_dim)
        self.pwconv2 = nn.Linear(intermediate_dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, F) -> (B, C, F)."""
        inner = functional.gelu(self.pwconv1(self.norm(self.dwconv(x).transpose(1, 2))))
        return x + (self.gamma * self.pwconv2(inner)).transpose(1, 2)


class SpectrumHead(nn.Module):
    """Logarithms of magnitudes, and phases, to sound by the inverse Fourier transform: (B, F, dim) -> (B, T)."""

    def __init__(self, dim: int, window: int, hop: int, centred: bool) -> None:
        super().__init__()
        self.size, self.hop, self.centred = window, hop, centred
        self.out = nn.Linear(dim, window + 2)
        self.window: Tensor
        self.register_buffer("window", torch.hann_window(window), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, F, dim) -> (B, T)."""
        logarithms, phases = self.out(x).float().transpose(1, 2).chunk(2, 1)
        spectrum = torch.polar(logarithms.exp().clamp(max=MOST_MAGNITUDE), phases)
        if self.centred:
            return torch.istft(spectrum, self.size, self.hop, window=self.window)
        return self._overlapped(spectrum)

    def _overlapped(self, spectrum: Tensor) -> Tensor:
        """Frames that do not reach over the ends: (B, window / 2 + 1, F) -> (B, F * hop).

        Each sample is divided by the sum of the squared windows over it; at the ends, where that nears zero, half of
        what a frame overlaps is cut off.
        """
        frames = torch.fft.irfft(spectrum, self.size, dim=1) * self.window[:, None]
        squares = self.window.square()[:, None].expand(-1, frames.shape[2])[None]
        cut = (self.size - self.hop) // 2
        kept = slice(cut, cut + frames.shape[2] * self.hop)
        return self._added(frames)[:, kept] / self._added(squares)[:, kept]

    def _added(self, frames: Tensor) -> Tensor:
        """(B, window, F) -> (B, (F - 1) * hop + window)."""
        length = (frames.shape[2] - 1) * self.hop + self.size
        return functional.fold(frames, (1, length), (1, self.size), stride=(1, self.hop))[:, 0, 0]
