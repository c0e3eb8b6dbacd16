"""scripts/compress.py: files of every kind come back, damage is named, models are found; and what it says."""

import contextlib
import io
import os
import re
import resource
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from codes.data.audio.reader import AudioFile
from tests.compression.test_container_wav import DATA, FILES, chunk, extensible, form, riff

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def compress() -> ModuleType:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import compress as command  # pyright: ignore[reportMissingImports]
    finally:
        sys.path.remove(str(ROOT / "scripts"))
    return command


def music(num_channels: int, num_frames: int, bits: int = 16) -> np.ndarray:
    """(T, C) int32 that fills most of the depth."""
    rng = np.random.default_rng(0)
    time = np.arange(num_frames)[:, None] / 8000
    waves = np.sin(2 * np.pi * time * rng.uniform(100, 900, num_channels))
    return np.round((waves * 0.5 + rng.normal(0, 0.01, waves.shape)) * 2 ** (bits - 1) * 0.9).astype(np.int32)


def siren(num_channels: int, num_frames: int) -> np.ndarray:
    """(T, C) int32: tones that rise and fall too fast for a predictor that does not adapt within a stretch."""
    time = np.arange(num_frames)[:, None] / 8000
    rates = np.arange(7, 7 + num_channels)
    waves = np.sin(2 * np.pi * (900 * time + 40 * np.sin(2 * np.pi * time * rates)))
    return np.round(waves * 12_000).astype(np.int32)


def wav_bytes(samples: np.ndarray, sample_bytes: int = 2, rate: int = 8000) -> bytes:
    """A WAV with a tag behind its samples."""
    channels = samples.shape[1]
    octets = (samples + (128 if sample_bytes == 1 else 0)).astype("<i4").view(np.uint8)
    data = octets.reshape(-1, 4)[:, :sample_bytes].tobytes()
    head = form(channels, 8 * sample_bytes, sample_bytes, rate=rate)
    return riff(head, chunk(b"data", data), chunk(b"LIST", b"INFOINAM\5\0\0\0song\0\0"))


@pytest.fixture
def song(tmp_path: Path) -> Path:
    path = tmp_path / "song.wav"
    path.write_bytes(wav_bytes(music(2, 8000)))
    return path


def run(compress: ModuleType, *arguments: str | Path) -> int:
    return compress.main([str(argument) for argument in arguments])


