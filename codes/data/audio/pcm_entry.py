"""One file of decoded PCM in the cache: how it is laid out, written once, checked when opened, and read at random.

A header of 4096 bytes and then the samples, channel after channel, little-endian int16 up to 16 bits and int32 above:
a chunk is one straight copy a channel. An entry is written aside, synced and renamed, and never changed afterwards.

Chunks are copied out of a memory map (1.4 times as fast as ``preadv``). Reading a map of a file that has become shorter
would end the process, so the size is checked when an entry is opened and before every read. The system is told which
bytes a chunk will need, and not to read ahead: a chunk costs its own pages of the disk and no more. It is not told
twice within seconds, which would take a sixth as long as the copy.
"""

import contextlib
import mmap
import os
import struct
import tempfile
import threading
import time
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType

import numpy as np

from codes.data.audio.reader import AudioReadError

VERSION = 1  # of the layout: raise it when that changes
HEADER_BYTES = 4096  # a page, so that samples are aligned; the last four are the checksum of those before
PARTIAL_SUFFIX = ".partial"
_MAGIC = b"WAVEPCM\n"
# magic, version, channels, frames, sample rate, bits, clipped samples, key, checksum of the samples, length of source
_FIELDS = struct.Struct("<8sIIQIIQ32sIH")
_CHECKSUM = struct.Struct("<I")
_MOST_SOURCE_BYTES = 2048
_TOLD_SECONDS = 10.0  # pages are held to be in memory for so long after they were asked for; where not, reading is slow
_MOST_OPEN = 1024  # entries a process, and at most a quarter of the files that it may open
_NARROW, _WIDE = np.dtype("<i2"), np.dtype("<i4")


class PcmEntryError(AudioReadError):
    """A cache entry that is missing, damaged or cut short; the message names the file and what is wrong."""


@dataclass(frozen=True, kw_only=True)
class CachedPcm:
    """Decoded PCM in the cache; may be pickled and read in any process and thread.

    ``num_clipped`` counts the samples that resampling had to hold within their depth.
    """

    path: Path
    num_frames: int
    sample_rate_hz: int
    bits: int
    num_channels: int
    num_clipped: int

    @property
    def dtype(self) -> np.dtype:
        """int16 up to 16 bits, int32 above."""
        return _NARROW if self.bits <= 16 else _WIDE

    @property
    def num_bytes(self) -> int:
        """Size of the file."""
        return HEADER_BYTES + self.num_channels * self.num_frames * self.dtype.itemsize

    def read(self, start_frame: int = 0, num_frames: int | None = None, out: np.ndarray | None = None) -> np.ndarray:
        """Frames from ``start_frame`` on (all that follow where ``num_frames`` is None), a copy of their own.

        Args:
            start_frame, num_frames: which.
            out: where to; None: new memory.

        Returns:
            (channels, frames), int16 up to 16 bits and int32 above, in -2^(bits-1) .. 2^(bits-1) - 1.

        Raises:
            AudioReadError: the range is not within the file.
            PcmEntryError: the entry is gone, damaged, or cannot be read.
        """
        if num_frames is None:
            num_frames = self.num_frames - start_frame
        if start_frame < 0 or num_frames < 0 or start_frame + num_frames > self.num_frames:
            raise AudioReadError(
                f"{self.path}: frames {start_frame} to {start_frame + num_frames} were asked for, "
                f"the entry has {self.num_frames}"
            )
        if num_frames == 0:
            return np.empty((self.num_channels, 0), self.dtype)
        try:
            return _open_entries().get(self).read(start_frame, num_frames, out)
        except PcmEntryError:
            _open_entries().drop(self)  # so that the entry that a build puts in its place is read
            raise


@dataclass(frozen=True, kw_only=True)
class EntryHeader:
    """What an entry says of itself: its PCM, the key that it was built for, and the file that it was built from."""

    pcm: CachedPcm
    key: str
    checksum: int
    source_bytes: bytes

    @property
    def source(self) -> str:
        """The path that the file had."""
        return os.fsdecode(self.source_bytes)


def read_header(path: Path) -> EntryHeader:
    """The header of an entry whose header and length are sound.

    Raises:
        PcmEntryError: missing, not an entry, of another version, damaged, or of another length than it says.
    """
    return _OpenEntry(path).header


def verify(path: Path) -> None:
    """Read all samples of an entry and compare their checksum, which opening it does not.

    Raises:
        PcmEntryError: see `read_header`; or the samples are not those that were written.
    """
    entry = _OpenEntry(path)
    entry.read_ahead()
    checksums = [zlib.crc32(channel.data) for channel in entry.samples]
    if _of_all(checksums) != entry.header.checksum:
        raise PcmEntryError(f"{path}: damaged: the samples are not those that were written (checksum)")


