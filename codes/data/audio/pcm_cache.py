"""Decoded PCM, kept on disk: a file is decoded (and resampled) once, and random chunks of it are then plain copies.

An entry's name is a hash of what decides its samples: the file's content, the stream, the depth that floating point is
read at, the sample rate and the versions of resampler and cache. So renamed, copied and touched files share an entry,
changed files get another, and one file at several sample rates has several that lie beside each other.

    python -m codes.data.audio.pcm_cache                 list the entries and what they take
    python -m codes.data.audio.pcm_cache --prune 30      delete those that no run asked for in 30 days
    python -m codes.data.audio.pcm_cache --verify        read all samples, and delete damaged entries
    python -m codes.data.audio.pcm_cache --clear         delete all
"""

import argparse
import contextlib
import errno
import hashlib
import json
import logging
import math
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from codes.data.audio import pcm_entry, resample
from codes.data.audio.demo_corpus import cache_root
from codes.data.audio.pcm_entry import CachedPcm, EntryHeader, EntryWriter, PcmEntryError
from codes.data.audio.reader import AudioFile, AudioInfo, AudioReadError
from codes.data.byte_progress import ByteProgress

__all__ = ["CachedPcm", "PcmCache", "PcmCacheError", "PcmEntryError", "PcmRequest"]

logger = logging.getLogger(__name__)

VERSION = 1  # part of every entry's name: raise it when decoding gives other samples
_DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_HASHED_BYTES = 1 << 20
_ABANDONED_SECONDS = 24 * 3600.0  # a partial entry that nobody wrote to for so long
_MOST_WORKERS = 16


class PcmCacheError(OSError):
    """A cache that cannot be written: a full disk (and how much was needed) or a folder without permission."""


