"""AdamW with moments in 8 bits: the codes, its way beside AdamW's, exact resume."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from codes.trainer.cost import MOMENTS
from codes.trainer.eight_bit import BLOCK, AdamW8bit, code_values, from_codes, to_codes

CPU = torch.device("cpu")


@pytest.mark.parametrize("signed", [True, False])
def test_values_of_codes(signed: bool) -> None:
    """Dettmers et al. 2022, section 2.1: 7 decades, the finest steps next to 1."""
    values = code_values(signed, CPU)
    assert len(values.unique()) == 256
    assert torch.equal(values, values.sort().values)
    assert float(values.max()) == 1
    assert 0 in values
    positive = values[values > 0]
    assert float(positive.min()) == pytest.approx(0.55e-6 if signed else 0.325e-6)
    assert float((positive[-2] - positive[-3]) / 0.9) == pytest.approx(1 / (64 if signed else 128), rel=1e-4)
    if signed:
        assert torch.equal(-values[values < 0].flip(0), positive[:-1])


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("size", [1, BLOCK, 3 * BLOCK + 17])
def test_codes_are_the_nearest_of_each_block(signed: bool, size: int) -> None:
    numbers = torch.randn(size, generator=torch.Generator().manual_seed(size)) * torch.logspace(-4, 3, size)
    numbers = numbers if signed else numbers.abs()
    codes, scale = to_codes(numbers, signed)
    assert codes.dtype == torch.uint8
    assert codes.shape == (-(-size // BLOCK), BLOCK)
    found = from_codes(codes, scale, signed, numbers)
    for block, shown in zip(numbers.split(BLOCK), found.split(BLOCK), strict=True):
        most = block[block.abs().argmax()]
        nearest = (block[:, None] / most - code_values(signed, CPU)).abs().min(1).values * most.abs()
        torch.testing.assert_close((shown - block).abs(), nearest, rtol=1e-3, atol=float(most.abs()) * 1e-6)
    assert torch.equal(from_codes(*to_codes(found, signed), signed, found), found)  # no drift


def test_zeros_stay_and_roots_never_become_zero() -> None:
    numbers = torch.tensor([0.0, 1e-9, 1.0])
    found = from_codes(*to_codes(numbers, False), False, numbers)
    assert found[0] == 0
    assert found[1] > 0
    nothing = torch.zeros(300)
    for signed in (True, False):
        assert torch.equal(from_codes(*to_codes(nothing, signed), signed, nothing), nothing)


def problem(seed: int) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A network of more numbers than are kept as floats, with data that it can fit."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(32, 256), nn.Tanh(), nn.Linear(256, 32))
    x = torch.randn(64, 32, generator=generator)
    return network, x, torch.roll(x, 1, 1) * 0.7


def losses(network: nn.Module, x: torch.Tensor, y: torch.Tensor, optimizer: Any, steps: int) -> list[float]:
    """The loss before each step."""
    found = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (network(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    return found


def test_it_learns_as_adamw_does() -> None:
    options: dict[str, Any] = {"lr": 3e-3, "betas": (0.9, 0.96), "weight_decay": 0.01}
    ours, x, y = problem(0)
    theirs, _, _ = problem(0)
    eight = losses(ours, x, y, AdamW8bit(ours.parameters(), **options), 60)
    full = losses(theirs, x, y, torch.optim.AdamW(theirs.parameters(), **options), 60)
    assert eight[0] == full[0]
    assert eight[-1] < 0.1 * eight[0]
    assert all(abs(one - other) < 0.05 * other + 2e-3 for one, other in zip(eight, full, strict=True))


def test_a_first_step_is_that_of_adamw() -> None:
    """Nothing has been rounded yet; weights, biases (whose moments are floats) and decay agree."""
    ours, x, y = problem(1)
    theirs, _, _ = problem(1)
    options: dict[str, Any] = {"lr": 1e-2, "betas": (0.8, 0.95), "weight_decay": 0.3, "eps": 1e-3}
    losses(ours, x, y, AdamW8bit(ours.parameters(), **options), 1)
    losses(theirs, x, y, torch.optim.AdamW(theirs.parameters(), **options), 1)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_two_bytes_a_parameter() -> None:
    p = nn.Parameter(torch.randn(512, 512))
    p.grad = torch.randn(512, 512)
    optimizer = AdamW8bit([p], lr=1e-3)
    optimizer.step()
    held = sum(value.nbytes for value in optimizer.state[p].values())
    assert held / p.nbytes == pytest.approx(MOMENTS["adamw8bit"], abs=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_its_state_comes_back_bit_for_bit(dtype: torch.dtype) -> None:
    ours, x, y = problem(2)
    ours, x, y = ours.to(dtype), x.to(dtype), y.to(dtype)
    optimizer = AdamW8bit(ours.parameters(), lr=1e-2)
    losses(ours, x, y, optimizer, 3)
    theirs = copy.deepcopy(ours)
    other = AdamW8bit(theirs.parameters(), lr=1e-2)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        for name, value in optimizer.state[p].items():
            assert other.state[q][name].dtype == value.dtype
            assert torch.equal(other.state[q][name], value)
    assert losses(ours, x, y, optimizer, 3) == losses(theirs, x, y, other, 3)
    assert all(torch.equal(p, q) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_what_is_not_finite_changes_nothing() -> None:
    p = nn.Parameter(torch.randn(64, 128))
    optimizer: Any = AdamW8bit([p], lr=0.1)
    for bad in (True, False, True):
        before = p.detach().clone()
        state = {name: value.clone() for name, value in optimizer.state[p].items()}
        p.grad = torch.full_like(p, torch.nan) if bad else torch.randn_like(p)
        optimizer.found_inf = torch.tensor(float(bad))
        optimizer.step()
        assert torch.equal(p, before) == bad
        if state and bad:
            assert all(torch.equal(optimizer.state[p][name], value) for name, value in state.items())
    assert float(optimizer.state[p]["step"]) == 1


def test_a_run_continues_as_if_nothing_had_happened(toys: Any, weights: Any, same: Any, lines: Any) -> None:
    changes = {
        "steps.fit.optimizer": "adamw8bit", "networks.net.kwargs": {"hidden": 700}, "logger.save_checkpoint_freq": 2,
        "train.ema_enabled": True,
    }  # fmt: skip
    whole, parts = toys(), toys()
    one = whole.train({**changes, "train.niter": 5})
    held = [value for p in one.parts.updaters["net"][0].optimizer.state.values() for value in p.values()]
    assert any(value.dtype == torch.uint8 for value in held)
    for steps in (2, 3, 5):
        other = parts.train({**changes, "train.niter": steps})
    assert same(weights(one), weights(other))
    assert lines(one.folder.path)[-1] == lines(other.folder.path)[-1]
