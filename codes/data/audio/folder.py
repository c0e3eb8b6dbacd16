"""Which audio files there are, and which of them are for validation.

A scan takes folders (searched through and through) and files, reads every header, and counts what it leaves out and
why. The split is by whole files, so that no file is trained on and validated with, and follows from a hash of each
file's name and a seed: adding a file does not reshuffle the others.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from codes.data.audio.reader import AudioInfo, AudioReadError, probe

# Names that libsndfile's formats go by. Other files in a folder are left out, and counted.
EXTENSIONS = (
    *(".wav", ".wave", ".rf64", ".w64", ".flac", ".aif", ".aiff", ".aifc", ".caf", ".au", ".snd"),
    *(".ogg", ".oga", ".opus", ".mp3"),
)
_PROBING_THREADS = 16


@dataclass(frozen=True, kw_only=True)
class FoundFile:
    """An audio file: where it is, its path relative to the folder that was searched ("/" between parts), its header."""

    path: Path
    relative: str
    info: AudioInfo

    @property
    def seconds(self) -> float:
        """Its duration."""
        return self.info.num_frames / self.info.sample_rate_hz


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What was found, sorted by relative path, and what was left out: reason -> paths."""

    files: list[FoundFile]
    left_out: dict[str, list[Path]] = field(default_factory=dict)


def scan(paths: Sequence[str | os.PathLike[str]]) -> Scan:
    """All audio files in these folders and below, and those of these paths that are files themselves.

    A file that is reached in several ways counts once. Hidden files and folders are left out.

    Raises:
        FileNotFoundError: a path does not exist.
        ValueError: there is no audio file; the message says what there is instead.
        AudioReadError: some audio files cannot be read; the message names the first and counts the others.
    """
    left_out: dict[str, list[Path]] = {}
    found: dict[str, tuple[str, Path]] = {}  # real path -> relative path, path
    for root in paths:
        for path, relative in _candidates(Path(root).expanduser()):
            reason = _reason_to_leave_out(path)
            if reason:
                left_out.setdefault(reason, []).append(path)
            elif os.path.realpath(path) in found:
                left_out.setdefault("found twice", []).append(path)
            else:
                found[os.path.realpath(path)] = (relative, path)
    if not found:
        raise ValueError(_no_audio_message(paths, left_out))
    ordered = sorted(found.values())
    infos = _probe_all([path for _, path in ordered])
    files = [
        FoundFile(path=path, relative=relative, info=info)
        for (relative, path), info in zip(ordered, infos, strict=True)
    ]
    return Scan(files=files, left_out=left_out)


def _candidates(root: Path) -> Iterable[tuple[Path, str]]:
    """Every file under a folder, or the file itself, with its path relative to the folder. Follows links, once."""
    if root.is_file():
        yield root, root.name
        return
    if not root.exists():
        raise FileNotFoundError(f"{root} does not exist: give a folder of audio files, or one such file")
    seen: set[str] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=_refuse_folder):
        real = os.path.realpath(folder)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        if real in seen:  # a link to a folder above itself
            subfolders.clear()
            continue
        seen.add(real)
        for name in names:
            path = Path(folder, name)
            yield path, path.relative_to(root).as_posix()


def _refuse_folder(error: OSError) -> None:
    raise OSError(f"{error.filename}: the folder cannot be listed: {error.strerror}") from error


def _reason_to_leave_out(path: Path) -> str | None:
    if path.name.startswith("."):
        return "hidden"
    if path.suffix.lower() not in EXTENSIONS:
        return f"not audio by its name ({path.suffix.lower() or 'no extension'})"
    return None


def _no_audio_message(paths: Sequence[str | os.PathLike[str]], left_out: dict[str, list[Path]]) -> str:
    where = ", ".join(str(path) for path in paths) or "an empty list of folders"
    suffixes = Counter(path.suffix.lower() or "no extension" for files in left_out.values() for path in files)
    if not suffixes:
        return f"no audio in {where}: there is no file at all"
    there = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(8))
    return f"no audio in {where}: found {there}; looked for {' '.join(EXTENSIONS)}"


def _probe_all(paths: Sequence[Path]) -> list[AudioInfo]:
    with ThreadPoolExecutor(_PROBING_THREADS) as pool:
        results = list(pool.map(_probe_or_error, paths))
    errors = [result for result in results if isinstance(result, AudioReadError)]
    if errors:
        others = f" (and {len(errors) - 1} more of {len(paths)} files cannot be read)" if len(errors) > 1 else ""
        raise AudioReadError(f"{errors[0]}{others}") from errors[0]
    return [result for result in results if isinstance(result, AudioInfo)]


def _probe_or_error(path: Path) -> AudioInfo | AudioReadError:
    try:
        return probe(path)
    except AudioReadError as error:
        return error


def split(files: Sequence[FoundFile], val_fraction: float, seed: int) -> tuple[list[FoundFile], list[FoundFile]]:
    """Training files and validation files, each in the order given.

    Files are ranked by a hash of seed and relative path; the first ranks, as many as come nearest to ``val_fraction``
    of the whole duration, are for validation. At least one file is on either side, unless ``val_fraction`` is 0 (all
    train) or 1 (all validate). A new file takes a rank between the others: at most files at the border change sides.

    Raises:
        ValueError: ``val_fraction`` is outside 0 .. 1, or there is one file only and two sides.
    """
    if not 0.0 <= val_fraction <= 1.0:
        raise ValueError(f"val_fraction is {val_fraction}, allowed are 0 to 1")
    if val_fraction in (0.0, 1.0):
        return (list(files), []) if val_fraction == 0.0 else ([], list(files))
    if len(files) < 2:
        raise ValueError(
            f"one file cannot be split into train and val, which never share a file ({files[0].path}): "
            "give two or more files, or val_fraction: 0 to train on it without validation"
        )
    ranked = sorted(files, key=lambda file: _rank(file, seed))
    val = {file.path for file in ranked[: _num_val(ranked, val_fraction)]}
    return [file for file in files if file.path not in val], [file for file in files if file.path in val]


def _rank(file: FoundFile, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{file.relative}".encode("utf-8", "surrogateescape")).digest()


def _num_val(ranked: Sequence[FoundFile], val_fraction: float) -> int:
    """How many of the first ranks come nearest to the wanted share of the duration."""
    target_s = val_fraction * sum(file.seconds for file in ranked)
    best, best_distance, total_s = 1, float("inf"), 0.0
    for count, file in enumerate(ranked[:-1], start=1):
        total_s += file.seconds
        if abs(total_s - target_s) < best_distance:
            best, best_distance = count, abs(total_s - target_s)
    return best
