"""The base class of all datasets of audio files: which files, which side of the split, which rate, depth and channels.

A dataset of its own derives from `ChunkDataset` (codes/data/audio/chunk_dataset.py), which adds windows and numbers
them; its constructor takes ``**audio`` and hands it on, and so has all the options of this one.
"""

import hashlib
import logging
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from codes.data.audio.channel_layout import ChannelChoice, ChannelLayout
from codes.data.audio.demo_corpus import demo_corpus
from codes.data.audio.demo_surround import demo_surround
from codes.data.audio.listing.file_progress import FileProgress
from codes.data.audio.listing.folder import Scan, remembered_index, scan
from codes.data.audio.listing.index import Index, changes_since, remember_hashes, write_index
from codes.data.audio.listing.index_entry import IndexEntry
from codes.data.audio.pcm_cache import PcmCache, PcmRequest
from codes.data.audio.reader import AudioFile, AudioReadError, to_bits
from codes.data.audio.recordings import Recording, RecordingReader, Segment
from codes.data.audio.splits import Sides, Split, SplitKind
from codes.data.batch_rows import BatchRows
from codes.data.dataset import Dataset
from codes.registry import Output, Range

logger = logging.getLogger(__name__)

_WORKERS = 8  # files read at a time, by threads
BitDepth = Literal[8, 12, 16, 20, 24, 32]


