"""Strict scalars, places, duplicates, tags, aliases and overrides."""

import re
from pathlib import Path
from typing import Any

import pytest

from codes.yaml_source import Mark, Node, OptionError, parse_yaml, read_yaml

Problems = list[tuple[Mark, str]]


def plain(node: Node) -> Any:
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    return [plain(child) for child in node.value] if isinstance(node.value, list) else node.value


def parse(text: str) -> tuple[Any, str]:
    """The plain values and the problems, one a line."""
    problems: Problems = []
    node = parse_yaml(text, "f", problems)
    return plain(node), str(OptionError(problems))


def read(tmp_path: Path, text: str | bytes, *overrides: str) -> tuple[Any, str]:
    path = tmp_path / "x.yml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    problems: Problems = []
    node = read_yaml(path, list(overrides), problems)
    return plain(node), str(OptionError(problems)).replace(str(path), "x.yml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4), ("1E5", 1e5), ("1.", 1.0), (".5", 0.5), ("-.5", -0.5), ("1_000", 1000), ("0x1F", 31),
        ("+5", 5), ("-0", 0), (".inf", float("inf")), ("-.INF", float("-inf")), ("!!float 1e-5", 1e-5),
        ("!!float 3", 3.0), ("!!str 5", "5"), ("010", "010"), ("on", "on"), ("yes", "yes"), ("NO", "NO"),
        ("12:30:00", "12:30:00"), ("2020-01-01", "2020-01-01"), ("true", True), ("False", False), ("~", None),
        ("", None), ("null", None), ("[1, a]", [1, "a"]), ("{a: b}", {"a": "b"}), ("5e", "5e"), ("=", "="),
    ],
)  # fmt: skip
def test_scalars_follow_yaml_1_2(text: str, value: Any) -> None:
    got, problems = parse(f"key: {text}")
    assert got == {"key": value}
    assert type(got["key"]) is type(value)
    assert problems == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", "f:2:1: duplicate key 'a' (first on line 1)"),
        ("a: {b: CHANGEME}", "f:1:8: CHANGEME is left in 'CHANGEME': put your own value here"),
        ("a: !!python/name:os.system ''", "f:1:4: tag !!python/name:os.system is not allowed (allowed: !!null,"),
        ("a: !!python/object/apply:os.system [ls]", "f:1:4: tag !!python/object/apply:os.system is not allowed"),
        ("a: !!set {b}", "f:1:4: tag !!set is not allowed"),
        ("a: !mine {b: 1}", "f:1:4: tag !mine is not allowed"),
        ("a: !!int 010", "f:1:4: '010' is not a valid !!int"),
        ("a: !!bool yes", "f:1:4: 'yes' is not a valid !!bool"),
        ("? [a]\n: 1", "f:1:3: a key must be a word"),
        ("a: {<<: 3}", "f:1:9: '<<' merges mappings, got 3"),
    ],
)
def test_problems_are_collected(text: str, message: str) -> None:
    assert parse(text)[1].startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [*x]", "f:1:4: this alias contains itself"),
        ("a: *x", "f:1:4: not valid YAML: found undefined alias 'x'"),
        ("\ta: 1", "f:1:1: not valid YAML: found character '\\t' that cannot start any token"),
        ("a: b: c", "f:1:5: not valid YAML: mapping values are not allowed here"),
        ("a: 1\n---\nb: 2", "f:2:1: not valid YAML: but found another document"),
        ("a: 1\nb: \x01", "f:2:4: not valid YAML: character 0x01"),
        ("[" * 5000, "f:1:1: not valid YAML: nested too deeply"),
        ("a: " + "[" * 60 + "]" * 60, "nested too deeply"),
        (
            "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
            + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)),
            "aliases expand to more than 200000 values",
        ),
    ],
)
def test_text_that_is_no_yaml(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=re.escape(message)):
        parse_yaml(text, "f", [])


def test_merges_keep_the_order_of_reading_and_own_keys_win() -> None:
    value, problems = parse("a: &a {x: 1, y: 2, z: 3}\nb: {<<: *a, w: 4, y: 5}\nc: {z: 0, <<: [*a, {q: 9, x: 7}]}")
    assert problems == ""
    assert list(value["b"].items()) == [("x", 1), ("y", 5), ("z", 3), ("w", 4)]
    assert list(value["c"].items()) == [("z", 0), ("x", 1), ("y", 2), ("q", 9)]


@pytest.mark.parametrize("text", ["", "# nothing", "null", "\ufeff"])
def test_an_empty_file_is_an_empty_mapping(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == ({}, "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "x.yml:1:1: an experiment is a mapping of keys to values, got a list"),
        ("text", "x.yml:1:1: an experiment is a mapping of keys to values, got 'text'"),
        (b"a: 1\nb: caf\xe9", "x.yml:2:7: not UTF-8 text: byte 0xe9"),
    ],
)
def test_files_that_are_no_experiment(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(OptionError, match=re.escape(message)):
        read(tmp_path, text)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"none\.yml:1:1: the experiment file does not exist"):
        read_yaml(tmp_path / "none.yml", [], [])
    with pytest.raises(OptionError, match=r":1:1: the experiment file cannot be read: "):
        read_yaml(tmp_path, [], [])


def test_overrides(tmp_path: Path) -> None:
    text = "a: {b: [1, {c: 2}]}\ns: x\nn:"
    overrides = ["a.b.1.c=5", "a.b.0=[1, 2]", "n.x.y=1", "new={a: b}", "s=first", "s=1e-4", "a.e="]
    value, problems = read(tmp_path, text, *overrides)
    assert problems == ""
    assert value == {
        "a": {"b": [[1, 2], {"c": 5}], "e": None}, "s": 1e-4, "n": {"x": {"y": 1}}, "new": {"a": "b"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("x", "<x>:1:1: an override is key.sub=value, for example train.niter=1000"),
        ("=5", "<=5>:1:1: an override is key.sub=value"),
        ("a..b=5", "<a..b=5>:1:1: an override is key.sub=value"),
        ("s.x=1", "<s.x=1>:1:1: cannot set 'x' in 'x' at x.yml:2:4"),
        ("s.x.y=1", "<s.x.y=1>:1:1: s.x.y: 'x' would be inside 'x' at x.yml:2:4"),
        ("a.b.7=1", "<a.b.7=1>:1:1: cannot set '7' in a list at x.yml:1:8"),
        ("a.b.7.c=1", "<a.b.7.c=1>:1:1: a.b.7.c: the list at x.yml:1:8 has no item 7"),
        ("s=[1", "<s=[1>:1:5: not valid YAML: expected ',' or ']'"),
        ("s={a: !!set {b}}", "<s={a: !!set {b}}>:1:7: tag !!set is not allowed"),
        ("s=CHANGEME", "<s=CHANGEME>:1:3: CHANGEME is left"),
    ],
)
def test_wrong_overrides_say_where(tmp_path: Path, override: str, message: str) -> None:
    assert read(tmp_path, "a: {b: [1]}\ns: x", override)[1].startswith(message)


def test_errors_are_sorted_by_place_once_each_and_one_a_line() -> None:
    marks = [Mark("f", 2, 1), Mark("f", 1, 5), Mark("f", 1, 5)]
    error = OptionError([(marks[0], "b\nb"), (marks[1], "z"), (marks[2], "a"), (marks[1], "z")])
    assert str(error) == "f:1:5: z\nf:1:5: a\nf:2:1: b b"
