"""The kernels of adaptive prediction against numpy, and the arithmetic against the library's."""

import math

import numpy as np
import pytest

from codes.adaptive import arithmetic, least_squares


def test_dot_is_the_sum_of_products() -> None:
    least_squares.build()
    rng = np.random.default_rng(0)
    for size in (1, 2, 3, 4, 5, 7, 8, 31, 96, 257):
        a, b = rng.normal(size=(2, size))
        assert least_squares.dot(a, b, size, np.zeros(size)) == pytest.approx(float(a @ b), rel=1e-12, abs=1e-12)


def test_weighted_least_squares_finds_what_numpy_finds() -> None:
    least_squares.build()
    rng = np.random.default_rng(1)
    size, count, decay = 10, 8, 0.9
    covariance, correlation = np.zeros((12, 12)), np.zeros(12)
    rows, targets, weights = [], [], []
    for block in range(5):
        x, y, w = rng.normal(size=(count, 12)), rng.normal(size=count), rng.uniform(0.1, 2, size=count)
        least_squares.absorb(covariance, correlation, x, y, w, size, count, decay)
        rows.append(x[:, :size])
        targets.append(y)
        weights.append(w * decay ** (4 - block))
    solution = np.zeros(12)
    least_squares.solve(covariance, correlation, solution, np.zeros((12, 12)), np.zeros(12), size, 0.25)
    x, y, w = np.concatenate(rows), np.concatenate(targets), np.concatenate(weights)
    expected = np.linalg.solve(x.T @ (w[:, None] * x) + 0.25 * np.eye(size), x.T @ (w * y))
    np.testing.assert_allclose(solution[:size], expected, rtol=1e-9)
    assert not solution[size:].any()


def test_what_cannot_be_solved_is_left_as_it_was() -> None:
    least_squares.build()
    solution = np.array([1.0, 2.0])
    covariance = np.array([[1.0, 2.0], [0.0, 1.0]])  # upper triangle of a matrix that is not positive
    least_squares.solve(covariance, np.ones(2), solution, np.zeros((2, 2)), np.zeros(2), 2, 1e-9)
    assert solution.tolist() == [1.0, 2.0]
    covariance[0, 0] = math.nan
    least_squares.solve(covariance, np.ones(2), solution, np.zeros((2, 2)), np.zeros(2), 2, 1e-9)
    assert solution.tolist() == [1.0, 2.0]


def test_exp_and_log2_are_close_to_the_librarys() -> None:
    arithmetic.build()
    for x in np.linspace(-60, 60, 241):
        assert arithmetic.exact_exp(float(x)) == pytest.approx(math.exp(x), rel=1e-13)
    assert arithmetic.exact_exp(-1e9) == arithmetic.exact_exp(-700.0) > 0
    assert arithmetic.exact_exp(1e9) < math.inf
    for x in (1e-300, 1e-9, 0.3, 0.5, 0.99999, 1.0, 1.5, 2.0, 12345.678, 1e300):
        assert arithmetic.exact_log2(x) == pytest.approx(math.log2(x), abs=1e-8)


def test_the_logistic_table_rises_from_0_to_1() -> None:
    table = arithmetic.logistic_table()
    assert table[0] == 0.0
    assert table[-1] == 1.0
    assert (np.diff(table) >= 0).all()
    for z in np.linspace(-27.9, 27.9, 301):
        exact = 1 / (1 + math.exp(-z))
        assert arithmetic.logistic(table, float(z)) == pytest.approx(exact, abs=2e-5)
    assert arithmetic.logistic(table, -1e9) == 0.0
    assert arithmetic.logistic(table, 1e9) == 1.0


def test_arithmetic_repeats_bit_for_bit() -> None:
    """The very bits of another machine: a decoder there must get the same."""
    arithmetic.build()
    assert arithmetic.exact_exp(1.0).hex() == GOLDEN_EXP
    assert arithmetic.exact_log2(10.0).hex() == GOLDEN_LOG2


GOLDEN_EXP = "0x1.5bf0a8b145763p+1"
GOLDEN_LOG2 = "0x1.a934f0979a371p+1"
