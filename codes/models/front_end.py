"""A hierarchy of causal convolutions around a transformer: long contexts at a fraction of the positions.

On the way down, level i of width d_i becomes level i + 1 by a causal convolution of stride s_i; the transformer works
on what is left, one position for s_0 s_1 ... tokens. On the way up, each position is spread over s_i finer ones, what
came down at that level is added, and a causal convolution mixes it: fine detail takes the short way, long context the
one through the transformer (the shape of Hourglass transformers, Nawrot et al. 2021, and of MEGABYTE, Yu et al. 2023).

Position j of level i + 1 stands for positions j s_i .. j s_i + s_i - 1 of level i and sees none behind the first of
them, so the output at a token depends on inputs up to that token and no later one. `gpt` and `t5` feed it inputs
that are shifted by a token already.
"""

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from codes.models.key_value_cache import Caches
from codes.models.transformer import Activation, Norm, Transformer, make_norm

Inner = Callable[[Tensor], Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrontEnd:
    """Strided causal convolutions before the transformer and an upsampler after it.

    Args:
        strides: of the levels, the finest first; so many tokens as their product share a position of the transformer
        dims: widths of the levels, the finest first, one for each stride
        kernel: taps of each convolution, at least the largest stride
    """

    strides: list[int] = dataclasses.field(default_factory=lambda: [4, 4])
    dims: list[int] = dataclasses.field(default_factory=lambda: [64, 128])
    kernel: int = 8

    def __post_init__(self) -> None:
        if not self.strides or min(self.strides) < 2:
            raise ValueError(f"strides must be one whole number or more, each 2 or larger: got {self.strides}")
        if len(self.dims) != len(self.strides) or min(self.dims) < 1:
            raise ValueError(f"dims must be one width for each of {len(self.strides)} strides: got {self.dims}")
        if self.kernel < max(self.strides):
            raise ValueError(f"kernel must be at least the largest stride, {max(self.strides)}: got {self.kernel}")

    @property
    def factor(self) -> int:
        """Tokens that share a position of the transformer."""
        return math.prod(self.strides)


class CausalConvolution(nn.Module):
    """Output j sees the inputs up to j * stride. x: (B, N, in) -> (B, N / stride rounded up, out)."""

    def __init__(self, dim_in: int, dim_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.past = kernel - 1
        self.taps = nn.Conv1d(dim_in, dim_out, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.window(functional.pad(x, (0, 0, self.past, 0)))

    def window(self, x: Tensor) -> Tensor:
        """The same for x that begins ``past`` positions earlier."""
        return self.taps(x.transpose(1, 2)).transpose(1, 2)


class Level(nn.Module):
    """What lies between a level and the next coarser one. Fine positions (B, N, dim), coarse ones (B, N', coarse)."""

    def __init__(self, dim: int, coarse: int, stride: int, kernel: int, up: bool) -> None:
        super().__init__()
        self.dim, self.stride = dim, stride
        self.down_norm = nn.RMSNorm(dim, eps=1e-6)
        self.down = CausalConvolution(dim, coarse, kernel, stride)
        if up:
            self.up_norm = nn.RMSNorm(coarse, eps=1e-6)
            self.up = nn.Linear(coarse, stride * dim)
            self.mix_norm = nn.RMSNorm(dim, eps=1e-6)
            self.mix = CausalConvolution(dim, 2 * dim, kernel)
            self.out = nn.Linear(dim, dim)

    def coarser(self, normed: Tensor) -> Tensor:
        """Normalised (B, N, dim) -> (B, N', coarse), float32 as a residual stream is."""
        return self.down(normed).float()

    def spread(self, y: Tensor) -> Tensor:
        """(B, N', coarse) -> (B, N' * stride, dim)."""
        return self.up(self.up_norm(y)).reshape(len(y), -1, self.dim)

    def gate(self, mixed: Tensor) -> Tensor:
        """(B, N, 2 dim) -> (B, N, dim)."""
        gate, value = mixed.chunk(2, -1)
        return self.out(functional.silu(gate) * value)

    def mixed(self, x: Tensor) -> Tensor:
        """(B, N, dim) -> (B, N, dim)."""
        return x + self.gate(self.mix(self.mix_norm(x)))


class HierarchyState:
    """What a hierarchy remembers between steps: the last inputs of each convolution and the last spread positions."""

    def __init__(self, levels: int) -> None:
        self.position = 0
        self.down: list[Tensor] = [torch.empty(0)] * levels
        self.mix: list[Tensor] = [torch.empty(0)] * levels
        self.spread: list[Tensor] = [torch.empty(0)] * levels


class Hierarchy(nn.Module):
    """The levels around an inner network that maps (B, N', dim) to (B, N', dim).

    Args:
        options: strides, widths, kernel.
        dim: width of the inner network.
        up: with the way up; False for an encoder, whose positions stay coarse.
    """

    def __init__(self, options: FrontEnd, dim: int, up: bool = True) -> None:
        super().__init__()
        widths = [*options.dims, dim]
        self.levels = nn.ModuleList(
            Level(width, coarse, stride, options.kernel, up)
            for width, coarse, stride in zip(widths, widths[1:], options.strides, strict=False)
        )

    def _level(self, index: int) -> Level:
        return self.levels[index]  # type: ignore[return-value]

    def down(self, x: Tensor) -> Tensor:
        """x (B, N, dims[0]) -> (B, N / factor rounded up, dim)."""
        for index in range(len(self.levels)):
            level = self._level(index)
            x = level.coarser(level.down_norm(x))
        return x

    def forward(self, x: Tensor, inner: Inner, recompute: bool = False, state: HierarchyState | None = None) -> Tensor:
        """All positions at once.

        Args:
            x: (B, N, dims[0]).
            inner: the network in the middle.
            recompute: keep less for the backward pass.
            state: is filled, so that `step` can go on from here.

        Returns:
            (B, N, dims[0]).
        """
        if state is not None:
            state.position = x.shape[1]
        return self._pass(0, x, inner, recompute, state)

    def _pass(self, index: int, x: Tensor, inner: Inner, recompute: bool, state: HierarchyState | None) -> Tensor:
        if index == len(self.levels):
            return inner(x)
        level, length = self._level(index), x.shape[1]
        normed = level.down_norm(x)
        y = self._pass(index + 1, level.coarser(normed), inner, recompute, state)
        spread = level.spread(y)
        x = x + spread[:, :length]
        if state is not None:
            state.down[index] = _last(normed, level.down.past)
            state.mix[index] = _last(level.mix_norm(x), level.mix.past)
            state.spread[index] = spread[:, -level.stride :]
        if recompute:
            return checkpoint(level.mixed, x, use_reentrant=False)  # type: ignore[return-value]
        return level.mixed(x)

    def step(self, x: Tensor, inner: Inner, state: HierarchyState) -> Tensor:
        """The next position alone, x (B, 1, dims[0]) -> the same; inner is called where a coarse position is due."""
        result = self._step(0, state.position, x, inner, state)
        state.position += 1
        return result

    def _step(self, index: int, position: int, x: Tensor, inner: Inner, state: HierarchyState) -> Tensor:
        if index == len(self.levels):
            return inner(x)
        level = self._level(index)
        window = torch.cat([state.down[index], level.down_norm(x)], 1)
        state.down[index] = window[:, 1:]
        if position % level.stride == 0:
            coarse = level.down.window(window).float()
            y = self._step(index + 1, position // level.stride, coarse, inner, state)
            state.spread[index] = level.spread(y)
        within = position % level.stride
        x = x + state.spread[index][:, within : within + 1]
        window = torch.cat([state.mix[index], level.mix_norm(x)], 1)
        state.mix[index] = window[:, 1:]
        return x + level.gate(level.mix.window(window))


def _last(x: Tensor, count: int) -> Tensor:
    """The last positions of x (B, N, dim), zeros where there are fewer: (B, count, dim)."""
    return functional.pad(x, (0, 0, max(count - x.shape[1], 0), 0))[:, -count:] if count else x[:, :0]


class HierarchicalTransformer(nn.Module):
    """A `Transformer` inside a hierarchy, with the same interface: x (B, N, dims[0]) -> (B, N, dims[0]).

    Args:
        options: strides, widths, kernel.
        layers, dim, heads, norm, activation, dropout: of the transformer.
    """

    def __init__(
        self, options: FrontEnd, layers: int, dim: int, heads: int, norm: Norm, activation: Activation, dropout: float
    ) -> None:
        super().__init__()
        self.factor = options.factor
        self.hierarchy = Hierarchy(options, dim)
        self.inner = Transformer(layers, dim, heads, 1, norm, activation, dropout)
        self.norm = make_norm(norm, options.dims[0])

    @property
    def rotary(self) -> nn.Module:
        """Of the inner transformer."""
        return self.inner.rotary

    def forward(self, x: Tensor, recompute: bool = False) -> Tensor:
        """``recompute`` keeps less for the backward pass."""
        return self.norm(self.hierarchy(x, lambda z: self.inner(z, recompute), recompute))

    def caches(self, batch: int, length: int, device: torch.device, static: bool | None = None) -> "HierarchicalCache":
        """Empty caches for ``length`` tokens; see `Caches` for ``static``."""
        positions = -(-length // self.factor)
        return HierarchicalCache(len(self.hierarchy.levels), self.inner.caches(batch, positions, device, static))

    def extend(
        self, x: Tensor, caches: "HierarchicalCache", start: int, rotary: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """Run x (B, N, dims[0]) at tokens start .. start + N - 1 (N = 1, or start = 0) given the caches before them."""
        first = start // self.factor

        def inner(z: Tensor) -> Tensor:
            return self.inner.extend(z, caches.inner, first, self.inner.rotary_at(first, z.shape[1], z.device))

        if start == 0:
            caches.state = HierarchyState(len(self.hierarchy.levels))
            return self.norm(self.hierarchy(x, inner, state=caches.state))
        assert x.shape[1] == 1, "several tokens at once only from the start"
        return self.norm(self.hierarchy.step(x, inner, caches.state))


@dataclasses.dataclass
class HierarchicalCache:
    """Caches of a `HierarchicalTransformer`."""

    levels: int
    inner: Caches
    state: HierarchyState = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.state = HierarchyState(self.levels)
