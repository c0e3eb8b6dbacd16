"""The index of any collection of audio: every file's header and the hash of its bytes.

Made in parallel, kept as JSON lines if a file for it is named, and refreshed from there: only files whose size or time
of change differ are opened again. ``python scripts/index_audio.py`` is its command.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from codes.data.audio.listing.file_progress import FileProgress
from codes.data.audio.listing.index_entry import IndexEntry, from_record, hash_file, sample_mark
from codes.data.audio.listing.manifest_writer import write_manifest
from codes.data.audio.listing.manifests import ManifestError, contradiction, read_records
from codes.data.audio.listing.probe_process import ProbeProcesses, is_costly
from codes.data.audio.listing.walk import Candidate, walk
from codes.data.audio.reader import AudioReadError, SilentVideoError, facts

_DEFAULT_WORKERS = 8
_FILES_PER_TASK = 16
_SILENT = "of video without sound"
_PLACE = "name a file for it in a folder that you can write to"


@dataclass(kw_only=True)
class Index:
    """A collection of audio files.

    Args:
        entries: the files that can be read, sorted by relative path.
        errors: audio files that cannot be read -> what is wrong with them.
        left_out: reason -> paths that are not taken.
        notes: what a person should know besides.
        num_known: how many entries were taken from the earlier index unopened.
    """

    entries: list[IndexEntry] = field(default_factory=list)
    errors: dict[Path, str] = field(default_factory=dict)
    left_out: dict[str, list[Path]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    num_known: int = 0


@dataclass(frozen=True, kw_only=True)
class _Job:
    """A file to be opened, and what an earlier index says of it if it has not changed since."""

    candidate: Candidate
    earlier: IndexEntry | None


def build_index(
    paths: Sequence[str | os.PathLike[str]],
    *,
    known: Path | None = None,
    hashes: bool = True,
    workers: int | None = None,
    progress: bool = False,
    float_bits: int | None = None,
    manifest_root: Path | None = None,
) -> Index:
    """Index the audio files in folders and below, named files, and files that lists name (see `manifests`).

    Args:
        paths: folders, audio files, lists of audio files.
        known: a file of JSON lines with an earlier index, which may not exist yet. What has not changed in size and
            time is taken from it; afterwards it holds the new index.
        hashes: read every file through for the hash of its bytes.
        workers: how many files are read at a time (default: 8).
        progress: show how far it has come.
        float_bits: the depth for files of floating point samples; None: they are errors.
        manifest_root: where relative paths in lists are looked for when they are not beside the list.

    Raises:
        FileNotFoundError: one of ``paths`` does not exist.
        ValueError: one of ``paths`` is neither file nor folder; ``workers`` is below 1.
        ManifestError: a list, or ``known``, cannot be read as one.
        OSError: ``known`` cannot be read or written; the message names it.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}, it must be at least 1")
    earlier = _read_known(known)
    found = walk(paths, manifest_root)
    index = Index(errors=found.errors, left_out=found.left_out, notes=found.notes)
    jobs: list[_Job] = []
    for candidate in found.candidates.values():
        before = earlier.get(str(candidate.path))
        if before and (before.size_bytes, before.mtime_ns) != (candidate.size_bytes, candidate.mtime_ns):
            before = None
        if before and _is_complete(before, hashes, float_bits):
            index.num_known += 1
            _take(index, candidate, replace(before, relative=candidate.relative))
        else:
            jobs.append(_Job(candidate=candidate, earlier=before))
    with FileProgress("indexing", len(jobs), shown=progress) as bar:
        for job, result in _work(jobs, hashes, float_bits, workers or _DEFAULT_WORKERS, bar):
            _take(index, job.candidate, result)
    index.entries.sort(key=lambda entry: (entry.relative, entry.path))
    index.errors = dict(sorted(index.errors.items()))
    if known is not None and (index.entries != list(earlier.values()) or not known.exists()):
        _write_known(known, index)
    return index


