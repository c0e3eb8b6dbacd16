"""Hyper-parameter search over an experiment: each trial is a run of train.py with some keys set otherwise.

What was tried lies in an SQLite file of Optuna's beside the runs. A trial is recorded before its run starts, so a
search that was killed goes on with the same command: trials that had not ended are continued from their checkpoints,
and trial n has the same values however often the search was stopped. Several runs at once are processes of their own.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, Protocol

from codes.experiment import load_experiment
from codes.trainer.metrics import read_metrics
from codes.trainer.signals import StopRequest
from codes.trainer.sweep_space import Dimension, grid
from codes.yaml_source import OptionError

Sampler = Literal["grid", "random", "halving"]
REDUCTION = 3  # successive halving: the best third goes on at each rung
RUNGS = 2
RUNG_KEYS = ("train", "train.niter", "train.val_freq")  # what decides where the rungs are
NO_FIGURE = "it ended without a validation whose figure is a number (train.val_freq, or a rate that is too high)"
POLL_SECONDS = 0.2
TRAIN = Path(__file__).resolve().parents[2] / "train.py"


class Process(Protocol):
    """What a search needs of a run's process, as subprocess.Popen has it."""

    pid: int

    def poll(self) -> int | None:
        """Its exit status; None while it runs."""

    def send_signal(self, sig: int, /) -> None: ...


def start_run(arguments: list[str], log: IO[bytes], environment: dict[str, str]) -> Process:
    """train.py with these arguments, in a session of its own, so that Ctrl-C reaches the search alone."""
    return subprocess.Popen(
        [sys.executable, str(TRAIN), *arguments], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment,
        start_new_session=True,
    )  # fmt: skip


@dataclass
class Running:
    """A trial whose run is going on: a process of ours, or the number of one that an earlier search left behind."""

    trial: Any
    pid: int
    process: Process | None
    reported: int = 0  # the last step whose figure the study has
    pruned: bool = False


