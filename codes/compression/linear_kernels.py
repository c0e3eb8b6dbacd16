"""Bits, Rice codes and linear prediction over integers: the loops of `linear_codec`, compiled by it.

Arrays of bits are uint8, highest bit first; a position is a number of bits. A reader that would go beyond the end
gives position -1, and whoever reads on from there gets -1 again. Samples are int64, so that nothing overflows: 32 of at
most 33 bits times coefficients of 15 bits stay below 2^53.
"""

import numpy as np

HISTORY = 32  # the highest order: how many samples before its first a stretch may see
STEREO_BITS, KIND_BITS, FIXED_BITS, ORDER_BITS, SHIFT_BITS, PRECISION_BITS, PARTITION_BITS, RICE_BITS = (
    2,
    2,
    3,
    5,
    4,
    4,
    4,
    6,
)
ESCAPE = 63  # the Rice parameter that says that residuals follow as they are
MOST_RICE = 36
MOST_PARTITIONS_LOG2 = 8
LEFT_RIGHT, LEFT_SIDE, SIDE_RIGHT, MIDDLE_SIDE = 0, 1, 2, 3
CONSTANT, VERBATIM, FIXED, PREDICTED = 0, 1, 2, 3


def write_bits(data: np.ndarray, at: int, value: int, width: int) -> int:
    """Write the low bits of a value over zeros; the position behind them."""
    left = width
    while left > 0:
        room = 8 - (at & 7)
        taken = min(room, left)
        piece = (value >> (left - taken)) & ((1 << taken) - 1)
        data[at >> 3] |= np.uint8(piece << (room - taken))
        at += taken
        left -= taken
    return at


def read_bits(data: np.ndarray, at: int, width: int) -> tuple[int, int]:
    """An unsigned number of so many bits, and the position behind it."""
    if at < 0 or at + width > 8 * data.size:
        return 0, -1
    value = 0
    left = width
    while left > 0:
        room = 8 - (at & 7)
        taken = min(room, left)
        piece = (int(data[at >> 3]) >> (room - taken)) & ((1 << taken) - 1)
        value = (value << taken) | piece
        at += taken
        left -= taken
    return value, at


def read_signed(data: np.ndarray, at: int, width: int) -> tuple[int, int]:
    """A number of so many bits in two's complement, and the position behind it."""
    value, at = read_bits(data, at, width)
    if width > 0 and value >> (width - 1):
        value -= 1 << width
    return value, at


def read_unary(data: np.ndarray, at: int) -> tuple[int, int]:
    """How many zeros there are before the next one, and the position behind that."""
    if at < 0:
        return 0, -1
    count = 0
    end = 8 * data.size
    while at < end:
        rest = int(data[at >> 3]) & (0xFF >> (at & 7))
        if rest == 0:
            step = 8 - (at & 7)
            count += step
            at += step
            continue
        while not (data[at >> 3] >> (7 - (at & 7))) & 1:
            count += 1
            at += 1
        return count, at + 1
    return 0, -1


def fixed_coefficients(order: int, coefficients: np.ndarray) -> None:
    """Polynomial prediction: the binomial coefficients of (1 - z)^order, as FLAC has them."""
    for tap in range(coefficients.size):
        coefficients[tap] = 0
    binomial = 1
    for tap in range(order):
        binomial = binomial * (order - tap) // (tap + 1)
        coefficients[tap] = binomial if tap % 2 == 0 else -binomial


def find_residuals(signal: np.ndarray, coefficients: np.ndarray, order: int, shift: int, residuals: np.ndarray) -> None:
    """What prediction leaves of signal[HISTORY:], from the samples before each."""
    for n in range(residuals.size):
        total = 0
        for tap in range(order):
            total += coefficients[tap] * signal[HISTORY + n - 1 - tap]
        residuals[n] = signal[HISTORY + n] - (total >> shift)


def restore(signal: np.ndarray, num_samples: int, coefficients: np.ndarray, order: int, shift: int, bits: int) -> bool:
    """The way back, in place: signal[HISTORY:] holds residuals and then samples. False where one has too many bits."""
    limit = 1 << (bits - 1)
    for n in range(HISTORY, HISTORY + num_samples):
        total = 0
        for tap in range(order):
            total += coefficients[tap] * signal[n - 1 - tap]
        value = signal[n] + (total >> shift)
        if value < -limit or value >= limit:
            return False
        signal[n] = value
    return True


def stereo_signals(left: int, right: int, mode: int) -> tuple[int, int]:
    """The two numbers that are coded in place of a left and a right sample."""
    if mode == LEFT_SIDE:
        return left, left - right
    if mode == SIDE_RIGHT:
        return left - right, right
    if mode == MIDDLE_SIDE:
        return (left + right) >> 1, left - right
    return left, right


