"""Follow every key of the state through an experiment before anything is paid for.

Found here: keys that are read before any dataset or injector wrote them, keys that are written twice, keys that hide a
dataset's, and outputs that nobody reads (a warning). `item_seed`, which the loader adds to every batch, may be read
and never written.
"""

import math
from collections.abc import Iterable, Set

from codes import registry
from codes.convert import did_you_mean
from codes.entries import Entry, StepEntry
from codes.randomness import ITEM_SEED
from codes.yaml_source import Mark

Problems = list[tuple[Mark, str]]
_RESERVED = "which the loader adds to every batch: choose another name"


def check(
    datasets: dict[str, Entry], steps: list[StepEntry], problems: Problems, complete: bool = True,
    shown: Set[str] = frozenset(),
) -> list[str]:  # fmt: skip
    """Check the wiring of training and of validation; returns warnings.

    Args:
        datasets: the datasets' entries by phase; a dataset whose class is unknown leaves its keys unchecked.
        steps: the steps in order.
        problems: what is wrong is added here.
        shown: keys that evaluation reads.
        complete: False where some entry could not be read; then a missing key proves nothing and is not reported.
    """
    walks = []
    for phase, entry in datasets.items():
        keys = _provided(entry, problems)
        walks.append(_Walk(phase, keys or {}, problems))
        walks[-1].through(steps)
        complete = complete and keys is not None
    for step in steps:
        _check_step_outputs(step, problems)
    if complete:
        problems += _missing(walks)
    written = {key: mark for walk in reversed(walks) for key, mark in walk.written.items()}
    read = {key for walk in walks for key in walk.read} | shown
    unread = {key: mark for key, mark in written.items() if key not in read and not key.startswith("_")}
    return [f"{mark}: nobody reads {key!r}" for key, mark in unread.items()]


def validation_keys(datasets: dict[str, Entry], steps: list[StepEntry]) -> set[str]:
    """The keys that a batch of validation has at its end."""
    entry = datasets.get("val")
    if entry is None:
        return set()
    walk = _Walk("val", _provided(entry, []) or {}, [])
    walk.through(steps)
    return {*walk.known, *walk.written, ITEM_SEED}


def _missing(walks: list["_Walk"]) -> Problems:
    """One problem for each key that is not there, and the phase where it is missing in one only."""
    problems = []
    for (mark, text), hint in {place: hint for walk in walks for place, hint in walk.missing.items()}.items():
        phases = [walk.phase for walk in walks if (mark, text) in walk.missing]
        when = "" if len(phases) == len(walks) else " in training" if phases == ["train"] else " in validation"
        problems.append((mark, f"{text}{when}{hint}"))
    return problems


def _provided(entry: Entry, problems: Problems) -> dict[str, str] | None:
    """The keys that a dataset provides, or None where that is not known."""
    if entry.component is None:
        return None
    try:
        keys = entry.component.cls.provided_keys(entry.component.options)
    except Exception as error:  # a plug-in's method may raise anything
        message = f"dataset {entry.component.type}: provided_keys() failed: {registry.reason(error)}"
        problems.append((entry.component.mark, message))
        return None
    if ITEM_SEED in keys:
        problem = entry.component.mark, f"dataset {entry.component.type} provides {ITEM_SEED!r}, {_RESERVED}"
        problems += [] if problem in problems else [problem]  # training and validation may share their lines
    return keys


class _Walk:
    """One phase ("train" or "val"): the keys live from step to step, cut down by `step_outputs`."""

    def __init__(self, phase: str, provided: dict[str, str], problems: Problems) -> None:
        self.phase = phase
        self.problems = problems
        self.known: dict[str, Mark | None] = dict.fromkeys(provided)
        self.own: dict[str, Mark] = {}  # what the step at hand has written so far
        self.written: dict[str, Mark] = {}
        self.read: set[str] = set()
        self.writers: dict[str, tuple[Entry, StepEntry]] = {}
        self.missing: dict[tuple[Mark, str], str] = {}  # what is read too early -> did you mean

    def through(self, steps: list[StepEntry]) -> None:
        """Follow the keys through all steps."""
        for step in steps:
            self.read.update(step.flags.requires)
            if not step.flags.met_by(self.known):
                continue
            self.own = {}
            for entry in step.injectors:
                if not ((entry.flags.train and self.phase == "val") or (entry.flags.eval and self.phase == "train")):
                    self._reads(entry, entry.flags.in_, step)
                    self._writes(entry, step)
            for loss in step.losses:
                self._reads(loss, loss.reads.values(), step)
            kept = self.own if step.flags.step_outputs is None else step.flags.step_outputs
            self.known |= {key: self.own[key] for key in kept if key in self.own}

    def _reads(self, entry: Entry, keys: Iterable[str], step: StepEntry) -> None:
        self.read.update(keys)
        for key in keys:
            if key not in self.known and key not in self.own and key != ITEM_SEED:
                hint = did_you_mean(key, {*self.known, *self.own})
                self.missing[entry.mark, f"{entry.name} reads {key!r}, which nothing wrote before it"] = hint
            elif self.phase == "train" and key in self.writers and key not in step.flags.requires:
                why = _may_be_absent(self.writers[key], (entry, step))
                if why:
                    message = (
                        f"{entry.name} reads {key!r}, which {self.writers[key][0].name} does not always write ({why})"
                    )
                    self.problems.append((entry.mark, f"{message}: give both the same conditions"))

    def _writes(self, entry: Entry, step: StepEntry) -> None:
        for key in entry.flags.out:
            if key == ITEM_SEED:
                self.problems.append((entry.mark, f"{entry.name} writes {key!r}, {_RESERVED}"))
            elif key in self.own or key in self.known:
                first = self.own.get(key) or self.known.get(key)
                by = f"line {first.line} has written already" if first else "the dataset provides already"
                self.problems.append((entry.mark, f"{entry.name} writes {key!r}, which {by}: choose another name"))
            self.own.setdefault(key, entry.mark)
            self.written.setdefault(key, entry.mark)
            self.writers.setdefault(key, (entry, step))


def _may_be_absent(writer: tuple[Entry, StepEntry], reader: tuple[Entry, StepEntry]) -> str:
    """The condition of a writer (or of its step) that does not hold whenever its reader runs; "" where all do."""
    within = writer[1] is reader[1]  # then the step's own conditions hold for both
    wrote = [writer[0].flags] if within else [writer[0].flags, writer[1].flags]
    read = [reader[0].flags] if within else [reader[0].flags, reader[1].flags]
    if max(f.after for f in wrote) > max(max(f.after for f in read), 1):
        return "after"
    ends = [f.before for f in read if f.before is not None]
    if any(f.before is not None and (not ends or min(ends) > f.before) for f in wrote):
        return "before"
    if any(math.lcm(*(f.every for f in read)) % f.every for f in wrote):
        return "every"
    return "no_accum" if getattr(wrote[0], "no_accum", False) and not getattr(read[0], "no_accum", False) else ""


def _check_step_outputs(step: StepEntry, problems: Problems) -> None:
    outputs = {key for entry in step.injectors for key in entry.flags.out}
    for key in step.flags.step_outputs or []:
        if key not in outputs:
            hint = did_you_mean(key, outputs)
            problems.append((step.mark, f"step_outputs of {step.name}: {key!r} is not written{hint}"))
