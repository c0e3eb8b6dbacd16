"""GPT-2's blocks (Radford et al. 2019) over embeddings of one's own: no token table, no positions.

Names and shapes of the weights are those of GPT-2 as it was published, whose linear maps are stored (in, out).
"""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from codes.models.key_value_cache import Caches, KeyValueCache


class InOutLinear(nn.Module):
    """A linear map whose weight is stored (in, out): (..., in) -> (..., out)."""

    def __init__(self, size_in: int, size_out: int, std: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size_in, size_out) * std)
        self.bias = nn.Parameter(torch.zeros(size_out))

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in) -> (..., out)."""
        return functional.linear(x, self.weight.t(), self.bias)


class Gpt2Attention(nn.Module):
    """Causal multi-head self-attention: (B, N, dim) -> (B, N, dim)."""

    def __init__(self, dim: int, heads: int, dropout: float, out_std: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.c_attn = InOutLinear(dim, 3 * dim, 0.02)
        self.c_proj = InOutLinear(dim, dim, out_std)

    def forward(self, x: Tensor, mask: Tensor | None, cache: KeyValueCache | None, start: int | Tensor) -> Tensor:
        """x: (B, N, dim) at positions start ..; mask: where a position looks, None: at itself and those before it."""
        batch, length, dim = x.shape
        parts = self.c_attn(x).view(batch, length, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        queries, keys, values = parts.unbind(0)
        if cache is not None:
            keys, values, mask = cache.extend(start, keys, values)
        dropout = self.dropout if self.training else 0.0
        causal = mask is None and length > 1
        out = functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, dropout_p=dropout, is_causal=causal
        )
        return self.c_proj(out.transpose(1, 2).reshape(batch, length, dim))


class Gpt2FeedForward(nn.Module):
    """Four times as wide inside, with the GELU that GPT-2 approximates by tanh: (..., dim) -> (..., dim)."""

    def __init__(self, dim: int, out_std: float) -> None:
        super().__init__()
        self.c_fc = InOutLinear(dim, 4 * dim, 0.02)
        self.c_proj = InOutLinear(4 * dim, dim, out_std)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., dim) -> (..., dim)."""
        return self.c_proj(functional.gelu(self.c_fc(x), approximate="tanh"))


class Gpt2Block(nn.Module):
    """Attention and feed-forward, each normalised first and added to its input: (B, N, dim) -> (B, N, dim)."""

    def __init__(self, dim: int, heads: int, dropout: float, out_std: float) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(dim)
        self.attn = Gpt2Attention(dim, heads, dropout, out_std)
        self.ln_2 = nn.LayerNorm(dim)
        self.mlp = Gpt2FeedForward(dim, out_std)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None, cache: KeyValueCache | None, start: int | Tensor) -> Tensor:
        """x: (B, N, dim) -> (B, N, dim); the rest as Gpt2Attention takes it."""
        x = x + self.dropout(self.attn(self.ln_1(x), mask, cache, start))
        return x + self.dropout(self.mlp(self.ln_2(x)))


class Gpt2Trunk(nn.Module):
    """A stack of GPT-2 blocks with its final norm.

    Args:
        layers: number of blocks.
        dim: width, a multiple of heads.
        heads: attention heads.
        dropout: probability of dropping, in training, wherever GPT-2 drops.
    """

    def __init__(self, layers: int, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dim = heads, dim
        out_std = 0.02 / math.sqrt(2 * layers)
        self.h = nn.ModuleList([Gpt2Block(dim, heads, dropout, out_std) for _ in range(layers)])
        self.ln_f = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, attended: Tensor | None = None, recompute: bool = False) -> Tensor:
        """Run the whole sequence.

        Args:
            x: (B, N, dim).
            attended: (B, N) bool, false where no later position looks (padding); None: everything is attended.
            recompute: keep only the blocks' inputs for the backward pass.

        Returns:
            (B, N, dim).
        """
        mask = None
        if attended is not None:
            causal = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
            own = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)  # padding sees itself: no empty row
            mask = (causal & (attended[:, None] | own))[:, None]  # (B, 1, N, N)
        x = self.dropout(x)
        for block in self.h:
            if recompute:
                x = cast(Tensor, checkpoint(block, x, mask, None, 0, use_reentrant=False))
            else:
                x = block(x, mask, None, 0)
        return self.ln_f(x)

    def caches(self, batch: int, length: int, device: torch.device, static: bool | None = None) -> Caches:
        """Empty caches for `length` positions; see `Caches` for `static`."""
        return Caches(len(self.h), batch, self.heads, length, self.dim // self.heads, device, static)

    def extend(self, x: Tensor, caches: Caches, start: int) -> Tensor:
        """Run x (B, N, dim) at positions start .. start + N - 1 (N = 1, or start = 0) given the caches before them."""
        return caches.extend(self._through, x, start)

    def _through(self, caches: list[KeyValueCache], x: Tensor, start: int | Tensor) -> Tensor:
        for block, cache in zip(self.h, caches, strict=True):
            x = block(x, None, cache, start)
        return self.ln_f(x)