class EntryWriter:
    """Writes an entry from blocks that follow one another. A context manager: what is not committed leaves nothing.

    Args:
        pcm: what the entry will be; its path, and its shape to the frame.
        key: 64 hexadecimal digits that name it.
        source: the file that it is made from, for people.

    Raises:
        OSError: the folder cannot be made or written.
    """

    def __init__(self, pcm: CachedPcm, key: str, source: Path) -> None:
        self._pcm, self._key, self._source = pcm, key, source
        pcm.path.parent.mkdir(parents=True, exist_ok=True)
        number, name = tempfile.mkstemp(prefix=f".{pcm.path.stem}.", suffix=PARTIAL_SUFFIX, dir=pcm.path.parent)
        self._aside: Path | None = Path(name)
        self._file = os.fdopen(number, "wb", buffering=0)
        self._num_written = 0
        self._checksums = [0] * pcm.num_channels

    def __enter__(self) -> "EntryWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._aside is not None:
            self._aside.unlink(missing_ok=True)

    def write(self, block: np.ndarray) -> None:
        """Write the (C, n) integers that follow."""
        pcm = self._pcm
        assert block.shape[0] == pcm.num_channels, "the shape is checked where blocks are made"
        assert self._num_written + block.shape[1] <= pcm.num_frames, "the length is checked where blocks are made"
        samples = np.ascontiguousarray(block, pcm.dtype)
        for channel, row in enumerate(samples):
            view = memoryview(row.view(np.uint8))
            self._checksums[channel] = zlib.crc32(view, self._checksums[channel])
            first = channel * pcm.num_frames + self._num_written
            self._write_at(HEADER_BYTES + first * pcm.dtype.itemsize, view)
        self._num_written += block.shape[1]

    def _write_at(self, offset: int, view: memoryview) -> None:
        self._file.seek(offset)
        while len(view):
            view = view[self._file.write(view) :]

    def commit(self, num_clipped: int) -> CachedPcm:
        """Put the entry into its place; it is whole on the disk before it is there."""
        assert self._num_written == self._pcm.num_frames, "the length is checked where blocks are made"
        assert self._aside is not None, "committed twice"
        made = CachedPcm(**{**vars(self._pcm), "num_clipped": num_clipped})
        self._write_at(0, memoryview(_pack(made, self._key, _of_all(self._checksums), self._source)))
        os.fsync(self._file.fileno())
        self._file.close()
        self._aside.chmod(0o644)
        os.replace(self._aside, made.path)
        self._aside = None
        _sync_folder(made.path.parent)
        return made


def _sync_folder(folder: Path) -> None:
    """So that the new name outlives a power cut, where the system can do that."""
    if os.name == "nt":
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _of_all(checksums: list[int]) -> int:
    return zlib.crc32(b"".join(_CHECKSUM.pack(checksum) for checksum in checksums))


def _pack(pcm: CachedPcm, key: str, checksum: int, source: Path) -> bytes:
    name = os.fsencode(source)[-_MOST_SOURCE_BYTES:]
    shape = (pcm.num_channels, pcm.num_frames, pcm.sample_rate_hz, pcm.bits, pcm.num_clipped)
    fields = _FIELDS.pack(_MAGIC, VERSION, *shape, bytes.fromhex(key), checksum, len(name)) + name
    padded = fields.ljust(HEADER_BYTES - _CHECKSUM.size, b"\0")
    return padded + _CHECKSUM.pack(zlib.crc32(padded))


def _unpack(path: Path, header: bytes) -> EntryHeader:
    if not header.startswith(_MAGIC):
        raise PcmEntryError(f"{path}: is not an entry of the PCM cache, or its header is damaged")
    (checksum,) = _CHECKSUM.unpack(header[-_CHECKSUM.size :])
    if checksum != zlib.crc32(header[: -_CHECKSUM.size]):
        raise PcmEntryError(f"{path}: damaged: the header's checksum is wrong")
    _, version, channels, frames, rate, bits, clipped, key, checksum, source_bytes = _FIELDS.unpack_from(header)
    if version != VERSION:
        raise PcmEntryError(f"{path}: is of version {version}, this program reads version {VERSION}")
    pcm = CachedPcm(
        path=path,
        num_frames=frames,
        sample_rate_hz=rate,
        bits=bits,
        num_channels=channels,
        num_clipped=clipped,
    )
    source = header[_FIELDS.size : _FIELDS.size + source_bytes]
    return EntryHeader(pcm=pcm, key=key.hex(), checksum=checksum, source_bytes=source)


