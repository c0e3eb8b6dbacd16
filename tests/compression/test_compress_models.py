"""scripts/compress.py: models are found, kept, embedded, and named where they are missing."""

import re
import struct
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.compression.compress_runs import run, siren, wav_bytes
from tests.compression.containers import Shift, repetitive


def test_models_that_are_none(compress: ModuleType, song: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = song.with_name("x.safetensors")
    model.write_bytes(struct.pack("<Q", 2) + b"{}")
    assert run(compress, "encode", song, song.with_suffix(".wsl"), "--model", model) == 1
    assert "x.safetensors is no model file: its metadata has none of the keys" in capsys.readouterr().err
    assert run(compress, "encode", song, song.with_suffix(".wsl"), "--run", song.parent) == 1
    assert f"{song.parent} gives no model: " in capsys.readouterr().err


def test_encode_says_which_model_and_why_none(
    compress: ModuleType, song: Path, model: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    coded, path = song.with_suffix(".wsl"), song.with_name("m.safetensors")
    path.write_bytes(model)
    for options, message in (
        (["--no-model"], "model: none, as --no-model says"),
        (["--bytes"], "model: none, as --bytes says"),
        (["--model", path], f"model: not needed: no block of this file is smaller with {path}"),
    ):
        song.write_bytes(wav_bytes(np.zeros((4000, 2), np.int32)))
        assert run(compress, "encode", song, coded, "--force", *options) == 0
        assert message in capsys.readouterr().out
    song.write_bytes(wav_bytes(np.zeros((0, 2), np.int32)))
    assert run(compress, "encode", song, coded, "--force", "--model", path) == 0
    assert f"model: not needed: there are no samples for {path}" in capsys.readouterr().out
    unsuited = Shift()
    unsuited.only_bits = 8
    song.write_bytes(wav_bytes(siren(2, 4000)))
    with monkeypatch.context() as patch:
        patch.setattr(compress, "model_codec", lambda *_: unsuited)
        assert run(compress, "encode", song, coded, "--force", "--model", path) == 0
    assert f"model: {path} was not used: codes 8 bits, not 16" in capsys.readouterr().out
    monkeypatch.setattr(compress, "shipped_models", list)
    assert run(compress, "encode", song, coded, "--force") == 0
    assert "model: none, for none is in " in capsys.readouterr().out


def test_a_model_is_kept_and_found(
    compress: ModuleType, song: Path, model: bytes, no_kept_models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coded, elsewhere = song.with_suffix(".wsl"), song.parent / "elsewhere"
    song.write_bytes(wav_bytes(siren(2, 8000)))
    elsewhere.mkdir()
    (elsewhere / "m.safetensors").write_bytes(model)
    assert run(compress, "encode", song, coded, "--model", elsewhere / "m.safetensors") == 0
    said = capsys.readouterr().out
    (kept,) = no_kept_models.iterdir()
    assert kept.read_bytes() == model
    assert f"model: kept as {kept}; decoding needs it" in said
    assert "blocks: residual 1" in said
    assert run(compress, "info", coded) == 0
    assert f"codec: residual, profile exact, model {kept.stem[:32]}, fingerprint " in capsys.readouterr().out
    assert run(compress, "verify", coded) == 0
    assert run(compress, "decode", coded, song.with_name("back.wav"), "--model", compress.SHIPPED) == 0
    assert f"model: {kept}, not {compress.SHIPPED}\n" in capsys.readouterr().out
    kept.unlink()
    assert run(compress, "decode", coded, song.with_name("back.wav"), "--force") == 1
    assert f"{coded}: needs the model {kept.stem[:32]}, which is not embedded and not in " in capsys.readouterr().err
    capsys.readouterr()
    for place in (elsewhere, elsewhere / "m.safetensors"):
        assert run(compress, "decode", coded, song.with_name("back.wav"), "--model", place, "--force") == 0
        assert f"model: {elsewhere / 'm.safetensors'}\n" in capsys.readouterr().out
        assert song.with_name("back.wav").read_bytes() == song.read_bytes()


def test_a_model_that_cannot_be_kept_is_a_note(
    compress: ModuleType, song: Path, model: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = song.with_name("m.safetensors")
    path.write_bytes(model)
    song.write_bytes(wav_bytes(siren(2, 4000)))
    monkeypatch.setenv("WAVESCHOOL_CACHE", str(path))  # which is no folder
    assert run(compress, "encode", song, song.with_suffix(".wsl"), "--model", path) == 0
    said = capsys.readouterr()
    assert "blocks: residual 1" in said.out
    assert f"keep {path}, for decoding needs it" in said.err
    assert run(compress, "verify", song.with_suffix(".wsl"), "--model", path) == 0


def test_an_embedded_model_is_all_one_needs(
    compress: ModuleType, song: Path, model: bytes, no_kept_models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coded, path = song.with_suffix(".wsl"), song.with_name("m.safetensors")
    song.write_bytes(wav_bytes(siren(2, 8000)))
    path.write_bytes(model)
    assert run(compress, "encode", song, coded, "--model", path, "--embed") == 0
    path.unlink()
    assert not no_kept_models.exists()
    capsys.readouterr()
    assert run(compress, "info", coded) == 0
    assert f"embedded model: {len(model):,} bytes, " in capsys.readouterr().out
    assert run(compress, "decode", coded, song.with_name("back.wav")) == 0
    assert song.with_name("back.wav").read_bytes() == song.read_bytes()


def test_that_a_fast_model_is_for_this_machine_is_said(
    compress: ModuleType,
    song: Path,
    no_kept_models: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    song.write_bytes(wav_bytes(np.ascontiguousarray(repetitive(4000).T)))
    path = song.with_name("m.safetensors")
    path.write_bytes(b"a model")
    for profile, is_said in (("fast", True), ("exact", False)):
        monkeypatch.setattr(compress, "model_codec", lambda *_, profile=profile: Shift(profile))
        assert run(compress, "encode", song, song.with_suffix(".wsl"), "--model", path, "--force") == 0
        said = capsys.readouterr().out
        assert "blocks: residual 1" in said
        assert ("note: decoding needs software and a processor as here (torch " in said) == is_said


@pytest.mark.parametrize("channels", [1, 3])
def test_a_stereo_model_codes_other_layouts(
    compress: ModuleType,
    model: bytes,
    no_kept_models: Path,
    tmp_path: Path,
    channels: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "m.safetensors").write_bytes(model)
    data = wav_bytes(siren(channels, 3000))
    (tmp_path / "x.wav").write_bytes(data)
    coded, back = tmp_path / "x.wsl", tmp_path / "back.wav"
    assert run(compress, "encode", tmp_path / "x.wav", coded, "--model", tmp_path / "m.safetensors") == 0
    assert re.search(r"blocks: .*residual \d", capsys.readouterr().out)
    assert run(compress, "decode", coded, back) == 0
    assert back.read_bytes() == data
