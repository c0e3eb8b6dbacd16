"""Constants, schedules, folded dimensions; and options that name keys of the state, as DL-Art-School's YAMLs have."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from codes.experiment import load_experiment
from codes.resolve import resolved
from codes.trainer.extensible_trainer import ExtensibleTrainer
from codes.trainer.injectors import values
from codes.trainer.injectors.signal import AddNoiseInjector
from codes.yaml_source import OptionError


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"type": "fixed", "weight": 3.0}, {0: 3, 99: 3}),
        (
            {"type": "linear_decay", "initial_weight": 5.0, "lower_bound": 1.0, "steps": 8, "start_step": 2},
            {0: 5, 2: 5, 4: 4, 10: 1, 99: 1},
        ),
        (
            {"type": "sinusoidal", "upper_weight": 4.0, "lower_weight": 2.0, "period": 8, "start_step": 4},
            {0: 4, 4: 4, 6: 3, 8: 2, 12: 4},
        ),
    ],
)
def test_scalars_move_as_in_dlas(options: dict[str, Any], expected: dict[int, float]) -> None:
    injector = values.ScheduledScalarInjector(scheduler=values.ScalarSchedule(**options))
    for step, value in expected.items():
        injector.trained_steps = step
        assert injector() == pytest.approx(value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "fixed"}, "weight is missing in fixed"),
        ({"type": "fixed", "weight": 1.0, "period": 3}, "period has no effect in fixed"),
        ({"type": "linear_decay", "initial_weight": 1.0, "lower_bound": 2.0, "steps": 3}, "must not be below lower_b"),
    ],
)
def test_wrong_schedules(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        values.ScalarSchedule(**options)


def test_constants_and_slices() -> None:
    x = torch.randn(2, 3, 4)
    assert torch.equal(values.ConstantInjector(constant_type="zeroes")(x), torch.zeros_like(x))
    assert torch.equal(values.ConstantInjector(constant_type="ones")(x), torch.ones_like(x))
    extract = values.IndicesExtractorInjector()
    parts = extract(x)
    assert len(parts) == 3
    assert torch.equal(parts[1], x[:, 1])
    assert torch.equal(extract.inverse(*parts), x)
    assert torch.equal(values.IndicesExtractorInjector()(x[:, :1]), x[:, 0])
    extract.num_outputs = 2
    assert len(extract(x)) == 2
    extract.num_outputs = 1
    assert torch.equal(extract(x), x[:, 0])
    with pytest.raises(ValueError, match=re.escape("that has dimension 1, got (2,)")):
        extract(x[:, 0, 0])


@pytest.mark.parametrize("dim", [1, 2, 3, -1])
def test_a_dimension_becomes_items_and_comes_back(dim: int) -> None:
    x = torch.randn(2, 3, 4, 5)
    decompose = values.DecomposeDimensionInjector(dim=dim)
    folded, shape, order = decompose(x)
    assert len(folded) == 2 * x.shape[dim]
    assert torch.equal(folded[1], x[1].select(dim - 1 if dim > 0 else dim, 0))
    recompose = values.RecomposeDimensionInjector()
    assert torch.equal(recompose(folded * 2, shape, order), x * 2)
    assert torch.equal(decompose.undo((x,), (folded, shape, order)), x)
    longer = recompose(folded.repeat_interleave(2, -1), shape, order)  # a network may have stretched what is last
    assert longer.numel() == 2 * x.numel()
    cut, shape, order = values.DecomposeDimensionInjector(dim=dim, cutoff_dim=3)(x)
    assert torch.equal(cut, folded[:3])
    with pytest.raises(ValueError, match="items of 3 dimensions, as decompose_dimension made, got"):
        recompose(cut, shape, order)


def test_bad_dimensions() -> None:
    with pytest.raises(ValueError, match="dim must not be 0"):
        values.DecomposeDimensionInjector(dim=0)
    with pytest.raises(ValueError, match="cutoff_dim must be 1 or more, got 0"):
        values.DecomposeDimensionInjector(dim=1, cutoff_dim=0)
    for dim in (2, -2):
        with pytest.raises(ValueError, match=re.escape(f"has dimension {dim} besides 0, got (3, 4)")):
            values.DecomposeDimensionInjector(dim=dim)(torch.ones(3, 4))


def test_noise_by_a_scheduled_scale() -> None:
    x = torch.zeros(400, 50)
    noise = AddNoiseInjector(scale="strength")
    assert float(noise(x, 0.5).std()) == pytest.approx(0.5, abs=0.02)
    assert float(noise(x, 0.0).abs().max()) == 0
    even = AddNoiseInjector(scale=2.0, mode="uniform")(x)
    assert 0 <= float(even.min()) < 0.01
    assert 1.99 < float(even.max()) < 2
    assert float(even.std()) == pytest.approx(2 / math.sqrt(12), abs=0.02)
    with pytest.raises(ValueError, match="mode uniform takes a scale, and no colour"):
        AddNoiseInjector(snr_db=3.0, mode="uniform")


PLUGIN = """
import torch
from torch import nn
from codes.data.dataset import Dataset
from codes.models.network import Network


