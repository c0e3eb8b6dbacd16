"""Located YAML values to typed Python values, by annotation; every problem is collected, none is raised.

The annotations of a constructor or a dataclass are the schema: bool, int, float, str, Path, Literal, list, tuple,
dict, unions, dataclasses, a torch module (the name of a network of this experiment) and an injector (its ``subtype``).
"""

import dataclasses
import difflib
import inspect
import math
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from torch import nn

from codes import registry
from codes.registry import Option
from codes.yaml_source import Mark, Node, OptionError

INVALID: Any = object()  # stands for a value that could not be converted; its problem is recorded
KINDS = {"injector": "injectors", "loss": "losses", "dataset": "datasets", "network": "networks"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Component:
    """A registered class and the options that the YAML gives it; ``build`` makes the object."""

    kind: str
    type: str
    cls: Any
    options: dict[str, Any]
    mark: Mark

    def build(self, networks: Mapping[str, nn.Module] | None = None, **extra: Any) -> Any:
        """Construct the object; options that name a network receive it from ``networks``.

        Raises:
            OptionError: the constructor refused its options, with the place of the entry.
        """
        arguments = {name: _resolve(value, networks or {}) for name, value in self.options.items()}
        try:
            return self.cls(**arguments, **extra)
        except (ValueError, TypeError, ImportError, OSError) as error:
            if isinstance(error, OptionError):
                raise
            message = " ".join(str(error).split()) or type(error).__name__
            raise OptionError([(self.mark, f"{self.kind} {self.type}: {message}")]) from error


@dataclasses.dataclass(frozen=True)
class NetworkName:
    """The name of a network of the experiment, given to an option that takes a module."""

    name: str
    mark: Mark


def _resolve(value: Any, networks: Mapping[str, nn.Module]) -> Any:
    if isinstance(value, NetworkName):
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
        if annotation is Any or annotation is inspect.Parameter.empty:
            return self.plain(node)
        if origin in (Union, types.UnionType):
            return self._union(node, annotation, key)
        if origin in (list, tuple):
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
        text = node.describe()
        if isinstance(node.value, str) and node.value.lower() in ("on", "off", "yes", "no"):
            return f"{text} (write true or false)"
        if isinstance(node.value, str) and node.value.lstrip("-+").isdigit():
            return f"{text} (a number does not begin with 0)"
        return text

    def _scalar(self, node: Node, annotation: Any) -> Any:
        value = node.value
        if get_origin(annotation) is Literal:
            matches = value in get_args(annotation) and not isinstance(value, (dict, list))
            return value if matches else INVALID
        if annotation is float and type(value) is int:
            return float(value)
        if annotation is int and type(value) is float and math.isfinite(value) and value == int(value):
            return int(value)
        if annotation is Path and isinstance(value, str):
            return self.path(value, node.mark)
        if annotation is type(None):
            return None if value is None else INVALID
        return value if type(value) is annotation else INVALID

    def path(self, text: str, mark: Mark) -> Path:
        """A path of the YAML: the first that exists beside the YAML, beside its folder, or here.

        A path given on the command line is looked for here first. One that exists nowhere is returned as written.
        """
        path = Path(text).expanduser()
        folders = [Path.cwd(), *self.folders] if mark.file.startswith("<") else [*self.folders, Path.cwd()]
        return next((folder / path for folder in folders if (folder / path).exists()), path)

    def _union(self, node: Node, annotation: Any, key: str) -> Any:
        for alternative in get_args(annotation):
            trial = Converter([], self.folders)
            value = trial.convert(node, alternative, key)
            if not trial.problems:
                self.networks += trial.networks
                return value
        structured = [a for a in get_args(annotation) if dataclasses.is_dataclass(a) and isinstance(node.value, dict)]
        if structured:
            return self.convert(node, structured[0], key)
        return self.problem(node.mark, f"{key} must be {describe(annotation)}, got {self._shown(node)}")

    def _sequence(self, node: Node, annotation: Any, key: str) -> Any:
        """A list or tuple; a single value stands for a list of one, as in DLAS."""
        origin, items = get_origin(annotation), get_args(annotation)
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
        if not isinstance(node.value, dict):
            return self.problem(node.mark, f"{key} must be a mapping, got {node.describe()}")
        return {name: self.convert(child, kind, f"{key}.{name}") for name, child in node.value.items()}

    def dataclass(self, node: Node, cls: Any, key: str) -> Any:
        """A mapping whose keys are the fields of a dataclass."""
        if not isinstance(node.value, dict):
            return self.problem(node.mark, f"{key or 'the experiment'} must be a mapping, got {node.describe()}")
        fields = {yaml_name(name): option for name, option in registry.options_of(cls).items()}
        values = self.arguments(node, fields, key)
        return INVALID if values is INVALID else self.construct(cls, node.mark, key, values)

    def construct(self, cls: Any, mark: Mark, key: str, values: dict[str, Any]) -> Any:
        """Make the dataclass; a ValueError from its own checks becomes a located problem."""
        try:
            return cls(**values)
        except ValueError as error:
            return self.problem(mark, f"{key}: {error}")

    def arguments(self, node: Node, options: Mapping[str, Option], key: str, where: str = "") -> Any:
        """The keys of a mapping as keyword arguments; unknown, missing and wrongly typed keys are problems."""
        values: dict[str, Any] = {}
        prefix = f"{key}." if key else ""
        bad = False
        for name, child in node.value.items():
            if name not in options:
                hint = did_you_mean(name, options)
                self.problem(node.key_marks[name], f"unknown key {name!r} in {where or key or 'the experiment'}{hint}")
                bad = True
                continue
            values[options[name].name] = self.convert(child, options[name].annotation, f"{prefix}{name}")
        for name, option in options.items():
            if option.required and name not in node.value:
                doc = f" ({option.doc})" if option.doc else ""
                self.problem(node.mark, f"{prefix}{name} is missing: {describe(option.annotation)}{doc}")
                bad = True
        return INVALID if bad or any(value is INVALID for value in values.values()) else values

    def component(self, kind: str, name: Node, options: Node, taken: Iterable[str] = ()) -> Component | Any:
        """The class that ``name`` names, with the options that are in the mapping ``options`` but not in ``taken``."""
        cls = self.find(kind, name)
        if cls is INVALID:
            return INVALID
        schema = dict(registry.options_of(cls))
        chosen = Node({}, options.mark, options.key_marks)
        chosen.value = {key: child for key, child in options.value.items() if key not in set(taken)}
        inner = self._subtype(schema, chosen)
        values = self.arguments(chosen, schema, "", f"{kind} {name.value}")
        if values is INVALID or inner is INVALID:
            return INVALID
        values.update(inner)
        return Component(kind=kind, type=name.value, cls=cls, options=values, mark=name.mark)

    def _subtype(self, schema: dict[str, Option], chosen: Node) -> Any:
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
            inner[option.name] = self.component(option.annotation.kind, name, part)
            chosen.value = {k: v for k, v in chosen.value.items() if k in schema}
        return INVALID if any(value is INVALID for value in inner.values()) else inner

    def find(self, kind: str, name: Node) -> Any:
        """The registered class a node names, or INVALID with a problem that says what there is."""
        cls = registry.find(kind, name.value) if isinstance(name.value, str) else None
        if cls is not None:
            return cls
        broken = "".join(f"; {module} could not be loaded: {why}" for module, why in registry.broken().items())
        hint = did_you_mean(str(name.value), registry.classes(kind))
        return self.problem(name.mark, f"there is no {kind} {name.value!r}{hint}{broken}")


def describe(annotation: Any) -> str:
    """An annotation in a user's words: ``one of 8, 16``, ``a number``, ``a list of numbers``."""
    origin, items = get_origin(annotation), get_args(annotation)
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}
    if annotation in words:
        return words[annotation]
    if annotation is type(None):
        return "nothing"
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
