"""Number formats: fp16 on a CPU, losses in fp32, and the loss scaler."""

from typing import Any

import pytest
import torch

from codes.registry import find
from codes.trainer.precision import Precision, choose_device
from codes.trainer.random_state import random_state, restore_random_state
from codes.yaml_source import OptionError

L2 = {"type": "pix", "criterion": "l2", "real": "y", "fake": "fake"}
PREDICT = {"type": "generator", "generator": "net", "in": "x", "out": "fake"}
SPY = {"type": "toy_spy", "in": "fake", "out": "_seen"}


@pytest.fixture
def seen(toy: Any) -> Any:
    """What the toys' spies saw, emptied."""
    toy.trainer()
    cls = find("injector", "toy_spy")
    assert cls is not None
    found: dict[str, list[Any]] = cls.forward.__globals__["SEEN"]
    found.clear()
    return found


@pytest.mark.parametrize(
    ("changes", "expected"), [({}, torch.float32), ({"bf16": True}, torch.bfloat16), ({"fp16": True}, torch.bfloat16)]
)
def test_format_of_the_forward_pass(toy: Any, seen: Any, changes: dict[str, Any], expected: torch.dtype) -> None:
    trainer = toy.trainer(changes | {"steps.fit.injectors": {"predict": PREDICT, "spy": SPY}})
    trainer.train_step()
    ((_, dtype, _, _),) = seen["spy"][0]
    assert dtype == expected
    assert all(p.dtype == torch.float32 for p in trainer.parts.networks["net"].parameters())
    assert trainer.precision.scaler is None


def test_fp16_on_a_cpu_is_said_once(toy: Any, capsys: pytest.CaptureFixture[str]) -> None:
    toy.train({"fp16": True, "train.niter": 2})
    out = capsys.readouterr().out.replace("\n", " ")
    assert out.count("fp16: this is a CPU, so bfloat16 is used instead") == 1
    toy.train({"bf16": True, "train.niter": 2}, fresh=True)
    assert "fp16:" not in capsys.readouterr().out


def test_both_formats_are_refused(toy: Any) -> None:
    with pytest.raises(OptionError, match="fp16 and bf16 cannot both be true"):
        toy.trainer({"fp16": True, "bf16": True})


@pytest.mark.parametrize("factor", [1, 2])
def test_losses_are_given_fp32(toy: Any, seen: Any, factor: int) -> None:
    """Also a loss that casts nothing itself: a sum over many bf16 values would lose most of them."""
    plain = {"type": "toy_plain", "real": "y", "fake": "fake"}
    trainer = toy.trainer({"bf16": True, "steps.fit.losses.plain": plain, "train.mega_batch_factor": factor})
    trainer.train_step()
    assert seen["plain_loss"] == [(torch.float32, torch.float32)] * factor


def test_losses_are_given_integers_as_they_are(toy: Any) -> None:
    data = {"mode": "toy_tokens", "vocabulary": 300, "batch_size": 2}
    trainer = toy.trainer({
        "bf16": True, "datasets.train": data,
        "networks.net": {"which_model": "toy_tied", "kwargs": {"vocabulary": 300}},
        "steps.fit.injectors.predict": PREDICT | {"in": "ids", "out": "logits"},
        "steps.fit.losses": {"nats": {"type": "cross_entropy", "logits": "logits", "labels": "ids"}},
    })  # fmt: skip
    trainer.train_step()  # labels in bf16 would be rounded


def test_bf16_learns_as_fp32(toys: Any) -> None:
    changes = {"train.niter": 40, "steps.fit.loss_log_buffer": 5}
    figures = [toys().train(changes | dtype).averages.figures(40)["error"] for dtype in ({}, {"bf16": True})]
    assert figures[1] == pytest.approx(figures[0], rel=0.05)


# --- the scaler, which a CPU has as well


def scaled(toy: Any, changes: dict[str, Any] | None = None, **options: Any) -> Any:
    """A trainer whose updates go through a loss scaler, its forward pass in fp32."""
    trainer = toy.trainer(changes)
    scaler = torch.amp.GradScaler("cpu", **{"init_scale": 1024.0, "growth_interval": 3, **options})
    trainer.precision.scaler = scaler
    for updaters in trainer.parts.updaters.values():
        for updater in updaters:
            updater.scaler = scaler
    return trainer


