"""What `--list` says."""

import pytest

from codes import registry
from codes.convert import KINDS
from codes.describe import SECTIONS, WIDTH, listing
from codes.yaml_source import OptionError


def test_everything_is_listed() -> None:
    text = listing("")
    for kind, plural in KINDS.items():
        assert f"{plural}:\n" in text
        assert all(f"  {name} " in text for name in registry.classes(kind))
    assert "every injector also takes: after, before, every, type, in, out" in text


def test_one_kind() -> None:
    text = listing("datasets")
    assert text.startswith("datasets:\n  ")
    assert "\n  stereo_chunk " in text
    assert "\n  gpt " not in text


@pytest.mark.parametrize("kind", KINDS)
def test_every_class_is_described(kind: str) -> None:
    for name, cls in registry.classes(kind).items():
        text = listing(name)
        assert f"{kind} {name}   (" in text
        for option in registry.options_of(cls).values():
            assert f"    {option.name} " in text
        assert "inspect._empty" not in text
        assert "typing." not in text
        assert "<class" not in text


def test_a_class_in_full() -> None:
    lines = listing("pcm_quantize").splitlines()
    assert lines[0].startswith("injector pcm_quantize   (codes/trainer/injectors/pcm.py:")
    assert "  forward(wav)" in lines
    assert "  inverse: yes" in lines
    assert "    bits                   a whole number; default 16" in lines
    assert all(len(line) <= WIDTH + 8 for line in listing("experiment").splitlines())
    assert "  forward(nats, mask=None, direction=None, target=None)" in listing("code_length").splitlines()
    assert "    wav  " in listing("stereo_chunk").split("provides:")[1]


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_is_described(section: str) -> None:
    text = listing(section)
    for option in registry.options_of(SECTIONS[section]).values():
        assert f"    {option.name.rstrip('_')} " in text
        assert option.doc, f"{section}: {option.name} has no line under Args"


def test_ranges_defaults_and_nested_options() -> None:
    text = listing("step")
    assert "    clip_grad_eps          a number above 0 or null; default null\n" in text
    assert "        lr                     a number above 0; default 0.0001\n" in text
    assert "            match                  a list (text each) or null; default null\n" in text


@pytest.mark.parametrize(
    ("name", "hint"),
    [("gtp", "did you mean 'gpt'?"), ("injector_s", "did you mean 'injectors'?"), ("pcm_quantise", "'pcm_quantize'")],
)
def test_a_misspelt_name(name: str, hint: str) -> None:
    with pytest.raises(OptionError, match=f"^<--list {name}>:1:1: there is nothing named '{name}'") as caught:
        listing(name)
    assert hint in str(caught.value)
