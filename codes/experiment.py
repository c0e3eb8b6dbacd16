"""Load an experiment: read the YAML, import its plug-ins, convert every section, check the wiring.

Everything that is wrong is collected first and raised at once, one line each: ``file:line:column: message``.
"""

import inspect
from collections.abc import Iterable, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

from codes import evaluation_entries, registry, wiring
from codes.convert import INVALID, Component, Converter, did_you_mean, yaml_name
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
from codes.options import NO_EFFECT, ExperimentOptions
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
    reader = _open(file, overrides or [], problems)
    experiment = reader.experiment(file, overrides or [])
    if problems:
        raise OptionError(problems)
    assert experiment is not None
    return experiment


def load_plugins(file: Path, overrides: list[str] | None = None) -> None:
    """Load the plug-ins of an experiment file and nothing else, for `--list` and `--schema`: the rest may be wrong.

    Raises:
        OptionError: the file is no YAML, or a plug-in cannot be loaded.
    """
    problems: list[tuple[Mark, str]] = []
    reader = _open(file, overrides or [], [])
    reader.problems = reader.converter.problems = problems
    reader.load_plugins()
    if problems:
        raise OptionError(problems)


def _open(file: Path, overrides: list[str], problems: list[tuple[Mark, str]]) -> "_Reader":
    root = read_yaml(file, overrides, problems)
    return _Reader(root, problems, [file.resolve().parent, file.resolve().parent.parent])


def input_names(cls: Any) -> dict[str, bool]:
    """The parameters of a class's forward(): name -> whether it must be given."""
    parameters = list(inspect.signature(cls.forward).parameters.values())[1:]
    return {p.name: p.default is p.empty for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.POSITIONAL_ONLY)}


def needs_key(cls: Any, key: str) -> bool:
    """Whether an injector must have `in` or `out`: not where options name its keys, or where it takes no input.

    Args:
        cls: its class; None where that is not known.
        key: "in" or "out".
    """
    rules = [] if cls is None else registry.state_keys(cls).values()
    if key == "out":
        return not any(rule.written and not rule.suffix for rule in rules)
    return not any(not rule.written for rule in rules) and (
        cls is None or takes_any_number(cls) or bool(input_names(cls))
    )


def takes_any_number(cls: Any) -> bool:
    """Whether a class's forward() takes as many values as it is given."""
    return any(p.kind is p.VAR_POSITIONAL for p in inspect.signature(cls.forward).parameters.values())


def _at(node: Node, keys: Iterable[str]) -> Node | None:
    """The node under nested keys, or None."""
    for key in keys:
        if not isinstance(node.value, dict) or key not in node.value:
            return None
        node = node.value[key]
    return node