class _OpenEntry:
    """An entry's file, mapped as long as somebody holds this; header and length are checked.

    ``samples`` (C, T) must be read through `read`, or right after opening.
    """

    def __init__(self, path: Path) -> None:
        self._map = _map(path)
        if hasattr(mmap, "MADV_RANDOM"):  # before the header is read, which would read megabytes ahead
            self._map.madvise(mmap.MADV_RANDOM)
        self.header = _unpack(path, self._map[:HEADER_BYTES])
        pcm = self._expected = self.header.pcm
        if len(self._map) != pcm.num_bytes:
            raise PcmEntryError(f"{path}: damaged: has {len(self._map)} bytes, should have {pcm.num_bytes}")
        samples = np.frombuffer(self._map, pcm.dtype, offset=HEADER_BYTES)
        self.samples = samples.reshape(pcm.num_channels, pcm.num_frames)
        channel_bytes = pcm.num_frames * samples.itemsize
        self._channel_bytes = [HEADER_BYTES + channel * channel_bytes for channel in range(pcm.num_channels)]
        self.used = 0  # when it was asked for last, by the count of askings
        self._forget_pages()

    def holds(self, pcm: CachedPcm) -> bool:
        """Whether it is the PCM that is expected; quick for the object that was last asked about."""
        if pcm is not self._expected:
            if pcm != self.header.pcm:
                return False
            self._expected = pcm
        return True

    def read(self, start_frame: int, num_frames: int, out: np.ndarray | None) -> np.ndarray:
        """(C, num_frames), a copy: in ``out``, or in new memory."""
        if self._map.size() != len(self._map):  # of the file as it is now, and as it was when it was mapped
            raise PcmEntryError(f"{self.header.pcm.path}: has changed its size since it was opened")
        chunk = self.samples[:, start_frame : start_frame + num_frames]
        if hasattr(mmap, "MADV_WILLNEED"):
            self._announce(start_frame, num_frames)
        if out is None:
            return chunk.copy()
        out[...] = chunk
        return out

    def read_ahead(self) -> None:
        """Be read from its beginning to its end from now on."""
        if hasattr(mmap, "MADV_SEQUENTIAL"):
            self._map.madvise(mmap.MADV_SEQUENTIAL)

    def _announce(self, start_frame: int, num_frames: int) -> None:
        if time.monotonic() > self._told_until:
            self._forget_pages()
        told, start, num_bytes = self._told, start_frame * self.samples.itemsize, num_frames * self.samples.itemsize
        for channel_byte in self._channel_bytes:
            first = channel_byte + start
            last = first + num_bytes
            page, end = first // mmap.PAGESIZE, (last - 1) // mmap.PAGESIZE + 1
            if told.find(0, page, end) >= 0:
                self._map.madvise(mmap.MADV_WILLNEED, page * mmap.PAGESIZE, last - page * mmap.PAGESIZE)
                told[page:end] = b"\1" * (end - page)

    def _forget_pages(self) -> None:
        self._told = bytearray(len(self._map) // mmap.PAGESIZE + 1)  # 1: the system was told that the page is needed
        self._told_until = time.monotonic() + _TOLD_SECONDS


def _map(path: Path) -> mmap.mmap:
    try:
        number = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            if os.fstat(number).st_size < HEADER_BYTES:
                raise PcmEntryError(f"{path}: is not an entry of the PCM cache, or its header is damaged")
            return mmap.mmap(number, 0, access=mmap.ACCESS_READ)
        finally:
            os.close(number)  # the map has a copy of its own
    except PcmEntryError:
        raise
    except OSError as error:
        raise PcmEntryError(f"{path}: cannot be opened: {error.strerror}; build it again") from error


class _OpenEntries:
    """The entries that this process read last, open. A forked child starts with none of them, and a lock of its own."""

    def __init__(self) -> None:
        self._forget()
        self._allowed = files_allowed() // 4
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[Path, _OpenEntry] = {}
        self._num_asked = 0

    def get(self, pcm: CachedPcm) -> _OpenEntry:
        """The entry, opened where it is not; one that has to make room is closed when its last reader is done."""
        entry = self._entries.get(pcm.path)  # without the lock, which takes longer than all this
        if entry is None or not entry.holds(pcm):
            entry = self._open(pcm)
        self._num_asked = entry.used = self._num_asked + 1
        return entry

    def _open(self, pcm: CachedPcm) -> _OpenEntry:
        entry = _OpenEntry(pcm.path)
        if not entry.holds(pcm):
            raise PcmEntryError(f"{pcm.path}: holds {entry.header.pcm}, expected was {pcm}; build it again")
        most = max(1, min(_MOST_OPEN, self._allowed))
        with self._lock:
            if len(self._entries) >= most:  # half of them at once, so that this is rare
                last_used = sorted(self._entries.items(), key=lambda item: item[1].used)
                self._entries = dict(last_used[len(last_used) - most // 2 :])
            self._entries[pcm.path] = entry
        return entry

    def drop(self, pcm: CachedPcm) -> None:
        """Open the entry anew at the next reading."""
        with self._lock:
            self._entries.pop(pcm.path, None)


def files_allowed() -> int:
    """How many files this process may open."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit for maps
        return 4 * _MOST_OPEN
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 4 * _MOST_OPEN if soft == resource.RLIM_INFINITY else soft


@cache
def _open_entries() -> _OpenEntries:
    return _OpenEntries()


def touch(path: Path) -> None:
    """Note that an entry is in use, for pruning by age; a cache that may only be read keeps its times."""
    with contextlib.suppress(OSError):
        os.utime(path)
