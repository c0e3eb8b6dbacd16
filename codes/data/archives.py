"""Unpacking of tar and zip files that came from elsewhere.

Nothing in an archive is trusted: only plain files and folders are made, only below the folder that is named, no more
bytes than are allowed, and no file over another. It is unpacked aside and put into place when it has come out whole.
"""

import bz2
import filecmp
import gzip
import lzma
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from codes.data.byte_progress import ByteProgress

_BLOCK_BYTES = 1 << 20
_MOST_MEMBERS = 2_000_000
_MOST_OTHER_BYTES = 1 << 24  # on end in a tar, of what is not in its files: headers, and padding after the last
_UNSAFE = re.compile(r"[\0-\x1f\x7f\\]|^[A-Za-z]:")  # control characters, and what Windows takes for a path
_COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
_BROKEN = (EOFError, OSError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError)


class ArchiveError(OSError):
    """An archive is broken, or holds what is not taken out of archives."""


@dataclass(frozen=True)
class _Member:
    """A file or folder of an archive; ``open`` gives its bytes."""

    name: str
    is_folder: bool
    num_bytes: int
    open: Any


def extract(archive: Path, folder: Path, *, most_bytes: int, progress: bool = False) -> None:
    """Unpack an archive (.tar, .tar.gz, .tar.bz2, .tar.xz, .zip, known by its content) into a folder.

    Args:
        archive: the file.
        folder: where its files go. Folders that are there already are added to; no file there is written over.
        most_bytes: unpack no more than this.
        progress: show how far it has come.

    Raises:
        ArchiveError: it is broken or cut, or a member is neither file nor folder (links are refused as well), would
            come to lie elsewhere, or over another, or all are larger or more than allowed. The folder is as it was
            then.
    """
    adds = folder.is_dir()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".unpacking.", dir=folder if adds else folder.parent))
    except OSError as error:
        raise ArchiveError(f"{folder} cannot be written: {error.strerror}") from error
    try:
        with ByteProgress(f"unpacking {archive.name}", shown=progress) as bar:
            bar.begin(0, None)
            _unpack(archive, aside, most_bytes, bar)
        if adds:
            _check_room(aside, folder, archive)
            _move_into(aside, folder, archive)
        else:
            aside.chmod(0o755)
            aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _unpack(archive: Path, aside: Path, most_bytes: int, bar: ByteProgress) -> None:
    left, made, num_made = most_bytes, set[str](), 0
    try:
        for member in _members(archive):
            parts = _safe_parts(archive, member.name)
            key = "/".join(parts)
            target = aside.joinpath(*parts)
            missing = _missing_folders(target if member.is_folder else target.parent)
            num_made += max(1, len(missing) + (not member.is_folder))
            if num_made > _MOST_MEMBERS:
                raise ArchiveError(f"{archive}: has more than {_MOST_MEMBERS:,} files and folders")
            for folder in missing:
                folder.mkdir()
            if member.is_folder:
                continue
            if key in made:
                raise ArchiveError(f"{archive}: holds {member.name!r} twice")
            made.add(key)
            left -= member.num_bytes
            if left < 0:
                raise ArchiveError(f"{archive}: unpacks to more than the {most_bytes:,} bytes that are allowed")
            with member.open() as source, target.open("xb") as copy:
                _copy(archive, member, source, copy, bar)
    except ArchiveError:
        raise
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's, not the archive's
            raise ArchiveError(
                f"{archive}: cannot be unpacked: {error.strerror} ({error.filename or aside})"
            ) from error
        raise ArchiveError(f"{archive}: is broken or cut: {error or type(error).__name__}") from error
    except RuntimeError as error:  # zipfile's, of encrypted members
        raise ArchiveError(f"{archive}: cannot be unpacked: {error}") from error


