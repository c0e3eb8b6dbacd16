"""scripts/compress.py: files of every kind and form come back."""

import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from codes.data.audio.reader import AudioFile
from tests.compression.compress_runs import music, run, there_and_back, wav_bytes
from tests.compression.test_container_wav import DATA, FILES, chunk, extensible, form, riff


@pytest.mark.parametrize("name", FILES)
def test_odd_wav_files_come_back(compress: ModuleType, name: str, tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(FILES[name][0])
    assert there_and_back(compress, tmp_path / "x.wav") == FILES[name][0]


@pytest.mark.parametrize("sample_bytes", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_music_comes_back_smaller(compress: ModuleType, sample_bytes: int, channels: int, tmp_path: Path) -> None:
    data = wav_bytes(music(channels, 5000, 8 * sample_bytes), sample_bytes)
    (tmp_path / "x.wav").write_bytes(data)
    assert there_and_back(compress, tmp_path / "x.wav", "--block-seconds", "0.2") == data
    assert (tmp_path / "x.wsl").stat().st_size < len(data)


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_full_scale_noise_grows_by_its_header_only(
    compress: ModuleType, bits: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, 2 * 8000 * bits // 8).astype(np.uint8).tobytes()
    data = riff(form(2, bits, bits // 8), chunk(b"data", noise))
    (tmp_path / "x.wav").write_bytes(data)
    assert there_and_back(compress, tmp_path / "x.wav") == data
    assert (tmp_path / "x.wsl").stat().st_size < len(noise) + 200
    assert "note: that is no smaller than the file itself: keep the file" in capsys.readouterr().out


def test_headers_that_lie_about_their_empty_bits(compress: ModuleType, tmp_path: Path) -> None:
    data = riff(extensible(2, 20, 3), chunk(b"data", DATA * 50))
    (tmp_path / "x.wav").write_bytes(data)
    assert there_and_back(compress, tmp_path / "x.wav") == data


@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [("flac", "PCM_16"), ("flac", "PCM_24"), ("aiff", "PCM_16"), ("w64", "PCM_24"), ("au", "PCM_32")],
)
def test_other_formats_give_their_samples_as_wav(
    compress: ModuleType, suffix: str, subtype: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import soundfile

    bits = int(subtype[4:])
    path = tmp_path / f"x.{suffix}"
    soundfile.write(path, music(2, 3000, bits) << (32 - bits), 8000, subtype=subtype)
    back = there_and_back(compress, path)
    assert "comes back as WAV, with the same samples and without its tags" in capsys.readouterr().out
    (tmp_path / "back.wav").write_bytes(back)
    with AudioFile(path) as one, AudioFile(tmp_path / "back.wav") as other:
        assert np.array_equal(one.read(), other.read())
        assert (one.info.bits, one.info.sample_rate_hz) == (other.info.bits, other.info.sample_rate_hz)


def test_floating_point_is_refused_or_kept_as_bytes(
    compress: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = riff(form(1, 32, 4, tag=3), chunk(b"data", np.linspace(-1, 1, 999, dtype="<f4").tobytes()))
    path = tmp_path / "x.wav"
    path.write_bytes(data)
    assert run(compress, "encode", path, tmp_path / "x.wsl") == 1
    assert f"{path}: its samples are floating point, not integers; --bytes keeps any file" in capsys.readouterr().err
    assert not (tmp_path / "x.wsl").exists()
    assert there_and_back(compress, path, "--bytes") == data
    capsys.readouterr()
    assert run(compress, "info", tmp_path / "x.wsl") == 0
    said = capsys.readouterr().out
    assert said.startswith(f"content: {len(data):,} bytes\n")
    assert re.search(r"\nblocks: 1 of [0-9,]+ bytes; by codec", said)
    (tmp_path / "empty").write_bytes(b"")
    assert there_and_back(compress, tmp_path / "empty", "--bytes") == b""


def test_blocks_of_slow_signals_are_long_enough_to_adapt(
    compress: ModuleType, song: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    song.write_bytes(wav_bytes(music(1, 3000), rate=10))
    assert run(compress, "encode", song, song.with_suffix(".wsl"), "--no-model") == 0
    assert "blocks: linear 1\n" in capsys.readouterr().out
