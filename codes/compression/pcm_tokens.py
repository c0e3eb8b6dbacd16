"""Samples as tokens of a language model and back: whole codes or bytes, the channels of a frame taking turns."""

import functools
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class PcmTokens:
    """How samples become tokens.

    Args:
        bits: of a sample, 1 to 32.
        num_channels: channels of a sequence; their tokens take turns within a frame.
        num_bytes: tokens of a sample, most significant first; 1: the sample's whole code is one token.
        distinct: bytes of different weight are different tokens, byte + 256 * place.
        bytes_apart: in a frame come the first bytes of all channels, then the second ones; else each sample's bytes.
    """

    bits: int
    num_channels: int
    num_bytes: int = 1
    distinct: bool = False
    bytes_apart: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 32 or self.num_channels < 1:
            raise ValueError(f"tokens of {self.bits} bits in {self.num_channels} channels: 1 to 32 bits, 1 channel up")
        if self.num_bytes not in (1, -(-self.bits // 8)):
            raise ValueError(f"{self.bits} bits are 1 token or {-(-self.bits // 8)} bytes, not {self.num_bytes} tokens")

    @functools.cached_property
    def places(self) -> list[tuple[int, int]]:
        """(channel, byte) of each token of a frame."""
        channels, parts = range(self.num_channels), range(self.num_bytes)
        if self.bytes_apart:
            return [(channel, part) for part in parts for channel in channels]
        return [(channel, part) for channel in channels for part in parts]

    def range_of(self, part: int) -> tuple[int, int]:
        """The first token of a sample's part, and how many there are."""
        size = 1 << (self.bits - 8 * (self.num_bytes - 1)) if part == 0 else 256
        return (256 * part if self.distinct else 0), size

    @property
    def vocabulary(self) -> int:
        """The least number of tokens that a model must know."""
        return max(sum(self.range_of(part)) for part in range(self.num_bytes))

    def tokens(self, pcm: np.ndarray) -> np.ndarray:
        """(num_channels, T) integers of ``bits`` bits -> (T, tokens of a frame) int64."""
        codes = pcm.astype(np.int64) + (1 << (self.bits - 1))
        columns = []
        for channel, part in self.places:
            first, size = self.range_of(part)
            columns.append((codes[channel] >> 8 * (self.num_bytes - 1 - part)) % size + first)
        return np.stack(columns, 1)

    def pcm(self, tokens: np.ndarray) -> np.ndarray:
        """The way back: (T, tokens of a frame) -> (num_channels, T) int32."""
        codes = np.zeros((self.num_channels, len(tokens)), np.int64)
        for place, (channel, part) in enumerate(self.places):
            codes[channel] |= (tokens[:, place] - self.range_of(part)[0]) << 8 * (self.num_bytes - 1 - part)
        return (codes - (1 << (self.bits - 1))).astype(np.int32)
