"""What is kept, what is refused, and what damage and a full disk do."""

import contextlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from codes.trainer import checkpoint as checkpoints
from codes.trainer.checkpoint import CheckpointError, list_checkpoints, save_checkpoint, step_of, thin_out, verify
from codes.yaml_source import OptionError

ROOT = Path(__file__).resolve().parents[2]
SAVING = {"train.niter": 9, "logger.save_checkpoint_freq": 2}
VAL = {"datasets.val": {"num_items": 4, "batch_size": 4}}


def steps_kept(trainer: Any) -> list[int]:
    return [step_of(path) for path in list_checkpoints(trainer.folder.checkpoints)]


def damaged(toy: Any, **changes: Any) -> Path:
    """A run that ended at step 9 with checkpoints at 8 and 9; returns the newest."""
    trainer = toy.train(SAVING | changes)
    assert steps_kept(trainer) == [8, 9]
    return list_checkpoints(trainer.folder.checkpoints)[-1]


def refusal(toy: Any, changes: dict[str, Any] | None = None, **options: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        toy.trainer(SAVING | {"train.niter": 12} | (changes or {}), **options)
    return str(caught.value)


# --- what is kept


@pytest.mark.parametrize(("num", "expected"), [(1, [9]), (2, [8, 9]), (10, [2, 4, 6, 8, 9])])
def test_last_and_final_are_kept(toy: Any, num: int, expected: list[int]) -> None:
    assert steps_kept(toy.train(SAVING | {"logger.num_checkpoints": num})) == expected


def test_best_is_kept(toy: Any) -> None:
    """The learning rate grows out of hand after step 4, so that the best validation is an early one."""
    trainer = toy.train(
        SAVING
        | VAL
        | {
            "train.val_freq": 2,
            "steps.fit.optimizer": "sgd",
            "steps.fit.optimizer_params.lr": 0.01,
            "train.default_lr_scheme": "MultiStepLR",
            "train.gen_lr_steps": [4],
            "train.lr_gamma": 300.0,
            "logger.num_checkpoints": 1,
        }
    )
    assert trainer.best is not None
    best = int(trainer.best["step"])
    assert best < 8
    assert steps_kept(trainer) == [best, 9]
    marks = json.loads((trainer.folder.checkpoints / "marks.json").read_text())
    assert marks == {"best": {"value": trainer.best["value"], "step": best}, "final": 9}


def test_a_checkpoint_holds_what_it_says(toy: Any, weights: Any) -> None:
    trainer = toy.train(SAVING | {"train.ema_enabled": True})
    newest = list_checkpoints(trainer.folder.checkpoints)[-1]
    names = {path.name for path in newest.iterdir()}
    assert names == {"net.safetensors", "net_ema.safetensors", "state.pt", "manifest.json"}
    assert all(
        torch.equal(value, weights(trainer)[key]) for key, value in load_file(newest / "net.safetensors").items()
    )
    manifest = json.loads((newest / "manifest.json").read_text())
    assert manifest["step"] == 9
    assert manifest["files"].keys() == names - {"manifest.json"}
    verify(newest)


def test_tied_and_strided_weights(tmp_path: Path) -> None:
    tied = torch.randn(3, 4)
    saved = {"a": tied, "b": tied, "t": tied.t(), "view": tied[1:], "empty": torch.zeros(0), "scalar": torch.ones(())}
    path = save_checkpoint(tmp_path, 1, {"net": saved}, {})
    found = load_file(path / "net.safetensors")
    assert found.keys() == saved.keys()
    assert all(torch.equal(found[key], value) for key, value in saved.items())


def test_a_half_written_checkpoint_is_none(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 3, {"net": {"a": torch.zeros(2)}}, {})
    (tmp_path / "step_00000005.tmp").mkdir()
    shutil.copy(tmp_path / "step_00000003/manifest.json", tmp_path / "step_00000005.tmp")
    (tmp_path / "step_00000007").mkdir()
    assert [step_of(path) for path in list_checkpoints(tmp_path)] == [3]
    thin_out(tmp_path, 1, set())
    assert not (tmp_path / "step_00000005.tmp").exists()


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        path = save_checkpoint(tmp_path, 3, {"net": {"a": torch.full((2,), value)}}, {})
    assert load_file(path / "net.safetensors")["a"].tolist() == [2, 2]
    assert [child.name for child in tmp_path.iterdir()] == ["step_00000003"]


# --- continuing


def test_continuing_is_announced(toy: Any, capsys: pytest.CaptureFixture[str]) -> None:
    damaged(toy)
    toy.train(SAVING | {"train.niter": 12})
    assert re.search(r"continues from .*step_00000009 at step 9 of 12", capsys.readouterr().out.replace("\n", ""))


def test_a_finished_run_only_says_so(toy: Any, lines: Any) -> None:
    trainer = toy.train(SAVING | VAL)
    before = lines(trainer.folder.path)
    toy.train(SAVING | VAL)
    assert lines(trainer.folder.path) == before


def test_resume_state_chooses(toy: Any, lines: Any) -> None:
    newest = damaged(toy)
    earlier = newest.with_name("step_00000008")
    trainer = toy.trainer(SAVING | {"train.niter": 12, "path.resume_state": str(earlier)})
    assert trainer.step == 8
    trainer.train()
    assert [line["step"] for line in lines(trainer.folder.path)] == list(range(1, 13))


def test_resume_state_of_no_checkpoint(toy: Any) -> None:
    newest = damaged(toy)
    message = refusal(toy, {"path.resume_state": str(newest.parent)})
    assert "path.resume_state" in message
    assert "is not a checkpoint folder" in message
    assert str(newest) in message


def test_a_run_gone_on_from_an_earlier_checkpoint_is_the_run(toy: Any) -> None:
    """Checkpoints of the abandoned branch must not win when the same command comes again without resume_state."""
    newest = damaged(toy)
    earlier = newest.with_name("step_00000008")
    trainer = toy.trainer(SAVING | {"train.niter": 10, "path.resume_state": str(earlier), "logger.num_checkpoints": 5})
    trainer.folder.create()
    trainer.save()
    again = toy.trainer(SAVING | {"train.niter": 10, "logger.num_checkpoints": 5})
    assert again.step == 8


def test_optimizer_reset(toy: Any) -> None:
    damaged(toy)
    kept = toy.trainer(SAVING | {"train.niter": 12})
    reset = toy.trainer(SAVING | {"train.niter": 12, "path.optimizer_reset": True})
    assert kept.parts.updaters["net"][0].optimizer.state_dict()["state"]
    assert not reset.parts.updaters["net"][0].optimizer.state_dict()["state"]


def test_another_experiment_is_refused(toy: Any) -> None:
    damaged(toy)
    message = refusal(
        toy,
        {
            "steps.fit.optimizer_params.lr": 0.5,
            "networks.net.kwargs": {"hidden": 16},
            "train.warmup_iter": 3,
            "logger.print_freq": 2,
        },
    )
    assert "belongs to another experiment" in message
    assert "steps.fit.optimizer_params.lr: was 0.01, is 0.5" in message
    assert "networks.net.kwargs.hidden: was not set, is 16" in message
    assert "train.warmup_iter: was not set, is 3" in message
    assert "--fresh" in message
    assert "print_freq" not in message
    assert "niter" not in message


def test_another_order_of_injectors_is_another_experiment(toy: Any) -> None:
    a = {"type": "add_noise", "scale": 0.1, "in": "x", "out": "a"}
    b = {"type": "toy_doubles", "in": "x", "out": "b"}
    predict = {"type": "generator", "generator": "net", "in": "x", "out": "fake"}
    toy.train(SAVING | {"steps.fit.injectors": {"a": a, "b": b, "predict": predict}})
    message = refusal(toy, {"steps.fit.injectors": {"b": b, "a": a, "predict": predict}})
    assert "belongs to another experiment" in message
    assert "order" in message


def test_fresh_moves_the_old_run_aside(toy: Any, lines: Any) -> None:
    first = toy.train(SAVING)
    before = lines(first.folder.path)
    second = toy.trainer(SAVING | {"steps.fit.optimizer_params.lr": 0.5}, fresh=True)
    assert second.step == 0
    assert second.folder.moved_to is not None
    assert lines(second.folder.moved_to) == before
    assert len(list_checkpoints(second.folder.moved_to / "checkpoints")) == 2
    third = toy.trainer(SAVING, fresh=True)
    assert third.folder.moved_to not in (None, second.folder.moved_to)


# --- damage


def test_truncated_file(toy: Any) -> None:
    newest = damaged(toy)
    path = newest / "net.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    message = refusal(toy)
    assert f"checkpoint file {path} is truncated ({len(whole) // 2} of {len(whole)} bytes)" in message
    assert f"path.resume_state=FOLDER with one of {newest.with_name('step_00000008')}" in message
    earlier = toy.trainer(SAVING | {"train.niter": 12, "path.resume_state": str(newest.with_name("step_00000008"))})
    assert earlier.step == 8


@pytest.mark.parametrize("name", ["net.safetensors", "state.pt"])
def test_altered_byte(toy: Any, name: str) -> None:
    path = damaged(toy) / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert f"checkpoint file {path} has been altered" in refusal(toy)


@pytest.mark.parametrize("name", ["net.safetensors", "state.pt"])
def test_missing_file(toy: Any, name: str) -> None:
    path = damaged(toy) / name
    path.unlink()
    assert f"checkpoint file {path} is missing" in refusal(toy)


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "null", '{"step": 9}', '{"step": 9, "files": 3}'])
def test_broken_manifest(toy: Any, text: str) -> None:
    newest = damaged(toy)
    (newest / "manifest.json").write_text(text)
    assert f"{newest} is not a checkpoint: its manifest.json cannot be read" in refusal(toy)


