"""--doctor: what is fine is said, what is wrong comes with advice, and nothing is left behind."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import train
from codes.experiment import load_experiment
from codes.trainer import run_doctor
from codes.trainer.run_doctor import examine, gpu, machine, torch_pair, versions


def said(toy: Any, changes: dict[str, Any] | None = None, *overrides: str) -> tuple[bool, str]:
    lines: list[str] = []
    healthy = examine(toy.write(changes), list(overrides), lines.append)
    return healthy, "\n".join(lines)


def test_a_healthy_experiment(toy: Any) -> None:
    healthy, text = said(toy)
    assert healthy, text
    assert "ok    a step: loss " in text
    assert "for 6 steps" in text
    assert "a checkpoint: 0.0 MiB" in text
    assert "data: train: 24 items" in text
    assert text.endswith("this experiment runs here")
    assert {path.name for path in toy.folder.iterdir()} <= {"toy.yml", "__pycache__"}


def test_a_wrong_experiment_has_its_line(toy: Any) -> None:
    healthy, text = said(toy, {"train.niterr": 3})
    assert not healthy
    assert f"{toy.file}:{toy.line('niterr')}:" in text
    assert "BAD   the experiment" in text


def test_a_step_that_fails_is_told(toy: Any) -> None:
    healthy, text = said(toy, {"steps.fit.losses.error.fake": "x"})
    assert not healthy
    assert "a step failed" in text
    assert "-> --check shows how far a batch comes" in text


def test_a_loss_that_is_not_finite(toy: Any) -> None:
    healthy, text = said(toy, {"datasets.train.nan_items": list(range(24))})
    assert not healthy, text
    assert "a step is not finite" in text


def test_versions_and_pins(tmp_path: Path) -> None:
    pins = tmp_path / "requirements.txt"
    pins.write_text(f"torch=={torch.__version__.split('+')[0]}\n")
    assert [finding.state for finding in versions(pins)] == ["fine", "fine"]
    pins.write_text("torch==0.1\nno-such-package-here==1.0\n")
    found = {finding.state: finding for finding in versions(pins)}
    assert "no-such-package-here" in found["wrong"].text
    assert "(pinned: 0.1)" in found["advice"].text
    assert "pip install -r requirements.txt" in found["advice"].advice


@pytest.mark.parametrize(
    ("one", "other", "state"),
    [("2.11.0+cu128", "2.11.0", "fine"), ("2.11.0", "2.10.1", "wrong"), ("2.11.0", None, "advice")],
)
def test_torch_and_torchaudio(one: str, other: str | None, state: str) -> None:
    assert torch_pair(one, other).state == state


def test_the_gpu(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = load_experiment(toy.write({"gpu_ids": [1]}))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: "A GPU")
    assert gpu(experiment).state == "wrong"
    assert "gpu_ids: [0]" in gpu(load_experiment(toy.write())).advice
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(run_doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    assert "CUDA" in gpu(experiment).advice


def test_more_workers_than_cores(toy: Any) -> None:
    finding = machine(load_experiment(toy.write({"datasets.train.n_workers": 4096})))
    assert finding.state == "advice"
    assert "datasets.train.n_workers=" in finding.advice


def test_the_command(toy: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "-opt", str(toy.write()), "--doctor"])
    assert train.main() == 0
    monkeypatch.setattr(sys, "argv", ["train.py", "-opt", str(toy.write({"name": 5})), "--doctor", "train.niter=x"])
    assert train.main() == 1
    assert "train.niter" in capsys.readouterr().out
