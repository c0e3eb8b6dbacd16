"""YAML text to a tree of located values: strict scalars, no duplicates, safe tags only, command-line overrides.

PyYAML follows YAML 1.1, which reads ``1e-4`` as a string, ``on`` as true, ``010`` as 8, ``12:30:00`` as 45000 and
keeps the last of two equal keys in silence. Here scalars follow the YAML 1.2 core rules, duplicates are errors, and
every value remembers its file, line and column, so that whatever is wrong with it can be said where it stands.
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

import yaml
from yaml.reader import ReaderError

MAX_NODES = 200_000  # aliases can make a small file expand to billions of values
MAX_DEPTH = 50
TAG = "tag:yaml.org,2002:"


@dataclasses.dataclass(frozen=True, order=True)
class Mark:
    """A place in a file; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclasses.dataclass
class Node:
    """A value of the YAML: a scalar, a list of nodes or a dict of nodes, with its place and its keys' places."""

    value: Any
    mark: Mark
    key_marks: dict[str, Mark] = dataclasses.field(default_factory=dict)

    def describe(self) -> str:
        """What the value is, for error messages."""
        if isinstance(self.value, dict):
            return "a mapping"
        if isinstance(self.value, list):
            return "a list"
        text = "nothing" if self.value is None else repr(self.value)
        return text if len(text) <= 80 else f"{text[:76]} ..."


class OptionError(ValueError):
    """One or more things wrong with an experiment; ``str()`` gives one line each: ``file:line:column: message``."""

    def __init__(self, problems: list[tuple[Mark, str]]) -> None:
        lines = dict.fromkeys((mark, " ".join(message.split())) for mark, message in problems)
        self.problems = sorted(lines, key=lambda problem: problem[0])
        super().__init__("\n".join(f"{mark}: {message}" for mark, message in self.problems))


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader with the scalar rules of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, Any] = {}


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9]*(_[0-9]+)*)|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?([0-9]+(_[0-9]+)*\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?", "-+0123456789."),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
):
    _StrictLoader.add_implicit_resolver(f"{TAG}{_tag}", re.compile(f"(?:{_pattern})$"), list(_first))
_StrictLoader.add_implicit_resolver(f"{TAG}null", re.compile("$"), [""])
_StrictLoader.add_implicit_resolver(f"{TAG}merge", re.compile("<<$"), ["<"])


def read_yaml(path: Path, overrides: list[str], problems: list[tuple[Mark, str]]) -> Node:
    """Read a YAML file and apply ``key.sub=value`` overrides; what is wrong is added to ``problems``.

    Raises:
        OptionError: the file cannot be read or is no YAML mapping, so that nothing else can be checked.
    """
    root = parse_yaml(_read_text(path), str(path), problems)
    if root.value is None:
        root.value = {}
    if not isinstance(root.value, dict):
        raise OptionError([(root.mark, f"an experiment is a mapping of keys to values, got {root.describe()}")])
    for override in overrides:
        _apply_override(root, override, problems)
    return root


def _read_text(path: Path) -> str:
    mark = Mark(str(path), 1, 1)
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise OptionError([(mark, "the experiment file does not exist")]) from None
    except OSError as error:
        raise OptionError([(mark, f"the experiment file cannot be read: {error.strerror}")]) from None
    try:
        return raw.decode("utf-8-sig")  # Windows editors write a byte order mark
    except UnicodeDecodeError as error:
        mark = _mark_at(raw[: error.start].decode("utf-8-sig"), str(path))
        raise OptionError([(mark, f"not UTF-8 text: byte 0x{raw[error.start]:02x}")]) from None


def _mark(file: str, line: int, column: int, first: int) -> Mark:
    """A place of PyYAML's, which counts from 0, in a text that begins at column `first`."""
    return Mark(file, line + 1, column + (1 if line else first))


def _mark_at(before: str, file: str) -> Mark:
    """The place that follows this text."""
    return Mark(file, before.count("\n") + 1, len(before) - before.rfind("\n"))


def parse_yaml(text: str, file: str, problems: list[tuple[Mark, str]], column: int = 1) -> Node:
    """Parse YAML text into located values.

    Args:
        text: the YAML.
        file: its name in the places.
        problems: what is wrong is added here.
        column: where the text begins in its first line.

    Raises:
        OptionError: the text is not YAML, with the place where it stops making sense.
    """
    try:
        loader = _StrictLoader(text)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        mark = _mark(file, at.line, at.column, column) if at else Mark(file, 1, column)
        raise OptionError([(mark, f"not valid YAML: {error.problem or error.context}")]) from None
    except ReaderError as error:
        mark = _mark_at(text[: error.position], file)
        raise OptionError([(mark, f"not valid YAML: character 0x{ord(text[error.position]):02x}")]) from None
    except RecursionError:
        raise OptionError([(Mark(file, 1, 1), "not valid YAML: nested too deeply")]) from None
    if node is None:
        return Node(None, Mark(file, 1, column))
    return _Builder(file, problems, column).build(node, ())