class _Reader:
    """One pass over the tree of an experiment."""

    def __init__(self, root: Node, problems: list[tuple[Mark, str]], folders: list[Path]) -> None:
        self.root = root
        self.problems = problems
        self.converter = Converter(problems, folders)
        self.plugins: list[Path] = []
        self.complete = True  # False once an entry could not be read: what it writes and uses is not known
        self.named: list[tuple[Any, Mark]] = []  # networks that are named outside of options

    def experiment(self, file: Path, overrides: list[str]) -> Experiment | None:
        """Convert every section; None where something is wrong."""
        self.load_plugins()
        self._fold_pretrain_keys()
        values = self.converter.plain(self.root)
        options = self.converter.dataclass(self.root, ExperimentOptions, "")
        datasets = self._datasets()
        found = {name: self._network(name, node) for name, node in self.entries(self.root, "networks").items()}
        networks = {name: entry for name, entry in found.items() if entry is not None}
        steps = self._steps()
        evaluation = (
            evaluation_entries.read(self, options, datasets, steps, set(found)) if options is not INVALID else {}
        )
        warnings = self._without_effect() + evaluation.pop("warnings", [])
        shown = {key for entry in evaluation.get("evaluators", []) for key in entry.reads.values()}
        shown |= {key for entry in evaluation.get("eval_injectors", []) for key in entry.flags.in_}
        shown |= set(evaluation.get("visuals", []))
        warnings += wiring.check(datasets, steps, self.problems, self.complete, shown)
        self._check_networks()
        if self.problems or options is INVALID:
            return None
        return Experiment(
            file=file, options=options, datasets=datasets, networks=networks, steps=steps,
            values=values, warnings=warnings, overrides=overrides, plugins=self.plugins, **evaluation,
        )  # fmt: skip

    def _without_effect(self) -> list[str]:
        """One line that names the keys that are set and have no effect yet; `false` and nothing set none."""
        nodes = ((key, _at(self.root, key.split("."))) for key in NO_EFFECT)
        found = [f"{key} (line {node.mark.line})" for key, node in nodes if node is not None and node.value]
        return [f"no effect yet: {', '.join(found)}"] if found else []

    def load_plugins(self) -> None:
        """Import the files under `plugins`; one that cannot be loaded is a problem, and the others still count."""
        plugins = self.root.value.get("plugins")
        if plugins is None:
            return
        for node in plugins.value if isinstance(plugins.value, list) else [plugins]:
            if not isinstance(node.value, str):
                continue
            path = self.converter.path(node.value, node.mark)
            if not path.exists():
                searched = ", ".join(str(folder) for folder in self.converter.searched(node.mark))
                self.problems.append((node.mark, f"plug-in {node.value} does not exist (looked in {searched})"))
                continue
            try:
                registry.load_plugin(path)
                self.plugins.append(path.resolve())
            except (ImportError, ValueError) as error:
                self.problems.append((node.mark, str(error)))

    def _fold_pretrain_keys(self) -> None:
        """``path.pretrain_model_gpt: x`` is kept as ``path.pretrain_model: {gpt: x}``; its network must exist."""
        path = self.root.value.get("path")
        if path is None or not isinstance(path.value, dict):
            return
        folded = Node({}, path.mark)
        for key in [key for key in path.value if key.startswith(PRETRAIN)]:
            name, mark = key.removeprefix(PRETRAIN), path.key_marks[key]
            folded.value[name], folded.key_marks[name] = path.value.pop(key), mark
        given = path.value.setdefault("pretrain_model", folded)
        if isinstance(given.value, dict):
            given.value |= folded.value
            given.key_marks |= folded.key_marks
            self.named += [(name, given.key_marks[name]) for name in given.value]

    def entries(self, parent: Node, key: str) -> dict[str, Node]:
        """The named entries of a section that are mappings; for the others there is a problem."""
        section = parent.value.get(key)
        if section is None or not isinstance(section.value, dict):
            return {}  # the section's own dataclass says so
        named = section.value.items()
        good = {name: node for name, node in named if self.converter.mapping(node, f"{key}.{name}") is not INVALID}
        self.complete = self.complete and len(good) == len(named)
        return good

    def _flags(self, node: Node, cls: Any, key: str) -> tuple[Any, set[str]]:
        """The part of an entry that the flags' dataclass knows, and the names of its keys."""
        names = {yaml_name(name) for name in options_of(cls)}
        part = Node({k: v for k, v in node.value.items() if k in names}, node.mark, node.key_marks)
        flags = self.converter.dataclass(part, cls, key)
        self.complete = self.complete and flags is not INVALID
        return flags, names

    def _datasets(self) -> dict[str, Entry]:
        nodes = self.entries(self.root, "datasets")
        for name in nodes.keys() - {"train", "val"}:
            mark = self.root.value["datasets"].key_marks[name]
            self.problems.append((mark, f"unknown key {name!r} in datasets (allowed: train, val)"))
        section = self.root.value.get("datasets")
        if section is not None and isinstance(section.value, dict) and "train" not in section.value:
            self.problems.append((section.mark, "datasets.train is missing: the data to train on"))
        entries = {}
        if "train" in nodes:
            entries["train"] = self._dataset("train", nodes["train"])
        if "val" in nodes:
            entries["val"] = self._val(nodes["val"], nodes.get("train"))
        return {name: entry for name, entry in entries.items() if entry is not None}

    def _val(self, val: Node, train: Node | None) -> Entry | None:
        """val takes from train what it does not set; what is wrong with that is said once, of train."""
        given = train.value if train else {}
        same = "mode" not in val.value or ("mode" in given and val.value["mode"].value == given["mode"].value)
        shared = set(given) if same else {yaml_name(name) for name in options_of(DatasetFlags)} - {"mode"}
        for key in [key for key in given if key in shared - val.value.keys() - {"phase", "name"}]:
            val.value[key], val.key_marks[key] = given[key], train.key_marks[key] if train else val.mark
        known, first = set(self.problems), len(self.problems)
        entry = self._dataset("val", val)
        found, self.problems[first:] = self.problems[first:], []
        for mark, text in found:
            missing = mark == val.mark  # what val lacks, train lacks
            of_train = (train.mark if train and missing else mark, text.replace("datasets.val", "datasets.train"))
            if of_train not in known and (train or not missing):
                self.problems.append((mark, text))
        return entry

    def _dataset(self, name: str, node: Node) -> Entry | None:
        flags, taken = self._flags(node, DatasetFlags, f"datasets.{name}")
        options = Node(dict(node.value), node.mark, node.key_marks)
        cls = self._class("dataset", node, "mode")
        if cls is not None and "phase" in options_of(cls):
            options.value.setdefault("phase", Node(name, node.mark))
        elif cls is not None:
            options.value.pop("phase", None)  # DLAS's phase, for a dataset that makes no difference
        return self._entry(name, node, flags, self._component("dataset", node, "mode", options, taken))

    def _class(self, kind: str, node: Node, key: str) -> Any:
        """The class that an entry names under `key`, or None."""
        name = node.value.get(key)
        return registry.find(kind, name.value) if name is not None and isinstance(name.value, str) else None

    def _component(self, kind: str, node: Node, key: str, options: Node, taken: Set[str] = frozenset()) -> Any:
        """The component that an entry names under `key`; where that is no text the entry's flags have said so."""
        name = node.value.get(key)
        if name is None or not isinstance(name.value, str):
            return INVALID
        return self.converter.component(kind, name, options, taken)

    def _entry(self, name: str, node: Node, flags: Any, component: Any) -> Entry | None:
        if flags is INVALID:
            return None
        marks = {key: child.mark for key, child in node.value.items()}
        for key, child in node.value.items():
            marks |= {f"{key}.{k}": c.mark for k, c in child.value.items()} if isinstance(child.value, dict) else {}
        component = None if component is INVALID else component
        return Entry(name=name, mark=node.mark, flags=flags, component=component, marks=marks)

    def _network(self, name: str, node: Node) -> Entry | None:
        for legacy in ("which_model_G", "which_model_D"):
            if legacy in node.value and "which_model" not in node.value:
                node.value["which_model"] = node.value.pop(legacy)
                node.key_marks["which_model"] = node.key_marks[legacy]
        flags = self.converter.dataclass(node, NetworkFlags, f"networks.{name}")
        kwargs = node.value.get("kwargs", Node({}, node.mark))
        component = INVALID
        if isinstance(kwargs.value, dict):
            component = self._component("network", node, "which_model", kwargs)
        return self._entry(name, node, flags, component)

    def _steps(self) -> list[StepEntry]:
        """The steps in order, without those whose own flags are wrong."""
        section = self.root.value.get("steps")
        if section is not None and section.value == {}:
            self.problems.append((section.mark, "steps is empty: nothing would be trained"))
        steps = [self._step(name, node) for name, node in self.entries(self.root, "steps").items()]
        return [step for step in steps if step is not None]

    def _step(self, name: str, node: Node) -> StepEntry | None:
        flags = self.converter.dataclass(node, StepFlags, f"steps.{name}")
        injectors = [self.injector(name, key, child) for key, child in self.entries(node, "injectors").items()]
        losses = [
            self.reading_entry("loss", name, key, child, LossFlags)
            for key, child in self.entries(node, "losses").items()
        ]
        section = node.value.get("losses")
        if section is None or not section.value:
            self.problems.append((node.mark, f"steps.{name} has no losses: it would train nothing"))
        if flags is INVALID:
            self.complete = False
            return None
        self.named += [(network, node.value["training"].mark) for network in flags.training]
        return StepEntry(
            name=name, mark=node.mark, flags=flags,
            injectors=[entry for entry in injectors if entry], losses=[entry for entry in losses if entry],
        )  # fmt: skip

    def injector(self, step: str, name: str, node: Node) -> Entry | None:
        flags, taken = self._flags(node, InjectorFlags, f"injector {step}.{name}")
        cls = self._class("injector", node, "type")
        for key in ("in", "out"):
            if key not in node.value and needs_key(cls, key):
                self.problems.append(
                    (node.mark, f"injector {step}.{name}.{key} is missing: a list of keys of the state")
                )
                self.complete, flags = False, INVALID
        component = self._component("injector", node, "type", node, taken)
        if cls is not None and flags is not INVALID:
            flags = self._with_named_keys(name, node, flags, component)
            self._check_count(f"injector {name}", node, len(flags.in_), cls)
        return self._entry(name, node, flags, component)

    def _with_named_keys(self, name: str, node: Node, flags: Any, component: Any) -> Any:
        """The flags of an injector with the keys that its options name, after those under `in` and `out`."""
        inputs, outputs = list(flags.in_), list(flags.out)
        if isinstance(component, Component):
            rules = registry.state_keys(component.cls)
            num_named = sum(not rule.written for rule in rules.values())  # they come after all other inputs
            others = len(input_names(component.cls)) - (0 if takes_any_number(component.cls) else num_named)
            rest_given = len(flags.in_) >= others
            for option, rule in rules.items():
                key = component.options.get(option) if rule.written or rest_given else None
                if key is None and rule.suffix and flags.out:
                    key = flags.out[0] + rule.suffix
                keys = outputs if rule.written else inputs
                named = list(key.values()) if isinstance(key, dict) else key if isinstance(key, list) else [key]
                keys += dict.fromkeys(key for key in named if isinstance(key, str) and key not in keys)
            for inner in (value for value in component.options.values() if isinstance(value, Component)):
                for option in registry.state_keys(inner.cls).keys() & inner.options.keys():
                    mark = node.key_marks.get(option, node.mark)
                    self.problems.append((mark, f"injector {name}: {option} has no effect within {component.type}"))
        return replace(flags, in_=inputs, out=outputs)

    def _check_count(self, what: str, node: Node, given: int, cls: Any) -> None:
        """As many keys under `in` as the class's forward() takes."""
        inputs, mark = input_names(cls), node.value.get("in", node).mark
        if takes_any_number(cls):
            if given < max(1, sum(inputs.values())):
                self.problems.append((mark, f"{what}: `in` needs more keys than {given}"))
        elif not sum(inputs.values()) <= given <= len(inputs):
            needs = ", ".join(key if required else f"[{key}]" for key, required in inputs.items()) or "nothing"
            self.problems.append((mark, f"{what}: `in` needs {needs}, got {given} key(s)"))

    def reading_entry(self, kind: str, step: str, name: str, node: Node, flags_class: Any) -> LossEntry | None:
        """A loss or an evaluator: an entry whose keys stand under `in` or under the names of its forward()."""
        flags, taken = self._flags(node, flags_class, f"{kind} {step}.{name}")
        cls = self._class(kind, node, "type")
        inputs = input_names(cls) if cls is not None else {}
        component = self._component(kind, node, "type", node, taken | inputs.keys())
        if flags is INVALID:
            return None
        reads = self._reads(f"{kind} {name}", node, flags, cls) if cls is not None else {}
        return LossEntry(
            name=name, mark=node.mark, flags=flags, reads=reads,
            component=component if isinstance(component, Component) else None,
        )  # fmt: skip

    def _reads(self, what: str, node: Node, flags: Any, cls: Any) -> dict[str, str]:
        """Which state key each parameter of its forward() reads, from `in` or from the parameters' names."""
        inputs = input_names(cls)
        named = {key: node.value[key] for key in inputs if key in node.value}
        if flags.in_ is not None:
            if named:
                self.problems.append((node.mark, f"{what}: give either `in` or {', '.join(named)}, not both"))
            self._check_count(what, node, len(flags.in_), cls)
            return dict(zip(inputs, flags.in_, strict=False))
        for key, required in inputs.items():
            if required and key not in named:
                self.problems.append((node.mark, f"{what}: {key} is missing: the state key that it reads"))
        return {key: str(self.converter.convert(child, str, f"{what}.{key}")) for key, child in named.items()}

    def _check_networks(self) -> None:
        """Networks that are named must exist, and one that nothing names is a mistake."""
        section = self.root.value.get("networks")
        if section is None or not isinstance(section.value, dict):
            return
        samples = self.root.value.get("samples")
        named = self.named + [(reference.name, reference.mark) for reference in self.converter.networks]
        if samples is not None and isinstance(samples.value, dict) and "network" in samples.value:
            network = samples.value["network"]
            named += [(network.value, network.mark)] if isinstance(network.value, str) else []
        for name, mark in named:
            if name not in section.value:
                self.problems.append((mark, f"there is no network {name!r}{did_you_mean(name, section.value)}"))
        if not self.complete:
            return
        for name in section.value.keys() - {name for name, _ in named}:
            self.problems.append((section.key_marks[name], f"network {name!r} is used nowhere"))
