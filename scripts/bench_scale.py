"""The parts of bench.py on several processes, and on what `--check --devices` reckons.

    python scripts/bench.py scaling [-opt FILE] [--devices 2] [key.sub=value ...]
    python scripts/bench.py cost [-opt FILE] [key.sub=value ...]

``scaling`` takes turns between one process and several. What they send each other in one training step is counted and
belongs to the program, not to the machine: collective operations and their bytes, beside the bytes of the parameters;
and the losses of all steps must be those of one process. Tokens a second are printed as well, and say little where
processes share cores.

``cost`` reckons memory and operations as ``train.py --check`` does, then trains some steps in the same process: the
highest memory that the system counts, and the operations of a whole iteration.
"""

import argparse
import collections
import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from bench_rounds import AGAIN, quartiles, resident_bytes
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ROOT = Path(__file__).resolve().parents[1]
STEPS = 40
MMAP_THRESHOLD = -3  # of glibc's mallopt: what is larger goes back to the system when it is freed, holes aside
SETTINGS = [
    "name=bench", "use_tb_logger=false", f"train.niter={STEPS}", "logger.print_freq=5", "eval.baselines=false",
    "train.val_freq=1000", "eval.max_batches=1", "samples=",
]  # fmt: skip


class Traffic(TorchDispatchMode):
    """Counts collective operations and the bytes that they are about, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: collections.Counter[str] = collections.Counter()
        self.sizes: collections.Counter[str] = collections.Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count one operation and run it."""
        namespace, name = str(func).split(".")[:2]
        if namespace == "c10d":
            given = [value for value in tree_leaves(args) if isinstance(value, torch.Tensor)]
            self.calls[name] += 1
            self.sizes[name] += max((value.nbytes for value in given), default=0)
        return func(*args, **(kwargs or {}))


def count_step(opt: str, overrides: list[str]) -> None:
    """In one of several processes: what a training step sends, printed by the first as JSON."""
    from codes.experiment import load_experiment
    from codes.trainer.distributed import joined, leave
    from codes.trainer.extensible_trainer import ExtensibleTrainer

    torch.set_num_threads(1)
    experiment = load_experiment(Path(opt), overrides)
    with joined(experiment.options) as ranks:
        trainer = ExtensibleTrainer(experiment, ranks=ranks)
        trainer._set_mode()
        for number in (1, 2):  # the engine sets itself up
            trainer.run_batch(trainer.parts.train_loader.batch(number), number)
        with Traffic() as traffic:
            trainer.run_batch(trainer.parts.train_loader.batch(3), 3)
        trained = [p for updaters in trainer.parts.updaters.values() for p in updaters[0].parameters]
        parameters = sum(p.numel() * p.element_size() for p in trained)
        if ranks.first:
            found = {name: [traffic.calls[name], traffic.sizes[name]] for name in traffic.calls}
            print(json.dumps({"messages": found, "parameter_bytes": parameters}), flush=True)
    leave(0)


