"""Counter-based random numbers: reference values, statistics, and that the batch an item is in changes nothing."""

import re

import numpy as np
import pytest
import torch
from torch import Tensor

from codes import randomness

PINNED_SEEDS = [7403809227180704479, 4906264314479254948, 73325290012342127]
PINNED_UNIFORM = [[0.33357203006744385, 0.8753111958503723], [0.0509987473487854, 0.6872244477272034]]
PINNED_INTEGERS = [[330, 874], [46, 685]]
PINNED_NORMAL = [[1.481791, 0.0093975, 0.0960858], [1.2523627, 2.0936794, 0.7638167]]
SEEDS = torch.tensor([randomness.item_seed(0, 0, index) for index in range(64)])


def test_reference_values() -> None:
    """The first three are those of Vigna's splitmix64.c started at 0; the others pin what runs depend on."""
    assert [randomness.mix_number(n * randomness.GAMMA) for n in range(3)] == [
        0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F,
    ]  # fmt: skip
    assert [randomness.item_seed(*place) for place in ((0, 0, 0), (1, 2, 3), (-1, 0, 2**80))] == PINNED_SEEDS
    seeds = torch.tensor([1, 2])
    assert randomness.uniform(seeds, 3, (2,)).tolist() == PINNED_UNIFORM
    assert randomness.integers(seeds, 3, -5, 1000, (2,)).tolist() == PINNED_INTEGERS
    torch.testing.assert_close(randomness.normal(seeds, 3, (3,)), torch.tensor(PINNED_NORMAL), rtol=0, atol=1e-6)


def test_hashes_are_those_of_plain_integers() -> None:
    """Products and sums that wrap around and logical shifts, against Python's unbounded integers."""
    seeds = torch.tensor([0, 1, 2**63 - 1, -(2**63), -1])
    found = randomness.hashes(seeds, 9, 4)
    for seed, row in zip(seeds.tolist(), found.tolist(), strict=True):
        start = randomness.mix_number(seed % 2**64 ^ randomness.mix_number(9))
        assert [n % 2**64 for n in row] == [randomness.mix_number(start + n * randomness.GAMMA) for n in range(4)]


def test_item_seeds_differ_by_each_of_their_parts() -> None:
    found = [randomness.item_seed(s, e, i) for s in range(20) for e in range(20) for i in range(20)]
    assert len(set(found)) == 8000
    assert all(0 <= seed < 2**63 for seed in found)


def draws(name: str, seeds: Tensor, salt: int, shape: tuple[int, ...]) -> Tensor:
    """One of the three kinds, shifted and scaled to mean 0 and standard deviation 1."""
    if name == "normal":
        return randomness.normal(seeds, salt, shape).double()
    if name == "uniform":
        return (randomness.uniform(seeds, salt, shape).double() - 0.5) * 12**0.5
    return (randomness.integers(seeds, salt, 0, 1 << 16, shape).double() / 2**16 - 0.5) * 12**0.5