def write_index(path: Path, index: Index) -> None:
    """Write an index as JSON lines, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    write_manifest(path, "jsonl", index.entries)


def read_index(path: Path) -> Index:
    """Read an index back. Nothing is looked up: the files may have changed.

    Raises:
        ManifestError: it is not an index; the message names the line.
        OSError: it cannot be opened.
    """
    entries = []
    for record in read_records(path):
        try:
            entries.append(from_record(record.values))
        except ValueError as error:
            raise ManifestError(f"{record.where}: is not of an index: {error}") from error
    return Index(entries=entries)


def remember_hashes(known: Path, hashes: Mapping[Path, str]) -> None:
    """Write hashes that were made later into a remembered index, for files that it has and that have not changed.

    Args:
        known: the file of JSON lines; where it is not there, or is no index, nothing is done.
        hashes: SHA-256 of the bytes of each file.

    Raises:
        OSError: it cannot be read or written; the message names it.
    """
    try:
        earlier = list(_read_known(known).values())
    except ManifestError:
        return

    def completed(entry: IndexEntry) -> IndexEntry:
        is_new = entry.content_hash is None and entry.path in hashes and _is_unchanged(entry)
        return replace(entry, content_hash=hashes[entry.path]) if is_new else entry

    entries = [completed(entry) for entry in earlier]
    if entries != earlier:
        _write_known(known, Index(entries=entries))


def changes_since(index: Path, files: Sequence[IndexEntry]) -> list[str] | None:
    """What has become of the files of an earlier index, a line for each that is gone or another.

    Args:
        index: the earlier index.
        files: those that there are now.

    Returns:
        None where that cannot be said: the index cannot be read, or there are files that it lacks.
    """
    try:
        earlier = {(entry.relative, entry.stream): entry for entry in read_index(index).entries}
    except (OSError, ManifestError):
        return None
    now = {(file.relative, file.stream): file for file in files}
    if now.keys() - earlier.keys():
        return None
    messages = []
    for key, was in earlier.items():
        file = now.get(key)
        if file is None:
            messages.append(f"{was.path}: {'cannot be taken' if was.path.exists() else 'is gone'} since the run began")
        elif file.info != was.info or (was.mark is not None and file.mark != was.mark):
            messages.append(f"{file.path}: has changed since the run began: {facts(was.info)}, now {facts(file.info)}")
    return messages


def _is_complete(entry: IndexEntry, hashes: bool, float_bits: int | None) -> bool:
    """Whether an earlier entry says all that is asked for."""
    return entry.float_bits == float_bits and entry.mark is not None and not (hashes and entry.content_hash is None)


def _is_unchanged(entry: IndexEntry) -> bool:
    try:
        status = entry.path.stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (entry.size_bytes, entry.mtime_ns)


def _read_known(known: Path | None) -> dict[str, IndexEntry]:
    try:
        if known is None or not known.exists():
            return {}
        return {str(entry.path): entry for entry in read_index(known).entries}
    except ManifestError as error:
        raise ManifestError(f"{error}; it is left as it is: name another file, or take this one away") from error
    except OSError as error:
        raise OSError(f"the index {known} cannot be read: {error.strerror or error}; {_PLACE}") from error


def _write_known(known: Path, index: Index) -> None:
    try:
        write_index(known, index)
    except OSError as error:
        raise OSError(f"the index {known} cannot be written: {error.strerror or error}; {_PLACE}") from error


def _take(index: Index, candidate: Candidate, result: IndexEntry | SilentVideoError | str) -> None:
    """Add what came of a file; what a list says of it must be true."""
    if isinstance(result, SilentVideoError) and not candidate.claims:
        index.left_out.setdefault(_SILENT, []).append(candidate.path)
        return
    if isinstance(result, IndexEntry):
        lies = (contradiction(claim, result.info) for claim in candidate.claims)
        result = next((lie for lie in lies if lie), result)
    if isinstance(result, IndexEntry):
        index.entries.append(result)
    else:
        index.errors[candidate.path] = str(result)


def _work(
    jobs: Sequence[_Job], hashes: bool, float_bits: int | None, workers: int, bar: FileProgress
) -> Iterator[tuple[_Job, IndexEntry | SilentVideoError | str]]:
    """Each file and what came of it, in the order given: an entry, or what is wrong.

    Threads read; what has to be decoded goes to processes, one a core.
    """
    costly_bytes = sum(job.candidate.size_bytes for job in jobs if is_costly(job.candidate.path))
    with ProbeProcesses(min(workers, os.cpu_count() or 1), costly_bytes) as processes:

        def examine(start: int) -> list[tuple[_Job, IndexEntry | SilentVideoError | str]]:
            return [(job, _examine(job, hashes, float_bits, processes)) for job in jobs[start : start + num_each]]

        num_each = _FILES_PER_TASK if costly_bytes == 0 else 1
        pool = ThreadPoolExecutor(workers)
        try:
            for results in pool.map(examine, range(0, len(jobs), num_each)):
                bar.advance(len(results))
                yield from results
        finally:
            pool.shutdown(cancel_futures=True)


def _examine(
    job: _Job, hashes: bool, float_bits: int | None, processes: ProbeProcesses
) -> IndexEntry | SilentVideoError | str:
    candidate, earlier = job.candidate, job.earlier
    path = candidate.path
    try:
        reusable = earlier is not None and earlier.float_bits == float_bits
        info = earlier.info if earlier and reusable else processes.probe(path, float_bits)
        content_hash = earlier.content_hash if earlier else None
        if hashes and content_hash is None:
            content_hash = hash_file(path)
        mark = sample_mark(path, candidate.size_bytes)
        status = path.stat()
    except AudioReadError as error:
        return error if isinstance(error, SilentVideoError) else str(error)
    except OSError as error:
        return f"{path}: cannot be read: {error.strerror}"
    if (status.st_size, status.st_mtime_ns) != (candidate.size_bytes, candidate.mtime_ns):
        return f"{path}: changed while it was read"
    return IndexEntry(
        relative=candidate.relative,
        path=path,
        info=info,
        content_hash=content_hash,
        size_bytes=candidate.size_bytes,
        mtime_ns=candidate.mtime_ns,
        float_bits=float_bits,
        mark=mark,
    )
