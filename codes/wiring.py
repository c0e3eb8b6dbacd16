"""Follow every key of the state through an experiment before anything is paid for.

Found here: keys that are read before any dataset or injector wrote them, keys that are written twice, keys that hide a
dataset's, and outputs that nobody reads (a warning).
"""

from codes import registry
from codes.convert import did_you_mean
from codes.entries import Entry, StepEntry
from codes.yaml_source import Mark

Problems = list[tuple[Mark, str]]


def check(datasets: dict[str, Entry], steps: list[StepEntry], problems: Problems, complete: bool = True) -> list[str]:
    """Check the wiring of training and of validation; returns warnings.

    Args:
        datasets: the datasets' entries by phase; a dataset whose class is unknown leaves its keys unchecked.
        steps: the steps in order.
        problems: what is wrong is added here.
        complete: False where some entry could not be read; then a missing key proves nothing and is not reported.
    """
    written: dict[str, Mark] = {}
    read: set[str] = set()
    for phase, entry in datasets.items():
        keys = _provided(entry, problems)
        _walk(steps, phase, keys or {}, complete and keys is not None, problems, written, read)
    unread = {key: mark for key, mark in written.items() if key not in read and not key.startswith("_")}
    return [f"{mark}: nobody reads {key!r}" for key, mark in unread.items()]


def _provided(entry: Entry, problems: Problems) -> dict[str, str] | None:
    """The keys that a dataset provides, or None where that is not known."""
    if entry.component is None:
        return None
    try:
        return entry.component.cls.provided_keys(entry.component.options)
    except Exception as error:  # a plug-in's method may raise anything
        message = f"dataset {entry.component.type}: provided_keys() failed: {registry.reason(error)}"
        problems.append((entry.component.mark, message))
        return None


def _walk(
    steps: list[StepEntry], phase: str, provided: dict[str, str], complete: bool,
    problems: Problems, all_written: dict[str, Mark], all_read: set[str],
) -> None:  # fmt: skip
    """One phase ("train" or "val"): the keys live from step to step, cut down by `step_outputs`."""
    known: dict[str, Mark | None] = dict.fromkeys(provided)
    for step in steps:
        own: dict[str, Mark] = {}

        def read(key: str, entry: Entry, own: dict[str, Mark] = own) -> None:
            all_read.add(key)
            if key not in known and key not in own and complete:
                hint = did_you_mean(key, {*known, *own})
                problems.append((entry.mark, f"{entry.name} reads {key!r}, which nothing wrote before it{hint}"))

        for entry in step.injectors:
            if (entry.flags.train and phase == "val") or (entry.flags.eval and phase == "train"):
                continue
            for key in entry.flags.in_:
                read(key, entry)
            for key in entry.flags.out:
                _write(key, entry, known, own, problems)
                all_written.setdefault(key, entry.mark)
        for loss in step.losses:
            for key in loss.reads.values():
                read(key, loss)
        _check_step_outputs(step, problems)
        kept = own if step.flags.step_outputs is None else {k: own[k] for k in step.flags.step_outputs if k in own}
        known.update(kept)


def _write(key: str, entry: Entry, known: dict[str, Mark | None], own: dict[str, Mark], problems: Problems) -> None:
    if key in own:
        problems.append((entry.mark, f"{entry.name} writes {key!r}, which line {own[key].line} has written already"))
    elif key in known:
        first = known[key]
        by = f"line {first.line} has written already" if first else "the dataset provides already"
        problems.append((entry.mark, f"{entry.name} writes {key!r}, which {by}: choose another name"))
    own.setdefault(key, entry.mark)


def _check_step_outputs(step: StepEntry, problems: Problems) -> None:
    outputs = {key for entry in step.injectors for key in entry.flags.out}
    for key in step.flags.step_outputs or []:
        if key not in outputs:
            hint = did_you_mean(key, outputs)
            problems.append((step.mark, f"step_outputs of {step.name}: {key!r} is not written{hint}"))