@dataclass(frozen=True, kw_only=True)
class PcmRequest:
    """PCM that is wanted: a file's, at its own sample rate or another.

    ``content_hash`` is the SHA-256 of the file's bytes in hexadecimal; ``info`` is what `reader.probe` says of it.
    """

    path: Path
    content_hash: str
    info: AudioInfo
    sample_rate_hz: int | None = None  # None: as in the file
    stream: int = 0
    float_bits: int | None = None

    @property
    def wanted_hz(self) -> int:
        """The sample rate of the entry."""
        return self.info.sample_rate_hz if self.sample_rate_hz is None else self.sample_rate_hz

    @property
    def key(self) -> str:
        """64 hexadecimal digits that are equal for equal samples."""
        resampler = None if self.wanted_hz == self.info.sample_rate_hz else (self.wanted_hz, resample.VERSION)
        parts = [self.content_hash.lower(), self.stream, self.float_bits, resampler, VERSION, pcm_entry.VERSION]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class PcmCache:
    """A folder of decoded PCM.

    Args:
        root: the folder; default "pcm" in the user's cache, or in what WAVESCHOOL_CACHE says.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = cache_root() / "pcm" if root is None else Path(root)
        self._place = "" if root is None else f"cache_folder {root}: "  # the option's name first: its place is found
        self._other = "set the environment variable WAVESCHOOL_CACHE to" if root is None else "name"

    def build(
        self,
        requests: Sequence[PcmRequest],
        *,
        progress: bool = False,
        workers: int | None = None,
        on_error: Literal["fail", "collect"] = "fail",
    ) -> list[CachedPcm | AudioReadError]:
        """The entries of these requests, in their order; those that are not there yet are decoded, in parallel.

        Several processes may build the same entries at once. An interrupted build leaves those that were finished.

        Args:
            progress: show a bar on a terminal, a line elsewhere (on standard error).
            workers: threads that decode; default one a core.
            on_error: "fail" at the first file that cannot be read, or "collect" errors in the entries' places.

        Raises:
            AudioReadError: a file cannot be decoded, has changed, or holds another number of frames than it says.
            PcmCacheError: the disk is full, or the folder cannot be written.
            ValueError: a sample rate or ``on_error`` that is not allowed.
        """
        if on_error not in ("fail", "collect"):
            raise ValueError(f'on_error is {on_error!r}, allowed are "fail" and "collect"')
        planned = {request.key: request for request in requests}
        done: dict[str, CachedPcm | AudioReadError] = {}
        for key, request in planned.items():
            found = self._find(self._plan(request), key)
            if found is not None:
                done[key] = found
        missing = {key: request for key, request in planned.items() if key not in done}
        if missing:
            self._make_room(list(missing.values()))
            self._delete_abandoned()
            done |= self._build_all(missing, progress, workers, on_error)
        return [done[request.key] for request in requests]

    def entries(self) -> Iterator[tuple[Path, EntryHeader | PcmEntryError]]:
        """Every entry with its header, or with what is wrong with it."""
        for path in sorted(self.root.glob("??/*.pcm")):
            try:
                yield path, pcm_entry.read_header(path)
            except PcmEntryError as error:
                yield path, error

    def prune(self, days: float) -> int:
        """Delete the entries that no build asked for in so many days; returns how many."""
        old = time.time() - days * 86_400.0
        count = _delete(path for path in self.root.glob("??/*.pcm") if _modified(path) < old)
        count += self._delete_abandoned()
        self._delete_empty_folders()
        return count

    def clear(self) -> int:
        """Delete all entries, and what interrupted builds left; returns how many."""
        count = _delete(self.root.glob("??/*.pcm")) + _delete(self.root.glob(f"??/.*{pcm_entry.PARTIAL_SUFFIX}"))
        self._delete_empty_folders()
        return count

    def _delete_empty_folders(self) -> None:
        for folder in self.root.glob("??"):
            with contextlib.suppress(OSError):  # not empty: entries are left, or another process is building
                folder.rmdir()

    def _plan(self, request: PcmRequest) -> CachedPcm:
        """The entry as it will be."""
        info, key = request.info, request.key
        return CachedPcm(
            path=self.root / key[:2] / f"{key}.pcm",
            num_frames=resample.num_resampled(info.num_frames, info.sample_rate_hz, request.wanted_hz),
            sample_rate_hz=request.wanted_hz,
            bits=info.bits,
            num_channels=info.num_channels,
            num_clipped=0,
        )

    def _find(self, plan: CachedPcm, key: str) -> CachedPcm | None:
        """The entry if it is there and sound; one that is damaged is built again."""
        try:
            header = pcm_entry.read_header(plan.path)
        except PcmEntryError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                logger.warning("%s; it is built again", error)
            return None
        if header.key != key or _shape(header.pcm) != _shape(plan):
            logger.warning("%s: holds other PCM than expected; it is built again", plan.path)
            return None
        pcm_entry.touch(plan.path)
        return header.pcm

    def _make_room(self, missing: Sequence[PcmRequest]) -> None:
        """Make the folder, and refuse what its disk has no room for."""
        needed_bytes = sum(self._plan(request).num_bytes for request in missing)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            free_bytes = shutil.disk_usage(self.root).free
        except OSError as error:
            raise PcmCacheError(
                f"{self._place}the PCM cache cannot be made in {self.root}: {error.strerror}; "
                f"{self._other} a folder that can be written"
            ) from error
        if needed_bytes > free_bytes:
            files = f"{len(missing)} file{'' if len(missing) == 1 else 's'}"
            raise PcmCacheError(
                f"{self._place}no room for the decoded PCM of {files} in {self.root}: {_size(needed_bytes)} are "
                f"needed, {_size(free_bytes)} are free; delete old entries (python -m codes.data.audio.pcm_cache "
                f"--prune 30{f' --root {self.root}' if self._place else ''}) or {self._other} a folder on a larger disk"
            )

    def _build_all(
        self, missing: Mapping[str, PcmRequest], progress: bool, workers: int | None, on_error: str
    ) -> dict[str, CachedPcm | AudioReadError]:
        done: dict[str, CachedPcm | AudioReadError] = {}
        stop = threading.Event()
        num_bytes = sum(self._plan(request).num_bytes for request in missing.values())
        num_threads = min(workers or os.cpu_count() or 1, _MOST_WORKERS, len(missing))
        with _bar(progress, len(missing), num_bytes, self.root) as advance, ThreadPoolExecutor(num_threads) as pool:
            futures = {
                pool.submit(self._build_one, key, request, advance, stop): key for key, request in missing.items()
            }
            try:
                for future in as_completed(futures):
                    error = future.exception()
                    if error is not None and not (on_error == "collect" and isinstance(error, AudioReadError)):
                        raise error
                    done[futures[future]] = error if isinstance(error, AudioReadError) else future.result()
            finally:  # an error or Ctrl-C: what has begun ends soon and deletes what it wrote
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
        return done

    def _build_one(
        self, key: str, request: PcmRequest, advance: Callable[[int], None], stop: threading.Event
    ) -> CachedPcm:
        plan = self._plan(request)
        _check_content(request)
        how = {"stream": request.stream, "float_bits": request.float_bits, "known": request.info}
        with AudioFile(request.path, **how) as file:
            counted = _counted(file.blocks(), request)
            blocks = resample.resample_blocks(counted, file.info.sample_rate_hz, request.wanted_hz, plan.bits)
            with _named_errors(request, plan, self._place), EntryWriter(plan, key, request.path) as writer:
                for block in blocks:
                    if stop.is_set():
                        raise InterruptedError(f"{request.path}: decoding was stopped")
                    writer.write(block)
                    advance(block.nbytes)
                advance(pcm_entry.HEADER_BYTES)
                return writer.commit(blocks.num_clipped)

    def _delete_abandoned(self) -> int:
        old = time.time() - _ABANDONED_SECONDS
        asides = self.root.glob(f"??/.*{pcm_entry.PARTIAL_SUFFIX}")
        return _delete(path for path in asides if _modified(path) < old)


def _shape(pcm: CachedPcm) -> tuple[int, ...]:
    return pcm.num_channels, pcm.num_frames, pcm.sample_rate_hz, pcm.bits


def _check_content(request: PcmRequest) -> None:
    """Hold the file to the hash that its entry is named by: no entry may ever hold another file's samples."""
    try:
        with request.path.open("rb") as file:
            content_hash = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise AudioReadError(f"{request.path}: cannot be read: {error.strerror}") from error
    if content_hash != request.content_hash.lower():
        raise AudioReadError(
            f"{request.path}: has changed since it was indexed: its SHA-256 is {content_hash[:12]}..., "
            f"the index says {request.content_hash[:12]}...; index it again"
        )


