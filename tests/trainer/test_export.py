"""An exported run loads in three lines, is taken by what takes a run, and says what it reaches."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from codes.experiment import load_experiment
from codes.trainer.checkpoint import CheckpointError
from codes.trainer.continuation import Continuation
from codes.trainer.export import export_run, load_networks
from codes.trainer.extensible_trainer import ExtensibleTrainer
from codes.trainer.residual_run import residual_model_file
from codes.trainer.token_model import token_codec, token_model_file
from scripts import export as command
from tests.compression.compress_runs import siren, wav_bytes

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    short = [f"path.root={root}", "train.niter=2", "train.val_freq=1", "eval.max_batches=1", "samples=null",
             "train.ema_enabled=true", "logger.save_checkpoint_freq=1", "use_tb_logger=false"]  # fmt: skip
    ExtensibleTrainer(load_experiment(ROOT / "experiments" / "tiny_cpu.yml", short)).train()
    return root / "tiny_cpu"


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "model"
    export_run(run, out)
    return out


def test_it_loads_the_averaged_weights(run: Path, exported: Path) -> None:
    networks, own = load_networks(exported), load_networks(run)
    assert networks.keys() == {"lm"}
    assert not networks["lm"].training
    assert all(torch.equal(value, own["lm"].state_dict()[key]) for key, value in networks["lm"].state_dict().items())
    names = {path.name for path in next((exported / "checkpoints").glob("step_*")).iterdir()}
    assert {"lm.safetensors", "manifest.json"} <= names
    assert "lm_ema.safetensors" not in names


def test_it_continues_and_codes_audio(run: Path, exported: Path) -> None:
    assert Continuation(exported).name == "lm"
    assert token_codec(token_model_file(exported)).name
    assert token_model_file(exported) == token_model_file(run), "coded files name it by its hash"


def test_a_residual_model_keeps_its_hash_when_exported(tmp_path: Path) -> None:
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    for name in ("a", "b"):
        (sounds / f"{name}.wav").write_bytes(wav_bytes(siren(1, 3000)))
    short = [f"path.root={tmp_path}", f"datasets.train.path={sounds}", "datasets.train.batch_size=2", "train.niter=1",
             "train.val_freq=1", "eval.max_batches=1", "use_tb_logger=false", "networks.lm.kwargs.hidden=8",
             f"datasets.train.feature_folder={tmp_path / 'features'}"]  # fmt: skip
    ExtensibleTrainer(load_experiment(ROOT / "experiments" / "residual_lm.yml", short)).train()
    run = tmp_path / "residual_lm"
    export_run(run, tmp_path / "out")
    assert residual_model_file(tmp_path / "out") == residual_model_file(run)
    assert str(tmp_path).encode() not in residual_model_file(run), "what is shared names no folder of ours"
    assert b"how it was made" in residual_model_file(run, "how it was made")


def test_the_card_has_figures_and_runs(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: waveschool")
    assert "30,450 parameters" in card
    assert "| FLAC on the validation audio |" in card  # no share: the model was tried on a part of it
    assert "% of FLAC" not in card
    assert "scripts/compress.py encode" in card
    code = card.partition("```python\n")[2].partition("```")[0].replace("FOLDER", str(exported))
    found: dict[str, Any] = {}
    exec(code, found)
    assert "lm" in found["networks"]


def test_it_holds_nothing_of_the_past(run: Path, exported: Path) -> None:
    text = (exported / "options.yml").read_text()
    assert str(run.parent) not in text
    assert not (exported / "metrics.jsonl").exists()


def test_plugins_come_along(new_toy: Any, tmp_path: Path) -> None:
    trainer = new_toy(tmp_path).train()
    export_run(trainer.folder.path, tmp_path / "out")
    assert (tmp_path / "out" / "toys.py").read_bytes() == Path(__file__).with_name("toys.py").read_bytes()
    assert yaml.safe_load((tmp_path / "out" / "options.yml").read_text())["plugins"] == ["toys.py"]


def test_what_cannot_be_exported_is_said(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([str(run), "--out", str(run)]) == 2
    assert "is not empty: give a new folder" in capsys.readouterr().err
    assert command.main([str(tmp_path), "--out", str(tmp_path / "a")]) == 2
    assert "is no run" in capsys.readouterr().err
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copy(run / "options.yml", empty)
    with pytest.raises(CheckpointError, match="has no checkpoint yet"):
        load_networks(empty)
    assert command.main([str(run), "--out", str(tmp_path / "fine")]) == 0
    assert "30,450" in capsys.readouterr().out


def test_one_file_for_compress(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "model.safetensors"
    assert command.main([str(run), "--codec", str(out)]) == 0
    assert out.read_bytes() == token_model_file(run)
    assert command.main([str(tmp_path), "--codec", str(out)]) == 2
    assert "gives no model" in capsys.readouterr().err
    assert command.main([str(run), "--codec", str(out), "--command", "x"]) == 2
    assert "expected one network residual_lm" in capsys.readouterr().err
    for wrong in (["--codec", str(out), "--checkpoint", str(run)], ["--out", str(out), "--command", "x"]):
        with pytest.raises(SystemExit):
            command.main([str(run), *wrong])
        assert "goes with --" in capsys.readouterr().err
