"""codec.yml as a run: it continues bit for bit, its steps alternate, nothing in a step waits for the device."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from codes.experiment import load_experiment
from codes.trainer.extensible_trainer import ExtensibleTrainer
from codes.trainer.state import move
from codes.yaml_source import OptionError

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "codec.yml"
SMALL = [
    "datasets.train.chunk_frames=1600", "datasets.val.chunk_frames=3200", "datasets.train.batch_size=2",
    "datasets.train.n_workers=0", "networks.codec.kwargs.filters=4", "networks.codec.kwargs.codebook_size=16",
    "networks.spectra.kwargs.filters=2", "networks.periods.kwargs.filters=2", "eval.max_batches=1",
    "train.default_lr_scheme=constant", "use_tb_logger=false",
]  # fmt: skip


@pytest.fixture
def make_run(tmp_path: Path, make_stereo_folder: Callable[..., Path]) -> Callable[..., ExtensibleTrainer]:
    music = make_stereo_folder(num_samples=20_000)
    text = EXPERIMENT.read_text(encoding="utf-8")
    assert text.count("after: 2400") == 9
    (tmp_path / "codec.yml").write_text(text.replace("after: 2400", "after: 2"), encoding="utf-8")

    def make(folder: str, steps: int, *more: str) -> ExtensibleTrainer:
        where = [f"datasets.train.path={music}", f"path.root={tmp_path / folder}", f"train.niter={steps}"]
        return ExtensibleTrainer(load_experiment(tmp_path / "codec.yml", [*where, *SMALL, *more]))

    return make


def everything(trainer: ExtensibleTrainer) -> dict[str, torch.Tensor]:
    found = {f"{n}.{k}": v for n, network in trainer.parts.networks.items() for k, v in network.state_dict().items()}
    for name, updaters in trainer.parts.updaters.items():
        for number, state in updaters[0].optimizer.state_dict()["state"].items():
            found |= {f"{name} {number} {key}": value for key, value in state.items()}
    return found


def test_a_run_continues_bit_for_bit_and_reports_the_codec(
    make_run: Callable[..., ExtensibleTrainer], tmp_path: Path
) -> None:
    whole = make_run("whole", 5)
    before = {name: value.clone() for name, value in everything(whole).items()}
    whole.train()
    make_run("parts", 3).train()
    second = make_run("parts", 5)
    assert second.step == 3
    second.train()
    expected, found = everything(whole), everything(second)
    assert expected.keys() == found.keys()
    assert all(found[name].equal(value) for name, value in expected.items())
    for part in ("codec.quantizer.codebooks", "codec.quantizer.begun", "balancer.norms", "spectra.parts.0.0.bias",
                 "periods.parts.0.0.bias"):  # fmt: skip
        assert not expected[part].equal(before[part]), part
    lines = [json.loads(line) for line in (tmp_path / "whole" / "codec" / "metrics.jsonl").read_text().splitlines()]
    val = lines[-1]
    assert val["commitment.bits_per_second"] == 8 * 4 * 50
    assert 0 < val["commitment.codes_used"] <= 1
    assert all(1 <= value <= 16 for value in val["commitment.perplexity_by_codebook"])
    assert len(val["commitment.si_sdr_db_by_codebooks"]) == len(val["commitment.mel_distance_by_codebooks"]) == 8
    assert val["commitment.si_sdr_db_by_codebooks"][-1] == pytest.approx(val["waveform.si_sdr_db"], abs=0.01)


def test_a_codec_that_is_taught_features_of_speech(make_run: Callable[..., ExtensibleTrainer], tmp_path: Path) -> None:
    lines = (tmp_path / "codec.yml").read_text(encoding="utf-8").splitlines()
    comments = [line.removeprefix("#").split("  # ")[0].strip() for line in EXPERIMENT.read_text().splitlines()]
    added = {name: next(line for line in comments if line.startswith(f"{name}: {{")) for name in
             ("teacher", "teach", "code", "distillation")}  # fmt: skip
    at = next(number for number, line in enumerate(lines) if line.startswith("      code: "))
    lines[at : at + 1] = [f"      {added['teach']}", f"      {added['code']}"]
    lines.insert(lines.index("networks:") + 1, f"  {added['teacher']}")
    lines.insert(lines.index("    losses:") + 1, f"      {added['distillation']}")
    (tmp_path / "codec.yml").write_text("\n".join(lines), encoding="utf-8")
    run = make_run("taught", 2, "networks.codec.kwargs.distilled_dim=39")
    run.train()
    figures = [json.loads(line) for line in (tmp_path / "taught" / "codec" / "metrics.jsonl").read_text().splitlines()]
    assert figures[-1]["distillation"] > 0.3
    assert -1 < figures[-1]["distillation.cosine"] < 1


def test_the_best_checkpoint_is_by_the_loss_that_is_named(
    make_run: Callable[..., ExtensibleTrainer], tmp_path: Path
) -> None:
    run = make_run("best", 2, "train.val_freq=1")
    run.train()
    lines = [json.loads(line) for line in (tmp_path / "best" / "codec" / "metrics.jsonl").read_text().splitlines()]
    assert run.best is not None
    assert run.best["value"] == min(line["mel"] for line in lines if line["split"] == "val")
    with pytest.raises(OptionError, match=r"eval.best_by is 'bel': wanted is a loss, one of commitment, mel, periods"):
        make_run("other", 2, "eval.best_by=bel")


class NoWaiting(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.name() not in ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal"), func.name()
        return func(*args, **(kwargs or {}))


def test_no_step_waits_for_the_device(make_run: Callable[..., ExtensibleTrainer]) -> None:
    trainer = make_run("waits", 5)
    batches = [move(trainer.parts.train_loader.batch(number), trainer.device) for number in range(3)]
    trainer._set_mode()
    trainer.run_batch(batches[0], 1)  # the optimizers make their states
    trainer.run_batch(batches[1], 2)
    with NoWaiting():
        trainer.run_batch(batches[2], 3)