def bench_scaling(arguments: argparse.Namespace) -> dict[str, Any]:
    """One process and several: messages of a step, losses, and tokens a second in turns."""
    many = str(arguments.devices)
    counted = _messages(arguments)
    found: dict[str, list[float]] = {"1": [], many: [], "1" + AGAIN: []}
    losses: dict[str, list[float]] = {}
    for _ in range(arguments.rounds):
        for name in found:
            lines = _lines(arguments, int(name.removesuffix(AGAIN)))
            rates = [line["tokens_per_second"] for line in lines]
            found[name].append(statistics.median(rates[len(rates) // 2 :]))
            losses[name] = [line["loss"] for line in lines]
    apart = max(abs(one / other - 1) for one, other in zip(losses[many], losses["1"], strict=True))
    ratios = {
        name: quartiles([one / other for one, other in zip(rates, found["1"], strict=True)])
        for name, rates in found.items()
    }
    print(f"{arguments.opt.name}: {many} processes, what one of them sends in a step:")
    for name, (calls, size) in counted["messages"].items():
        share = size / counted["parameter_bytes"]
        print(f"  {name:<24} {calls:4} x, {size:12,} bytes, {share:.4f} of the trained parameters'")
    print(f"losses of {STEPS} steps: at most {apart:.1e} from those of one process")
    print(f"tokens a second, on {os.cpu_count()} cores:")
    for name, rates in found.items():
        low, middle, high = ratios[name]
        print(f"  {name:>9} process(es) {statistics.median(rates):12,.0f}   x {middle:.3f} ({low:.3f} .. {high:.3f})")
    return {
        "rounds": arguments.rounds, "tokens_per_second": found, "ratio": ratios, "loss_difference": apart, **counted
    }  # fmt: skip


def _run(arguments: argparse.Namespace, processes: int, script: list[str], tail: list[str]) -> str:
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command = [*start, *script, str(arguments.opt), *tail]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def _messages(arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        tail = [f"path.root={folder}", *SETTINGS, *arguments.overrides]
        told = _run(arguments, arguments.devices, [str(Path(__file__).resolve())], tail)
    return json.loads(told.strip().splitlines()[-1])


def _lines(arguments: argparse.Namespace, processes: int) -> list[dict[str, Any]]:
    """The training lines of a short run's metrics."""
    with tempfile.TemporaryDirectory() as folder:
        tail = [f"path.root={folder}", *SETTINGS, *arguments.overrides]
        _run(arguments, processes, [str(ROOT / "train.py"), "-opt"], tail)
        lines = [json.loads(line) for line in (Path(folder) / "bench/metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["split"] == "train"]


def bench_cost(arguments: argparse.Namespace) -> dict[str, Any]:
    """What --check reckons for one process beside what training takes: memory, and operations of an iteration."""
    if sys.platform != "linux":
        raise SystemExit("bench.py cost reads the process's memory where Linux tells it")
    torch.set_num_threads(1)
    ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, 1 << 16)
    return compare_cost(arguments)


def compare_cost(arguments: argparse.Namespace) -> dict[str, Any]:
    """As `bench_cost`, in a process whose memory is as it is."""
    from torch.utils.flop_counter import FlopCounterMode

    from codes.experiment import load_experiment
    from codes.trainer.cost import estimate
    from codes.trainer.extensible_trainer import ExtensibleTrainer
    from codes.trainer.state import move

    with tempfile.TemporaryDirectory() as folder:
        overrides = [f"path.root={folder}", *SETTINGS, *arguments.overrides]
        trainer = ExtensibleTrainer(load_experiment(arguments.opt, overrides))
        batches = [trainer.parts.train_loader.next() for _ in range(4)]
        cost = estimate(trainer.experiment, trainer.parts, 1)
        trainer._set_mode()
        before = _settled_bytes()
        started = time.perf_counter()
        for number, batch in enumerate(batches[:3], 1):
            trainer.run_batch(move(batch, trainer.device), number)
        seconds = (time.perf_counter() - started) / 3
        measured = resident_bytes("VmHWM") - before
        with FlopCounterMode(display=False) as counter:
            trainer.run_batch(batches[3], 4)
        trainer.parts.train_loader.close()
    expected = cost.gradients_bytes + cost.optimizer_bytes + cost.activations_bytes
    operations = counter.get_total_flops()
    print(f"{arguments.opt.name}, one process, one thread; weights aside, which are there before the first step")
    print(f"  memory:     reckoned {expected / 2**20:10.1f} MiB, taken {measured / 2**20:10.1f} MiB: "
          f"{measured / expected:.3f} of it")  # fmt: skip
    print(f"  operations: reckoned {cost.step_flops:.6g}, counted in an iteration {operations:.6g}: "
          f"{operations / cost.step_flops:.4f} of it; {seconds:.2f} s, {operations / seconds / 1e9:.1f} GFLOPS"
          )  # fmt: skip
    return {
        "memory_reckoned": expected, "memory_taken": measured, "flops_reckoned": cost.step_flops,
        "flops_counted": operations, "step_seconds": seconds,
    }  # fmt: skip


def _settled_bytes() -> int:
    """Resident memory, after giving back what is free; the highest one is counted anew from here."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return resident_bytes("VmRSS")


if __name__ == "__main__":
    count_step(sys.argv[1], sys.argv[2:])