def reseal(checkpoint: Path) -> None:
    """Make the manifest agree with the files, as who forges a checkpoint would."""
    files = {p.name: checkpoints._fingerprint(p) for p in checkpoint.iterdir() if p.name != "manifest.json"}
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    (checkpoint / "manifest.json").write_text(json.dumps(manifest | {"files": files}))


def test_checkpoint_of_another_network(toy: Any) -> None:
    newest = damaged(toy)
    path = newest / "net.safetensors"
    tensors = load_file(path)
    tensors["last.weight"] = torch.zeros(9, 8)
    tensors["extra"] = torch.zeros(1)
    del tensors["norm.bias"]
    save_file(tensors, path)
    reseal(newest)
    message = refusal(toy)
    assert f"{path} does not fit network net: missing norm.bias; unexpected extra; " in message
    assert "of another shape last.weight (9, 8) for (6, 8)" in message


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
def test_malicious_state_is_not_run(toy: Any, zipped: bool) -> None:
    newest, trap = damaged(toy), toy.folder / "trap"
    if zipped:
        torch.save({"step": Bomb(trap)}, newest / "state.pt")
    else:
        (newest / "state.pt").write_bytes(pickle.dumps(Bomb(trap)))
    reseal(newest)
    assert f"{newest / 'state.pt'} cannot be read" in refusal(toy)
    assert not trap.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
