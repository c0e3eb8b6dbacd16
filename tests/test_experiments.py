"""Every shipped experiment loads, checks, trains a few steps, validates, samples and continues."""

import json
from pathlib import Path

import pytest
import torch

from codes.experiment import load_experiment
from codes.models.speech_features import SpeechFeatures
from codes.trainer.check import check
from codes.trainer.extensible_trainer import ExtensibleTrainer
from codes.trainer.injectors.semantic import write_clusters
from tests.codecs import coded_audio, own_codec

FOLDER = Path(__file__).parents[1] / "experiments"
# speech_gpt is trained on a corpus of speech and a trained DVAE: tests/test_speech.py
EXPERIMENTS = sorted(file for file in FOLDER.glob("*.yml") if file.stem != "speech_gpt")
SAMPLED = [file for file in EXPERIMENTS if "\nsamples:" in file.read_text()]
TASKS = (
    *("channel_prediction", "mono_lm", "past_future", "prev_next", "multichannel_to_stereo", "denoising"),
    *("bandwidth_restoration", "bit_depth_restoration", "augmented_lm"),
)
CODED = ("codes_gpt", "encodec_gpt")  # over codes that were made before
WITHOUT_BITS = ("lofi_gan", "lofi_conv_lstm", "codec", "dvae")  # what they minimise is no code length


def short(file: Path, root: Path, steps: int) -> list[str]:
    """Overrides that cut an experiment down to a few small steps."""
    samples = ["samples.prompt_frames=16", "samples.new_frames=4", "samples.num=1"] if file in SAMPLED else []
    if file.stem in CODED:
        samples = coded_audio(file.stem, root)
    if file.stem in ("semantic_gpt", "acoustic_gpt"):
        write_clusters(root / "clusters.safetensors", torch.randn(100, 39), SpeechFeatures(features="mfcc").described)
        name = "tokens" if file.stem == "semantic_gpt" else "meaning"
        samples.append(f"steps.lm.injectors.{name}.clusters={root / 'clusters.safetensors'}")
    if file.stem == "acoustic_gpt":
        codec = own_codec(root / "codec", sample_rate_hz=16_000, ratios=[8, 5, 4, 2], codebook_size=256)
        samples.append(f"networks.codec.kwargs.path={codec}")
    return [
        f"path.root={root}", f"train.niter={steps}", "train.val_freq=2", "logger.print_freq=1", "eval.max_batches=1",
        "datasets.train.batch_size=2", "datasets.val.batch_size=2", "datasets.train.n_workers=0", *samples,
    ]  # fmt: skip


def test_there_are_experiments() -> None:
    assert {file.stem for file in EXPERIMENTS} >= {"stereo_lm", "tiny_cpu", *TASKS}
    assert {file.stem for file in SAMPLED} >= {"stereo_lm", "mono_lm"}


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_check_shows_every_key(file: Path, tmp_path: Path) -> None:
    text = check(load_experiment(file, short(file, tmp_path, 3)))
    assert "everything checks" in text
    assert ("codes" if file.stem in CODED else "wav") in text
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_trains_validates_samples_and_continues(file: Path, tmp_path: Path) -> None:
    first = ExtensibleTrainer(load_experiment(file, short(file, tmp_path, 2)))
    assert first.train()
    assert ExtensibleTrainer(load_experiment(file, short(file, tmp_path, 4))).train()
    run = tmp_path / first.options.name
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["split"] == "train"] == [1, 2, 3, 4]
    assert [line["step"] for line in lines if line["split"] == "val"] == [2, 4]
    assert all(0 < line["bits_per_sample"] < 32 for line in lines if file.stem not in WITHOUT_BITS)
    for step in (2, 4) if file in SAMPLED else ():
        folder = run / "samples" / f"step_{step:08d}"
        assert {path.name for path in folder.iterdir()} >= {"0_model.wav", "0_real.wav", "0_model.png"}
    assert "continues from" in (run / "log.txt").read_text()
    compared = first.options.eval.baselines
    assert ("% of FLAC" in (run / "log.txt").read_text()) == compared
    assert ("of the part that eval.max_batches takes" in (run / "log.txt").read_text()) == compared


@pytest.mark.parametrize("file", [file for file in SAMPLED if file.stem not in CODED], ids=lambda file: file.stem)
def test_samples_keep_the_prompt(file: Path, tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    trainer = ExtensibleTrainer(load_experiment(file, short(file, tmp_path, 2)))
    trainer.train()
    folder = tmp_path / trainer.options.name / "samples" / "step_00000002"
    made, _ = soundfile.read(folder / "0_model.wav", dtype="int16", always_2d=True)
    real, _ = soundfile.read(folder / "0_real.wav", dtype="int16", always_2d=True)
    assert made.shape == real.shape
    assert len(made) == 20
    assert (made[:16] == real[:16]).all()
