"""Text for `--list`: every registered class with its options, read from its constructor and docstring."""

import dataclasses
import inspect
import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from codes import registry
from codes.convert import KINDS, describe, did_you_mean, yaml_name
from codes.entries import (
    DatasetFlags,
    EvaluatorFlags,
    InjectorFlags,
    LossFlags,
    NetworkFlags,
    OptimizerParams,
    StepFlags,
)
from codes.options import EvalOptions, ExperimentOptions, LoggerOptions, PathOptions, SampleOptions, TrainOptions
from codes.registry import Option
from codes.yaml_source import Mark, OptionError

SECTIONS = {
    "experiment": ExperimentOptions, "train": TrainOptions, "logger": LoggerOptions, "path": PathOptions,
    "eval": EvalOptions, "samples": SampleOptions, "step": StepFlags, "optimizer_params": OptimizerParams,
    "injector": InjectorFlags, "loss": LossFlags, "evaluator": EvaluatorFlags,
    "dataset": DatasetFlags, "network": NetworkFlags,
}  # fmt: skip
WIDTH = 110


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
        summary = registry.summary(cls).split("\n\n")[0]
        lines += _filled(f"  {name:<22} ", summary)
    lines += [f"  not available: {module}: {why}" for module, why in registry.broken().items()]
    return "\n".join([*lines, "", *_filled("  ", f"every {kind} also takes: {_flags(kind)} (--list {kind})")])


def _flags(kind: str) -> str:
    return ", ".join(yaml_name(name) for name in registry.options_of(SECTIONS[kind]))


def _section_names() -> str:
    return f"--list NAME describes one of these, or a section of the YAML: {', '.join(SECTIONS)}"


def _class(kind: str, name: str, cls: Any) -> str:
    lines = [f"{kind} {name}   ({_place(cls)})", "", *_indent(registry.summary(cls))]
    if kind in ("injector", "loss", "evaluator", "network"):
        lines += ["", f"  {_signature(cls)}"]
    if kind == "injector":
        base = next(c for c in cls.__mro__ if "kind" in c.__dict__)
        lines.append(f"  inverse: {'yes' if cls.inverse is not base.inverse else 'no'}")
    if kind == "dataset":
        lines += ["", "  provides:", *(f"    {key:<22} {text}" for key, text in cls.provides.items())]
    return "\n".join([*lines, "", *_options(registry.options_of(cls))])


def _signature(cls: Any) -> str:
    """``forward(nats, mask=None)``: the names that the YAML's `in` stands for, without types."""
    own = list(inspect.signature(cls.forward).parameters.values())[1:]
    plain = [parameter.replace(annotation=parameter.empty) for parameter in own]
    return f"forward{inspect.Signature(plain)}"


def _place(cls: type) -> str:
    file = Path(inspect.getsourcefile(cls) or "")
    shown = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
    return f"{shown}:{inspect.getsourcelines(cls)[1]}"


def _filled(first: str, text: str) -> list[str]:
    """Text wrapped behind its first line's beginning."""
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=" " * len(first)) or [first.rstrip()]


def _section(name: str, cls: Any) -> str:
    return "\n".join([f"section {name}", "", *_indent(registry.summary(cls)), "", *_options(registry.options_of(cls))])


def _indent(text: str) -> list[str]:
    return [f"  {line}".rstrip() for line in text.splitlines()]


def _options(options: Mapping[str, Option]) -> list[str]:
    if not options:
        return ["  options: none"]
    lines = ["  options:"]
    for name, option in options.items():
        default = "required" if option.required else f"default {_shown(option.default)}"
        lines += _filled(f"    {yaml_name(name):<22} ", f"{describe(option.annotation)}; {default}")
        lines += _filled(f"    {'':<22} ", option.doc) if option.doc else []
        lines += _nested(option.annotation)
    return lines


def _nested(annotation: Any) -> list[str]:
    """The fields of an option that is a dataclass, indented below it."""
    kinds = [annotation, *get_args(annotation)]
    inner = next((kind for kind in kinds if dataclasses.is_dataclass(kind) and isinstance(kind, type)), None)
    return [] if inner is None else [f"    {line}" for line in _options(registry.options_of(inner))[1:]]


def _shown(default: Any) -> str:
    if dataclasses.is_dataclass(default):
        return "its own defaults"
    if isinstance(default, str):
        return default or "''"
    return json.dumps(default, default=str)
