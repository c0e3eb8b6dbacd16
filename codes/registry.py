"""Classes by snake_case name, with the schema that their constructors spell out.

Every injector, loss, dataset and network derives from a base class of this project, which registers it under its
snake_case class name without the kind's suffix: ``MidSideInjector`` is the injector ``mid_side``. What a class takes
from the YAML is exactly what its ``__init__`` takes: names, types, defaults and the "Args:" of its docstring are read
from there by the YAML checker, by ``train.py --list`` and by the JSON Schema. One default, in one place.

Discovery walks the packages of this project by their own location, never the working directory. A module that cannot
be imported (an optional dependency is missing, a plug-in has an error) is remembered with its reason and harms
nothing else.
"""

import dataclasses
import functools
import hashlib
import importlib
import importlib.util
import inspect
import math
import pkgutil
import re
import sys
import traceback
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

MISSING = dataclasses.MISSING

# Where the built-in classes live. Packages are walked, modules imported.
BUILTIN_MODULES = (
    *(
        "codes.trainer.injectors",
        "codes.trainer.losses",
        "codes.trainer.losses_latent",
        "codes.trainer.evaluators",
        "codes.trainer.losses_codec",
    ),
    "codes.trainer.losses_codes",
    *("codes.models", "codes.data.audio"),
)


@dataclasses.dataclass(frozen=True)
class Option:
    """One argument of a constructor: what the YAML may set."""

    name: str
    annotation: Any
    default: Any = MISSING
    doc: str = ""

    @property
    def required(self) -> bool:
        """Whether the YAML must give it."""
        return self.default is MISSING


@dataclasses.dataclass(frozen=True, kw_only=True)
class Range:
    """Which numbers an option takes: ``Annotated[int, Range(least=1)]``.

    Args:
        above: the value is larger than this
        least: the value is at least this
        below: the value is smaller than this
        most: the value is at most this
    """

    above: float = -math.inf
    least: float = -math.inf
    below: float = math.inf
    most: float = math.inf

    def holds(self, value: float) -> bool:
        """Whether the value lies inside."""
        return self.above < value < self.below and self.least <= value <= self.most

    def __str__(self) -> str:
        lower = f"at least {self.least:g}" if self.least > self.above else f"above {self.above:g}"
        upper = f"at most {self.most:g}" if self.most < self.below else f"below {self.below:g}"
        bounds = [text for text, bound in ((lower, max(self.least, self.above)), (upper, min(self.most, self.below)))
                  if math.isfinite(bound)]  # fmt: skip
        return " and ".join(bounds)


@dataclasses.dataclass(frozen=True)
class Output:
    """Marks a path that is written: it is taken as it is, where other paths are looked for in several folders."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StateKey:
    """Marks an option that names a key of the state, or several (a list, or the values of a mapping).

    DL-Art-School has some beside `in` and `out`.

    The injector then reads it after those under `in`, or writes it after those under `out`, in the order of the
    constructor's arguments; the constructor itself has no use for the name.

    Args:
        written: it is written, not read.
        suffix: where the option is not given, the key is named as the first one under `out` with this behind it.
    """

    written: bool = False
    suffix: str = ""


@dataclasses.dataclass(frozen=True)
class OptionsOf:
    """Marks a mapping that holds another class's options: ``Annotated[dict[str, Any], OptionsOf(OtherDataset)]``."""

    cls: type


