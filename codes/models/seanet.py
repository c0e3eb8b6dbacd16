"""SEANet: audio to vectors and back by strided convolutions with an LSTM between them, the auto-encoder of EnCodec.

(Tagliasacchi et al., 2020; Zeghidour et al., "SoundStream", 2021; Défossez et al., "High Fidelity Neural Audio
Compression", 2022.) Weights of transformers' EnCodec fit, layer by layer. Zeros stand before and after the audio, so
that a causal one knows nothing of the future at its very beginning either.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

GAIN = 1.2  # of a convolution at first: what ELU takes away
QUIET = 0.1  # of the last one: a new decoder whispers


@dataclass(frozen=True)
class SeanetSizes:
    """Sizes of an encoder and of the decoder that mirrors it.

    Args:
        num_channels: of the audio.
        filters: channels of the outermost convolution; each stride doubles them.
        ratios: strides of the decoder, first one first; the encoder has them in reverse.
        dim: numbers in a vector.
        lstm_layers: 0 for none.
        residual_layers: blocks before each stride; block j is dilated by 2^j.
        causal: sample t depends on samples up to t alone.
        norm: weight: weight normalisation; group: each convolution's output normalised over the whole excerpt.
    """

    num_channels: int
    filters: int
    ratios: list[int]
    dim: int
    lstm_layers: int
    residual_layers: int
    causal: bool
    norm: Literal["weight", "group"]

    def __post_init__(self) -> None:
        if not self.ratios or min(self.ratios) < 2:
            raise ValueError(f"ratios must be whole numbers of 2 or more, got {self.ratios}")
        for name in ("num_channels", "filters", "dim", "residual_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be 1 or more")
        if self.filters % 2 or self.lstm_layers < 0:
            raise ValueError(f"filters must be even and lstm_layers 0 or more, got {self.filters}, {self.lstm_layers}")
        if self.causal and self.norm == "group":
            raise ValueError("norm: group looks at the whole excerpt: causal: true needs norm: weight")

    @property
    def hop(self) -> int:
        """Samples that a vector stands for."""
        return math.prod(self.ratios)


class Convolution(nn.Module):
    """(B, C, T) -> (B, C', T / stride), T a multiple of the stride."""

    def __init__(
        self, sizes: SeanetSizes, width_in: int, width: int, kernel: int, stride: int = 1, dilation: int = 1
    ) -> None:
        super().__init__()
        padding = (kernel - 1) * dilation + 1 - stride
        right = 0 if sizes.causal else padding // 2
        self.padding = (padding - right, right)
        self.convolution = _normed(sizes, nn.Conv1d(width_in, width, kernel, stride, dilation=dilation))
        self.norm = nn.GroupNorm(1, width) if sizes.norm == "group" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.convolution(functional.pad(x, self.padding)))


class Upsampling(nn.Module):
    """(B, C, N) -> (B, C', N * stride): a transposed convolution of kernel 2 stride."""

    def __init__(self, sizes: SeanetSizes, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        right = stride if sizes.causal else stride // 2
        self.cut = (stride - right, right)
        self.convolution = _normed(sizes, nn.ConvTranspose1d(width_in, width, 2 * stride, stride))
        self.norm = nn.GroupNorm(1, width) if sizes.norm == "group" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        made = self.norm(self.convolution(x))
        return made[..., self.cut[0] : made.shape[-1] - self.cut[1]]


class Block(nn.Module):
    """(B, C, T) -> (B, C, T): two convolutions through half the width, beside one of kernel 1."""

    def __init__(self, sizes: SeanetSizes, width: int, dilation: int) -> None:
        super().__init__()
        self.first = Convolution(sizes, width, width // 2, 3, dilation=dilation)
        self.second = Convolution(sizes, width // 2, width, 1)
        self.beside = Convolution(sizes, width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.beside(x) + self.second(functional.elu(self.first(functional.elu(x))))


class Memory(nn.Module):
    """(B, C, T) -> (B, C, T): x plus an LSTM over it."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, width, layers)

    def forward(self, x: Tensor) -> Tensor:
        steps = x.permute(2, 0, 1)
        return (steps + self.lstm(steps)[0]).permute(1, 2, 0)


class SeanetEncoder(nn.Module):
    """wav (B, C, T) float, T a multiple of the hop -> vectors (B, dim, T / hop)."""

    def __init__(self, sizes: SeanetSizes) -> None:
        super().__init__()
        width = sizes.filters
        layers: list[nn.Module] = [Convolution(sizes, sizes.num_channels, width, 7)]
        for ratio in reversed(sizes.ratios):
            layers += [Block(sizes, width, 2**level) for level in range(sizes.residual_layers)]
            layers += [nn.ELU(), Convolution(sizes, width, 2 * width, 2 * ratio, ratio)]
            width *= 2
        layers += [Memory(width, sizes.lstm_layers)] if sizes.lstm_layers else []
        self.layers = nn.Sequential(*layers, nn.ELU(), Convolution(sizes, width, sizes.dim, 7))

    def forward(self, wav: Tensor) -> Tensor:
        return self.layers(wav)


class SeanetDecoder(nn.Module):
    """vectors (B, dim, N) -> wav (B, C, N * hop)."""

    def __init__(self, sizes: SeanetSizes) -> None:
        super().__init__()
        width = sizes.filters * 2 ** len(sizes.ratios)
        layers: list[nn.Module] = [Convolution(sizes, sizes.dim, width, 7)]
        layers += [Memory(width, sizes.lstm_layers)] if sizes.lstm_layers else []
        for ratio in sizes.ratios:
            layers += [nn.ELU(), Upsampling(sizes, width, width // 2, ratio)]
            width //= 2
            layers += [Block(sizes, width, 2**level) for level in range(sizes.residual_layers)]
        last = Convolution(sizes, width, sizes.num_channels, 7)
        _draw(last.convolution, QUIET)
        self.layers = nn.Sequential(*layers, nn.ELU(), last)

    def forward(self, vectors: Tensor) -> Tensor:
        return self.layers(vectors)


def _normed(sizes: SeanetSizes, convolution: nn.Conv1d | nn.ConvTranspose1d) -> nn.Module:
    normed = weight_norm(convolution) if sizes.norm == "weight" else convolution
    _draw(normed, 1.0)
    return normed


@torch.no_grad()
def _draw(convolution: nn.Module, factor: float) -> None:
    """Begin with weights that keep the level of what passes, and no bias.

    torch's own let it fall by a third with every layer: of the audio nothing is left beside the biases, and a codec
    needs a long time to find out that there is any.
    """
    assert isinstance(convolution, nn.Conv1d | nn.ConvTranspose1d)
    assert convolution.bias is not None
    shape = convolution.weight.shape
    seen = 2 * shape[0] if isinstance(convolution, nn.ConvTranspose1d) else shape[1] * shape[2]  # inputs of an output
    drawn = torch.randn(shape) * (GAIN * factor * seen**-0.5)
    if isinstance(convolution.weight, nn.Parameter):
        convolution.weight.copy_(drawn)
    else:  # weight normalisation takes it apart
        convolution.weight = drawn
    convolution.bias.zero_()


def padded(wav: Tensor, hop: int) -> Tensor:
    """wav: (B, C, T) -> zeros added at its end up to a multiple of the hop."""
    extra = -wav.shape[-1] % hop
    return functional.pad(wav, (0, extra)) if extra else wav
