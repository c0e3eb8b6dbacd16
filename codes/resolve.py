"""An experiment written out in full: every key with its value, defaults included, paths made absolute.

The result loads as an experiment again and trains the same; a run keeps it as ``options.yml``.
"""

import dataclasses
from pathlib import Path
from typing import Any

from codes.convert import Component, NetworkName, yaml_name
from codes.entries import Entry, Experiment, LossEntry
from codes.registry import options_of


def resolved(experiment: Experiment) -> dict[str, Any]:
    """The experiment as nested plain values, in the YAML's own language."""
    full = _plain(experiment.options)
    full["plugins"] = [str(path) for path in experiment.plugins]
    full["datasets"] = {name: _flags(entry) | _options(entry.built_from) for name, entry in experiment.datasets.items()}
    full["networks"] = {
        name: _flags(entry) | {"kwargs": _options(entry.built_from)} for name, entry in experiment.networks.items()
    }
    full["steps"] = {
        step.name: _plain(step.flags)
        | {
            "injectors": {entry.name: _flags(entry) | _options(entry.built_from) for entry in step.injectors},
            "losses": {entry.name: _loss(entry) for entry in step.losses},
        }
        for step in experiment.steps
    }
    return full


def _flags(entry: Entry) -> dict[str, Any]:
    return _plain(entry.flags)


def _loss(entry: LossEntry) -> dict[str, Any]:
    flags = {key: value for key, value in _flags(entry).items() if key != "in"}
    return flags | entry.reads | _options(entry.built_from)


def _options(component: Component) -> dict[str, Any]:
    """A component's options with its defaults; an inner injector's options stand beside its name."""
    values = {name: option.default for name, option in options_of(component.cls).items() if not option.required}
    found: dict[str, Any] = {}
    for name, value in (values | component.options).items():
        if isinstance(value, Component):
            found |= {name: value.type} | _options(value)
        else:
            found[name] = _plain(value)
    return found


def _plain(value: Any) -> Any:
    """A value as YAML can hold it."""
    if isinstance(value, NetworkName):
        return value.name
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {yaml_name(field.name): _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
