"""Constriction's range coder, compiled: the same 32-bit words as its QueueEncoder writes and its QueueDecoder reads.

A decoder that must predict between two symbols cannot afford a call from Python for each. The coder keeps ``lower`` and
``range`` in 64 bits and gives a symbol the part [left, left + probability) of 2^24. Where constriction holds back words
until it is known whether a carry will reach them, this adds the carry to the words already written: the same stream.
"""

import numpy as np

from codes.adaptive.compiled import compile_module


def new_coder() -> np.ndarray:
    """State of an encoder or decoder before the first symbol: lower, range, point, words: (4,) uint64."""
    coder = np.zeros(4, np.uint64)
    coder[1] = np.uint64(0xFFFFFFFFFFFFFFFF)
    return coder


def carry(words: np.ndarray, place: np.uint64) -> None:
    """Add 1 to the number whose last digit is the word before ``place``."""
    index = np.int64(place) - 1
    while index >= 0:
        words[index] += np.uint32(1)
        if words[index] != 0:
            return
        index -= 1


def put(coder: np.ndarray, words: np.ndarray, left: int, probability: int) -> None:
    """Encode a symbol that has [left, left + probability) of 2^24, probability at least 1; two words must be free."""
    scale = coder[1] >> np.uint64(24)
    width = scale * np.uint64(probability)
    lower = coder[0] + scale * np.uint64(left)
    if lower < coder[0]:
        carry(words, coder[3])
    if width < np.uint64(0x100000000):
        words[np.int64(coder[3])] = np.uint32(lower >> np.uint64(32))
        coder[3] += np.uint64(1)
        lower = lower << np.uint64(32)
        width = width << np.uint64(32)
    coder[0] = lower
    coder[1] = width


def finish(coder: np.ndarray, words: np.ndarray) -> int:
    """Write what a decoder needs to read the last symbol; returns the number of words."""
    if coder[1] == np.uint64(0xFFFFFFFFFFFFFFFF):
        return 0
    point = coder[0] + np.uint64(0xFFFFFFFF)
    if point < coder[0]:
        carry(words, coder[3])
    count = np.int64(coder[3])
    words[count] = np.uint32(point >> np.uint64(32))
    count += 1
    if (coder[0] + coder[1]) >> np.uint64(32) == point >> np.uint64(32):
        words[count] = np.uint32(0)
        count += 1
    return int(count)


def start(coder: np.ndarray, words: np.ndarray) -> None:
    """Begin to decode; missing words count as zeros."""
    coder[2] = np.uint64(0)
    for index in range(2):
        word = np.uint64(words[index]) if index < len(words) else np.uint64(0)
        coder[2] = (coder[2] << np.uint64(32)) | word
    coder[3] = np.uint64(2)


def peek(coder: np.ndarray) -> int:
    """Where in 0 .. 2^24 - 1 the next symbol's part lies; -1 where the words are no code of anything."""
    scale = coder[1] >> np.uint64(24)
    quantile = (coder[2] - coder[0]) // scale
    if quantile >= np.uint64(0x1000000):
        return -1
    return int(quantile)


def take(coder: np.ndarray, words: np.ndarray, left: int, probability: int) -> None:
    """Go past the symbol that has [left, left + probability)."""
    scale = coder[1] >> np.uint64(24)
    coder[0] = coder[0] + scale * np.uint64(left)
    coder[1] = scale * np.uint64(probability)
    if coder[1] < np.uint64(0x100000000):
        coder[0] = coder[0] << np.uint64(32)
        coder[1] = coder[1] << np.uint64(32)
        place = np.int64(coder[3])
        word = np.uint64(words[place]) if place < len(words) else np.uint64(0)
        coder[2] = (coder[2] << np.uint64(32)) | word
        coder[3] += np.uint64(1)


def put_all(words: np.ndarray, lefts: np.ndarray, probabilities: np.ndarray, coder: np.ndarray) -> int:
    """Encode symbols given by their parts; returns the number of words."""
    for i in range(len(lefts)):
        put(coder, words, lefts[i], probabilities[i])
    return finish(coder, words)


def build() -> None:
    """Compile the kernels of this module."""
    compile_module(__name__, ("new_coder", "carry", "put", "finish", "start", "peek", "take", "put_all"))
