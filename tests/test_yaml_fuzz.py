"""A sample of yaml_fuzz.py: no key of a shipped experiment can be spoilt so that the errors have no place."""

import random
from pathlib import Path

import pytest

from codes.experiment import load_experiment
from codes.yaml_source import OptionError
from tests.yaml_fuzz import EXPERIMENTS, VALUES, mutations, spots, verdict

TRIED = 16  # of each experiment


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_a_spoilt_key_has_a_place(file: Path, tmp_path: Path) -> None:
    text = file.read_text(encoding="utf-8")
    draw = random.Random(file.stem)
    found = spots(text)
    for _ in range(TRIED):
        title, changed = draw.choice(list(mutations(text, draw.choice(found))))
        assert verdict(tmp_path / file.name, changed) is None, title


def test_the_fuzz_spoils_what_it_says(tmp_path: Path) -> None:
    text = "name: a\ndatasets:\n  train: {mode: x, batch_size: 4}\ntrain:\n  niter: 5\n"
    spot = {dotted: (dotted, *rest) for dotted, *rest in spots(text)}
    below = {"datasets.train", "datasets.train.mode", "datasets.train.batch_size", "train.niter"}
    assert set(spot) == {"name", "datasets", "train", *below}
    changed = dict(mutations(text, spot["datasets.train.mode"]))
    assert "{ batch_size: 4}" in changed["datasets.train.mode dropped"]
    assert "{mode: x, mode: x, batch" in changed["datasets.train.mode doubled"]
    assert "{modex: x, batch" in changed["datasets.train.mode misspelt"]
    assert "{mode: 17, batch" in changed["datasets.train.mode := 17"]
    changed = dict(mutations(text, spot["train.niter"]))
    assert changed["train.niter doubled"].endswith("  niter: 5\n  niter: 5\n")
    assert changed["train.niter dropped"].endswith("train:\n  \n")
    assert dict(mutations(text, spot["datasets"]))["datasets := []"] == "name: a\ndatasets: []\ntrain:\n  niter: 5\n"
    assert len(changed) == 4 + len(VALUES)
    assert verdict(tmp_path / "a.yml", text) is None
    with pytest.raises(OptionError, match=r"a\.yml:3:17: there is no dataset 'x'"):
        load_experiment(tmp_path / "a.yml")
