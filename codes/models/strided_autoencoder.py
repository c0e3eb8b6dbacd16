"""`strided_autoencoder`: audio to a short sequence of vectors and back, by strided convolutions (stride 441, 1050).

An LSTM over its vectors sees a second of audio in tens of steps. It is trained as a step of its own, before or beside
the step that uses it, or comes from a file (path.pretrain_model_NAME) and stays frozen (trainable: false). The
injectors `encode_latents` and `decode_latents` call it.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from codes.models.network import Network


class StridedAutoencoder(Network):
    """Auto-encoder of audio: wav (B, T) float -> wav (B, T). Its parts: encode and decode.

    Each stride is a convolution of that stride whose kernel is its double (so that windows overlap by half), then a
    residual block; decoding mirrors it.

    Args:
        strides: of the convolutions, first one first; their product is the stride: [7, 7, 9] for 441, [5, 5, 6, 7] for
            1050.
        channels: width of the first convolution; each further one is twice as wide, up to most_channels.
        most_channels: width that no convolution exceeds.
        latent_dim: numbers in a vector.
        noise: standard deviation of what is added to the vectors in training, so that a prediction near one decodes
            to something near.
        causal: vector n is made of frames before (n + 1) * stride alone, so that the vectors of prev know nothing of
            next; false: of those around n * stride .. (n + 1) * stride.
    """

    def __init__(
        self, *, strides: list[int], channels: int = 32, most_channels: int = 256, latent_dim: int = 64,
        noise: float = 0.0, causal: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        if not strides or min(strides) < 2:
            raise ValueError(f"strides must be whole numbers of 2 or more, got {strides}")
        for name, size in {"channels": channels, "most_channels": most_channels, "latent_dim": latent_dim}.items():
            if size < 1:
                raise ValueError(f"{name} is {size}: it must be 1 or more")
        if noise < 0:
            raise ValueError(f"noise is {noise}: it must be 0 or more")
        self.stride, self.latent_dim, self.noise = math.prod(strides), latent_dim, noise
        widths = [min(channels * 2**level, most_channels) for level in range(len(strides))]
        down: list[nn.Module] = []
        for width_in, width, stride in zip([1, *widths[:-1]], widths, strides, strict=True):
            down += [Down(width_in, width, stride, causal), Residual(width, causal)]
        up: list[nn.Module] = []
        for width_in, width, stride in reversed(list(zip([1, *widths[:-1]], widths, strides, strict=True))):
            up += [Residual(width), Up(width, width_in, stride)]
        self.down = nn.Sequential(*down, nn.Conv1d(widths[-1], latent_dim, 1))
        self.up = nn.Sequential(nn.Conv1d(latent_dim, widths[-1], 1), *up)

    def forward(self, wav: Tensor) -> Tensor:
        """wav: (B, T) or (B, 1, T) float in [-1, 1) -> the same, encoded and decoded."""
        latents = self.encode(wav)
        if self.training and self.noise:
            latents = latents + self.noise * torch.randn_like(latents)
        return self.decode(latents)[:, : wav.shape[-1]].view_as(wav)

    def encode(self, wav: Tensor) -> Tensor:
        """wav: (B, T) or (B, 1, T) float -> (B, N, latent_dim), N = T / stride rounded up; zeros fill the last vector.

        Raises:
            ValueError: the shape is another, or the values are integers.
        """
        if wav.dim() not in (2, 3) or (wav.dim() == 3 and wav.shape[1] != 1) or not wav.is_floating_point():
            raise ValueError(f"expected float audio (B, T) or (B, 1, T), got {wav.dtype} {tuple(wav.shape)}")
        x = wav.reshape(len(wav), 1, wav.shape[-1])
        return self.down(functional.pad(x, (0, -x.shape[-1] % self.stride))).transpose(1, 2)

    def decode(self, latents: Tensor) -> Tensor:
        """latents: (B, N, latent_dim) -> wav: (B, N * stride).

        Raises:
            ValueError: the vectors have another width.
        """
        if latents.dim() != 3 or latents.shape[2] != self.latent_dim:
            raise ValueError(f"expected latents (B, N, {self.latent_dim}), got {tuple(latents.shape)}")
        return self.up(latents.transpose(1, 2))[:, 0]


class Down(nn.Module):
    """(B, C, T) -> (B, C', T / stride): a convolution over windows of 2 stride, whose middle or end is the own part."""

    def __init__(self, width_in: int, width: int, stride: int, causal: bool = False) -> None:
        super().__init__()
        self.padding = (stride, 0) if causal else (stride // 2, stride - stride // 2)
        self.convolution = nn.Conv1d(width_in, width, 2 * stride, stride)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, T), T a multiple of the stride -> (B, C', T / stride)."""
        return functional.leaky_relu(self.convolution(functional.pad(x, self.padding)), 0.2)


class Up(nn.Module):
    """(B, C, N) -> (B, C', N * stride): windows of 2 stride that overlap by half are added up."""

    def __init__(self, width: int, width_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.convolution = nn.ConvTranspose1d(width, width_out, 2 * stride, stride)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, N) -> (B, C', N * stride)."""
        made = self.convolution(functional.leaky_relu(x, 0.2))
        first = self.stride // 2
        return made[..., first : first + x.shape[-1] * self.stride]


class Residual(nn.Module):
    """(B, C, N) -> (B, C, N): x plus a non-linearity and a convolution of 3, the last or the middle one its own."""

    def __init__(self, width: int, causal: bool = False) -> None:
        super().__init__()
        self.padding = (2, 0) if causal else (1, 1)
        self.convolution = nn.Conv1d(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, N) -> (B, C, N)."""
        return x + self.convolution(functional.pad(functional.leaky_relu(x, 0.2), self.padding))
