"""The ``eval`` section's injectors and evaluators, and what ``logger.visuals`` names.

DL-Art-School's own example holds an eval section that names networks and keys which do not exist. What nothing could
ever run is left out, with one warning; what is misspelt in an entry that could run is a problem like any other.
"""

from collections.abc import Iterable
from typing import Any

from codes import wiring
from codes.convert import INVALID, Converter
from codes.entries import Entry, EvaluatorFlags, LossEntry, StepEntry
from codes.yaml_source import Node


def read(
    reader: Any, options: Any, datasets: dict[str, Entry], steps: list[StepEntry], named: set[str]
) -> dict[str, Any]:
    """Fields of the experiment: ``eval_injectors``, ``evaluators``, ``visuals``, and ``warnings``.

    Args:
        reader: of the experiment.
        options: the experiment's, converted.
        datasets, steps: entries.
        named: the networks that there are.
    """
    keys = wiring.validation_keys(datasets, steps)
    idle: list[str] = []
    section = reader.root.value.get("eval")
    injectors = []
    for name, node in _entries(reader, section, "injectors"):
        why = _dangling(reader, node, keys, named)
        if why:
            idle.append(f"eval.injectors.{name} ({why}, line {node.mark.line})")
            continue
        entry = reader.injector("eval", name, node)
        absent = [] if entry is None else [repr(key) for key in entry.flags.in_ if key not in keys]
        if absent:  # one that an option names: those under `in` are known by now
            idle.append(f"eval.injectors.{name} (no key {' and no key '.join(absent)}, line {node.mark.line})")
        elif entry is not None:
            injectors.append(entry)
            keys |= set(entry.flags.out)
    evaluators = []
    for name, node in _entries(reader, section, "evaluators"):
        entry = reader.reading_entry("evaluator", "eval", name, node, EvaluatorFlags)
        evaluators += [entry] if isinstance(entry, LossEntry) else []
        for key in (key for key in entry.reads.values() if key not in keys) if entry is not None else ():
            reader.problems.append((node.mark, f"evaluator {name} reads {key!r}, which validation does not have"))
    wanted = list(dict.fromkeys([*options.logger.visuals, *([options.eval.output_state or ""])]))
    visuals = [key for key in wanted if key in keys]
    missing = [key for key in wanted if key and key not in keys]
    idle += [f"visuals of {', '.join(map(repr, missing))} (no such key in validation)"] if missing else []
    warnings = [f"left out: {'; '.join(idle)}"] if idle else []
    return {"eval_injectors": injectors, "evaluators": evaluators, "visuals": visuals, "warnings": warnings}


def _entries(reader: Any, section: Node | None, key: str) -> Iterable[tuple[str, Node]]:
    if section is None or not isinstance(section.value, dict):
        return ()
    return list(reader.entries(section, key).items())


def _dangling(reader: Any, node: Node, keys: set[str], networks: set[str]) -> str:
    """Why an injector could never run: a key or a network that does not exist; "" where it could."""
    read = node.value.get("in")
    values = read.value if read is not None and isinstance(read.value, list) else [read] if read is not None else []
    absent = [child.value for child in values if isinstance(child.value, str) and child.value not in keys]
    trial = Converter([], reader.converter.folders)
    kind = node.value.get("type")
    if kind is not None and isinstance(kind.value, str):
        options = Node({k: v for k, v in node.value.items() if k not in ("type", "in", "out")}, node.mark)
        if trial.component("injector", kind, options) is INVALID:
            return ""  # reading it says why
    lost = [reference.name for reference in trial.networks if reference.name not in networks]
    parts = [f"no network {name!r}" for name in lost] + [f"no key {name!r}" for name in absent]
    return " and ".join(parts)
