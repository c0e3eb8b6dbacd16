"""The command line of the index: what it writes, what it says, how it ends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codes.data.audio.listing.index import build_index, read_index
from scripts.index_audio import main

ROOT = Path(__file__).resolve().parents[1]


def audio(path: Path, num_frames: int = 8000, channels: int = 1, subtype: str = "PCM_16") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros((num_frames, channels), np.int16), 8000, subtype=subtype)
    return path


@pytest.fixture
def music(tmp_path: Path) -> Path:
    audio(tmp_path / "music" / "a.wav", 3600 * 8000 // 4)
    audio(tmp_path / "music" / "b" / "a.wav", 8000, 2)
    audio(tmp_path / "music" / "c.flac", 8000, 2, "PCM_24")
    (tmp_path / "music" / "cover.jpg").touch()
    return tmp_path / "music"


def test_list_on_stdout_and_summary_on_stderr(music: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(music)]) == 0
    out, err = capsys.readouterr()
    records = [json.loads(line) for line in out.splitlines()]
    assert [record["relative"] for record in records] == ["a.wav", "b/a.wav", "c.flac"]
    assert records[2]["bits"] == 24
    assert len(records[0]["content_hash"]) == 64
    assert err.splitlines() == [
        "left out: 1 file not audio by its name (.jpg)",
        "found: 3 files, 0.25 hours",
        "rate: 8000 Hz (3)",
        "depth: 16 bits (2), 24 bits (1)",
        "channels: 2 (2), 1 (1)",
        f"format: {records[0]['format']} (2), {records[2]['format']} (1)",
    ]


def test_unreadable_files_are_listed_and_counted(music: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("empty1.wav", "empty2.wav"):
        (music / name).touch()
    (music / "broken.wav").symlink_to("missing.wav")
    assert main([str(music), "--no-hashes"]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3
    assert json.loads(out.splitlines()[0])["content_hash"] is None
    told = err.splitlines()
    assert told[0].endswith("broken.wav: is a broken link: missing.wav does not exist")
    assert f"cannot be read: {music / 'empty1.wav'}: is empty (0 bytes)" in told
    assert told[-1] == "errors: is empty (2), is a broken link (1)"


def test_an_index_is_refreshed_where_it_is(music: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = music.parent / "index.jsonl"
    for known in ("", ", 3 of them unchanged since the earlier index"):
        assert main([str(music), "--out", str(out)]) == 0
        assert f"found: 3 files, 0.25 hours{known}\n" in capsys.readouterr().err
    (music / "c.flac").unlink()
    assert main([str(music), "--out", str(out)]) == 0
    assert "found: 2 files, 0.25 hours, 2 of them unchanged" in capsys.readouterr().err
    assert read_index(out).entries == build_index([music]).entries


def test_known_and_another_form(music: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known, out = music.parent / "known.jsonl", music.parent / "lengths.json"
    arguments = [str(music), "--known", str(known), "--out", str(out), "--format", "lengths", "--workers", "2"]
    assert main(arguments) == main(arguments) == 0
    assert "3 of them unchanged" in capsys.readouterr().err
    assert json.loads(out.read_text()) == {"a.wav": 7_200_000, "b/a.wav": 8000, "c.flac": 8000}
    assert len(read_index(known).entries) == 3
    assert main([str(out), "--root", str(music)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_a_list_that_lies_is_an_error(music: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (music / "lengths.json").write_text('{"a.wav": 5, "c.flac": 8000}')
    assert main([str(music / "lengths.json")]) == 1
    told = capsys.readouterr().err.splitlines()
    assert "key 'a.wav': says 5 frames" in told[0]
    assert told[-1] == "errors: not as the list says (1)"


def test_floating_point_files(music: Path, capsys: pytest.CaptureFixture[str]) -> None:
    audio(music / "f.wav", subtype="FLOAT")
    assert main([str(music)]) == 1
    assert "floating point" in capsys.readouterr().err
    assert main([str(music), "--float-bits", "24"]) == 0
    assert "24 bits (2)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "missing does not exist: give a folder of audio files"),
        (["empty"], "no audio in empty: there is no file at all"),
        (["empty", "--workers", "0"], "workers is 0, it must be at least 1"),
        (["music", "--format", "nemo", "--out", "music/a/b"], "index_audio.py: error: "),
        (["music", "--known", "lengths.json"], "key 'a.wav': is not of an index"),
        (["music", "--out", "lengths.json"], "it is left as it is: name another file, or take this one away"),
        (["broken.json"], "line 1: is not JSON"),
    ],
)
def test_wrong_use(
    music: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(music.parent)
    Path("empty").mkdir()
    Path("lengths.json").write_text('{"a.wav": 5}')
    Path("broken.json").write_text("[")
    (music / "a").touch()  # a file where a folder is wanted
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1
    assert Path("lengths.json").read_text() == '{"a.wav": 5}'


@pytest.mark.parametrize("arguments", [[], ["music", "--format", "csv"], ["music", "--workers", "many"]])
def test_options_that_are_not_there(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: index_audio.py" in capsys.readouterr().err


def test_as_a_process_with_a_name_that_is_no_utf8_and_a_reader_that_leaves(music: Path) -> None:
    try:
        (music / os.fsdecode(b"\xff.wav")).touch()
    except OSError:
        pytest.skip("this file system keeps names in UTF-8")
    command = [sys.executable, str(ROOT / "scripts" / "index_audio.py"), str(music)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        told = process.stderr.read().decode()
    assert process.returncode == 1
    assert "\\udcff.wav: is empty (0 bytes)" in told
    assert "Broken pipe" not in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "nowhere/x.jsonl"], "nowhere does not exist"),
        (["--out", "."], "is a folder, give the name of a file in it"),
        (["--root", "nowhere"], "--root: nowhere is not a folder"),
    ],
)
def test_places_that_cannot_be_meant(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([str(tmp_path), *options]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", ["lengths", "trilobyte"])
def test_files_of_two_folders_are_named_by_whole_paths(
    form: str, music: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    audio(music.parent / "speech" / "d.wav")
    monkeypatch.chdir(music.parent)
    assert main(["music", "speech", "--format", form, "--out", "list.json"]) == 0
    wanted = [music / "a.wav", music / "b" / "a.wav", music / "c.flac", music.parent / "speech" / "d.wav"]
    assert sorted(json.loads(Path("list.json").read_text())) == sorted(map(str, wanted))
    capsys.readouterr()
    monkeypatch.chdir(music)
    assert main([str(music.parent / "list.json")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4


@pytest.mark.parametrize(("name", "noted"), [("list.txt", True), ("list.JSON", False), ("list.json.gz", False)])
def test_a_name_that_is_not_taken_for_a_list(
    name: str, noted: bool, music: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(music), "--format", "lengths", "--out", str(music.parent / name)]) == 0
    assert (f"note: {name} is taken for a list, as a dataset's path, only with" in capsys.readouterr().err) == noted
