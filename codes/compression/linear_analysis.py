"""How `linear_codec` finds its predictions and writes them: the encoder's side, compiled by it.

Coefficients are the solution of weighted least squares over the stretch itself, with weights that are the inverse of
the last solution's residuals: that minimises the sum of absolute residuals, which is what Rice codes cost (FFmpeg's
FLAC encoder does so with lpc_type=cholesky). Floats serve to choose only: what is chosen is written as integers.
"""

import numpy as np

from codes.compression.linear_kernels import (
    CONSTANT,
    ESCAPE,
    FIXED,
    FIXED_BITS,
    HISTORY,
    KIND_BITS,
    MIDDLE_SIDE,
    MOST_PARTITIONS_LOG2,
    MOST_RICE,
    ORDER_BITS,
    PARTITION_BITS,
    PRECISION_BITS,
    PREDICTED,
    RICE_BITS,
    SHIFT_BITS,
    STEREO_BITS,
    VERBATIM,
    find_residuals,
    fixed_coefficients,
    signal_bits,
    stereo_signals,
    write_bits,
)

SHORT_FRAMES = 1024  # stretches up to this length try more orders: coefficients weigh more there
NUM_PASSES = 3
PLAN_SIZE = 4 + HISTORY  # kind, order, shift, cost in bits; then the coefficients


def partition_cost(folded: np.ndarray) -> tuple[int, int]:
    """Cost in bits of residuals folded to 0, 1, 2 ... and the Rice parameter that it takes, or ESCAPE."""
    total, highest = 0, 0
    for value in folded:
        total += value
        highest = max(highest, value)
    width = 0
    while highest >> width:
        width += 1
    best_cost, best_rice = RICE_BITS + folded.size * width, ESCAPE
    guess = 0
    while guess < MOST_RICE and (folded.size << (guess + 1)) < total:
        guess += 1
    for rice in range(max(0, guess - 1), min(MOST_RICE, guess + 1) + 1):
        cost = folded.size * (rice + 1)
        for value in folded:
            cost += value >> rice
        if cost < best_cost:
            best_cost, best_rice = cost, rice
    return best_cost + RICE_BITS, best_rice


