"""Small experiments for the trainer's tests: a YAML with toys.py as its plug-in, changed by dotted keys."""

import copy
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from codes.experiment import load_experiment
from codes.trainer.extensible_trainer import ExtensibleTrainer
from codes.trainer.metrics import WALL_CLOCK, read_metrics

TOYS = Path(__file__).with_name("toys.py")
BASE: dict[str, Any] = {
    "name": "toy",
    "gpu_ids": [],
    "use_tb_logger": False,
    "plugins": [str(TOYS)],
    "datasets": {"train": {"mode": "toy_numbers", "batch_size": 8}},
    "networks": {"net": {"which_model": "toy_mlp"}},
    "steps": {
        "fit": {
            "training": "net",
            "optimizer_params": {"lr": 0.01},
            "injectors": {"predict": {"type": "generator", "generator": "net", "in": "x", "out": "fake"}},
            "losses": {"error": {"type": "pix", "criterion": "l2", "real": "y", "fake": "fake"}},
        }
    },
    "train": {"niter": 6},
    "logger": {"print_freq": 1},
}
DROP = object()  # as a change: the key goes away


def changed(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A deep copy of nested options with dotted keys replaced."""
    options = copy.deepcopy(base)
    for dotted, value in changes.items():
        *parents, last = dotted.split(".")
        place = options
        for name in parents:
            place = place.setdefault(name, {})
        if value is DROP:
            del place[last]
        else:
            place[last] = copy.deepcopy(value)
    return options


class Toy:
    """Writes experiments into a folder, builds and runs them.

    Args:
        folder: where the YAML and the runs go.
    """

    drop = DROP

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "toy.yml"

    def write(self, changes: dict[str, Any] | None = None) -> Path:
        """Write the YAML; its runs go to `folder/runs`."""
        options = changed(BASE, {"path.root": str(self.folder / "runs")} | (changes or {}))
        self.file.write_text(yaml.safe_dump(options, sort_keys=False), encoding="utf-8")
        return self.file

    def trainer(self, changes: dict[str, Any] | None = None, *, fresh: bool = False) -> ExtensibleTrainer:
        """A trainer, ready to train or to be stepped."""
        return ExtensibleTrainer(load_experiment(self.write(changes)), fresh=fresh)

    def train(self, changes: dict[str, Any] | None = None, *, fresh: bool = False) -> ExtensibleTrainer:
        """Train to the end."""
        trainer = self.trainer(changes, fresh=fresh)
        trainer.train()
        return trainer

    def line(self, text: str) -> int:
        """The line of the YAML, from 1, that holds a text."""
        lines = self.file.read_text(encoding="utf-8").splitlines()
        return next(number for number, line in enumerate(lines, 1) if text in line)


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    """Experiments of one test."""
    return Toy(tmp_path)


@pytest.fixture(scope="session")
def new_toy() -> type[Toy]:
    """`new_toy(folder)` for fixtures that outlive a test."""
    return Toy


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """A folder in memory where there is one: runs that are killed wait for the disk thousands of times."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.fixture
def toys(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Toy]:
    """Several sets of experiments, each in a folder of its own."""
    return lambda: Toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def weights() -> Callable[..., dict[str, torch.Tensor]]:
    """Copies of a network's parameters and buffers."""
    return lambda trainer, name="net": {
        key: value.detach().clone() for key, value in trainer.parts.networks[name].state_dict().items()
    }


@pytest.fixture
def same() -> Callable[[dict[str, torch.Tensor], dict[str, torch.Tensor]], bool]:
    """Whether two state dicts are equal bit for bit."""
    return lambda a, b: a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture
def lines() -> Callable[[Path], list[dict[str, Any]]]:
    """The lines of a run's metrics.jsonl without the wall-clock figures; each must be strict JSON."""

    def read(run: Path) -> list[dict[str, Any]]:
        path = run / "metrics.jsonl"
        for line in path.read_text(encoding="utf-8").splitlines():
            json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} in {path}"))
        return [{k: v for k, v in line.items() if k not in WALL_CLOCK} for line in read_metrics(path)]

    return read
