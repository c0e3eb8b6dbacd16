"""Weights & Biases with its own library, without its service."""

import importlib.util
import time
from pathlib import Path
from typing import Any

import pytest

from codes.experiment import load_experiment
from codes.trainer import wandb_log
from codes.trainer.check import check
from codes.yaml_source import OptionError

installed = pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="needs the package wandb")
LOGGED = {
    "wandb": True, "wandb_project_name": "waveforms", "datasets.val": {"batch_size": 8}, "train.val_freq": 2,
    "train.niter": 4, "logger.visuals": ["x"], "logger.save_checkpoint_freq": 2, "eval.baselines": False,
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever runs the tests, nothing is sent."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_PROJECT", "WANDB_RUN_ID", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_X_DISABLE_STATS", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def kept(run: Path) -> list[bytes]:
    """What the library holds ready to send, one for each start; its own process writes the last of it later."""
    paths = sorted(run.glob("wandb/offline-run-*/run-*.wandb"))
    ends = time.monotonic() + 30
    while any(path.stat().st_size < 1000 for path in paths) and time.monotonic() < ends:
        time.sleep(0.05)
    return [path.read_bytes() for path in paths]


@installed
def test_without_a_key_all_is_kept_and_the_run_keeps_its_id(toy: Any, toys: Any, lines: Any) -> None:
    first = toy.train(LOGGED | {"train.niter": 2})
    run = first.folder.path
    again = toy.train(LOGGED | {"wandb_run_name": "renamed"})
    assert again.step == 4
    number = (run / "wandb_id.txt").read_text()
    assert {path.stem for path in run.glob("wandb/offline-run-*/run-*.wandb")} == {f"run-{number}"}
    before, after = kept(run)
    for name in (b"train/error", b"val/error", b"train/grad_norm.net", b"waveforms"):
        assert name in before
        assert name in after
    assert b"renamed" in after
    assert b"renamed" not in before
    media = {path.name.split("_step")[0] for path in run.glob("wandb/offline-run-*/files/media/*/*") if path.is_dir()}
    found = [path for path in run.glob("wandb/offline-run-*/files/media/**/*") if path.is_file()]
    assert {path.suffix for path in found} == {".wav", ".png"}, media
    assert f"wandb: run {number}, {run / 'wandb'}, to send it: wandb sync" in (run / "log.txt").read_text()
    plain = toys().train({**LOGGED, "wandb": False})
    assert lines(plain.folder.path) == lines(run)  # nothing of it reaches the training


@installed
def test_a_key_that_is_refused_and_a_service_that_fails(toy: Any, monkeypatch: pytest.MonkeyPatch, lines: Any) -> None:
    import wandb

    monkeypatch.setenv("WANDB_API_KEY", "short")
    monkeypatch.setenv("WANDB_MODE", "online")
    trainer = toy.trainer(LOGGED)
    calls = []

    def fail(self: Any, values: Any) -> None:
        calls.append(values["step"])
        raise wandb.Error("the service is gone\nand more")

    monkeypatch.setattr(wandb.Run, "log", fail)
    assert trainer.train()
    assert calls == [1]
    assert len(lines(trainer.folder.path)) == 6
    text = (trainer.folder.path / "log.txt").read_text()
    assert "wandb: AuthenticationError: " in text
    assert f"kept in {trainer.folder.path / 'wandb'} instead" in text
    assert text.count("wandb: given up for this start: Error: the service is gone; metrics.jsonl goes on") == 1


@installed
def test_a_mode_that_there_is_not(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "nonsense")
    trainer = toy.trainer({"wandb": True, "train.niter": 1})
    assert trainer.train()
    assert "wandb: ValidationError: 1 validation error" in (trainer.folder.path / "log.txt").read_text()


def test_without_the_package_it_is_said_before_anything_is_built(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb_log.importlib.util, "find_spec", lambda name: None)
    message = r"toy\.yml:1:1: wandb: true needs a package that is not installed: pip install wandb==0\.31\.0"
    with pytest.raises(OptionError, match=message):
        toy.trainer({"wandb": True})
    with pytest.raises(OptionError, match=message):
        check(load_experiment(toy.write({"wandb": True})))
    assert not list(toy.folder.glob("runs/*"))


def test_options_of_older_runs_are_read(toy: Any) -> None:
    """They hold `wandb: null`, which means no."""
    assert wandb_log.start(toy.folder, load_experiment(toy.write({"wandb": None})), print) is None