def test_malicious_weights_are_not_run(toy: Any, zipped: bool) -> None:
    trap, path = toy.folder / "trap", toy.folder / "weights.pth"
    if zipped:
        torch.save({"first.weight": Bomb(trap)}, path)
    else:
        path.write_bytes(pickle.dumps({"first.weight": Bomb(trap)}))
    with pytest.raises(OptionError, match=f"weights {re.escape(str(path))} cannot be read"):
        toy.trainer({"path.pretrain_model_net": str(path)})
    assert not trap.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    "content",
    [b"", b"\x80", b"RIFF", b"PK\x03\x04", b"garbage\n" * 50, b"\x80\x02}q\x00.", b"(lp0\n.", b"cos\nsystem\n.",
     b"\xff" * 100, b"\x80\x04\x95" + bytes(30), pickle.dumps([1, 2]), pickle.dumps({"a": 1}), pickle.dumps(3)],
)  # fmt: skip
@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_weights_that_are_none(toy: Any, content: bytes, name: str) -> None:
    path = toy.folder / name
    path.write_bytes(content)
    with pytest.raises(OptionError, match=rf"toy\.yml:\d+.*{re.escape(str(path))}"):
        toy.trainer({"path.pretrain_model_net": str(path)})


@pytest.mark.parametrize("form", ["safetensors", "plain", "state_dict", "model"])
def test_pretrained_weights(toy: Any, weights: Any, same: Any, form: str) -> None:
    given = {k: torch.randn(v.shape) for k, v in weights(toy.trainer()).items()}
    path = toy.folder / ("w.safetensors" if form == "safetensors" else "w.pth")
    if form == "safetensors":
        save_file(given, path)
    else:
        torch.save(given if form == "plain" else {form: given}, path)
    trainer = toy.trainer({"path.pretrain_model_net": str(path)})
    assert same(weights(trainer), given)
    assert any(f"network net: 6 of 6 tensors from {path}" in note for note in trainer.parts.notes)


