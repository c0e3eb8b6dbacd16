"""Coins of teacher forcing, noise, latents and the gradient penalty."""

import math

import pytest
import torch
from torch import nn

from codes.entries import WeightSchedule
from codes.models.strided_autoencoder import StridedAutoencoder
from codes.trainer.injectors.latent import (
    DecodeLatentsInjector,
    EncodeLatentsInjector,
    GradientPenaltyInjector,
    NoiseInjector,
    TeacherForcingInjector,
)

SEEDS = torch.arange(1000)
WAV = torch.zeros(1000, 1, 8)


def coins(injector: TeacherForcingInjector, step: int = 0) -> torch.Tensor:
    injector.reseed(1)
    injector.item_seeds, injector.step = SEEDS, step
    return injector(WAV)


def test_a_ratio_of_one_asks_for_nothing() -> None:
    assert coins(TeacherForcingInjector(num_steps=6)).shape == (1000, 0)
    assert coins(TeacherForcingInjector(num_steps=6)).dtype == torch.bool


@pytest.mark.parametrize("granularity", ["step", "sequence"])
def test_shares_are_as_asked(granularity: str) -> None:
    drawn = coins(TeacherForcingInjector(num_steps=6, ratio=0.3, granularity=granularity))  # type: ignore[arg-type]
    assert drawn.shape == (1000, 6)
    assert math.isclose(float(drawn.float().mean()), 0.3, abs_tol=0.05)
    alike = (drawn == drawn[:, :1]).all(1).float().mean()
    assert (float(alike) == 1.0) == (granularity == "sequence")


def test_the_schedule_follows_the_training_step() -> None:
    schedule = WeightSchedule(from_=1.0, to=0.0, start_step=10, end_step=20)
    injector = TeacherForcingInjector(num_steps=6, ratio=schedule)
    assert [schedule.at(step) for step in (0, 10, 15, 20, 99)] == [1, 1, 0.5, 0, 0]
    assert coins(injector, 10).shape == (1000, 0)
    assert math.isclose(float(coins(injector, 15).float().mean()), 0.5, abs_tol=0.05)
    assert not coins(injector, 20).any()


def test_what_an_item_gets_does_not_depend_on_its_batch() -> None:
    coin, noise = TeacherForcingInjector(num_steps=6, ratio=0.5), NoiseInjector(shape=[5])
    for injector in (coin, noise):
        injector.reseed(1)
        injector.item_seeds = SEEDS
        whole = injector(WAV)
        injector.reseed(2)
        injector.item_seeds = SEEDS[10:14]
        assert torch.equal(injector(WAV[10:14]), whole[10:14])


def test_noise_is_normal() -> None:
    noise = NoiseInjector(shape=[5, 10])(WAV)
    assert noise.shape == (1000, 5, 10)
    assert abs(float(noise.mean())) < 0.02
    assert abs(float(noise.std()) - 1) < 0.02


def test_latents_there_and_back() -> None:
    net = StridedAutoencoder(strides=[2, 3], channels=4, latent_dim=5)
    wav = torch.randn(2, 1, 24)
    latents = EncodeLatentsInjector(autoencoder=net)(wav)
    assert latents.shape == (2, 4, 5)
    decoded = DecodeLatentsInjector(autoencoder=net)(latents)
    assert torch.equal(decoded, net(wav)[:, 0])
    assert torch.equal(EncodeLatentsInjector(autoencoder=net).inverse(latents), decoded[:, None])
    with pytest.raises(ValueError, match=r"autoencoder must have encode\(\) and decode\(\): Linear has not"):
        EncodeLatentsInjector(autoencoder=nn.Linear(2, 2))


class Square(nn.Module):
    """weight * sum of squares of both: its gradient is 2 weight x."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(3.0))

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return self.weight * (first.square().sum(1) + second.square().sum(1))


def test_gradient_penalty_by_hand() -> None:
    net, first, second = Square(), torch.randn(4, 3), torch.randn(4, 2)
    penalty = GradientPenaltyInjector(discriminator=net)(first, second)
    expected = 36 * (first.square().sum(1) + second.square().sum(1))
    assert torch.allclose(penalty, expected, rtol=1e-5)
    penalty.sum().backward()
    assert net.weight.grad is not None
    assert math.isclose(float(net.weight.grad), float(expected.sum()) * 2 / 3, rel_tol=1e-4)
    with torch.no_grad():
        measured = GradientPenaltyInjector(discriminator=net)(first, second)
    assert torch.allclose(measured, expected, rtol=1e-5)
    assert not measured.requires_grad


def test_wrong_options() -> None:
    with pytest.raises(ValueError, match=r"ratio must be 0 to 1, got 1\.5"):
        TeacherForcingInjector(num_steps=6, ratio=1.5)
    with pytest.raises(ValueError, match=r"ratio must be 0 to 1, got 1\.0 and -1\.0"):
        TeacherForcingInjector(num_steps=6, ratio=WeightSchedule(from_=1.0, to=-1.0, start_step=0, end_step=5))
    with pytest.raises(ValueError, match=r"end_step \(5\) must be above start_step \(5\)"):
        WeightSchedule(from_=1.0, to=0.0, start_step=5, end_step=5)
    with pytest.raises(ValueError, match="num_steps must be 1 or more, got 0"):
        TeacherForcingInjector(num_steps=0)
    with pytest.raises(ValueError, match=r"shape must be one or more numbers of 1 or more, got \[3, 0\]"):
        NoiseInjector(shape=[3, 0])
