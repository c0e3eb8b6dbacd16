"""Files from the web: continued where they were cut, checked, and in place only when they are whole.

What has come is kept as NAME.part, and beside it what the server said of the file (NAME.part.json), so that a later
call goes on only with the same file. Failures of the network are tried again a bounded number of times, refusals are
not. Nothing but the standard library is needed.
"""

import hashlib
import http.client
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codes.data.byte_progress import ByteProgress

_BLOCK_BYTES = 1 << 18
_PROGRESS_BYTES = 1 << 20  # an attempt that brought so much does not count as failed
_MOST_PAUSE_S = 60.0
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_TEMPORARY = (408, 425, 429, 500, 502, 503, 504)
_REASONS = {
    401: "the server asks for an account",
    403: "the server refuses it, perhaps to those without an account",
    404: "there is no such file: the corpus may have moved",
    410: "the file was taken away",
}


class DownloadError(OSError):
    """A file could not be downloaded; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A file on the web.

    Args:
        url: where it is, http or https.
        name: what the file is called here; default the last part of the address.
        sha256, md5: its checksum in hexadecimal, where it is published.
        num_bytes: its length, where it is known.
    """

    url: str
    name: str | None = None
    sha256: str | None = None
    md5: str | None = None
    num_bytes: int | None = None

    @property
    def file_name(self) -> str:
        """What the file is called here.

        Raises:
            DownloadError: the address is not of the web, or names no file.
        """
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise DownloadError(f"{self.url}: an address must begin with http:// or https:// and name a server")
        name = self.name or urllib.parse.unquote(parts.path).rpartition("/")[2]
        if name in ("", ".", "..") or re.search(r"[/\\\0]", name):
            raise DownloadError(f"{self.url}: names no file")
        return name


