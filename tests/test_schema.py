"""The JSON Schema is valid, takes what the loader takes, and refuses misspelt keys and wrong types."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from codes.convert import Converter
from codes.registry import load_plugin
from codes.schema import experiment_schema, write_schema
from codes.yaml_source import parse_yaml

EXPERIMENTS = sorted((Path(__file__).resolve().parents[1] / "experiments").glob("*.yml"))
TINY = next(file for file in EXPERIMENTS if file.name == "tiny_cpu.yml").read_text(encoding="utf-8")


def tree(text: str) -> Any:
    return Converter([], []).plain(parse_yaml(text, "f", []))


@pytest.fixture(scope="module")
def validator() -> Any:
    return jsonschema.Draft202012Validator(experiment_schema())


def test_it_is_a_valid_schema_and_plain_json(tmp_path: Path) -> None:
    write_schema(tmp_path / "new" / "schema.json")
    written = json.loads((tmp_path / "new" / "schema.json").read_text(encoding="utf-8"))
    assert written == experiment_schema()
    jsonschema.Draft202012Validator.check_schema(written)


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_shipped_experiments_fit_and_name_it(validator: Any, file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert [error.message for error in validator.iter_errors(tree(text))] == []
    assert text.startswith("# yaml-language-server: $schema=experiment.schema.json\n")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: tiny_cpu", "name: 3"),
        ("name: tiny_cpu", "nmae: tiny_cpu"),
        ("gpu_ids: []", "gpu_ids: [x]"),
        ("mode: stereo_chunk", "mode: stereo_chunks"),
        ("batch_size: 4", "batch_size: 0"),
        ("batch_size: 16", "bath_size: 16"),
        ("chunk_frames: 256", "chunk_frames: 2.5"),
        ("which_model: gpt", "which_model: gtp"),
        ("which_model: gpt", "which: gpt"),
        ("head: logistics", "head: logistic"),
        ("layers: 1", "layer: 1"),
        ("{lr: 1e-2}", "{lr: 0}"),
        ("type: pcm_quantize, bits: 16", "type: pcm_quantize, bit: 16"),
        ("type: pcm_quantize", "type: pcm_quantise"),
        ("type: interleave_channels, in: codes", "type: interleave_channels"),
        ("generator: lm, ", ""),
        ("nats: nats", "nat: nats"),
        ("niter: 20", "niter: many"),
        ("val_freq: 10", "val_freq: -1"),
        ("num: 1", "number: 1"),
    ],
)
def test_mistakes_do_not_fit(validator: Any, old: str, new: str) -> None:
    assert TINY.count(old) == 1
    assert not validator.is_valid(tree(TINY.replace(old, new)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("which_model: gpt", "which_model_G: gpt"),
        ("eval:\n  max_batches: 2", "eval:"),
        ("  val:\n    batch_size: 16", "  val:"),
        ("nats: nats", "in: nats"),
        ("nats: nats", "in: [nats], weight: {from: 0, to: 1, start_step: 1, end_step: 5}"),
        ("name: tiny_cpu", "name: tiny_cpu\npath: {pretrain_model_lm: x.safetensors}"),
        ("type: interleave_channels", "type: for_each, subtype: mu_law, bits: 8"),
        ("training: lm", "training: [lm]"),
        ("niter: 20", "niter: 20.0"),
    ],
)
def test_variants_fit(validator: Any, old: str, new: str) -> None:
    assert TINY.count(old) == 1
    assert [error.message for error in validator.iter_errors(tree(TINY.replace(old, new)))] == []


def test_plugins_are_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "schema_plugin.py"
    path.write_text(
        "from codes.trainer.injector import Injector\n"
        "class SchemaProbeInjector(Injector):\n"
        '    """Doc.\n\n    Args:\n        gain: factor\n    """\n'
        "    def __init__(self, *, gain: float | None = None, pair: tuple[int, float] = (1, 2.0)) -> None: pass\n"
        "    def forward(self, wav): return wav\n"
    )
    load_plugin(path)
    validator = jsonschema.Draft202012Validator(experiment_schema())
    probe = TINY.replace("type: interleave_channels", "type: schema_probe, gain: 2, pair: [1, 2.5]")
    assert validator.is_valid(tree(probe))
    assert not validator.is_valid(tree(probe.replace("gain: 2", "gian: 2")))
    assert not validator.is_valid(tree(probe.replace("gain: 2", "gain: loud")))
    assert not validator.is_valid(tree(probe.replace("[1, 2.5]", "[1]")))
