"""Several processes as one run: the same batches, losses, weights and checkpoints, whatever their number."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from codes.experiment import load_experiment
from codes.trainer.distributed import Agreement, RankError, Ranks, choose_backend
from codes.trainer.extensible_trainer import ExtensibleTrainer
from codes.trainer.precision import choose_device

ROOT = Path(__file__).resolve().parents[2]
RANK_RUNS = Path(__file__).with_name("rank_runs.py")
pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or not hasattr(os, "fork"), reason="needs torch.distributed with gloo"
)

L2 = {"type": "pix", "criterion": "l2", "real": "y", "fake": "fake"}
PREDICT = {"type": "generator", "generator": "net", "in": "x", "out": "fake"}
VERDICT = {"type": "discriminator", "discriminator": "verdict"}
COMMON: dict[str, Any] = {"train.val_freq": 3, "datasets.val": {"num_items": 5, "batch_size": 4}}
MASKS = {"a": L2 | {"mask": "mask"}, "b": L2 | {"mask": "other", "weight": 0.5}}
GAN: dict[str, Any] = {
    "networks.verdict": {"type": "discriminator", "which_model": "toy_verdict"},
    "steps.fit.injectors": {"predict": PREDICT, "judge": VERDICT | {"in": "fake", "out": "verdict"}},
    "steps.fit.losses": {"error": L2, "gan": {"type": "generator_gan", "gan_type": "gan", "fake": "verdict"}},
    "steps.fit.clip_grad_eps": 0.5,
    "steps.judge": {
        "training": "verdict",
        "injectors": {
            "real": VERDICT | {"in": "y", "out": "of_real"},
            "made": VERDICT | {"in": "fake", "out": "of_made"},
            "penalty": {
                "type": "gradient_penalty", "discriminator": "verdict", "every": 2, "in": "y", "out": "penalty",
            },
        },
        "losses": {
            "judge": {"type": "discriminator_gan", "gan_type": "gan", "real": "of_real", "fake": "of_made"},
            "r1": {"type": "direct", "key": "penalty", "every": 2, "weight": 0.1},
        },
    },
    "train.ema_enabled": True,
    "train.ema_rate": 0.7,
    "train.mega_batch_factor": 2,
}  # fmt: skip
# Losses that count differently in every micro-batch, process and step; shares of four and three items; a sharded
# optimizer; a GAN with a gradient penalty, moving averages, clipping and micro-batches.
CASES: dict[str, dict[str, Any]] = {
    "masks": {"steps.fit.losses": MASKS, "train.mega_batch_factor": 2, "datasets.train.batch_size": 12},
    "uneven": {"datasets.train.batch_size": 7, "steps.fit.losses": MASKS, "steps.fit.optimizer": "adamw_zero"},
    "gan": GAN,
    "fsdp masks": {"steps.fit.losses": MASKS, "train.mega_batch_factor": 2, "parallel": "fsdp"},
    "fsdp lion": {"steps.fit.optimizer": "lion", "train.mega_batch_factor": 2, "parallel": "fsdp"},
    "fsdp sgd": {"steps.fit.optimizer": "sgd", "steps.fit.clip_grad_eps": 0.3, "parallel": "fsdp"},
    "fsdp gan": GAN | {"parallel": "fsdp"},
}
# Gradients travel once a step and network (all-reduce, or reduce-scatter), counts as well, once more for micro-batches.
MESSAGES = {
    "masks": {"allreduce_": 3},
    "gan": {"allreduce_": 6},
    "fsdp lion": {"allreduce_": 2, "_reduce_scatter_base_": 1},
}
STOPPED: dict[str, Any] = {
    "networks.net.kwargs": {"dropout": 0.4},
    "networks.stats": {"which_model": "toy_buffers"},
    "steps.fit.training": ["net", "stats"],
    "steps.fit.injectors": {
        "first": PREDICT | {"out": "raw"},
        "predict": {"type": "generator", "generator": "stats", "in": "raw", "out": "fake"},
    },
    "steps.fit.losses": MASKS,
    "train.niter": 9,
    "train.ema_enabled": True,
    "parallel": "fsdp",
}


def start(command: list[str], rank: int, port: int) -> subprocess.Popen[str]:
    environment = os.environ | {
        "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, *command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def two_processes(files: list[str]) -> None:
    """Train experiments on two processes, and wait until both are done."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [start([str(RANK_RUNS), *files], rank, port) for rank in range(2)]
    for process in processes:
        try:
            out, _ = process.communicate(timeout=90)
        except subprocess.TimeoutExpired:
            for left in processes:
                left.kill()
            raise
        assert process.returncode == 0, out