def _missing_folders(folder: Path) -> list[Path]:
    """A folder and those above it that are not there yet, the highest first."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    return missing[::-1]


def _copy(archive: Path, member: _Member, source: IO[bytes], copy: IO[bytes], bar: ByteProgress) -> None:
    num_bytes = 0
    while block := source.read(_BLOCK_BYTES):
        num_bytes += len(block)
        if num_bytes > member.num_bytes:
            break
        copy.write(block)
        bar.advance(len(block))
    if num_bytes != member.num_bytes:
        raise ArchiveError(f"{archive}: is broken or cut: {member.name!r} is not as long as it says")


def _safe_parts(archive: Path, name: str) -> list[str]:
    """The parts of a member's name; all lead downwards."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or _UNSAFE.search(name):
        raise ArchiveError(
            f"{archive}: holds {name!r}, a name that leads elsewhere or is not safe; nothing is unpacked"
        )
    return parts


def _members(archive: Path) -> Iterator[_Member]:
    with archive.open("rb") as file:
        head = file.read(8)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _zip_members(archive)
    return _tar_members(archive, head)


def _zip_members(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as packed:
        for info in packed.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ArchiveError(f"{archive}: holds {info.filename!r}, which is neither file nor folder: a link?")
            yield _Member(info.filename, info.is_dir(), info.file_size, lambda info=info: packed.open(info))


def _tar_members(archive: Path, head: bytes) -> Iterator[_Member]:
    """Of a tar, compressed or not, which is read to its very end: there is the checksum of what was compressed."""
    opener = next((opener for magic, opener in _COMPRESSED.items() if head.startswith(magic)), open)
    with opener(archive, "rb") as file:
        stream: Any = _Rationed(archive, file)
        with tarfile.open(fileobj=stream, mode="r|") as packed:
            for info in packed:
                stream.allow(info.size if info.isfile() else 0)
                if not (info.isfile() or info.isdir()) or info.issparse():
                    raise ArchiveError(f"{archive}: holds {info.name!r}, which is neither file nor folder: a link?")
                yield _Member(info.name, info.isdir(), info.size, lambda info=info: _opened(packed, info))
            stream.allow(0)
            while stream.read(_BLOCK_BYTES):
                pass


class _Rationed:
    """Gives of a stream what is allowed at a time: packed, a little may be endless headers, or follow the end."""

    def __init__(self, archive: Path, file: IO[bytes]) -> None:
        self._archive, self._file = archive, file
        self.allow(0)

    def allow(self, num_bytes: int) -> None:
        """From here on: so many bytes of a file, and some besides."""
        self._left = num_bytes + _MOST_OTHER_BYTES

    def read(self, num_bytes: int) -> bytes:
        block = self._file.read(num_bytes)
        self._left -= len(block)
        if self._left < 0:
            raise ArchiveError(
                f"{self._archive}: more than {_MOST_OTHER_BYTES:,} bytes on end in it belong to none of its files"
            )
        return block


def _opened(packed: tarfile.TarFile, info: tarfile.TarInfo) -> closing[IO[bytes]]:
    file = packed.extractfile(info)
    assert file is not None, "it is a file"
    return closing(file)


def _check_room(source: Path, folder: Path, archive: Path) -> None:
    """Refuse before anything is moved what would come to lie over something else."""
    for path in source.iterdir():
        target = folder / path.name
        if path.is_dir() and target.is_dir() and not target.is_symlink():
            _check_room(path, target, archive)
        elif (target.exists() or target.is_symlink()) and not _are_equal(path, target):
            raise ArchiveError(f"{archive}: {target} is there already, and is not written over")


def _are_equal(path: Path, target: Path) -> bool:
    return path.is_file() and target.is_file() and filecmp.cmp(path, target, shallow=False)


def _move_into(source: Path, folder: Path, archive: Path) -> None:
    """Put what was unpacked into place, whole folders at once where there is none of that name; or nothing of it."""
    moved: list[tuple[Path, Path]] = []
    try:
        for path, target in _moves(source, folder):
            path.rename(target)
            moved.append((path, target))
    except OSError as error:
        for path, target in reversed(moved):
            target.rename(path)
        raise ArchiveError(f"{archive}: cannot be put into {folder}: {error.strerror}") from error


def _moves(source: Path, folder: Path) -> Iterator[tuple[Path, Path]]:
    for path in sorted(source.iterdir()):
        target = folder / path.name
        if not target.exists():
            yield path, target
        elif path.is_dir():
            yield from _moves(path, target)
