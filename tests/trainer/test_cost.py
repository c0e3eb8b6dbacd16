"""What an experiment would cost elsewhere, beside what is reckoned by hand."""

from typing import Any

import pytest
import torch

from codes.trainer import cost
from codes.trainer.check import check
from codes.trainer.speed import GPUS
from codes.yaml_source import OptionError

PARAMETERS = 4 * (6 * 8 + 8 + 8 + 8 + 8 * 6 + 6)  # bytes of toy_mlp


def estimated(toy: Any, changes: dict[str, Any], devices: int) -> cost.Cost:
    trainer = toy.trainer(changes, fresh=True)
    return cost.estimate(trainer.experiment, trainer.parts, devices)


def test_memory_of_one_and_of_four(toy: Any) -> None:
    one = estimated(toy, {"train.ema_enabled": True}, 1)
    assert (one.weights_bytes, one.gradients_bytes, one.averages_bytes) == (PARAMETERS,) * 3
    assert one.optimizer_bytes == 2 * PARAMETERS
    assert one.step_flops == 2 * 8 * 6 * 8 * 5
    four = estimated(toy, {"train.ema_enabled": True}, 4)
    assert four.weights_bytes == PARAMETERS
    assert four.activations_bytes == one.activations_bytes / 4
    assert four.step_flops == one.step_flops
    sharded = estimated(toy, {"train.ema_enabled": True, "parallel": "fsdp"}, 4)
    assert sharded.memory_bytes - sharded.activations_bytes == (one.memory_bytes - one.activations_bytes) / 4
    assert estimated(toy, {"steps.fit.optimizer": "adamw_zero"}, 4).optimizer_bytes == PARAMETERS / 2
    assert estimated(toy, {"steps.fit.optimizer": "lion"}, 4).optimizer_bytes == PARAMETERS


def test_averages_hold_what_is_not_trained_as_well(toy: Any) -> None:
    trainer = toy.trainer({"networks.net": {"which_model": "toy_buffers"}, "train.ema_enabled": True})
    network = trainer.parts.networks["net"]
    held = sum(value.numel() * value.element_size() for value in network.state_dict().values())
    assert cost.estimate(trainer.experiment, trainer.parts, 1).averages_bytes == held
    assert held > 4 * sum(p.numel() for p in network.parameters())


def test_activations_are_what_is_held_at_most(toy: Any) -> None:
    """Of 8 items: x (6), the first layer (8), the norm (8, mean, deviation), tanh (8), the prediction's error (6); and
    what the backward pass is about to make of the last of them."""
    kept = estimated(toy, {}, 1).activations_bytes / 4 / 8
    assert 6 + 8 + 8 + 6 <= kept <= 6 + 8 + 8 + 2 + 8 + 6 + 6 + 6
    micro = estimated(toy, {"train.mega_batch_factor": 4}, 1).activations_bytes
    assert micro == pytest.approx(kept * 4 * 2, rel=0.5)  # gradients are as large as activations here


def test_hours_follow_from_operations() -> None:
    some = cost.Cost(
        weights_bytes=1, gradients_bytes=1, optimizer_bytes=2, averages_bytes=0, activations_bytes=5, step_flops=1e15
    )
    assert some.memory_bytes == 9
    assert some.hours(3600, GPUS["h200"], 8, torch.bfloat16, False) == pytest.approx(1e15 / (989e12 * 8 * 0.4))


def test_check_prints_it(toy: Any) -> None:
    printed = check(toy.trainer({"bf16": True}).experiment, 4, "h200")
    assert "4 device(s), ddp: 0.0 MiB each (weights 0.0 MiB, gradients" in printed
    assert "operations a step, all devices: 3840 FLOPs; of the whole run: 2.304e+04" in printed
    assert "h200: fits 131.32 GiB; about" in printed
    assert "6 steps at 40 % of its 989 TFLOPS in bfloat16" in printed
    assert printed.endswith("everything checks")


@pytest.mark.parametrize(
    ("devices", "gpu", "message"),
    [(1, "abacus", "--gpu abacus: known are b200, h200"), (9, None, "batch_size is 8: give each of 9 devices one")],
)
def test_what_cannot_be_reckoned(toy: Any, devices: int, gpu: str | None, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        check(toy.trainer().experiment, devices, gpu)
