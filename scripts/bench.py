"""Measure Waveschool against the plain code that a user would write instead.

    python scripts/bench.py trainer [-opt experiments/stereo_lm.yml] [key.sub=value ...] [--json FILE]
    python scripts/bench.py data [--path DIR] [--json FILE]
    python scripts/bench.py loss | sampling | compress | scaling | cost [--rounds N] [--json FILE]

``trainer`` compares one training step of the trainer with a bare hand-written loop over the same network, optimizer
and batches: the tensor operations of a step (counted), the waits for the device between two log steps (counted), and
the wall clock. The clock of a shared machine wanders, so bare loop, trainer and bare loop again take turns, and the
ratio of the two bare loops (A/A) is printed beside: a difference within its spread is not one.

``data`` compares reading random chunks with what one would write with soundfile, in the same manner, and says whether
the project's targets are reached; see scripts/bench_data.py. Without --path it makes its audio itself. The others are
explained in scripts/bench_model.py and scripts/bench_scale.py.
"""

import argparse
import collections
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from bench_data import bench_data
from bench_model import bench_compress, bench_loss, bench_sampling
from bench_rounds import quartiles
from bench_scale import bench_cost, bench_scaling
from torch.utils._python_dispatch import TorchDispatchMode

from codes.experiment import load_experiment
from codes.trainer.extensible_trainer import ExtensibleTrainer
from codes.trainer.optim import parameter_groups
from codes.trainer.state import move

SYNCS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select")
# What the trainer does on purpose and the bare loop does not; anything beyond it is a fault.
DECLARED_EXTRAS = {
    "aten.sub": "is the gradient norm finite? (asked and answered on the device)",
    "aten.ne": "the same",
    "aten._to_copy": "the same",
    "aten._foreach_sub_": "fused AdamW takes back its step count where the update is skipped",
    "aten.detach": "the loss is kept for the log without its graph",
    "aten.sum": "a loss is a sum and a count ...",
    "aten.mul": "... and is divided by what was counted over all micro-batches",
}


class CountOperations(TorchDispatchMode):
    """Counts the tensor operations that are dispatched inside it, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: collections.Counter[str] = collections.Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count one operation and run it."""
        self.counts[str(func.overloadpacket)] += 1
        return func(*args, **(kwargs or {}))

    def syncs(self) -> int:
        """How many of them read a value back from the device."""
        return sum(count for name, count in self.counts.items() if name.split(".")[-1] in SYNCS)


class BareLoop:
    """What a user would write: the network, fused AdamW, clipping; nothing is checked, weighed, counted or logged."""

    def __init__(self, trainer: ExtensibleTrainer) -> None:
        self.trainer = trainer
        step = trainer.experiment.steps[0]
        params = step.flags.optimizer_params
        self.chain = [bound.injector for bound in trainer.parts.steps[0].injectors]
        (self.network,) = trainer.parts.networks.values()
        groups = parameter_groups(self.network, params)  # decayed and not, as such loops have them
        self.optimizer = torch.optim.AdamW(groups, lr=params.lr, betas=(params.beta1, params.beta2), fused=True)
        self.clip = step.flags.clip_grad_eps

    def step(self, batch: dict[str, Any]) -> torch.Tensor:
        """One training step; returns the loss without reading it."""
        self.optimizer.zero_grad(set_to_none=True)
        value: Any = batch["wav"].to(self.trainer.device, non_blocking=True)
        with self.trainer.precision.autocast():
            for injector in self.chain:
                value = injector(value)
        loss = value.mean()
        loss.backward()
        if self.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.clip)
        self.optimizer.step()
        return loss.detach()


