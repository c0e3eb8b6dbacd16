"""Keys of the state are followed through every step, in training and in validation."""

from pathlib import Path

import pytest

from codes.experiment import load_experiment
from codes.yaml_source import OptionError

HEAD = """
name: wiring
datasets:
  train: {mode: stereo_chunk, path: demo_corpus, batch_size: 2}
  val: {}
networks:
  a: {which_model: gpt, kwargs: {bits: 8}}
train: {niter: 1}
steps:
"""


def step(name: str, injectors: dict[str, str], reads: str, more: str = "") -> str:
    lines = [f"  {name}:", "    training: a", f"    {more}" if more else "", "    injectors:"]
    lines += [f"      {key}: {{{value}}}" for key, value in injectors.items()]
    lines += ["    losses:", f"      loss: {{type: direct, key: {reads}}}"]
    return "\n".join(line for line in lines if line) + "\n"


def problems(tmp_path: Path, *steps: str) -> list[str]:
    (tmp_path / "x.yml").write_text(HEAD + "".join(steps), encoding="utf-8")
    try:
        load_experiment(tmp_path / "x.yml")
    except OptionError as error:
        return [message for _, message in error.problems]
    return []


COPY = "type: direct, in: wav, out: x"


def test_a_sound_wiring(tmp_path: Path) -> None:
    assert problems(tmp_path, step("one", {"copy": COPY}, "x")) == []


def test_outputs_that_nobody_reads_are_warnings(tmp_path: Path) -> None:
    (tmp_path / "x.yml").write_text(HEAD + step("one", {"copy": COPY, "b": COPY.replace("x", "y")}, "x"))
    warnings = load_experiment(tmp_path / "x.yml").warnings
    assert [warning.replace(str(tmp_path), "") for warning in warnings] == ["/x.yml:14:10: nobody reads 'y'"]


@pytest.mark.parametrize(
    ("injectors", "reads", "messages"),
    [
        ({"a": "type: direct, in: wavv, out: x"}, "x",
         ["a reads 'wavv', which nothing wrote before it; did you mean 'wav'?"]),
        ({"a": "type: direct, in: y, out: x", "b": "type: direct, in: wav, out: y"}, "x",
         ["a reads 'y', which nothing wrote before it (allowed: bit_depth, path, sample_rate, start_frame, wav)"]),
        ({"a": COPY, "b": COPY}, "x", ["b writes 'x', which line 13 has written already: choose another name"]),
        ({"a": "type: direct, in: wav, out: wav"}, "wav",
         ["a writes 'wav', which the dataset provides already: choose another name"]),
        ({"a": COPY}, "xx", ["loss reads 'xx', which nothing wrote before it; did you mean 'x'?"]),
        ({"a": "type: direct, in: wav, out: item_seed"}, "item_seed",
         ["a writes 'item_seed', which the loader adds to every batch: choose another name"]),
        ({"a": "type: direct, in: item_seed, out: x"}, "x", []),
        ({"a": COPY + ", train: true", "b": COPY + ", eval: true"}, "x", []),
        ({"a": COPY + ", train: true"}, "x", ["loss reads 'x', which nothing wrote before it in validation"]),
        ({"a": COPY + ", eval: true"}, "x", ["loss reads 'x', which nothing wrote before it in training"]),
    ],
)  # fmt: skip
def test_within_a_step(tmp_path: Path, injectors: dict[str, str], reads: str, messages: list[str]) -> None:
    found = problems(tmp_path, step("one", injectors, reads))
    assert len(found) == len(messages)
    assert all(text.startswith(message) for text, message in zip(found, messages, strict=True))


@pytest.mark.parametrize(
    ("more", "reads", "messages"),
    [
        ("", "x", []),
        ("step_outputs: [x]", "x", []),
        ("step_outputs: [y]", "x", ["two reads 'x', which nothing wrote before it (allowed: bit_depth,"]),
        ("step_outputs: [z]", "y", ["step_outputs of one: 'z' is not written (allowed: x, y)", "two reads 'y'"]),
    ],
)
def test_across_steps(tmp_path: Path, more: str, reads: str, messages: list[str]) -> None:
    one = step("one", {"copy": COPY, "b": "type: direct, in: wav, out: y"}, "y", more)
    found = problems(tmp_path, one, step("two", {"two": f"type: direct, in: {reads}, out: q"}, "q"))
    assert len(found) == len(messages)
    assert all(text.startswith(message) for text, message in zip(found, messages, strict=True)), found


def test_later_steps_must_not_write_again_what_they_see(tmp_path: Path) -> None:
    found = problems(tmp_path, step("one", {"a": COPY}, "x"), step("two", {"b": COPY}, "x"))
    assert found == ["b writes 'x', which line 13 has written already: choose another name"]
    hidden = step("one", {"a": COPY}, "x", "step_outputs: []")
    assert problems(tmp_path, hidden, step("two", {"b": COPY}, "x")) == []


def test_what_cannot_be_read_proves_nothing(tmp_path: Path) -> None:
    found = problems(tmp_path, step("one", {"a": "type: direct, in: wav, ut: x", "b": COPY, "c": COPY}, "q"))
    assert [text.split(":")[0] for text in found] == [
        "injector one.a.out is missing", "unknown key 'ut' in injector direct; did you mean 'out'?",
        "c writes 'x', which line 14 has written already",
    ]  # fmt: skip


RESERVING = """
from codes.data.dataset import Dataset


class TakesItemSeedDataset(Dataset):
    '''Claims a key of the loader.'''

    provides = {"wav": "(B, 2, T)", "item_seed": "(B,)"}
"""


def test_a_dataset_must_not_provide_the_items_seeds(tmp_path: Path) -> None:
    """Said once, though validation takes its dataset from training."""
    (tmp_path / "taken.py").write_text(RESERVING, encoding="utf-8")
    head = HEAD.replace("stereo_chunk, path: demo_corpus", "takes_item_seed")
    text = f"plugins: [{tmp_path / 'taken.py'}]{head}{step('one', {'copy': COPY}, 'x')}"
    (tmp_path / "x.yml").write_text(text, encoding="utf-8")
    with pytest.raises(OptionError) as caught:
        load_experiment(tmp_path / "x.yml")
    ((mark, message),) = caught.value.problems
    why = "provides 'item_seed', which the loader adds to every batch: choose another name"
    assert message == f"dataset takes_item_seed {why}"
    assert mark.line == 4