class LengthsDataset(Dataset):
    \"\"\"Rising numbers with lengths.\"\"\"

    provides = {"wav": "sound", "wav_lengths": "samples"}

    def __init__(self) -> None:
        pass

    def __len__(self):
        return 16

    def item(self, index, rng):
        return {"wav": torch.arange(40.0)[None] / 40, "wav_lengths": 30}


class OneNumber(Network):
    \"\"\"One number.\"\"\"

    def __init__(self) -> None:
        super().__init__()
        self.number = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return (x - self.number).square().mean()


class Guess(Network):
    \"\"\"One factor of noisy values.\"\"\"

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, x, t, other, strength):
        return x * self.factor + other.mean() * strength + t.mean(dtype=torch.float32)
"""
EXPERIMENT = """
name: keys
gpu_ids: []
plugins: [plugin.py]
datasets:
  train: {mode: lengths, batch_size: 4}
  val: {}
networks: {net: {which_model: one_number}, noise_net: {which_model: guess}}
steps:
  only:
    training: [net, noise_net]
    optimizer_params: {lr: 0.01}
    injectors:
      strength: {type: scheduled_scalar, out: strength,
                 scheduler: {type: linear_decay, initial_weight: 1, lower_bound: 0, steps: 4, start_step: 0}}
      noisy: {type: add_noise, scale: strength, in: wav, out: noisy}
      crop: {type: random_audio_crop, crop_size: 8, lengths_key: wav_lengths, crop_start_key: start, in: wav, out: crop}
      zeros: {type: constant, constant_type: zeroes, like: start, out: zero}
      fold: {type: decompose_dimension, dim: 2, in: noisy, out: folded}
      unfold: {type: recompose_dimension, in: folded, out: unfolded, reverse_shape: folded_reverse_shape,
               reverse_permute: folded_reverse_permute}
      loss: {type: generator, generator: net, in: unfolded, out: nothing}
      denoise: {type: gaussian_diffusion, generator: noise_net, in: unfolded, out: mse, out_key_x_start: guessed,
                beta_schedule: {schedule_name: cosine, num_diffusion_timesteps: 20},
                diffusion_args: {model_mean_type: start_x, model_var_type: fixed_large},
                model_input_keys: {other: crop, strength: 2}}
      all: {type: generator, generator: net, in: crop, out: value}
    losses:
      it: {type: direct, key: value}
      noise: {type: direct, key: nothing}
      diffusion: {type: direct, key: mse}
      near: {type: pix, criterion: l1, real: unfolded, fake: guessed}
train: {niter: 2, val_freq: 1}
eval: {baselines: false}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where plugin.py lies: loaded once, as its classes have one name each."""
    folder = tmp_path_factory.mktemp("keys")
    (folder / "plugin.py").write_text(PLUGIN)
    return folder


def write(folder: Path, text: str = EXPERIMENT) -> Path:
    (folder / "keys.yml").write_text(text)
    return folder / "keys.yml"


def test_options_that_name_keys_are_wired(folder: Path, tmp_path: Path) -> None:
    experiment = load_experiment(write(folder), [f"path.root={tmp_path / 'runs'}"])
    entries = {entry.name: entry.flags for entry in experiment.steps[0].injectors}
    assert entries["crop"].in_ == ["wav", "wav_lengths"]
    assert entries["crop"].out == ["crop", "start"]
    assert entries["zeros"].in_ == ["start"]
    assert entries["fold"].out == ["folded", "folded_reverse_shape", "folded_reverse_permute"]
    assert entries["denoise"].in_ == ["unfolded", "crop"]
    assert entries["denoise"].out == ["mse", "guessed"]
    assert entries["noisy"].in_ == ["wav", "strength"]
    assert ["zero" in warning for warning in experiment.warnings] == [True]
    assert ExtensibleTrainer(experiment).train()
    again = load_experiment(tmp_path / "runs" / "keys" / "options.yml")
    assert resolved(again) == resolved(experiment)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("lengths_key: wav_lengths", "lengths_key: wav_length", "crop reads 'wav_length', which nothing wrote"),
        ("in: wav, out: noisy", "out: noisy", "noisy: `in` needs wav, [scale], got"),
        (", out: strength,", ",", "injector only.strength.out is missing: a list of keys"),
        ("crop_start_key: start, ", "crop_start_key: noisy, ", "crop writes 'noisy', which line"),
        (
            "type: random_audio_crop,", "type: for_each, subtype: random_audio_crop,",
            "injector crop: lengths_key has no effect within for_each",
        ),
        ("generator: noise_net, in: unfolded,", "generator: noise_net,", "denoise: `in` needs more keys than 0"),
        ("steps: 4,", "", "steps is missing in linear_decay"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_named_keys(old: str, new: str, message: str, folder: Path) -> None:
    assert old in EXPERIMENT
    with pytest.raises(OptionError, match=re.escape(message)):
        load_experiment(write(folder, EXPERIMENT.replace(old, new)))