def residual_cost(folded: np.ndarray) -> tuple[int, int]:
    """The least cost of residuals over all numbers of partitions, and the logarithm of that number."""
    best_cost, best_log2 = 1 << 60, 0
    for log2 in range(MOST_PARTITIONS_LOG2 + 1):
        length = -(-folded.size // (1 << log2))
        if log2 and length < 16:
            break
        cost = PARTITION_BITS
        for first in range(0, folded.size, length):
            cost += partition_cost(folded[first : first + length])[0]
        if cost < best_cost:
            best_cost, best_log2 = cost, log2
    return best_cost, best_log2


def fold(residuals: np.ndarray) -> np.ndarray:
    """0, -1, 1, -2 ... to 0, 1, 2, 3 ..."""
    folded = np.empty(residuals.size, np.int64)
    for n in range(residuals.size):
        folded[n] = (residuals[n] << 1) ^ (residuals[n] >> 63)
    return folded


def write_residuals(data: np.ndarray, at: int, folded: np.ndarray) -> int:
    """Partitions of Rice codes; the position behind them."""
    log2 = residual_cost(folded)[1]
    at = write_bits(data, at, log2, PARTITION_BITS)
    length = -(-folded.size // (1 << log2))
    for first in range(0, folded.size, length):
        part = folded[first : first + length]
        rice = partition_cost(part)[1]
        at = write_bits(data, at, rice, RICE_BITS)
        if rice == ESCAPE:
            width = 0
            for value in part:
                while value >> width:
                    width += 1
            at = write_bits(data, at, width, RICE_BITS)
            for value in part:
                at = write_bits(data, at, (value >> 1) ^ -(value & 1), width)
        else:
            for value in part:
                at += value >> rice  # so many zeros
                at = write_bits(data, at, (1 << rice) | (value & ((1 << rice) - 1)), rice + 1)
    return at


def solve(signal: np.ndarray, weights: np.ndarray, order: int, solution: np.ndarray) -> bool:
    """Least squares of signal[HISTORY:] from the ``order`` samples before each, by Cholesky; False where singular."""
    num = weights.size
    matrix = np.zeros((order + 1, order + 1))
    weighted = np.empty(num)
    for row in range(order + 1):
        for n in range(num):
            weighted[n] = weights[n] * signal[HISTORY + n - row]
        for column in range(row + 1):
            total = 0.0
            for n in range(num):
                total += weighted[n] * signal[HISTORY + n - column]
            matrix[row, column] = total
    factor = np.zeros((order, order))
    ridge = 1e-9 * matrix[0, 0] + 1e-9
    for row in range(order):
        for column in range(row + 1):
            total = matrix[row + 1, column + 1] + (ridge if row == column else 0.0)
            for k in range(column):
                total -= factor[row, k] * factor[column, k]
            if row == column:
                if total <= 0.0:
                    return False
                factor[row, row] = np.sqrt(total)
            else:
                factor[row, column] = total / factor[column, column]
    for row in range(order):
        total = matrix[row + 1, 0]
        for k in range(row):
            total -= factor[row, k] * solution[k]
        solution[row] = total / factor[row, row]
    for row in range(order - 1, -1, -1):
        total = solution[row]
        for k in range(row + 1, order):
            total -= factor[k, row] * solution[k]
        solution[row] = total / factor[row, row]
    return True


def precision_of(num: int) -> int:
    """Bits of a coefficient in a stretch of so many samples."""
    precision = 8
    while precision < 14 and num > (128 << (precision - 8)):
        precision += 1
    return precision


def quantise(solution: np.ndarray, order: int, precision: int, coefficients: np.ndarray) -> int:
    """Coefficients of so many bits with a common shift, the rounding error carried on; the shift, -1 if none does."""
    highest = 0.0
    for tap in range(order):
        highest = max(highest, abs(solution[tap]))
    limit = (1 << (precision - 1)) - 1
    shift = 15
    while shift >= 0 and highest * (1 << shift) > limit:
        shift -= 1
    error = 0.0
    for tap in range(order):
        wanted = solution[tap] * (1 << max(shift, 0)) + error
        coefficients[tap] = int(max(-limit - 1.0, min(limit * 1.0, np.floor(wanted + 0.5))))
        error = wanted - coefficients[tap]
    return shift


def consider(plan: np.ndarray, signal: np.ndarray, kind: int, order: int, shift: int, residuals: np.ndarray) -> bool:
    """Put a prediction (its coefficients stand in ``plan``'s second row) into the first if it is cheaper."""
    find_residuals(signal, plan[1, 4:], order, shift, residuals)
    precision = precision_of(residuals.size)
    head = KIND_BITS + (FIXED_BITS if kind == FIXED else ORDER_BITS + SHIFT_BITS + PRECISION_BITS + order * precision)
    cost = head + residual_cost(fold(residuals))[0]
    if cost >= plan[0, 3]:
        return False
    plan[1, 0], plan[1, 1], plan[1, 2], plan[1, 3] = kind, order, shift, cost
    for place in range(PLAN_SIZE):
        plan[0, place] = plan[1, place]
    return True


def is_constant(signal: np.ndarray) -> bool:
    """Whether signal[HISTORY:] is one value."""
    for value in signal[HISTORY:]:  # noqa: SIM110 (loops compile fast)
        if value != signal[HISTORY]:
            return False
    return True


def make_plan(signal: np.ndarray, bits: int, most_order: int, num_passes: int, plan: np.ndarray) -> None:
    """The cheapest way found to code signal[HISTORY:], into plan[0]; see PLAN_SIZE."""
    num = signal.size - HISTORY
    plan[0, 0], plan[0, 3] = VERBATIM, KIND_BITS + num * bits
    if is_constant(signal):
        plan[0, 0], plan[0, 3] = CONSTANT, KIND_BITS + bits
        return
    residuals = np.empty(num, np.int64)
    for order in range(5):
        fixed_coefficients(order, plan[1, 4:])
        consider(plan, signal, FIXED, order, 0, residuals)
    floats = np.empty(signal.size)
    for n in range(signal.size):
        floats[n] = signal[n]
    follows_nothing = True  # at a block's start; what cannot be predicted there must not rule the fit
    for value in signal[:HISTORY]:
        if value != 0:
            follows_nothing = False
    weights, solution = np.empty(num), np.empty(HISTORY)
    for eighths in range(8, 0, -1):
        order = most_order * eighths // 8
        if num < 4 * order or (num > SHORT_FRAMES and eighths not in (8, 4, 2)):
            continue
        skipped = order if follows_nothing else 0
        for n in range(num):
            weights[n] = 1.0 if n >= skipped else 0.0
        for _ in range(num_passes):
            if not solve(floats, weights, order, solution):
                break
            shift = quantise(solution, order, precision_of(num), plan[1, 4:])
            if shift >= 0:
                consider(plan, signal, PREDICTED, order, shift, residuals)
            total = 0.0
            for n in range(skipped, num):
                total += abs(residuals[n])
            for n in range(skipped, num):
                weights[n] = 1.0 / (abs(residuals[n]) + 0.1 * (1.0 + total / num))


def write_signal(data: np.ndarray, at: int, signal: np.ndarray, bits: int, plan: np.ndarray) -> int:
    """One channel of a stretch as planned; the position behind it."""
    kind, order, shift = plan[0, 0], plan[0, 1], plan[0, 2]
    at = write_bits(data, at, kind, KIND_BITS)
    if kind == CONSTANT:
        return write_bits(data, at, signal[HISTORY], bits)
    if kind == VERBATIM:
        for value in signal[HISTORY:]:
            at = write_bits(data, at, value, bits)
        return at
    if kind == FIXED:
        at = write_bits(data, at, order, FIXED_BITS)
    else:
        at = write_bits(data, at, order - 1, ORDER_BITS)
        at = write_bits(data, at, shift, SHIFT_BITS)
        precision = precision_of(signal.size - HISTORY)
        at = write_bits(data, at, precision, PRECISION_BITS)
        for tap in range(order):
            at = write_bits(data, at, plan[0, 4 + tap], precision)
    residuals = np.empty(signal.size - HISTORY, np.int64)
    find_residuals(signal, plan[0, 4:], order, shift, residuals)
    return write_residuals(data, at, fold(residuals))


def encode(data: np.ndarray, at: int, pcm: np.ndarray, stretch: int, bits: int, channel_bits: np.ndarray) -> int:
    """Write pcm (C, T) int64, C 1 or 2, over zeros; the position behind it."""
    num_channels, num_frames = pcm.shape
    plans = np.zeros((4, 2, PLAN_SIZE), np.int64)
    signals = np.zeros((4, HISTORY + stretch), np.int64)  # left, right, middle, side
    for first in range(0, num_frames, stretch):
        num = min(stretch, num_frames - first)
        for n in range(-min(HISTORY, first), num):
            signals[0, HISTORY + n] = pcm[0, first + n]
            if num_channels == 2:
                left, right = pcm[0, first + n], pcm[1, first + n]
                signals[1, HISTORY + n] = right
                signals[2, HISTORY + n], signals[3, HISTORY + n] = stereo_signals(left, right, MIDDLE_SIDE)
        size = HISTORY + num
        mode = 0
        if num_channels == 2:
            for which in range(4):
                make_plan(signals[which, :size], bits + (which == 3), 16, 1, plans[which])
            best = plans[0, 0, 3] + plans[1, 0, 3]
            for other in range(1, 4):
                cost = plans[MEMBERS[other][0], 0, 3] + plans[MEMBERS[other][1], 0, 3]
                if cost < best:
                    best, mode = cost, other
            at = write_bits(data, at, mode, STEREO_BITS)
        for channel in range(num_channels):
            which = MEMBERS[mode][channel]
            start = at
            width = signal_bits(bits, mode, channel)
            make_plan(signals[which, :size], width, 32, NUM_PASSES, plans[which])
            at = write_signal(data, at, signals[which, :size], width, plans[which])
            channel_bits[channel] += at - start
    return at


MEMBERS = ((0, 1), (0, 3), (3, 1), (2, 3))  # of left, right, middle and side: which two a mode codes
