"""A JSON Schema of the experiment language from the live registry, so that editors complete and check the YAML."""

import dataclasses
import json
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from torch import nn

from codes import registry
from codes.entries import DatasetFlags, InjectorFlags, LossFlags, NetworkFlags, StepFlags
from codes.experiment import input_names
from codes.options import ExperimentOptions, PathOptions
from codes.registry import Option

Schema = dict[str, Any]


def write_schema(path: Path) -> None:
    """Write the schema of everything registered, plug-ins included, to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(experiment_schema(), indent=1) + "\n", encoding="utf-8")


def experiment_schema() -> Schema:
    """The JSON Schema (draft 2020-12) of an experiment."""
    schema = _object(registry.options_of(ExperimentOptions))
    properties = schema["properties"]
    properties["datasets"] = {
        "type": "object", "additionalProperties": False, "required": ["train"],
        "properties": {"train": {"$ref": "#/$defs/dataset"}, "val": {"$ref": "#/$defs/val_dataset"}},
    }  # fmt: skip
    properties["networks"] = _named("network")
    properties["steps"] = _named("step")
    path = _object(registry.options_of(PathOptions))
    path["patternProperties"] = {"^pretrain_model_": {"type": "string"}}
    properties["path"] = path
    step = _object(registry.options_of(StepFlags))
    step["properties"] |= {"injectors": _named("injector"), "losses": _named("loss")}
    val = _entry("dataset", DatasetFlags, "mode")
    for branch in val["allOf"]:
        branch["then"].pop("required", None)
    val.pop("required")  # val takes from train what it does not set
    schema["$defs"] = {
        "step": step,
        "injector": _entry("injector", InjectorFlags, "type"),
        "loss": _entry("loss", LossFlags, "type"),
        "dataset": _entry("dataset", DatasetFlags, "mode"),
        "val_dataset": val,
        "network": _network(),
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Waveschool experiment", **schema}


def _named(definition: str) -> Schema:
    return {"type": "object", "additionalProperties": {"$ref": f"#/$defs/{definition}"}}


def _object(options: dict[str, Option]) -> Schema:
    """A closed object with these options as properties."""
    required = [name.rstrip("_") for name, option in options.items() if option.required]
    properties = {name.rstrip("_"): _property(option) for name, option in options.items()}
    return {"type": "object", "additionalProperties": False, "properties": properties, "required": required}


def _property(option: Option) -> Schema:
    schema = _type(option.annotation)
    if option.doc:
        schema["description"] = option.doc
    if not option.required and isinstance(option.default, (bool, int, float, str)):
        schema["default"] = option.default
    return schema


def _type(annotation: Any) -> Schema:
    """An annotation as a schema."""
    origin, items = get_origin(annotation), get_args(annotation)
    simple = {bool: "boolean", int: "integer", float: "number", str: "string", Path: "string", type(None): "null"}
    if annotation in simple:
        return {"type": simple[annotation]}
    if origin is Literal:
        return {"enum": list(items)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_type(item) for item in items]}
    if origin in (list, tuple):
        item = _type(items[0]) if items else {}
        return {"anyOf": [{"type": "array", "items": item}, item]}
    if origin is dict:
        return {"type": "object", "additionalProperties": _type(items[1])}
    if dataclasses.is_dataclass(annotation):
        return _object(registry.options_of(annotation))  # type: ignore[arg-type]
    if isinstance(annotation, type) and issubclass(annotation, nn.Module):
        return {"type": "string", "description": "name of a network"}
    if isinstance(annotation, type) and issubclass(annotation, registry.Registered):
        return {"enum": list(registry.classes(annotation.kind))}
    return {}


def _entry(kind: str, flags: Any, key: str) -> Schema:
    """An entry whose allowed keys follow from the class that `key` names."""
    common = _object(registry.options_of(flags))
    classes = registry.classes(kind)
    common["properties"][key] = {"enum": list(classes), "description": f"the {kind} (train.py --list {kind}s)"}
    branches = []
    for name, cls in classes.items():
        own = _object(registry.options_of(cls))
        properties = common["properties"] | own["properties"]
        if kind == "loss":
            properties |= {parameter: {"type": "string"} for parameter in input_names(cls)}
        if kind == "dataset":
            properties.setdefault("phase", {"enum": ["train", "val"]})
        then: Schema = {"properties": properties, "required": [r for r in own["required"] if r != "phase"]}
        if not any(_is_injector(option.annotation) for option in registry.options_of(cls).values()):
            then["additionalProperties"] = False
        branches.append({"if": {"properties": {key: {"const": name}}, "required": [key]}, "then": then})
    return {
        "type": "object",
        "properties": {key: common["properties"][key]},
        "required": common["required"],
        "allOf": branches,
    }


def _is_injector(annotation: Any) -> bool:
    return (
        isinstance(annotation, type) and issubclass(annotation, registry.Registered) and annotation.kind == "injector"
    )


def _network() -> Schema:
    common = _object(registry.options_of(NetworkFlags))
    classes = registry.classes("network")
    for legacy in ("which_model", "which_model_G", "which_model_D"):
        common["properties"][legacy] = {"enum": list(classes), "description": "the network (train.py --list networks)"}
    common["required"] = []
    common["allOf"] = [
        {
            "if": {"properties": {"which_model": {"const": name}}, "required": ["which_model"]},
            "then": {"properties": {"kwargs": _object(registry.options_of(cls))}},
        }
        for name, cls in classes.items()
    ]
    return common
