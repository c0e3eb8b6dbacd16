"""What may happen to a run besides being killed: a worker that dies, a clock that jumps."""

import argparse
import itertools
import os
import signal
import time
from typing import Any

import pytest

from codes.trainer import commands

CHANGES = {"datasets.train.n_workers": 2, "networks.net.kwargs": {"dropout": 0.3}, "logger.save_checkpoint_freq": 2}


def test_a_worker_that_dies_costs_some_steps(toys: Any, lines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run ends, wherever it is, and continues from its newest checkpoint."""
    changes = CHANGES | {"train.niter": 16}  # more steps than the workers have batches ready
    whole, killed = toys(), toys()
    whole.train(changes)
    trainer = killed.trainer(changes)
    intervals = trainer._at_intervals

    def kill() -> None:
        intervals()
        if trainer.step == 3:
            for worker in trainer.parts.train_loader._iterator._workers:
                os.kill(worker.pid, signal.SIGKILL)

    monkeypatch.setattr(trainer, "_at_intervals", kill)
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        trainer.train()
    again = killed.trainer(changes)
    assert 2 <= again.step < 16
    again.train()
    assert lines(killed.folder / "runs/toy") == lines(whole.folder / "runs/toy")


def test_the_command_says_that_a_worker_died(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def killed(arguments: Any) -> int:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    monkeypatch.setattr(commands, "_dispatch", killed)
    assert commands.run(argparse.Namespace()) == 1
    said = capsys.readouterr().err
    assert said.startswith(
        "a process that prepares batches has died, for lack of memory perhaps (n_workers): DataLoader"
    )
    assert said.endswith("the same command continues from it.\n")


def test_a_clock_that_jumps_changes_nothing(toys: Any, lines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Backwards by a year and forwards by ten, at every look."""
    changes = CHANGES | {"datasets.train.n_workers": 0, "train.val_freq": 2, "datasets.val": {"num_items": 5}}
    whole, jumping = toys(), toys()
    whole.train(changes)
    jumps = itertools.cycle([0.0, -3e7, 3e8, -1e9, 5.0])
    real = time.time
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: real() + next(jumps))
        jumping.train(changes)
    assert lines(jumping.folder / "runs/toy") == lines(whole.folder / "runs/toy")
