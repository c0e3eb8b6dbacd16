"""A JSON Schema of the experiment language from the live registry, so that editors complete and check the YAML."""

import dataclasses
import json
import math
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from torch import nn

from codes import registry
from codes.convert import yaml_name
from codes.entries import DatasetFlags, InjectorFlags, LossFlags, NetworkFlags, StepFlags
from codes.experiment import input_names, needs_key
from codes.options import ExperimentOptions
from codes.registry import Option, Range

Schema = dict[str, Any]


def write_schema(path: Path) -> None:
    """Write the schema of everything registered, plug-ins included, to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(experiment_schema(), indent=1) + "\n", encoding="utf-8")


def experiment_schema() -> Schema:
    """The JSON Schema (draft 2020-12) of an experiment."""
    schema = _object(registry.options_of(ExperimentOptions))
    schema["properties"] |= {
        "datasets": {
            "type": "object", "additionalProperties": False, "required": ["train"],
            "properties": {"train": {"$ref": "#/$defs/dataset"}, "val": {"$ref": "#/$defs/val_dataset"}},
        },
        "networks": _named("network"),
        "steps": _named("step") | {"minProperties": 1},
    }  # fmt: skip
    schema["properties"]["path"]["patternProperties"] = {"^pretrain_model_": {"type": "string"}}
    step = _object(registry.options_of(StepFlags))
    step["properties"] |= {"injectors": _named("injector"), "losses": _named("loss") | {"minProperties": 1}}
    step["required"].append("losses")
    schema["$defs"] = {
        "step": step,
        "injector": _entry("injector", InjectorFlags, "type"),
        "loss": _entry("loss", LossFlags, "type"),
        "dataset": _entry("dataset", DatasetFlags, "mode"),
        "val_dataset": _inheriting(_entry("dataset", DatasetFlags, "mode")),
        "network": _network(),
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Waveschool experiment", **schema}


def _inheriting(entry: Schema) -> Schema:
    """The entry of a dataset that takes from `train` what it does not set: nothing is required."""
    names = set(entry["properties"])
    for branch in entry["allOf"]:
        branch["then"].pop("required", None)
        names |= branch["then"]["properties"].keys()
    return {**entry, "type": ["object", "null"], "required": [], "propertyNames": {"enum": sorted(names)}}


def _named(definition: str) -> Schema:
    return {"type": "object", "additionalProperties": {"$ref": f"#/$defs/{definition}"}}


def _object(options: Mapping[str, Option]) -> Schema:
    """A closed object with these options as properties; with nothing required it may be left empty."""
    required = [yaml_name(name) for name, option in options.items() if option.required]
    properties = {yaml_name(name): _property(option) for name, option in options.items()}
    kind = "object" if required else ["object", "null"]
    return {"type": kind, "additionalProperties": False, "properties": properties, "required": required}


def _property(option: Option) -> Schema:
    schema = _type(option.annotation)
    if option.doc:
        schema["description"] = option.doc
    if not option.required and isinstance(option.default, (bool, int, float, str, list)):
        schema["default"] = option.default
    return schema


def _type(annotation: Any) -> Schema:
    """An annotation as a schema."""
    origin, items = get_origin(annotation), get_args(annotation)
    simple = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
    if annotation in simple:
        return {"type": simple[annotation]}
    if annotation is Path:
        return {"type": "string", "minLength": 1}
    if origin is Annotated:
        return _type(items[0]) | {key: bound for rule in items[1:] for key, bound in _bounds(rule).items()}
    if origin is Literal:
        return {"enum": list(items)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_type(item) for item in items]}
    if origin in (list, tuple) or annotation in (list, tuple):
        return _sequence(origin or annotation, items)
    if origin is dict or annotation is dict:
        return {"type": ["object", "null"], "additionalProperties": _type(items[1]) if items else True}
    if dataclasses.is_dataclass(annotation):
        return _object(registry.options_of(annotation))
    if isinstance(annotation, type) and issubclass(annotation, nn.Module):
        return {"type": "string"}
    if isinstance(annotation, type) and issubclass(annotation, registry.Registered):
        return {"enum": list(registry.classes(annotation.kind))}
    return {}


def _bounds(rule: Any) -> Schema:
    if not isinstance(rule, Range):
        return {}
    names = {
        "exclusiveMinimum": rule.above,
        "minimum": rule.least,
        "exclusiveMaximum": rule.below,
        "maximum": rule.most,
    }
    return {name: bound for name, bound in names.items() if math.isfinite(bound)}


def _sequence(origin: Any, items: tuple[Any, ...]) -> Schema:
    """A list; a single value stands for a list of one."""
    if origin is tuple and items and Ellipsis not in items:
        fixed = [_type(item) for item in items]
        return {"type": "array", "prefixItems": fixed, "minItems": len(fixed), "items": False}
    item = _type(items[0]) if items else {}
    return {"anyOf": [{"type": "array", "items": item}, item]}


def _entry(kind: str, flags: Any, key: str) -> Schema:
    """An entry whose allowed keys follow from the class that `key` names."""
    common = _object(registry.options_of(flags))
    classes = registry.classes(kind)
    common["properties"][key] = {"enum": list(classes), "description": f"the {kind} (train.py --list {kind}s)"}
    branches = []
    for name, cls in classes.items():
        own = _object(registry.options_of(cls))
        properties = common["properties"] | own["properties"]
        then: Schema = {"properties": properties, "required": [r for r in own["required"] if r != "phase"]}
        if not any(_is_injector(option.annotation) for option in registry.options_of(cls).values()):
            then["additionalProperties"] = False
        if kind == "injector":
            then["required"] += [key for key in ("in", "out") if needs_key(cls, key)]
        if kind == "loss":
            inputs = input_names(cls)
            properties |= {name: {"type": "string", "description": "a key of the state"} for name in inputs}
            then["anyOf"] = [{"required": ["in"]}, {"required": [n for n, required in inputs.items() if required]}]
        if kind == "dataset":
            properties.setdefault("phase", {"enum": ["train", "val"]})
        branches.append({"if": {"properties": {key: {"const": name}}, "required": [key]}, "then": then})
    return {"type": "object", "properties": common["properties"], "required": common["required"], "allOf": branches}


def _is_injector(annotation: Any) -> bool:
    return (
        isinstance(annotation, type) and issubclass(annotation, registry.Registered) and annotation.kind == "injector"
    )


def _network() -> Schema:
    """A network; its `kwargs` follow from the class that `which_model`, or one of its old names, names."""
    network = _object(registry.options_of(NetworkFlags))
    classes = registry.classes("network")
    keys = ("which_model", "which_model_G", "which_model_D")
    named = {"enum": list(classes), "description": "the network (train.py --list networks)"}
    network["properties"] |= dict.fromkeys(keys, named)
    network["required"] = []
    network["anyOf"] = [{"required": [key]} for key in keys]
    network["allOf"] = [
        {
            "if": {"anyOf": [{"properties": {key: {"const": name}}, "required": [key]} for key in keys]},
            "then": {"properties": {"kwargs": (kwargs := _object(registry.options_of(cls)))}}
            | ({"required": ["kwargs"]} if kwargs["required"] else {}),
        }
        for name, cls in classes.items()
    ]
    return network