class Sweep:
    """A search.

    Args:
        experiment: the YAML.
        space: what is searched over.
        folder: where study and runs go.
        sampler: grid, random, or halving: random, with the worse two thirds stopped at a ninth and a third of the way.
        trials: how many, those of earlier calls included.
        jobs: runs at once.
        seed: of the draws.
        overrides: ``key=value`` for every run.
        say: takes lines for people.
        start: starts a run.

    Raises:
        ValueError: the folder holds another search.
        OptionError: a range cannot be a grid, or halving could not compare the runs.
    """

    def __init__(
        self, experiment: Path, space: list[Dimension], folder: Path, *, sampler: Sampler, trials: int, jobs: int,
        seed: int, overrides: list[str], say: Any = print,
        start: Callable[[list[str], IO[bytes], dict[str, str]], Process] = start_run,
    ) -> None:  # fmt: skip
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.experiment, self.space, self.folder, self.say, self.start = experiment, space, folder, say, start
        self.sampler, self.jobs, self.seed, self.overrides = sampler, jobs, seed, overrides
        _check_comparable(space, sampler)
        options = load_experiment(experiment, overrides).options
        self.rung = max(1, options.train.niter // REDUCTION**RUNGS)
        if sampler == "halving" and (options.train.val_freq is None or self.rung % options.train.val_freq):
            self.overrides = [*overrides, f"train.val_freq={self.rung}"]
        folder.mkdir(parents=True, exist_ok=True)
        pruner = optuna.pruners.NopPruner()
        if sampler == "halving":
            pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=self.rung, reduction_factor=REDUCTION)
        self.study = optuna.create_study(
            storage=f"sqlite:///{folder / 'study.db'}", study_name="sweep", load_if_exists=True, pruner=pruner
        )
        self._check_same()
        self.trials = min(trials, len(grid(space))) if sampler == "grid" else trials

    def _check_same(self) -> None:
        """Note what is searched, or compare it with what the folder says."""
        mine = {
            "experiment": self.experiment.read_text(encoding="utf-8"), "sampler": self.sampler, "seed": self.seed,
            "overrides": self.overrides,
            "space": [{k: v for k, v in vars(dimension).items() if k != "mark"} for dimension in self.space],
        }  # fmt: skip
        mine = json.loads(json.dumps(mine))
        known = self.study.user_attrs.get("search")
        if known is None:
            self.study.set_user_attr("search", mine)
            if self.sampler == "grid":
                for values in grid(self.space):
                    self.study.enqueue_trial(values)
            return
        changed = [name for name in mine if mine[name] != known[name]]
        if changed:
            raise ValueError(
                f"{self.folder} holds a search with another {', '.join(changed)}: undo that, or choose another --out"
            )

    def run(self) -> None:
        """Run until all trials have ended; Ctrl-C stops the runs, which save, and is a KeyboardInterrupt then."""
        running = [self._adopt(trial) for trial in self._unfinished()]
        waiting = [trial for trial, left in running if left is None]
        active = [left for _, left in running if left is not None]
        with StopRequest() as stop:  # an interrupt in the midst of a library's own work could be lost
            while not stop.requested:
                while len(active) < self.jobs and (waiting or self._num_started() < self.trials):
                    active.append(self._start(waiting.pop(0) if waiting else self._ask()))
                if not active:
                    return
                active = [left for left in active if not self._ended(left)]
                time.sleep(POLL_SECONDS)
            for left in active:
                self._stop(left)
            for left in active:
                self._wait(left)
            raise KeyboardInterrupt

    def _num_started(self) -> int:
        return sum(trial.state.name != "WAITING" for trial in self.study.get_trials(deepcopy=False))

    def _unfinished(self) -> list[Any]:
        """Trials that an earlier search recorded and did not see the end of."""
        import optuna

        found = [t for t in self.study.get_trials(deepcopy=False) if t.state.name == "RUNNING"]
        whole = [trial for trial in found if len(trial.params) == len(self.space)]
        for trial in found:
            if trial not in whole:  # killed while it was being recorded
                self.study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        return [optuna.trial.Trial(self.study, trial._trial_id) for trial in whole]

    def _ask(self) -> Any:
        """The next trial, recorded with all its values: those of the grid, or drawn from (seed, number)."""
        import optuna

        number = len(self.study.get_trials(deepcopy=False))
        drawn = random.Random(f"{self.seed} {number}").getrandbits(31)
        self.study.sampler = optuna.samplers.RandomSampler(seed=drawn)
        return self.study.ask({dimension.key: dimension.distribution() for dimension in self.space})

    def name(self, trial: Any) -> str:
        """The name of a trial's run."""
        return f"trial_{trial.number:04d}"

    def _values(self, trial: Any) -> list[str]:
        return [dimension.override(trial.params[dimension.key]) for dimension in self.space]

    def _num_steps(self, trial: Any) -> int:
        """How many steps a trial's run takes: the space may say so."""
        return load_experiment(self.experiment, [*self.overrides, *self._values(trial)]).options.train.niter

    def _start(self, trial: Any) -> Running:
        values, name, root = self._values(trial), self.name(trial), self.folder / "runs"
        root.mkdir(exist_ok=True)
        arguments = ["-opt", str(self.experiment), *self.overrides, *values, f"path.root={root}", f"name={name}"]
        threads = str(max(1, (os.cpu_count() or 1) // self.jobs))
        with (self.folder / f"{name}.txt").open("ab") as log:
            process = self.start(arguments, log, {"OMP_NUM_THREADS": threads, **os.environ})
        trial.set_user_attr("pid", process.pid)
        self.say(f"{name}: {'  '.join(values)}")
        return Running(trial, process.pid, process, self._last_reported(trial))

    def _adopt(self, trial: Any) -> tuple[Any, Running | None]:
        """A run that goes on although the search that started it was killed, or None where it must be continued."""
        pid = trial.user_attrs.get("pid")
        if pid is None or not _is_run(pid, self.name(trial)):
            return trial, None
        self.say(f"{self.name(trial)}: is still running")
        return trial, Running(trial, pid, None, self._last_reported(trial))

    def _last_reported(self, trial: Any) -> int:
        """The last step whose figure the study has: an earlier search may have reported some."""
        return max(self.study.get_trials(deepcopy=False)[trial.number].intermediate_values, default=0)

    def _ended(self, left: Running) -> bool:
        """Look at a run: report its validations, stop it where it is not worth going on, and tell how it ended."""
        import optuna

        alive = left.process.poll() is None if left.process else _is_run(left.pid, self.name(left.trial))
        lines = self.validations(left.trial)
        for line in [line for line in lines if line["step"] > left.reported]:  # a continued run writes some again
            left.trial.report(figure(line), line["step"])
            left.reported = line["step"]
            # Asked at every validation, however many have come since the last look: runs are compared at equal steps.
            if self.sampler == "halving" and left.trial.should_prune() and alive:
                left.pruned = True
                self._stop(left)
                break
        if alive:
            return False
        best = min((figure(line) for line in lines), default=None)
        done = bool(lines) and lines[-1]["step"] >= self._num_steps(left.trial)
        if done and best is not None:
            self.study.tell(left.trial, best)
            self.say(f"{self.name(left.trial)}: {best:.4f}")
        elif left.pruned:
            self.study.tell(left.trial, state=optuna.trial.TrialState.PRUNED)
            self.say(f"{self.name(left.trial)}: stopped at step {lines[-1]['step']} ({figure(lines[-1]):.4f})")
        else:
            finished = left.process is not None and left.process.poll() == 0
            why = NO_FIGURE if finished else self._last_words(left.trial)
            left.trial.set_user_attr("why", why)
            self.study.tell(left.trial, state=optuna.trial.TrialState.FAIL)
            self.say(f"{self.name(left.trial)}: failed: {why}")
        return True

    def validations(self, trial: Any) -> list[dict[str, Any]]:
        """The validation lines of a trial's run so far."""
        path = self.folder / "runs" / self.name(trial) / "metrics.jsonl"
        lines = read_metrics(path) if path.is_file() else []
        return [line for line in lines if line["split"] == "val" and figure(line) is not None]

    def _last_words(self, trial: Any) -> str:
        log = (self.folder / f"{self.name(trial)}.txt").read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(log) if line.strip()), "it said nothing")

    @staticmethod
    def _stop(left: Running) -> None:
        """Ask a run to save and end."""
        if left.process is not None:
            left.process.send_signal(signal.SIGTERM if os.name != "nt" else signal.CTRL_BREAK_EVENT)
        else:
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself meanwhile
                os.kill(left.pid, signal.SIGTERM)

    def _wait(self, left: Running) -> None:
        while left.process.poll() is None if left.process else _is_run(left.pid, self.name(left.trial)):
            time.sleep(POLL_SECONDS)


def _check_comparable(space: list[Dimension], sampler: Sampler) -> None:
    """Halving stops runs by their figures at the same steps."""
    rule = "--sampler halving compares runs at the same steps, so that it cannot vary here: use random or grid"
    problems = [(found.mark, f"{found.key}: {rule}") for found in space if found.key in RUNG_KEYS]
    if sampler == "halving" and problems:
        raise OptionError(problems)


def figure(line: dict[str, Any]) -> Any:
    """What a validation line is judged by: bits per sample, else the loss."""
    return line.get("bits_per_sample", line.get("loss"))


def _is_run(pid: int, name: str) -> bool:
    """Whether the process of that number is alive and, where that can be seen, the run of that name."""
    arguments = Path(f"/proc/{pid}/cmdline")
    if Path("/proc/self").exists():
        return arguments.is_file() and f"name={name}".encode() in arguments.read_bytes().split(b"\0")
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