@pytest.mark.parametrize("name", ["uniform", "normal", "integers"])
class TestStatistics:
    """Figures of n numbers; each bound is five standard errors."""

    def test_mean_and_variance(self, name: str) -> None:
        x = draws(name, SEEDS, 1, (2, 4096))
        n = x.numel()
        assert abs(x.mean()) < 5 / n**0.5
        assert abs(x.var() - 1) < 5 * (2 / n) ** 0.5
        assert (x.mean((1, 2)).abs() < 5 / 8192**0.5).all()  # of every item

    def test_neighbours_are_independent(self, name: str) -> None:
        x = draws(name, SEEDS, 1, (8192,))
        for distance in (1, 2, 3, 64, 4096):
            products = x[:, distance:] * x[:, :-distance]
            assert abs(products.mean()) < 5 / products.numel() ** 0.5
            squares = (x[:, distance:].square() - 1) * (x[:, :-distance].square() - 1)
            assert abs(squares.mean()) < 5 * 2 / squares.numel() ** 0.5

    def test_items_are_independent(self, name: str) -> None:
        """Those of neighbouring indices, and those whose seeds are neighbours themselves."""
        for seeds in (SEEDS, torch.arange(64)):
            x = draws(name, seeds, 1, (8192,))
            correlations = (x @ x.T / 8192).fill_diagonal_(0)
            assert correlations.abs().max() < 5.5 / 8192**0.5

    def test_salts_are_independent(self, name: str) -> None:
        rows = [draws(name, SEEDS[:1], salt, (8192,))[0] for salt in (*range(30), *(1 << n for n in range(5, 64)))]
        x = torch.stack(rows)
        assert (x @ x.T / 8192).fill_diagonal_(0).abs().max() < 5.5 / 8192**0.5

    def test_batch_shape_and_threads_change_nothing(self, name: str) -> None:
        whole = draws(name, SEEDS, 7, (3, 1001))
        for chosen in ([5], [9, 2], [63, 0, 1, 1]):
            assert torch.equal(draws(name, SEEDS[chosen], 7, (3, 1001)), whole[chosen])
        assert torch.equal(draws(name, SEEDS, 7, (77,)), whole.flatten(1)[:, :77])

    def test_single_numbers(self, name: str) -> None:
        assert draws(name, SEEDS, 7, ()).shape == (64,)
        assert torch.equal(draws(name, SEEDS, 7, ()), draws(name, SEEDS, 7, (1,))[:, 0])
        assert draws(name, SEEDS[:0], 7, (2, 3)).shape == (0, 2, 3)


def test_uniform_is_even_and_below_one() -> None:
    from scipy import stats

    x = randomness.uniform(SEEDS, 2, (16384,)).numpy()
    assert x.dtype == np.float32
    assert 0 <= x.min() < 1e-5
    assert 1 - 1e-5 < x.max() < 1
    assert stats.chisquare(np.histogram(x, 1024, (0, 1))[0]).pvalue > 1e-4
    assert stats.chisquare(np.bincount((x.ravel() * 2**24).astype(np.int64) % 1024)).pvalue > 1e-4  # the low bits too


def test_normal_is_normal() -> None:
    from scipy import stats

    x = randomness.normal(SEEDS, 2, (16384,)).flatten().double().numpy()
    assert stats.kstest(x, "norm").pvalue > 1e-4
    assert abs(stats.kurtosis(x)) < 5 * (24 / x.size) ** 0.5
    assert 4.5 < np.abs(x).max() < 6.7


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3, 4), (0, 1000), (0, 2**31)])
def test_integers_are_even(low: int, high: int) -> None:
    from scipy import stats

    x = randomness.integers(SEEDS, 2, low, high, (4096,))
    assert x.dtype == torch.int64
    assert low <= x.min()
    assert x.max() < high
    counts = np.histogram(x.numpy(), min(high - low, 1000), (low, high))[0]
    assert len(counts) == 1 or stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize(("low", "high"), [(3, 3), (4, 3), (0, 2**31 + 1)])
def test_integers_refuse_ranges_without_or_with_too_many_numbers(low: int, high: int) -> None:
    with pytest.raises(ValueError, match=re.escape(f"high - low must be 1 to 2^31, got {low} and {high}")):
        randomness.integers(SEEDS, 0, low, high)


def test_derived_seeds_are_seeds() -> None:
    found = randomness.derive(SEEDS, 3, 50)
    assert found.shape == (64, 50)
    assert found.min() >= 0
    assert found.unique().numel() == 3200
    assert torch.equal(randomness.derive(SEEDS[3:4], 3, 20), found[3:4, :20])


def test_seeds_are_left_as_they_were() -> None:
    before = SEEDS.clone()
    randomness.normal(SEEDS, 1, (5,))
    assert torch.equal(SEEDS, before)