def test_pretrained_weights_that_fit_in_part(toy: Any, weights: Any) -> None:
    given = weights(toy.trainer())
    given["last.weight"] = torch.zeros(1, 1)
    given["more"] = torch.zeros(1)
    save_file(given, toy.folder / "w.safetensors")
    changes = {"path.pretrain_model_net": str(toy.folder / "w.safetensors")}
    with pytest.raises(OptionError, match=r"does not fit network net: unexpected more; of another shape last\.weight"):
        toy.trainer(changes)
    trainer = toy.trainer(changes | {"path.strict_load": False})
    assert any("5 of 6 tensors" in note and "unexpected more" in note for note in trainer.parts.notes)
    save_file({"more": torch.zeros(1)}, toy.folder / "w.safetensors")
    with pytest.raises(OptionError, match="no parameter matches"):
        toy.trainer(changes | {"path.strict_load": False})


def test_a_network_without_pretrained_weights_does_not_stop_the_others(toy: Any, weights: Any, same: Any) -> None:
    """DLAS left the loop at the first network without a path."""
    given = {k: torch.randn(v.shape) for k, v in weights(toy.trainer()).items()}
    save_file(given, toy.folder / "w.safetensors")
    trainer = toy.trainer({
        "networks": {"first": {"which_model": "toy_mlp"}, "net": {"which_model": "toy_mlp"}},
        "steps.fit.training": ["first", "net"],
        "steps.fit.injectors": {
            "one": {"type": "generator", "generator": "first", "in": "x", "out": "z"},
            "two": {"type": "generator", "generator": "net", "in": "z", "out": "fake"},
        },
        "path.pretrain_model_net": str(toy.folder / "w.safetensors"),
    })  # fmt: skip
    assert same(weights(trainer), given)


def test_frozen_pretrained_network_is_not_saved_again_and_not_missed(toy: Any, weights: Any, same: Any) -> None:
    given = weights(toy.trainer())
    save_file(given, toy.folder / "w.safetensors")
    changes = {
        "networks.codec": {"which_model": "toy_mlp", "trainable": False},
        "steps.fit.injectors.encode": {"type": "generator", "generator": "codec", "in": "x", "out": "_z"},
        "path.pretrain_model_codec": str(toy.folder / "w.safetensors"),
    }
    trainer = toy.train(changes)
    newest = list_checkpoints(trainer.folder.checkpoints)[-1]
    assert not (newest / "codec.safetensors").exists()
    assert same(weights(toy.trainer(changes | {"train.niter": 8}), "codec"), given)


