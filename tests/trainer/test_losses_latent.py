"""KL, free bits and the distance of two noises, by hand; KL within bits per sample."""

import math
from typing import Any

import pytest
import torch

from codes.entries import LossEntry, LossFlags
from codes.trainer.losses import CodeLengthLoss
from codes.trainer.losses_latent import FreeBitsLoss, KlLoss, NoiseDistanceLoss
from codes.trainer.metrics import Averages
from codes.trainer.step import BoundLoss
from codes.yaml_source import Mark

KL = torch.tensor([[0.05, 1.0], [0.3, 0.0]])


def test_kl_is_the_mean_of_an_items_sum() -> None:
    total, count = KlLoss()(KL)  # type: ignore[misc]
    assert math.isclose(float(total) / float(count), 1.35 / 2, rel_tol=1e-6)


def test_free_bits_are_free() -> None:
    kl = KL.clone().requires_grad_()
    total, count = FreeBitsLoss(free_nats=0.1)(kl)  # type: ignore[misc]
    assert math.isclose(float(total.detach()), 0.1 + 1.0 + 0.3 + 0.1, rel_tol=1e-6)
    assert count == 2
    total.backward()
    assert kl.grad is not None
    assert kl.grad.tolist() == [[0, 1], [1, 0]]
    with pytest.raises(ValueError, match="free_nats must be above 0, got 0: use kl"):
        FreeBitsLoss(free_nats=0)


def test_noise_distance_is_relative() -> None:
    first = torch.randn(3, 50)
    same, count = NoiseDistanceLoss()(first, first)  # type: ignore[misc]
    assert float(same) == 0
    apart, count = NoiseDistanceLoss()(first, -first)  # type: ignore[misc]
    assert math.isclose(float(apart) / float(count), 2.0, rel_tol=1e-5)
    loud, louder = NoiseDistanceLoss()(first * 9, -first * 9)  # type: ignore[misc]
    assert math.isclose(float(loud) / float(louder), 2.0, rel_tol=1e-5)
    with pytest.raises(ValueError, match="differ in shape"):
        NoiseDistanceLoss()(first, first[:, 1:])


def test_what_is_far_enough_apart_is_pushed_no_further() -> None:
    first = torch.tensor([[1.0, 1.0], [1.0, 1.0]], requires_grad=True)
    second = torch.tensor([[0.9, 0.9], [0.0, 0.0]])
    total, count = NoiseDistanceLoss(enough=0.5)(first, second)  # type: ignore[misc]
    assert math.isclose(float(total.detach()) / float(count), 2.2 / 2.9, rel_tol=1e-5)  # the true distance
    total.backward()
    assert first.grad is not None
    assert first.grad.tolist() == [[1, 1], [0, 0]]
    with pytest.raises(ValueError, match="enough must be above 0, got 0"):
        NoiseDistanceLoss(enough=0)


def bound(name: str, loss: Any, weight: float) -> BoundLoss:
    flags = LossFlags(type=name, weight=weight)
    return BoundLoss(LossEntry(name=name, mark=Mark("x", 1, 1), flags=flags, component=None, reads={}), loss, "s")


def test_bits_per_sample_count_what_z_costs_whatever_its_weight() -> None:
    averages = Averages({"s": [bound("code_length", CodeLengthLoss(), 1.0), bound("kl", KlLoss(), 0.0)]})
    nats = torch.tensor(200 * math.log(2))
    averages.add("s", {"code_length": [(nats, 100)], "kl": [(torch.tensor(30 * math.log(2)), 4)]})
    figures = averages.figures(1)
    assert math.isclose(figures["bits_per_sample"], 2.3, rel_tol=1e-6)
    assert math.isclose(figures["loss"], 2 * math.log(2), rel_tol=1e-6)