class Registered:
    """Mixin that registers every subclass of a base class by snake_case name.

    A base class names its ``kind`` ("injector") in its own body; subclasses below it are registered, except those
    with ``abstract=True`` in their class line and those of ``__main__`` (``python -m`` makes a second copy there).
    """

    kind: ClassVar[str]

    def __init_subclass__(cls, abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "kind" in cls.__dict__:
            _CLASSES.setdefault(cls.kind, {})
        elif not abstract and cls.__module__ != "__main__":
            _register(cls)


_CLASSES: dict[str, dict[str, type]] = {}
_BROKEN: dict[str, str] = {}  # module or plug-in file -> why it could not be imported
_discovered = False
_PLUGIN = "waveschool_plugin_"


def snake_case(name: str, suffix: str = "") -> str:
    """``TorchMelSpectrogramInjector`` -> ``torch_mel_spectrogram`` for the suffix ``injector``."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    name = re.sub("([a-z0-9])([A-Z])", r"\1_\2", name).lower()
    return name.removesuffix(f"_{suffix}")


def _register(cls: type[Registered]) -> None:
    name = snake_case(cls.__name__, cls.kind)
    classes = _CLASSES[cls.kind]
    known = classes.get(name)
    same = known is not None and (_source(known), known.__qualname__) == (_source(cls), cls.__qualname__)
    if known is not None and not same:
        raise ValueError(
            f"{cls.kind} {name!r} of {_source(cls)} is already defined in {_source(known)}: "
            f"rename the class {cls.__name__}"
        )
    classes[name] = cls


def _source(cls: type) -> str:
    module = sys.modules.get(cls.__module__)
    return str(getattr(module, "__file__", None) or cls.__module__)


def discover() -> None:
    """Import every built-in module once; those that fail are kept in `broken()` with the reason."""
    global _discovered
    if _discovered:
        return
    _discovered = True
    for name in BUILTIN_MODULES:
        module = _import(name)
        for info in pkgutil.iter_modules(getattr(module, "__path__", []), f"{name}."):
            _import(info.name)


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except Exception as error:
        _BROKEN[name] = reason(error)
        return None


def reason(error: BaseException, file: str = "") -> str:
    """The error in one line, with the place that raised it: in that file, where it was there."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {error.msg}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if file in ("", frame.filename)]
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def load_plugin(path: Path) -> None:
    """Import a user's Python file so that its classes are registered. Loading the same file again does nothing.

    Raises:
        ImportError: the file is missing or raises; the message names the file, the line and the reason.
    """
    discover()  # first, so that a name that is taken is the plug-in's mistake
    path = path.resolve()
    name = f"{_PLUGIN}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return
    if not path.is_file():
        raise ImportError(f"plug-in {path} {'is not a file' if path.exists() else 'does not exist'}")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"plug-in {path} is not a Python file (its name must end in .py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        for cls in [cls for classes in _CLASSES.values() for cls in classes.values() if cls.__module__ == name]:
            _check_signature(cls)
    except (Exception, SystemExit) as error:
        _forget(name)
        raise ImportError(f"plug-in {path} cannot be loaded: {reason(error, str(path))}") from error


def _check_signature(cls: type) -> None:
    """The constructor of a user's class must be readable as a schema."""
    try:
        options_of(cls)
    except (NameError, TypeError, AttributeError) as error:
        raise TypeError(f"the annotations of {cls.__name__}.__init__ cannot be read: {error}") from error


def _forget(module: str) -> None:
    del sys.modules[module]
    for classes in _CLASSES.values():
        for name in [name for name, cls in classes.items() if cls.__module__ == module]:
            del classes[name]


def classes(kind: str) -> dict[str, type]:
    """All classes of a kind ("injector", "loss", "dataset", "network") by name, sorted."""
    discover()
    return dict(sorted(_CLASSES.get(kind, {}).items()))


def find(kind: str, name: str) -> type | None:
    """The class of that kind and name, or None."""
    discover()
    return _CLASSES.get(kind, {}).get(name)


def broken() -> dict[str, str]:
    """Built-in modules that could not be imported, with the reason."""
    discover()
    return dict(_BROKEN)


def state_keys(cls: type) -> dict[str, StateKey]:
    """The options of a class that name keys of the state."""
    marked = {name: typing.get_args(option.annotation)[1:] for name, option in options_of(cls).items()}
    return {name: rule for name, rules in marked.items() for rule in rules if isinstance(rule, StateKey)}


@functools.cache
def options_of(cls: type) -> Mapping[str, Option]:
    """The options of a registered class or a dataclass: its constructor's arguments, or its fields.

    A constructor with ``**options`` passes them on to its base class, whose options are then its own as well.
    """
    owners = _owners(cls)
    docs = {**(argument_docs(owners[0]) if owners else {}), **argument_docs(cls)}
    hints = typing.get_type_hints(cls if dataclasses.is_dataclass(cls) else cls.__init__, include_extras=True)
    found = {}
    for name, parameter in list(inspect.signature(cls).parameters.items()):
        if parameter.kind is parameter.VAR_KEYWORD:
            found = {**(options_of(owners[1]) if len(owners) > 1 else {}), **found}
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            default = MISSING if parameter.default is parameter.empty else _default_of(cls, name, parameter.default)
            found[name] = Option(name, hints.get(name, Any), default, docs.get(name.rstrip("_"), ""))
    return types.MappingProxyType(found)


def _owners(cls: type) -> list[type]:
    """The registered class and its bases that define a constructor; one with ``**options`` calls the next."""
    return [base for base in cls.__mro__ if "__init__" in base.__dict__ and issubclass(base, Registered)]


def _default_of(cls: type, name: str, default: Any) -> Any:
    """The default as the user would write it; a dataclass field's factory is called."""
    if dataclasses.is_dataclass(cls):
        field = next(field for field in dataclasses.fields(cls) if field.name == name)
        if field.default_factory is not MISSING:
            return field.default_factory()
    return default


def argument_docs(cls: type) -> dict[str, str]:
    """The "Args:" section of a class's docstring as name -> text."""
    docs: dict[str, str] = {}
    match = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", inspect.getdoc(cls) or "", re.M | re.S)
    if match is None:
        return docs
    name = None
    for line in match.group(1).splitlines():
        entry = re.match(r"^ {4}(\w+)(?: \([^)]*\))?: (.*)$", line)
        if entry:
            name = entry.group(1)
            docs[name] = entry.group(2).strip()
        elif name and line.strip():
            docs[name] += " " + line.strip()
    return docs


def summary(cls: type) -> str:
    """A class's docstring without its "Args:" section."""
    text = (cls.__doc__ and inspect.cleandoc(cls.__doc__)) or ""
    return re.sub(r"^Args:\n(.*?)(?=^\S|\Z)", "", text, flags=re.M | re.S).strip()


def plugin_files() -> list[Path]:
    """The plug-in files that are loaded, for worker processes that must load them again."""
    return [Path(str(module.__file__)) for name, module in sys.modules.items() if name.startswith(_PLUGIN)]
