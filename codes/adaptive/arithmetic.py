"""Elementary functions that give the same bits everywhere: exp, log2, and the logistic function by a table.

Made of IEEE + - * / and of frexp and ldexp, which are exact. See `codes.adaptive.compiled` for why.
"""

import math

import numpy as np

from codes.adaptive.compiled import compile_module

LOGISTIC_STEPS = 32  # table entries for a difference of 1
LOGISTIC_REACH = 28  # beyond it the function counts as 0 or 1


def exact_exp(x: float) -> float:
    """e^x within a relative error of 1e-14; x is clamped to -700 .. 700."""
    x = min(max(x, -700.0), 700.0)
    n = math.floor(x * 1.4426950408889634 + 0.5)
    r = x - n * 0.693147180369123816490  # ln 2 in two parts, the first with zeros at its end
    r = r - n * 1.90821492927058770002e-10
    low = 1.0 + r * (1.0 + r * (0.5 + r * (0.16666666666666666 + r * 0.041666666666666664)))
    high = 0.008333333333333333 + r * (0.001388888888888889 + r * (0.0001984126984126984 + r * 2.48015873015873e-05))
    rest = 2.7557319223985893e-06 + r * (2.755731922398589e-07 + r * 2.505210838544172e-08)
    square = r * r
    fourth = square * square
    total = low + r * fourth * (high + fourth * rest)
    return math.ldexp(total, int(n))


def exact_log2(x: float) -> float:
    """Base-2 logarithm of x > 0 within 1e-9."""
    mantissa, exponent = math.frexp(x)  # 0.5 <= mantissa < 1
    z = (mantissa - 0.7071067811865476) / (mantissa + 0.7071067811865476)
    s = z * z
    series = 1.0 + s * (
        0.3333333333333333 + s * (0.2 + s * (0.14285714285714285 + s * (0.1111111111111111 + s / 11.0)))
    )
    return exponent - 0.5 + 2.885390081777927 * z * series


def logistic(table: np.ndarray, z: float) -> float:
    """1 / (1 + e^-z), linear between the table's entries; 0 and 1 beyond LOGISTIC_REACH."""
    place = (z + 28.0) * 32.0
    if place <= 0.0:
        return 0.0
    if place >= 1792.0:
        return 1.0
    index = int(place)
    low = table[index]
    return low + (place - index) * (table[index + 1] - low)


def squash(x: float) -> float:
    """x near 0, towards -2 and 2 far from it."""
    return x / (1.0 + 0.5 * abs(x))


def fill_logistic(table: np.ndarray) -> None:
    """Fill (LOGISTIC_REACH * 2 * LOGISTIC_STEPS + 1,) float64, its ends exactly 0 and 1."""
    half = len(table) // 2
    for i in range(half + 1):
        tail = exact_exp(-i / 32.0)
        table[half + i] = 1.0 / (1.0 + tail)
        table[half - i] = tail / (1.0 + tail)
    table[0] = 0.0
    table[len(table) - 1] = 1.0


def logistic_table() -> np.ndarray:
    """The table that `logistic` reads: (LOGISTIC_REACH * 2 * LOGISTIC_STEPS + 1,) float64."""
    build()
    table = np.empty(2 * LOGISTIC_REACH * LOGISTIC_STEPS + 1)
    fill_logistic(table)
    return table


def build() -> None:
    """Compile the kernels of this module."""
    compile_module(__name__, ("exact_exp", "exact_log2", "logistic", "squash", "fill_logistic"))
