"""An experiment written out in full loads again as the same experiment."""

from pathlib import Path

import pytest
import yaml

from codes.experiment import load_experiment
from codes.resolve import resolved

EXPERIMENTS = sorted((Path(__file__).parents[1] / "experiments").glob("*.yml"))


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_loads_again_as_the_same(file: Path, tmp_path: Path) -> None:
    first = load_experiment(file, ["train.niter=7"])
    written = tmp_path / "options.yml"
    written.write_text(yaml.safe_dump(resolved(first), sort_keys=False))
    again = load_experiment(written)
    assert again.options.train == first.options.train
    assert resolved(again) == resolved(first)
    assert again.options.train.niter == 7
    assert resolved(first)["train"]["ema_rate"] == 0.999  # a default is written out


def test_inner_injectors_and_pretrained_weights(tmp_path: Path) -> None:
    file = tmp_path / "x.yml"
    text = (Path(__file__).parents[1] / "experiments" / "tiny_cpu.yml").read_text()
    (tmp_path / "lm.safetensors").write_bytes(b"")
    text += "path: {pretrain_model_lm: lm.safetensors, strict_load: false}\n"
    text = text.replace(
        "      interleave:",
        "      noisy: {type: for_each, subtype: normalize, scale: 2.0, in: wav, out: louder}\n      interleave:",
    )
    file.write_text(text)
    full = resolved(load_experiment(file))
    noisy = full["steps"]["lm"]["injectors"]["noisy"]
    assert noisy["subtype"] == "normalize"
    assert noisy["scale"] == 2.0
    assert noisy["shift"] == 0.0
    written = tmp_path / "options.yml"
    written.write_text(yaml.safe_dump(full, sort_keys=False))
    assert resolved(load_experiment(written)) == full
