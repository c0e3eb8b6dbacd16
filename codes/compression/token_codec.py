"""Blocks coded by a token language model: bytes or whole samples, by any network that can be walked token by token.

    samples (C, T) -> codes -> tokens, frame by frame, so that R is predicted with the L of its frame in sight
                   -> lanes that go side by side through the network -> range coder

Coding and decoding are one loop over the very same steps: same shapes, same order, one thread. The parallel pass that
training uses would be faster, and its last bits differ. So the integers of a decoder agree on the same software
(profile fast); `fingerprint` tells whether it is.

A block is cut into lanes of equal length, each with a context of its own that reaches back to the lane's start: what
that costs in bits is small once a lane is longer than the network remembers, and sixteen lanes go four times as fast as
one. All lanes share one stream of the range coder.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from codes.compression.codec import NO_FINGERPRINT, NO_MODEL
from codes.compression.pcm_tokens import PcmTokens

MOST_LANES = 255
_SCALE, _LEAST = 2.0**32, 2.0**8  # weights become integers; the least probability of a code is 2^-24


class TokenWalk(Protocol):
    """B sequences, one token at a time: `step`, then `weights` of each stage, then `update`."""

    def step(self) -> None:
        """Compute what is known of the next token."""
        ...

    def weights(self, stage: int, prefix: np.ndarray) -> np.ndarray:
        """Relative probabilities (B, stages[stage]) float64, given the stages before as one number (B,)."""
        ...

    def update(self, tokens: np.ndarray) -> None:
        """Tell the tokens (B,) int64 that `step` was about."""
        ...


class TokenModel(Protocol):
    """A network as a coder sees it; `codes.models.token_walk.TokenLanguageModel` is one.

    Attributes:
        vocabulary: number of tokens.
        stages: values of each stage of a token, most significant first; their product is at least the vocabulary.
    """

    vocabulary: int
    stages: tuple[int, ...]

    def start(self, batch: int, tokens: int) -> TokenWalk:
        """A walk along ``batch`` sequences of ``tokens`` tokens, of which nothing is known yet."""
        ...


@dataclass(frozen=True)
class _Plan:
    """Which rows go through the network, and what of them is coded.

    Attributes:
        num_frames: of each row (B,); rows that end earlier are filled up with silence.
        copies: (B, P) the place that a token repeats, or -1 where it is coded.
        streams: (B,) which stream of the range coder a row writes to.
    """

    num_frames: np.ndarray
    copies: np.ndarray
    streams: np.ndarray


class TokenCodec:
    """A `BlockCodec` of a token language model.

    Args:
        model: the network.
        layout: how samples become its tokens.
        model_hash: 32 bytes, of the model's file.
        fingerprint: computes 16 bytes of the hash of a fixed computation with so many rows at once; called once.
        lanes: into how many lanes a block is cut, if it is long enough.
        lane_frames: the least length of a lane.

    Raises:
        ValueError: the model does not know all tokens of the layout.
    """

    name = "tokens"
    profile = "fast"

    def __init__(
        self,
        model: TokenModel,
        layout: PcmTokens,
        *,
        model_hash: bytes = NO_MODEL,
        fingerprint: Callable[[Sequence[int]], bytes] | None = None,
        lanes: int = 16,
        lane_frames: int = 8192,
    ) -> None:
        if layout.vocabulary > model.vocabulary or (len(model.stages) > 1 and layout.vocabulary < model.vocabulary):
            raise ValueError(f"the model knows {model.vocabulary} tokens, the samples need {layout.vocabulary}")
        if not 1 <= lanes <= MOST_LANES or lane_frames < 1:
            raise ValueError(f"{lanes} lanes of {lane_frames} frames or more: 1 to {MOST_LANES} lanes, of 1 frame up")
        self.model, self.layout = model, layout
        self.lanes, self.lane_frames = lanes, lane_frames
        self._model_hash, self._compute_fingerprint = model_hash, fingerprint

    def model_hash(self) -> bytes:
        """Of the model's file, as it was given."""
        return self._model_hash

    def fingerprint(self) -> bytes:
        """Of a fixed computation with one row and with all lanes, on one thread as when coding."""
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> bytes:
        if self._compute_fingerprint is None:
            return NO_FINGERPRINT
        with one_thread():
            return self._compute_fingerprint(sorted({1, self.lanes}))

    def encode(self, pcm: np.ndarray, bits: int, sample_rate_hz: int) -> bytes:
        """One block: a byte with the number of lanes, then the words of the range coder, little-endian.

        Args:
            pcm: (C, T) integers of ``bits`` bits, any C: channels that do not fill the model's are doubled, uncoded.
            bits: must be those of the model.
            sample_rate_hz: makes no difference.

        Raises:
            ValueError: the block is empty or of another depth.
        """
        lanes = self._check(pcm.shape, bits)
        rows = self._rows(pcm, lanes)
        coder = _Encoder(1)
        self._walk(self._plan(pcm.shape[0], pcm.shape[1], lanes), rows, coder)
        return bytes([lanes]) + coder.streams()[0]

    def encode_each(self, chunks: Sequence[np.ndarray], bits: int) -> list[bytes]:
        """Chunks (C, T) of one shape, each a block of one lane by itself, computed side by side: same sizes, faster.

        These blocks are for measuring: a decoder would have to go through the same chunks side by side.
        """
        shape = chunks[0].shape
        self._check(shape, bits)
        plan = self._plan(shape[0], shape[1], 1)
        many = _Plan(
            np.tile(plan.num_frames, len(chunks)),
            np.tile(plan.copies, (len(chunks), 1)),
            np.repeat(np.arange(len(chunks)), len(plan.copies)),
        )
        coder = _Encoder(len(chunks))
        self._walk(many, np.concatenate([self._rows(chunk, 1) for chunk in chunks]), coder)
        return [b"\x01" + stream for stream in coder.streams()]

    def ideal_bits(self, pcm: np.ndarray, bits: int) -> float:
        """Code length of a block by the model's own probabilities, before any rounding: what `encode` is held to."""
        lanes = self._check(pcm.shape, bits)
        coder = _Measure()
        self._walk(self._plan(pcm.shape[0], pcm.shape[1], lanes), self._rows(pcm, lanes), coder)
        return coder.bits

    def decode(self, data: bytes, num_channels: int, num_frames: int, bits: int, sample_rate_hz: int) -> np.ndarray:
        """What was coded: (num_channels, num_frames) int32.

        Raises:
            ValueError: the data is no such block.
        """
        self._check((num_channels, num_frames), bits)
        lanes = data[0] if data else 0
        if not 1 <= lanes <= num_frames or len(data) % 4 != 1:
            raise ValueError(f"{len(data)} bytes beginning with {lanes} lanes are no block of {num_frames} frames")
        coder = _Decoder(np.frombuffer(data[1:], "<u4").astype(np.uint32))
        plan = self._plan(num_channels, num_frames, lanes)
        rows = self._empty_rows(len(plan.copies), -(-num_frames // lanes))
        self._walk(plan, rows, coder)
        if not coder.is_at_the_end():
            raise ValueError("the block is longer than its samples")
        lane_first = rows.reshape(lanes, -1, *rows.shape[1:]).swapaxes(0, 1)  # (groups, lanes, frames, P)
        groups = [self.layout.pcm(group.reshape(-1, group.shape[-1])[:num_frames]) for group in lane_first]
        return np.concatenate(groups)[:num_channels]

    def _check(self, shape: tuple[int, ...], bits: int) -> int:
        """Refuse what this model cannot code; returns the number of lanes."""
        if bits != self.layout.bits:
            raise ValueError(f"the model codes samples of {self.layout.bits} bits, not of {bits}")
        if len(shape) != 2 or min(shape) < 1:
            raise ValueError(f"a block has 1 channel and 1 frame or more, got {shape}")
        return max(1, min(self.lanes, shape[1] // self.lane_frames))

    def _plan(self, num_channels: int, num_frames: int, lanes: int) -> _Plan:
        """Rows in the order lane, group of channels."""
        layout, size = self.layout, self.layout.num_channels
        groups = -(-num_channels // size)
        copies = np.full((groups, len(layout.places)), -1)
        for place, (channel, part) in enumerate(layout.places):
            if (groups - 1) * size + channel >= num_channels:  # not there: the same as the first of its group
                copies[-1, place] = layout.places.index((0, part))
        length = -(-num_frames // lanes)
        frames = np.clip(num_frames - length * np.arange(lanes), 0, length)
        return _Plan(np.repeat(frames, groups), np.tile(copies, (lanes, 1)), np.zeros(lanes * groups, np.int64))

    def _rows(self, pcm: np.ndarray, lanes: int) -> np.ndarray:
        """(C, T) -> tokens (rows, frames of a lane, P) int64."""
        size, (num_channels, num_frames) = self.layout.num_channels, pcm.shape
        length, groups = -(-num_frames // lanes), []
        for first in range(0, num_channels, size):
            group = pcm[first : first + size]
            group = np.concatenate([group, np.repeat(group[:1], size - len(group), 0)])
            tokens = self._empty_rows(1, lanes * length)[0]
            tokens[:num_frames] = self.layout.tokens(group)
            groups.append(tokens.reshape(lanes, length, -1))
        return np.stack(groups, 1).reshape(lanes * len(groups), length, -1)

    def _empty_rows(self, batch: int, num_frames: int) -> np.ndarray:
        """Rows of silence."""
        silence = self.layout.tokens(np.zeros((self.layout.num_channels, 1), np.int64))
        return np.tile(silence, (batch, num_frames, 1))

    def _walk(self, plan: _Plan, rows: np.ndarray, coder: Any) -> None:
        """Go through all tokens; a decoder's are written into ``rows`` as they become known."""
        batch, num_frames, places = rows.shape
        with one_thread():
            walk = self.model.start(batch, num_frames * places)
            for frame in range(num_frames):
                alive = plan.num_frames > frame
                for place in range(places):
                    walk.step()
                    copied = plan.copies[:, place]
                    coded = np.flatnonzero(alive & (copied < 0))
                    if len(coded):
                        rows[coded, frame, place] = self._code(walk, plan, rows[:, frame, place], coded, place, coder)
                    copying = np.flatnonzero(alive & (copied >= 0))
                    rows[copying, frame, place] = rows[copying, frame, copied[copying]]
                    walk.update(np.ascontiguousarray(rows[:, frame, place]))

    def _code(
        self, walk: TokenWalk, plan: _Plan, tokens: np.ndarray, coded: np.ndarray, place: int, coder: Any
    ) -> np.ndarray:
        """One token of the rows ``coded``, stage by stage; returns what it is."""
        streams = plan.streams[coded]
        sizes = self.model.stages
        if len(sizes) == 1:
            first, size = self.layout.range_of(self.layout.places[place][1])
            weights = walk.weights(0, np.zeros(len(tokens), np.int64))[coded, first : first + size]
            return coder.code(streams, weights, tokens[coded] - first) + first
        prefix = np.zeros(len(tokens), np.int64)
        below = int(np.prod(sizes))
        for stage, size in enumerate(sizes):
            below //= size
            weights = walk.weights(stage, prefix)[coded]
            prefix[coded] = prefix[coded] * size + coder.code(streams, weights, tokens[coded] // below % size)
        return prefix[coded]


def software() -> str:
    """What the last bits of a model's probabilities depend on, besides the model."""
    return f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}"


def _integers(weights: np.ndarray) -> np.ndarray:
    """Relative probabilities (N, V) as integers in float64, each at least 2^-24 of the whole; rows of nothing even."""
    weights = np.where(np.isfinite(weights) & (weights > 0), weights, 0.0)
    total = weights.sum(1, keepdims=True)
    shares = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    return np.floor(shares * _SCALE) + _LEAST


def _constriction() -> tuple[Any, Any]:
    """The range coder, and the quick categorical model: fixed-point arithmetic on the integers that it gets."""
    import constriction

    stream: Any = getattr(constriction, "stream")  # noqa: B009 (made at import, unknown to type checkers)
    return stream.queue, stream.model.Categorical(perfect=False)


class _Encoder:
    """Writes to one or several streams."""

    def __init__(self, num_streams: int) -> None:
        queue, self._family = _constriction()
        self._encoders = [queue.RangeEncoder() for _ in range(num_streams)]

    def code(self, streams: np.ndarray, weights: np.ndarray, symbols: np.ndarray) -> np.ndarray:
        """Code symbols (N,) with weights (N, V), each to its stream; returns them."""
        integers, values = _integers(weights), symbols.astype(np.int32)
        if len(self._encoders) == 1:
            self._encoders[0].encode(values, self._family, integers)
        else:
            for number, stream in enumerate(streams):
                self._encoders[stream].encode(values[number : number + 1], self._family, integers[number : number + 1])
        return symbols

    def streams(self) -> list[bytes]:
        """What was written: little-endian words of 32 bits."""
        return [encoder.get_compressed().astype("<u4").tobytes() for encoder in self._encoders]


class _Decoder:
    """Reads one stream."""

    def __init__(self, words: np.ndarray) -> None:
        queue, self._family = _constriction()
        self._decoder = queue.RangeDecoder(words)

    def code(self, streams: np.ndarray, weights: np.ndarray, symbols: np.ndarray) -> np.ndarray:
        """Symbols (N,) with weights (N, V); those given are ignored."""
        try:
            return self._decoder.decode(self._family, _integers(weights)).astype(np.int64)
        except AssertionError as error:  # constriction's word for words that no encoder writes
            raise ValueError(f"the block is damaged: {error}") from error

    def is_at_the_end(self) -> bool:
        """Whether the words may end here."""
        return bool(self._decoder.maybe_exhausted())


class _Measure:
    """Codes nothing, and adds up what an ideal coder would need."""

    def __init__(self) -> None:
        self.bits = 0.0

    def code(self, streams: np.ndarray, weights: np.ndarray, symbols: np.ndarray) -> np.ndarray:
        """Add up the code length of symbols (N,)."""
        chosen = weights[np.arange(len(symbols)), symbols]
        self.bits -= float(np.log2(np.maximum(chosen, 1e-300) / weights.sum(1)).sum())
        return symbols


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch: sums are taken in one order, whatever the machine's number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
