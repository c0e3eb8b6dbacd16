"""Unpacking: what good archives hold comes out, and nothing of bad ones does."""

import gzip
import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from codes.data import archives
from codes.data.archives import ArchiveError, extract

FILES = {
    "corpus/a.txt": b"first",
    "corpus/deep/b c.bin": bytes(range(256)) * 999,
    "corpus/é?.txt": b"",
    "top.txt": b"!",
}


def tar(path: Path, members: dict[str, bytes] | list[tarfile.TarInfo], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as packed:  # pyright: ignore[reportArgumentType, reportCallIssue]
        if isinstance(members, dict):
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                packed.addfile(info, io.BytesIO(content))
        else:
            for info in members:
                packed.addfile(info)
    return path


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return path


def special(kind: bytes, name: str = "x", target: str = "/etc/passwd") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


MAKERS: list[tuple[str, Callable[[Path], Path]]] = [
    ("gz", lambda path: tar(path, FILES, "w:gz")),
    ("bz2", lambda path: tar(path, FILES, "w:bz2")),
    ("xz", lambda path: tar(path, FILES, "w:xz")),
    ("tar", lambda path: tar(path, FILES, "w:")),
    ("zip", lambda path: zipped(path, FILES)),
]


@pytest.mark.parametrize("make", [make for _, make in MAKERS], ids=[name for name, _ in MAKERS])
def test_whole_archives(tmp_path: Path, make: Callable[[Path], Path]):
    archive = make(tmp_path / "archive")
    extract(archive, tmp_path / "new" / "place", most_bytes=10**6)
    assert tree(tmp_path / "new" / "place") == FILES
    assert stat.S_IMODE((tmp_path / "new" / "place").stat().st_mode) & 0o700 == 0o700
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["place"]


def test_into_folders_that_are_there(tmp_path: Path):
    (tmp_path / "place" / "corpus").mkdir(parents=True)
    (tmp_path / "place" / "corpus" / "mine.txt").write_bytes(b"mine")
    (tmp_path / "place" / "top.txt").write_bytes(b"!")
    extract(tar(tmp_path / "archive", FILES), tmp_path / "place", most_bytes=10**6)
    assert tree(tmp_path / "place") == {**FILES, "corpus/mine.txt": b"mine"}
    (tmp_path / "place" / "top.txt").write_bytes(b"another")
    with pytest.raises(ArchiveError, match=r"top\.txt is there already, and is not written over"):
        extract(tmp_path / "archive", tmp_path / "place", most_bytes=10**6)
    assert (tmp_path / "place" / "top.txt").read_bytes() == b"another"


def test_a_clash_leaves_the_folder_as_it_was(tmp_path: Path):
    place = tmp_path / "place"
    (place / "corpus" / "deep").mkdir(parents=True)
    (place / "corpus" / "deep" / "b c.bin").write_bytes(b"mine")
    with pytest.raises(ArchiveError, match=r"b c\.bin is there already, and is not written over"):
        extract(tar(tmp_path / "archive", FILES), place, most_bytes=10**6)
    assert tree(place) == {"corpus/deep/b c.bin": b"mine"}
    assert sorted(path.name for path in place.iterdir()) == ["corpus"]


def test_a_move_that_fails_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    place, rename = tmp_path / "place", Path.rename
    (place / "corpus").mkdir(parents=True)

    def failing(path: Path, target: Path) -> Path:
        if target == place / "top.txt":
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(ArchiveError, match=r"archive: cannot be put into .*place: No space left on device"):
        extract(tar(tmp_path / "archive", FILES), place, most_bytes=10**6)
    assert [path.relative_to(place) for path in place.rglob("*")] == [Path("corpus")]


@pytest.mark.parametrize("make", [tar, zipped])
@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("shape", ["files", "folders", "one folder again", "folders above files"])
def test_files_and_folders_are_counted(
    tmp_path: Path, make: Callable[..., Path], shape: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(archives, "_MOST_MEMBERS", 12)
    names = {
        "files": [f"{n}" for n in range(13)],
        "folders": [f"{n}/" for n in range(13)],
        "one folder again": ["a/"] * 13,
        "folders above files": ["a/b/c/d/e/x", "b/b/c/d/e/f/x"],
    }[shape]
    for count, is_allowed in ((len(names), False), (len(names) - 1, True)):
        archive = tmp_path / f"archive{count}"
        if make is tar:
            infos = [tarfile.TarInfo(name.rstrip("/")) for name in names[:count]]
            for info, name in zip(infos, names, strict=False):
                info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            tar(archive, infos)
        else:
            with zipfile.ZipFile(archive, "w") as packed:
                for name in names[:count]:
                    packed.writestr(zipfile.ZipInfo(name), b"")
        if is_allowed:
            extract(archive, tmp_path / "good", most_bytes=10)
            continue
        with pytest.raises(ArchiveError, match="has more than 12 files and folders"):
            extract(archive, tmp_path / "place", most_bytes=10)
        assert not (tmp_path / "place").exists()


def test_what_follows_the_end_of_a_tar_is_limited(tmp_path: Path):
    tar(tmp_path / "plain", FILES, "w:")
    content = (tmp_path / "plain").read_bytes()
    for num_more, is_allowed in ((1 << 20, True), (40 << 20, False)):
        archive = tmp_path / f"{num_more}.tar.gz"
        archive.write_bytes(gzip.compress(content + bytes(num_more), compresslevel=6))
        if is_allowed:
            extract(archive, tmp_path / "good", most_bytes=10**6)
            assert tree(tmp_path / "good") == FILES
            continue
        with pytest.raises(ArchiveError, match="more than 16,777,216 bytes on end in it belong to none of its files"):
            extract(archive, tmp_path / "place", most_bytes=10**6)
        assert not (tmp_path / "place").exists()


def test_headers_of_a_tar_are_limited(tmp_path: Path):
    info = tarfile.TarInfo("x")
    info.pax_headers = {"comment": "x" * (20 << 20)}
    with tarfile.open(tmp_path / "archive", "w:gz", format=tarfile.PAX_FORMAT) as packed:
        packed.addfile(info)
    with pytest.raises(ArchiveError, match="bytes on end in it belong to none of its files"):
        extract(tmp_path / "archive", tmp_path / "place", most_bytes=10**6)


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/tmp/evil", "a\\..\\evil", "C:/evil", "a\nb", ".."])
@pytest.mark.parametrize("make", [tar, zipped])
def test_names_that_lead_elsewhere(tmp_path: Path, name: str, make: Callable[..., Path]):
    archive = make(tmp_path / "archive", {"good": b"1", name: b"2"})
    with pytest.raises(ArchiveError, match="a name that leads elsewhere or is not safe; nothing is unpacked"):
        extract(archive, tmp_path / "place", most_bytes=10**6)
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_tar(tmp_path: Path, kind: bytes):
    archive = tar(tmp_path / "archive", [special(kind)])
    with pytest.raises(ArchiveError, match="holds 'x', which is neither file nor folder: a link"):
        extract(archive, tmp_path / "place", most_bytes=10**6)
    assert not (tmp_path / "place").exists()


def test_links_in_zip(tmp_path: Path):
    info = zipfile.ZipInfo("x")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "archive", "w") as packed:
        packed.writestr(info, "/etc/passwd")
    with pytest.raises(ArchiveError, match="holds 'x', which is neither file nor folder: a link"):
        extract(tmp_path / "archive", tmp_path / "place", most_bytes=10**6)


@pytest.mark.parametrize("make", [tar, zipped])
def test_a_bomb(tmp_path: Path, make: Callable[..., Path]):
    archive = make(tmp_path / "archive", {"a": bytes(600_000), "b": bytes(600_000)})
    assert archive.stat().st_size < 10_000
    with pytest.raises(ArchiveError, match="unpacks to more than the 1,000,000 bytes that are allowed"):
        extract(archive, tmp_path / "place", most_bytes=1_000_000)
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


def test_a_name_twice_and_a_file_that_is_a_folder(tmp_path: Path):
    with tarfile.open(tmp_path / "archive", "w") as packed:
        for name in ("a", "./a"):
            packed.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(ArchiveError, match=r"holds '\./a' twice"):
        extract(tmp_path / "archive", tmp_path / "place", most_bytes=10**6)
    archive = tar(tmp_path / "other", {"a": b"1", "a/b": b"2"})
    with pytest.raises(ArchiveError, match="cannot be unpacked: "):
        extract(archive, tmp_path / "place", most_bytes=10**6)


@pytest.mark.parametrize("make", [make for _, make in MAKERS], ids=[name for name, _ in MAKERS])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_archives_that_are_cut(tmp_path: Path, make: Callable[[Path], Path], share: float):
    content = make(tmp_path / "archive").read_bytes()
    (tmp_path / "cut").write_bytes(content[: int(share * len(content))])
    with pytest.raises(ArchiveError, match="is broken or cut: "):
        extract(tmp_path / "cut", tmp_path / "place", most_bytes=10**6)
    assert not (tmp_path / "place").exists()


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz", "zip"])
def test_archives_with_a_wrong_byte(tmp_path: Path, mode: str):
    noise = {"corpus/noise": np.random.default_rng(0).bytes(50_000)}
    archive = zipped(tmp_path / "archive", noise) if mode == "zip" else tar(tmp_path / "archive", noise, mode)
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "archive").write_bytes(content)
    with pytest.raises(ArchiveError, match="is broken or cut: "):
        extract(tmp_path / "archive", tmp_path / "place", most_bytes=10**6)


def test_what_is_no_archive(tmp_path: Path):
    for content in (b"", b"<html>not here</html>", b"PK\x03\x04"):
        (tmp_path / "archive").write_bytes(content)
        with pytest.raises(ArchiveError, match="is broken or cut: "):
            extract(tmp_path / "archive", tmp_path / "place", most_bytes=10**6)
    with pytest.raises(ArchiveError, match="cannot be unpacked: No such file"):
        extract(tmp_path / "missing", tmp_path / "place", most_bytes=10**6)
    with pytest.raises(ArchiveError, match="cannot be written: "):
        extract(tmp_path / "archive", tmp_path / "archive" / "below", most_bytes=10**6)


@pytest.mark.parametrize("says", [10, 2_000_000])
def test_a_zip_that_lies_about_a_length(tmp_path: Path, says: int):
    archive = zipped(tmp_path / "archive", {"a": bytes(600_000)})
    length, lie = (600_000).to_bytes(4, "little"), says.to_bytes(4, "little")
    archive.write_bytes(archive.read_bytes().replace(length, lie))
    with pytest.raises(ArchiveError, match="is broken or cut: "):
        extract(archive, tmp_path / "place", most_bytes=10**7)
    assert not (tmp_path / "place").exists()
