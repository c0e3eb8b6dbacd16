"""What copying reaches: the code by brute force, the copies by hand, and the lines at the end of a run."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from codes.experiment import load_experiment
from codes.trainer.copy_baseline import (
    CopyFigures,
    audio_losses,
    copies,
    geometric_bits,
    judged_frames,
    measure,
    model_figures,
    report,
)
from codes.trainer.extensible_trainer import ExtensibleTrainer
from codes.trainer.metrics import read_metrics

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.mark.parametrize("mean", [0.0, 0.01, 0.7, 5.0, 300.0])
def test_the_code_is_the_best_two_sided_geometric_one(mean: float) -> None:
    found = float(geometric_bits(torch.tensor(mean, dtype=torch.float64)))
    thetas = torch.linspace(1e-6, 1 - 1e-6, 2_000_001, dtype=torch.float64)
    every = -torch.log2((1 - thetas) / (1 + thetas)) - mean * torch.log2(thetas)
    assert math.isclose(found, float(every.min()), rel_tol=1e-3, abs_tol=1e-3)
    if mean > 100:  # as a Laplace density: log2(2 e mean)
        assert math.isclose(found, math.log2(2 * math.e * mean), rel_tol=1e-3)


def test_figures_by_hand_within_the_mask() -> None:
    figures = CopyFigures()
    real = torch.tensor([[13, 9, 99]])
    copy, mask = torch.full_like(real, 10), torch.tensor([[True, True, False]])
    figures.add(copy, real, mask, 8, lambda samples: 2 * samples)
    assert figures.samples == 2
    assert math.isclose(figures.bits, 2 * float(geometric_bits(torch.tensor(4.0).double())))  # of the codes
    assert math.isclose(figures.squares, (9 + 1) / 128**2)  # of the samples


def test_copies_of_each_task() -> None:
    wav, other = torch.arange(8)[None, None], torch.arange(10, 18)[None, None]
    (title, copy, real, mask), *rest = copies({"wav": wav, "noisy": other}, slice(-3, None))
    assert title == "the noisy sample at its place"
    assert not rest
    assert copy.tolist() == [[15, 16, 17]]
    assert real.tolist() == [[5, 6, 7]]
    assert mask.all()
    stereo = torch.cat([wav, wav + 5], 1)
    ((title, copy, real, _),) = copies({"wav": stereo}, slice(2, 5), split=True)
    assert title == "the given channel at its place"
    assert copy.tolist() == [[2, 3, 4]]
    assert real.tolist() == [[7, 8, 9]]
    mask = torch.tensor([[True, True, True, True, False]])
    batch = {"wav": wav, "prev": wav[..., :3], "next": wav[..., 3:], "next_mask": mask}
    before, silence, again = copies(batch, slice(-8, None))
    assert not silence[1].any()
    assert before[1].tolist() == [[2, 3, 4, 5, 6]]
    assert again[1].tolist() == [[0, 1, 2, 0, 1]]
    assert before[3] is again[3] is mask
    assert not list(copies({"wav": wav}, slice(-8, None)))
    title, copy, *_ = next(copies(batch, slice(-8, None), stride=2))
    assert title == "the 2 samples before it once more"
    assert copy.tolist() == [[1, 2, 3, 4, 5]]
    title, copy, *_ = next(copies(batch, slice(-8, None), stride=0))
    assert title == "the last sample of prev, held"
    assert copy.tolist() == [[2] * 5]
    assert next(copies(batch, slice(-8, None), stride=5))[1].tolist() == [[0, 0, 0, 1, 2]]  # silence before it began


@pytest.mark.parametrize(
    ("name", "judged"),
    [("denoising", slice(-512, None)), ("t5_denoising", slice(64, 320)), ("stereo_t5", slice(64, 320))],
)
def test_the_samples_are_those_that_the_loss_counts(name: str, judged: slice) -> None:
    experiment = load_experiment(EXPERIMENTS / f"{name}.yml")
    assert judged_frames(experiment, 512) == judged


@pytest.mark.parametrize(
    ("name", "ways"), [("prev_next", 3), ("denoising", 1), ("stereo_t5", 1), ("t5_past_future", 3)]
)
def test_a_run_ends_with_what_copying_reaches(
    name: str, ways: int, tmp_path: Path, make_stereo_folder: Callable[..., Path]
) -> None:
    music = make_stereo_folder(num_samples=9000)
    overrides = [
        f"datasets.train.path={music}", f"path.root={tmp_path}", "train.niter=2", "datasets.train.n_workers=0",
        "eval.max_batches=2", "datasets.val.batch_size=2", "eval.baselines=false", "use_tb_logger=false", "bf16=false",
    ]  # fmt: skip
    text = (EXPERIMENTS / f"{name}.yml").read_text()
    overrides += ["samples=null"] if "\nsamples:" in text else []
    trainer = ExtensibleTrainer(load_experiment(EXPERIMENTS / f"{name}.yml", overrides))
    trainer.train()
    lines = (tmp_path / name / "log.txt").read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if "copying, on the same" in line)
    shown = [line for line in lines[first + 1 :] if "bits/sample  mean square" in line]
    assert len(shown) == ways
    assert all("(the model: " in line for line in shown)
    figures = measure(trainer.parts, trainer.experiment)
    assert len(figures) == ways
    overrides.append(f"eval.best_by={trainer.parts.steps[0].losses[0].name}")  # in nats: no bits per sample
    other = load_experiment(EXPERIMENTS / f"{name}.yml", overrides)
    assert not any("the model: " in line for line in report(trainer.parts, other, trainer.best))
    chunk = trainer.parts.val_loader.batch(0)["wav"].shape[-1]  # type: ignore[union-attr]
    assert all(0 < found.samples <= 4 * chunk for found in figures.values())


@pytest.mark.parametrize(
    ("name", "way", "kinds"),
    [
        ("lofi_gan", "the last sample of prev, held", ["mean square", "mel distance"]),
        ("lofi_conv_lstm", "the 441 samples before it once more", ["mean square"]),
    ],
)
def test_what_makes_floats_is_compared_with_copies_that_know_as_much(
    name: str, way: str, kinds: list[str], tmp_path: Path, make_stereo_folder: Callable[..., Path]
) -> None:
    music = make_stereo_folder(num_samples=9000)
    overrides = [
        f"datasets.train.path={music}", f"path.root={tmp_path}", "train.niter=2", "datasets.train.n_workers=0",
        "train.val_freq=1", "eval.max_batches=1", "use_tb_logger=false", "samples=null",
        *(f"datasets.train.{key}_frames=4410" for key in ("prev", "next")), "datasets.train.sample_rate=22050",
    ]  # fmt: skip
    overrides += ["networks.lstm.kwargs.next_steps=10"] if name == "lofi_conv_lstm" else []
    overrides += ["steps.lstm.injectors.real.start=-10", "steps.lstm.after=0"] if name == "lofi_conv_lstm" else []
    trainer = ExtensibleTrainer(load_experiment(EXPERIMENTS / f"{name}.yml", overrides))
    trainer.train()
    lines = (tmp_path / name / "log.txt").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"  {way}  ")]
    metrics = tmp_path / name / "metrics.jsonl"
    model = model_figures(trainer.experiment, trainer.best, metrics)
    assert sorted(model) == kinds
    copied = measure(trainer.parts, trainer.experiment)[way].shown()
    said = "; ".join(f"{kind} {model[kind]:.3g}, {100 * model[kind] / copied[kind]:.1f} % of it" for kind in kinds)
    assert line.endswith(f"(the model: {said})")
    at_best = [line for line in read_metrics(metrics) if line["step"] == trainer.best["step"] and "loss" in line]  # type: ignore[index]
    losses = audio_losses(trainer.experiment)
    assert all(at_best[-1][losses[kind].name] == model[kind] for kind in kinds)
    assert model_figures(trainer.experiment, None, metrics) == {}


def test_a_language_model_has_nothing_to_copy(tmp_path: Path, stereo_folder: Path) -> None:
    overrides = [f"path.root={tmp_path}", f"datasets.train.path={stereo_folder}", "use_tb_logger=false", "samples=null"]
    trainer = ExtensibleTrainer(load_experiment(EXPERIMENTS / "tiny_cpu.yml", overrides))
    assert measure(trainer.parts, trainer.experiment) == {}