def _counted(blocks: Iterator[np.ndarray], request: PcmRequest) -> Iterator[np.ndarray]:
    """The blocks, held to the number of frames and channels that the file promises."""
    promised, num_frames = request.info.num_frames, 0
    for block in blocks:
        num_frames += block.shape[1]
        if block.shape[0] != request.info.num_channels:
            raise AudioReadError(
                f"{request.path}: has {block.shape[0]} channels from frame {num_frames - block.shape[1]} on, "
                f"promises {request.info.num_channels}"
            )
        if num_frames > promised:
            raise AudioReadError(f"{request.path}: promises {promised} frames and decodes to {num_frames} or more")
        yield block
    if num_frames < promised:
        raise AudioReadError(f"{request.path}: promises {promised} frames and decodes to {num_frames}")


@contextlib.contextmanager
def _named_errors(request: PcmRequest, plan: CachedPcm, place: str) -> Iterator[None]:
    """Trouble with writing, as an error that says what was being written and how much it takes."""
    try:
        yield
    except (AudioReadError, InterruptedError):
        raise
    except OSError as error:
        full = "the disk is full: " if error.errno in _DISK_IS_FULL else ""
        raise PcmCacheError(
            f"{place}cannot write {plan.path}, the decoded PCM of {request.path}: {full}{error.strerror}; "
            f"{_size(plan.num_bytes)} are needed"
        ) from error


@contextlib.contextmanager
def _bar(progress: bool, num_files: int, num_bytes: int, root: Path) -> Iterator[Callable[[int], None]]:
    """Yields what is told of every block that was written."""
    title = f"decoding {num_files} file{'' if num_files == 1 else 's'}"
    if progress and not sys.stderr.isatty():
        print(f"{title} into {root} ({_size(num_bytes)})", file=sys.stderr, flush=True)
    with ByteProgress(title, shown=progress) as bar:
        bar.begin(0, num_bytes)
        yield bar.advance


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:,.2f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:,.1f} MiB"


def _entries(count: int, kind: str = "") -> str:
    return f"{count} {kind}{'entry' if count == 1 else 'entries'}"


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another process deleted it
        return float("inf")


def _delete(paths: Iterator[Path]) -> int:
    count = 0
    for path in list(paths):
        path.unlink(missing_ok=True)
        count += 1
    return count


def _list(cache: PcmCache) -> None:
    num_entries = num_bytes = 0
    for path, header in cache.entries():
        num_entries, num_bytes = num_entries + 1, num_bytes + path.stat().st_size
        if isinstance(header, PcmEntryError):
            print(header)
            continue
        pcm = header.pcm
        print(
            f"{path.stem[:12]}  {_size(pcm.num_bytes):>12}  {pcm.num_frames / pcm.sample_rate_hz:>9.1f} s  "
            f"{pcm.sample_rate_hz:>6} Hz  {pcm.bits:>2} bits  {pcm.num_channels} ch  "
            f"{max(0.0, time.time() - _modified(path)) / 86_400:>5.1f} days  {header.source}"
        )
    print(f"{_entries(num_entries)}, {_size(num_bytes)}, in {cache.root}")


def _verify(cache: PcmCache) -> None:
    num_damaged = 0
    for path, _ in cache.entries():
        try:
            pcm_entry.verify(path)
        except PcmEntryError as error:
            print(f"{error}; deleted")
            num_damaged += _delete(iter([path]))
    print(f"{_entries(num_damaged, 'damaged ')} deleted from {cache.root}")


def main(arguments: list[str] | None = None) -> None:
    """List, verify or empty the cache."""
    parser = argparse.ArgumentParser(prog="python -m codes.data.audio.pcm_cache", description="The cache of PCM.")
    parser.add_argument("--root", type=Path, help="the cache's folder (default: that of the user)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--prune", type=float, metavar="DAYS", help="delete entries not asked for in so many days")
    what.add_argument("--verify", action="store_true", help="read all samples, and delete damaged entries")
    what.add_argument("--clear", action="store_true", help="delete all entries")
    chosen = parser.parse_args(arguments)
    cache = PcmCache(chosen.root)
    if chosen.prune is not None and not 0 <= chosen.prune < math.inf:
        parser.error(f"--prune is {chosen.prune}, it must be 0 or more days")
    if chosen.prune is not None:
        print(f"{_entries(cache.prune(chosen.prune))} deleted from {cache.root}")
    elif chosen.clear:
        print(f"{_entries(cache.clear())} deleted from {cache.root}")
    elif chosen.verify:
        _verify(cache)
    else:
        _list(cache)


if __name__ == "__main__":
    main()
