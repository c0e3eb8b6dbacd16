"""Nothing that comes from a file is run, and no file's word is taken for how much memory it needs."""

import os
import pickle
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from codes.compression.codec import ModelError
from codes.compression.residual_model import load_residual_model
from codes.trainer import checkpoint as checkpoints
from codes.trainer.checkpoint import CheckpointError
from codes.trainer.export import load_networks
from codes.trainer.report.page import write_report
from codes.trainer.token_model import token_codec
from codes.yaml_source import OptionError
from scripts.compress_models import model_codec

HUGE_HEADER = struct.pack("<Q", 1 << 60) + b'{"__metadata__": {"residual_lm": "1"}}'


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """What exists once something has been run."""
    return tmp_path / "run"


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt", "weights.pth", "weights"])
def test_a_pickle_under_any_name(tmp_path: Path, mark: Path, name: str) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(CheckpointError, match="cannot be read") as refused:
        checkpoints.load_weights(tmp_path / name)
    assert "weights_only" not in str(refused.value)  # torch's own words say how to run what is in it
    assert not mark.exists()
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists()  # it would have


@pytest.mark.parametrize("read", [load_residual_model, token_codec, model_codec])
def test_a_header_that_asks_for_everything(read: Callable[[bytes], object]) -> None:
    tracemalloc.start()
    try:
        with pytest.raises((ValueError, ModelError)):
            read(HUGE_HEADER)
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


def test_weights_with_a_header_that_asks_for_everything(tmp_path: Path) -> None:
    (tmp_path / "net.safetensors").write_bytes(HUGE_HEADER)
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoints.load_weights(tmp_path / "net.safetensors")


def test_the_options_of_a_strange_run(tmp_path: Path, mark: Path) -> None:
    run = tmp_path / "strange"
    checkpoints.save_checkpoint(run / "checkpoints", 1, {}, {})
    (run / "options.yml").write_text(f"name: !!python/object/apply:os.mkdir [{mark}]\n")
    with pytest.raises(OptionError, match=r"options\.yml:1:7: tag !!python/object/apply:os\.mkdir is not allowed"):
        load_networks(run)
    assert write_report([run], run / "report.html") == []
    assert not mark.exists()


def test_networks_are_loaded_without_the_state(tmp_path: Path, mark: Path) -> None:
    run = tmp_path / "strange"
    saved = checkpoints.save_checkpoint(run / "checkpoints", 1, {}, {})
    (saved / "state.pt").write_bytes(pickle.dumps(Bomb(mark)))
    (run / "options.yml").write_text("name: a\n")
    with pytest.raises(CheckpointError, match=r"state\.pt (is truncated|has been altered)"):
        load_networks(run)
    with pytest.raises(CheckpointError, match=r"state\.pt cannot be read"):
        checkpoints.load_state(saved)
    assert not mark.exists()


@pytest.mark.parametrize("marks", ["{", "[]", "{}", '{"best": 3}', '{"best": {"step": "x"}}'])
def test_marks_that_mean_nothing(tmp_path: Path, marks: str) -> None:
    checkpoints.save_checkpoint(tmp_path / "checkpoints", 1, {}, {})
    (tmp_path / "options.yml").write_text("name: a\n")
    (tmp_path / "checkpoints" / "marks.json").write_text(marks)
    with pytest.raises(CheckpointError, match=r"marks\.json cannot be read \(.+\): without it the newest"):
        load_networks(tmp_path)
