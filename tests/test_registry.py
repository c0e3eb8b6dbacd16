"""Classes by name, plug-ins and the schema that a constructor spells out."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import pytest

from codes import registry
from codes.registry import Range
from codes.trainer.injector import Injector


@pytest.fixture(autouse=True)
def _leave_no_classes() -> Iterator[None]:
    """What a test registers is gone after it."""
    registry.discover()
    before = {kind: dict(classes) for kind, classes in registry._CLASSES.items()}
    yield
    registry._CLASSES.clear()
    registry._CLASSES.update(before)
    for name in [name for name in sys.modules if name.startswith(registry._PLUGIN)]:
        del sys.modules[name]


def plugin(folder: Path, body: str, name: str = "mine.py") -> Path:
    path = folder / name
    path.write_text(f"from codes.trainer.injector import Injector\n{body}", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "suffix", "snake"),
    [
        ("MidSideInjector", "injector", "mid_side"), ("TorchMelInjector", "injector", "torch_mel"),
        ("Gpt", "network", "gpt"), ("FFTLoss", "loss", "fft"), ("Loss2DLoss", "loss", "loss2_d"),
    ],
)  # fmt: skip
def test_snake_case(name: str, suffix: str, snake: str) -> None:
    assert registry.snake_case(name, suffix) == snake


def test_the_builtin_classes_are_all_found() -> None:
    assert registry.broken() == {}
    assert {"pcm_quantize", "mu_law", "for_each", "generator"} <= registry.classes("injector").keys()
    assert "stereo_chunk" in registry.classes("dataset")
    assert "gpt" in registry.classes("network")
    assert registry.find("injector", "none") is None


def test_a_plugin_registers_its_classes_once(tmp_path: Path) -> None:
    path = plugin(tmp_path, "class LoadedTwiceInjector(Injector):\n    def forward(self, wav): return wav\n")
    registry.load_plugin(path)
    first = registry.find("injector", "loaded_twice")
    registry.load_plugin(path)
    assert first is not None
    assert registry.find("injector", "loaded_twice") is first
    assert registry.plugin_files() == [path.resolve()]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def x(:\n", r"mine\.py cannot be loaded: .*mine\.py:2: invalid syntax"),
        ("import no_such_module\n", r"cannot be loaded: ModuleNotFoundError: .*\(.*mine\.py:2\)"),
        ("raise KeyError('x')\n", r"cannot be loaded: KeyError: 'x' \(.*mine\.py:2\)"),
        ("import sys\nsys.exit(3)\n", r"cannot be loaded: SystemExit: 3 \(.*mine\.py:3\)"),
        ("import os\nos.stat('/no such file')\n", r"FileNotFoundError: .*\(.*mine\.py:3\)"),
        ("class MuLawInjector(Injector): pass\n",
         r"injector 'mu_law' of .*mine\.py is already defined in .*pcm\.py: rename the class MuLawInjector \(.*:2\)"),
        ("class AInjector(Injector): pass\nclass A(Injector): pass\n", r"'a' of .* is already defined in .*mine\.py"),
        ("class AInjector(Injector):\n    def __init__(self, *, a: 'Nope'): pass\n",
         r"the annotations of AInjector\.__init__ cannot be read: name 'Nope' is not defined"),
    ],
)  # fmt: skip
def test_a_broken_plugin_names_itself_and_leaves_nothing(tmp_path: Path, body: str, message: str) -> None:
    before = registry.classes("injector")
    path = plugin(tmp_path, body)
    with pytest.raises(ImportError, match=message):
        registry.load_plugin(path)
    assert registry.classes("injector") == before
    assert registry.plugin_files() == []


def test_classes_before_the_error_are_forgotten(tmp_path: Path) -> None:
    path = plugin(tmp_path, "class EarlyInjector(Injector): pass\nraise ValueError('late')\n")
    with pytest.raises(ImportError, match="late"):
        registry.load_plugin(path)
    assert registry.find("injector", "early") is None


def test_files_that_are_no_plugin(tmp_path: Path) -> None:
    with pytest.raises(ImportError, match=r"none\.py does not exist"):
        registry.load_plugin(tmp_path / "none.py")
    with pytest.raises(ImportError, match="is not a file"):
        registry.load_plugin(tmp_path)
    with pytest.raises(ImportError, match=r"is not a Python file \(its name must end in \.py\)"):
        registry.load_plugin(plugin(tmp_path, "", "mine.txt"))
    (tmp_path / "bytes.py").write_bytes(b"\xff\xfe")
    with pytest.raises(ImportError, match="cannot be loaded"):
        registry.load_plugin(tmp_path / "bytes.py")


def test_two_plugins_of_one_name_live_side_by_side(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        registry.load_plugin(plugin(tmp_path / folder, f"class In{folder}Injector(Injector): pass\n"))
    assert registry.find("injector", "ina")
    assert registry.find("injector", "inb")


class Example(Injector, abstract=True):
    """What it does. x: (B,) -> (B,).

    More of it.

    Args:
        size: how large,
            in samples.
        mode (str): one of two
    """

    def __init__(
        self, *, size: int, mode: Literal["a", "b"] = "a", rate: Annotated[float, Range(above=0)] = 1.0
    ) -> None:
        self.size, self.mode, self.rate = size, mode, rate


def test_a_constructor_is_its_schema() -> None:
    options = registry.options_of(Example)
    assert list(options) == ["size", "mode", "rate"]
    assert options["size"].required
    assert options["size"].doc == "how large, in samples."
    assert options["mode"].annotation == Literal["a", "b"]
    assert options["mode"].default == "a"
    assert options["mode"].doc == "one of two"
    assert options["rate"].annotation == Annotated[float, Range(above=0)]
    assert registry.summary(Example) == "What it does. x: (B,) -> (B,).\n\nMore of it."
    assert registry.find("injector", "example") is None


@pytest.mark.parametrize(
    ("rule", "inside", "outside", "text"),
    [
        (Range(least=1), [1, 2.5], [0, -1, float("nan")], "at least 1"),
        (Range(above=0, most=1), [0.5, 1], [0, 1.1], "above 0 and at most 1"),
        (Range(least=0, below=1), [0, 0.99], [1], "at least 0 and below 1"),
        (Range(), [0], [], ""),
    ],
)
def test_ranges(rule: Range, inside: list[float], outside: list[float], text: str) -> None:
    assert all(rule.holds(value) for value in inside)
    assert not any(rule.holds(value) for value in outside)
    assert str(rule) == text


def test_every_option_of_every_class_is_documented_and_understood() -> None:
    from codes.convert import KINDS, describe

    for kind in KINDS:
        built_in = {name: cls for name, cls in registry.classes(kind).items() if cls.__module__.startswith("codes.")}
        for name, cls in built_in.items():
            assert registry.summary(cls), f"{kind} {name} has no docstring"
            for option in registry.options_of(cls).values():
                assert option.doc, f"{kind} {name}: {option.name} has no line under Args"
                assert re.search("[a-z]", describe(option.annotation)), f"{kind} {name}: {option.name}"


def test_a_constructor_with_rest_options_has_those_of_its_base(tmp_path: Path) -> None:
    body = """
class BaseInjector(Injector, abstract=True):
    '''Base.

    Args:
        level: how loud
        shared: of the base
    '''
    def __init__(self, *, level: int = 3, shared: bool = True) -> None: ...

class OwnInjector(BaseInjector):
    '''Own.

    Args:
        level: how quiet
        extra: a word
    '''
    def __init__(self, *, extra: str, level: int = 5, **options) -> None:
        super().__init__(level=level, **options)

class PlainInjector(OwnInjector):
    '''Takes what its base takes.'''
"""
    registry.load_plugin(plugin(tmp_path, body))
    for name in ("own", "plain"):
        cls = registry.find("injector", name)
        assert cls is not None
        options = registry.options_of(cls)
        assert {key: (option.default, option.doc) for key, option in options.items()} == {
            "level": (5, "how quiet"),
            "shared": (True, "of the base"),
            "extra": (registry.MISSING, "a word"),
        }
