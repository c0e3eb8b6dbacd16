"""Located YAML values to typed Python values, by annotation; every problem is collected, none is raised.

The annotations of a constructor or a dataclass are the schema: bool, int, float, str, Path, Literal, list, tuple,
dict, unions, dataclasses, a torch module (the name of a network of this experiment) and an injector (its ``subtype``).
"""

import dataclasses
import difflib
import math
import os
import types
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from torch import nn

from codes import registry
from codes.registry import Option, OptionsOf, Output, Range
from codes.yaml_source import Mark, Node, OptionError

MAX_INT = 2**63 - 1
INVALID: Any = object()  # stands for a value that could not be converted; its problem is recorded
KINDS = {
    "injector": "injectors", "loss": "losses", "evaluator": "evaluators", "dataset": "datasets", "network": "networks",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Component:
    """A registered class and the options that the YAML gives it; ``build`` makes the object."""

    kind: str
    type: str
    cls: Any
    options: dict[str, Any]
    mark: Mark
    marks: Mapping[str, Mark] = dataclasses.field(default_factory=dict)  # where each option's value stands

    def build(self, networks: Mapping[str, nn.Module] | None = None, **extra: Any) -> Any:
        """Construct the object; options that name a network receive it from ``networks``.

        Raises:
            OptionError: the constructor refused its options, with the place of the entry.
        """
        arguments = {name: _resolve(value, networks or {}) for name, value in self.options.items()}
        try:
            return self.cls(**arguments, **extra)
        except OptionError:
            raise
        except Exception as error:  # a plug-in's constructor may raise anything
            expected = isinstance(error, (ValueError, ImportError, OSError)) and str(error)
            message = str(error) if expected else registry.reason(error)
            option = message.split(" ")[0].rstrip(":")  # messages begin with the option that is wrong
            mark = self.marks.get(option, self.mark)
            raise OptionError([(mark, f"{self.kind} {self.type}: {message}")]) from error


@dataclasses.dataclass(frozen=True)
class NetworkName:
    """The name of a network of the experiment, given to an option that takes a module."""

    name: str
    mark: Mark


def _resolve(value: Any, networks: Mapping[str, nn.Module]) -> Any:
    if isinstance(value, NetworkName):
        if value.name not in networks:
            raise OptionError([(value.mark, f"network {value.name!r} cannot be given here: only injectors take one")])
        return networks[value.name]
    if isinstance(value, Component):
        return value.build(networks)
    if isinstance(value, list):
        return [_resolve(item, networks) for item in value]
    return value


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` where a known word is near, else the list of known words."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f" (allowed: {', '.join(names)})" if names else ""


def yaml_name(field: str) -> str:
    """A field's key in the YAML: ``in_`` is ``in``."""
    return field.rstrip("_")


class Converter:
    """Converts nodes and collects problems; remembers which networks were named, to check them at the end."""

    def __init__(self, problems: list[tuple[Mark, str]], folders: list[Path]) -> None:
        self.problems = problems
        self.folders = folders  # a relative path is looked for in each of these
        self.networks: list[NetworkName] = []

    def problem(self, mark: Mark, message: str) -> Any:
        """Record what is wrong and stand for the value."""
        self.problems.append((mark, message))
        return INVALID

    def convert(self, node: Node, annotation: Any, key: str) -> Any:
        """The node as a value of that annotation, or INVALID."""
        origin = get_origin(annotation)
        if annotation is Any:
            return self.plain(node)
        if origin is Annotated:
            return self._annotated(node, annotation, key)
        if origin in (Union, types.UnionType):
            return self._union(node, annotation, key)
        if origin in (list, tuple) or annotation in (list, tuple):
            return self._sequence(node, annotation, key)
        if origin is dict or annotation is dict:
            return self._dict(node, annotation, key)
        if dataclasses.is_dataclass(annotation):
            return self.dataclass(node, annotation, key)
        if isinstance(annotation, type) and issubclass(annotation, nn.Module) and isinstance(node.value, str):
            self.networks.append(NetworkName(node.value, node.mark))
            return self.networks[-1]
        value = self._scalar(node, annotation)
        if value is INVALID:
            return self.problem(node.mark, f"{key} must be {describe(annotation)}, got {self._shown(node)}")
        return value

    def plain(self, node: Node) -> Any:
        """The node without places."""
        if isinstance(node.value, dict):
            return {key: self.plain(child) for key, child in node.value.items()}
        if isinstance(node.value, list):
            return [self.plain(child) for child in node.value]
        return node.value

    def _shown(self, node: Node) -> str:
        """What the value is, with a hint where YAML reads something as another type than people do."""
        text, value = node.describe(), node.value
        if isinstance(value, str):
            if value.lower() in ("on", "off", "yes", "no"):
                return f"{text} (write true or false)"
            if value.lstrip("-+").isdigit():
                return f"{text} (write a number without quotes and without leading zeros)"
        if isinstance(value, float) and not math.isfinite(value):
            return f"{text} (numbers must be finite)"
        if type(value) is int and abs(value) > MAX_INT:
            return f"{text} (too large)"
        return text

    def _scalar(self, node: Node, annotation: Any) -> Any:
        value = node.value
        if get_origin(annotation) is Literal:
            same = [item for item in get_args(annotation) if type(item) is type(value) and item == value]
            return same[0] if same else INVALID
        if annotation in (int, float):
            whole = type(value) is int and abs(value) <= MAX_INT
            if not whole and not (type(value) is float and math.isfinite(value)):
                return INVALID
            exact = annotation is float or (value == int(value) and abs(value) <= MAX_INT)
            return annotation(value) if exact else INVALID
        if annotation is Path and isinstance(value, str) and value:
            return self.path(value, node.mark)
        if annotation is type(None):
            return None if value is None else INVALID
        return value if type(value) is annotation else INVALID

    def path(self, text: str, mark: Mark) -> Path:
        """A path of the YAML: the first that exists beside the YAML, beside its folder, or here.

        A path given on the command line is looked for here first. One that exists nowhere is returned as written.
        """
        path = Path(os.path.expanduser(text))
        return next((folder / path for folder in self.searched(mark) if os.path.exists(folder / path)), path)

    def searched(self, mark: Mark) -> list[Path]:
        """The folders in which a relative path that stands at `mark` is looked for."""
        here = Path.cwd()
        folders = [here, *self.folders] if mark.file.startswith("<") else [*self.folders, here]
        return list(dict.fromkeys(folders))

    def _annotated(self, node: Node, annotation: Any, key: str) -> Any:
        """A value with a Range, or a path that is not looked for."""
        inner, *rules = get_args(annotation)
        if Output() in rules and isinstance(node.value, str):
            return Path(os.path.expanduser(node.value))
        owner = next((rule.cls for rule in rules if isinstance(rule, OptionsOf)), None)
        if owner is not None:
            there = self.mapping(node, key) is not INVALID
            return self.arguments(node, registry.options_of(owner), key) if there else INVALID
        value = self.convert(node, inner, key)
        if value is not INVALID and not all(rule.holds(value) for rule in rules if isinstance(rule, Range)):
            return self.problem(node.mark, f"{key} must be {describe(annotation)}, got {node.describe()}")
        return value

    def _union(self, node: Node, annotation: Any, key: str) -> Any:
        """The first alternative that fits; where none does, the problems of the one that has the node's shape."""
        if node.value is None and type(None) in get_args(annotation):
            return None
        for alternative in get_args(annotation):
            trial = Converter([], self.folders)
            value = trial.convert(node, alternative, key)
            if not trial.problems:
                self.networks += trial.networks
                return value
        fitting = [alternative for alternative in get_args(annotation) if _has_shape(node, alternative)]
        if len(fitting) == 1:
            return self.convert(node, fitting[0], key)
        return self.problem(node.mark, f"{key} must be {describe(annotation)}, got {self._shown(node)}")

    def _sequence(self, node: Node, annotation: Any, key: str) -> Any:
        """A list or tuple; a single value stands for a list of one, as in DLAS."""
        origin, items = get_origin(annotation) or annotation, get_args(annotation) or (Any,)
        if node.value is None or (isinstance(node.value, dict) and not dataclasses.is_dataclass(items[0])):
            return self.problem(node.mark, f"{key} must be {describe(annotation)}, got {node.describe()}")
        nodes = node.value if isinstance(node.value, list) else [node]
        fixed = origin is tuple and Ellipsis not in items
        if fixed and len(nodes) != len(items):
            return self.problem(node.mark, f"{key} must have {len(items)} items, got {len(nodes)}")
        kinds = items if fixed else [items[0]] * len(nodes)
        values = [
            self.convert(child, kind, f"{key}[{i}]") for i, (child, kind) in enumerate(zip(nodes, kinds, strict=True))
        ]
        return INVALID if any(value is INVALID for value in values) else origin(values)

    def _dict(self, node: Node, annotation: Any, key: str) -> Any:
        kind = (get_args(annotation) or (str, Any))[1]
        children = self.mapping(node, key)
        if children is INVALID:
            return INVALID
        values = {name: self.convert(child, kind, f"{key}.{name}") for name, child in children.items()}
        return INVALID if any(value is INVALID for value in values.values()) else values

    def mapping(self, node: Node, key: str) -> Any:
        """The children of a mapping by key; a section with nothing under it is an empty one."""
        if node.value is None:
            node.value = {}
        if not isinstance(node.value, dict):
            return self.problem(node.mark, f"{key} must be a mapping, got {node.describe()}")
        return node.value

    def dataclass(self, node: Node, cls: Any, key: str) -> Any:
        """A mapping whose keys are the fields of a dataclass."""
        if self.mapping(node, key) is INVALID:
            return INVALID
        fields = {yaml_name(name): option for name, option in registry.options_of(cls).items()}
        values = self.arguments(node, fields, key)
        if values is INVALID:
            return INVALID
        try:
            return cls(**values)
        except ValueError as error:  # its own checks; their messages begin with the key that is wrong
            at = node.value.get(str(error).split(" ")[0], node)
            return self.problem(at.mark, f"{key}: {error}" if key else str(error))

    def arguments(
        self, node: Node, options: Mapping[str, Option], key: str, where: str = "", taken: Set[str] = frozenset()
    ) -> Any:
        """The keys of a mapping as keyword arguments; unknown, missing and wrongly typed keys are problems.

        Args:
            options: what is allowed, by key.
            key: where the mapping stands, for messages.
            where: what it belongs to, for messages, instead of `key`.
            taken: keys that are allowed beside these, for "did you mean".
        """
        values: dict[str, Any] = {}
        prefix = f"{key}." if key else ""
        bad = False
        for name, child in node.value.items():
            if name not in options:
                hint = did_you_mean(name, {*options, *taken})
                self.problem(node.key_marks[name], f"unknown key {name!r} in {where or key or 'the experiment'}{hint}")
                bad = True
                continue
            values[options[name].name] = self.convert(child, options[name].annotation, f"{prefix}{name}")
        for name, option in options.items():
            if option.required and name not in node.value:
                doc = f" ({option.doc})" if option.doc else ""
                owner = f"{where}: " if where else prefix
                self.problem(node.mark, f"{owner}{name} is missing: {describe(option.annotation)}{doc}")
                bad = True
        return INVALID if bad or any(value is INVALID for value in values.values()) else values

    def component(self, kind: str, name: Node, options: Node, taken: Set[str] = frozenset()) -> Component | Any:
        """The class that ``name`` names, with the options that are in the mapping ``options`` but not in ``taken``."""
        cls = self.find(kind, name)
        if cls is INVALID:
            return INVALID
        schema = dict(registry.options_of(cls))
        for clash in sorted(taken & schema.keys()):
            self.problem(name.mark, f"the option {clash!r} of {kind} {name.value} is another key's name: rename it")
        chosen = Node({}, options.mark, options.key_marks)
        chosen.value = {key: child for key, child in options.value.items() if key not in taken}
        inner = self._subtype(schema, chosen, taken)
        values = self.arguments(chosen, schema, "", f"{kind} {name.value}", taken)
        if values is INVALID or inner is INVALID:
            return INVALID
        values.update(inner)
        marks = {schema[key].name: child.mark for key, child in chosen.value.items()}
        return Component(kind=kind, type=name.value, cls=cls, options=values, mark=name.mark, marks=marks)

    def _subtype(self, schema: dict[str, Option], chosen: Node, taken: Set[str]) -> Any:
        """Options that are injectors themselves (``subtype`` of ``for_each``): their own options stand beside them."""
        inner = {}
        for key, option in list(schema.items()):
            if not (isinstance(option.annotation, type) and issubclass(option.annotation, registry.Registered)):
                continue
            if issubclass(option.annotation, nn.Module) or key not in chosen.value:
                continue
            del schema[key]
            name = chosen.value.pop(key)
            part = Node({k: v for k, v in chosen.value.items() if k not in schema}, chosen.mark, chosen.key_marks)
            inner[option.name] = self.component(option.annotation.kind, name, part, taken)
            chosen.value = {k: v for k, v in chosen.value.items() if k in schema}
        return INVALID if any(value is INVALID for value in inner.values()) else inner

    def find(self, kind: str, name: Node) -> Any:
        """The registered class a node names, or INVALID with a problem that says what there is."""
        if not isinstance(name.value, str):
            return self.problem(name.mark, f"the name of a class of {KINDS[kind]} must be text, got {name.describe()}")
        cls = registry.find(kind, name.value)
        if cls is not None:
            return cls
        broken = "".join(f"; {module} could not be loaded: {why}" for module, why in registry.broken().items())
        hint = did_you_mean(str(name.value), registry.classes(kind))
        return self.problem(name.mark, f"there is no {kind} {name.value!r}{hint}{broken}")


def _has_shape(node: Node, annotation: Any) -> bool:
    """Whether a list or a mapping of the YAML is meant for that alternative of a union."""
    kind = get_origin(annotation) or annotation
    if kind is Annotated:
        return _has_shape(node, get_args(annotation)[0])
    if isinstance(node.value, list):
        return kind in (list, tuple)
    return isinstance(node.value, dict) and (kind is dict or dataclasses.is_dataclass(kind))


def describe(annotation: Any) -> str:
    """An annotation in a user's words: ``one of 8, 16``, ``a number``, ``a list of numbers``."""
    origin, items = get_origin(annotation), get_args(annotation)
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}
    if annotation in words:
        return words[annotation]
    if annotation is type(None):
        return "null"
    if origin is Annotated:
        return " ".join([describe(items[0]), *(str(item) for item in items[1:] if isinstance(item, Range))])
    if origin is Literal:
        return "one of " + ", ".join(str(item) for item in items)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(item) for item in items)
    if origin in (list, tuple):
        return f"a list ({describe(items[0])} each)" if items else "a list"
    if origin is dict or annotation is dict or dataclasses.is_dataclass(annotation):
        return "a mapping"
    if isinstance(annotation, type) and issubclass(annotation, nn.Module):
        return "the name of a network"
    if isinstance(annotation, type) and issubclass(annotation, registry.Registered):
        return f"the name of one of the {KINDS[annotation.kind]}"
    return "anything" if annotation is Any else getattr(annotation, "__name__", str(annotation))
