"""A run that is killed or interrupted at any moment goes on to the same figures and the same weights, bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from codes.experiment import load_experiment
from codes.trainer.extensible_trainer import ExtensibleTrainer
from codes.trainer.signals import StopRequest

ROOT = Path(__file__).resolve().parents[2]
KILL_RUNS = Path(__file__).with_name("kill_runs.py")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs SIGKILL and fork")

# Everything that a run could forget: dropout, a random injector, buffers, moving averages, an unfinished epoch, the
# window of the logged loss, the best checkpoint, a warm-up, micro-batches.
EVERYTHING: dict[str, Any] = {
    "networks.net.kwargs": {"dropout": 0.3},
    "networks.stats": {"which_model": "toy_buffers"},
    "steps.fit.injectors": {
        "noise": {"type": "add_noise", "scale": 0.3, "in": "x", "out": "z"},
        "predict": {"type": "generator", "generator": "net", "in": "z", "out": "raw"},
        "scale": {"type": "generator", "generator": "stats", "in": "raw", "out": "fake"},
    },
    "steps.fit.training": ["net", "stats"],
    "steps.fit.losses.error": {"type": "pix", "real": "y", "fake": "fake", "mask": "mask"},
    "steps.fit.loss_log_buffer": 4,
    "steps.fit.clip_grad_eps": 0.5,
    "train.niter": 9,
    "train.warmup_iter": 5,
    "train.val_freq": 3,
    "train.mega_batch_factor": 2,
    "train.ema_enabled": True,
    "train.ema_rate": 0.8,
    "logger.save_checkpoint_freq": 2,
    "datasets.train.batch_size": 7,
    "datasets.val": {"num_items": 6, "batch_size": 4},
}


def final_state(run: Path) -> dict[str, Any]:
    """Everything in the newest checkpoint, flat, without what a path or a clock decides."""
    checkpoint = max((run / "checkpoints").glob("step_*"))
    state = torch.load(checkpoint / "state.pt", weights_only=True)
    state["experiment"]["path"] = None
    for name in ("n_workers", "batch_size"):
        state["experiment"]["datasets"]["train"].pop(name, None)
    weights = {path.name: path.read_bytes() for path in checkpoint.glob("*.safetensors")}
    return flat({"checkpoint": checkpoint.name, "state": state, "weights": weights})


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for key, child in value.items() for k, v in flat(child, f"{prefix}/{key}").items()}
    if isinstance(value, (list, tuple)):
        return {k: v for key, child in enumerate(value) for k, v in flat(child, f"{prefix}/{key}").items()}
    return {prefix: value}


def assert_same_run(run: Path, whole: Path, lines: Any) -> None:
    """Equal metrics and an equal last checkpoint: weights, averages, optimizers, random numbers, windows."""
    assert lines(run) == lines(whole)
    one, other = final_state(run), final_state(whole)
    assert one.keys() == other.keys()
    for key, value in one.items():
        same = torch.equal(value, other[key]) if isinstance(value, torch.Tensor) else value == other[key]
        assert same, f"{key} differs"
    kept = [sorted(path.name for path in (folder / "checkpoints").glob("*")) for folder in (run, whole)]
    assert kept[0] == kept[1]


def finish(file: Path, root: Path, *overrides: str) -> Path:
    """Continue in this process, from whatever random numbers it has."""
    torch.manual_seed(12345)
    ExtensibleTrainer(load_experiment(file, [f"path.root={root}", *overrides])).train()
    return root / "toy"


# Which runs are killed: (changes, at how many moments, how often each).
RUNS: dict[str, tuple[dict[str, Any], int, int]] = {
    "once": ({}, 24, 1),
    "twice": ({}, 6, 2),
    "bf16": ({"bf16": True}, 2, 1),
    "fp16": ({"fp16": True}, 2, 1),
    "lion": ({"steps.fit.optimizer": "lion"}, 2, 1),
    "sgd": ({"steps.fit.optimizer": "sgd"}, 2, 1),
}


@pytest.fixture(scope="module")
def killed(scratch: Path, new_toy: Any) -> dict[str, Path]:
    """The experiment files of RUNS by name; beside each stand its killed runs, in folders named by the moment."""
    files, arguments = {}, []
    for name, (changes, num, times) in RUNS.items():
        (scratch / name).mkdir()
        files[name] = new_toy(scratch / name).write(EVERYTHING | changes)
        arguments += [str(files[name]), str(scratch / name / "runs"), str(num), str(times)]
    done = subprocess.run([sys.executable, str(KILL_RUNS), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return files


@pytest.mark.parametrize("name", RUNS)
def test_killed_at_any_moment(killed: dict[str, Path], lines: Any, name: str) -> None:
    """While a checkpoint is written, renamed or removed, between lines, within a batch, during validation."""
    file = killed[name]
    whole = finish(file, file.parent / "whole")
    runs = sorted((file.parent / "runs").iterdir(), key=lambda run: int(run.name))
    assert len(runs) == RUNS[name][1]
    for run in runs:
        assert_same_run(finish(file, run), whole, lines)


@pytest.mark.parametrize("split", range(1, 9))
def test_split_anywhere(toy: Any, lines: Any, split: int) -> None:
    """niter reached, then raised: the first part's final checkpoint is a beginning like any other."""
    file = toy.write(EVERYTHING | {"train.val_freq": 9, "logger.save_checkpoint_freq": None})
    whole = finish(file, toy.folder / "whole")
    finish(file, toy.folder / "parts", f"train.niter={split}")
    parts = finish(file, toy.folder / "parts")
    unlike = {"train", "val"}
    kept = [
        line
        for line in lines(parts)
        if line["split"] in unlike and not (line["split"] == "val" and line["step"] == split)
    ]
    assert kept == lines(whole)
    names = ["net.safetensors", "stats.safetensors", "net_ema.safetensors", "stats_ema.safetensors"]
    for name in names:
        ends = [(folder / "checkpoints/step_00000009" / name).read_bytes() for folder in (parts, whole)]
        assert ends[0] == ends[1]


