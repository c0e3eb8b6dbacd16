"""What a training step costs beside a bare loop, counted in tensor operations; and that it never waits for a figure."""

import collections
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from codes.trainer.optim import parameter_groups
from codes.trainer.state import move

L2 = {"type": "pix", "criterion": "l2", "real": "y", "fake": "fake"}
# Operations that read a value back: on a GPU the loop would wait for it.
WAITS = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "item", "masked_select", "unique", "bincount"}
# What the trainer does on purpose and the bare loop does not.
EXTRAS = {
    "sub": 1, "ne": 1, "_to_copy": 1,  # whether the gradient norm is finite, asked and answered on the device
    "_foreach_sub_": 2,  # fused AdamW takes back its count of steps where it skipped; one for each of two groups
    "sum": 1, "mul": 2,  # a loss is a sum times one over its count (forward and backward) and not a mean ...
    "detach": 1,  # ... which is kept for the log
}  # fmt: skip
SETTINGS = {"steps.fit.clip_grad_eps": 1.0, "logger.print_freq": 1000, "train.niter": 1000}


class Counter(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: collections.Counter[str] = collections.Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def count_trainer(trainer: Any, steps: int = 3) -> collections.Counter[str]:
    """Operations of some steps after the first two."""
    batches = [trainer.parts.train_loader.batch(number) for number in range(steps + 2)]
    for number, batch in enumerate(batches):
        if number == 2:
            counter = Counter()
            counter.__enter__()
        trainer.run_batch(move(batch, trainer.device), number + 1)
    counter.__exit__(None, None, None)
    return counter.counts


def count_bare(trainer: Any, steps: int = 3) -> collections.Counter[str]:
    """The same network, optimizer, clipping and batches by hand."""
    network: nn.Module = trainer.parts.networks["net"]
    entry = trainer.experiment.steps[0].flags
    groups = parameter_groups(network, entry.optimizer_params)
    optimizer = torch.optim.AdamW(groups, lr=0.01, fused=True)
    batches = [trainer.parts.train_loader.batch(number) for number in range(steps + 2)]
    counter = Counter()
    for number, batch in enumerate(batches):
        if number == 2:
            counter.__enter__()
        optimizer.zero_grad(set_to_none=True)
        (batch["y"] - network(batch["x"])).square().mean().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    counter.__exit__(None, None, None)
    return counter.counts


def test_operations_beside_a_bare_loop(toys: Any) -> None:
    """Per step, nothing but what is declared."""
    steps = 3
    trainer = count_trainer(toys().trainer(SETTINGS), steps)
    bare = count_bare(toys().trainer(SETTINGS), steps)
    extra = {name: count / steps for name, count in (trainer - bare).items()}
    assert extra == pytest.approx(EXTRAS)
    assert bare - trainer == collections.Counter({"mean": steps, "div": steps})


@pytest.mark.parametrize(
    "changes",
    [{}, {"train.mega_batch_factor": 3}, {"bf16": True}, {"train.ema_enabled": True}, {"steps.fit.optimizer": "lion"},
     {"steps.fit.optimizer": "sgd"}, {"steps.fit.losses.error": L2 | {"mask": "mask"}, "train.mega_batch_factor": 3},
     {"steps.fit.losses": {"a": L2 | {"mask": "mask"}, "b": L2 | {"mask": "other"}}, "train.mega_batch_factor": 2},
     {"train.warmup_iter": 5, "train.default_lr_scheme": "CosineAnnealingLR_Restart"}],
    ids=str,
)  # fmt: skip
def test_no_step_reads_a_value_back(toy: Any, changes: dict[str, Any]) -> None:
    counts = count_trainer(toy.trainer(SETTINGS | changes))
    assert counts
    assert not WAITS & counts.keys()


def test_a_whole_loop_reads_back_only_where_it_logs(toy: Any) -> None:
    """Ten steps with one log line: a handful of reads, whatever the number of steps between."""
    found = []
    for print_freq in (5, 20):
        trainer = toy.trainer(SETTINGS | {"logger.print_freq": print_freq}, fresh=True)
        trainer.parts.train_loader.seek(0)
        with Counter() as counter:
            for _ in range(20):
                trainer.train_step()
                trainer._at_intervals()
        found.append(sum(counter.counts[name] for name in WAITS))
    four_lines, one_line = found
    assert one_line <= 8
    assert four_lines == pytest.approx(4 * one_line, abs=2 * one_line)


def test_counting_finds_a_wait() -> None:
    with Counter() as counter:
        float(torch.ones(1) * 2)
    assert counter.counts["_local_scalar_dense"] == 1
