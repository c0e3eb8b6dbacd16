"""From a checked experiment to live objects: datasets, networks, injectors, losses, optimizers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from codes import registry
from codes.data.dataset import Dataset, warnings_in_report
from codes.data.loader import Loader
from codes.entries import Entry, Experiment, StepEntry
from codes.options import ExperimentOptions
from codes.trainer import checkpoint as checkpoints
from codes.trainer import next_lengths
from codes.trainer.distributed import Ranks
from codes.trainer.distributed_step import DistributedStep, share_networks
from codes.trainer.lora import add_lora
from codes.trainer.optim import MovingAverage, Updater, make_optimizer
from codes.trainer.precision import Precision, choose_device
from codes.trainer.random_state import seed_random
from codes.trainer.step import Step
from codes.yaml_source import Mark, OptionError

T = TypeVar("T")


@dataclass
class Parts:
    """Everything that an experiment is made of, on its device."""

    device: torch.device
    precision: Precision
    datasets: dict[str, Dataset]
    train_loader: Loader
    val_loader: Loader | None
    networks: dict[str, nn.Module]
    updaters: dict[str, list[Updater]]  # by network, one for each step that trains it
    averages: dict[str, MovingAverage]
    steps: list[Step]
    ranks: Ranks = field(default_factory=Ranks)
    notes: list[str] = field(default_factory=list)


class _Collector:
    """Builds what can be built and keeps every problem for the end."""

    def __init__(self) -> None:
        self.problems: list[tuple[Mark, str]] = []

    def attempt(self, mark: Mark, make: Callable[[], T]) -> T | None:
        try:
            return make()
        except OptionError as error:
            self.problems += error.problems
        except (ValueError, checkpoints.CheckpointError) as error:
            self.problems.append((mark, str(error)))
        return None

    def raise_problems(self) -> None:
        if self.problems:
            raise OptionError(self.problems)


def build(experiment: Experiment, ranks: Ranks = Ranks()) -> Parts:  # noqa: B008 (frozen)
    """Build everything, as one of several processes where there are such.

    Raises:
        OptionError: every entry that could not be built, with its place.
    """
    options, collector = experiment.options, _Collector()
    seed_random(options.train.manual_seed)
    torch.backends.cudnn.benchmark = options.cuda_benchmarking_enabled
    start = Mark(str(experiment.file), 1, 1)
    device = collector.attempt(start, lambda: choose_device(options, ranks)) or torch.device("cpu")
    precision = Precision(device, options.fp16, options.bf16)
    with ranks.first_before_others(), warnings_in_report():
        datasets = _build_entries(collector, experiment.datasets)
    networks: dict[str, nn.Module] = _build_entries(collector, experiment.networks)
    if collector.problems:  # find what else is wrong, with something in the place of what could not be built
        stand_ins: dict[str, nn.Module] = {name: nn.Identity() for name in experiment.networks}
        for entry in experiment.steps:
            _components(collector, entry, stand_ins | networks)
    collector.raise_problems()
    notes = [*experiment.warnings, *([precision.note] if precision.note else []), *_same_data(datasets)]
    notes += _prepare_networks(collector, experiment, networks, device)
    if ranks.size > 1:
        notes += collector.attempt(start, lambda: share_networks(experiment, networks, ranks)) or []
    _check_best(collector, experiment)
    for entry in experiment.steps:
        _check_depths(collector, entry, datasets)
        collector.problems += next_lengths.problems(entry, experiment, networks, datasets)
    train, val = _loaders(collector, experiment, datasets, device, ranks)
    updaters: dict[str, list[Updater]] = {}
    frozen = {name: entry.flags.after for name, entry in experiment.networks.items()}
    steps = []
    for index, entry in enumerate(experiment.steps):
        kept = _read_later(experiment.steps[index + 1 :], entry)
        step = collector.attempt(
            entry.mark,
            lambda e=entry, k=kept: _step(e, experiment.options, networks, updaters, precision, k, frozen, ranks),
        )
        if step is not None:
            _hand_on_depth(step, datasets["train"])
            _introduce(collector, step, datasets)
        steps.append(step)
    collector.raise_problems()
    assert train is not None
    rate = options.train.ema_rate
    averages = {name: MovingAverage(networks[name], rate) for name in updaters} if options.train.ema_enabled else {}
    return Parts(
        device=device, precision=precision, datasets=datasets, train_loader=train, val_loader=val, networks=networks,
        updaters=updaters, averages=averages, steps=[step for step in steps if step is not None], ranks=ranks,
        notes=notes,
    )  # fmt: skip


def _same_data(datasets: Mapping[str, Dataset]) -> list[str]:
    """A warning where validation reads exactly what training reads."""
    found = [dataset.fingerprint() for dataset in datasets.values()]
    if len(found) < 2 or "digest" not in found[0] or found[0] != found[1]:
        return []
    return ["warning: datasets.val reads the very recordings of datasets.train: its figures say nothing of other ones"]


def _check_best(collector: _Collector, experiment: Experiment) -> None:
    """What marks the best checkpoint is a loss, by its name in the figures."""
    names = [loss.name for step in experiment.steps for loss in step.losses]
    titles = {loss.name if names.count(loss.name) == 1 else f"{step.name}.{loss.name}"
              for step in experiment.steps for loss in step.losses}  # fmt: skip
    best_by = experiment.options.eval.best_by
    if best_by is not None and best_by not in titles:
        message = f"eval.best_by is {best_by!r}: wanted is a loss, one of {', '.join(sorted(titles))}"
        collector.problems.append((Mark(str(experiment.file), 1, 1), message))


def _build_entries(collector: _Collector, entries: Mapping[str, Entry]) -> dict[str, Any]:
    built = {name: collector.attempt(entry.mark, entry.built_from.build) for name, entry in entries.items()}
    return {name: value for name, value in built.items() if value is not None}


def _prepare_networks(
    collector: _Collector, experiment: Experiment, networks: dict[str, nn.Module], device: torch.device
) -> list[str]:
    """Load pretrained weights, add adapters, freeze what is not trained, on the device; returns lines for people."""
    notes = []
    path = experiment.options.path
    for name, network in networks.items():
        entry = experiment.networks[name]
        source = path.pretrain_model.get(name)
        if source is not None:
            note = collector.attempt(
                entry.mark, lambda n=name, s=source: _pretrain(networks[n], n, s, path.strict_load)
            )
            notes += [note] if note else []
        if entry.flags.lora is not None:
            mark = entry.marks.get("lora.targets", entry.mark)
            note = collector.attempt(mark, lambda n=name, o=entry.flags.lora: add_lora(networks[n], n, o))
            notes += [note] if note else []
        network.to(device)
        network.gradient_checkpointing = experiment.options.checkpointing_enabled  # type: ignore[assignment]
        if not entry.flags.trainable:
            network.eval()
            network.requires_grad_(False)
    return notes


def _pretrain(network: nn.Module, name: str, source: Path, strict: bool) -> str:
    return checkpoints.fit_weights(network, name, checkpoints.load_weights(source), source, strict)


def _loaders(
    collector: _Collector, experiment: Experiment, datasets: dict[str, Dataset], device: torch.device, ranks: Ranks
) -> tuple[Loader | None, Loader | None]:
    loaders = []
    for phase in ("train", "val"):
        entry = experiment.datasets.get(phase)
        if entry is None:
            loaders.append(None)
            continue
        flags = entry.flags
        loader = collector.attempt(entry.mark, lambda p=phase, f=flags: Loader(
            datasets[p], f.batch_size, seed=experiment.options.train.manual_seed, endless=p == "train",
            num_workers=f.n_workers if p == "train" else 0, plugins=registry.plugin_files(),
            pin_memory=device.type == "cuda" if f.pin_memory is None else f.pin_memory, rank=ranks.rank,
            ranks=ranks.size,
        ))  # fmt: skip
        loaders.append(loader)
    return loaders[0], loaders[1]


def _step(
    entry: StepEntry, options: ExperimentOptions, networks: dict[str, nn.Module], updaters: dict[str, list[Updater]],
    precision: Precision, kept: set[str], frozen: dict[str, int], ranks: Ranks,
) -> Step:  # fmt: skip
    collector = _Collector()
    injectors, losses = _components(collector, entry, networks)
    collector.raise_problems()
    own = []
    for name in entry.flags.training:
        network = networks[name]
        if not any(p.requires_grad for p in network.parameters()):
            raise ValueError(
                f"step {entry.name} trains network {name!r}, which has nothing to train (trainable: false?)"
            )
        optimizer = make_optimizer(entry.flags.optimizer, network, entry.flags.optimizer_params)
        own.append(Updater(network, optimizer, entry.flags.clip_grad_eps, precision.scaler, frozen[name]))
        updaters.setdefault(name, []).append(own[-1])
    if ranks.size > 1:
        return DistributedStep(entry, injectors, losses, own, networks, kept, ranks=ranks, options=options)
    return Step(entry, injectors, losses, own, networks, kept)


def _hand_on_depth(step: Step, dataset: Dataset) -> None:
    """Tell injectors whose `input_bits` is open how many bits the integers have: 24 of an int32, 8 of an int16.

    Not only those that read the dataset's own key: what lies between (an augmentation, say) keeps the depth.
    """
    bits = getattr(dataset, "bits", None)
    for bound in step.injectors:
        injector: Any = getattr(bound.injector, "subtype", bound.injector)  # of for_each
        if bits is not None and getattr(injector, "input_bits", bits) is None:
            injector.input_bits = bits


def _introduce(collector: _Collector, step: Step, datasets: Mapping[str, Dataset]) -> None:
    """Let injectors that want it (`meet`) hold the datasets to what they take."""
    for bound in step.injectors:
        if hasattr(bound.injector, "meet"):
            for dataset in datasets.values():
                collector.attempt(bound.mark, lambda b=bound, d=dataset: b.injector.meet(d))  # type: ignore[attr-defined]


def _check_depths(collector: _Collector, entry: StepEntry, datasets: Mapping[str, Dataset]) -> None:
    """An `input_bits` that is not the depth of the dataset's integers would shift the sound away."""
    depths = {name: bits for name, dataset in datasets.items() if (bits := getattr(dataset, "bits", None)) is not None}
    if len(set(depths.values())) > 1:
        shown = ", ".join(f"{name} {bits}" for name, bits in depths.items())
        collector.problems.append(
            (entry.mark, f"the datasets' integers differ in depth ({shown}): give them the same bits")
        )
    for injector in entry.injectors:
        given = injector.built_from.options.get("input_bits")
        for name, bits in depths.items() if injector.flags.in_ == ["wav"] and given is not None else ():
            if given != bits:
                message = f"{injector.name}: input_bits is {given}, the integers of datasets.{name} have {bits} bits"
                collector.problems.append((injector.mark, message))


def _components(collector: _Collector, entry: StepEntry, networks: dict[str, nn.Module]) -> tuple[list[Any], list[Any]]:
    """A step's injectors and losses."""
    injectors = [collector.attempt(e.mark, lambda e=e: e.built_from.build(networks)) for e in entry.injectors]
    losses = [collector.attempt(e.mark, lambda e=e: e.built_from.build(networks)) for e in entry.losses]
    return injectors, losses


def _read_later(later: list[StepEntry], entry: StepEntry) -> set[str]:
    """The keys of a step's outputs that later steps read; nothing else is kept alive for them."""
    read = {key for step in later for injector in step.injectors for key in injector.flags.in_}
    read |= {key for step in later for loss in step.losses for key in loss.reads.values()}
    read |= {key for step in later for key in step.flags.requires}
    written = {key for injector in entry.injectors for key in injector.flags.out}
    allowed = written if entry.flags.step_outputs is None else set(entry.flags.step_outputs)
    return read & written & allowed
