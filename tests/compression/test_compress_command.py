"""scripts/compress.py: what it says, and what it does with damage, wrong use, Ctrl-C and a full disk."""

import contextlib
import io
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from codes.data.audio.reader import AudioFile
from tests.compression.compress_runs import ROOT, run


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing(
    compress: ModuleType,
    song: Path,
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    @contextlib.contextmanager
    def interrupted(_: str) -> Iterator[tuple[object, object]]:
        yield lambda form, num_frames: None, lambda num_frames: signal.raise_signal(number)

    monkeypatch.setattr(compress, "_progress", interrupted)
    usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    with signal_handler(number, usual):
        assert run(compress, "encode", song, song.with_suffix(".wsl"), "--no-model") == 128 + number
    assert capsys.readouterr().err == "compress.py: stopped\n"
    assert list(song.parent.iterdir()) == [song]


@contextlib.contextmanager
def signal_handler(number: signal.Signals, handler: Any) -> Iterator[None]:
    """What a shell or nohup that runs the tests in the background may have had ignored."""
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


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


def test_options_that_exclude_each_other(compress: ModuleType, song: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options in (["--bytes", "--embed"], ["--bytes", "--model", "x"], ["--no-model", "--embed"]):
        assert run(compress, "encode", song, song.with_suffix(".wsl"), *options) == 1
        assert f"{options[0]} " in capsys.readouterr().err


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


def test_a_reader_that_stops_is_no_error(
    compress: ModuleType, song: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `info FILE | head -1` does."""
    run(compress, "encode", song, song.with_suffix(".wsl"), "--no-model")
    capsys.readouterr()
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", buffering=1) as closed, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", closed)
        assert run(compress, "info", song.with_suffix(".wsl")) == 128 + signal.SIGPIPE
        assert sys.stdout is not closed
        sys.stdout.close()
        with pytest.raises(BrokenPipeError):
            closed.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), writer)  # what is still in it goes somewhere
    assert capsys.readouterr().err == ""


def test_progress_shows_the_speed(compress: ModuleType, song: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import rich.console

    screen = io.StringIO()
    plain = rich.console.Console

    def terminal(**_: object) -> rich.console.Console:
        return plain(file=screen, force_terminal=True, width=100)

    monkeypatch.setattr(rich.console, "Console", terminal)
    assert run(compress, "encode", song, song.with_suffix(".wsl"), "--no-model", "--block-seconds", "0.1") == 0
    assert re.search(r"encode.* x real time", screen.getvalue())
