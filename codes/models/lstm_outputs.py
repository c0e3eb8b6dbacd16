"""What an LSTM over audio reads and predicts: floats, codes with a softmax, or samples with a mixture of logistics.

Each kind of output has one interface. Its input for step t is made of the ``reach`` values before t, a window, and of
the item's ``scale`` (B, 1), which follows from prev alone; what is predicted is the value at t. So the parallel pass
over a whole sequence and one step of sampling call the same functions.
"""

import math

import torch
from torch import Tensor, nn

from codes.models.forecast import Forecast
from codes.models.heads import Choice, LogisticsHead, SoftmaxHead

WINDOW = 32  # samples before the one predicted that a step sees at once
GATE_START = 0.1  # the head's scales begin near the item's scale
LARGEST = 32.0  # a difference of so many scales is seen as such; larger ones look alike
QUIET_STEPS = 0.5  # least expected prediction error, in steps of an integer sample


class FloatOutput(nn.Module):
    """Float values, predicted as the last value plus what is learned; it begins as a copy of the last value.

    Args:
        dim: width of the hidden vectors.
        width: numbers in a value: 1 for samples, more for the vectors of an auto-encoder.
        temperature_scale: standard deviation of what sampling at temperature 1 adds.
    """

    reach, is_float = 1, True

    def __init__(self, dim: int, width: int, temperature_scale: float) -> None:
        super().__init__()
        self.width, self.input_dim = width, width
        self.temperature_scale = temperature_scale
        self.output = nn.Linear(dim, width)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    @property
    def silence(self) -> float:
        """What stands before prev."""
        return 0.0

    def scale(self, prev: Tensor, valid: Tensor) -> Tensor:
        """prev (B, T, width) -> (B, 1): nothing is measured."""
        return torch.zeros(len(prev), 1, device=prev.device)

    def inputs(self, window: Tensor, scale: Tensor) -> Tensor:
        """window (B, N, 1, width) -> (B, N, width)."""
        return window[:, :, 0]

    def score(self, hidden: Tensor, window: Tensor, target: Tensor, scale: Tensor) -> Tensor:
        """hidden (B, N, H) -> predictions (B, N, width); the loss is the YAML's."""
        return window[:, :, -1] + self.output(hidden.float())

    def sample(self, hidden: Tensor, window: Tensor, scale: Tensor, choice: Choice) -> Tensor:
        """hidden (B, H), window (B, 1, width) -> (B, width)."""
        value = window[:, -1] + self.output(hidden.float())
        if choice.temperature == 0 or self.temperature_scale == 0:
            return value
        noise = torch.randn(value.shape, generator=choice.generator, device=value.device)
        return value + noise * (choice.temperature * self.temperature_scale)


class CodesOutput(nn.Module):
    """Integer codes with one softmax: mu-law codes, tokens of a codec.

    Args:
        dim: width of the hidden vectors, and of the embedding.
        vocabulary: number of codes V.
    """

    reach, is_float = 1, False

    def __init__(self, dim: int, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary, self.input_dim = vocabulary, dim
        self.embedding = nn.Embedding(vocabulary, dim)
        self.head = SoftmaxHead(dim, vocabulary)

    @property
    def silence(self) -> int:
        """The code that stands before prev: the middle one."""
        return self.vocabulary // 2

    def scale(self, prev: Tensor, valid: Tensor) -> Tensor:
        """prev (B, T) -> (B, 1): nothing is measured."""
        return torch.zeros(len(prev), 1, device=prev.device)

    def inputs(self, window: Tensor, scale: Tensor) -> Tensor:
        """window (B, N, 1) -> (B, N, dim)."""
        return self.embedding(window[:, :, 0])

    def score(self, hidden: Tensor, window: Tensor, target: Tensor, scale: Tensor) -> Tensor:
        """hidden (B, N, H), target (B, N) -> nats (B, N) float32."""
        return self.head.nats(hidden, target)

    def sample(self, hidden: Tensor, window: Tensor, scale: Tensor, choice: Choice) -> Tensor:
        """hidden (B, H) -> codes (B,) int64."""
        return self.head.sample(hidden, choice)


class LogisticsOutput(nn.Module):
    """Integer samples with a mixture of discretised logistics around the last sample and around the line through two.

    The item's scale is the logarithm of the mean absolute second difference of prev: inputs and scales are relative to
    it, so that loud and quiet passages look alike.

    Args:
        dim: width of the hidden vectors.
        bits: bit depth of the codes.
        mixtures: components.
    """

    reach, is_float, input_dim = WINDOW, False, WINDOW + 2

    def __init__(self, dim: int, bits: int, mixtures: int) -> None:
        super().__init__()
        self.bits, self.vocabulary = bits, 2**bits
        self.head = LogisticsHead(dim, bits, mixtures, num_offsets=2, num_features=self.input_dim)
        nn.init.constant_(self.head.gate, GATE_START)  # type: ignore[arg-type]

    @property
    def silence(self) -> int:
        """The code that stands before prev: that of the sample 0."""
        return 2 ** (self.bits - 1)

    def scale(self, prev: Tensor, valid: Tensor) -> Tensor:
        """prev (B, T) codes, valid (B, T) bool -> (B, 1) float32, in log steps."""
        x = prev.double()
        second = (x[:, 2:] - 2 * x[:, 1:-1] + x[:, :-2]).abs()
        counted = valid[:, :-2].double() if prev.shape[1] > 2 else valid[:, :0].double()
        mean = (second * counted).sum(1, keepdim=True) / counted.sum(1, keepdim=True).clamp(min=1)
        return (mean + QUIET_STEPS).log().float()

    def inputs(self, window: Tensor, scale: Tensor) -> Tensor:
        """window (B, N, 32) codes -> (B, N, 34): the sample, differences over the scale, and the scale."""
        x = window.double() - self.silence
        unit = scale.double().exp()[..., None]
        first = x.diff(dim=-1)
        second = (first[..., -1:] - first[..., -2:-1]) / unit
        level = (scale / (self.bits * math.log(2) / 2) - 1)[..., None].expand(-1, x.shape[1], 1)
        differences = torch.cat([first / unit, second], -1).clamp(-LARGEST, LARGEST) / 4
        return torch.cat([x[..., -1:] / self.silence, differences, level.double()], -1).float()

    def _forecast(self, window: Tensor, scale: Tensor) -> Forecast:
        last = window[..., -1]
        line = (last - window[..., -2]).float()
        offsets = torch.stack([torch.zeros_like(line), line], -1)
        return Forecast(last, offsets, scale.expand(line.shape), self.inputs(window, scale))

    def score(self, hidden: Tensor, window: Tensor, target: Tensor, scale: Tensor) -> Tensor:
        """hidden (B, N, H), window (B, N, 32), target (B, N) -> nats (B, N) float32."""
        return self.head.nats(hidden, target, self._forecast(window, scale))

    def sample(self, hidden: Tensor, window: Tensor, scale: Tensor, choice: Choice) -> Tensor:
        """hidden (B, H), window (B, 32) -> codes (B,) int64."""
        return self.head.sample(hidden, choice, self._forecast(window[:, None], scale))


Output = FloatOutput | CodesOutput | LogisticsOutput
