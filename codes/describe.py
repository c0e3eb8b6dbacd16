"""Text for `--list`: every registered class with its options, read from its constructor and docstring."""

import dataclasses
import inspect
from typing import Any

from codes import registry
from codes.convert import KINDS, describe, did_you_mean
from codes.entries import DatasetFlags, InjectorFlags, LossFlags, NetworkFlags, OptimizerParams, StepFlags
from codes.options import EvalOptions, ExperimentOptions, LoggerOptions, PathOptions, SampleOptions, TrainOptions
from codes.registry import Option
from codes.yaml_source import Mark, OptionError

SECTIONS = {
    "experiment": ExperimentOptions, "train": TrainOptions, "logger": LoggerOptions, "path": PathOptions,
    "eval": EvalOptions, "samples": SampleOptions, "step": StepFlags, "optimizer_params": OptimizerParams,
}  # fmt: skip
FLAGS: dict[str, Any] = {"injector": InjectorFlags, "loss": LossFlags, "dataset": DatasetFlags, "network": NetworkFlags}


def listing(what: str) -> str:
    """Describe everything, one kind ("injectors"), one section of the YAML ("train") or one class ("pcm_quantize").

    Raises:
        OptionError: there is nothing of that name.
    """
    kinds = {plural: kind for kind, plural in KINDS.items()}
    if what == "":
        return "\n\n".join([*(_kind(kind) for kind in KINDS), _section_names()])
    if what in kinds:
        return _kind(kinds[what])
    found = [_class(kind, what, cls) for kind in KINDS if (cls := registry.find(kind, what)) is not None]
    if what in SECTIONS:
        found.append(_section(what, SECTIONS[what]))
    if found:
        return "\n\n".join(found)
    known = [*kinds, *SECTIONS, *(name for kind in KINDS for name in registry.classes(kind))]
    raise OptionError([(Mark(f"<--list {what}>", 1, 1), f"there is nothing named {what!r}{did_you_mean(what, known)}")])


def _kind(kind: str) -> str:
    lines = [f"{KINDS[kind]}:"]
    for name, cls in registry.classes(kind).items():
        lines.append(f"  {name:<24} {registry.summary(cls).splitlines()[0] if cls.__doc__ else ''}".rstrip())
    lines += [f"  not available: {module}: {why}" for module, why in registry.broken().items()]
    return "\n".join([*lines, f"\n  train.py --list NAME describes one; every {kind} also takes: {_flags(kind)}"])


def _flags(kind: str) -> str:
    return ", ".join(name.rstrip("_") for name in registry.options_of(FLAGS[kind]))


def _section_names() -> str:
    return f"sections of the YAML (--list NAME): {', '.join(SECTIONS)}"


def _class(kind: str, name: str, cls: Any) -> str:
    lines = [f"{kind} {name}   ({_place(cls)})", "", *_indent(registry.summary(cls))]
    if kind in ("injector", "loss", "network"):
        lines += ["", f"  forward{inspect.signature(cls.forward)}".replace("(self, ", "(").replace("(self)", "()")]
    if kind == "injector":
        base = next(c for c in cls.__mro__ if "kind" in c.__dict__)
        lines.append(f"  inverse: {'yes' if cls.inverse is not base.inverse else 'no'}")
    if kind == "dataset":
        lines += ["", "  provides:", *(f"    {key:<22} {text}" for key, text in cls.provides.items())]
    return "\n".join([*lines, "", *_options(registry.options_of(cls))])


def _place(cls: type) -> str:
    return f"{inspect.getsourcefile(cls)}:{inspect.getsourcelines(cls)[1]}"


def _section(name: str, cls: Any) -> str:
    return "\n".join([f"section {name}", "", *_indent(registry.summary(cls)), "", *_options(registry.options_of(cls))])


def _indent(text: str) -> list[str]:
    return [f"  {line}".rstrip() for line in text.splitlines()]


def _options(options: dict[str, Option]) -> list[str]:
    if not options:
        return ["  options: none"]
    lines = ["  options:"]
    for name, option in options.items():
        default = "required" if option.required else f"default {_shown(option.default)}"
        lines.append(f"    {name.rstrip('_'):<22} {describe(option.annotation)}; {default}")
        if option.doc:
            lines.append(f"    {'':<22} {option.doc}")
        lines += _nested(option.annotation)
    return lines


def _nested(annotation: Any) -> list[str]:
    """The fields of an option that is a dataclass, indented below it."""
    kinds = [annotation, *getattr(annotation, "__args__", ())]
    inner = next((kind for kind in kinds if dataclasses.is_dataclass(kind) and isinstance(kind, type)), None)
    if inner is None:
        return []
    return [
        f"      {line.strip()}" if "options:" in line else f"    {line}"
        for line in _options(registry.options_of(inner))[1:]
    ]


def _shown(default: Any) -> str:
    if default is None:
        return "none"
    if dataclasses.is_dataclass(default):
        return "its own defaults"
    return str(default).lower() if isinstance(default, bool) else str(default)
