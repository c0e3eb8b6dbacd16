"""The index: right figures and hashes, refreshed when and only when files change, every trouble named."""

import hashlib
import io
import json
import os
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codes.data.audio.listing import file_progress, index
from codes.data.audio.listing.file_progress import FileProgress
from codes.data.audio.listing.index import (
    Index,
    build_index,
    hash_file,
    read_index,
    remember_hashes,
    write_index,
)
from codes.data.audio.listing.index_entry import from_record, to_record
from codes.data.audio.listing.manifest_record import ManifestError
from codes.data.audio.listing.probe_process import ProbeProcesses
from codes.data.audio.listing.walk import Candidate
from tests.data.audio.coded_audio import write_silent_video


def write(path: Path, num_frames: int = 100, channels: int = 2, rate_hz: int = 8000, subtype: str = "PCM_16") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = int.from_bytes(hashlib.sha256(os.fsencode(path)).digest()[:4], "big")
    pcm = np.random.default_rng(seed).integers(-1000, 1000, (num_frames, channels)).astype(np.int16)
    with path.open("wb") as file:
        soundfile.write(file, pcm, rate_hz, subtype=subtype, format=path.suffix[1:].upper())
    return path


def names(found: Index) -> list[str]:
    return [entry.relative for entry in found.entries]


