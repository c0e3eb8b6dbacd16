"""Finding audio files: everything is counted, whatever is left out."""

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codes.data.audio.listing.folder import scan
from codes.data.audio.reader import AudioReadError


def write(path: Path, num_frames: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros((num_frames, 2), np.int16), 8000)
    return path


def test_searches_below_sorts_and_counts_what_it_leaves_out(tmp_path: Path):
    for name in ("b/2.FLAC", "b/1.wav", "a.aiff", ".hidden.wav", ".git/x.wav"):
        write(tmp_path / name)
    (tmp_path / "cover.jpg").touch()
    (tmp_path / "b" / "notes").touch()
    result = scan([tmp_path])
    assert [file.relative for file in result.files] == ["a.aiff", "b/1.wav", "b/2.FLAC"]
    assert {reason: [path.name for path in paths] for reason, paths in result.left_out.items()} == {
        "hidden": [".hidden.wav"],
        "not audio by its name (.jpg)": ["cover.jpg"],
        "not audio by its name (no extension)": ["notes"],
    }


def test_files_and_several_folders_each_file_once(tmp_path: Path):
    one = write(tmp_path / "x" / "one.wav")
    write(tmp_path / "y" / "two.wav")
    (tmp_path / "x" / "loop").symlink_to(tmp_path / "x")
    result = scan([tmp_path / "x", tmp_path / "y", one])
    assert [file.relative for file in result.files] == ["one.wav", "two.wav"]
    assert result.left_out == {"found twice": [one]}


def test_hard_links_count_once_and_copies_each(tmp_path: Path):
    first = write(tmp_path / "a.wav")
    os.link(first, tmp_path / "b.wav")
    shutil.copy(first, tmp_path / "c.wav")
    result = scan([tmp_path])
    assert [file.relative for file in result.files] == ["a.wav", "c.wav"]
    assert result.left_out == {"found twice": [tmp_path / "b.wav"]}


def test_errors_name_what_is_there(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="missing does not exist: give a folder"):
        scan([tmp_path / "missing"])
    with pytest.raises(ValueError, match=r"no audio in .*: there is no file at all"):
        scan([tmp_path])
    for name in ("a.txt", "b.txt", "c.mid"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"no audio in .*: found 2 \.txt, 1 \.mid; looked for \.wav"):
        scan([tmp_path])
    with pytest.raises(ValueError, match="no audio in an empty list of folders"):
        scan([])


def test_unreadable_files_are_named_and_counted(tmp_path: Path):
    write(tmp_path / "good.wav")
    (tmp_path / "bad1.wav").write_bytes(b"x" * 100)
    (tmp_path / "bad2.wav").touch()
    expected = r"bad1\.wav: is not audio.*\(and 1 more of 3 files cannot be read\)"
    with pytest.raises(AudioReadError, match=expected):
        scan([tmp_path])


def test_unreadable_files_are_collected_when_asked(tmp_path: Path):
    write(tmp_path / "good.wav")
    (tmp_path / "bad.wav").write_bytes(b"x" * 100)
    (tmp_path / "broken.wav").symlink_to("missing.wav")
    result = scan([tmp_path], on_error="collect")
    assert [file.relative for file in result.files] == ["good.wav"]
    assert list(result.errors) == [tmp_path / "bad.wav", tmp_path / "broken.wav"]
    assert all(message.startswith(f"{path}: ") for path, message in result.errors.items())
    (tmp_path / "good.wav").unlink()
    with pytest.raises(AudioReadError, match=r"bad\.wav: .*\(and 1 more of 2 files cannot be read\)"):
        scan([tmp_path], on_error="collect")


def test_files_carry_what_tells_whether_they_changed(tmp_path: Path):
    path = write(tmp_path / "a.wav")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (plain,) = scan([tmp_path]).files
    assert (plain.content_hash, plain.hashed()) == (None, digest)
    assert (plain.size_bytes, plain.mtime_ns) == (path.stat().st_size, path.stat().st_mtime_ns)
    (hashed,) = scan([tmp_path], hashes=True, known=tmp_path / "index.jsonl").files
    assert hashed.content_hash == hashed.hashed() == digest
    (again,) = scan([tmp_path], known=tmp_path / "index.jsonl").files
    assert again == hashed
    path.unlink()
    assert hashed.hashed() == digest
    with pytest.raises(AudioReadError, match=r"a\.wav: cannot be read: No such file"):
        plain.hashed()
