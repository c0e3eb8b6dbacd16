"""A pre-norm decoder-only transformer: rotary positions, RMSNorm or LayerNorm, SwiGLU or GELU, a key-value cache.

RoPE: Su et al., 2021. SwiGLU: Shazeer, 2020. Blocks add to a residual stream; the last matrix of each branch starts
smaller by sqrt(2 layers), as in GPT-2.
"""

import math
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from codes.models.key_value_cache import Caches, KeyValueCache

Norm = Literal["rmsnorm", "layernorm"]
Activation = Literal["swiglu", "gelu"]
NORM_EPS = 1e-6


def make_norm(kind: Norm, dim: int) -> nn.Module:
    """The normalisation layer of that name over the last axis of width dim."""
    return StepRMSNorm(dim, eps=NORM_EPS) if kind == "rmsnorm" else nn.LayerNorm(dim)


class StepRMSNorm(nn.RMSNorm):
    """torch's, which on a CPU is put together from small operations; in a step of generation from fewer of them."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2] > 1 or torch.is_grad_enabled() or x.device.type != "cpu":
            return super().forward(x)
        scale = x.square().mean(-1, keepdim=True).add_(NORM_EPS).rsqrt_()
        return (x * scale).mul_(self.weight)


class Rotary(nn.Module):
    """Rotates pairs of channels of queries and keys by angles that grow with the position.

    Args:
        dim: width of one head, even.
        base: longest wavelength over 2 pi, in positions.
    """

    def __init__(self, dim: int, base: float = 10000.0) -> None:
        super().__init__()
        self.dim, self.base = dim, base

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """positions (N,) -> cosines and sines (N, 1, dim) float32."""
        rates = self.base ** (-torch.arange(0, self.dim, 2, device=positions.device) / self.dim)
        angles = (positions[:, None].float() * rates).repeat(1, 2)[:, None]
        sign = torch.ones(self.dim, device=positions.device)
        sign[: self.dim // 2] = -1
        return angles.cos(), angles.sin() * sign


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """x (B, N, H, dim); the halves of a head form the pairs."""
    return x * cosines.to(x.dtype) + x.roll(x.shape[-1] // 2, -1) * sines.to(x.dtype)


class Attention(nn.Module):
    """Causal multi-head self-attention. x: (B, N, dim) -> (B, N, dim)."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], cache: KeyValueCache | None = None, start: int | Tensor = 0
    ) -> Tensor:
        batch, length, dim = x.shape
        heads = self.heads
        qkv = self.qkv(x).view(batch, length, 3 * heads, dim // heads)
        rotated, values = rotate(qkv.narrow(2, 0, 2 * heads), *rotary), qkv.narrow(2, 2 * heads, heads)
        queries, keys = rotated.narrow(2, 0, heads), rotated.narrow(2, heads, heads)
        queries, keys, values = queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2)
        mask = None
        if cache is not None:
            keys, values, mask = cache.extend(start, keys, values)
        dropout = self.dropout if self.training else 0.0
        out = functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, dropout_p=dropout, is_causal=length > 1
        )
        return self.out(out.transpose(1, 2).reshape(batch, length, dim))


class FeedForward(nn.Module):
    """SwiGLU of width 8/3 dim or GELU of width 4 dim: the same number of parameters. (..., dim) -> (..., dim)."""

    def __init__(self, dim: int, activation: Activation) -> None:
        super().__init__()
        self.gated = activation == "swiglu"
        width = math.ceil(8 * dim / 3 / 16) * 16 if self.gated else 4 * dim
        self.up = nn.Linear(dim, 2 * width if self.gated else width, bias=False)
        self.out = nn.Linear(width, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.gated:
            gate, x = self.up(x).chunk(2, -1)
            return self.out(functional.silu(gate) * x)
        return self.out(functional.gelu(self.up(x)))


class Block(nn.Module):
    """Attention and feed-forward, each normalised first and added to its input. (B, N, dim) -> (B, N, dim)."""

    def __init__(self, dim: int, heads: int, norm: Norm, activation: Activation, dropout: float) -> None:
        super().__init__()
        self.attention_norm = make_norm(norm, dim)
        self.attention = Attention(dim, heads, dropout)
        self.feed_forward_norm = make_norm(norm, dim)
        self.feed_forward = FeedForward(dim, activation)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], cache: KeyValueCache | None = None, start: int | Tensor = 0
    ) -> Tensor:
        x = x + self._dropped(self.attention(self.attention_norm(x), rotary, cache, start))
        return x + self._dropped(self.feed_forward(self.feed_forward_norm(x)))

    def _dropped(self, branch: Tensor) -> Tensor:
        return self.dropout(branch) if self.training else branch  # a step of generation has no time for the call


class Transformer(nn.Module):
    """A stack of blocks with a final norm. Positions count frames of ``num_channels`` tokens.

    Args:
        layers: number of blocks.
        dim: width of the residual stream.
        heads: attention heads; dim / heads is even.
        num_channels: tokens that share a position.
        norm: rmsnorm or layernorm.
        activation: swiglu or gelu.
        dropout: probability of dropping, in training.
    """

    def __init__(
        self, layers: int, dim: int, heads: int, num_channels: int, norm: Norm, activation: Activation, dropout: float
    ) -> None:
        super().__init__()
        self.heads, self.num_channels = heads, num_channels
        self.rotary = Rotary(dim // heads)
        self.blocks = nn.ModuleList([Block(dim, heads, norm, activation, dropout) for _ in range(layers)])
        self.norm = make_norm(norm, dim)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                scale = 1 / math.sqrt(2 * layers) if name.endswith(".out") else 1.0
                nn.init.normal_(module.weight, std=scale / math.sqrt(module.in_features))

    def forward(self, x: Tensor, recompute: bool = False) -> Tensor:
        """x (B, N, dim) -> (B, N, dim). ``recompute`` keeps only block inputs for the backward pass."""
        rotary = self.rotary_at(0, x.shape[1], x.device)
        for block in self.blocks:
            x = cast(Tensor, checkpoint(block, x, rotary, use_reentrant=False)) if recompute else block(x, rotary)
        return self.norm(x)

    def rotary_at(self, start: int, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Cosines and sines of positions start .. start + length - 1."""
        return self.rotary(torch.arange(start, start + length, device=device) // self.num_channels)

    def caches(self, batch: int, length: int, device: torch.device, static: bool | None = None) -> Caches:
        """Empty caches for ``length`` positions; see `Caches` for ``static``."""
        return Caches(len(self.blocks), batch, self.heads, length, self.rotary.dim, device, static)

    def extend(self, x: Tensor, caches: Caches, start: int, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """Run x (B, N, dim) at positions start .. start + N - 1 (N = 1, or start = 0) given the caches before them."""
        return caches.extend(self._through, x, start, *rotary)

    def _through(
        self, caches: list[KeyValueCache], x: Tensor, start: int | Tensor, cosines: Tensor, sines: Tensor
    ) -> Tensor:
        for block, cache in zip(self.blocks, caches, strict=True):
            x = block(x, (cosines, sines), cache, start)
        return self.norm(x)
