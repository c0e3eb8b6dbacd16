"""Chunks of stereo audio as exact integers, from any folder of audio files.

    python -m codes.data.audio.stereo_chunk --path DIR [--chunk-frames N ...]

prints what it finds there, a table of items and its speed, and writes a preview picture.

A file is opened anew for every chunk: that costs about 0.1 ms (kept open, reading takes 0.05 ms less), needs no care
in forked or spawned workers, and notices files that changed since the scan.
"""

import dataclasses
import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from codes.data.audio.demo_corpus import demo_corpus
from codes.data.audio.folder import FoundFile, Scan, scan, split
from codes.data.audio.reader import AudioFile, AudioReadError, to_bits
from codes.data.dataset import Dataset

logger = logging.getLogger(__name__)


class StereoChunkDataset(Dataset):
    """Chunks of stereo PCM, with the frames before each as context.

    Training items are chunks that start anywhere, every start in every file being equally likely; the validation items
    are all whole chunks of the validation files, one after the other. Samples are right-justified integers of ``bits``
    bits: ``wav`` is (2, context_frames + chunk_frames), int16 for up to 16 bits and int32 above. Context before the
    file's start is zeros. Train and val never share a file, and which file is on which side follows from the files,
    ``val_fraction`` and ``split_seed`` alone: give both datasets the same.

    Args:
        path: a folder of audio files (searched through and through), a file, or a list of such; "demo_corpus" is the
            music that the project synthesises itself.
        phase: "train" for random chunks of the training files, "val" for all chunks of the validation files in order.
        chunk_frames: length of a chunk in frames (samples of one channel).
        context_frames: frames before the chunk that are given as well.
        bits: bit depth of the samples given. Deeper files lose their lowest bits, shallower files are shifted up.
        sample_rate: take only files of this rate, in Hz. null: all files must have the same.
        mono: what becomes of mono files: "duplicate" to both channels, "skip", or "refuse" with an error.
        val_fraction: share of the duration that is kept for validation, 0 to 1.
        split_seed: which files that are.
        val_seconds: validate on at most so much audio, the middle of every validation file; null: on all of it.
    """

    provides = {
        "wav": "PCM, (2, context_frames + chunk_frames), int16 for bits <= 16, else int32",
        "path": "the file, str",
        "start_frame": "the frame of the file at which the chunk (not its context) starts, int",
        "sample_rate": "frames per second, int",
        "bit_depth": "bits of the file itself, int",
    }

    def __init__(
        self,
        *,
        path: Path | list[Path],
        phase: Literal["train", "val"] = "train",
        chunk_frames: int = 8192,
        context_frames: int = 0,
        bits: Literal[8, 16, 24, 32] = 16,
        sample_rate: int | None = None,
        mono: Literal["duplicate", "skip", "refuse"] = "refuse",
        val_fraction: float = 0.1,
        split_seed: int = 0,
        val_seconds: float | None = None,
    ) -> None:
        if chunk_frames < 1:
            raise ValueError(f"chunk_frames is {chunk_frames}, it must be at least 1")
        if context_frames < 0:
            raise ValueError(f"context_frames is {context_frames}, it must be at least 0")
        self.phase = phase
        self.chunk_frames = chunk_frames
        self.context_frames = context_frames
        self.bits = bits
        self._notes: list[str] = []
        paths = path if isinstance(path, list) else [path]
        found = scan([demo_corpus() if str(name) == "demo_corpus" else name for name in paths])
        self._note_scan(found)
        train, val = split(found.files, val_fraction, split_seed)
        files = train if phase == "train" else val
        self._notes.append(f"split: {_amount(train)} to train, {_amount(val)} to validate; this is {phase}")
        if not files:
            raise ValueError(f"no file is left for phase {phase!r}: val_fraction is {val_fraction}")
        files = self._choose_channels(files, mono)
        files = self._choose_rate(files, sample_rate)
        self.files = self._choose_length(files)
        self._note_depths()
        starts = [file.info.num_frames - chunk_frames + 1 for file in self.files]
        self._first_chunks, chunks = self._middle(val_seconds if phase == "val" else None)
        self._ends = np.cumsum(starts if phase == "train" else chunks)  # of each file's share of the choices
        self._num_frames = sum(file.info.num_frames for file in self.files)

    def __len__(self) -> int:
        """Train: as many chunks as the files' frames would make. Val: the whole chunks that there are."""
        return self._num_frames // self.chunk_frames if self.phase == "train" else int(self._ends[-1])

    def item(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """Train: a random chunk, whatever the index. Val: chunk ``index``, whatever ``rng``.

        Raises:
            IndexError: there is no such item.
            AudioReadError: the file cannot be read, or is not what it was when it was scanned.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of a dataset of {len(self)}")
        choice = int(rng.integers(self._ends[-1])) if self.phase == "train" else index
        number = int(np.searchsorted(self._ends, choice, side="right"))
        within = choice - (int(self._ends[number - 1]) if number else 0)
        start_frame = within if self.phase == "train" else (self._first_chunks[number] + within) * self.chunk_frames
        file = self.files[number]
        return {
            "wav": self._read_chunk(file, start_frame),
            "path": str(file.path),
            "start_frame": start_frame,
            "sample_rate": file.info.sample_rate_hz,
            "bit_depth": file.info.bits,
        }

    def _read_chunk(self, file: FoundFile, start_frame: int) -> np.ndarray:
        """(2, context_frames + chunk_frames), zeros before the file's start."""
        first = max(0, start_frame - self.context_frames)
        pcm = self._read(file, first, start_frame + self.chunk_frames - first)
        missing = self.context_frames + self.chunk_frames - pcm.shape[1]
        return np.pad(pcm, ((0, 0), (missing, 0))) if missing else pcm

    def _read(self, file: FoundFile, start_frame: int, num_frames: int) -> np.ndarray:
        """(2, num_frames) at the dataset's bit depth."""
        with AudioFile(file.path) as opened:
            if opened.info != file.info:
                raise AudioReadError(
                    f"{file.path}: has changed since it was scanned: was {_facts(file)}, is "
                    f"{_facts(FoundFile(path=file.path, relative=file.relative, info=opened.info))}"
                )
            pcm = to_bits(opened.read(start_frame, num_frames), file.info.bits, self.bits)
        return np.repeat(pcm, 2, axis=0) if file.info.num_channels == 1 else pcm

    def scored_audio(self) -> Iterator[tuple[str, np.ndarray, int, int]]:
        """What the whole chunks of each file hold, file by file: (path, PCM (2, frames), bits, sample rate in Hz).

        For val these are exactly the frames that its items hold as chunks, for the baselines to code as well.
        """
        for number, file in enumerate(self.files):
            start = self._first_chunks[number] * self.chunk_frames
            pcm = self._read(file, start, self._num_chunks[number] * self.chunk_frames)
            yield str(file.path), pcm, self.bits, file.info.sample_rate_hz

    def scored_seconds(self) -> float:
        """How much audio `scored_audio` gives."""
        rates = [file.info.sample_rate_hz for file in self.files]
        return sum(n * self.chunk_frames / rate for n, rate in zip(self._num_chunks, rates, strict=True))

    def _middle(self, seconds: float | None) -> tuple[list[int], list[int]]:
        """First chunk and number of chunks of each file: all of it, or the middle of each, `seconds` together."""
        chunks = [file.info.num_frames // self.chunk_frames for file in self.files]
        rates = [file.info.sample_rate_hz for file in self.files]
        total = sum(n * self.chunk_frames / rate for n, rate in zip(chunks, rates, strict=True))
        if seconds is None or total <= seconds:
            self._num_chunks = chunks
        else:
            self._num_chunks = [max(1, int(n * seconds / total)) for n in chunks]
            self._notes.append(
                f"validates on the middle of every file, {self.scored_seconds():.0f} of {total:.0f} seconds"
            )
        return [(n - kept) // 2 for n, kept in zip(chunks, self._num_chunks, strict=True)], self._num_chunks

    def fingerprint(self) -> dict[str, Any]:
        """Number and length of the files, and a hash of their relative paths, lengths, rates and depths."""
        listed = [(file.relative, *dataclasses.astuple(file.info)) for file in self.files]
        digest = hashlib.sha256(repr(listed).encode()).hexdigest()[:16]
        return {"files": len(self.files), "frames": self._num_frames, "digest": digest}

    def report(self) -> list[str]:
        """What was found, split, left out and taken, in lines for people."""
        rates = sorted({f"{file.info.sample_rate_hz} Hz" for file in self.files})
        depths = sorted({f"{file.info.bits}-bit {file.info.format}" for file in self.files})
        taken = f"taken: {_amount(self.files)}; {', '.join(rates)}; {', '.join(depths)}; {len(self)} chunks an epoch"
        return [*self._notes, taken]

    def _note_scan(self, found: Scan) -> None:
        self._notes.append(f"found: {_amount(found.files)}")
        for reason, paths in sorted(found.left_out.items()):
            self._notes.append(f"left out: {len(paths)} {reason} ({_some([path.name for path in paths])})")

    def _leave_out(self, files: list[FoundFile], reason: str) -> None:
        """Say on the log and in the report that files are not taken; never done in silence."""
        if files:
            note = f"left out: {_amount(files)} {reason} ({_some([file.relative for file in files])})"
            self._notes.append(note)
            logger.warning(note)

    def _choose_channels(self, files: list[FoundFile], mono: str) -> list[FoundFile]:
        many = [file for file in files if file.info.num_channels > 2]
        if many:
            raise ValueError(
                f"{many[0].path} has {many[0].info.num_channels} channels (and {len(many) - 1} more files have over "
                "two): stereo_chunk takes stereo, and mono as its option mono says; mix them down first"
            )
        monos = [file for file in files if file.info.num_channels == 1]
        stereos = [file for file in files if file.info.num_channels == 2]
        if mono == "duplicate":
            if monos:
                self._notes.append(f"duplicated to both channels: {_amount(monos)} of mono")
            return files
        if not stereos:
            raise ValueError(
                f"no stereo file among {len(files)} in phase {self.phase!r} (the first is {files[0].path}): "
                'mono: "duplicate" takes mono files as two equal channels'
            )
        if monos and mono == "refuse":
            raise ValueError(
                f"{len(monos)} of {len(files)} files are mono ({_some([file.relative for file in monos])}): "
                'choose mono: "duplicate" or mono: "skip"'
            )
        self._leave_out(monos, "that is mono")
        return stereos

    def _choose_rate(self, files: list[FoundFile], sample_rate: int | None) -> list[FoundFile]:
        counts: dict[int, int] = {}
        for file in files:
            counts[file.info.sample_rate_hz] = counts.get(file.info.sample_rate_hz, 0) + 1
        there = ", ".join(f"{count} of {rate} Hz" for rate, count in sorted(counts.items()))
        if sample_rate is None:
            if len(counts) > 1:
                raise ValueError(
                    f"the files differ in sample rate: {there}; choose one with sample_rate: "
                    f"{max(counts, key=lambda rate: counts[rate])} (the others are then left out)"
                )
            return files
        if sample_rate not in counts:
            raise ValueError(f"no file has sample_rate {sample_rate} Hz: found {there}")
        self._leave_out([file for file in files if file.info.sample_rate_hz != sample_rate], "of another sample rate")
        return [file for file in files if file.info.sample_rate_hz == sample_rate]

    def _choose_length(self, files: list[FoundFile]) -> list[FoundFile]:
        long_enough = [file for file in files if file.info.num_frames >= self.chunk_frames]
        if not long_enough:
            longest = max(files, key=lambda file: file.info.num_frames)
            raise ValueError(
                f"all {len(files)} files are shorter than chunk_frames: {self.chunk_frames}; "
                f"the longest, {longest.path}, has {longest.info.num_frames} frames"
            )
        short = [file for file in files if file.info.num_frames < self.chunk_frames]
        self._leave_out(short, f"shorter than a chunk of {self.chunk_frames} frames")
        return long_enough

    def _note_depths(self) -> None:
        for depth in sorted({file.info.bits for file in self.files} - {self.bits}):
            files = [file for file in self.files if file.info.bits == depth]
            how = "down, losing their lowest bits," if depth > self.bits else "up"
            self._notes.append(f"shifted {how} from {depth} to {self.bits} bits as bits says: {_amount(files)}")


def _amount(files: list[FoundFile]) -> str:
    minutes = sum(file.seconds for file in files) / 60.0
    return f"{len(files)} file{'' if len(files) == 1 else 's'}, {minutes:.2f} min"


def _facts(file: FoundFile) -> str:
    info = file.info
    return f"{info.num_frames} frames, {info.num_channels} channels, {info.bits} bits, {info.sample_rate_hz} Hz"


def _some(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


if __name__ == "__main__":
    from codes.data.audio import preview

    preview.main("stereo_chunk")
