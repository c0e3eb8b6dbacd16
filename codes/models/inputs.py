"""What a transformer sees of the tokens before the one it predicts: embeddings of codes, features of sample values,
and a causal convolution over past samples.

Each input maps the codes before N tokens to N vectors, and needs only the last ``reach`` codes before each token, so
generation calls it with a short window.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class TokenInput(nn.Module):
    """Embedding of the previous code; above 8 bits the sum of one table for each of its bytes.

    Args:
        dim: width of the vectors.
        vocabulary: number of codes.
        split: use byte tables instead of one table.
    """

    reach = 1

    def __init__(self, dim: int, vocabulary: int, split: bool) -> None:
        super().__init__()
        self.num_bytes = math.ceil(math.log2(vocabulary) / 8) if split else 1
        rows = [min(256, vocabulary >> 8 * i) for i in range(self.num_bytes)] if split else [vocabulary]
        self.tables = nn.ModuleList([nn.Embedding(num, dim) for num in rows])  # least significant byte first
        for table in self.tables:
            nn.init.normal_(table.weight, std=0.02)  # type: ignore[arg-type]

    def forward(self, ids: Tensor, first: int) -> Tensor:
        """ids (B, reach + N), the codes from ``reach`` before the first token on -> (B, N, dim)."""
        ids = ids[:, :-1]
        if self.num_bytes == 1:
            return self.tables[0](ids)
        return torch.stack([table(ids >> 8 * i & 255) for i, table in enumerate(self.tables)]).sum(0)


class ValueInput(nn.Module):
    """Linear map of features of the previous sample's value: itself, its signed logarithm, and waves of it.

    Args:
        dim: width of the vectors.
        bits: bit depth of the codes.
    """

    reach = 1

    def __init__(self, dim: int, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.num_waves = min(bits, 8)
        self.register_buffer("rates", math.pi * 2.0 ** torch.arange(self.num_waves), persistent=False)
        self.linear = nn.Linear(2 + 2 * self.num_waves, dim, bias=False)

    def forward(self, ids: Tensor, first: int) -> Tensor:
        """ids (B, 1 + N) -> (B, N, dim)."""
        centred = ids[:, :-1].double() - 2 ** (self.bits - 1)
        value = (centred * 2.0 ** (1 - self.bits)).float()[..., None]  # -1 .. 1
        angles = value * self.rates
        loudness = centred.asinh().float()[..., None] / (self.bits * math.log(2))
        return self.linear(torch.cat([value, loudness, angles.sin(), angles.cos()], -1))


class ConvolutionInput(nn.Module):
    """Causal convolution over the last samples, all channels interleaved, with weights for each channel.

    The window is divided by its root mean square, which enters as a feature of its own: quiet and loud look alike.

    Args:
        dim: width of the vectors.
        bits: bit depth of the codes.
        kernel: samples it looks back.
        num_channels: channels of the interleaved sequence.
    """

    def __init__(self, dim: int, bits: int, kernel: int, num_channels: int) -> None:
        super().__init__()
        self.bits, self.reach, self.num_channels = bits, kernel, num_channels
        self.weight = nn.Parameter(torch.randn(num_channels, dim, kernel + 1) / math.sqrt(kernel + 1))

    def forward(self, ids: Tensor, first: int) -> Tensor:
        """ids (B, kernel + N), the tokens being number ``first`` and on -> (B, N, dim)."""
        values = (ids[:, :-1].double() - 2 ** (self.bits - 1)).float()
        windows = values.unfold(1, self.reach, 1)  # (B, N, kernel)
        level = (windows.square().mean(-1, keepdim=True) + 1).sqrt()
        features = torch.cat([windows / level, level.log() / (self.bits * math.log(2))], -1)
        if features.shape[1] == 1:
            return functional.linear(features, self.weight[first % self.num_channels])
        out = features.new_zeros(*features.shape[:2], self.weight.shape[1])
        for channel in range(self.num_channels):
            mine = slice((channel - first) % self.num_channels, None, self.num_channels)
            out[:, mine] = functional.linear(features[:, mine], self.weight[channel]).to(out.dtype)
        return out
