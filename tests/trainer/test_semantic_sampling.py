"""Codes given semantic tokens, sampled: by another run, by the prompt's own words, in windows; what is refused."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from codes.experiment import load_experiment
from codes.models.gpt import Gpt
from codes.models.heads import Choice, LogisticsHead
from codes.models.speech_features import SpeechFeatures
from codes.trainer.extensible_trainer import ExtensibleTrainer
from codes.trainer.injectors.semantic import write_clusters
from scripts import sample as command
from tests.codecs import own_codec

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SMALL = ["networks.lm.kwargs.layers=1", "networks.lm.kwargs.model_dim=16", "networks.lm.kwargs.heads=2"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("said")
    described = SpeechFeatures(features="mfcc").described
    for name in ("clusters", "others"):
        write_clusters(root / f"{name}.safetensors", torch.randn(100, 39), described)
    own_codec(root / "codec", sample_rate_hz=16_000, ratios=[8, 5, 4, 2], codebook_size=256)
    (root / "audio").mkdir()
    for number in range(2):
        noise = np.random.default_rng(number).normal(0, 3000, 16000).astype(np.int16)
        soundfile.write(root / "audio" / f"{number}.wav", noise, 16000)
    for name, clusters in (("semantic_gpt", "clusters"), ("acoustic_gpt", "clusters"), ("other", "others")):
        stem = "semantic_gpt" if name == "other" else name
        key = "tokens" if stem == "semantic_gpt" else "meaning"
        more = [f"networks.codec.kwargs.path={root / 'codec'}", "steps.lm.injectors.scored.start=40"]
        overrides = [
            f"path.root={root}", f"name={name}", "train.niter=1", "train.val_freq=1", "eval.max_batches=1",
            f"datasets.train.path={root / 'audio'}", "datasets.train.chunk_frames=6400", "datasets.train.n_workers=0",
            "datasets.train.batch_size=2", "datasets.val.batch_size=2", "use_tb_logger=false", *SMALL,
            f"steps.lm.injectors.{key}.clusters={root / clusters}.safetensors",
            *(more if stem == "acoustic_gpt" else []),
        ]  # fmt: skip
        ExtensibleTrainer(load_experiment(EXPERIMENTS / f"{stem}.yml", overrides)).train()
    return root


def test_both_ways_to_say_something(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--run", str(root / "acoustic_gpt"), "--prompt", str(root / "audio" / "0.wav"), "--seconds", "0.7"]
    options += ["--prompt-seconds", "0.1", "--num", "2", "--seed", "1"]
    semantic = ["--semantic-run", str(root / "semantic_gpt")]
    for name, more in (("a", semantic), ("b", semantic), ("own", [])):
        assert command.main([*options, *more, "--out", str(tmp_path / name)]) == 0
    said = capsys.readouterr().out
    assert "what is said: " + str(root / "semantic_gpt") in said
    assert "what is said: the prompt's own words" in said
    a, b, own = (soundfile.read(tmp_path / name / "0.wav", dtype="int16")[0] for name in ("a", "b", "own"))
    assert len(a) == len(own) == 12800  # two windows and a half
    assert np.array_equal(a, b)
    assert not np.array_equal(a, soundfile.read(tmp_path / "a" / "1.wav", dtype="int16")[0])


def test_what_is_refused(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--run", str(root / "acoustic_gpt"), "--prompt", str(root / "audio" / "0.wav"), "--out", str(tmp_path)]
    for more, message in (
        (["--prompt-seconds", "1"], "1.00 s, all of it heard: give --semantic-run"),
        (["--semantic-run", str(root / "other")], "it has other clusters than the run"),
        (["--semantic-run", str(root / "acoustic_gpt")], "has no network that goes on after semantic tokens"),
    ):
        assert command.main([*options, *more]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_codes_of_another_kind_are_never_drawn(temperature: float) -> None:
    torch.manual_seed(0)
    gpt = Gpt(vocabulary=20, num_channels=1, layers=1, model_dim=16, heads=2, max_length=64).eval()
    made = gpt.generate(torch.full((4, 60), -1), temperature=temperature, first_code=18)
    assert made.min() >= 18
    with pytest.raises(ValueError, match="only a softmax head draws one whole code at a time"):
        Choice(first=3).meant_for(LogisticsHead(8, 8, 2))
