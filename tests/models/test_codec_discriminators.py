"""Discriminators of codecs: shapes, what they depend on, and that they learn; the balancer of gradients."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from codes.models.codec_discriminators import MultiPeriodDiscriminator, MultiScaleStftDiscriminator
from codes.models.gradient_balancer import GradientBalancer


def stft(num_channels: int = 1) -> MultiScaleStftDiscriminator:
    return MultiScaleStftDiscriminator(windows=[64, 32], filters=4, num_channels=num_channels)


def period(num_channels: int = 1) -> MultiPeriodDiscriminator:
    return MultiPeriodDiscriminator(periods=[2, 3], filters=4, most_filters=16, layers=2, num_channels=num_channels)


@pytest.mark.parametrize("channels", [1, 2])
def test_shapes(channels: int) -> None:
    wav = torch.randn(3, channels, 250)
    verdicts, features = stft(num_channels=channels)(wav)
    assert verdicts.shape == (3, 16 * 5 + 32 * 3)  # frames times frequencies after three strides of 2
    assert [tuple(value.shape[1:3]) for value in features] == [(4, 16)] * 5 + [(4, 32)] * 5
    verdicts, features = period(num_channels=channels)(wav)
    assert verdicts.shape == (3, 2 * 14 + 3 * 10)
    assert [tuple(value.shape[1:3]) for value in features] == [(4, 42), (16, 14), (16, 14), (4, 28), (16, 10), (16, 10)]


def test_published_sizes() -> None:
    learned = sum(parameter.numel() for parameter in MultiPeriodDiscriminator().parameters())
    assert round(learned / 1e6) == 41  # HiFi-GAN's five
    assert len(MultiScaleStftDiscriminator().parts) == 5


def test_a_period_sees_every_pth_sample_alone() -> None:
    net = MultiPeriodDiscriminator(periods=[5], filters=4, layers=2)
    wav = torch.randn(1, 1, 100)
    other = wav.clone()
    other[..., 3::5] += 1
    changed = [(one - two).abs().amax((0, 1, 2)) > 0 for one, two in zip(net(wav)[1], net(other)[1], strict=True)]
    assert all(column.tolist() == [False, False, False, True, False] for column in changed)


@pytest.mark.parametrize("make", [stft, period])
def test_they_learn_to_tell_a_tone_from_noise(make: type) -> None:
    net = make()
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    for _ in range(30):
        real, fake = _tone_and_noise()
        loss = functional.relu(1 - net(real)[0]).mean() + functional.relu(1 + net(fake)[0]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    real, fake = _tone_and_noise()
    assert net(real)[0].mean() > net(fake)[0].mean() + 1


def _tone_and_noise() -> tuple[Tensor, Tensor]:
    return torch.sin(torch.arange(200) * 0.3 + 6 * torch.rand(8, 1, 1)), torch.randn(8, 1, 200)


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="windows must be multiples of 4, 16 or more"):
        MultiScaleStftDiscriminator(windows=[30])
    with pytest.raises(ValueError, match="periods must be 1 or more"):
        MultiPeriodDiscriminator(periods=[])
    with pytest.raises(ValueError, match="filters, most_filters and layers must be 1 or more"):
        MultiPeriodDiscriminator(layers=0)
    with pytest.raises(ValueError, match="shares must be two numbers or more"):
        GradientBalancer(shares=[1.0])


def test_each_loss_gets_its_share_whatever_its_scale() -> None:
    balancer = GradientBalancer(shares=[1.0, 3.0], decay=0.0)
    value = torch.randn(4, 10, requires_grad=True)
    first, second = balancer(value)
    assert first.equal(value)
    weights = torch.randn(2, 4, 10)
    (first * weights[0]).sum().add(1000 * (second * weights[1]).sum()).backward()
    assert value.grad is not None
    mean_norms = weights.norm(dim=2).mean(1)
    expected = weights[0] + weights[1] * (3 * mean_norms[0] / mean_norms[1])
    torch.testing.assert_close(value.grad, expected, rtol=1e-4, atol=1e-5)


def test_norms_are_moving_averages_that_a_checkpoint_holds() -> None:
    balancer, value = GradientBalancer(shares=[1.0, 1.0], decay=0.5), torch.ones(1, 4, requires_grad=True)
    for scale in (1.0, 3.0):
        one, other = balancer(value)
        (one.sum() + scale * other.sum()).backward()
    assert balancer.state_dict().keys() == {"norms", "steps"}
    torch.testing.assert_close(balancer.norms / balancer.steps, torch.tensor([2.0, 2.0 * (0.25 * 1 + 0.5 * 3) / 0.75]))


def test_a_loss_that_takes_no_part_or_is_not_finite_changes_no_norm() -> None:
    balancer, value = GradientBalancer(shares=[1.0, 1.0]), torch.ones(1, 4, requires_grad=True)
    one, _ = balancer(value)
    one.sum().backward()
    assert value.grad is not None
    assert value.grad.equal(torch.ones(1, 4))
    before = balancer.norms.clone()
    one, other = balancer(value)
    (one.sum() + torch.nan * other.sum()).backward()
    assert float(balancer.norms[1]) == 0
    assert torch.isfinite(balancer.norms).all()
    assert float(balancer.norms[0]) > float(before[0])