class _Builder:
    """Turns PyYAML's nodes into ours: aliases copied, merges flattened, duplicates and tags checked."""

    def __init__(self, file: str, problems: list[tuple[Mark, str]], column: int) -> None:
        self.file = file
        self.column = column
        self.problems = problems
        self.count = 0

    def mark(self, node: yaml.Node) -> Mark:
        return _mark(self.file, node.start_mark.line, node.start_mark.column, self.column)

    def build(self, node: yaml.Node, parents: tuple[int, ...]) -> Node:
        mark = self.mark(node)
        self.count += 1
        if id(node) in parents:
            raise OptionError([(mark, "this alias contains itself")])
        if self.count > MAX_NODES:
            raise OptionError([(mark, f"aliases expand to more than {MAX_NODES} values")])
        if len(parents) > MAX_DEPTH:
            raise OptionError([(mark, "nested too deeply")])
        parents = (*parents, id(node))
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, mark)
        if node.tag not in (f"{TAG}map", f"{TAG}seq"):
            self._refuse_tag(node.tag, mark)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, mark, parents)
        return Node([self.build(child, parents) for child in node.value], mark)

    def _mapping(self, node: yaml.MappingNode, mark: Mark, parents: tuple[int, ...]) -> Node:
        built = Node({}, mark)
        merged: set[str] = set()
        for key_node, value_node in node.value:
            key_mark = self.mark(key_node)
            if key_node.tag == f"{TAG}merge":
                merged |= self._merge(built, self.build(value_node, parents))
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append((key_mark, "a key must be a word"))
                continue
            key = str(key_node.value)
            if key in built.value and key not in merged:
                first = built.key_marks[key].line
                self.problems.append((key_mark, f"duplicate key {key!r} (first on line {first})"))
            merged.discard(key)
            built.value[key] = self.build(value_node, parents)
            built.key_marks[key] = key_mark
        return built

    def _merge(self, built: Node, source: Node) -> set[str]:
        """Take over the keys of ``<<: source`` that are not there yet, in their order; returns them."""
        merged = set()
        for other in source.value if isinstance(source.value, list) else [source]:
            if not isinstance(other.value, dict):
                self.problems.append((other.mark, f"'<<' merges mappings, got {other.describe()}"))
                continue
            for key in [key for key in other.value if key not in built.value]:
                built.value[key], built.key_marks[key] = other.value[key], other.key_marks[key]
                merged.add(key)
        return merged

    def _refuse_tag(self, tag: str, mark: Mark) -> None:
        known = ", ".join(f"!!{name}" for name in _SCALARS)
        shown = f"!!{tag.removeprefix(TAG)}" if tag.startswith(TAG) else tag
        self.problems.append((mark, f"tag {shown} is not allowed (allowed: {known})"))

    def _scalar(self, node: yaml.Node, mark: Mark) -> Node:
        text = str(node.value)
        if "CHANGEME" in text:
            self.problems.append((mark, f"CHANGEME is left in {text!r}: put your own value here"))
        tag = node.tag.removeprefix(TAG)
        try:
            return Node(_SCALARS[tag](text), mark)
        except KeyError:
            self._refuse_tag(node.tag, mark)
        except ValueError:
            self.problems.append((mark, f"{Node(text, mark).describe()} is not a valid !!{tag}"))
        return Node(None, mark)


def _bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def _float(text: str) -> float:
    text = text.replace("_", "").lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_SCALARS: dict[str, Any] = {
    "null": lambda text: None,
    "bool": _bool,
    "int": lambda text: int(text.replace("_", ""), 0),
    "float": _float,
    "str": str,
}


def _apply_override(root: Node, override: str, problems: list[tuple[Mark, str]]) -> None:
    """Set ``key.sub=value`` in the tree; the value is YAML and its place is the argument itself. The last one wins."""
    keys, equals, text = override.partition("=")
    file = f"<{override}>"
    mark = Mark(file, 1, 1)
    if not equals or not all(keys.split(".")):
        problems.append((mark, "an override is key.sub=value, for example train.niter=1000"))
        return
    try:
        value = parse_yaml(text, file, problems, column=len(keys) + 2)
    except OptionError as error:
        problems.extend(error.problems)
        return
    *parents, last = keys.split(".")
    node = root
    for key in parents:
        child = _child(node, key, mark, problems, keys)
        if child is None:
            return
        node = child
    _assign(node, last, value, mark, problems)


def _child(node: Node, key: str, mark: Mark, problems: list[tuple[Mark, str]], keys: str) -> Node | None:
    if isinstance(node.value, list):
        if key.isdigit() and int(key) < len(node.value):
            return node.value[int(key)]
        problems.append((mark, f"{keys}: the list at {node.mark} has no item {key}"))
        return None
    if not isinstance(node.value, dict):
        problems.append((mark, f"{keys}: {key!r} would be inside {node.describe()} at {node.mark}"))
        return None
    if key not in node.value or node.value[key].value is None:
        node.value[key] = Node({}, mark)
        node.key_marks[key] = mark
    return node.value[key]


def _assign(node: Node, key: str, value: Node, mark: Mark, problems: list[tuple[Mark, str]]) -> None:
    if isinstance(node.value, dict):
        node.value[key], node.key_marks[key] = value, mark
    elif isinstance(node.value, list) and key.isdigit() and int(key) < len(node.value):
        node.value[int(key)] = value
    else:
        problems.append((mark, f"cannot set {key!r} in {node.describe()} at {node.mark}"))
