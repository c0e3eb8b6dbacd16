"""Heads: exact probabilities, against references in float64 and against each other."""

import math

import pytest
import torch

from codes.models.forecast import Forecast
from codes.models.heads import BytesHead, Choice, LogisticsHead, SoftmaxHead


def forecast(anchor: torch.Tensor, offsets: torch.Tensor, log_unit: float = 1.0, features: int = 2) -> Forecast:
    shape = anchor.shape
    return Forecast(anchor, offsets, torch.full(shape, log_unit), torch.randn(*shape, features))


def shake(head: torch.nn.Module, size: float) -> None:
    torch.manual_seed(1)
    for parameter in head.parameters():
        parameter.data += torch.randn_like(parameter) * size


def mixture(bits: int, gate: float, seed: int = 0) -> tuple[LogisticsHead, torch.Tensor, Forecast]:
    torch.manual_seed(seed)
    head = LogisticsHead(8, bits, 4, num_offsets=3, num_features=2)
    shake(head, 0.1)
    assert head.gate is not None
    head.gate.data.fill_(gate)
    anchor = torch.randint(0, 2**bits, (2, 5))
    return head, torch.randn(2, 5, 8), forecast(anchor, torch.randn(2, 5, 3))


@pytest.mark.parametrize("gate", [0.0, 0.02, 1.0])
def test_mixture_sums_to_one(gate: float):
    head, hidden, known = mixture(8, gate)
    total = head.log_probabilities(hidden, known).exp().sum(-1)
    torch.testing.assert_close(total, torch.ones(2, 5), rtol=0, atol=2e-5)


def test_mixture_nats_are_its_log_probabilities():
    head, hidden, known = mixture(8, 1.0)
    codes = torch.randint(0, 256, (2, 5))
    expected = -head.log_probabilities(hidden, known).gather(-1, codes[..., None])[..., 0]
    torch.testing.assert_close(head.nats(hidden, codes, known), expected)


def log_difference(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Log of F(high) - F(low) in float64, taken on the side where F is small."""
    low, high = torch.where(low > 0, -high, low), torch.where(low > 0, -low, high)
    return (high.sigmoid() - low.sigmoid()).log()


@pytest.mark.parametrize("bits", [16, 24, 32])
@pytest.mark.parametrize("log_scale", [-3.0, -0.5, 2.0, 9.0])
def test_mixture_against_float64(bits: int, log_scale: float):
    """One component at a mean of anchor + 0.3: near its mean and far from it, down to scales below one step."""
    head = LogisticsHead(1, bits, 1)
    anchor = torch.tensor([[2 ** (bits - 1) + 12345]])
    means, log_scales = torch.tensor([[[0.3]]]), torch.tensor([[[log_scale]]])
    distance = torch.tensor([[[-3.0, -1.0, 0.0, 1.0, 5.0]]]) * max(1.0, math.exp(log_scale))
    steps = distance.round()[..., None]
    masses = head._log_masses(means[..., None, :], log_scales[..., None, :], steps, anchor[..., None])
    scale = math.exp(log_scale)
    low, high = (steps.double() - 0.8) / scale, (steps.double() + 0.2) / scale
    ends = torch.tensor([-0.8 - anchor.item(), 2**bits - 0.8 - anchor.item()], dtype=torch.float64) / scale
    expected = log_difference(low, high) - log_difference(*ends)
    torch.testing.assert_close(masses.double(), expected, rtol=2e-5, atol=2e-5)


def test_mixture_starts_uniform():
    torch.manual_seed(0)
    for bits in (8, 16, 24, 32):
        head = LogisticsHead(8, bits, 6, num_offsets=3, num_features=2)
        codes = torch.randint(0, 2**bits, (2, 200))
        known = forecast(torch.randint(0, 2**bits, (2, 200)), torch.randn(2, 200, 3) * 2**bits / 8)
        nats = head.nats(torch.randn(2, 200, 8), codes, known)
        assert nats.sub(bits * math.log(2)).abs().max() < 0.1


def test_mixture_far_from_its_mean_stays_finite_and_trains():
    head, hidden, known = mixture(24, 1.0)
    nats = head.nats(hidden, 2**24 - 1 - known.anchor, known)
    nats.mean().backward()
    assert nats.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


def test_mixture_samples_follow_its_probabilities():
    head, hidden, known = mixture(8, 0.05)
    known = Forecast(known.anchor[:1, :1], known.offsets[:1, :1], known.log_unit[:1, :1], known.features[:1, :1])
    probabilities = head.log_probabilities(hidden[:1, :1], known)[0, 0].exp()
    many = Forecast(*(value.expand(20000, *value.shape[1:]) for value in vars(known).values()))
    choice = Choice(generator=torch.Generator().manual_seed(0))
    codes = head.sample(hidden[:1, 0].expand(20000, -1), choice, many)
    counts = torch.bincount(codes, minlength=256) / 20000
    assert (counts - probabilities).abs().sum() < 0.12
    greedy = head.sample(hidden[:1, 0], Choice(temperature=0), known)
    assert 0 <= greedy.item() < 256


def test_bytes_head_is_one_softmax_over_all_codes():
    torch.manual_seed(0)
    head = BytesHead(16, 16)
    shake(head, 0.3)
    hidden, codes = torch.randn(1, 4, 16), torch.randint(0, 65536, (1, 4))
    full = head.log_probabilities(hidden)
    assert full.shape == (1, 4, 65536)
    torch.testing.assert_close(full.exp().sum(-1), torch.ones(1, 4))
    torch.testing.assert_close(head.nats(hidden, codes), -full.gather(-1, codes[..., None])[..., 0])


def test_bytes_head_covers_other_depths():
    head = BytesHead(16, 12)
    assert head.log_probabilities(torch.randn(1, 16)).shape == (1, 4096)
    assert head.nats(torch.randn(1, 3, 16), torch.randint(0, 4096, (1, 3))).mean().item() == pytest.approx(
        12 * math.log(2)
    )


def test_softmax_head_nats_are_its_log_probabilities():
    head = SoftmaxHead(16, 100)
    shake(head, 0.3)
    hidden, codes = torch.randn(2, 3, 16), torch.randint(0, 100, (2, 3))
    expected = -head.log_probabilities(hidden).gather(-1, codes[..., None])[..., 0]
    torch.testing.assert_close(head.nats(hidden, codes), expected)


def test_choice_keeps_the_likeliest():
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0]]).expand(500, 4)
    generator = torch.Generator().manual_seed(0)
    assert set(Choice(top_k=2, generator=generator).draw(logits).tolist()) == {2, 3}
    assert set(Choice(top_p=0.5, generator=generator).draw(logits).tolist()) == {3}
    assert set(Choice(temperature=0).draw(logits).tolist()) == {3}
    assert set(Choice(generator=generator).draw(logits).tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature is -1.0: it must be 0 or more"),
        ({"top_k": -1}, "top_k is -1: it must be 0"),
        ({"top_p": 0.0}, "top_p is 0.0: it must be above 0"),
    ],
)
def test_bad_choices_are_named(options: dict[str, float], message: str):
    with pytest.raises(ValueError, match=message):
        Choice(**options)  # type: ignore[arg-type]
