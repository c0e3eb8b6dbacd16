"""Trains experiments as one process of several; test_distributed.py starts it twice.

    python rank_runs.py FILE [FILE ...]        with RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT in the environment

Each run goes to its own folder, under the process group of the first. FILE@SIGNAL:STEP sends this process a signal
after that step; a file `FILE.counts` gets the number of messages of each kind of the last step and their largest size.
"""

import collections
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from codes.experiment import load_experiment
from codes.trainer.distributed import Ranks, joined, leave
from codes.trainer.extensible_trainer import ExtensibleTrainer


class Messages(TorchDispatchMode):
    """Counts collective operations by name, and keeps the largest number of elements of each."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: collections.Counter[str] = collections.Counter()
        self.largest: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        namespace, name = str(func).split(".")[:2]
        if namespace == "c10d":
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


def train(text: str, ranks: Ranks) -> None:
    """One experiment, to its end or to its signal."""
    file, _, when = text.partition("@")
    trainer = ExtensibleTrainer(load_experiment(Path(file)), ranks=ranks)
    if when and ranks.rank == 1:
        name, _, step = when.partition(":")
        intervals = trainer._at_intervals

        def after() -> None:
            intervals()
            if trainer.step == int(step):
                os.kill(os.getpid(), signal.Signals[name])

        trainer._at_intervals = after  # type: ignore[method-assign]
    trainer.train()
    counted = Messages()
    with counted:
        trainer.run_batch(trainer.parts.train_loader.batch(0), trainer.step + 1)
    if ranks.first:
        Path(file + ".counts").write_text(json.dumps(counted.counts))


def main() -> None:
    """All experiments, one after the other."""
    torch.set_num_threads(1)
    with joined(load_experiment(Path(sys.argv[1].partition("@")[0])).options) as ranks:
        for text in sys.argv[1:]:
            train(text, ranks)
    leave(0)


if __name__ == "__main__":
    main()