# --- the command itself


def start(file: Path, *overrides: str, group: bool = False) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "train.py"), "-opt", str(file), *overrides]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=group, cwd=file.parent
    )


def wait_for_step(run: Path, step: int, process: subprocess.Popen[str]) -> None:
    """Until metrics.jsonl has a line of that step."""
    path = run / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and any(
            json.loads(line)["step"] >= step
            for line in path.read_text().splitlines(keepends=True)
            if line.endswith("\n")
        ):
            return
        time.sleep(0.005)
    process.kill()
    pytest.fail(f"no step {step}: {process.communicate()}")


LONG = EVERYTHING | {"train.niter": 300, "train.val_freq": 100, "logger.save_checkpoint_freq": 20}


@pytest.fixture(scope="module")
def long_run(scratch: Path, new_toy: Any) -> tuple[Path, Path]:
    """An uninterrupted run of many steps: (its YAML, its folder)."""
    (scratch / "long").mkdir()
    file = new_toy(scratch / "long").write(LONG)
    return file, finish(file, file.parent / "whole")


@pytest.mark.parametrize(
    ("number", "num_workers", "group"),
    [(signal.SIGTERM, 0, False), (signal.SIGTERM, 2, True), (signal.SIGINT, 2, True), (signal.SIGKILL, 2, False)],
    ids=["SIGTERM", "SIGTERM to all", "SIGINT to all", "SIGKILL with workers"],
)
def test_signals(long_run: Any, lines: Any, tmp_path: Path, number: int, num_workers: int, group: bool) -> None:
    """SIGTERM and Ctrl-C (which reaches the workers as well) save, say so and exit with 0; SIGKILL costs some steps."""
    file, whole = long_run
    process = start(file, f"path.root={tmp_path}", f"datasets.train.n_workers={num_workers}", group=True)
    wait_for_step(tmp_path / "toy", 30, process)
    if group:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    if number == signal.SIGKILL:
        process.wait()  # and not for the workers, which notice some seconds later
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()
    else:
        out, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert errors == ""
        newest = max((tmp_path / "toy/checkpoints").glob("step_*")).name.removeprefix("step_")
        name = signal.Signals(number).name
        assert f"{name}: saved at step {int(newest)}; the same command continues from there" in out
    assert_same_run(finish(file, tmp_path), whole, lines)


def test_ctrl_c_after_a_signal_stops_at_once() -> None:
    """A second SIGTERM does not: a scheduler's comes to a process twice, once by torchrun."""
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert (stop.requested, stop.name) == (True, "SIGTERM")
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
