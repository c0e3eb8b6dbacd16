"""Kills many kinds of runs at many moments and continues them; too long for the suite, run by hand.

    python tests/trainer/kill_matrix.py FOLDER [--moments 20] [--only lion GAN]

Every optimizer with every schedule, in float32 and bfloat16, with 0 and 4 workers; a GAN; two processes under ddp and
fsdp. Everything else that a run could forget is in each of them (test_kill.EVERYTHING: moving averages, dropout,
random injectors, buffers, micro-batches, clipping, warm-up). A moment is a file opened, renamed or removed, a folder
made or removed, an item read; moments are spread evenly over the run, so many fall into the writing of checkpoints.
Each continued run must have the metrics and the last checkpoint of an undisturbed one, bit for bit.
"""

import argparse
import itertools
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch
from conftest import Toy
from test_distributed import GAN, start
from test_kill import EVERYTHING, KILL_RUNS, assert_same_run, finish

from codes.trainer.metrics import WALL_CLOCK, read_metrics

OPTIMIZERS = ("adamw", "adamw8bit", "adamw_zero", "lion", "sgd")
SCHEDULES: dict[str, dict[str, Any]] = {
    "constant": {},
    "MultiStepLR": {"train.gen_lr_steps": [3, 6]},
    "CosineAnnealingLR_Restart": {"train.restarts": [4], "train.restart_weights": [0.5]},
    "inverse_sqrt": {},
}
RANK_RUNS = Path(__file__).with_name("rank_runs.py")


def configurations() -> dict[str, dict[str, Any]]:
    """The matrix: optimizers by schedules, in which precisions and workers alternate, and GANs."""
    found: dict[str, dict[str, Any]] = {}
    for number, (optimizer, scheme) in enumerate(itertools.product(OPTIMIZERS, SCHEDULES)):
        bf16, workers = bool(number % 2), 4 * (number // 2 % 2)
        name = f"{optimizer} {scheme} {'bf16' if bf16 else 'fp32'} {workers} workers"
        found[name] = EVERYTHING | SCHEDULES[scheme] | {
            "steps.fit.optimizer": optimizer, "train.default_lr_scheme": scheme, "bf16": bf16,
            "datasets.train.n_workers": workers,
        }  # fmt: skip
    rest = {key: value for key, value in EVERYTHING.items() if not key.startswith(("steps", "networks.stats"))}
    for workers in (0, 4):
        found[f"GAN {workers} workers"] = rest | GAN | {"datasets.train.n_workers": workers}
    return found


def lines(run: Path) -> list[dict[str, Any]]:
    """A run's metrics without what the clock decides."""
    return [{k: v for k, v in line.items() if k not in WALL_CLOCK} for line in read_metrics(run / "metrics.jsonl")]


def one_process(folder: Path, moments: int, only: list[str]) -> int:
    """The configurations whose names begin like one of `only`; returns how many kills were survived."""
    survived = 0
    for name, changes in configurations().items():
        if not name.startswith(tuple(only)):
            continue
        place = folder / name.replace(" ", "_")
        place.mkdir()
        file = Toy(place).write(changes)
        command = [sys.executable, str(KILL_RUNS), str(file), str(place / "runs"), str(moments), "1"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr
        whole = finish(file, place / "whole")
        runs = sorted((place / "runs").iterdir())
        for run in runs:
            assert_same_run(finish(file, run), whole, lines)
        survived += len(runs)
        print(f"{name}: {len(runs)} kills, all continued bit for bit", flush=True)
    return survived


def pair(arguments: list[str], expect: bool) -> None:
    """Two processes over one experiment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [start([str(RANK_RUNS), *arguments], rank, port) for rank in range(2)]
    ended = [process.communicate(timeout=120)[0] for process in processes]
    assert all(process.returncode == 0 for process in processes) == expect, ended


def two_processes(folder: Path, kills: int) -> int:
    """SIGKILL to one of two at random steps, then both again; beside an undisturbed run of two."""
    survived, draw = 0, random.Random(0)
    for engine in ("ddp", "fsdp"):
        changes = EVERYTHING | {"parallel": engine, "datasets.train.batch_size": 8, "train.mega_batch_factor": 2}
        (folder / f"{engine}_whole").mkdir()
        whole = Toy(folder / f"{engine}_whole")
        pair([str(whole.write(changes))], True)
        for number in range(kills):
            toy = Toy(folder / f"{engine}_{number}")
            toy.folder.mkdir()
            file = toy.write(changes)
            pair([f"{file}@SIGKILL:{draw.randint(2, 8)}"], False)
            pair([str(file)], True)
            assert lines(toy.folder / "runs/toy") == lines(whole.folder / "runs/toy")
            assert_same_run(toy.folder / "runs/toy", whole.folder / "runs/toy", lines)
            survived += 1
        print(f"two processes, {engine}: {kills} kills, all continued bit for bit", flush=True)
    return survived


def main() -> None:
    """The whole matrix."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=4, help="kills of one of two processes, for each engine")
    parser.add_argument("--only", nargs="+", default=[""], metavar="NAME", help="configurations that begin so")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True)
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    started = time.monotonic()
    total = two_processes(arguments.folder, arguments.pairs) if arguments.pairs else 0
    total += one_process(arguments.folder, arguments.moments, arguments.only)
    print(f"{total} kills survived in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
