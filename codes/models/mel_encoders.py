"""What Tortoise's GPT sees of mel spectrograms: a reference voice as one vector, or frames in place of codes."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Float32GroupNorm(nn.GroupNorm):
    """Group normalisation computed in float32: (B, C, N) -> (B, C, N)."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, N) -> (B, C, N) of the same type."""
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float()).to(x.dtype)


def num_groups(channels: int) -> int:
    """Groups of a norm over so many channels: 32, fewer for few channels, halved until they divide them.

    Raises:
        ValueError: fewer than 4 would be left.
    """
    groups = 8 if channels <= 16 else 16 if channels <= 64 else 32
    while channels % groups:
        groups //= 2
    if groups < 4:
        raise ValueError(f"model_dim is {channels}: it must be a multiple of 4")
    return groups


class VoiceAttention(nn.Module):
    """Attention of every frame to every frame, added to what came in: (B, C, N) -> (B, C, N).

    The map to queries, keys and values holds them head by head; the last map begins at zero.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = Float32GroupNorm(num_groups(channels), channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, N) -> (B, C, N)."""
        batch, channels, length = x.shape
        parts = self.qkv(self.norm(x)).view(batch, self.heads, 3, channels // self.heads, length)
        queries, keys, values = (part.transpose(-1, -2) for part in parts.unbind(2))
        out = functional.scaled_dot_product_attention(queries, keys, values)
        return x + self.proj_out(out.transpose(-1, -2).reshape(batch, channels, length))


class ConditioningEncoder(nn.Module):
    """A reference clip as one vector: mel (B, bands, N) -> (B, dim), what attention gathers at its first frame.

    Args:
        bands: mel bands.
        dim: width.
        heads: attention heads.
        blocks: of attention.
    """

    def __init__(self, bands: int, dim: int, heads: int, blocks: int = 6) -> None:
        super().__init__()
        self.init = nn.Conv1d(bands, dim, 1)
        self.attn = nn.Sequential(*[VoiceAttention(dim, heads) for _ in range(blocks)])

    def forward(self, mel: Tensor) -> Tensor:
        """mel: (B, bands, N) -> (B, dim)."""
        return self.attn(self.init(mel))[:, :, 0]


class MelFrames(nn.Module):
    """Mel frames in place of codes: mel (B, bands, 4 N) -> (B, N, dim), by two convolutions of stride 2.

    Args:
        dim: width, a multiple of 32.
        bands: mel bands.
    """

    def __init__(self, dim: int, bands: int = 80) -> None:
        super().__init__()
        if dim % 32:
            raise ValueError(f"model_dim is {dim}: without codes as input it must be a multiple of 32")
        quarter, half = dim // 4, dim // 2
        self.encoder = nn.Sequential(
            nn.Conv1d(bands, quarter, 3, padding=1), nn.Sequential(MelResidual(quarter)),
            nn.Conv1d(quarter, half, 3, 2, 1), nn.GroupNorm(dim // 16, half), nn.ReLU(),
            nn.Sequential(MelResidual(half)),
            nn.Conv1d(half, dim, 3, 2, 1), nn.GroupNorm(dim // 8, dim), nn.ReLU(), nn.Sequential(MelResidual(dim)),
        )  # fmt: skip

    def forward(self, mel: Tensor) -> Tensor:
        """mel: (B, bands, 4 N) -> (B, N, dim)."""
        return self.encoder(mel).transpose(1, 2)


class MelResidual(nn.Module):
    """Two normalised convolutions added to their input: (B, C, N) -> (B, C, N)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        groups = channels // 8
        self.net = nn.Sequential(
            nn.Conv1d(channels, channels, 3, padding=1), nn.GroupNorm(groups, channels), nn.ReLU(),
            nn.Conv1d(channels, channels, 3, padding=1), nn.GroupNorm(groups, channels),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, N) -> (B, C, N)."""
        return functional.relu(x + self.net(x))
