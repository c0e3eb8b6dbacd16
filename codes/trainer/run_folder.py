"""The folder of a run: where everything goes, what a continued run is compared with, and how an old one makes way."""

import datetime
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from codes import resolve
from codes.entries import Experiment
from codes.run_files import best_checkpoint
from codes.trainer.checkpoint import CheckpointError, list_checkpoints, verify, write_atomically
from codes.trainer.step import Step

# What may change between the parts of one run: how much is said and kept, and how far it goes.
CHANGEABLE = (
    "logger.", "path.root", "path.resume_state", "path.optimizer_reset", "train.niter", "train.max_nonfinite_steps",
    "datasets.train.n_workers", "datasets.val.n_workers", "datasets.train.pin_memory", "datasets.val.pin_memory",
    "samples", "use_tb_logger", "wandb", "gpu_ids", "anomaly_detection", "eval.baseline",
    "parallel", "dist_", "ddp_", "compile", "tf32",
)  # fmt: skip


class RunFolder:
    """The paths of a run.

    Args:
        experiment: names the folder: path.root/name.
        fresh: move an existing folder aside.
    """

    def __init__(self, experiment: Experiment, fresh: bool = False) -> None:
        self.experiment = experiment
        self.path = experiment.options.path.root / experiment.options.name
        self.checkpoints = self.path / "checkpoints"
        self.samples = self.path / "samples"
        self.moved_to: Path | None = None
        if fresh and self.path.exists():
            self.moved_to = self._free_name()
            try:
                os.replace(self.path, self.moved_to)
            except OSError as error:
                raise CheckpointError(f"the old run {self.path} cannot be moved aside: {error}") from error

    def _free_name(self) -> Path:
        stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        name = self.path.with_name(f"{self.path.name}.{stamp}")
        number = 1
        while name.exists():
            number += 1
            name = self.path.with_name(f"{self.path.name}.{stamp}-{number}")
        return name

    def create(self) -> None:
        """Make the folders and write options.yml."""
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        self.samples.mkdir(exist_ok=True)
        text = yaml.safe_dump(resolve.resolved(self.experiment), sort_keys=False, allow_unicode=True)
        write_atomically(self.path / "options.yml", text)

    def record_data(self, datasets: Mapping[str, Any]) -> None:
        """Keep beside the run which files its datasets take, where they can say so."""
        for name, dataset in datasets.items():
            if hasattr(dataset, "write_index"):
                dataset.write_index(self.path / f"audio_{name}.jsonl")

    def checkpoint(self) -> Path | None:
        """The checkpoint to continue from: path.resume_state, or the newest of this run, or None."""
        chosen = self.experiment.options.path.resume_state
        if chosen is None:
            found = list_checkpoints(self.checkpoints)
            return found[-1] if found else None
        if not (chosen / "manifest.json").is_file():
            known = ", ".join(str(path) for path in list_checkpoints(self.checkpoints)) or "none"
            raise CheckpointError(f"path.resume_state: {chosen} is not a checkpoint folder (of this run: {known})")
        return chosen

    def check_unchanged(self, checkpoint: Path, saved: dict[str, Any]) -> None:
        """Refuse to continue a run as another experiment.

        Raises:
            CheckpointError: lists every difference.
        """
        differences = difference(saved, self.experiment.values)
        if differences:
            raise CheckpointError(
                f"{checkpoint} belongs to another experiment than {self.experiment.file}:\n  "
                + "\n  ".join(differences)
                + "\nUndo these changes to continue it, or start anew with --fresh (the old run is kept beside), "
                "or give the experiment another name; path.pretrain_model_NETWORK takes the weights along."
            )

    def check_data(self, saved: dict[str, Any], now: dict[str, Any], datasets: Mapping[str, Any]) -> list[str]:
        """Refuse to continue a run on other data: its batches and its validation would be others.

        Where a dataset leaves out files that break (on_error: skip), it goes on without them; the lines say so.

        Raises:
            CheckpointError: says what the data was and is.
        """
        changed = {key: value for key, value in saved.items() if now.get(key) != value}
        lines = []
        for name, dataset in datasets.items():
            marks = {f"{name} {mark}" for mark in ("files", "frames", "digest", "content")} & changed.keys()
            told = None
            if marks and hasattr(dataset, "changes_since"):
                told = dataset.changes_since(self.path / f"audio_{name}.jsonl")
            if told:
                changed = {key: value for key, value in changed.items() if key not in marks}
                lines += [f"goes on without what broke in datasets.{name}: {line}" for line in told]
        if changed:
            differences = [f"{key}: was {value}, is {now.get(key)}" for key, value in changed.items()]
            raise CheckpointError(
                f"the data of {self.path} has changed:\n  " + "\n  ".join(differences) + "\nPut it back to continue, "
                "or start anew with --fresh; path.pretrain_model_NETWORK takes the weights along. With on_error: skip "
                "a run goes on without files that broke or are gone."
            )
        return lines


def choose_checkpoint(run: Path, wanted: Path | None = None) -> Path:
    """A verified checkpoint of a run: the wanted one, else its best, or its newest where none is marked.

    Raises:
        CheckpointError: there is none yet, what marks the best cannot be read, or a file of it is missing or altered.
    """
    try:
        chosen = wanted or best_checkpoint(run)
    except (FileNotFoundError, ValueError) as error:
        raise CheckpointError(str(error)) from error
    verify(chosen)
    return chosen


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one mapping with dotted keys."""
    if not isinstance(value, dict):
        return {prefix: value}
    flat = {}
    for key, child in value.items():
        flat.update(flatten(child, f"{prefix}.{key}" if prefix else str(key)))
    return flat


def difference(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What differs between two experiments, one line a key, without what may change."""
    before, after = flatten(old), flatten(new)
    lines = []
    for key in sorted(before.keys() | after.keys()):
        if key.startswith(CHANGEABLE) or before.get(key, _ABSENT) == after.get(key, _ABSENT):
            continue
        was = repr(before[key]) if key in before else "not set"
        now = repr(after[key]) if key in after else "not set"
        lines.append(f"{key}: was {was}, is {now}")
    orders = [_order(options) for options in (old, new)]
    if orders[0] != orders[1] and set(orders[0]) == set(orders[1]):
        lines.append(f"order of steps and injectors: was {', '.join(orders[0])}, is {', '.join(orders[1])}")
    return lines


def _order(options: dict[str, Any]) -> list[str]:
    """The injectors in the order in which they run."""
    return [f"{step}.{name}" for step, entry in options["steps"].items() for name in entry.get("injectors", {})]


_ABSENT = object()


def borrowed_weights(steps: Iterable[Step]) -> dict[str, str]:
    """SHA-256 of the weights that injectors take from another run or file (their ``borrowed``), by STEP.INJECTOR."""
    bound = {f"{step.name}.{one.name}": one.injector for step in steps for one in step.injectors}
    found = {name: getattr(injector, "borrowed", None) for name, injector in bound.items()}
    return {name: digest for name, digest in found.items() if digest is not None}


def check_borrowed(checkpoint: Path, then: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Hold the weights that injectors take from elsewhere to those that a checkpoint was trained with.

    Raises:
        CheckpointError: they are others; what was learned belongs to the codes of then.
    """
    changed = [name for name, digest in then.items() if now.get(name, digest) != digest]
    if changed:
        raise CheckpointError(
            f"injector {', '.join(changed)}: its network has other weights now than when {checkpoint} was trained "
            "(was it trained again?), so that its codes mean something else: give it the weights of then (dvae_path), "
            "or train anew (--fresh)"
        )