@pytest.fixture
def stranger() -> Iterator[Path]:
    """A folder of a user without special rights; the test runs as that user."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        is_root = hasattr(os, "geteuid") and os.geteuid() == 0
        try:
            if is_root:
                os.seteuid(65534)
            yield folder
        finally:
            if is_root:
                os.seteuid(0)
            for path in folder.rglob("*"):
                path.chmod(0o777)


def test_figures_hashes_and_equal_names(tmp_path: Path) -> None:
    write(tmp_path / "b" / "x.wav", 300, channels=1, rate_hz=44100, subtype="PCM_24")
    write(tmp_path / "a" / "x.wav", 200)
    write(tmp_path / "x.flac", 150, channels=3)
    found = build_index([tmp_path])
    assert names(found) == ["a/x.wav", "b/x.wav", "x.flac"]
    infos = [entry.info for entry in found.entries]
    assert [(i.num_frames, i.sample_rate_hz, i.bits, i.num_channels) for i in infos] == [
        (200, 8000, 16, 2),
        (300, 44100, 24, 1),
        (150, 8000, 16, 3),
    ]
    for entry in found.entries:
        assert entry.path == tmp_path / entry.relative
        assert entry.content_hash == hashlib.sha256(entry.path.read_bytes()).hexdigest()
        assert (entry.size_bytes, entry.mtime_ns) == (entry.path.stat().st_size, entry.path.stat().st_mtime_ns)
    assert found.errors == found.left_out == {}


def test_two_folders_may_hold_equal_relative_paths(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one" / "x.wav"), write(tmp_path / "two" / "x.wav")
    found = build_index([tmp_path / "two", tmp_path / "one"])
    assert names(found) == ["x.wav", "x.wav"]
    assert [entry.path for entry in found.entries] == [one, two]


def test_workers_change_nothing(tmp_path: Path) -> None:
    for number in range(50):
        write(tmp_path / f"{number % 7}" / f"{number}.wav", 10 + number)
    (tmp_path / "3" / "bad.wav").write_bytes(b"RIFF")
    alone, many = (build_index([tmp_path], workers=workers) for workers in (1, 13))
    assert alone == many
    assert len(alone.entries) == 50
    with pytest.raises(ValueError, match="workers is 0, it must be at least 1"):
        build_index([tmp_path], workers=0)


def test_without_hashes_they_are_made_later(tmp_path: Path) -> None:
    write(tmp_path / "x.wav")
    known = tmp_path / "known.jsonl"
    (entry,) = build_index([tmp_path], known=known, hashes=False).entries
    assert entry.content_hash is None
    found = build_index([tmp_path], known=known)
    assert (found.num_known, found.entries[0].content_hash) == (0, hash_file(tmp_path / "x.wav"))
    found = build_index([tmp_path], known=known, hashes=False)
    assert (found.num_known, found.entries[0].content_hash) == (1, hash_file(tmp_path / "x.wav"))


def test_hashes_outlive_a_refresh_without_them(tmp_path: Path) -> None:
    for name in ("kept", "changed"):
        write(tmp_path / f"{name}.wav")
    known = tmp_path / "known.jsonl"
    build_index([tmp_path], known=known)
    write(tmp_path / "changed.wav", 101)
    build_index([tmp_path], known=known, hashes=False)
    assert [entry.content_hash for entry in read_index(known).entries] == [None, hash_file(tmp_path / "kept.wav")]


def test_hashes_made_later_are_remembered(tmp_path: Path) -> None:
    for name in ("changed", "gone", "had", "new", "unasked"):
        write(tmp_path / f"{name}.wav")
    known = tmp_path / "known.jsonl"
    entries = build_index([tmp_path], known=known, hashes=False).entries
    entries = [replace(entry, content_hash="first") if entry.path.stem == "had" else entry for entry in entries]
    write_index(known, Index(entries=entries))
    os.utime(tmp_path / "changed.wav", ns=(1, 1))
    (tmp_path / "gone.wav").unlink()
    made = {tmp_path / f"{name}.wav": "made" for name in ("changed", "gone", "had", "new", "elsewhere")}
    remember_hashes(known, made)
    after = read_index(known).entries
    assert [entry.content_hash for entry in after] == [None, None, "first", "made", None]
    assert [replace(entry, content_hash=None) for entry in after] == [
        replace(entry, content_hash=None) for entry in entries
    ]
    os.utime(known, ns=(1, 1))
    remember_hashes(known, made)
    assert known.stat().st_mtime_ns == 1  # nothing new: not written again
    assert list(tmp_path.glob(".*")) == []


def test_hashes_go_into_an_index_only(tmp_path: Path) -> None:
    remember_hashes(tmp_path / "missing.jsonl", {tmp_path / "x.wav": "made"})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "other.jsonl").write_text('{"a.wav": 100}')
    remember_hashes(tmp_path / "other.jsonl", {tmp_path / "x.wav": "made"})
    assert (tmp_path / "other.jsonl").read_text() == '{"a.wav": 100}'


def test_an_index_in_an_impossible_place_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "x.wav")
    help_text = "; name a file for it in a folder that you can write to"
    for known, message in (
        (path / "index.jsonl", rf"the index .*x\.wav/index\.jsonl cannot be written: .*{help_text}"),
        (tmp_path, f"the index {tmp_path} cannot be read: Is a directory{help_text}"),
        (Path("/proc/nowhere/index.jsonl"), rf"index /proc/nowhere/index\.jsonl cannot be written: .*{help_text}"),
    ):
        with pytest.raises(OSError, match=message):
            build_index([path], known=known)
    with pytest.raises(OSError, match="cannot be read: Is a directory; name a file"):
        remember_hashes(tmp_path, {path: "made"})


def test_refresh_opens_what_changed_and_nothing_else(tmp_path: Path) -> None:
    for name in ("same", "longer", "touched", "gone"):
        write(tmp_path / "music" / f"{name}.wav")
    known = tmp_path / "run" / "index.jsonl"
    build_index([tmp_path / "music"], known=known)
    mark = "of the earlier index"  # so that one sees what is taken from there
    write_index(known, Index(entries=[replace(entry, content_hash=mark) for entry in read_index(known).entries]))

    write(tmp_path / "music" / "longer.wav", 101)
    os.utime(tmp_path / "music" / "touched.wav", ns=(1, 1))
    (tmp_path / "music" / "gone.wav").unlink()
    write(tmp_path / "music" / "new.wav")
    found = build_index([tmp_path / "music"], known=known)
    assert names(found) == ["longer.wav", "new.wav", "same.wav", "touched.wav"]
    assert [entry.content_hash == mark for entry in found.entries] == [False, False, True, False]
    assert found.num_known == 1
    assert found.entries[0].info.num_frames == 101
    assert read_index(known).entries == found.entries


def test_an_unchanged_index_is_not_written_again(tmp_path: Path) -> None:
    write(tmp_path / "x.wav")
    known = tmp_path / "index.jsonl"
    first = build_index([tmp_path], known=known)
    os.utime(known, ns=(1, 1))
    second = build_index([tmp_path], known=known)
    assert known.stat().st_mtime_ns == 1
    assert second.entries == first.entries
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


def test_an_index_serves_other_roots(tmp_path: Path) -> None:
    write(tmp_path / "music" / "x.wav")
    known = tmp_path / "index.jsonl"
    assert names(build_index([tmp_path], known=known)) == ["music/x.wav"]
    found = build_index([tmp_path / "music"], known=known)
    assert (names(found), found.num_known) == (["x.wav"], 1)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a.wav": 100}', r"known\.jsonl, key 'a\.wav': is not of an index"),
        ("hello", r"known\.jsonl, line 1: is not JSON .*'hello'"),
        ('{"relative": "x", "num_frames": -1}', r"line 1: is not of an index: num_frames is -1, a whole number from 1"),
    ],
)
def test_a_file_that_is_no_index_is_left_alone(tmp_path: Path, text: str, reason: str) -> None:
    write(tmp_path / "x.wav")
    known = tmp_path / "known.jsonl"
    known.write_text(text)
    with pytest.raises(ManifestError, match=reason + ".*it is left as it is: name another file"):
        build_index([tmp_path], known=known)
    assert known.read_text() == text


def test_every_key_of_a_line_is_checked(tmp_path: Path) -> None:
    write(tmp_path / "x.wav")
    (entry,) = build_index([tmp_path]).entries
    good = to_record(entry)
    path = tmp_path / "index.jsonl"
    texts, numbers = ["", None, 1, True, []], ["", None, -1.5, True, []]
    wrongs = {key: texts if isinstance(value, str) else numbers for key, value in good.items()}
    wrongs |= {key: ["", None, 1] for key in ("lossy", "seeks")}
    wrongs |= {key: ["", 1, True, []] for key in ("content_hash", "mark")}
    for key, values in wrongs.items():
        for wrong in values:
            path.write_text(json.dumps({**good, key: wrong}) + "\n")
            with pytest.raises(ManifestError, match=f"line 1: is not of an index: {key} is "):
                read_index(path)


@pytest.mark.parametrize("lossy", [False, True])
def test_a_line_that_does_not_tell_how_the_file_is_sought(tmp_path: Path, lossy: bool) -> None:
    write(tmp_path / "x.wav")
    (entry,) = build_index([tmp_path]).entries
    record = {**to_record(entry), "lossy": lossy}
    assert record["seeks"] is True
    assert not from_record({**record, "seeks": False}).info.seeks
    del record["seeks"]
    assert from_record(record).info.seeks is not lossy


def test_names_that_are_no_utf8_come_back(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9 \xff.wav")
    try:
        write(tmp_path / name)
    except OSError:
        pytest.skip("this file system keeps names in UTF-8")
    known = tmp_path / "index.jsonl"
    first = build_index([tmp_path], known=known)
    assert names(first) == [name]
    assert known.read_bytes().isascii()
    again = build_index([tmp_path], known=known)
    assert (again.entries, again.num_known) == (first.entries, 1)
    assert build_index([known]).entries[0].path == tmp_path / name


def test_names_as_long_as_the_file_system_takes(tmp_path: Path) -> None:
    write(tmp_path / f"{'x' * 251}.wav")
    assert names(build_index([tmp_path])) == [f"{'x' * 251}.wav"]


def test_links_that_lead_nowhere_are_errors(tmp_path: Path) -> None:
    write(tmp_path / "good.wav")
    (tmp_path / "broken.wav").symlink_to("missing.wav")
    (tmp_path / "circle.wav").symlink_to("circle.wav")
    (tmp_path / "broken.txt").symlink_to("missing.txt")
    found = build_index([tmp_path])
    assert names(found) == ["good.wav"]
    assert found.errors[tmp_path / "broken.wav"].endswith("broken.wav: is a broken link: missing.wav does not exist")
    assert "circle.wav: is a link that leads nowhere: " in found.errors[tmp_path / "circle.wav"]
    assert list(found.left_out) == ["not audio by its name (.txt)"]


def test_what_is_no_file_is_left_out_and_never_opened(tmp_path: Path) -> None:
    write(tmp_path / "good.wav")
    os.mkfifo(tmp_path / "pipe.wav")  # to open it would wait for ever
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.wav"))
        found = build_index([tmp_path])
    (tmp_path / "device.wav").symlink_to("/dev/null")
    assert names(found) == ["good.wav"]
    assert {reason: [path.name for path in paths] for reason, paths in found.left_out.items()} == {
        "not a file but a named pipe": ["pipe.wav"],
        "not a file but a socket": ["socket.wav"],
    }
    assert build_index([tmp_path]).left_out["not a file but a device"] == [tmp_path / "device.wav"]
    with pytest.raises(ValueError, match=r"pipe\.wav is a named pipe: give a folder"):
        build_index([tmp_path / "pipe.wav"])


def test_roots_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing does not exist: give a folder"):
        build_index([tmp_path / "missing"])
    (tmp_path / "link").symlink_to("missing")
    with pytest.raises(FileNotFoundError, match=r"link does not exist \(it is a broken link\)"):
        build_index([tmp_path / "link"])


def test_nothing_found_is_an_empty_index(tmp_path: Path) -> None:
    assert build_index([tmp_path]) == Index()


def test_files_that_may_not_be_read(stranger: Path) -> None:
    write(stranger / "good.wav")
    write(stranger / "secret.wav").chmod(0)
    write(stranger / "closed" / "x.wav")
    (stranger / "closed").chmod(0)
    found = build_index([stranger])
    assert names(found) == ["good.wav"]
    assert "Permission denied" in found.errors[stranger / "secret.wav"]
    assert f"{stranger / 'closed'}: the folder cannot be listed: Permission denied" in found.errors.values()


def test_a_file_that_grows_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "x.wav")
    before = Candidate(relative="x.wav", path=path, size_bytes=3, mtime_ns=path.stat().st_mtime_ns)
    job = index._Job(candidate=before, earlier=None)
    with ProbeProcesses(0, 0) as processes:
        assert index._examine(job, True, None, processes) == f"{path}: changed while it was read"
        path.unlink()
        assert index._examine(job, False, None, processes) == f"{path}: cannot be opened: No such file or directory"


def test_floating_point_files_by_the_depth_asked_for(tmp_path: Path) -> None:
    with (tmp_path / "x.wav").open("wb") as file:
        soundfile.write(file, np.zeros(100), 8000, subtype="FLOAT", format="WAV")
    known = tmp_path / "index.jsonl"
    assert "floating point" in build_index([tmp_path], known=known).errors[tmp_path / "x.wav"]
    for bits in (16, 24):
        found = build_index([tmp_path], known=known, float_bits=bits)
        assert (found.entries[0].info.bits, found.num_known) == (bits, 0)
    assert build_index([tmp_path], known=known, float_bits=24).num_known == 1
    assert build_index([tmp_path], known=known).errors


def test_video_without_sound_is_left_out(tmp_path: Path) -> None:
    write_silent_video(tmp_path / "silent.mp4")
    found = build_index([tmp_path])
    assert (found.entries, found.errors) == ([], {})
    assert found.left_out == {"of video without sound": [tmp_path / "silent.mp4"]}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_and_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_progress, "_SECONDS_BETWEEN_LINES", 0.0)
    plain, terminal, hidden, quick = io.StringIO(), Terminal(), io.StringIO(), io.StringIO()
    for stream, shown in ((plain, True), (terminal, True), (hidden, False)):
        with FileProgress("indexing", 3, shown=shown, stream=stream) as bar:
            bar.advance()
            bar.advance(2)
    assert plain.getvalue().startswith("indexing: 1 of 3 files, ")
    assert "indexing: 3 of 3 files" in plain.getvalue()
    assert "3/3" in terminal.getvalue()
    assert hidden.getvalue() == ""
    monkeypatch.undo()
    with FileProgress("indexing", 3, stream=quick) as bar:
        bar.advance(3)
    assert quick.getvalue() == ""
