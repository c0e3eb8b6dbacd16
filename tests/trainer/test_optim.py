"""Learning rates, parameter groups, optimizers, clipping and moving averages against independent references."""

import copy
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from codes.entries import OptimizerParams, ParameterGroup
from codes.options import TrainOptions
from codes.trainer.optim import Lion, MovingAverage, Updater, learning_rate, make_optimizer, parameter_groups
from codes.yaml_source import OptionError

BASE_LR = 0.5


def rates(steps: int, **options: Any) -> list[float]:
    """The learning rates of updates 1 to `steps`."""
    train = TrainOptions(**{"niter": steps, **options})
    return [learning_rate(BASE_LR, step, train) for step in range(1, steps + 1)]


def torch_rates(steps: int, make: Any) -> list[float]:
    """What a scheduler of torch uses for updates 1 to `steps`."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=BASE_LR)
    scheduler = make(optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


# --- learning rates


def test_constant() -> None:
    assert rates(5) == [BASE_LR] * 5


@pytest.mark.parametrize("warmup", [1, 2, 5])
def test_warm_up(warmup: int) -> None:
    """The first step is not full (unless it is the only one), the last warm-up step is, and so are all later ones."""
    found = rates(8, warmup_iter=warmup)
    assert found[:warmup] == pytest.approx([BASE_LR * step / warmup for step in range(1, warmup + 1)])
    assert found[warmup - 1 :] == [BASE_LR] * (9 - warmup)
    assert found[0] < BASE_LR or warmup == 1


@pytest.mark.parametrize("warmup", [-1, 0])
def test_no_warm_up(warmup: int) -> None:
    assert rates(3, warmup_iter=warmup) == [BASE_LR] * 3


def test_multi_step() -> None:
    milestones = [3, 7, 8]
    found = rates(12, default_lr_scheme="MultiStepLR", gen_lr_steps=milestones, lr_gamma=0.1)
    scheduler = torch_rates(12, lambda o: torch.optim.lr_scheduler.MultiStepLR(o, milestones, 0.1))
    assert found == pytest.approx(scheduler)
    assert found[2] == BASE_LR, "update 3 is still full"
    assert found[3] == pytest.approx(BASE_LR / 10), "update 4 is the first after the milestone"


def test_multi_step_is_a_closed_form(toy: Any) -> None:
    """A run that resumes past a milestone has its rate, also when the milestone was never passed while it ran."""
    scheme = {"train.default_lr_scheme": "MultiStepLR", "train.gen_lr_steps": [2, 4], "train.lr_gamma": 0.1}
    toy.train({"train.niter": 3, **scheme})
    trainer = toy.trainer({"train.niter": 6, **scheme})
    trainer.train_step()
    group = trainer.parts.updaters["net"][0].optimizer.param_groups[0]
    assert group["lr"] == pytest.approx(0.01 * 0.1)
    trainer.train_step()
    assert group["lr"] == pytest.approx(0.01 * 0.01)


def test_multi_step_with_restarts() -> None:
    """A restart sets the rate to its weight times the base; milestones at or before it count no more."""
    scheme: dict[str, Any] = {"default_lr_scheme": "MultiStepLR", "gen_lr_steps": [2, 4, 6, 6], "lr_gamma": 0.1}
    shares = [1, 1, 0.1, 0.1, 0.5, 0.5, 0.005, 0.005, 0.25, 0.25]
    found = rates(10, **scheme, restarts=[4, 8], restart_weights=[0.5, 0.25])
    assert found == pytest.approx([BASE_LR * share for share in shares])
    shares = [1, 1, 0.1, 0.1, 1, 1, 0.01, 0.01, 1, 1]
    assert rates(10, **scheme, restarts=[4, 8]) == pytest.approx([BASE_LR * share for share in shares])
    with pytest.raises(ValueError, match="restart_weights needs one factor for each of restarts"):
        rates(1, **scheme, restarts=[4], restart_weights=[1.0, 0.5])


def test_progressive_multi_step() -> None:
    """Every group counts the milestones from its own start; one that progressive_starts does not reach from 0."""
    train = TrainOptions(niter=8, default_lr_scheme="ProgressiveMultiStepLR", gen_lr_steps=[2, 4], lr_gamma=0.1,
                         progressive_starts=[0, 3])  # fmt: skip
    found = [[learning_rate(BASE_LR, step, train, group) / BASE_LR for step in range(1, 9)] for group in range(3)]
    assert found[0] == found[2] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01])
    assert found[1] == pytest.approx([1, 1, 1, 1, 1, 0.1, 0.1, 0.01])


def test_the_groups_of_a_network_have_their_own_starts(toy: Any) -> None:
    trainer = toy.trainer({
        "train.default_lr_scheme": "ProgressiveMultiStepLR", "train.gen_lr_steps": [1], "train.lr_gamma": 0.1,
        "train.progressive_starts": [0, 1], "train.niter": 3,
        "steps.fit.optimizer_params": {"lr": 0.01, "param_groups": {"last": {"lr": 0.5}}},
    })  # fmt: skip
    groups = trainer.parts.updaters["net"][0].optimizer.param_groups
    found = []
    for _ in range(3):
        trainer.train_step()
        found.append(sorted({group["lr"] for group in groups}))
    assert found == [pytest.approx(pair) for pair in ([0.01, 0.5], [0.001, 0.5], [0.001, 0.05])]


def test_cosine_without_restarts() -> None:
    found = rates(10, default_lr_scheme="CosineAnnealingLR_Restart", eta_min=0.01)
    assert found == pytest.approx(torch_rates(10, lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 10, 0.01)))


def test_cosine_with_equal_restarts() -> None:
    found = rates(12, default_lr_scheme="CosineAnnealingLR_Restart", eta_min=0.02, restarts=[4, 8])
    scheduler = torch_rates(12, lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 4, 1, 0.02))
    assert found == pytest.approx(scheduler)


def test_cosine_with_doubling_restarts() -> None:
    found = rates(14, default_lr_scheme="CosineAnnealingLR_Restart", restarts=[2, 6], T_period=[2, 4, 8])
    scheduler = torch_rates(14, lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 2, 2))
    assert found == pytest.approx(scheduler)


def test_cosine_restart_weights() -> None:
    found = rates(9, default_lr_scheme="CosineAnnealingLR_Restart", restarts=[3, 6], restart_weights=[0.5, 0.25])
    assert [found[0], found[3], found[6]] == pytest.approx([BASE_LR, BASE_LR * 0.5, BASE_LR * 0.25])


def test_cosine_stays_down_after_its_period() -> None:
    found = rates(8, default_lr_scheme="CosineAnnealingLR_Restart", T_period=[4], eta_min=0.1)
    assert found[4:] == pytest.approx([0.1] * 4)


def test_inverse_sqrt() -> None:
    found = rates(16, default_lr_scheme="inverse_sqrt", warmup_iter=4)
    assert found[3] == BASE_LR
    assert found[15] == pytest.approx(BASE_LR / 2)
    assert found[4:] == pytest.approx([BASE_LR * math.sqrt(4 / step) for step in range(5, 17)])
    assert found[3:] == sorted(found[3:], reverse=True)


@pytest.mark.parametrize("scheme", ["constant", "MultiStepLR", "CosineAnnealingLR_Restart", "inverse_sqrt"])
def test_every_scheme_is_finite_and_positive_from_the_first_step(scheme: Any) -> None:
    assert all(0 < rate <= BASE_LR for rate in rates(20, default_lr_scheme=scheme, warmup_iter=5))


# --- parameter groups


class Parts(nn.Module):
    """One of each kind of parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.body = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.rms_norm = nn.RMSNorm(4)
        self.batch = nn.BatchNorm1d(4)
        self.conv = nn.Conv1d(4, 4, 3)
        self.head = nn.Linear(4, 5)
        self.scale = nn.Parameter(torch.ones(()))


