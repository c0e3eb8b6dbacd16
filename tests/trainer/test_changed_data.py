"""A run whose audio changes before it is continued: refused, or gone on without what broke, where that is asked for."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from codes.data.audio.reader import AudioReadError
from codes.experiment import load_experiment
from codes.trainer.checkpoint import CheckpointError
from codes.trainer.extensible_trainer import ExtensibleTrainer

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def overrides(tmp_path: Path, make_stereo_folder: Callable[..., Path]) -> list[str]:
    """A run of one step over ten small files, the last of which by hash validates."""
    folder = make_stereo_folder(num_files=10, num_samples=2000)
    return [
        f"datasets.train.path={folder}", f"path.root={tmp_path / 'runs'}", "train.niter=1", "train.val_freq=null",
        "logger.print_freq=1", "samples=null", "eval.baselines=false",
    ]  # fmt: skip


def begin(overrides: list[str]) -> ExtensibleTrainer:
    trainer = ExtensibleTrainer(load_experiment(ROOT / "experiments" / "tiny_cpu.yml", overrides))
    trainer.train()
    return trainer


def resume(overrides: list[str]) -> ExtensibleTrainer:
    return ExtensibleTrainer(load_experiment(ROOT / "experiments" / "tiny_cpu.yml", [*overrides, "train.niter=2"]))


def first_training_file(trainer: ExtensibleTrainer) -> Path:
    dataset: Any = trainer.parts.datasets["train"]
    return dataset.recordings[0].file.path


def test_a_run_goes_on_without_files_that_broke_or_are_gone(overrides: list[str]) -> None:
    overrides.append("datasets.train.on_error=skip")
    begun = begin(overrides)
    dataset: Any = begun.parts.datasets["train"]
    cut, gone = (recording.file.path for recording in dataset.recordings[:2])
    os.truncate(cut, cut.stat().st_size - 1000)
    gone.unlink()
    trainer = resume(overrides)
    lines = [line for line in trainer.parts.notes if line.startswith("goes on without what broke in datasets.train: ")]
    assert len(lines) == 2
    assert f"{cut}: cannot be taken since the run began" in lines[0] + lines[1]
    assert f"{gone}: is gone since the run began" in lines[0] + lines[1]
    assert trainer.parts.train_loader.dataset.num_errors == 2, "each counts once, towards max_errors"
    trainer.train()
    assert trainer.step == 2
    assert "goes on without what broke" in (trainer.folder.path / "log.txt").read_text()
    again = resume([*overrides, "train.niter=3"])
    assert not any("goes on without" in line for line in again.parts.notes), "the list beside the run is the new one"


def test_a_run_that_must_not_skip_is_refused(overrides: list[str]) -> None:
    begun = begin(overrides)
    cut = first_training_file(begun)
    cut.rename(cut.with_name("aside"))
    with pytest.raises(CheckpointError, match=r"has changed:\n  train files: was 9, is 8(.|\n)*With on_error: skip"):
        resume(overrides)


def test_new_files_and_too_many_broken_ones_are_refused(overrides: list[str]) -> None:
    overrides += ["datasets.train.on_error=skip", "datasets.train.max_errors=0"]
    first = first_training_file(begin(overrides))
    for number in range(12):
        shutil.copy(first, first.with_name(f"new_{number}.wav"))
    with pytest.raises(CheckpointError, match="train files: was 9, is 2"):
        resume(overrides)
    for number in range(12):
        first.with_name(f"new_{number}.wav").unlink()
    first.unlink()
    with pytest.raises(
        AudioReadError, match=r"max_errors is 0, and 1 files cannot be read; the last: .* is gone since"
    ):
        resume(overrides)


def test_a_file_that_was_replaced_by_one_of_the_same_length_is_noticed(
    overrides: list[str], write_wav: Any, tmp_path: Path
) -> None:
    begun = begin(overrides)
    first = first_training_file(begun)
    content = bytearray(first.read_bytes())
    touched = first.stat().st_mtime_ns + 10**9
    os.utime(first, ns=(touched, touched))
    assert resume(overrides).step == 1, "touched, or copied to another machine: the same audio"
    middle = len(content) // 2
    content[middle : middle + 400] = bytes(400)
    first.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"has changed:\n  train content: was [0-9a-f]{8}, is [0-9a-f]{8}\n"):
        resume(overrides)
