"""Codes made beforehand: what the injectors make is what gpt_tts reads."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from codes.data.audio.gpt_tts import GptTtsDataset
from codes.data.audio.reader import read
from codes.experiment import load_experiment
from codes.trainer.build import build
from scripts import prepare_codes as command
from tests.data.audio import speech_corpora as corpora
from tests.speech_networks import write_networks

PARTS = '''
import torch
from codes.models.network import Network
from codes.trainer.injector import Injector


class CoarseForCodesInjector(Injector):
    """Every 1000th sample in 8 steps. wav: (B, 1, T) -> (B, T / 1000)."""

    def forward(self, wav):
        return ((wav[:, 0, ::1000] + 1) * 4).long()


class ScaleForCodesNetwork(Network):
    """A factor. x: (...) -> (...)."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x * self.factor
'''


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests: a plug-in of the same names from another place would be refused."""
    tmp_path = tmp_path_factory.mktemp("experiment")
    corpora.lj(tmp_path / "lj")
    (tmp_path / "parts.py").write_text(PARTS)
    data = {"mode": "paired_voice_audio", "path": "lj", "sample_rate": 8000, "max_wav_length": 9000, "batch_size": 3}
    values: dict[str, Any] = {
        "name": "coded",
        "gpu_ids": [],
        "plugins": ["parts.py"],
        "datasets": {"train": data | {"val_fraction": 0.3}, "val": {"batch_size": 2}},
        "networks": {"net": {"which_model": "scale_for_codes"}},
        "steps": {
            "one": {
                "training": "net",
                "injectors": {
                    "coarse": {"type": "coarse_for_codes", "in": "wav", "out": "codes"},
                    "run": {"type": "generator", "generator": "net", "in": "wav", "out": "made"},
                },
                "losses": {"error": {"type": "pix", "criterion": "l1", "real": "wav", "fake": "made"}},
            }
        },
        "train": {"niter": 1},
    }
    (tmp_path / "x.yml").write_text(yaml.safe_dump(values, sort_keys=False))
    return tmp_path / "x.yml"


def test_codes_are_written_for_both_phases_and_read(
    experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "codes"
    assert command.main([str(experiment), "--key", "codes", "--out", str(out)]) == 0
    assert f"look at it with: python -m codes.data.audio.gpt_tts --fetcher-mode jsonl --path {out}" in (
        capsys.readouterr().out
    )
    seen = {}
    for phase in ("train", "val"):
        data = GptTtsDataset(path=out, fetcher_mode="jsonl", phase=phase, mel_vocab_size=8, special_tokens=False)
        for index in range(len(data)):
            item = data.item(index, np.random.default_rng(0))
            pcm = read(item["filenames"])[0, ::1000] / 32768
            codes = item["padded_qmel"][: item["output_lengths"]]
            np.testing.assert_array_equal(codes, ((pcm + 1) * 4).astype(int))
            seen[item["filenames"]] = item["real_text"]
    assert sorted(seen.values()) == sorted(corpora.TEXTS)


def test_there_are_as_many_codes_as_the_networks_make(experiment: Path, tmp_path: Path) -> None:
    """A mel has a frame more than hops: the GPT counts wav_lengths // 1024 + 1 codes, and so many there must be."""
    networks = write_networks(tmp_path)
    values = yaml.safe_load(experiment.read_text())
    values["steps"]["one"]["injectors"] |= {
        "mel": {"type": "torch_mel_spectrogram", "in": "wav", "out": "mel"},
        "tokens": {"type": "discrete_token", "dvae_config": str(networks), "in": "mel", "out": "tokens"},
    }
    file = experiment.with_name("tokens.yml")
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    assert command.main([str(file), "--key", "tokens", "--out", str(tmp_path / "codes")]) == 0
    lines = [
        json.loads(line) for path in (tmp_path / "codes").glob("*.jsonl") for line in path.read_text().splitlines()
    ]
    assert len(lines) == len(corpora.TEXTS)
    for line in lines:
        assert len(line["codes"]) == read(line["audio"]).shape[1] // 1024 + 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--key", "kodes"], "--key kodes: no injector writes it; they write "),
        (["--key", "made"], "--key made holds (1, 1, 8000), needs whole numbers (items, codes)"),
        (["--key", "codes", "--text-key", "words"], "the items have no 'words': they have real_text"),
        (["--key", "codes", "datasets.train.path=none"], "path: none does not exist"),
    ],
)
def test_bad_input(
    experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
):
    assert command.main([str(experiment), "--out", str(tmp_path / "codes"), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_validation_on_the_training_data_is_said(experiment: Path):
    """Without val_fraction each phase takes all that its path lists, as in DL-Art-School: easily done by mistake."""
    divided = build(load_experiment(experiment, [])).notes
    same = build(load_experiment(experiment, ["datasets.train.val_fraction=null"])).notes
    assert not [note for note in divided if "very recordings" in note]
    assert [note for note in same if "datasets.val reads the very recordings of datasets.train" in note]