def bench_trainer(arguments: argparse.Namespace) -> dict[str, Any]:
    """Operations, waits and wall clock of the trainer's step beside the bare loop's."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = [*arguments.overrides, f"path.root={folder}", "use_tb_logger=false"]
        trainer = ExtensibleTrainer(load_experiment(arguments.opt, overrides))
        if len(trainer.parts.networks) != 1 or len(trainer.parts.steps) != 1:
            raise SystemExit(
                "bench.py trainer needs an experiment with one network, one step and one chain of injectors"
            )
        trainer._set_mode()
        batches = [trainer.parts.train_loader.next() for _ in range(4)]
        bare = BareLoop(trainer)
        numbers = iter(range(1, 10**9))

        def train(batch: dict[str, Any]) -> None:
            trainer.run_batch(move(batch, trainer.device), next(numbers))

        for batch in batches:
            bare.step(batch)
            train(batch)
        result = count(train, bare.step, batches) | race(train, bare.step, batches, arguments.rounds, trainer.device)
    report(result)
    return result


def count(train: Callable[..., Any], bare: Callable[..., Any], batches: list[dict[str, Any]]) -> dict[str, Any]:
    """The operations of one step on each side, and the trainer's waits in one step between two log steps."""
    counted = {}
    for name, run in (("bare", bare), ("trainer", train)):
        with CountOperations() as mode:
            run(batches[0])
        counted[name] = mode
    extra = counted["trainer"].counts - counted["bare"].counts
    saved = counted["bare"].counts - counted["trainer"].counts
    return {
        "operations_bare": counted["bare"].counts.total(),
        "operations_trainer": counted["trainer"].counts.total(),
        "extra_operations": dict(extra),
        "saved_operations": dict(saved),
        "syncs_bare": counted["bare"].syncs(),
        "syncs_trainer": counted["trainer"].syncs(),
    }


def race(
    train: Callable[..., Any],
    bare: Callable[..., Any],
    batches: list[dict[str, Any]],
    rounds: int,
    device: torch.device,
) -> dict[str, Any]:
    """Bare loop, trainer, bare loop in turns; ratios round by round."""

    def seconds(run: Callable[..., Any]) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        for batch in batches:
            run(batch)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    ratios, spread, steps = [], [], []
    for _ in range(rounds):
        first, trained, second = seconds(bare), seconds(train), seconds(bare)
        ratios.append(2 * trained / (first + second))
        spread.append(second / first)
        steps.append((first + second) / 2 / len(batches))
    return {
        "rounds": rounds,
        "bare_step_seconds": statistics.median(steps),
        "ratio": quartiles(ratios),
        "ratio_bare_to_bare": quartiles(spread),
    }


def report(result: dict[str, Any]) -> None:
    """Print the figures."""
    print(f"operations a step: bare {result['operations_bare']}, trainer {result['operations_trainer']}")
    for name, number in result["extra_operations"].items():
        print(f"  the trainer's own: {number} x {name}: {DECLARED_EXTRAS.get(name, 'NOT DECLARED')}")
    for name, number in result["saved_operations"].items():
        print(f"  the bare loop's own: {number} x {name}")
    print(f"waits for the device between two log steps: bare {result['syncs_bare']}, trainer {result['syncs_trainer']}")
    print(f"bare step: {1000 * result['bare_step_seconds']:.1f} ms")
    for title, key in (("trainer / bare", "ratio"), ("bare / bare (A/A)", "ratio_bare_to_bare")):
        low, middle, high = result[key]
        print(f"{title:<18} median {middle:.4f}, quartiles {low:.4f} .. {high:.4f} over {result['rounds']} rounds")


MEASUREMENTS = {
    "trainer": bench_trainer, "data": bench_data, "loss": bench_loss, "sampling": bench_sampling,
    "compress": bench_compress, "scaling": bench_scaling, "cost": bench_cost,
}  # fmt: skip


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=list(MEASUREMENTS))
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value")
    parser.add_argument("-opt", type=Path, default=Path(__file__).parents[1] / "experiments" / "stereo_lm.yml")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    model = parser.add_argument_group("of loss, sampling and scaling")
    model.add_argument("--tokens", type=int, help="tokens of a pass, or of a sequence")
    model.add_argument("--width", type=int, default=256, help="of the network")
    model.add_argument("--codes", type=int, default=65_536, help="values that the loss is over")
    model.add_argument("--devices", type=int, default=2, help="processes beside one")
    data = parser.add_argument_group("of data and compress")
    data.add_argument("--path", type=Path, metavar="DIR", help="16-bit stereo WAV files, all of one sample rate")
    data.add_argument("--chunk-seconds", type=float, default=2.0, help="length of a chunk")
    data.add_argument("--file-seconds", type=float, default=60.0, help="length of each of the six files that are made")
    data.add_argument("--reads", type=int, default=256, help="chunks that are read at a turn")
    data.add_argument("--steps", type=int, default=60, help="training steps that wait for data")
    arguments = parser.parse_intermixed_args()
    result = MEASUREMENTS[arguments.what](arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