# --- disks


def run_limited(file: Path, largest_bytes: int, *overrides: str) -> subprocess.CompletedProcess[str]:
    """train.py in a process whose files cannot grow beyond a size, as on a full disk."""
    script = (
        "import resource, sys; sys.argv = sys.argv[1:];"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({largest_bytes}, {largest_bytes}));"
        "import runpy; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", script, str(ROOT / "train.py"), "-opt", str(file), *overrides]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, cwd=file.parent, env=environment)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no file size limits")
def test_no_room_for_a_checkpoint(toy: Any) -> None:
    """Status 1, one message without a traceback; the earlier checkpoint is whole and the run can go on."""
    trainer = toy.train({"train.niter": 4})
    file = toy.write({"train.niter": 8})
    done = run_limited(file, 4096)
    assert done.returncode == 1, done.stderr
    assert re.search(
        r"checkpoint .*step_00000008 could not be written: .*earlier checkpoints are untouched", done.stderr
    )
    assert "Traceback" not in done.stderr
    assert [path.name for path in trainer.folder.checkpoints.glob("step_*")] == ["step_00000004"]
    verify(trainer.folder.checkpoints / "step_00000004")
    assert toy.train({"train.niter": 8}).step == 8


def test_no_room_for_a_line_of_metrics(toy: Any) -> None:
    """/dev/full is a disk that is full; the half line of a real one is dropped when the run goes on."""
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    trainer = toy.trainer({"logger.save_checkpoint_freq": 2})
    trainer.metrics.path = Path("/dev/full")
    with pytest.raises(CheckpointError, match=r"/dev/full cannot be written: .*No space left.* start the same command"):
        trainer.metrics.write(1, "train", {})


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A real file system of 160 KiB, where we may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=160k", "tmpfs", disk], capture_output=True).returncode
    ):
        pytest.skip("needs the right to mount a tmpfs")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.mark.parametrize("free_bytes", [0, 4096, 20_000, 30_000])
def test_full_disk(toy: Any, small_disk: Path, free_bytes: int) -> None:
    """However little is left: CheckpointError, the earlier checkpoint stays, and after making room the run goes on."""
    root = {"path.root": str(small_disk)}
    toy.train({"train.niter": 4, **root})
    filler = small_disk / "filler"
    fill(filler)
    with filler.open("r+b") as file:
        file.truncate(max(0, filler.stat().st_size - free_bytes))
    with pytest.raises(CheckpointError, match=r"MiB free there|cannot be written|No space left"):
        toy.train({"train.niter": 8, **root})
    checkpoint = small_disk / "toy/checkpoints/step_00000004"
    verify(checkpoint)
    filler.unlink()
    assert toy.train({"train.niter": 8, **root}).step == 8


def test_folder_that_cannot_be_written(toy: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = refusal(toy, {"path.root": str(tmp_path / "file")})
    assert f"{tmp_path / 'file' / 'toy'} cannot be written" in message


def test_folder_that_cannot_be_moved_aside(toy: Any, tmp_path: Path) -> None:
    """--fresh on a run that another file system holds in place."""
    if not hasattr(os, "chroot") or os.geteuid() != 0:
        pytest.skip("needs the right to mount")
    run = tmp_path / "root/toy"
    run.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", run], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        assert "cannot be moved aside" in refusal(toy, {"path.root": str(tmp_path / "root")}, fresh=True)
    finally:
        subprocess.run(["umount", "-l", run], check=True)


def test_errors_of_the_command(toy: Any) -> None:
    """Another experiment: status 2 and a readable difference, no traceback."""
    toy.train(SAVING)
    file = toy.write(SAVING | {"steps.fit.optimizer_params.lr": 0.5})
    command = [sys.executable, str(ROOT / "train.py"), "-opt", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=toy.folder)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "steps.fit.optimizer_params.lr: was 0.01, is 0.5" in done.stderr
