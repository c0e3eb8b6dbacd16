"""A disk that refuses any one operation of a run: a message, whole checkpoints, and the same command goes on."""

from pathlib import Path
from typing import Any

import pytest

from codes.trainer.checkpoint import CheckpointError, writing
from tests.trainer import disk_faults

CHANGES = {
    "train.niter": 2, "logger.save_checkpoint_freq": 1, "logger.num_checkpoints": 1, "logger.print_freq": 1,
    "train.val_freq": 2, "datasets.val": {"num_items": 5}, "networks.net.kwargs": {"dropout": 0.3},
}  # fmt: skip


def test_every_operation_of_a_run_may_be_refused(new_toy: Any, scratch: Path) -> None:
    toy = new_toy(scratch)
    file = toy.write(CHANGES)
    assert disk_faults.command(file) == (0, "")
    kinds = ("full", "read_only", "once", "denied", "full")
    said = [text for _, text in disk_faults.matrix(file, scratch, kinds, scratch / "runs/toy")]
    assert len(said) > 60
    assert sum("make room" in text for text in said) > 40
    assert any("could not be written" in text for text in said)
    assert "" in said  # a line of the log, or the report, is not worth a run


def test_tensorboard_on_a_full_disk_ends_the_run_without_a_trace(toy: Any, tmp_path: Path) -> None:
    file = toy.write(CHANGES | {"use_tb_logger": True})
    assert disk_faults.command(file) == (0, "")
    (tmp_path / "again").mkdir()
    with disk_faults.Disk(tmp_path / "again", "full").attached() as disk:
        disk_faults.command(file, f"path.root={tmp_path / 'again'}")
    event_file = next(number for number, name in enumerate(disk.names, 1) if name.startswith("write /toy/tb"))
    (tmp_path / "refused").mkdir()
    said = disk_faults.survive(file, tmp_path / "refused/toy", "full", event_file, tmp_path / "runs/toy")
    assert "refused/toy/metrics.jsonl cannot be written" in said or "refused/toy cannot be written" in said


def test_what_is_elsewhere_is_not_the_runs_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), writing(tmp_path / "run"):
        (tmp_path / "data.wav").read_bytes()
    with pytest.raises(CheckpointError, match="run cannot be written: "), writing(tmp_path / "run"):
        (tmp_path / "run" / "x").write_bytes(b"")