@pytest.fixture(scope="module")
def shared(scratch: Path, new_toy: Any) -> dict[str, Path]:
    """Experiments after two processes have trained them: all of CASES, and one that a signal stopped at step 4."""
    files = {}
    for name, changes in [*CASES.items(), ("stopped", STOPPED)]:
        (scratch / name).mkdir()
        files[name] = new_toy(scratch / name).write(COMMON | changes)
    (scratch / "other").mkdir()
    first = new_toy(scratch / "other")
    first.train(COMMON | STOPPED | {"train.niter": 4})  # one process begins, two continue
    files["begun by one"] = first.write(COMMON | STOPPED | {"train.niter": 4})
    text = files["begun by one"].read_text()
    files["begun by one"].write_text(text.replace("niter: 4", "niter: 9"))
    arguments = [f"{file}@SIGTERM:4" if name == "stopped" else str(file) for name, file in files.items()]
    two_processes(arguments)
    return files


def newest(run: Path) -> Path:
    return max((run / "checkpoints").glob("step_*"))


def assert_close_runs(run: Path, whole: Path, lines: Any) -> None:
    """Metrics, weights and averages agree within 1e-5."""
    assert len(lines(run)) == len(lines(whole))
    for one, other in zip(lines(run), lines(whole), strict=True):
        assert one == pytest.approx(other, abs=1e-5, nan_ok=True)
    assert newest(run).name == newest(whole).name
    for path in newest(whole).glob("*.safetensors"):
        weights, found = load_file(path), load_file(newest(run) / path.name)
        torch.testing.assert_close(found, weights, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_one(shared: dict[str, Path], toy: Any, lines: Any, name: str) -> None:
    toy.train(COMMON | CASES[name] | {"parallel": "ddp"})
    assert_close_runs(shared[name].parent / "runs/toy", toy.folder / "runs/toy", lines)


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_of_a_step(shared: dict[str, Path], name: str) -> None:
    counts = json.loads(Path(f"{shared[name]}.counts").read_text())
    assert {kind: counts[kind] for kind in MESSAGES[name]} == MESSAGES[name]


def test_only_the_first_process_writes(shared: dict[str, Path]) -> None:
    run = shared["fsdp gan"].parent / "runs/toy"
    log = (run / "log.txt").read_text()
    assert log.count("step 6/6") == 1
    assert "2 processes, fsdp: 4 of 8 items each" in log
    assert sorted(path.name for path in newest(run).iterdir()) == [
        "manifest.json", "net.safetensors", "net_ema.safetensors", "shards", "state.pt", "verdict.safetensors",
        "verdict_ema.safetensors",
    ]  # fmt: skip


def test_a_signal_to_one_process_stops_all_with_everything_saved(shared: dict[str, Path]) -> None:
    run = shared["stopped"].parent / "runs/toy"
    step = int(newest(run).name.removeprefix("step_"))
    assert step in (5, 6)  # the answer comes a step later
    assert f"saved at step {step}; the same command continues" in (run / "log.txt").read_text()


def test_the_number_of_processes_may_change(shared: dict[str, Path], toy: Any, lines: Any) -> None:
    """Stopped with two and their optimizer in shards, continued by one; begun by one, continued by two.

    Dropout draws other numbers then, so weights cannot be compared; without it (test below) they are the same.
    """
    for name in ("stopped", "begun by one"):
        trainer = ExtensibleTrainer(load_experiment(shared[name]))
        if name == "stopped":
            assert trainer.step in (5, 6)
            (state,) = {float(s["step"]) for s in trainer.parts.updaters["net"][0].optimizer.state.values()}
            assert state == trainer.step
            trainer.train()
        run = shared[name].parent / "runs/toy"
        assert [line["step"] for line in lines(run) if line["split"] == "train"] == list(range(1, 10))


def test_shards_hold_what_one_process_would_have(shared: dict[str, Path], toy: Any) -> None:
    """The moments in the shards of two, read by one process, beside those of a run of one."""
    whole = toy.train(COMMON | CASES["fsdp gan"])
    found = ExtensibleTrainer(load_experiment(shared["fsdp gan"]))
    for name in ("net", "verdict"):
        ours, theirs = (t.parts.updaters[name][0].optimizer.state_dict()["state"] for t in (found, whole))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


DIE_ONCE = """
import os, signal
from pathlib import Path
from codes.trainer.injector import Injector

class DieOnceInjector(Injector):
    '''Ends process 1 at step 5, the first time. x -> x.

    Args:
        mark: a file that says that it has happened
    '''

    def __init__(self, *, mark: str) -> None:
        self.mark = Path(mark)

    def forward(self, x):
        if self.step == 5 and os.environ["RANK"] == "1" and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return x
"""


def test_torchrun_ends_a_failed_run_and_starts_it_again(tmp_path: Path, toy: Any, lines: Any) -> None:
    """A process is killed; the other says so and ends; torchrun starts both again, and they end with the figures of an
    undisturbed run."""
    (tmp_path / "die.py").write_text(DIE_ONCE)
    changes = COMMON | {
        "plugins": [str(Path(__file__).with_name("toys.py")), str(tmp_path / "die.py")],
        "steps.fit.injectors": {"die": {"type": "die_once", "mark": str(tmp_path / "mark"), "in": "x", "out": "z"},
                                "predict": PREDICT | {"in": "z"}},
        "logger.save_checkpoint_freq": 2,
    }  # fmt: skip
    file = toy.write(changes)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--max-restarts=1"]
    command += ["--standalone", "--monitor-interval=0.1", str(ROOT / "train.py"), "-opt", str(file)]
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mark").exists()
    assert "process 0 of 2 has lost the others: one of them has failed" in done.stderr
    assert "continues from" in done.stdout
    run = toy.folder / "runs/toy"
    assert [line["step"] for line in lines(run) if line["split"] == "train"] == [1, 2, 3, 4, 5, 6]
    (tmp_path / "whole").mkdir()
    whole = ExtensibleTrainer(load_experiment(toy.write(changes), [f"path.root={tmp_path / 'whole'}"]))
    os.environ["RANK"] = "0"
    try:
        whole.train()
    finally:
        del os.environ["RANK"]
    assert_close_runs(run, tmp_path / "whole/toy", lines)


FAKE = """
import sys, torch
from pathlib import Path
from torch.testing._internal.distributed.fake_pg import FakeStore
from codes.experiment import load_experiment
from codes.trainer.distributed import Ranks
from codes.trainer.build import build
torch.distributed.init_process_group("fake", store=FakeStore(), rank=5, world_size=128)
parts = build(load_experiment(Path(sys.argv[1])), Ranks(5, 128, 5))
batch = parts.train_loader.batch(0)
own = parts.train_loader.next()
print(len(batch["x"]), len(own["x"]))
print(sum(p.to_local().numel() for p in parts.networks["net"].parameters()))
"""


def test_a_configuration_of_128_processes_on_one_machine(toy: Any) -> None:
    """Built as process 5 of 128: its share of the batch, and of the parameters (126 of them, by rows)."""
    file = toy.write({"parallel": "fsdp", "datasets.train.batch_size": 256})
    done = subprocess.run(
        [sys.executable, "-c", FAKE, str(file)], capture_output=True, text=True, timeout=60, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    items, parameters = done.stdout.strip().splitlines()
    assert items == "256 2"
    assert int(parameters) == 6 + 1 + 1 + 1 + 8 + 1  # row 5 of each of six


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"datasets.train.batch_size": 1}, "batch_size 1 gives nothing to some of 2 processes"),
        ({"datasets.train.batch_size": 7, "train.mega_batch_factor": 2}, "batch_size is 7: .* a multiple of the 2"),
        ({"datasets.train.batch_size": 7, "parallel": "fsdp"}, "batch_size is 7: .* a multiple of the 2 processes"),
    ],
)
def test_what_cannot_be_shared_is_refused(toy: Any, changes: dict[str, Any], message: str) -> None:
    from codes.trainer.build import build
    from codes.yaml_source import OptionError

    experiment = load_experiment(toy.write(changes))
    with pytest.raises(OptionError, match=message):
        build(experiment, _Alone(0, 2, 0))


