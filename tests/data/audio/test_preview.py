"""``python -m codes.data.audio.stereo_chunk``: what it prints and draws, and one line for bad input."""

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from codes.data.audio import preview


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "music"
    folder.mkdir()
    for number in range(3):
        noise = np.random.default_rng(number).integers(-9000, 9000, (3000, 2)).astype(np.int16)
        soundfile.write(folder / f"{number}.wav", noise, 8000)
    return folder


def test_prints_and_draws(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(preview, "_TIMED_SECONDS", 0.02)
    out = tmp_path / "picture.png"
    preview.main("stereo_chunk", ["--path", str(folder), "--chunk-frames", "1000", "--out", str(out), "--items", "2"])
    printed = capsys.readouterr().out
    assert "found: 3 files" in printed
    assert "wav          (2, 1000)  int16" in printed
    assert "items 0, 5 of 6" in printed
    assert "items/s on one core" in printed
    with Image.open(out) as image:
        assert image.size == (844, 2 * (180 + 16 + 420) + 3 * 4)


def test_bad_input_is_one_line_and_status_2_as_a_module(tmp_path: Path):
    command = [sys.executable, "-m", "codes.data.audio.stereo_chunk", "--path", str(tmp_path / "none")]
    bad = subprocess.run(command, capture_output=True, text=True)
    assert bad.returncode == 2
    assert bad.stderr == f"error: {tmp_path / 'none'} does not exist: give a folder of audio files, or one such file\n"
    assert bad.stdout == ""


@pytest.mark.parametrize("arguments", [[], ["--path", "x", "--phase", "test"], ["--path", "x", "--bits", "9"]])
def test_bad_options_end_with_status_2(arguments: list[str]):
    with pytest.raises(SystemExit) as caught:
        preview.main("stereo_chunk", arguments)
    assert caught.value.code == 2


def test_unknown_dataset_is_named():
    with pytest.raises(SystemExit, match="no dataset 'nope'"):
        preview.main("nope", [])


def test_options_are_written_as_in_the_yaml(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(preview, "_TIMED_SECONDS", 0.02)
    out = tmp_path / "picture.png"
    common = ["--path", str(folder), "--chunk-frames", "500", "--out", str(out)]
    preview.main("denoising", [*common, "--snr_db", "[3, 4]", "--channels", "{select: [1]}"])
    printed = capsys.readouterr().out
    assert "noisy        (1, 500)  int16" in printed
    assert f"wrote {out}: wav, noisy of 3 items" in printed
    for bad, message in (
        (["--snr-db", "loud"], "it must be a list (a number each) or a number, got 'loud'"),
        (["--channels", "{select: [0"], "not valid YAML"),
        (["--channels", "{selekt: [0]}"], "unknown key 'selekt' in it; did you mean 'select'?"),
        (["--bits", "9"], "it must be one of 8, 12, 16, 20, 24, 32, got 9"),
    ):
        with pytest.raises(SystemExit) as caught:
            preview.main("denoising", [*common, *bad])
        assert caught.value.code == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("num_channels", "keys", "num_items"), [(1, 1, 3), (2, 1, 3), (4, 1, 1), (2, 3, 1), (8, 1, 1), (24, 2, 1)]
)
def test_the_picture_is_never_much_higher_than_a_screen(num_channels: int, keys: int, num_items: int):
    names = [f"wav{number}" for number in range(keys)]
    items = [{name: np.zeros((num_channels, 500), np.int16) for name in names} | {"sample_rate": 8000}] * 5
    assert preview._num_pictured(items, names) == num_items
    image = preview._picture(items[:num_items], names, 16)
    assert 900 < len(image) <= 2100


def test_fewer_items_are_pictured_and_said(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(preview, "_TIMED_SECONDS", 0.02)
    out = tmp_path / "picture.png"
    for most, number in (
        (2100, "3 items, one below the other"),
        (1300, "2 items, one below the other"),
        (700, "1 item"),
    ):
        monkeypatch.setattr(preview, "_MOST_PIXELS", most)
        preview.main("stereo_chunk", ["--path", str(folder), "--chunk-frames", "500", "--out", str(out)])
        assert capsys.readouterr().out.endswith(f"wrote {out}: wav of {number}\n")
        with Image.open(out) as image:
            assert image.size[1] <= most


def test_files_that_are_left_out_are_said_once(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, caplog: Any
):
    monkeypatch.setattr(preview, "_TIMED_SECONDS", 0.02)
    (folder / "broken.wav").write_text("words")
    options = ["--path", str(folder), "--on-error", "skip", "--chunk-frames", "1000"]
    preview.main("stereo_chunk", [*options, "--out", str(tmp_path / "picture.png")])
    assert capsys.readouterr().out.count("broken.wav: ") == 1
    assert not caplog.messages
    assert logging.getLogger("codes.data.audio.audio_dataset").isEnabledFor(logging.WARNING), "only while it is made"
