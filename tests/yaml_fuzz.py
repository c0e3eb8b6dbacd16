"""Every key of every shipped experiment dropped, misspelt, retyped or doubled: located errors, or a valid experiment.

The suite takes a sample (test_yaml_fuzz.py). All of it, in some minutes:

    python tests/yaml_fuzz.py [experiments/NAME.yml ...]
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import yaml

from codes.experiment import load_experiment
from codes.yaml_source import OptionError

EXPERIMENTS = sorted((Path(__file__).resolve().parents[1] / "experiments").glob("*.yml"))
VALUES = (
    "17",
    "-3",
    "0.5",
    "1e400",
    "true",
    "null",
    "abc",
    "''",
    "[]",
    "[1, a]",
    "{}",
    "{a: 1}",
    "2020-01-01",
    "0x1F",
    "!!python/none x",
)
PLACE = re.compile(r"^(?P<file>.+?):(?P<line>\d+):(?P<column>\d+): \S")
Spot = tuple[str, yaml.Node, yaml.Node, bool]  # dotted key, key, value, whether it stands in braces


def spots(text: str) -> list[Spot]:
    """Every key of a YAML text, outermost first."""
    return list(_below(yaml.compose(text, Loader=yaml.SafeLoader), "", False))


def _below(node: yaml.Node | None, path: str, flow: bool) -> Iterator[Spot]:
    if isinstance(node, yaml.MappingNode):
        inside = flow or bool(node.flow_style)
        for key, value in node.value:
            dotted = f"{path}.{key.value}".lstrip(".")
            yield dotted, key, value, inside
            yield from _below(value, dotted, inside)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield from _below(value, f"{path}.{number}", flow or bool(node.flow_style))


def mutations(text: str, spot: Spot) -> Iterator[tuple[str, str]]:
    """(what was done, changed text) for one key."""
    dotted, key, value, flow = spot
    start, end, after = key.start_mark.index, key.end_mark.index, value.end_mark.index
    yield f"{dotted} misspelt", text[:end] + "x" + text[end:]
    yield f"{dotted} cut short", text[:start] + text[start:end][:-1] + text[end:]
    entry = text[start:after].rstrip()
    if flow:
        rest = text[after:].lstrip()
        yield f"{dotted} dropped", text[:start] + (rest[1:] if rest.startswith(",") else rest)
        yield f"{dotted} doubled", f"{text[:start]}{entry}, {text[start:]}"
    else:
        yield f"{dotted} dropped", text[:start] + text[start + len(text[start:after]) :]
        indent = " " * key.start_mark.column
        yield f"{dotted} doubled", f"{text[:start]}{entry}\n{indent}{text[start:]}"
    tail = "" if flow or not text[value.start_mark.index : after].endswith("\n") else "\n"
    same_line = key.end_mark.line == value.start_mark.line
    begin = value.start_mark.index if same_line else end + 1
    for replacement in VALUES:
        yield f"{dotted} := {replacement}", f"{text[:begin]}{'' if same_line else ' '}{replacement}{tail}{text[after:]}"


def verdict(file: Path, text: str) -> str | None:
    """What is wrong with how an experiment is taken: None where it loads, or each line of its errors has a place."""
    file.write_text(text, encoding="utf-8")
    try:
        load_experiment(file)
    except OptionError as error:
        lines = str(error).splitlines()
        last = text.count("\n") + 2
        for line in lines:
            found = PLACE.match(line)
            if found is None or found["file"] != str(file) or not 1 <= int(found["line"]) <= last:
                return f"no place: {line}"
        return None if lines else "an empty error"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def main(files: list[Path], folder: Path) -> int:
    """Try everything; returns how much was taken wrongly."""
    bad = tried = 0
    for file in files:
        text = file.read_text(encoding="utf-8")
        for spot in spots(text):
            for title, changed in mutations(text, spot):
                tried += 1
                found = verdict(folder / file.name, changed)
                if found is not None:
                    bad += 1
                    print(f"{file.name}: {title}: {found}", flush=True)
        print(f"{file.name}: {tried:,} tried so far, {bad} taken wrongly", flush=True)
    return bad


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        sys.exit(main([Path(argument) for argument in sys.argv[1:]] or EXPERIMENTS, Path(name)) > 0)