class AudioDataset(Dataset, abstract=True):
    """Recordings of one sample rate, bit depth and number of channels, of one side of the split.

    A subclass says in ``num_channels`` how many channels it needs and in ``shortest_frames`` the length of what it
    takes, both before it calls this constructor. ``segments`` is what there is to take from; `read` reads from it.

    Args:
        path: a folder of audio files (searched through and through), a file, an index or a manifest, or a list of
            such; "demo_corpus" is music that the project synthesises itself, "demo_surround" a 5.1 version of it.
        phase: "train" or "val": which side of the split.
        bits: bit depth of the samples given. Deeper files lose their lowest bits, shallower files are shifted up.
        sample_rate: frames per second of the audio given, in Hz. null: all files must have the same, and have it.
        other_rates: what becomes of files of another rate than sample_rate: "resample" (decoded once into the cache),
            "skip" or "refuse" with an error.
        channels: "exact": files must have the channels that the dataset needs; "mono": the mean of all channels;
            "duplicate": mono files become equal channels; "each": every channel by itself; {select: [i, j]} takes
            channels by number; {aggregate: [[weights], [weights]]} mixes them.
        other_channels: what becomes of files that channels does not fit: "refuse" with an error, or "skip".
        float_bits: files of floating point samples are taken as integers of so many bits; null: they are errors.
        on_error: "fail" at the first file that cannot be read; "skip": leave it out, count it and say so.
        max_errors: stop the run when "skip" has counted more errors than this.
        split: how train and val are divided: by "file", by "folder", by "list" or by "interval" (a stretch of each
            file is kept for validation).
        val_fraction: share of the duration that is kept for validation, 0 to 1.
        split_seed: which files or folders those are.
        val_list: for split: list, a text file with a path or pattern a line: the files that validate.
        val_position: for split: interval, where the stretch lies: 0 at the start of each file, 0.5 in the middle.
        val_seconds: validate on at most so much audio, the middle of the validation files (of some, if many);
            null: on all of it.
        cache: which files are decoded once into the cache of PCM: "needed" (lossy and resampled ones) or "all".
        cache_folder: where that cache is; null: in the user's cache.
        index: a file that remembers what was found, so that an unchanged folder is not read again; null: in the user's
            cache.
    """

    num_channels: int | None = None
    shortest_frames: int = 1

    def __init__(
        self,
        *,
        path: Path | list[Path],
        phase: Literal["train", "val"] = "train",
        bits: BitDepth = 16,
        sample_rate: Annotated[int, Range(least=1)] | None = None,
        other_rates: Literal["resample", "skip", "refuse"] = "resample",
        channels: ChannelChoice = "exact",
        other_channels: Literal["refuse", "skip"] = "refuse",
        float_bits: Annotated[int, Range(least=8, most=32)] | None = None,
        on_error: Literal["fail", "skip"] = "fail",
        max_errors: Annotated[int, Range(least=0)] = 100,
        split: SplitKind = "file",
        val_fraction: float = 0.1,
        split_seed: int = 0,
        val_list: Path | None = None,
        val_position: float = 0.5,
        val_seconds: Annotated[float, Range(above=0)] | None = None,
        cache: Literal["needed", "all"] = "needed",
        cache_folder: Annotated[Path, Output()] | None = None,
        index: Annotated[Path, Output()] | None = None,
    ) -> None:
        self.phase, self.bits, self.float_bits = phase, bits, float_bits
        self.on_error, self.max_errors, self.num_errors = on_error, max_errors, 0
        self.layout = ChannelLayout(channels, self.num_channels)
        self._split = Split(
            by=split, val_fraction=val_fraction, seed=split_seed, val_list=val_list, val_position=val_position
        )
        self._notes: list[str] = []
        self._reader = RecordingReader()
        self._known: Path | None = None  # the index that is remembered
        found = self.find(path if isinstance(path, list) else [path], index)
        self._note_scan(found)
        files = self._one_phase(found.files)
        files = self._choose_channels(files, other_channels)
        files = self._choose_rate(files, sample_rate, other_rates)
        self.recordings = self._record(files, sample_rate, cache, cache_folder)
        self.segments = self._choose_length(self._segments())
        self._note_depths()

    def find(self, paths: Sequence[Path], index: Path | None) -> Scan:
        """The files; a dataset of a published layout overrides this."""
        roots = [_demo(str(path)) or path for path in paths]
        on_error = "collect" if self.on_error == "skip" else "fail"
        self._known = index or remembered_index(roots)
        try:
            return scan(roots, known=self._known, on_error=on_error, progress=True, float_bits=self.float_bits)
        except AudioReadError as error:
            if self.on_error == "skip":
                raise
            way = "on_error: skip leaves out what cannot be read; python -m codes.data.audio.doctor names all of it"
            raise AudioReadError(f"{error}; {way}") from error

    def sides(self, files: list[IndexEntry]) -> Sides:
        """Training files and validation files; a dataset with a split of its own overrides this."""
        return self._split.files(files)

    def read(self, segment: Segment, start_frame: int, num_frames: int) -> np.ndarray:
        """(num_channels, num_frames) integers of ``bits`` bits; start_frame counts from the recording's start.

        Raises:
            AudioReadError: the file cannot be read, or is not what it was when it was scanned.
        """
        bits = segment.recording.bits
        pcm = self._reader.read(segment.recording, start_frame, num_frames)
        pcm = self.layout.apply(pcm, bits, segment.channel)
        return pcm if bits == self.bits else to_bits(pcm, bits, self.bits)

    def lend(self, rows: BatchRows | None) -> None:
        """Read into the memory of a batch from now on; None: no longer."""
        self._reader.rows = rows

    def fingerprint(self) -> dict[str, Any]:
        """Number and length of the files; hashes of paths, lengths, rates and depths, and of some bytes of each."""
        files = [(recording.file, recording.file.info) for recording in self.recordings]
        listed = [
            (f.relative, f.stream, i.num_frames, i.sample_rate_hz, i.bits, i.num_channels, i.format) for f, i in files
        ]
        digest = hashlib.sha256(repr(listed).encode("utf-8", "surrogateescape")).hexdigest()[:16]
        content = zlib.crc32(repr([file.mark for file, _ in files]).encode())
        return {"files": len(files), "frames": self._num_frames(), "digest": digest, "content": f"{content:08x}"}

    def write_index(self, path: Path) -> None:
        """Write the files that are taken as an index.

        Raises:
            OSError: it cannot be written.
        """
        files = {recording.file.path: recording.file for recording in self.recordings}
        write_index(path, Index(entries=list(files.values())))

    def changes_since(self, index: Path) -> list[str] | None:
        """With on_error: skip, what has become of the files that `write_index` noted; counted as errors.

        None where that explains nothing: on_error is fail, there is no such index, or there are files that it lacks.

        Raises:
            AudioReadError: more than max_errors.
        """
        messages = changes_since(index, [r.file for r in self.recordings]) if self.on_error == "skip" else None
        self._count_errors([m for m in messages or [] if not any(m.split(": ")[0] in note for note in self._notes)])
        return messages

    def report(self) -> list[str]:
        """What was found, split, left out and taken, in lines for people."""
        rates = sorted({f"{recording.sample_rate_hz} Hz" for recording in self.recordings})
        depths = sorted({f"{r.bits}-bit {r.file.info.format}" for r in self.recordings})
        taken = f"taken: {_amount(self.recordings)}; {', '.join(rates)}; {', '.join(depths)}"
        return [*self._notes, f"{taken}; {len(self)} items an epoch"]

    def _num_frames(self) -> int:
        return sum(segment.num_frames for segment in self.segments)

    def _note_scan(self, found: Scan) -> None:
        self._notes += [f"found: {_amount(found.files)}", *found.notes]
        for reason, paths in sorted(found.left_out.items()):
            self._notes.append(f"left out: {len(paths)} {reason} ({_some([path.name for path in paths])})")
        self._count_errors(list(found.errors.values()))

    def _count_errors(self, messages: list[str]) -> None:
        """Say what cannot be read and is left out; stop where it is more than max_errors."""
        self.num_errors += len(messages)
        for message in messages:
            self._notes.append(f"left out: {message}")
            logger.warning("left out: %s", message)
        if self.num_errors > self.max_errors:
            raise AudioReadError(
                f"max_errors is {self.max_errors}, and {self.num_errors} files cannot be read; the last: {messages[-1]}"
            )

    def _one_phase(self, files: list[IndexEntry]) -> list[IndexEntry]:
        train, val = self.sides(files)
        if self._split.by == "interval":
            self._notes.append(f"split: {self._split.describe()}; this is {self.phase}")
        else:
            self._notes.append(f"split: {_amount(train)} to train, {_amount(val)} to validate; this is {self.phase}")
        chosen = train if self.phase == "train" else val
        if not chosen:
            raise ValueError(
                f"no file is left for phase {self.phase!r} (split: {self._split.describe()}): "
                f"val_fraction is {self._split.val_fraction}"
            )
        return chosen

    def _leave_out(self, files: Sequence[IndexEntry | Recording | Segment], reason: str) -> None:
        """Say on the log and in the report that files are not taken; never done in silence."""
        if files:
            note = f"left out: {_amount(files)} {reason} ({_some([_relative(file) for file in files])})"
            self._notes.append(note)
            logger.warning(note)

    def _choose_channels(self, files: list[IndexEntry], others: str) -> list[IndexEntry]:
        misfits = [file for file in files if self.layout.misfit(file.info)]
        fitting = [file for file in files if not self.layout.misfit(file.info)]
        if misfits and (others == "refuse" or not fitting):
            counted = f" (and {len(misfits) - 1} more of {len(files)} do not fit)" if len(misfits) > 1 else ""
            raise ValueError(
                f"channels: {misfits[0].path} {self.layout.misfit(misfits[0].info)}{counted}: other_channels: skip "
                "leaves such files out; channels: duplicate takes mono, mono mixes, {select: [0, 1]} takes some"
            )
        self._leave_out(misfits, "whose channels do not fit")
        monos = [file for file in fitting if file.info.num_channels == 1]
        if self.layout.choice == "duplicate" and monos:
            self._notes.append(f"duplicated to all channels: {_amount(monos)} of mono")
        return fitting

    def _choose_rate(self, files: list[IndexEntry], sample_rate: int | None, others: str) -> list[IndexEntry]:
        counts: dict[int, int] = {}
        for file in files:
            counts[file.info.sample_rate_hz] = counts.get(file.info.sample_rate_hz, 0) + 1
        there = ", ".join(f"{count} of {rate} Hz" for rate, count in sorted(counts.items()))
        if sample_rate is None:
            if len(counts) > 1:
                raise ValueError(
                    f"sample_rate: the files differ: {there}; choose one with sample_rate: "
                    f"{max(counts, key=lambda rate: counts[rate])} (the others are then resampled, or left out with "
                    "other_rates: skip)"
                )
            return files
        odd = [file for file in files if file.info.sample_rate_hz != sample_rate]
        if odd and others == "refuse":
            raise ValueError(f"sample_rate is {sample_rate} Hz and other_rates is refuse: found {there}")
        if others == "skip":
            if sample_rate not in counts:
                raise ValueError(f"sample_rate: no file has {sample_rate} Hz: found {there}")
            self._leave_out(odd, "of another sample rate")
            return [file for file in files if file.info.sample_rate_hz == sample_rate]
        if odd:
            from_rates = ", ".join(f"{n} of {rate} Hz" for rate, n in sorted(counts.items()) if rate != sample_rate)
            self._notes.append(f"resampled to {sample_rate} Hz: {_amount(odd)} ({from_rates})")
        return files

    def _record(
        self, files: list[IndexEntry], sample_rate: int | None, cache: str, cache_folder: Path | None
    ) -> list[Recording]:
        """Each file as it will be read; those that need it are decoded into the cache first."""
        hashes = self._hashes([file for file in files if cache == "all" or _needs_cache(file, sample_rate)])
        needy = [file for file in files if isinstance(hashes.get(file.path), str)]
        requests = [
            PcmRequest(
                path=file.path, content_hash=str(hashes[file.path]), info=file.info, stream=file.stream,
                sample_rate_hz=sample_rate, float_bits=self.float_bits,
            )
            for file in needy
        ]  # fmt: skip
        on_error = "collect" if self.on_error == "skip" else "fail"
        made = PcmCache(cache_folder).build(requests, progress=True, on_error=on_error) if requests else []
        cached = {(file.path, file.stream): result for file, result in zip(needy, made, strict=True)}
        results = {**{(file.path, file.stream): hashes[file.path] for file in files if file.path in hashes}, **cached}
        broken = {key: str(result) for key, result in results.items() if isinstance(result, AudioReadError)}
        if self.on_error == "skip" and self.phase == "val":
            broken |= self._broken([file for file in files if (file.path, file.stream) not in results])
        self._count_errors(list(broken.values()))
        self._note_clipped([result for result in made if not isinstance(result, AudioReadError)])
        recordings = []
        for file in files:
            copy = cached.get((file.path, file.stream))
            if (file.path, file.stream) not in broken and not isinstance(copy, AudioReadError):
                recordings.append(Recording(file=file, cached=copy, float_bits=self.float_bits))
        if not recordings:
            raise AudioReadError(f"none of the {len(files)} files for phase {self.phase!r} can be read")
        return recordings

    def _broken(self, files: list[IndexEntry]) -> dict[tuple[Path, int], str]:
        """Files that cannot be read to their end. Validation reads the same ones again and again: better known now."""

        def decode(file: IndexEntry) -> None:
            with AudioFile(file.path, stream=file.stream, float_bits=self.float_bits, known=file.info) as opened:
                for _ in opened.blocks():
                    pass

        results = self._for_all("checking", files, decode)
        return {key: str(result) for key, result in results.items() if isinstance(result, AudioReadError)}

    def _hashes(self, files: list[IndexEntry]) -> dict[Path, str | AudioReadError]:
        """The hash of each file's bytes, or why there is none; those made now are remembered with the index."""
        made = self._for_all("hashing", [file for file in files if file.content_hash is None], IndexEntry.hashed)
        errors = [result for result in made.values() if isinstance(result, AudioReadError)]
        if errors and self.on_error == "fail":
            raise errors[0]
        new = {path: result for (path, _), result in made.items() if isinstance(result, str)}
        if new and self._known is not None:
            remember_hashes(self._known, new)
        known = {file.path: file.content_hash for file in files if file.content_hash is not None}
        return {**known, **{path: result for (path, _), result in made.items()}}

    def _for_all(self, verb: str, files: list[IndexEntry], work: Callable[[IndexEntry], Any]) -> dict[Any, Any]:
        """What work gives for each file, by path and stream, or the error that a file met; several at a time."""

        def attempt(file: IndexEntry) -> Any:
            try:
                return work(file)
            except AudioReadError as error:
                return error

        results = {}
        with ThreadPoolExecutor(_WORKERS) as pool, FileProgress(verb, len(files), shown=True) as bar:
            for file, result in zip(files, pool.map(attempt, files), strict=True):
                results[file.path, file.stream] = result
                bar.advance(1)
        return results

    def _note_clipped(self, copies: list[Any]) -> None:
        clipped = sum(copy.num_clipped for copy in copies)
        if clipped:
            count = sum(copy.num_clipped > 0 for copy in copies)
            self._notes.append(f"resampling went beyond full scale and was clipped: {clipped} samples of {count} files")

    def _segments(self) -> list[Segment]:
        return [
            Segment(recording=recording, start_frame=start, num_frames=frames, channel=channel)
            for recording in self.recordings
            for channel in self.layout.channels_of(recording.file.info)
            for start, frames in self._split.intervals(recording.num_frames, self.phase)
        ]

    def _choose_length(self, segments: list[Segment]) -> list[Segment]:
        shortest = self.shortest_frames
        long_enough = [segment for segment in segments if segment.num_frames >= shortest]
        if not long_enough:
            longest = max(segments, key=lambda segment: segment.num_frames)
            raise ValueError(
                f"all {len(self.recordings)} files are shorter than what an item takes, {shortest} frames; the "
                f"longest, {longest.recording.file.path}, has {longest.num_frames} frames for phase {self.phase!r}"
            )
        short = [segment for segment in segments if segment.num_frames < shortest]
        if self._split.by != "interval":
            self._leave_out(short, f"shorter than an item of {shortest} frames")
        elif short:
            seconds = sum(segment.seconds for segment in short)
            self._notes.append(f"too short for an item of {shortest} frames: {len(short)} stretches, {seconds:.1f} s")
        return long_enough

    def _note_depths(self) -> None:
        for depth in sorted({recording.bits for recording in self.recordings} - {self.bits}):
            recordings = [recording for recording in self.recordings if recording.bits == depth]
            how = "down, losing their lowest bits," if depth > self.bits else "up"
            self._notes.append(f"shifted {how} from {depth} to {self.bits} bits as bits says: {_amount(recordings)}")


def _demo(name: str) -> Path | None:
    """The folder of what the project synthesises itself, made where it is not there yet; None for other names."""
    made = {"demo_corpus": demo_corpus, "demo_surround": demo_surround}.get(name)
    return made() if made else None


def _needs_cache(file: IndexEntry, sample_rate: int | None) -> bool:
    """A file that cannot be sought (every lossy one) would be decoded from its start for each chunk."""
    return not file.info.seeks or (sample_rate is not None and sample_rate != file.info.sample_rate_hz)


def _relative(file: IndexEntry | Recording | Segment) -> str:
    if isinstance(file, Segment):
        file = file.recording
    return file.relative if isinstance(file, IndexEntry) else file.file.relative


def _amount(files: Sequence[IndexEntry | Recording | Segment]) -> str:
    minutes = sum(file.seconds for file in files) / 60.0
    return f"{len(files)} file{'' if len(files) == 1 else 's'}, {minutes:.2f} min"


def _some(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
