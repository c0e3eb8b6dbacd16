"""Integers coded by a mixture of logistics, in stages of at most 256 parts each.

The values lowest .. highest are numbers 0 .. n - 1: number i has the mass between `edge` i and edge i + 1 of the
mixture's distribution function F, so that values that never occur can be left out. A number is coded by its highest
digit (of 8 bits), then by the next given that one, and so on: a stage divides its stretch into parts,

    left(i) = 2 i + floor((F(edge i) - F(first edge)) / (F(last edge) - F(first edge)) (2^24 - 2 parts))

so every part has at least 1 of 2^24 whatever the rounding of F, and a stage leaks less than 2^9 / 2^24 of its mass,
whether the samples have 8 bits or 32. All of it is made of operations that repeat bit for bit (see
`codes.adaptive.compiled`).
"""

import numpy as np

from codes.adaptive import arithmetic
from codes.adaptive.compiled import compile_module
from codes.compression import entropy_range

STAGE_BITS = 8


def cumulative(
    x: float, weights: np.ndarray, means: np.ndarray, inverses: np.ndarray, table: np.ndarray
) -> float:  # fmt: skip
    """F(x): weights, means and inverse scales (M,) float64, x and means on the same scale."""
    total = 0.0
    for m in range(len(weights)):
        total = total + weights[m] * arithmetic.logistic(table, (x - means[m]) * inverses[m])
    return total


def edge(number: int, anchor: float, lowest: int, values: np.ndarray) -> float:
    """The lower edge of a number, less the anchor: half a step below its value, or midway between two of ``values``."""
    count = len(values)
    if count == 0:
        return lowest + number - 0.5 - anchor
    if number == 0:
        return values[0] - 0.5 - anchor
    if number >= count:
        return values[count - 1] + 0.5 - anchor
    return 0.5 * (values[number - 1] + values[number]) - anchor


def part(
    index: int, parts: int, first: int, shift: int, count: int, base: float, mass: float, anchor: float, lowest: int,
    values: np.ndarray, mixture: tuple,
) -> int:  # fmt: skip
    """left(index) of a stage over numbers first, first + 2^shift, ... below count."""
    if index <= 0:
        return 0
    if index >= parts:
        return 16777216
    weights, means, inverses, table = mixture
    number = min(first + (index << shift), count)
    if mass > 1e-13:
        x = edge(number, anchor, lowest, values)
        share = (cumulative(x, weights, means, inverses, table) - base) / mass
        share = min(max(share, 0.0), 1.0)
    else:
        share = index / parts
    return 2 * index + int(share * (16777216 - 2 * parts))


def stage_mass(
    first: int, end: int, anchor: float, lowest: int, values: np.ndarray, mixture: tuple
) -> tuple[float, float]:  # fmt: skip
    """F at the first edge, and the mass from there to the edge of ``end``."""
    weights, means, inverses, table = mixture
    base = cumulative(edge(first, anchor, lowest, values), weights, means, inverses, table)
    return base, cumulative(edge(end, anchor, lowest, values), weights, means, inverses, table) - base


def top_shift(count: int) -> int:
    """Bits below the highest digit of numbers under ``count``."""
    shift = 0
    while (count - 1) >> shift >= 256:
        shift += 8
    return shift


def put_number(
    coder: np.ndarray, words: np.ndarray, number: int, count: int, anchor: float, lowest: int, values: np.ndarray,
    mixture: tuple,
) -> float:  # fmt: skip
    """Encode a number below count; returns the bits that it took. Means are relative to the anchor."""
    shift = top_shift(count)
    first, end, bits = 0, count, 0.0
    while True:
        parts = ((end - first - 1) >> shift) + 1
        index = (number - first) >> shift
        if parts > 1:
            base, mass = stage_mass(first, end, anchor, lowest, values, mixture)
            left = part(index, parts, first, shift, end, base, mass, anchor, lowest, values, mixture)
            right = part(index + 1, parts, first, shift, end, base, mass, anchor, lowest, values, mixture)
            entropy_range.put(coder, words, left, right - left)
            bits = bits + 24.0 - arithmetic.exact_log2(float(right - left))
        first = first + (index << shift)
        end = min(first + (1 << shift), end)
        if shift == 0:
            return bits
        shift -= 8


def take_number(
    coder: np.ndarray, words: np.ndarray, count: int, anchor: float, lowest: int, values: np.ndarray, mixture: tuple
) -> int:  # fmt: skip
    """Decode a number below count; -1 where the words are no code of anything."""
    shift = top_shift(count)
    first, end = 0, count
    while True:
        parts = ((end - first - 1) >> shift) + 1
        index = 0
        if parts > 1:
            base, mass = stage_mass(first, end, anchor, lowest, values, mixture)
            wanted = entropy_range.peek(coder)
            if wanted < 0:
                return -1
            above = parts
            left, right = 0, 16777216
            while above - index > 1:  # left(index) <= wanted < left(above)
                middle = (index + above) >> 1
                bound = part(middle, parts, first, shift, end, base, mass, anchor, lowest, values, mixture)
                if bound <= wanted:
                    index, left = middle, bound
                else:
                    above, right = middle, bound
            entropy_range.take(coder, words, left, right - left)
        first = first + (index << shift)
        end = min(first + (1 << shift), end)
        if shift == 0:
            return first
        shift -= 8


def build() -> None:
    """Compile the kernels of this module and those that they call."""
    arithmetic.build()
    entropy_range.build()
    functions = ("cumulative", "edge", "part", "stage_mass", "top_shift", "put_number", "take_number")
    compile_module(__name__, functions)