def left_and_right(first: int, second: int, mode: int) -> tuple[int, int]:
    """The way back."""
    if mode == LEFT_SIDE:
        return first, first - second
    if mode == SIDE_RIGHT:
        return first + second, second
    if mode == MIDDLE_SIDE:
        left = (2 * first + (second & 1) + second) >> 1
        return left, left - second
    return first, second


def signal_bits(bits: int, mode: int, channel: int) -> int:
    """Bits of the signal in place of a channel: one more where it is the difference of both."""
    is_side = (channel == 1 and mode in (LEFT_SIDE, MIDDLE_SIDE)) or (channel == 0 and mode == SIDE_RIGHT)
    return bits + 1 if is_side else bits


def read_residuals(data: np.ndarray, at: int, residuals: np.ndarray) -> int:
    """Partitions of Rice codes; the position behind them."""
    log2, at = read_bits(data, at, PARTITION_BITS)
    if log2 > MOST_PARTITIONS_LOG2:
        return -1
    length = -(-residuals.size // (1 << log2))
    first = 0
    while first < residuals.size and at >= 0:
        end = min(first + length, residuals.size)
        rice, at = read_bits(data, at, RICE_BITS)
        if rice == ESCAPE:
            width, at = read_bits(data, at, RICE_BITS)
            if width > MOST_RICE:
                return -1
            for n in range(first, end):
                residuals[n], at = read_signed(data, at, width)
        elif rice > MOST_RICE:
            return -1
        else:
            for n in range(first, end):
                high, at = read_unary(data, at)
                low, at = read_bits(data, at, rice)
                if at < 0 or high > (1 << 40) >> rice:
                    return -1
                folded = (high << rice) | low
                residuals[n] = (folded >> 1) ^ -(folded & 1)
        first = end
    return at


def read_signal(data: np.ndarray, at: int, signal: np.ndarray, num_samples: int, bits: int) -> int:
    """One channel of a stretch into signal[HISTORY:], whose first HISTORY samples are those before; the position."""
    coefficients = np.zeros(HISTORY, np.int64)
    order, shift = 0, 0
    kind, at = read_bits(data, at, KIND_BITS)
    if kind == CONSTANT:
        value, at = read_signed(data, at, bits)
        for n in range(HISTORY, HISTORY + num_samples):
            signal[n] = value
        return at
    if kind == VERBATIM:
        for n in range(HISTORY, HISTORY + num_samples):
            signal[n], at = read_signed(data, at, bits)
        return at
    if kind == FIXED:
        order, at = read_bits(data, at, FIXED_BITS)
        if order > 4:
            return -1
        fixed_coefficients(order, coefficients)
    else:
        order, at = read_bits(data, at, ORDER_BITS)
        order += 1
        shift, at = read_bits(data, at, SHIFT_BITS)
        precision, at = read_bits(data, at, PRECISION_BITS)
        for tap in range(order):
            coefficients[tap], at = read_signed(data, at, precision)
    at = read_residuals(data, at, signal[HISTORY : HISTORY + num_samples])
    if at < 0 or not restore(signal, num_samples, coefficients, order, shift, bits):
        return -1
    return at


def decode(data: np.ndarray, at: int, pcm: np.ndarray, stretch: int, bits: int) -> int:
    """Fill pcm (C, T) int64, C 1 or 2; the position behind what was read, or -1 where it is no such code."""
    num_channels, num_frames = pcm.shape
    signals = np.zeros((2, HISTORY + stretch), np.int64)
    first, mode = 0, LEFT_RIGHT
    while first < num_frames:
        num = min(stretch, num_frames - first)
        if num_channels == 2:
            mode, at = read_bits(data, at, STEREO_BITS)
        for back in range(1, min(HISTORY, first) + 1):
            if num_channels == 2:
                left, right = pcm[0, first - back], pcm[1, first - back]
                signals[0, HISTORY - back], signals[1, HISTORY - back] = stereo_signals(left, right, mode)
            else:
                signals[0, HISTORY - back] = pcm[0, first - back]
        for channel in range(num_channels):
            at = read_signal(data, at, signals[channel], num, signal_bits(bits, mode, channel))
            if at < 0:
                return -1
        for n in range(num):
            if num_channels == 2:
                left, right = left_and_right(signals[0, HISTORY + n], signals[1, HISTORY + n], mode)
                pcm[0, first + n], pcm[1, first + n] = left, right
            else:
                pcm[0, first + n] = signals[0, HISTORY + n]
        first += num
    return at
