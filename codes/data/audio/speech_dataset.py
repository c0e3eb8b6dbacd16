"""The base class of datasets of speech with text: which rows of a transcript are taken, and their tokens."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from codes.data.audio.clip_dataset import ClipDataset
from codes.data.audio.listing.folder import Scan
from codes.data.audio.listing.index_entry import IndexEntry
from codes.data.audio.recordings import Segment
from codes.data.audio.resample import num_resampled
from codes.data.audio.transcripts.fetchers import FetcherMode, read_all
from codes.data.audio.transcripts.left_out import LeftOut
from codes.data.audio.transcripts.rows import Row, is_audio_name, refuse
from codes.data.audio.transcripts.screening import TextScreen
from codes.data.text.cleaners import Cleaner
from codes.registry import Range


class SpeechDataset(ClipDataset, abstract=True):
    """Whole recordings and what is said in them.

    What does not fit is left out, counted by reason and reported with file and row: text without tokens, with
    characters that the tokenizer does not know, or too long; recordings that are too short or too long. Rows that
    cannot be understood and recordings that are missing are errors, unless ``on_error`` is skip.

    Args:
        path: the metadata, as fetcher_mode says: a file or the folder of a corpus; or a list of such.
        fetcher_mode: how it is written: lj (``path|text``, or LJ Speech as downloaded), libritts, tsv, mozilla_cv,
            voxpopuli or jsonl; or a list with one for each path.
        max_text_length: most tokens of a text; shorter ones are filled up with 0.
        min_wav_seconds: shorter recordings are left out.
        use_bpe_tokenizer: byte pair encoding; false: one token a character, Tacotron's symbols.
        tokenizer_vocab: a JSON file of the tokenizers library, as Tortoise has; null: the project's own for English.
        text_cleaners: what is done to text first: english, or basic for other languages.
        needs_collate: no effect: items always have one length.
        debug_loading_failures: no effect: what is left out is always counted and reported.
    """

    def __init__(
        self,
        *,
        path: Path | list[Path],
        fetcher_mode: FetcherMode | list[FetcherMode] = "lj",
        max_text_length: Annotated[int, Range(least=1)] = 200,
        min_wav_seconds: Annotated[float, Range(least=0)] = 0.6,
        use_bpe_tokenizer: bool = True,
        tokenizer_vocab: Path | None = None,
        text_cleaners: Cleaner = "english",
        needs_collate: bool = False,
        debug_loading_failures: bool = False,
        **audio: Any,
    ) -> None:
        self._modes: list[FetcherMode] = fetcher_mode if isinstance(fetcher_mode, list) else [fetcher_mode]
        self._min_seconds = min_wav_seconds
        self.screen = TextScreen(max_text_length, use_bpe_tokenizer, tokenizer_vocab, text_cleaners)
        self.left_out = LeftOut()
        self._rows: dict[Path, dict[int, Row]] = {}  # of each file, by the frame where they begin
        super().__init__(path=path, **audio)
        self._rows = {recording.file.path: self._rows[recording.file.path] for recording in self.recordings}

    def find(self, paths: Sequence[Path], index: Path | None) -> Scan:
        """The recordings that are taken; what they are called begins with the speaker, where that is known.

        Raises:
            TranscriptError: the metadata cannot be read, a row cannot be understood, or a recording is missing.
            ValueError: no recording is left.
        """
        found = read_all([Path(path) for path in paths], self._modes, self.phase)
        wrong = {row.where: reason for row in found.rows if (reason := _wrong_file(row.audio))}
        there = [row for row in found.rows if row.where not in wrong]
        problems = found.problems + [f"{where}: {reason}" for where, reason in wrong.items()]
        if self.on_error == "fail":
            refuse(problems, len(found.rows))
        rows = self._first_rows(self.screen.keep([row for row in there if self.takes(row)], self.left_out))
        if not rows:
            raise ValueError(self._nothing_left(len(found.rows)))
        scanned = super().find(list(rows), index)
        outside = [problem for file in scanned.files for problem in self._outside(file, rows[file.path])]
        if self.on_error == "fail":
            refuse(outside, len(found.rows))
        problems += outside
        self._rows = {file.path: self._fitting(file, rows[file.path]) for file in scanned.files}
        files = [self._named(file) for file in scanned.files if self._rows[file.path]]
        notes = [*scanned.notes, *found.notes, *self.screen.notes(), self.screen.describe()]
        if found.without_text:
            names = ", ".join(file.name for file in found.without_text[:4])
            notes.append(f"recordings without text: {len(found.without_text)} ({names})")
        self.left_out.report(notes)
        if not files:
            raise ValueError(self._nothing_left(len(found.rows)))
        errors = {Path(problem.split(": ")[0]): problem for problem in problems}
        return replace(scanned, files=files, errors={**scanned.errors, **errors}, notes=notes)

    def takes(self, row: Row) -> bool:
        """Whether a row is wanted; a subclass that says no counts it in ``left_out``."""
        return True

    def row(self, number: int) -> Row:
        """What the transcript says of clip ``number``."""
        return self._row_of(self.segments[number])

    def _row_of(self, segment: Segment) -> Row:
        return self._rows[segment.recording.file.path][segment.start_frame]

    def group(self, segment: Segment) -> str:
        """The speaker; where that is not known, the folder."""
        return self._row_of(segment).speaker or super().group(segment)

    def speakers_known(self) -> bool:
        """Whether the metadata names the speaker of every clip."""
        return all(row.speaker for rows in self._rows.values() for row in rows.values())

    def text(self, number: int) -> dict[str, Any]:
        """The text of clip ``number``: ``real_text``, ``padded_text`` (max_text_length,) int64, ``text_lengths``."""
        row = self.row(number)
        tokens, length = self.screen.tokens(row.text)
        return {"real_text": row.text, "padded_text": tokens, "text_lengths": length}

    def fingerprint(self) -> dict[str, Any]:
        """That of the audio, and a hash of the texts and of the tokenizer."""
        rows = [row for found in self._rows.values() for row in found.values()]
        stretches = [(row.start_seconds, row.seconds) for row in rows if row.start_seconds or row.seconds is not None]
        texts = repr([(row.audio.name, row.text, row.codes) for row in rows] + stretches)
        digest = hashlib.sha256(texts.encode("utf-8", "surrogateescape"))
        digest.update(self.screen.identity())
        return {**super().fingerprint(), "text": digest.hexdigest()[:16]}

    def _first_rows(self, rows: list[Row]) -> dict[Path, dict[int, Row]]:
        """By file and first frame; of several rows for one place the first."""
        kept: dict[Path, dict[int, Row]] = {}
        for row in rows:
            start = round(row.start_seconds * self.sample_rate_hz)
            if kept.setdefault(row.audio.absolute(), {}).setdefault(start, row) is not row:
                self.left_out.add("whose recording an earlier row has", row.where)
        return kept

    def _outside(self, file: IndexEntry, rows: dict[int, Row]) -> list[str]:
        """Which rows reach beyond the end of their file; they are taken out. A tenth of a second is let pass."""
        problems = []
        for start, row in list(rows.items()):
            end = row.start_seconds + (row.seconds or 0.0)
            if end > file.seconds + 0.1 or start >= self._frames_of(file):
                problems.append(f"{row.where}: ends at {end:g} s, but {file.path} has {file.seconds:.2f} s")
                del rows[start]
        return problems

    def _fitting(self, file: IndexEntry, rows: dict[int, Row]) -> dict[int, Row]:
        """The rows whose recording has a length that is wanted."""
        return {start: row for start, row in rows.items() if self._fits(self._length_of(row, start, file), row.where)}

    def _frames_of(self, file: IndexEntry) -> int:
        """Its frames at the dataset's rate."""
        return num_resampled(file.info.num_frames, file.info.sample_rate_hz, self.sample_rate_hz)

    def _length_of(self, row: Row, start: int, file: IndexEntry) -> int:
        rest = self._frames_of(file) - start
        return rest if row.seconds is None else min(rest, round(row.seconds * self.sample_rate_hz))

    def _segments(self) -> list[Segment]:
        """One for each row."""
        return [
            replace(segment, start_frame=start, num_frames=self._length_of(row, start, segment.recording.file))
            for segment in super()._segments()
            for start, row in self._rows[segment.recording.file.path].items()
        ]

    def _fits(self, frames: int, where: str) -> bool:
        """Whether a recording has a length that is wanted."""
        if frames < self._min_seconds * self.sample_rate_hz:
            self.left_out.add(f"shorter than {self._min_seconds:g} seconds", where)
            return False
        if self.longest_frames is not None and frames > self.longest_frames:
            seconds = self.longest_frames / self.sample_rate_hz
            self.left_out.add(f"longer than {self.longest_frames} samples, {seconds:.2f} seconds", where)
            return False
        return True

    def _named(self, file: IndexEntry) -> IndexEntry:
        row = next(iter(self._rows[file.path].values()))
        metadata = Path(row.where.rpartition(":")[0])
        place = os.path.relpath(file.path, metadata.parent.absolute()).replace(os.sep, "/")
        return replace(file, relative=f"{row.speaker}/{file.path.name}" if row.speaker else place)

    def _nothing_left(self, num_rows: int) -> str:
        return f"path: none of the {num_rows} recordings can be taken; {'; '.join(self.left_out.lines())}"


def _wrong_file(audio: Path) -> str | None:
    """Why a file cannot be a recording, or None."""
    if not audio.is_file():
        return f"{audio} does not exist"
    return None if is_audio_name(audio.name) else f"{audio} is no audio file by its name"