def download(
    remote: Remote,
    folder: Path,
    *,
    attempts: int = 5,
    timeout_s: float = 60.0,
    pause_s: float = 1.0,
    progress: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> Path:
    """The file in the folder: downloaded, continued, or found there already; its checksum is right.

    Args:
        remote: which file.
        folder: where it goes; made where it is not there.
        attempts: how many times in a row the network may fail, an attempt that brings 1 MiB not counting.
        timeout_s: how long the server may be silent, in seconds.
        pause_s: before the second attempt, in seconds; doubled each time, up to a minute.
        progress: show how far it has come.
        sleep: what waits.

    Raises:
        DownloadError: it cannot be had, or is not what it should be.
    """
    path = folder / remote.file_name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadError(f"{folder} cannot be made: {error.strerror}") from error
    if path.exists():
        _verify(remote, path, kept="it is left as it is: move it away to download it anew")
        return path
    part = path.with_name(f"{path.name}.part")
    failures = 0
    while True:
        before = _size(part)
        try:
            with ByteProgress(f"downloading {path.name}", shown=progress) as bar:
                _fetch(remote, part, timeout_s, bar)
            break
        except DownloadError:
            raise
        except (OSError, http.client.HTTPException, _CutError) as error:  # urllib's and the network's are OSErrors
            if isinstance(error, urllib.error.HTTPError):
                _refuse(remote, error)
            failures = 1 if _size(part) - before >= _PROGRESS_BYTES else failures + 1
            if failures >= attempts:
                raise DownloadError(
                    f"{remote.url}: failed {failures} times in a row, the last time with: {_why(error)}; "
                    f"{_size(part):,} bytes are kept in {part}, from which the same command goes on"
                ) from error
            sleep(min(_MOST_PAUSE_S, pause_s * 2.0 ** (failures - 1)))
    try:
        _verify(remote, part, kept="it is taken away: try again, or say that the checksum has changed")
    except DownloadError:
        _forget(part)
        raise
    os.replace(part, path)
    _forget(part)
    return path


class _CutError(Exception):
    """The connection ended before the file did."""


def _fetch(remote: Remote, part: Path, timeout_s: float, bar: ByteProgress) -> None:
    """Fetch what is missing of the part."""
    said, have = _said(part), _size(part)
    validator = said.get("etag") or said.get("modified")
    continues = have > 0 and said.get("url") == remote.url and bool(validator or remote.sha256 or remote.md5)
    if continues and have == said.get("length"):
        return
    request = urllib.request.Request(remote.url, headers={"User-Agent": "waveschool"})
    if continues:
        request.add_header("Range", f"bytes={have}-")
        if validator:
            request.add_header("If-Range", str(validator))
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            start, length = _place(answer, part, have if continues else 0)
            if remote.num_bytes is not None and length is not None and length != remote.num_bytes:
                raise DownloadError(f"{remote.url}: has {length:,} bytes, it should have {remote.num_bytes:,}")
            _say(part, {"url": remote.url, "length": length, **_validators(answer)})
            _receive(answer, part, start, length, bar)
    except urllib.error.HTTPError as error:
        if error.code == 416 and continues:  # the part is longer than the file: begin anew
            _forget(part)
            raise _CutError("what was kept is not of this file") from error
        raise


def _place(answer: Any, part: Path, wanted_start: int) -> tuple[int, int | None]:
    """Where in the file the answer begins, and how long the whole file is. A server may ignore the range."""
    if answer.status == 206:
        found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if found is None or int(found.group(1)) != wanted_start:
            _forget(part)  # begin anew, without a range
            raise _CutError(f"asked for bytes from {wanted_start} on, got {answer.headers.get('Content-Range')!r}")
        return wanted_start, None if found.group(3) == "*" else int(found.group(3))
    length = answer.headers.get("Content-Length")
    return 0, int(length) if length and length.isdigit() else None


def _receive(answer: Any, part: Path, start: int, length: int | None, bar: ByteProgress) -> None:
    """Write what comes after the first ``start`` bytes of the part."""
    if length is not None:
        _check_space(part, length - start)
    bar.begin(start, length)
    try:
        with _open(part, start) as file:
            file.seek(start)
            while block := answer.read(_BLOCK_BYTES):
                _write(file, block, part)
                bar.advance(len(block))
            have = file.tell()
    except http.client.IncompleteRead as error:
        raise _CutError("the connection was cut") from error
    if length is not None and have != length:
        raise _CutError(f"the connection was cut at {have:,} of {length:,} bytes")


def _open(part: Path, start: int) -> Any:
    try:
        return part.open("r+b" if start else "wb", buffering=0)
    except OSError as error:
        raise DownloadError(f"{part} cannot be written: {error.strerror}") from error


def _write(file: Any, block: bytes, part: Path) -> None:
    """Unbuffered: what cannot be written is known here, and what was written counts."""
    try:
        while block:
            block = block[file.write(block) :]
    except OSError as error:
        raise DownloadError(
            f"{part} cannot be written: {error.strerror}; make room, and the same command goes on from there"
        ) from error


def _check_space(part: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if num_bytes > free:
        raise DownloadError(
            f"{part.parent}: {num_bytes:,} bytes are still to come, and the disk has {free:,} free: make room, or "
            "choose another folder"
        )


def _refuse(remote: Remote, error: urllib.error.HTTPError) -> None:
    """Raise where another attempt would not help."""
    error.close()
    if error.code not in _TEMPORARY:
        reason = _REASONS.get(error.code, "the server refuses it")
        raise DownloadError(f"{remote.url}: HTTP {error.code} {error.reason}: {reason}") from error


def _verify(remote: Remote, path: Path, kept: str) -> None:
    """Length and checksum, where they are known."""
    if remote.num_bytes is not None and _size(path) != remote.num_bytes:
        raise DownloadError(f"{path}: has {_size(path):,} bytes, it should have {remote.num_bytes:,}; {kept}")
    for kind, expected in (("sha256", remote.sha256), ("md5", remote.md5)):
        if expected is None:
            continue
        with path.open("rb") as file:
            found = hashlib.file_digest(file, lambda kind=kind: hashlib.new(kind, usedforsecurity=False)).hexdigest()
        if found != expected.lower():
            raise DownloadError(f"{path}: its {kind} is {found}, it should be {expected}; {kept}")


def _validators(answer: Any) -> dict[str, str]:
    """What tells this version of the file from another; a weak ETag does not."""
    etag, modified = answer.headers.get("ETag"), answer.headers.get("Last-Modified")
    return {
        **({"etag": etag} if etag and not etag.startswith("W/") else {}),
        **({"modified": modified} if modified else {}),
    }


def _notes(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _said(part: Path) -> dict[str, Any]:
    """What the server said of the file when the part was begun; nothing where that is not known."""
    try:
        said = json.loads(_notes(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _say(part: Path, said: dict[str, Any]) -> None:
    try:
        _notes(part).write_text(json.dumps(said), encoding="utf-8")
    except OSError as error:
        raise DownloadError(f"{_notes(part)} cannot be written: {error.strerror}") from error


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _notes(part).unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _why(error: BaseException) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    reason = getattr(error, "reason", error)
    return str(reason) or type(reason).__name__
