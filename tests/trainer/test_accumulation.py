"""Splitting a batch into micro-batches must not change the update, whatever the losses count."""

from typing import Any

import pytest
import torch

from codes.trainer.state import split_batch

L2 = {"type": "pix", "criterion": "l2", "real": "y", "fake": "fake"}
LOSSES: dict[str, dict[str, Any]] = {
    "shape": {"error": L2},
    "masked": {"error": L2 | {"mask": "mask"}},
    "two masks": {"error": L2 | {"mask": "mask"}, "other": {**L2, "criterion": "l1", "mask": "other", "weight": 0.3}},
    "mask and shape": {"error": L2 | {"mask": "mask"}, "plain": L2 | {"weight": 2.0}},
    "scalar": {"error": {"type": "toy_mean", "real": "y", "fake": "fake"}},
    "scalar and mask": {
        "error": {"type": "toy_mean", "real": "y", "fake": "fake"},
        "other": L2 | {"mask": "other"},
    },
    "schedule": {"error": L2 | {"weight": {"from": 0.0, "to": 2.0, "start_step": 0, "end_step": 4}}},
}


def run(toys: Any, losses: dict[str, Any], factor: int, changes: dict[str, Any], steps: int = 3) -> Any:
    trainer = toys().trainer({"steps.fit.losses": losses, "train.mega_batch_factor": factor, **changes})
    for _ in range(steps):
        trainer.train_step()
    return trainer


def largest_difference(one: Any, other: Any) -> float:
    pairs = zip(one.parts.networks["net"].parameters(), other.parts.networks["net"].parameters(), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


@pytest.mark.parametrize("losses", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize(("batch", "factor"), [(8, 4), (7, 3), (5, 3), (5, 9)])
def test_factor_changes_nothing(toys: Any, losses: dict[str, Any], batch: int, factor: int) -> None:
    changes = {"datasets.train.batch_size": batch}
    whole, parts = run(toys, losses, 1, changes), run(toys, losses, factor, changes)
    assert largest_difference(whole, parts) < 1e-6


@pytest.mark.parametrize("losses", ["masked", "two masks", "scalar and mask"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lion", "adamw_zero"])
@pytest.mark.parametrize("clip", [None, 0.05])
def test_every_optimizer_and_clipping(toys: Any, losses: str, optimizer: str, clip: float | None) -> None:
    changes = {
        "steps.fit.optimizer": optimizer,
        "steps.fit.clip_grad_eps": clip,
        "steps.fit.optimizer_params": {"lr": 0.003, "weight_decay": 0.1},
    }
    whole, parts = run(toys, LOSSES[losses], 1, changes), run(toys, LOSSES[losses], 4, changes)
    assert largest_difference(whole, parts) < 1e-6


def test_gradient_is_that_of_the_loss_over_the_whole_batch(toys: Any) -> None:
    """Independent of the trainer: the mean over all counted values of the batch, by hand."""
    trainer = run(toys, LOSSES["two masks"], 4, {"steps.fit.optimizer_params": {"lr": 1e-30}}, steps=0)
    batch = trainer.parts.train_loader.batch(0)
    network = trainer.parts.networks["net"]
    fake, y, mask, other = network(batch["x"]), batch["y"], batch["mask"], batch["other"]
    total = ((fake - y).square() * mask).sum() / mask.sum() + 0.3 * ((fake - y).abs() * other).sum() / other.sum()
    expected = torch.autograd.grad(total, list(network.parameters()))
    trainer.train_step()
    for p, grad in zip(network.parameters(), expected, strict=True):
        assert p.grad is not None
        assert torch.allclose(p.grad, grad, atol=1e-6)


@pytest.mark.parametrize("losses", LOSSES.values(), ids=LOSSES)
def test_logged_figures_are_those_of_the_whole_batch(toys: Any, losses: dict[str, Any]) -> None:
    whole, parts = run(toys, losses, 1, {}), run(toys, losses, 3, {})
    figures = parts.averages.figures(3)
    assert figures == pytest.approx(whole.averages.figures(3), rel=1e-5)
    assert figures.keys() >= {"loss", *losses}


@pytest.mark.parametrize("factor", [1, 2, 8])
def test_a_micro_batch_that_counts_nothing(toys: Any, factor: int) -> None:
    """The first micro-batch is wholly masked; nothing overflows, even where gradients are scaled up for fp16."""
    changes = {"datasets.train.batch_size": 8, "steps.fit.optimizer": "sgd"}
    trainer = toys().trainer({"steps.fit.losses": LOSSES["masked"], "train.mega_batch_factor": factor, **changes})
    whole = toys().trainer({"steps.fit.losses": LOSSES["masked"], **changes})
    batch = trainer.parts.train_loader.batch(0)
    batch["mask"][:4] = 0
    largest = []
    for p in trainer.parts.networks["net"].parameters():
        p.register_hook(lambda grad: largest.append(float(grad.abs().max())))
    trainer.run_batch(batch, 1)
    whole.run_batch(batch, 1)
    assert largest_difference(trainer, whole) < 1e-6
    assert max(largest) < 100


def test_a_batch_that_counts_nothing_moves_nothing(toys: Any) -> None:
    for factor in (1, 4):
        trainer = toys().trainer(
            {"steps.fit.losses": LOSSES["two masks"], "train.mega_batch_factor": factor, "steps.fit.optimizer": "sgd",
             "steps.fit.optimizer_params": {"lr": 0.1, "weight_decay": 0.0}}
        )  # fmt: skip
        before = [p.detach().clone() for p in trainer.parts.networks["net"].parameters()]
        batch = trainer.parts.train_loader.batch(0)
        batch["mask"].zero_()
        batch["other"].zero_()
        trainer.run_batch(batch, 1)
        for p, old in zip(trainer.parts.networks["net"].parameters(), before, strict=True):
            assert torch.equal(p, old)


def test_counts_that_no_common_backward_can_weigh_are_refused(toys: Any) -> None:
    from codes.trainer.step import Step

    trainer = toys().trainer({"steps.fit.losses": {"a": L2, "b": L2}, "train.mega_batch_factor": 2})
    step: Step = trainer.parts.steps[0]
    tally: Any = {
        "a": [(torch.ones(()), 4.0), (torch.ones(()), 4.0)],
        "b": [(torch.ones(()), 4.0), (torch.ones(()), 1.0)],
    }
    (group,) = step._group({"a": tally["a"][0], "b": tally["b"][0]}, 2)
    with pytest.raises(ValueError, match="losses a, b counted unevenly over micro-batches: let them return counts as"):
        step._ratio(group, tally, [4, 4])


@pytest.mark.parametrize(
    ("items", "parts", "sizes"), [(8, 1, [8]), (8, 4, [2] * 4), (7, 3, [3, 3, 1]), (5, 9, [1] * 5)]
)
def test_split_batch(items: int, parts: int, sizes: list[int]) -> None:
    batch = {"x": torch.arange(items), "path": [str(n) for n in range(items)]}
    split = split_batch(batch, parts)
    assert [len(micro["x"]) for micro in split] == sizes
    assert torch.equal(torch.cat([micro["x"] for micro in split]), batch["x"])
    assert [name for micro in split for name in micro["path"]] == batch["path"]
