"""Values by annotation: what is taken, what is refused and how that is said."""

import dataclasses
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from torch import nn

from codes.convert import INVALID, Component, Converter, NetworkName, describe, did_you_mean
from codes.registry import Output, Range
from codes.yaml_source import Mark, OptionError, parse_yaml

MARK = Mark("f", 1, 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    size: int
    rate: Annotated[float, Range(above=0, most=1)] = 1.0

    def __post_init__(self) -> None:
        if self.size == 13:
            raise ValueError("size must not be 13")


def convert(text: str, annotation: Any, folders: list[Path] | None = None) -> tuple[Any, list[str]]:
    problems: list[tuple[Mark, str]] = []
    converter = Converter(problems, folders or [])
    value = converter.convert(parse_yaml(text, "f", problems), annotation, "key")
    return value, [message for _, message in problems]


@pytest.mark.parametrize(
    ("text", "annotation", "value"),
    [
        ("3", float, 3.0), ("3.0", int, 3), ("3", int, 3), ("true", bool, True), ("a", str, "a"),
        ("null", int | None, None), ("3", int | None, 3), ("8", Literal[8, 16], 8), ("a", Literal["a", "b"], "a"),
        ("[1, 2]", list[float], [1.0, 2.0]), ("1", list[int], [1]), ("[1, 2.5]", tuple[int, float], (1, 2.5)),
        ("[1, 2]", tuple[int, ...], (1, 2)), ("[1, [2]]", list, [1, [2]]), ("{a: 1}", dict, {"a": 1}),
        ("{a: 1}", dict[str, float], {"a": 1.0}), ("null", dict[str, int], {}), ("a", str | list[str], "a"),
        ("[a]", str | list[str], ["a"]), ("2", float | Inner, 2.0), ("{size: 1}", float | Inner, Inner(size=1)),
        ("{size: 1, rate: 0.5}", Inner, Inner(size=1, rate=0.5)), ("[{size: 1}]", list[Inner], [Inner(size=1)]),
        ("net", nn.Module, NetworkName("net", MARK)), ("{a: [1]}", Any, {"a": [1]}), ("x", Path, Path("x")),
        ("0", Annotated[int, Range(least=0)], 0), ("null", Annotated[int, Range(least=0)] | None, None),
    ],
)  # fmt: skip
def test_values(text: str, annotation: Any, value: Any) -> None:
    got, problems = convert(text, annotation)
    assert problems == []
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("text", "annotation", "message"),
    [
        ("true", int, "key must be a whole number, got True"),
        ("true", float, "key must be a number, got True"),
        ("1", bool, "key must be true or false, got 1"),
        ("on", bool, "key must be true or false, got 'on' (write true or false)"),
        ("010", int, "key must be a whole number, got '010' (write a number without quotes and without leading zeros)"),
        ("2.5", int, "key must be a whole number, got 2.5"),
        (".nan", float, "key must be a number, got nan (numbers must be finite)"),
        (".inf", float, "key must be a number, got inf (numbers must be finite)"),
        ("1" + "0" * 30, int, "key must be a whole number, got 1" + "0" * 30 + " (too large)"),
        ("1e30", int, "key must be a whole number, got 1e+30"),
        ("null", str, "key must be text, got nothing"),
        ("3", str, "key must be text, got 3"),
        ("''", Path, "key must be a path, got ''"),
        ("true", Literal[1, 2], "key must be one of 1, 2, got True"),
        ("[1]", Literal[1, 2], "key must be one of 1, 2, got a list"),
        ("[1, x]", list[int], "key[1] must be a whole number, got 'x'"),
        ("[1, x]", list[int] | None, "key[1] must be a whole number, got 'x'"),
        ("{a: 1}", list[int], "key must be a list (a whole number each), got a mapping"),
        ("[1]", tuple[int, int], "key must have 2 items, got 1"),
        ("{a: x}", dict[str, int], "key.a must be a whole number, got 'x'"),
        ("x", Inner, "key must be a mapping, got 'x'"),
        ("x", float | Inner, "key must be a number or a mapping, got 'x'"),
        ("{sice: 1}", float | Inner, "unknown key 'sice' in key; did you mean 'size'?"),
        ("{size: 13}", Inner, "key: size must not be 13"),
        ("{size: 1, rate: 2}", Inner, "key.rate must be a number above 0 and at most 1, got 2"),
        ("[a]", nn.Module, "key must be the name of a network, got a list"),
        ("-1", Annotated[int, Range(least=0)], "key must be a whole number at least 0, got -1"),
        ("x" * 200, int, "key must be a whole number, got 'xxx"),
    ],
)
def test_refusals(text: str, annotation: Any, message: str) -> None:
    value, problems = convert(text, annotation)
    assert value is INVALID
    assert problems[0].startswith(message)
    assert len(problems[0]) < 200


