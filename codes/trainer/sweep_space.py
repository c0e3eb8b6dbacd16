"""The space of a hyper-parameter search: a YAML file whose keys are an experiment's, with what they may be.

    steps.lm.optimizer_params.lr: {low: 1e-4, high: 1e-2, log: true}   a range; whole numbers where both ends are
    networks.lm.kwargs.layers: [1, 2, 4]                               a choice
    train.warmup_iter: {low: 0, high: 100, step: 20}                   a range in steps
    networks.lm.kwargs.dropout: {low: 0.0, high: 0.3, num: 4}          so many points, which a grid needs

Every key is tried in the experiment before anything runs, at both ends of a range or with every choice.
"""

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import yaml

from codes.convert import did_you_mean
from codes.experiment import load_experiment
from codes.yaml_source import Mark, Node, OptionError, read_yaml

OWN_KEYS = ("name", "path.root")
RANGE_KEYS = ("low", "high", "log", "step", "num")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dimension:
    """One key: choices (as YAML text), or a range."""

    key: str
    mark: Mark
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    log: bool = False
    step: float | None = None
    num: int | None = None

    def distribution(self) -> Any:
        """What Optuna draws from."""
        from optuna import distributions

        if self.choices:
            return distributions.CategoricalDistribution(self.choices)
        if self.whole:
            return distributions.IntDistribution(int(self.low), int(self.high), self.log, int(self.step or 1))
        return distributions.FloatDistribution(self.low, self.high, self.log, self.step)

    def points(self) -> list[Any]:
        """What a grid takes of it.

        Raises:
            OptionError: it is a range without step and num.
        """
        if self.choices:
            return list(self.choices)
        if self.num is not None:
            shares = [i / max(self.num - 1, 1) for i in range(self.num)]
            made = [self._between(share) for share in shares]
            return list(dict.fromkeys(round(value) for value in made)) if self.whole else made
        step = self.step or (1.0 if self.whole else None)
        if step is None:
            raise OptionError([(self.mark, f"{self.key}: a grid needs step or num, or a list of values")])
        made = [self.low + i * step for i in range(math.floor((self.high - self.low) / step + 1e-9) + 1)]
        return [round(value) for value in made] if self.whole else made

    def _between(self, share: float) -> float:
        if self.log:
            return math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        return self.low + share * (self.high - self.low)

    def override(self, value: Any) -> str:
        """What train.py is given for a value."""
        return f"{self.key}={value}"

    def tried(self) -> list[str]:
        """The values that are checked: all choices, or both ends."""
        return list(self.choices) or [str(int(end) if self.whole else float(end)) for end in (self.low, self.high)]


def read_space(path: Path, experiment: Path, overrides: list[str]) -> list[Dimension]:
    """Read a space and try its keys in the experiment.

    Raises:
        OptionError: the experiment is wrong, or everything that is wrong with the space, with file and line.
    """
    if not path.is_file():
        raise OptionError([(Mark(str(path), 1, 1), "the space file does not exist")])
    load_experiment(experiment, overrides)
    problems: list[tuple[Mark, str]] = []
    root = read_yaml(path, [], problems)
    if not root.value and not problems:
        problems.append((root.mark, "the space names no key to search over"))
    found = [_dimension(key, node, root.key_marks[key], problems) for key, node in root.value.items()]
    for dimension in [dimension for dimension in found if dimension is not None]:
        if dimension.key in OWN_KEYS:
            problems.append((dimension.mark, f"{dimension.key}: the search itself sets it, for each trial"))
        problems += _refused(dimension, experiment, overrides)
    if problems:
        raise OptionError(problems)
    return [dimension for dimension in found if dimension is not None]


def _refused(dimension: Dimension, experiment: Path, overrides: list[str]) -> list[tuple[Mark, str]]:
    """What the experiment says to the values of a key, at the key's place in the space."""
    said: dict[str, None] = {}
    for value in dimension.tried():
        try:
            load_experiment(experiment, [*overrides, dimension.override(value)])
        except OptionError as error:
            said |= {f"{dimension.override(value)}: {message}": None for _, message in error.problems}
    return [(dimension.mark, message) for message in said]


def _dimension(key: str, node: Node, mark: Mark, problems: list[tuple[Mark, str]]) -> Dimension | None:
    count = len(problems)
    if isinstance(node.value, list):
        if not node.value:
            problems.append((node.mark, f"{key}: the list of values is empty"))
        choices = tuple(dict.fromkeys(_text(child) for child in node.value))
        made = Dimension(key=key, mark=mark, choices=choices)
    elif isinstance(node.value, dict):
        made = _range(key, node, mark, problems)
    else:
        problems.append((node.mark, f"{key}: expected a list of values or {{low, high}}, got {node.describe()}"))
        made = None
    return made if len(problems) == count else None


def _range(key: str, node: Node, mark: Mark, problems: list[tuple[Mark, str]]) -> Dimension | None:
    for name in node.value.keys() - set(RANGE_KEYS):
        problems.append((node.key_marks[name], f"{key}: unknown key {name!r}{did_you_mean(name, RANGE_KEYS)}"))
    given = {name: child.value for name, child in node.value.items() if name in RANGE_KEYS}
    log = given.pop("log", False)
    wrong = [value for value in given.values() if isinstance(value, bool) or not _is_finite(value)]
    if wrong or not isinstance(log, bool) or not {"low", "high"} <= given.keys():
        message = "needs numbers low and high, and at will log (true or false), step and num (numbers); all finite"
        problems.append((node.mark, f"{key}: a range {message}"))
        return None
    low, high, step, num = given["low"], given["high"], given.get("step"), given.get("num")
    faults = [
        (low > high, f"low is {low}, above high, {high}"),
        (log and low <= 0, f"low is {low}: a logarithmic range begins above 0"),
        (log and step is not None, "log and step exclude each other"),
        (step is not None and step <= 0, f"step is {step}: it must be above 0"),
        (num is not None and (num < 1 or num != int(num)), f"num is {num}: it must be a whole number of 1 or more"),
    ]
    problems += [(node.mark, f"{key}: {message}") for fault, message in faults if fault]
    if any(fault for fault, _ in faults):
        return None
    whole = isinstance(low, int) and isinstance(high, int) and (step is None or isinstance(step, int))
    return Dimension(
        key=key, mark=mark, low=low, high=high, whole=whole, log=log, step=step, num=None if num is None else int(num)
    )


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _text(node: Node) -> str:
    """A value as one line of YAML."""
    text = yaml.safe_dump(_plain(node), default_flow_style=True, width=math.inf, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def _plain(node: Node) -> Any:
    if isinstance(node.value, dict):
        return {key: _plain(child) for key, child in node.value.items()}
    return [_plain(child) for child in node.value] if isinstance(node.value, list) else node.value


def grid(space: list[Dimension]) -> list[dict[str, Any]]:
    """All combinations of the points, the last key changing fastest."""
    names = [dimension.key for dimension in space]
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*(d.points() for d in space))]
