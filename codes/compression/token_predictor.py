"""Token language models, `gpt` or `llama`, behind the interface of predictors.

    predictor = TokenPredictor(codec.model, codec.layout)       # of a `TokenCodec`
    predictor.reset(num_channels=2, bits=16, sample_rate_hz=44100)
    for sample in interleaved:                                  # L0 R0 L1 R1 ...: R is predicted with L in sight
        predictor.distribution().put(encoder, sample)
        predictor.update(sample)

A sample (or its mu-law code) is one token or several, most significant first, and a token one stage or several. One
walk goes through all of the recording with its key-value cache: what slides out of the network's context is forgotten,
and nothing else.
`token_codec` cuts a recording into blocks and lanes instead, which can be decoded apart and many at once.
"""

from collections.abc import Callable

import numpy as np

from codes.compression import entropy_range
from codes.compression.pcm_tokens import PcmTokens
from codes.compression.predictor import RangeDecoder, RangeEncoder
from codes.compression.token_codec import TokenModel, one_thread

_WHOLE = 1 << 24  # the probabilities of a stage are integers that add up to this
_Pick = Callable[[np.ndarray, int], int]  # edges (N + 1,) of N parts of _WHOLE, the digit if it is known -> the digit


class TokenPredictor:
    """A `Predictor`.

    Args:
        model: the network.
        layout: how samples become its tokens.
        most_frames: frames that a recording may have.

    Raises:
        ValueError: the tokens of a sample do not stand together: the first bytes of all channels come first.
    """

    def __init__(self, model: TokenModel, layout: PcmTokens, most_frames: int = 1 << 20) -> None:
        if layout.bytes_apart and layout.num_channels > 1:
            raise ValueError("the model's tokens are bytes of all channels in turn: it predicts frames, not samples")
        self.model, self.layout, self.most_frames = model, layout, most_frames
        self.reset(layout.num_channels, layout.bits, 1)

    def reset(self, num_channels: int, bits: int, sample_rate_hz: int) -> None:
        """Forget everything.

        Raises:
            ValueError: the model is of another number of channels or of bits.
        """
        if (num_channels, bits) != (self.layout.num_channels, self.layout.bits):
            own = f"{self.layout.num_channels} channels of {self.layout.bits} bits"
            raise ValueError(f"the model codes {own}, got {num_channels} of {bits}")
        with one_thread():
            self._walk = self.model.start(1, self.most_frames * len(self.layout.places))
        self._told: list[int] = []  # tokens of the sample at hand that the walk knows
        self._num_tokens = 0
        self._is_ready = False  # whether the walk has computed its next token

    def distribution(self) -> "TokenDistribution":
        """Of the next sample."""
        return TokenDistribution(self)

    def update(self, sample: int) -> None:
        """The sample that came.

        Raises:
            ValueError: it is not the one whose first bytes were coded.
        """
        tokens = self.tokens(sample)
        if tokens[: len(self._told)] != self._told:
            raise ValueError(f"{sample} is not the sample that was coded")
        for token in tokens[len(self._told) :]:
            self._tell(token)
        self._told = []

    def tokens(self, sample: int) -> list[int]:
        """A sample's tokens.

        Raises:
            ValueError: it exceeds the model's bits.
        """
        half = 1 << (self.layout.bits - 1)
        if not -half <= sample < half:
            raise ValueError(f"the value {sample} is not between {-half} and {half - 1}")
        frame = np.full((self.layout.num_channels, 1), sample)
        return self.layout.tokens(frame)[0, : self.layout.num_bytes].tolist()

    def sample(self, tokens: list[int]) -> int:
        """The way back."""
        return int(self.layout.pcm(np.array([tokens * self.layout.num_channels]))[0, 0])

    def code(self, pick: _Pick, sample: int | None) -> int:
        """Go through the tokens of the next sample as `pick` says; the last is not told to the walk before `update`."""
        if self._told:
            raise ValueError("the sample at hand was coded already: tell it by update")
        known = None if sample is None else self.tokens(sample)
        tokens: list[int] = []
        for part in range(self.layout.num_bytes):
            with one_thread():
                tokens.append(self._token(part, pick, None if known is None else known[part]))
            if part + 1 < self.layout.num_bytes:
                self._tell(tokens[-1])
        return self.sample(tokens)

    def _token(self, part: int, pick: _Pick, known: int | None) -> int:
        """One token, stage by stage."""
        self._prepare()
        first, size = self.layout.range_of(part)
        if len(self.model.stages) == 1:
            weights = self._walk.weights(0, np.zeros(1, np.int64))[0, first : first + size]
            return first + pick(_edges(weights), -1 if known is None else known - first)
        prefix, below = 0, int(np.prod(self.model.stages))
        for stage, size in enumerate(self.model.stages):
            below //= size
            weights = self._walk.weights(stage, np.array([prefix]))[0]
            prefix = prefix * size + pick(_edges(weights), -1 if known is None else known // below % size)
        return prefix

    def _prepare(self) -> None:
        if self._is_ready:
            return
        if self._num_tokens == self.most_frames * len(self.layout.places):
            raise ValueError(f"the recording is longer than the {self.most_frames} frames that were said")
        self._walk.step()
        self._is_ready = True

    def _tell(self, token: int) -> None:
        with one_thread():
            self._prepare()
            self._walk.update(np.array([token]))
        self._told.append(token)
        self._num_tokens += 1
        self._is_ready = False


class TokenDistribution:
    """A `Distribution`: what a `TokenPredictor` thinks of its next sample, which is put or taken once."""

    def __init__(self, predictor: TokenPredictor) -> None:
        self._predictor = predictor

    def put(self, encoder: RangeEncoder, value: int) -> float:
        """Encode a value; returns the bits that it took.

        Raises:
            ValueError: the model's bits do not hold it.
        """
        bits = 0.0

        def pick(edges: np.ndarray, digit: int) -> int:
            nonlocal bits
            left, size = int(edges[digit]), int(edges[digit + 1] - edges[digit])
            entropy_range.put(encoder.coder, encoder.room(), left, size)
            bits += float(np.log2(_WHOLE / size))
            return digit

        self._predictor.code(pick, value)
        return bits

    def take(self, decoder: RangeDecoder) -> int:
        """Decode a value.

        Raises:
            ValueError: what is read is no code of anything.
        """

        def pick(edges: np.ndarray, _: int) -> int:
            place = entropy_range.peek(decoder.coder)
            if place < 0:
                raise ValueError("the words are no code of a sample")
            digit = int(np.searchsorted(edges, place, "right")) - 1
            left, size = int(edges[digit]), int(edges[digit + 1] - edges[digit])
            entropy_range.take(decoder.coder, decoder.words, left, size)
            return digit

        return self._predictor.code(pick, None)


def _edges(weights: np.ndarray) -> np.ndarray:
    """Where the parts of values begin and end, by relative probabilities (N,): (N + 1,) int64, each part 1 or more."""
    weights = np.where(np.isfinite(weights) & (weights > 0), weights, 0.0)
    sums = np.concatenate([[0.0], np.cumsum(weights)])
    shares = sums / sums[-1] if sums[-1] > 0 else np.arange(len(sums)) / (len(sums) - 1)
    return np.floor(shares * (_WHOLE - len(weights))).astype(np.int64) + np.arange(len(sums))
