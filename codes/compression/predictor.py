"""The interface of predictors, sample by sample, and residual language models behind it.

    predictor.reset(num_channels=2, bits=16, sample_rate_hz=44100)
    for sample in interleaved:                       # L0 R0 L1 R1 ...
        predictor.distribution().put(encoder, sample)
        predictor.update(sample)

The codec does the same in one compiled loop (codes/compression/residual_loops.py): the same words come out. Token
language models have the interface in codes/compression/token_predictor.py.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from codes.adaptive import cascade
from codes.compression import entropy_mixture, entropy_range, residual_loops, residual_network
from codes.compression.residual_model import ResidualModel


class RangeEncoder:
    """A range coder that grows as it is written to."""

    def __init__(self) -> None:
        entropy_mixture.build()
        self.coder = entropy_range.new_coder()
        self.words = np.zeros(1024, np.uint32)

    def room(self) -> np.ndarray:
        """The words, with room for one more number."""
        if int(self.coder[3]) + 8 > len(self.words):
            self.words = np.concatenate([self.words, np.zeros_like(self.words)])
        return self.words

    def finish(self) -> np.ndarray:
        """All words, (N,) uint32; nothing can be written afterwards."""
        size = entropy_range.finish(self.coder, self.room())
        return self.words[:size]


class RangeDecoder:
    """Reads what a `RangeEncoder` wrote: (N,) uint32."""

    def __init__(self, words: np.ndarray) -> None:
        entropy_mixture.build()
        self.coder = entropy_range.new_coder()
        self.words = np.ascontiguousarray(words, np.uint32)
        entropy_range.start(self.coder, self.words)


class Distribution(Protocol):
    """What a predictor thinks of the next sample; every value that its bits allow can be coded."""

    def put(self, encoder: RangeEncoder, value: int) -> float:
        """Encode a value; returns the bits that it took."""
        ...

    def take(self, decoder: RangeDecoder) -> int:
        """Decode a value.

        Raises:
            ValueError: what is read is no code of anything.
        """
        ...


class Predictor(Protocol):
    """Says what it thinks of each sample before it is told it, in the order of an interleaved file."""

    def reset(self, num_channels: int, bits: int, sample_rate_hz: int) -> None:
        """Forget everything; a new recording begins."""
        ...

    def distribution(self) -> Distribution:
        """Of the next sample; asked once before each `update`."""
        ...

    def update(self, sample: int) -> None:
        """The sample that came."""
        ...


@dataclass(frozen=True)
class MixtureDistribution:
    """A mixture of logistics over the values lowest .. highest.

    Args:
        anchor: what the means are relative to.
        weights, means, inverses: (M,) float64; inverses of the scales.
        table: the logistic function.
    """

    anchor: float
    lowest: int
    highest: int
    weights: np.ndarray
    means: np.ndarray
    inverses: np.ndarray
    table: np.ndarray

    def put(self, encoder: RangeEncoder, value: int) -> float:
        """Encode a value; returns the bits that it took.

        Raises:
            ValueError: the value is not between lowest and highest.
        """
        if not self.lowest <= value <= self.highest:
            raise ValueError(f"the value {value} is not between {self.lowest} and {self.highest}")
        return entropy_mixture.put_number(
            encoder.coder,
            encoder.room(),
            value - self.lowest,
            self._count,
            self.anchor,
            self.lowest,
            _ALL,
            self._mixture,
        )

    def take(self, decoder: RangeDecoder) -> int:
        """Decode a value; see `Distribution`."""
        number = entropy_mixture.take_number(
            decoder.coder, decoder.words, self._count, self.anchor, self.lowest, _ALL, self._mixture
        )
        if number < 0:
            raise ValueError("the words are no code of a sample")
        return self.lowest + number

    @property
    def _count(self) -> int:
        return self.highest - self.lowest + 1

    @property
    def _mixture(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        return self.weights, self.means, self.inverses, self.table


_ALL = np.zeros(0, np.int64)  # no value is left out


class ResidualPredictor:
    """A `residual_lm` as a `Predictor` of one or two channels.

    Args:
        model: the network and the options of its adaptive prediction.
    """

    def __init__(self, model: ResidualModel) -> None:
        residual_loops.build()
        self.model = model
        self.reset(1, 16, 44100)

    def reset(self, num_channels: int, bits: int, sample_rate_hz: int) -> None:
        """Forget everything.

        Raises:
            ValueError: more than two channels.
        """
        self._num_channels = num_channels
        self._state = cascade.new_state(self.model.adaptive, num_channels)
        self._network = self.model.fresh_network()
        self._lowest, self._highest = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
        self._described = np.zeros(self.model.adaptive.num_features, np.float32)
        self._offsets = np.zeros(self.model.adaptive.num_offsets, np.float32)
        self._channel = 0

    def distribution(self) -> MixtureDistribution:
        """Of the next sample."""
        options, network = self.model.adaptive, self._network
        anchor = residual_loops.forecast(
            self._state, network, self._channel, options.own_history, options.other_history, self._described,
            self._offsets,
        )  # fmt: skip
        anchor = residual_loops.bounded(anchor, self._lowest, self._highest - self._lowest + 1)
        self._anchor = anchor
        arrays = (network.weights.copy(), network.means.copy(), network.inverses.copy())
        return MixtureDistribution(anchor, self._lowest, self._highest, *arrays, self.model.table)

    def update(self, sample: int) -> None:
        """The sample that came."""
        residual_network.learn(self._network, self.model.table, self._channel, sample - self._anchor)
        cascade.update(self._state, self._channel, float(sample))
        self._channel = (self._channel + 1) % self._num_channels