def difference(one: Any, other: Any, network: str = "net") -> float:
    pairs = zip(one.parts.networks[network].parameters(), other.parts.networks[network].parameters(), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lion"])
@pytest.mark.parametrize("factor", [1, 3])
@pytest.mark.parametrize("clip", [None, 0.1])
def test_scaling_changes_nothing(toys: Any, optimizer: str, factor: int, clip: float | None) -> None:
    losses = {"error": L2 | {"mask": "mask"}, "other": L2 | {"mask": "other", "weight": 0.5}}
    changes = {
        "steps.fit.optimizer": optimizer,
        "steps.fit.clip_grad_eps": clip,
        "steps.fit.losses": losses,
        "steps.fit.optimizer_params.lr": 0.003,
        "train.mega_batch_factor": factor,
    }
    one, other = scaled(toys(), changes), toys().trainer(changes)
    for _ in range(5):
        one.train_step()
        other.train_step()
    assert difference(one, other) < 1e-6
    assert one.precision.scaler.get_scale() == 2048, "it grows after 3 good steps"


def test_two_optimizers_are_unscaled_once_each(toys: Any) -> None:
    """DLAS unscaled the second one twice."""
    changes = {
        "networks.second": {"which_model": "toy_mlp"},
        "steps.fit.training": ["net", "second"],
        "steps.fit.clip_grad_eps": 0.1,
        "steps.fit.injectors.more": {"type": "generator", "generator": "second", "in": "fake", "out": "better"},
        "steps.fit.losses.error": L2 | {"fake": "better"},
    }
    one, other = scaled(toys(), changes), toys().trainer(changes)
    for _ in range(4):
        one.train_step()
        other.train_step()
    assert max(difference(one, other), difference(one, other, "second")) < 1e-6


@pytest.mark.parametrize("optimizer", ["adamw", "adamw8bit", "sgd", "lion"])
def test_overflow_is_skipped_and_halves_the_scale(toy: Any, weights: Any, same: Any, optimizer: str) -> None:
    bad = {"error": L2, "bad": {"type": "toy_nan", "fake": "fake", "after": 2, "before": 2}}
    trainer = scaled(toy, {"steps.fit.losses": bad, "steps.fit.optimizer": optimizer})
    trainer.train_step()
    before = weights(trainer)
    trainer.train_step()
    assert same(before, weights(trainer))
    assert trainer.precision.scaler.get_scale() == 512
    trainer.train_step()
    assert not same(before, weights(trainer))
    (updater,) = trainer.parts.updaters["net"]
    updater.read_norms()
    assert updater.skipped == 1


@pytest.mark.parametrize("conditions", [{"every": 2}, {"after": 3}, {"before": 2}])
def test_steps_that_are_not_due(toy: Any, conditions: dict[str, int]) -> None:
    """A batch on which nothing is updated has nothing to tell the scaler."""
    trainer = scaled(toy, {f"steps.fit.{key}": value for key, value in conditions.items()})
    for _ in range(5):
        trainer.train_step()


def test_a_network_that_is_still_frozen(toy: Any) -> None:
    trainer = scaled(toy, {"networks.net.after": 3})
    for _ in range(5):
        trainer.train_step()


def test_losses_that_are_not_due(toy: Any) -> None:
    trainer = scaled(toy, {"steps.fit.losses.error": L2 | {"every": 2}})
    for _ in range(4):
        trainer.train_step()


def test_scaler_is_saved_and_restored(toys: Any, weights: Any, same: Any) -> None:
    """Its scale and its growth go on."""
    whole, parts = toys(), toys()
    changes = {"train.niter": 7}
    one = scaled(whole, changes)
    one.train()
    first = scaled(parts, changes)
    for _ in range(4):
        first.train_step()
    first.save()
    second = scaled(parts, changes)
    state = torch.load(second._resumed / "state.pt", weights_only=True)
    assert state["scaler"]["scale"] == 2048
    second.precision.scaler.load_state_dict(state["scaler"])
    second.train()
    assert same(weights(one), weights(second))
    assert one.precision.scaler.state_dict() == second.precision.scaler.state_dict()


# --- devices


def test_no_gpu_is_the_cpu(toy: Any) -> None:
    trainer = toy.trainer({"gpu_ids": []})
    assert trainer.device == torch.device("cpu")
    if not torch.cuda.is_available():
        assert toy.trainer({"gpu_ids": [3]}, fresh=True).device == torch.device("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_that_is_not_there(toy: Any) -> None:
    with pytest.raises(OptionError, match=r"gpu_ids names GPU 99; this machine has \d+"):
        toy.trainer({"gpu_ids": [99]})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("changes", [{}, {"bf16": True}, {"fp16": True}], ids=str)
def test_resume_on_a_gpu(toys: Any, lines: Any, weights: Any, same: Any, changes: dict[str, Any]) -> None:
    """Windows, norms, scaler, averages and random numbers come back to the device."""
    full = changes | {"gpu_ids": [0], "train.ema_enabled": True, "networks.net.kwargs": {"dropout": 0.2}}
    whole, parts = toys(), toys()
    one = whole.train(full | {"train.niter": 8})
    parts.train(full | {"train.niter": 4})
    other = parts.train(full | {"train.niter": 8})
    assert same(weights(one), weights(other))
    assert lines(one.folder.path) == lines(other.folder.path)


def test_a_machine_with_fewer_gpus_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint has the random numbers of every GPU that was there."""
    saved, taken = random_state() | {"cuda": [torch.zeros(16), torch.ones(16)]}, []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", taken.extend)
    restore_random_state(saved)
    assert len(taken) == 1
    assert taken[0] is saved["cuda"][0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_fp16_on_a_gpu_is_scaled() -> None:
    precision = Precision(torch.device("cuda", 0), fp16=True, bf16=False)
    assert precision.dtype == torch.float16
    assert precision.scaler is not None
    assert precision.note == ""


def test_choose_device_takes_the_options(toy: Any) -> None:
    assert choose_device(toy.trainer().options) == torch.device("cpu")
