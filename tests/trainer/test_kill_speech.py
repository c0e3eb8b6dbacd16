"""The YAML that DL-Art-School's users start from, killed with SIGKILL and started again: the same run, bit for bit."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from codes.experiment import load_experiment
from codes.trainer.extensible_trainer import ExtensibleTrainer
from tests.test_speech import dlas, short
from tests.trainer.conftest import changed
from tests.trainer.test_kill import KILL_RUNS, assert_same_run

__all__ = ["dlas"]  # a fixture
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs SIGKILL and fork")


def cut_down(dlas: Path, root: Path) -> Path:
    """The YAML with small networks, written beside it."""
    pairs = [override.split("=", 1) for override in short(root, 4)]
    options = changed(yaml.safe_load(dlas.read_text()), {key: yaml.safe_load(value) for key, value in pairs})
    small = dlas.with_name("small.yml")
    small.write_text(yaml.safe_dump(options, sort_keys=False))
    return small


def train(file: Path, root: Path) -> Path:
    """Train, or go on, from whatever random numbers this process has."""
    torch.manual_seed(int.from_bytes(os.urandom(4), "little"))
    trainer = ExtensibleTrainer(load_experiment(file, [f"path.root={root}"]))
    assert trainer.train()
    return trainer.folder.path


def test_the_seeds_yaml_killed_before_and_after_a_checkpoint(dlas: Path, tmp_path: Path, lines: Any) -> None:
    file, killed = cut_down(dlas, tmp_path), tmp_path / "killed"
    arguments = [str(file), str(killed), "2", "1"]
    done = subprocess.run([sys.executable, str(KILL_RUNS), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    whole = tmp_path / "killed_count" / "mine"  # the run in which its moments were counted
    runs = sorted(killed.glob("*/mine"))
    assert len(runs) == 2
    had = [bool(list(run.glob("checkpoints/step_*/manifest.json"))) for run in runs]
    assert set(had) == {False, True}
    for run in runs:
        assert_same_run(train(file, run.parent), whole, lines)
