"""Exponentially weighted least squares: kernels over float64 arrays in a fixed order of operations.

Every sum runs element by element over a vector, or over four rows at a time, so that it can be vectorised without
being reordered: the same bits come out whatever the machine's vectors are (see `codes.adaptive.compiled`).
Loops count from 0 over slices: where an index might be negative, numba makes it count from the array's end, and no
vectors come of that.
"""

import numpy as np

from codes.adaptive.compiled import compile_module


def dot(a: np.ndarray, b: np.ndarray, size: int, scratch: np.ndarray) -> float:
    """Sum of a[i] b[i] for i < size: the products, folded by halves; scratch: (size,) of their type."""
    for i in range(size):
        scratch[i] = a[i] * b[i]
    left = size
    while left > 4:
        half = left >> 1
        upper = scratch[left - half : left]
        for i in range(half):
            scratch[i] = scratch[i] + upper[i]
        left = left - half
    total = scratch[0]
    for i in range(1, left):
        total = total + scratch[i]
    return total


def absorb(
    covariance: np.ndarray, correlation: np.ndarray, inputs: np.ndarray, targets: np.ndarray, weights: np.ndarray,
    size: int, count: int, decay: float,
) -> None:  # fmt: skip
    """Let the past fade by ``decay`` and add ``count`` weighted observations; count is a multiple of 4.

    Args:
        covariance: (N, N), its upper triangle is kept.
        correlation: (N,).
        inputs: (count, N), targets, weights: (count,).
        size: places of N that are in use.
    """
    for i in range(size):
        row = covariance[i, i:size]
        for j in range(len(row)):
            row[j] = row[j] * decay
    for s in range(0, count, 4):
        for i in range(size):
            row = covariance[i, i:size]
            x0, x1, x2, x3 = inputs[s, i:size], inputs[s + 1, i:size], inputs[s + 2, i:size], inputs[s + 3, i:size]
            a0, a1 = x0[0] * weights[s], x1[0] * weights[s + 1]
            a2, a3 = x2[0] * weights[s + 2], x3[0] * weights[s + 3]
            for j in range(len(row)):
                row[j] = row[j] + a0 * x0[j] + a1 * x1[j] + a2 * x2[j] + a3 * x3[j]
    for j in range(size):
        correlation[j] = correlation[j] * decay
    for s in range(count):
        gain = weights[s] * targets[s]
        x = inputs[s]
        for j in range(size):
            correlation[j] = correlation[j] + gain * x[j]


def factorise(covariance: np.ndarray, upper: np.ndarray, size: int, ridge: float) -> bool:
    """Cholesky: upper' upper = covariance + ridge I; False where that is not positive enough to be trusted."""
    for i in range(size):
        row, source = upper[i, i:size], covariance[i, i:size]
        for j in range(len(row)):
            row[j] = source[j]
        row[0] = row[0] + ridge
        least = 1e-10 * row[0]
        done = i - i % 4
        for k in range(0, done, 4):
            u0, u1, u2, u3 = upper[k, i:size], upper[k + 1, i:size], upper[k + 2, i:size], upper[k + 3, i:size]
            a0, a1, a2, a3 = u0[0], u1[0], u2[0], u3[0]
            for j in range(len(row)):
                row[j] = row[j] - a0 * u0[j] - a1 * u1[j] - a2 * u2[j] - a3 * u3[j]
        for k in range(done, i):
            u0 = upper[k, i:size]
            a0 = u0[0]
            for j in range(len(row)):
                row[j] = row[j] - a0 * u0[j]
        if not row[0] > least:
            return False
        inverse = 1.0 / np.sqrt(row[0])
        for j in range(len(row)):
            row[j] = row[j] * inverse
    return True


def solve(
    covariance: np.ndarray, correlation: np.ndarray, solution: np.ndarray, upper: np.ndarray, scratch: np.ndarray,
    size: int, ridge: float,
) -> None:  # fmt: skip
    """solution = (covariance + ridge I)^-1 correlation; left as it was where there is none.

    Args:
        upper: (N, N) and scratch (N,): room to work in.
    """
    if not factorise(covariance, upper, size, ridge):
        return
    for j in range(size):
        scratch[j] = correlation[j]
    for k in range(size):
        value = scratch[k] / upper[k, k]
        scratch[k] = value
        row, left = upper[k, k + 1 : size], scratch[k + 1 : size]
        for j in range(len(row)):
            left[j] = left[j] - row[j] * value
    for k in range(size - 1, -1, -1):
        row, known = upper[k, k + 1 : size], solution[k + 1 : size]
        s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
        rest = len(row) % 4
        for j in range(rest):
            s0 = s0 + row[j] * known[j]
        for j in range(rest, len(row), 4):
            s0 = s0 + row[j] * known[j]
            s1 = s1 + row[j + 1] * known[j + 1]
            s2 = s2 + row[j + 2] * known[j + 2]
            s3 = s3 + row[j + 3] * known[j + 3]
        solution[k] = (scratch[k] - ((s0 + s1) + (s2 + s3))) / upper[k, k]


def absorb_and_solve(
    covariance: np.ndarray, correlation: np.ndarray, inputs: np.ndarray, targets: np.ndarray, weights: np.ndarray,
    solution: np.ndarray, upper: np.ndarray, scratch: np.ndarray, size: int, count: int, decay: float, ridge: float,
) -> None:  # fmt: skip
    """`absorb` and then `solve`."""
    absorb(covariance, correlation, inputs, targets, weights, size, count, decay)
    solve(covariance, correlation, solution, upper, scratch, size, ridge)


def build() -> None:
    """Compile the kernels of this module."""
    compile_module(__name__, ("dot", "absorb", "factorise", "solve", "absorb_and_solve"))
