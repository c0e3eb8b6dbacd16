"""Load an experiment: read the YAML, import its plug-ins, convert every section, check the wiring.

Everything that is wrong is collected first and raised at once, one line each: ``file:line:column: message``.
"""

import inspect
from collections.abc import Set
from pathlib import Path
from typing import Any

from codes import registry, wiring
from codes.convert import INVALID, Component, Converter, did_you_mean
from codes.entries import (
    DatasetFlags,
    Entry,
    Experiment,
    InjectorFlags,
    LossEntry,
    LossFlags,
    NetworkFlags,
    StepEntry,
    StepFlags,
)
from codes.options import ExperimentOptions
from codes.registry import options_of
from codes.yaml_source import Mark, Node, OptionError, read_yaml

PRETRAIN = "pretrain_model_"


def load_experiment(file: Path, overrides: list[str] | None = None) -> Experiment:
    """Load and check an experiment file.

    Args:
        file: the YAML.
        overrides: ``key.sub=value`` strings that replace or add values, checked like the file.

    Raises:
        OptionError: everything that is wrong with it.
    """
    problems: list[tuple[Mark, str]] = []
    root = read_yaml(file, overrides or [], problems)
    reader = _Reader(root, problems, [file.resolve().parent, file.resolve().parent.parent])
    experiment = reader.experiment(file, overrides or [])
    if problems:
        raise OptionError(problems)
    assert experiment is not None
    return experiment


def input_names(cls: Any) -> dict[str, bool]:
    """The parameters of a class's forward(): name -> whether it must be given."""
    parameters = list(inspect.signature(cls.forward).parameters.values())[1:]
    return {p.name: p.default is p.empty for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.POSITIONAL_ONLY)}


