"""Which audio files there are in folders, among named files, and in lists of files; none of them is opened.

Nothing is dropped in silence: a file is a candidate, or it is left out for a reason, or it is an error.
"""

import os
import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from codes.data.audio.listing.manifests import ManifestItem, is_manifest, read_manifest

# Names of the formats that are read. Other files in a folder are left out, and counted.
EXTENSIONS = (
    *(".wav", ".wave", ".bwf", ".rf64", ".w64", ".flac", ".aif", ".aiff", ".aifc", ".caf", ".au", ".snd"),
    *(".ogg", ".oga", ".opus", ".spx", ".mp3", ".mp2", ".mpa", ".m4a", ".m4b", ".aac", ".ac3", ".eac3", ".dts"),
    *(".wv", ".tta", ".ape", ".tak", ".wma", ".mka", ".mp4", ".m4v", ".mov", ".mkv", ".webm"),
)
_SPECIAL = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A file that is audio by its name or because a list says so: where, its name below its root, how it stood.

    ``claims`` grows while lists are read: one may name a file for each of thousands of parts.
    """

    relative: str
    path: Path
    size_bytes: int
    mtime_ns: int
    claims: list[ManifestItem] = field(default_factory=list)


@dataclass(kw_only=True)
class Walk:
    """What was found.

    Args:
        candidates: by real path; a file that is reached in several ways counts once, by hard links as well. Copies are
            files of their own; the doctor names them.
        left_out: reason -> paths.
        errors: path -> what is wrong: broken links, folders that cannot be listed, files that a list names in vain.
        notes: what a person should know besides.
    """

    candidates: dict[str, Candidate] = field(default_factory=dict)
    left_out: dict[str, list[Path]] = field(default_factory=dict)
    errors: dict[Path, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    linked: set[tuple[int, int]] = field(default_factory=set)  # device and number of the files with several names


def walk(paths: Sequence[str | os.PathLike[str]], manifest_root: Path | None = None) -> Walk:
    """Audio files in these folders and below, those of these paths that are files, and those that lists name.

    Links are followed, each folder once. Hidden files and folders are left out.

    Args:
        paths: folders, audio files, and lists of audio files (see `codes.data.audio.listing.manifests`).
        manifest_root: where relative paths in lists are looked for when they are not beside the list.

    Raises:
        FileNotFoundError: one of ``paths`` does not exist.
        ValueError: one of ``paths`` is neither file nor folder, or is a list that cannot be read as one.
    """
    found = Walk()
    for given in paths:
        root = Path(given).expanduser().absolute()
        if root.is_dir():
            _walk_folder(found, root)
        elif root.is_file():
            _add_manifest(found, root, manifest_root) if is_manifest(root) else _add_file(found, root)
        elif root.exists():
            raise ValueError(f"{root} is {_special(root.stat())}: give a folder of audio files, or one such file")
        else:
            link = " (it is a broken link)" if root.is_symlink() else ""
            raise FileNotFoundError(f"{root} does not exist{link}: give a folder of audio files, or one such file")
    return found


def no_audio_message(paths: Sequence[str | os.PathLike[str]], left_out: dict[str, list[Path]]) -> str:
    """What to say where nothing was found: what is there instead."""
    where = ", ".join(str(path) for path in paths) or "an empty list of folders"
    suffixes = Counter(path.suffix.lower() or "no extension" for files in left_out.values() for path in files)
    if not suffixes:
        return f"no audio in {where}: there is no file at all"
    there = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(8))
    return f"no audio in {where}: found {there}; looked for {' '.join(EXTENSIONS)}"


def _walk_folder(found: Walk, root: Path) -> None:
    seen: set[str] = set()
    waiting = [(str(root), "")]  # folders, and their paths below the root with "/" at the end
    while waiting:
        folder, below = waiting.pop()
        real = os.path.realpath(folder)
        if real in seen:  # a link to a folder above itself
            continue
        seen.add(real)
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            found.errors[Path(folder)] = f"{folder}: the folder cannot be listed: {error.strerror}"
            continue
        subfolders = []
        for entry in entries:
            if not _is_folder(entry):
                real_path = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(real, entry.name)
                _add(found, real_path, Path(entry.path), below + entry.name)
            elif not entry.name.startswith("."):
                subfolders.append((entry.path, f"{below}{entry.name}/"))
        waiting.extend(reversed(subfolders))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False


def _add_file(found: Walk, path: Path) -> None:
    _add(found, os.path.realpath(path), path, path.name)


def _add(found: Walk, real: str, path: Path, relative: str) -> None:
    reason = _reason_to_leave_out(path)
    if reason is None and real in found.candidates:
        reason = "found twice"
    if reason is not None:
        found.left_out.setdefault(reason, []).append(path)
        return
    try:
        status = path.stat()
    except OSError as error:
        found.errors[path] = f"{path}: {_why_not(path, error)}"
        return
    if not stat.S_ISREG(status.st_mode):
        found.left_out.setdefault(f"not a file but {_special(status)}", []).append(path)
        return
    number = status.st_dev, status.st_ino
    if status.st_nlink > 1 and status.st_ino:
        if number in found.linked:
            found.left_out.setdefault("found twice", []).append(path)
            return
        found.linked.add(number)
    found.candidates[real] = Candidate(
        relative=relative, path=path, size_bytes=status.st_size, mtime_ns=status.st_mtime_ns
    )


def _reason_to_leave_out(path: Path) -> str | None:
    if path.name.startswith("."):
        return "hidden"
    if path.suffix.lower() not in EXTENSIONS:
        return f"not audio by its name ({path.suffix.lower() or 'no extension'})"
    return None


def _why_not(path: Path, error: OSError) -> str:
    if not path.is_symlink():
        return f"cannot be read: {error.strerror}"
    if isinstance(error, FileNotFoundError):
        return f"is a broken link: {os.readlink(path)} does not exist"
    return f"is a link that leads nowhere: {error.strerror}"


def _special(status: os.stat_result) -> str:
    return _SPECIAL.get(stat.S_IFMT(status.st_mode), "something else")


def _add_manifest(found: Walk, path: Path, manifest_root: Path | None) -> None:
    manifest = read_manifest(path, manifest_root)
    already = set(found.candidates)
    for item in manifest.items:
        _add_item(found, item, already)
    num_parts = sum(item.start_seconds is not None for item in manifest.items)
    if num_parts:
        found.notes.append(
            f"{path}: {num_parts} of {len(manifest.items)} entries mean a part of a file; whole files are taken"
        )


def _add_item(found: Walk, item: ManifestItem, already: set[str]) -> None:
    """A file that a list names. A list may name a file several times, for its parts."""
    try:
        status = os.stat(item.path)
    except (OSError, ValueError) as error:  # ValueError: a name that the file system cannot hold
        found.errors[item.path] = f"{item.where}: {_missing(item, error)}"
        return
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else _special(status)
        found.errors[item.path] = f"{item.where}: {item.path} is not a file but {kind}"
        return
    real = os.path.realpath(item.path)
    candidate = found.candidates.get(real)
    if candidate is None:
        found.candidates[real] = Candidate(
            relative=item.relative,
            path=item.path,
            size_bytes=status.st_size,
            mtime_ns=status.st_mtime_ns,
            claims=[item],
        )
        return
    candidate.claims.append(item)
    if real in already:
        already.discard(real)
        found.left_out.setdefault("found twice", []).append(item.path)


def _missing(item: ManifestItem, error: OSError | ValueError) -> str:
    if not isinstance(error, FileNotFoundError):
        return f"{item.path} cannot be opened: {getattr(error, 'strerror', None) or error}"
    others = "".join(f", nor {place}" for place in item.looked_in[1:])
    return f"{item.looked_in[0]} does not exist{others}"