def test_all_problems_of_a_mapping_are_reported() -> None:
    assert convert("{rate: x, q: 1}", Inner)[1] == [
        "key.rate must be a number, got 'x'",
        "unknown key 'q' in key (allowed: rate, size)",
        "key.size is missing: a whole number",
    ]


def test_a_dataclass_that_refuses_points_at_the_key() -> None:
    problems: list[tuple[Mark, str]] = []
    Converter(problems, []).convert(parse_yaml("a: 1\nsize: 13", "f", problems), Inner, "key")
    Converter(problems, []).convert(parse_yaml("rate: 1\nsize: 13", "f", problems), Inner, "key")
    assert (Mark("f", 2, 7), "key: size must not be 13") in problems


def test_paths_are_looked_for_beside_the_yaml_then_its_folder_then_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside, above, here = tmp_path / "up" / "yaml", tmp_path / "up", tmp_path / "here"
    for folder in (beside, here):
        folder.mkdir(parents=True)
    monkeypatch.chdir(here)
    folders = [beside, above]
    assert convert("data", Path, folders)[0] == Path("data")
    for folder in (here, above, beside):
        (folder / "data").mkdir()
        assert convert("data", Path, folders)[0] == folder / "data"
    assert Converter([], folders).path("data", Mark("<a=data>", 1, 3)) == here / "data"
    assert convert("data", Annotated[Path, Output()], folders)[0] == Path("data")
    assert convert("~none_such_user/x", Path, folders)[0] == Path("~none_such_user/x")
    assert convert("x" * 5000, Path, folders)[0] == Path("x" * 5000)


class Picky:
    def __init__(self, *, size: int = 0) -> None:
        if size:
            raise {1: ValueError("size is odd\nindeed"), 2: KeyError("gone"), 3: MemoryError()}[size]


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (1, "f:1:1: loss picky: size is odd indeed"),
        (2, "f:1:1: loss picky: KeyError: 'gone' ("),
        (3, "f:1:1: loss picky: MemoryError: ("),
    ],
)
def test_a_constructor_that_raises_is_a_located_error(size: int, message: str) -> None:
    component = Component(kind="loss", type="picky", cls=Picky, options={"size": size}, mark=MARK)
    with pytest.raises(OptionError, match="^" + re.escape(message)):
        component.build()


def test_networks_are_handed_over_by_name() -> None:
    options = {"net": NetworkName("a", MARK), "nets": [NetworkName("a", MARK)]}
    component = Component(kind="loss", type="x", cls=dict, options=options, mark=MARK)
    network = nn.Identity()
    assert component.build({"a": network}) == {"net": network, "nets": [network]}
    with pytest.raises(OptionError, match="network 'a' cannot be given here"):
        component.build()


def test_did_you_mean() -> None:
    assert did_you_mean("bath_size", ["batch_size", "bits"]) == "; did you mean 'batch_size'?"
    assert did_you_mean("zzz", ["b", "a"]) == " (allowed: a, b)"
    assert did_you_mean("zzz", []) == ""


def test_annotations_in_words() -> None:
    assert describe(list[int] | None) == "a list (a whole number each) or null"
    assert describe(Annotated[float, Range(least=0, below=1)]) == "a number at least 0 and below 1"
    assert describe(Literal["a", 2]) == "one of a, 2"
    assert describe(Inner) == "a mapping"


@pytest.mark.parametrize("message", ["level is 3, it must be 2", "level: 3 is too much"])
def test_a_refused_option_is_found_in_its_place(message: str) -> None:
    def refuse(level: int) -> None:
        raise ValueError(message)

    marks = {"level": Mark("x.yml", 7, 12)}
    component = Component(
        kind="dataset", type="tones", cls=refuse, options={"level": 3}, mark=Mark("x.yml", 5, 1), marks=marks
    )
    with pytest.raises(OptionError, match=r"^x\.yml:7:12: dataset tones: level"):
        component.build()