class _Reader:
    """One pass over the tree of an experiment."""

    def __init__(self, root: Node, problems: list[tuple[Mark, str]], folders: list[Path]) -> None:
        self.root = root
        self.problems = problems
        self.converter = Converter(problems, folders)

    def experiment(self, file: Path, overrides: list[str]) -> Experiment | None:
        """Convert every section; None where something is wrong."""
        self._load_plugins()
        self._fold_pretrain_keys()
        resolved = self.converter.plain(self.root)
        options = self.converter.dataclass(self.root, ExperimentOptions, "")
        datasets = self._datasets()
        found = {name: self._network(name, node) for name, node in self._entries(self.root, "networks").items()}
        networks = {name: entry for name, entry in found.items() if entry is not None}
        steps = [self._step(name, node) for name, node in self._entries(self.root, "steps").items()]
        complete = [step for step in steps if step is not None]
        warnings = wiring.check(datasets, complete, self.problems, complete=len(complete) == len(steps))
        self._check_networks(found.keys(), complete)
        if self.problems or options is INVALID:
            return None
        return Experiment(
            file=file, options=options, datasets=datasets, networks=networks, steps=complete,
            resolved=resolved, warnings=warnings, overrides=overrides,
        )  # fmt: skip

    def _load_plugins(self) -> None:
        plugins = self.root.value.get("plugins")
        if plugins is None:
            return
        for node in plugins.value if isinstance(plugins.value, list) else [plugins]:
            if not isinstance(node.value, str):
                continue
            path = self.converter.path(node.value, node.mark)
            try:
                registry.load_plugin(path)
            except (ImportError, ValueError) as error:
                self.problems.append((node.mark, str(error)))

    def _fold_pretrain_keys(self) -> None:
        """``path.pretrain_model_gpt: x`` is kept as ``path.pretrain_model: {gpt: x}``; its network must exist."""
        path = self.root.value.get("path")
        if path is None or not isinstance(path.value, dict):
            return
        networks = self._entries(self.root, "networks", report=False)
        folded = Node({}, path.mark)
        for key in [key for key in path.value if key.startswith(PRETRAIN)]:
            name, mark = key.removeprefix(PRETRAIN), path.key_marks[key]
            if name not in networks:
                self.problems.append((mark, f"there is no network {name!r}{did_you_mean(name, networks)}"))
            folded.value[name], folded.key_marks[name] = path.value.pop(key), mark
        if folded.value and "pretrain_model" not in path.value:
            path.value["pretrain_model"] = folded

    def _entries(self, parent: Node, key: str, report: bool = True) -> dict[str, Node]:
        """The named entries of a section, each of which must be a mapping."""
        section = parent.value.get(key)
        if section is None or not isinstance(section.value, dict):
            if section is not None and section.value is not None and report:
                self.problems.append((section.mark, f"{key} must be a mapping of names, got {section.describe()}"))
            return {}
        good = {}
        for name, node in section.value.items():
            if isinstance(node.value, dict):
                good[name] = node
            elif report:
                self.problems.append((node.mark, f"{key}.{name} must be a mapping, got {node.describe()}"))
        return good

    def _flags(self, node: Node, cls: Any, key: str) -> tuple[Any, set[str]]:
        """The part of an entry that the flags' dataclass knows, and the names of its keys."""
        names = {name.rstrip("_") for name in options_of(cls)}
        part = Node({k: v for k, v in node.value.items() if k in names}, node.mark, node.key_marks)
        return self.converter.dataclass(part, cls, key), names

    def _datasets(self) -> dict[str, Entry]:
        nodes = self._entries(self.root, "datasets")
        for name in nodes.keys() - {"train", "val"}:
            mark = self.root.value["datasets"].key_marks[name]
            self.problems.append((mark, f"unknown key {name!r} in datasets (allowed: train, val)"))
        if "train" not in nodes:
            section = self.root.value.get("datasets", self.root)
            self.problems.append((section.mark, "datasets.train is missing: the data to train on"))
            return {}
        if "val" in nodes:
            self._inherit(nodes["val"], nodes["train"])
        built = {name: self._dataset(name, nodes[name]) for name in ("train", "val") if name in nodes}
        return {name: entry for name, entry in built.items() if entry is not None}

    def _inherit(self, val: Node, train: Node) -> None:
        """Let val take from train what it does not set, where both have the same mode."""
        if "mode" in val.value and val.value["mode"].value != train.value.get("mode", val).value:
            return
        for key in train.value.keys() - val.value.keys() - {"phase", "name"}:
            val.value[key], val.key_marks[key] = train.value[key], train.key_marks[key]

    def _dataset(self, name: str, node: Node) -> Entry | None:
        flags, taken = self._flags(node, DatasetFlags, f"datasets.{name}")
        component = INVALID
        if "mode" in node.value:
            cls = registry.find("dataset", str(node.value["mode"].value))
            options = Node(dict(node.value), node.mark, node.key_marks)
            if cls is not None and "phase" in options_of(cls):
                options.value.setdefault("phase", Node(name, node.mark))
            elif cls is not None:
                options.value.pop("phase", None)  # DLAS's phase, for a dataset that makes no difference
            component = self.converter.component("dataset", node.value["mode"], options, taken)
        return self._entry(name, node, flags, component)

    def _entry(self, name: str, node: Node, flags: Any, component: Any) -> Entry | None:
        if flags is INVALID:
            return None
        return Entry(name=name, mark=node.mark, flags=flags, component=None if component is INVALID else component)

    def _network(self, name: str, node: Node) -> Entry | None:
        for legacy in ("which_model_G", "which_model_D"):
            if legacy in node.value and "which_model" not in node.value:
                node.value["which_model"] = node.value.pop(legacy)
                node.key_marks["which_model"] = node.key_marks[legacy]
        flags = self.converter.dataclass(node, NetworkFlags, f"networks.{name}")
        component = INVALID
        kwargs = node.value.get("kwargs", Node({}, node.mark))
        if "which_model" in node.value and isinstance(kwargs.value, dict):
            component = self.converter.component("network", node.value["which_model"], kwargs)
        return self._entry(name, node, flags, component)

    def _step(self, name: str, node: Node) -> StepEntry | None:
        flags = self.converter.dataclass(node, StepFlags, f"steps.{name}")
        injectors = [self._injector(name, key, child) for key, child in self._entries(node, "injectors").items()]
        losses = [self._loss(name, key, child) for key, child in self._entries(node, "losses").items()]
        if not losses:
            self.problems.append((node.mark, f"steps.{name} has no losses: it would train nothing"))
        if flags is INVALID or None in injectors or None in losses:
            return None
        return StepEntry(
            name=name, mark=node.mark, flags=flags,
            injectors=[entry for entry in injectors if entry], losses=[entry for entry in losses if entry],
        )  # fmt: skip

    def _injector(self, step: str, name: str, node: Node) -> Entry | None:
        flags, taken = self._flags(node, InjectorFlags, f"injector {step}.{name}")
        component = (
            self.converter.component("injector", node.value["type"], node, taken) if "type" in node.value else INVALID
        )
        return self._entry(name, node, flags, component)

    def _loss(self, step: str, name: str, node: Node) -> LossEntry | None:
        flags, taken = self._flags(node, LossFlags, f"loss {step}.{name}")
        cls = registry.find("loss", str(node.value["type"].value)) if "type" in node.value else None
        inputs = input_names(cls) if cls is not None else {}
        component = INVALID
        if "type" in node.value:
            component = self.converter.component("loss", node.value["type"], node, taken | inputs.keys())
        if flags is INVALID:
            return None
        reads = self._loss_reads(name, node, flags, inputs) if cls is not None else {}
        return LossEntry(
            name=name, mark=node.mark, flags=flags, reads=reads,
            component=component if isinstance(component, Component) else None,
        )  # fmt: skip

    def _loss_reads(self, name: str, node: Node, flags: LossFlags, inputs: dict[str, bool]) -> dict[str, str]:
        """Which state key each parameter of the loss's forward() reads, from `in` or from the parameters' names."""
        named = {key: node.value[key] for key in inputs if key in node.value}
        if flags.in_ is not None:
            if named:
                self.problems.append((node.mark, f"loss {name}: give either `in` or {', '.join(named)}, not both"))
            required = sum(inputs.values())
            if not required <= len(flags.in_) <= len(inputs):
                message = f"loss {name}: `in` needs {', '.join(inputs)}, got {len(flags.in_)} keys"
                self.problems.append((node.value["in"].mark, message))
            return dict(zip(inputs, flags.in_, strict=False))
        for key, required in inputs.items():
            if required and key not in named:
                self.problems.append((node.mark, f"loss {name}: {key} is missing: the state key that it reads"))
        return {key: str(self.converter.convert(child, str, f"loss {name}.{key}")) for key, child in named.items()}

    def _check_networks(self, networks: Set[str], steps: list[StepEntry]) -> None:
        """Networks that are named must exist, and one that nothing names is a mistake."""
        section = self.root.value.get("networks")
        named = [(reference.name, reference.mark) for reference in self.converter.networks]
        for step in steps:
            mark = self._at(step, "training")
            named += [(name, mark) for name in step.flags.training]
        samples = self.root.value.get("samples")
        if samples is not None and isinstance(samples.value, dict) and "network" in samples.value:
            named.append((samples.value["network"].value, samples.value["network"].mark))
        for name, mark in named:
            if name not in networks:
                self.problems.append((mark, f"there is no network {name!r}{did_you_mean(str(name), networks)}"))
        if section is None or not isinstance(section.value, dict):
            return
        for name in networks - {name for name, _ in named}:
            self.problems.append((section.key_marks[name], f"network {name!r} is used nowhere"))

    def _at(self, step: StepEntry, key: str) -> Mark:
        node = self.root.value["steps"].value[step.name]
        return node.value[key].mark if key in node.value else node.mark
