"""What a figure of channel prediction must prove: copies cost nothing, independent noise costs its entropy.

experiments/stereo_t5.yml with a small network, on noise that the tests make.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from codes.experiment import load_experiment
from codes.trainer.extensible_trainer import ExtensibleTrainer
from codes.trainer.metrics import read_metrics

FILE = Path(__file__).parents[2] / "experiments" / "stereo_t5.yml"
WriteWav = Callable[..., None]


@pytest.fixture
def run(tmp_path: Path, write_wav: WriteWav) -> Callable[..., ExtensibleTrainer]:
    """`run(left_and_right, bits, *overrides)`: stereo_t5 on four files of 8-bit noise, ready to train."""

    def make(draw: Callable[[np.random.Generator], np.ndarray], bits: int, *overrides: str) -> ExtensibleTrainer:
        for number in range(4):
            path = tmp_path / "noise" / f"{number}.wav"
            if not path.exists():
                write_wav(path, draw(np.random.default_rng(number)), 8000, 8)
        options = [
            f"datasets.train.path={tmp_path / 'noise'}", f"path.root={tmp_path / 'runs'}", "gpu_ids=[]", "bf16=false",
            "use_tb_logger=false", "samples=null", "eval.baselines=false", "train.val_freq=100000",
            "logger.save_checkpoint_freq=100000", "datasets.train.n_workers=0", "datasets.train.chunk_frames=32",
            "datasets.train.context_frames=4", "datasets.train.val_fraction=0.3", "datasets.train.bits=8",
            "steps.t5.injectors.target.start=2", "steps.t5.injectors.target.length=32",
            f"steps.t5.injectors.quantise.bits={bits}", f"networks.t5.kwargs.bits={bits}",
            "networks.t5.kwargs.context=2", "networks.t5.kwargs.input=ids", "networks.t5.kwargs.head=softmax",
            "networks.t5.kwargs.convolution=0", "networks.t5.kwargs.model_dim=32",
            "networks.t5.kwargs.feed_forward_dim=64", "networks.t5.kwargs.heads=2",
            "networks.t5.kwargs.decoder_layers=1",
        ]  # fmt: skip
        return ExtensibleTrainer(load_experiment(FILE, [*options, *overrides]))

    return make


def last_val(trainer: ExtensibleTrainer) -> dict[str, Any]:
    return [line for line in read_metrics(trainer.folder.path / "metrics.jsonl") if line["split"] == "val"][-1]


def copies(rng: np.random.Generator) -> np.ndarray:
    """Two identical channels of uniform noise, (T, 2)."""
    return np.repeat(rng.integers(-128, 128, (8000, 1)), 2, 1)


def independent(rng: np.random.Generator) -> np.ndarray:
    """Two channels that know nothing of each other, of values 0 to 15 that are not equally likely, (T, 2)."""
    return (rng.binomial(15, 0.4, (8000, 2)) - 8) * 16


def test_identical_channels_cost_nothing(run: Any) -> None:
    trainer = run(copies, 8, "train.niter=180", "steps.t5.optimizer_params.lr=1e-2")
    assert trainer.train()
    val = last_val(trainer)
    assert val["bits_per_sample"] < 0.1
    assert val["code_length.bits_left_to_right"] < 0.1
    assert val["code_length.bits_right_to_left"] < 0.1
    assert val["code_length.marginal_entropy"] > 7.9


def test_independent_noise_costs_its_entropy(run: Any) -> None:
    trainer = run(independent, 4, "train.niter=120", "steps.t5.optimizer_params.lr=5e-3")
    assert trainer.train()
    val = last_val(trainer)
    assert 2.5 < val["code_length.marginal_entropy"] < 3.2
    for name in ("bits_per_sample", "code_length.bits_left_to_right", "code_length.bits_right_to_left"):
        assert val[name] == pytest.approx(val["code_length.marginal_entropy"], rel=0.02)
    assert val["bits_per_sample"] > 0.99 * val["code_length.marginal_entropy"]  # it cannot know more


def test_accumulation_gives_the_same_update(run: Any) -> None:
    weights = []
    for factor in (1, 4):
        changes = [f"train.mega_batch_factor={factor}", f"name=factor_{factor}", "steps.t5.optimizer_params.lr=1e-3"]
        trainer = run(copies, 8, "train.niter=3", "steps.t5.injectors.split.direction=left_to_right", *changes)
        assert trainer.train()
        weights.append(trainer.parts.networks["t5"].state_dict())
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=0, atol=1e-6)


def test_validation_repeats(run: Any) -> None:
    trainer = run(copies, 8, "train.niter=1")
    assert trainer.train()
    assert trainer.evaluation.validate(1) == trainer.evaluation.validate(1)
