"""Samples of models whose input has several parts: what is free, what is given, and the way back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from codes.experiment import load_experiment
from codes.trainer.extensible_trainer import ExtensibleTrainer
from codes.trainer.injectors.control import ConcatenateInjector, NarrowInjector
from codes.trainer.item_sampling import ItemSampler
from codes.trainer.sampling import Sampler, make_sampler
from codes.yaml_source import OptionError

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SMALL_LM = ["networks.lm.kwargs.layers=1", "networks.lm.kwargs.model_dim=16", "networks.lm.kwargs.context=64"]


@pytest.fixture
def trainer(make_stereo_folder: Callable[..., Path], tmp_path: Path) -> Callable[..., ExtensibleTrainer]:
    """`trainer(name, *overrides)`: a shipped experiment on a small folder, with samples of 40 + 12 frames."""
    folder = make_stereo_folder(num_files=3, num_samples=4096)

    def make(name: str, *overrides: str) -> ExtensibleTrainer:
        common = [
            f"datasets.train.path={folder}", f"path.root={tmp_path / 'runs'}", "train.niter=1", "eval.baselines=false",
            "datasets.train.batch_size=2", "datasets.val.batch_size=2", "datasets.train.n_workers=0",
            "datasets.train.chunk_frames=64", "eval.max_batches=1", "samples.prompt_frames=40", "samples.new_frames=12",
            "samples.num=3", "datasets.train.val_fraction=0.4",
        ]  # fmt: skip
        return ExtensibleTrainer(load_experiment(EXPERIMENTS / f"{name}.yml", [*common, *overrides]))

    return make


LM = ["datasets.train.context_frames=32", *SMALL_LM]
T5 = ["steps.t5.injectors.target.length=64", "networks.t5.kwargs.model_dim=16", "networks.t5.kwargs.decoder_layers=1"]
CASES = {
    "channel_prediction": ("channel_prediction", LM),
    "the other way": ("channel_prediction", [*LM, "samples.given_channel=1"]),
    "denoising": ("denoising", LM),
    "bit_depth_restoration": ("bit_depth_restoration", LM),
    "stereo_t5": ("stereo_t5", T5),
    "t5_denoising": ("t5_denoising", ["networks.t5.kwargs.layers=1"]),
}


def sampler_of(trainer: ExtensibleTrainer) -> ItemSampler:
    sampler = trainer.evaluation.sampler
    assert isinstance(sampler, ItemSampler)
    return sampler


@pytest.mark.parametrize("case", CASES)
def test_the_given_is_kept_and_the_rest_is_made(trainer: Any, case: str) -> None:
    name, overrides = CASES[case]
    made = trainer(name, *overrides)
    sampler = sampler_of(made)
    for number, sounds in enumerate(sampler.hear()):
        model, real = sounds["model"].wav, sounds["real"].wav
        assert model.shape == real.shape
        assert model.dtype == real.dtype == torch.int16
        assert model.shape[1] == 52
        assert torch.equal(model[:, :40], real[:, :40])
        differs = (model != real).any(1)
        if name == "channel_prediction":
            assert differs.tolist() == ([False, True] if case == "channel_prediction" else [True, False])
        elif name == "stereo_t5":
            assert int(differs.sum()) == 1  # the given channel is as it was, whichever was drawn
        else:
            assert differs.tolist() == [True]
            assert set(sounds) == {"model", "real", "given"}
            assert not torch.equal(sounds["given"].wav, real)
        assert sounds["model"].sample_rate_hz == 22050
        assert sounds["model"].bits == 16, number


def test_both_directions_are_drawn_and_heard(trainer: Any) -> None:
    made = trainer("stereo_t5", *T5, "samples.num=8")
    sampler = sampler_of(made)
    predicted = {int((s["model"].wav != s["real"].wav).any(1).nonzero()) for s in sampler.hear()}
    assert predicted == {0, 1}


def test_samples_repeat(trainer: Any) -> None:
    sampler = sampler_of(trainer("denoising", *LM))
    one, other = sampler.hear(), sampler.hear()
    for first, second in zip(one, other, strict=True):
        assert all(torch.equal(first[name].wav, second[name].wav) for name in first)


def test_the_tokens_to_choose_are_those_of_the_predicted_audio(trainer: Any) -> None:
    sampler = sampler_of(trainer("denoising", *LM))
    item = sampler._items(2)
    tokens, changed = sampler._free(item, sampler._forward(item), 12)
    assert tokens.shape == (2, 104)
    free = (tokens < 0).nonzero()[:, 1].reshape(2, -1)
    assert free.tolist() == [[2 * (40 + n) + 1 for n in range(12)]] * 2
    assert changed == {"wav", "pair", "codes", "sequence"}


def test_files_are_written_with_what_was_given(trainer: Any) -> None:
    made = trainer("bit_depth_restoration", *LM, "samples.num=1")
    assert made.train()
    folder = made.folder.samples / "step_00000001"
    names = {path.name for path in folder.iterdir()}
    assert names == {f"0_{kind}.{ending}" for kind in ("model", "real", "given") for ending in ("wav", "png")}


def test_chains_of_one_key_are_sampled_as_before(trainer: Any) -> None:
    made = trainer("mono_lm", *LM[1:], "datasets.train.context_frames=64")
    assert isinstance(make_sampler(made.experiment, made.parts), Sampler)


def test_files_that_are_too_short_are_a_warning(trainer: Any) -> None:
    made = trainer("denoising", *LM, "samples.new_frames=9000")
    assert "warning: no samples will be made: no validation file has 9040 frames" in made.parts.notes
    made.evaluation.sample(1)
    assert "no samples" in (made.folder.path / "log.txt").read_text()


def test_what_cannot_be_sampled_is_known_before_training(trainer: Any) -> None:
    with pytest.raises(OptionError, match=r"samples\.given_channel is 2: the audio has 2 channels, counted from 0"):
        trainer("channel_prediction", *LM, "samples.given_channel=2")
    with pytest.raises(OptionError, match=r"samples: top_k is 3: a logistics head has no list of codes"):
        trainer("denoising", *LM, "samples.top_k=3")


def test_an_injector_without_an_inverse_is_named_with_its_place(trainer: Any, tmp_path: Path) -> None:
    text = (EXPERIMENTS / "denoising.yml").read_text()
    text = text.replace("in: [noisy, wav]", "in: [noisy, loud]")
    text = text.replace(
        "      pair:\n", "      louder: {type: select_channels, channels: [0], in: wav, out: loud}\n      pair:\n", 1
    )
    file = tmp_path / "denoising.yml"
    file.write_text(text)
    line = next(number for number, line in enumerate(text.split("\n"), 1) if "louder" in line)
    with pytest.raises(OptionError, match=rf"denoising.yml:{line}:\d+: samples: injector louder has no inverse\(\)"):
        trainer(str(file.with_suffix("")), *LM)


def test_undoing_takes_the_rest_from_the_inputs() -> None:
    rng = np.random.default_rng(0)
    one, two = (torch.from_numpy(rng.normal(size=(2, n))) for n in (3, 5))
    joined = ConcatenateInjector(dim=1)
    parts = joined.undo((one, two), (joined(one, two) + 1,))
    assert [torch.equal(part, value + 1) for part, value in zip(parts, (one, two), strict=True)] == [True, True]
    narrow = NarrowInjector(start=1, length=2)
    whole = narrow.undo((two,), (torch.zeros(2, 2, dtype=two.dtype),))
    assert torch.equal(whole[:, 1:3], torch.zeros(2, 2, dtype=two.dtype))
    assert torch.equal(whole[:, [0, 3, 4]], two[:, [0, 3, 4]])
    assert not torch.equal(whole, two)
