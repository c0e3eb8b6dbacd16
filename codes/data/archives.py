"""Unpacking of tar and zip files that came from elsewhere.

Nothing in an archive is trusted: only plain files and folders are made, only below the folder that is named, no more
bytes than are allowed, and no file over another. It is unpacked aside and put into place when it has come out whole.
"""

import bz2
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
            come to lie elsewhere, or over another, or all are larger than allowed. Nothing is in the folder then.
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
            _move_into(aside, folder, archive)
        else:
            aside.chmod(0o755)
            aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _unpack(archive: Path, aside: Path, most_bytes: int, bar: ByteProgress) -> None:
    left, made = most_bytes, set[str]()
    try:
        for member in _members(archive):
            parts = _safe_parts(archive, member.name)
            key = "/".join(parts)
            if len(made) >= _MOST_MEMBERS:
                raise ArchiveError(f"{archive}: has more than {_MOST_MEMBERS:,} members")
            target = aside.joinpath(*parts)
            if member.is_folder:
                target.mkdir(parents=True, exist_ok=True)
                continue
            if key in made:
                raise ArchiveError(f"{archive}: holds {member.name!r} twice")
            made.add(key)
            left -= member.num_bytes
            if left < 0:
                raise ArchiveError(f"{archive}: unpacks to more than the {most_bytes:,} bytes that are allowed")
            target.parent.mkdir(parents=True, exist_ok=True)
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
    with opener(archive, "rb") as stream, tarfile.open(fileobj=stream, mode="r|") as packed:
        for info in packed:
            if not (info.isfile() or info.isdir()) or info.issparse():
                raise ArchiveError(f"{archive}: holds {info.name!r}, which is neither file nor folder: a link?")
            yield _Member(info.name, info.isdir(), info.size, lambda info=info: _opened(packed, info))
        while stream.read(_BLOCK_BYTES):
            pass


def _opened(packed: tarfile.TarFile, info: tarfile.TarInfo) -> closing[IO[bytes]]:
    file = packed.extractfile(info)
    assert file is not None, "it is a file"
    return closing(file)


def _move_into(source: Path, folder: Path, archive: Path) -> None:
    """Put what was unpacked into place: whole folders at once where there is none of that name."""
    for path in sorted(source.iterdir()):
        target = folder / path.name
        if path.is_dir() and target.is_dir() and not target.is_symlink():
            _move_into(path, target, archive)
        elif target.exists() or target.is_symlink():
            if not (path.is_file() and target.is_file() and path.read_bytes() == target.read_bytes()):
                raise ArchiveError(f"{archive}: {target} is there already, and is not written over")
        else:
            path.rename(target)