def there_and_back(compress: ModuleType, source: Path, *options: str) -> bytes:
    coded, back = source.with_suffix(".wsl"), source.with_suffix(".back")
    assert run(compress, "encode", source, coded, "--no-model", *options) == 0
    assert run(compress, "verify", coded) == 0
    assert run(compress, "decode", coded, back) == 0
    assert list(source.parent.glob(".*")) == []
    return back.read_bytes()


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
def test_full_scale_noise_grows_by_its_header_only(compress: ModuleType, bits: int, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, 2 * 8000 * bits // 8).astype(np.uint8).tobytes()
    data = riff(form(2, bits, bits // 8), chunk(b"data", noise))
    (tmp_path / "x.wav").write_bytes(data)
    assert there_and_back(compress, tmp_path / "x.wav") == data
    assert (tmp_path / "x.wsl").stat().st_size < len(noise) + 200


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
    (tmp_path / "empty").write_bytes(b"")
    assert there_and_back(compress, tmp_path / "empty", "--bytes") == b""


def test_what_encode_says(compress: ModuleType, song: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(compress, "encode", song, song.with_suffix(".wsl"), "--no-model") == 0
    lines = capsys.readouterr().out.splitlines()
    size = song.with_suffix(".wsl").stat().st_size
    assert lines[0].startswith(f"size: 32,070 -> {size:,} bytes, ")
    found = re.fullmatch(r"bits per sample: (\d+\.\d+) of 16; by channel (\d+\.\d+), (\d+\.\d+)", lines[1])
    assert found
    total, left, right = map(float, found.groups())
    assert total == pytest.approx(8 * size / 16000, abs=1e-3)
    assert (left + right) / 2 == pytest.approx(total, rel=0.03)
    assert lines[2] == "blocks: linear 1"
    assert re.fullmatch(r"time: \d+\.\d+ s, \d+\.\d+ times real time, decoded and found equal", lines[3])
    assert run(compress, "encode", song, song.with_suffix(".wsl"), "--no-model", "--no-verify", "--force") == 0
    assert capsys.readouterr().out.splitlines()[3].endswith(", not verified")


def test_what_info_says(compress: ModuleType, song: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coded = song.with_suffix(".wsl")
    run(compress, "encode", song, coded, "--no-model", "--block-seconds", "0.4")
    capsys.readouterr()
    assert run(compress, "info", coded) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "samples: 8000 frames (1.00 s) of 2 channels, 16 bits, 8000 Hz"
    assert re.fullmatch("md5 of the PCM: [0-9a-f]{32}", lines[1])
    assert lines[2] == "original: a WAV whose header, tags and trailing bytes are kept"
    assert re.fullmatch(rf"size: {coded.stat().st_size:,} bytes, \d+\.\d+ bits per sample", lines[3])
    assert re.fullmatch(r"channels 0 and 1: \d+\.\d+ bits per sample", lines[4])
    assert lines[5] == "blocks: 3 of 0.40 s; by codec: linear 3"


def test_damage_is_named_and_gone_around(compress: ModuleType, song: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coded, back = song.with_suffix(".wsl"), song.with_suffix(".back")
    run(compress, "encode", song, coded, "--no-model", "--block-seconds", "0.25")
    data = bytearray(coded.read_bytes())
    data[len(data) * 3 // 8] ^= 1
    coded.write_bytes(data)
    capsys.readouterr()
    place = r"damaged in block 1 \(0\.25 to 0\.50 s\)"
    assert run(compress, "verify", coded) == 1
    assert re.fullmatch(rf"{coded}: {place}\n", capsys.readouterr().err)
    assert run(compress, "decode", coded, back) == 1
    assert re.fullmatch(rf"compress\.py: error: {coded}: {place}\n", capsys.readouterr().err)
    assert not back.exists()
    assert run(compress, "info", coded) == 1
    assert re.search(place, capsys.readouterr().err)
    assert run(compress, "decode", coded, back, "--keep-going") == 1
    assert re.fullmatch(rf"{coded}: {place}\n", capsys.readouterr().err)
    wanted = bytearray(song.read_bytes())
    start = wanted.index(b"data") + 8
    wanted[start + 4 * 2000 : start + 4 * 4000] = bytes(4 * 2000)
    assert back.read_bytes() == wanted


def test_verify_tells_the_sound_from_the_others(
    compress: ModuleType, song: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coded, cut = song.with_suffix(".wsl"), song.with_name("cut.wsl")
    run(compress, "encode", song, coded, "--no-model")
    cut.write_bytes(coded.read_bytes()[:-5])
    capsys.readouterr()
    assert run(compress, "verify", cut, coded, song) == 1
    said = capsys.readouterr()
    assert re.search(rf"{coded}: sound: every block decodes, and to the MD5 of its PCM", said.out)
    assert f"{cut}: truncated in block 0 (0.00 to 1.00 s)" in said.err
    assert f"{song}: not a coded file" in said.err


def test_a_part_is_decoded_from_its_block_on(
    compress: ModuleType, song: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coded, back = song.with_suffix(".wsl"), song.with_name("back.wav")
    run(compress, "encode", song, coded, "--no-model", "--block-seconds", "0.25")
    data = bytearray(coded.read_bytes())
    data[-1] ^= 0x10  # in the last block
    coded.write_bytes(data)
    assert run(compress, "decode", coded, back, "--start", "0.3", "--seconds", "0.4") == 0
    with AudioFile(song) as one, AudioFile(back) as other:
        assert np.array_equal(one.read(2400, 3200), other.read())
    assert run(compress, "decode", coded, back, "--start", "9", "--force") == 1
    assert f"{coded} lasts 1.00 s: nothing begins at second 9" in capsys.readouterr().err
    assert run(compress, "decode", coded, back, "--start", "0.3", "--force") == 1
    assert run(compress, "decode", coded, back, "--start", "0.3", "--keep-going", "--force") == 1
    with AudioFile(song) as one, AudioFile(back) as other:
        assert np.array_equal(one.read(2400, 3600), other.read()[:, :3600])
        assert not other.read()[:, 3600:].any()


def test_targets_are_not_written_over(compress: ModuleType, song: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coded, original = song.with_suffix(".wsl"), song.read_bytes()
    assert run(compress, "encode", song, coded, "--no-model") == 0
    assert run(compress, "decode", coded, song) == 1
    assert f"{song} exists already: --force writes over it" in capsys.readouterr().err
    assert run(compress, "decode", coded, song, "--force") == 0
    link, folder, nowhere = song.with_name("link.wav"), song.parent / "folder", song.parent / "no" / "x.wsl"
    link.symlink_to(song)
    folder.mkdir()
    os.mkfifo(song.parent / "pipe")
    for source, target, message in (
        (song, song, f"{song} is the file that is read"),
        (song, link, f"{link} is the file that is read"),
        (song, folder, f"{folder} is no regular file"),
        (song, Path(os.devnull), f"{os.devnull} is no regular file"),
        (song, nowhere, f"{nowhere} cannot be written: {nowhere.parent} is no folder"),
        (folder, coded, f"{folder} is no regular file: audio is read from files"),
        (song.parent / "pipe", coded, "pipe is no regular file"),
    ):
        assert run(compress, "encode", source, target, "--no-model", "--force") == 1
        assert message in capsys.readouterr().err
    assert run(compress, "decode", coded, coded, "--force") == 1
    assert song.read_bytes() == original
    link.unlink()
    link.symlink_to(coded)
    assert run(compress, "encode", song, link, "--no-model", "--force") == 0
    assert link.is_symlink()


def test_ctrl_c_leaves_nothing(
    compress: ModuleType, song: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextlib.contextmanager
    def interrupted(_: str) -> Iterator[tuple[object, object]]:
        yield lambda form, num_frames: None, lambda num_frames: signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(compress, "_progress", interrupted)
    with signal_handler(signal.default_int_handler):
        assert run(compress, "encode", song, song.with_suffix(".wsl"), "--no-model") == 130
    assert capsys.readouterr().err == "compress.py: stopped\n"
    assert list(song.parent.iterdir()) == [song]


@contextlib.contextmanager
def signal_handler(handler: Any) -> Iterator[None]:
    """For SIGINT; a shell that runs the tests in the background has it ignored."""
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_full_disk_leaves_what_was_there(
    compress: ModuleType, song: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coded = song.with_suffix(".wsl")
    coded.write_bytes(b"before")
    handler, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        assert run(compress, "encode", song, coded, "--no-model", "--force") == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert "File too large" in capsys.readouterr().err
    assert coded.read_bytes() == b"before"
    assert sorted(song.parent.iterdir()) == sorted([song, coded])


def test_missing_files_are_named(compress: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["encode", "--no-model"], ["decode"]):
        assert run(compress, command[0], tmp_path / "no.wav", tmp_path / "out", *command[1:]) == 1
        assert f"No such file or directory: '{tmp_path / 'no.wav'}'" in capsys.readouterr().err
    (tmp_path / "text.wav").write_text("no audio")
    assert run(compress, "encode", tmp_path / "text.wav", tmp_path / "out", "--no-model") == 1
    assert "text.wav" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [tmp_path / "text.wav"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required"),
        (["encode", "a", "b", "--block-seconds", "0"], "must be above 0 and no more than 1e+09, got 0"),
        (["decode", "a", "b", "--start", "-1"], "must be 0 or more and no more than 1e+09, got -1"),
        (["decode", "a", "b", "--start", "now"], "must be 0 or more and no more than 1e+09, got now"),
        (["decode", "a", "b", "--seconds", "1e308"], "must be above 0 and no more than 1e+09, got 1e308"),
        (["encode", "a", "b", "--run", "x", "--no-model"], "not allowed with argument"),
    ],
)
def test_wrong_use(
    compress: ModuleType, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        compress.main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_models_that_are_none(compress: ModuleType, song: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = song.with_name("x.safetensors")
    model.write_bytes(struct.pack("<Q", 2) + b"{}")
    assert run(compress, "encode", song, song.with_suffix(".wsl"), "--model", model) == 1
    assert "x.safetensors is no model file: its metadata has none of the keys" in capsys.readouterr().err
    assert run(compress, "encode", song, song.with_suffix(".wsl"), "--run", song.parent) == 1
    assert f"{song.parent} gives no model: " in capsys.readouterr().err


def test_blocks_of_slow_signals_are_long_enough_to_adapt(
    compress: ModuleType, song: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    song.write_bytes(wav_bytes(music(1, 3000), rate=10))
    assert run(compress, "encode", song, song.with_suffix(".wsl"), "--no-model") == 0
    assert "blocks: linear 1\n" in capsys.readouterr().out


def test_options_that_exclude_each_other(compress: ModuleType, song: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options in (["--bytes", "--embed"], ["--bytes", "--model", "x"], ["--no-model", "--embed"]):
        assert run(compress, "encode", song, song.with_suffix(".wsl"), *options) == 1
        assert f"{options[0]} " in capsys.readouterr().err


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
    monkeypatch.setattr(compress, "shipped_models", list)
    assert run(compress, "encode", song, coded, "--force") == 0
    assert "model: none, for none is in " in capsys.readouterr().out


def test_two_processes_and_other_threads(song: Path) -> None:
    """Encoded by one process and decoded by another, as a user would."""
    coded, back = song.with_suffix(".wsl"), song.with_name("back.wav")
    for threads, *arguments in (("1", "encode", song, coded, "--no-model"), ("3", "decode", coded, back)):
        command = [sys.executable, str(ROOT / "scripts" / "compress.py"), *map(str, arguments)]
        done = subprocess.run(
            command, env={**os.environ, "OMP_NUM_THREADS": threads}, cwd=song.parent, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert back.read_bytes() == song.read_bytes()


def test_progress_shows_the_speed(compress: ModuleType, song: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import rich.console

    screen = io.StringIO()
    plain = rich.console.Console

    def terminal(**_: object) -> rich.console.Console:
        return plain(file=screen, force_terminal=True, width=100)

    monkeypatch.setattr(rich.console, "Console", terminal)
    assert run(compress, "encode", song, song.with_suffix(".wsl"), "--no-model", "--block-seconds", "0.1") == 0
    assert re.search(r"encode.* x real time", screen.getvalue())


def small_model() -> bytes:
    """A small untrained residual language model as a file: it adapts, so it beats linear prediction on tones."""
    from codes.adaptive.cascade_options import AdaptiveOptions, CascadeOptions
    from codes.compression.residual_model import residual_model_bytes
    from codes.models.residual_lm import ResidualLm

    cascade = CascadeOptions(own_taps=16, other_taps=4, filter_taps=[16], filter_rates=[0.02])
    adaptive = AdaptiveOptions(cascades=[cascade], own_history=2, other_history=1)
    network = ResidualLm(features=adaptive.num_features, offsets=1, hidden=4, mixtures=2)
    tensors = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    return residual_model_bytes(tensors, adaptive, 2, {"made by": "a test"})


@pytest.fixture(scope="module")
def model() -> bytes:
    return small_model()


@pytest.fixture
def no_kept_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("WAVESCHOOL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


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
    kept.unlink()
    assert run(compress, "decode", coded, song.with_name("back.wav")) == 1
    assert f"{coded}: needs the model {kept.stem[:32]}, which is not embedded and not in " in capsys.readouterr().err
    for place in (elsewhere, elsewhere / "m.safetensors"):
        assert run(compress, "decode", coded, song.with_name("back.wav"), "--model", place, "--force") == 0
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