class _Alone(Ranks):
    """One of two processes whose other never comes."""

    def wait(self) -> None:
        pass


@pytest.mark.parametrize(
    ("gpus", "gpu_ids", "wanted", "found"),
    [
        (0, [0], None, "gloo"),
        (2, [], None, "gloo"),
        (2, [0], None, "cpu:gloo,cuda:nccl"),
        (2, [0], "nccl", "cpu:gloo,cuda:nccl"),
        (2, [0], "cpu:gloo,cuda:gloo", "cpu:gloo,cuda:gloo"),
    ],
)
def test_numbers_on_the_cpu_go_by_gloo(
    toy: Any, monkeypatch: pytest.MonkeyPatch, gpus: int, gpu_ids: list[int], wanted: str | None, found: str
) -> None:
    """The wish to stop is one, whatever the GPUs talk with."""
    options = load_experiment(toy.write({"gpu_ids": gpu_ids, "dist_backend": wanted})).options
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    assert choose_backend(options) == found


def test_what_gpus_are_missing_is_said(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    options = load_experiment(toy.write({"dist_backend": "nccl", "gpu_ids": [0]})).options
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RankError, match="dist_backend is nccl, which needs a GPU for each process"):
        choose_backend(options)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match=r"process 5 of 8 wants GPU 5; this machine has 2 \(from 0\)"):
        choose_device(options, Ranks(5, 8, 5))
    assert choose_device(options, Ranks(1, 8, 1)) == torch.device("cuda", 1)


def test_one_process_agrees_with_itself_at_once() -> None:
    agreement = Agreement(Ranks())
    assert [agreement.reached(wish) for wish in (False, True)] == [False, True]
    assert agreement.finish() is False