def names(network: nn.Module, groups: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """(learning rate, weight decay) by parameter name."""
    by_id = {id(p): name for name, p in network.named_parameters()}
    found = {by_id[id(p)]: (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert sum(len(g["params"]) for g in groups) == len(found), "a parameter in two groups"
    return found


def test_no_decay_on_norms_biases_and_embeddings() -> None:
    network = Parts()
    found = names(network, parameter_groups(network, OptimizerParams(lr=0.1, weight_decay=0.2)))
    assert found.keys() == dict(network.named_parameters()).keys()
    assert {name for name, (_, decay) in found.items() if decay} == {"body.weight", "conv.weight", "head.weight"}


def test_tied_weights_are_in_one_group() -> None:
    network = Parts()
    network.head = nn.Linear(4, 5, bias=False)
    network.head.weight = network.embedding.weight
    found = names(network, parameter_groups(network, OptimizerParams(weight_decay=0.2)))
    assert found["embedding.weight"][1] == 0


def test_own_groups() -> None:
    network = Parts()
    params = OptimizerParams(
        lr=0.1, weight_decay=0.2,
        param_groups={"head": ParameterGroup(lr=0.7), "slow": ParameterGroup(match=["body", "conv"], weight_decay=0.5)},
    )  # fmt: skip
    found = names(network, parameter_groups(network, params))
    assert found["head.weight"] == (0.7, 0.2)
    assert found["head.bias"] == (0.7, 0.0)
    assert found["body.weight"] == (0.1, 0.5)
    assert found["conv.bias"] == (0.1, 0.0)
    assert found["embedding.weight"] == (0.1, 0.0)


def test_own_group_keeps_its_rate_under_a_schedule(toy: Any) -> None:
    trainer = toy.trainer({
        "steps.fit.optimizer_params": {"lr": 0.01, "param_groups": {"last": {"lr": 0.1}}},
        "train.warmup_iter": 4,
    })  # fmt: skip
    trainer.train_step()
    found = sorted({group["lr"] for group in trainer.parts.updaters["net"][0].optimizer.param_groups})
    assert found == pytest.approx([0.01 / 4, 0.1 / 4])


def test_group_without_parameters_is_an_error(toy: Any) -> None:
    with pytest.raises(OptionError, match=r"param_groups\.lst matches no parameter of the network"):
        toy.trainer({"steps.fit.optimizer_params": {"param_groups": {"lst": {"lr": 0.1}}}})


# --- optimizers


def two_networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(3)
    one = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    other = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    other.load_state_dict(one.state_dict())
    return one, other


def gradients(network: nn.Module, step: int, scale: float = 1.0) -> None:
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(step))
    network.zero_grad()
    (network(x).square().mean() * scale).backward()


PARAMS = OptimizerParams(lr=0.05, weight_decay=0.1, beta1=0.8, beta2=0.95, momentum=0.7)
TRAIN = TrainOptions(niter=10)


def reference(kind: str, network: nn.Module) -> torch.optim.Optimizer:
    groups = [
        {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in network.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    if kind == "sgd":
        return torch.optim.SGD(groups, lr=0.05, momentum=0.7)
    return torch.optim.AdamW(groups, lr=0.05, betas=(0.8, 0.95))


@pytest.mark.parametrize("kind", ["adamw", "adamw_zero", "sgd"])
@pytest.mark.parametrize("clip", [None, 0.3, 1e9])
def test_updates_equal_torch(kind: str, clip: float | None) -> None:
    ours, theirs = two_networks()
    updater = Updater(ours, make_optimizer(kind, ours, PARAMS), clip)
    optimizer = reference(kind, theirs)
    for step in range(1, 8):
        gradients(ours, step)
        gradients(theirs, step)
        if clip is not None:
            norm = nn.utils.clip_grad_norm_(theirs.parameters(), clip)
            updater.update(step, TRAIN)
            assert updater.read_norms() == pytest.approx(float(norm))
        else:
            updater.update(step, TRAIN)
        optimizer.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_clip_is_global_over_all_groups() -> None:
    """One norm for the whole network, not one a group."""
    network, _ = two_networks()
    updater = Updater(network, make_optimizer("adamw", network, PARAMS), clip=0.1)
    gradients(network, 1, scale=100.0)
    updater.update(1, TRAIN)
    total = torch.sqrt(sum((p.grad.square().sum() for p in network.parameters()), torch.zeros(())))  # type: ignore[union-attr]
    assert float(total) == pytest.approx(0.1, rel=1e-4)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_lion_equals_its_paper(weight_decay: float) -> None:
    """c = b1 m + (1 - b1) g; p -= lr (sign c + wd p); m = b2 m + (1 - b2) g (Chen et al. 2023, algorithm 2)."""
    torch.manual_seed(0)
    p = nn.Parameter(torch.randn(5, dtype=torch.float64))
    expected, momentum = p.detach().clone(), torch.zeros(5, dtype=torch.float64)
    optimizer = Lion([p], lr=0.01, betas=(0.9, 0.99), weight_decay=weight_decay)
    for _ in range(20):
        grad = torch.randn(5, dtype=torch.float64)
        p.grad = grad.clone()
        optimizer.step()
        direction = torch.sign(0.9 * momentum + 0.1 * grad)
        expected = expected - 0.01 * (direction + weight_decay * expected)
        momentum = 0.99 * momentum + 0.01 * grad
        assert torch.allclose(p.detach(), expected, atol=1e-12)
    assert torch.allclose(optimizer.state[p]["momentum"], momentum, atol=1e-12)


@pytest.mark.parametrize("kind", ["adamw", "adamw_zero", "adamw8bit", "sgd", "lion"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("first", [True, False])
def test_update_that_is_not_finite_changes_nothing(kind: str, bad: float, first: bool) -> None:
    """Neither weights nor optimizer state; the next finite update is as if it had not happened."""
    ours, theirs = two_networks()
    updater = Updater(ours, make_optimizer(kind, ours, PARAMS), clip=1.0)
    other = Updater(theirs, make_optimizer(kind, theirs, PARAMS), clip=1.0)
    for step in range(1, 5):
        if step == (1 if first else 3):
            gradients(ours, 99)
            next(iter(ours.parameters())).grad[0, 0] = bad  # type: ignore[index]
            before = [p.detach().clone() for p in ours.parameters()]
            updater.update(step, TRAIN)
            assert all(torch.equal(p, old) for p, old in zip(ours.parameters(), before, strict=True))
            assert updater.read_norms() is None
            assert (updater.skipped, updater.streak) == (1, 1)
        gradients(ours, step)
        gradients(theirs, step)
        updater.update(step, TRAIN)
        other.update(step, TRAIN)
    assert updater.read_norms() is not None
    assert (updater.skipped, updater.streak) == (1, 0)
    assert all(torch.equal(p, q) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True))


@pytest.mark.parametrize("kind", ["adamw", "adamw8bit", "sgd", "lion"])
def test_optimizer_state_is_restored(kind: str) -> None:
    ours, theirs = two_networks()
    updater = Updater(ours, make_optimizer(kind, ours, PARAMS))
    for step in (1, 2):
        gradients(ours, step)
        updater.update(step, TRAIN)
    theirs.load_state_dict(ours.state_dict())
    other = Updater(theirs, make_optimizer(kind, theirs, PARAMS))
    other.load_state_dict(copy.deepcopy(updater.state_dict()))  # as from a file: torch keeps references
    for step in (3, 4):
        for network, one in ((ours, updater), (theirs, other)):
            gradients(network, step)
            one.update(step, TRAIN)
    assert all(torch.equal(p, q) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True))


ZERO = """
import os, sys, torch
from torch import nn
from codes.entries import OptimizerParams
from codes.options import TrainOptions
from codes.trainer.optim import Updater, make_optimizer
rank, file = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
torch.manual_seed(3)
nets = [nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)) for _ in range(2)]
nets[1].load_state_dict(nets[0].state_dict())
params = OptimizerParams(lr=0.05, weight_decay=0.1)
updaters = [Updater(n, make_optimizer(k, n, params)) for k, n in zip(("adamw_zero", "adamw"), nets)]
assert "ZeroRedundancy" in type(updaters[0].optimizer).__name__
for step in range(1, 6):
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(step))
    for net, updater in zip(nets, updaters):
        updater.zero_grad()
        (net(x).square().mean() * (float("nan") if step == 3 else 1)).backward()
        updater.update(step, TrainOptions(niter=9, warmup_iter=4))
for p, q in zip(nets[0].parameters(), nets[1].parameters()):
    assert torch.allclose(p, q, atol=1e-7), (step, p - q)
torch.distributed.barrier()
os._exit(0)  # gloo's threads may abort a process that ends in the usual way
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch is built without distributed")
def test_adamw_zero_over_two_processes(tmp_path: Path) -> None:
    """Sharded and not sharded, the same weights, a skipped update included."""
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "GLOO_SOCKET_IFNAME": "lo"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", ZERO, str(rank), str(tmp_path / "store")],
            env=environment, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    for process in started:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors


# --- moving averages


@pytest.fixture
def buffers(toy: Any) -> Any:
    """A trainer of the network with buffers of every kind, with a moving average."""
    return toy.trainer({
        "networks.net": {"which_model": "toy_buffers"}, "train.ema_enabled": True, "train.ema_rate": 0.75,
    })  # fmt: skip


def test_average_of_parameters_and_buffers(buffers: Any) -> None:
    """Floats are averaged, batch norm's included and those bound to a new tensor at every step; integers are copied."""
    network, average = buffers.parts.networks["net"], buffers.parts.averages["net"]
    expected = {name: value.detach().clone() for name, value in network.state_dict().items()}
    for _ in range(4):
        buffers.train_step()
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                expected[name] = 0.75 * expected[name] + 0.25 * value
            else:
                expected[name] = value.clone()
    found = average.state_dict()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(found[name], value, atol=1e-6), name
    assert int(found["seen"]) == 32
    assert float(found["level"][0]) > 2


def test_swap_twice_restores_everything(buffers: Any, weights: Any, same: Any) -> None:
    for _ in range(3):
        buffers.train_step()
    average = buffers.parts.averages["net"]
    live, mean = weights(buffers), {name: value.clone() for name, value in average.state_dict().items()}
    average.swap()
    assert same(weights(buffers), mean)
    average.swap()
    assert same(weights(buffers), live)
    assert same(average.state_dict(), mean)


def test_tied_weights_survive_the_average(toys: Any, weights: Any, same: Any) -> None:
    """A tied parameter is averaged once, and swapping back restores it."""
    changes = {
        "datasets.train": {"mode": "toy_tokens", "batch_size": 4},
        "networks.net": {"which_model": "toy_tied"},
        "steps.fit.injectors": {"predict": {"type": "generator", "generator": "net", "in": "ids", "out": "logits"}},
        "steps.fit.losses": {"nats": {"type": "cross_entropy", "logits": "logits", "labels": "ids"}},
    }
    trainer = toys().trainer(changes | {"train.ema_enabled": True, "train.ema_rate": 0.5})
    network, average = trainer.parts.networks["net"], trainer.parts.averages["net"]
    expected = network.embedding.weight.detach().clone()
    for _ in range(3):
        trainer.train_step()
        expected = 0.5 * expected + 0.5 * network.embedding.weight.detach()
    live = weights(trainer)
    average.swap()
    assert torch.allclose(network.embedding.weight, expected, atol=1e-6)
    average.swap()
    assert same(weights(trainer), live)
    with_val = {"datasets.val": {"mode": "toy_tokens", "batch_size": 4}, "train.val_freq": 1, "train.ema_enabled": True}
    assert same(weights(toys().train(changes)), weights(toys().train(changes | with_val)))


def test_validation_uses_the_average(toy: Any, lines: Any, weights: Any) -> None:
    """The val figure is that of the averaged weights, computed here by hand; training goes on with its own."""
    trainer = toy.train({
        "train.ema_enabled": True, "train.ema_rate": 0.9, "train.niter": 5,
        "datasets.val": {"num_items": 8, "batch_size": 8}, "steps.fit.optimizer_params.lr": 0.1,
    })  # fmt: skip
    network = trainer.parts.networks["net"]
    batch = trainer.parts.val_loader.batch(0)
    figures = []
    for state in (weights(trainer), trainer.parts.averages["net"].state_dict()):
        network.load_state_dict(state)
        figures.append(float((network.eval()(batch["x"]) - batch["y"]).square().mean().detach()))
    (val,) = [line for line in lines(trainer.folder.path) if line["split"] == "val"]
    assert val["error"] == pytest.approx(figures[1], rel=1e-5)
    assert abs(figures[0] - figures[1]) > 1e-3


def test_average_rate_zero_is_the_network() -> None:
    network = nn.Linear(2, 2)
    average = MovingAverage(network, 0.0)
    network.weight.data.fill_(7.0)
    average.update()
    assert torch.equal(average.state_dict()["weight"], network.weight)
