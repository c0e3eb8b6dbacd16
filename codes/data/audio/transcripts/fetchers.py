"""Transcripts of recordings in the forms that speech corpora come in: DL-Art-School's fetcher modes, and JSON lines.

=================  ==================================================================================================
``lj``             ``path|text``, or LJ Speech as downloaded: ``id|text|normalised text`` beside ``wavs/``; its folder
``libritts``       ``path|text``, or a folder of LibriTTS: ``speaker/chapter/NAME.wav`` with ``NAME.normalized.txt``
``tsv``            ``text<TAB>path[<TAB>codes]``, ``path<TAB>text``, or any columns that a first line names
``mozilla_cv``     a TSV of Common Voice beside ``clips/``; of its folder train.tsv to train and dev.tsv to validate
``voxpopuli``      a TSV of VoxPopuli beside its years, or as the Hugging Face hub has it (``data/LANGUAGE`` with the
                   archives unpacked); of its folder asr_train.tsv and asr_dev.tsv
``jsonl``          JSON lines: ``audio`` (or audio_filepath, path), ``text``; if wanted ``speaker``, ``codes``, and
                   ``offset`` and ``duration`` in seconds for a stretch of a file
=================  ==================================================================================================

Paths are relative to the file that names them. A row that cannot be understood is a problem with file and row.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from codes.data.audio.listing.walk import EXTENSIONS
from codes.data.audio.transcripts.rows import (
    Row,
    TranscriptError,
    Transcripts,
    beside,
    is_audio_name,
    numbered_lines,
    numbers,
)

FetcherMode = Literal["lj", "libritts", "tsv", "mozilla_cv", "voxpopuli", "jsonl"]

_AUDIO_COLUMNS = ("audio", "audio_filepath", "path", "file", "filename", "wav", "audio_path")
_TEXT_COLUMNS = ("text", "sentence", "transcript", "transcription", "normalized_text")
_SPEAKER_COLUMNS = ("speaker", "speaker_id", "client_id")
_LJ_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")
_VOXPOPULI_SUFFIXES = (".ogg.wav", ".ogg", ".wav", ".flac", ".opus")


def read_transcripts(path: Path, mode: FetcherMode, phase: str = "train") -> Transcripts:
    """The rows of a metadata file, or of the folder of a corpus.

    Args:
        path: the file or folder.
        mode: how it is written.
        phase: which of a corpus's own lists is read where ``path`` is its folder.

    Raises:
        TranscriptError: it cannot be read, or holds no row at all.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise TranscriptError(f"path: {path} does not exist: give a metadata file or a folder ({mode})")
    found = _READERS[mode](path, phase)
    if not found.rows:
        wrong = f"; the first row that cannot be understood: {found.problems[0]}" if found.problems else ""
        raise TranscriptError(
            f"path: {path} has no recording with text (fetcher_mode {mode}){wrong}{_hint(path, mode)}"
        )
    return found


def read_all(paths: list[Path], modes: list[FetcherMode], phase: str) -> Transcripts:
    """The rows of several files, one mode for all or one for each.

    Raises:
        TranscriptError: the numbers of paths and modes do not fit, or as `read_transcripts`.
    """
    if len(modes) not in (1, len(paths)):
        raise TranscriptError(f"fetcher_mode: {len(modes)} modes for {len(paths)} paths: give one, or one for each")
    modes = modes if len(modes) == len(paths) else modes * len(paths)
    return Transcripts().extend(read_transcripts(path, mode, phase) for path, mode in zip(paths, modes, strict=True))


def _lj(path: Path, phase: str) -> Transcripts:
    """``path|text`` or ``id|text|normalised text``."""
    file = _file_in(path, ("metadata.csv", "LJSpeech-1.1/metadata.csv"), "lj")
    found = Transcripts()
    published = False
    for number, line in numbered_lines(file):
        fields, where = line.split("|"), f"{file}:{number}"
        if len(fields) < 2 or not fields[0].strip():
            found.problems.append(f"{where}: has {len(fields)} column(s) between |, needs path|text or id|text|text")
            continue
        if is_audio_name(fields[0]):
            audio, text = beside(file.parent, fields[0]), fields[1]
        else:
            published = True
            name = fields[0].strip()
            audio = _first_there([file.parent / "wavs" / f"{name}{suffix}" for suffix in _LJ_SUFFIXES])
            text = fields[2] if len(fields) > 2 and fields[2].strip() else fields[1]
        found.rows.append(Row(audio=audio, text=text.strip(), where=where))
    if published:
        found.without_text = _unnamed(file.parent / "wavs", found.rows)
    return found


def _libritts(path: Path, phase: str) -> Transcripts:
    """A folder of LibriTTS, or ``path|text``; the speaker is what a file's name begins with."""
    found = Transcripts()
    if path.is_file():
        listed = _lj(path, phase)
        found.problems = listed.problems
        rows = [(row.audio, row.text, row.where) for row in listed.rows]
    else:
        rows = []
        for audio in sorted(file for file in path.rglob("*") if file.suffix.lower() in EXTENSIONS):
            texts = [audio.with_suffix(suffix) for suffix in (".normalized.txt", ".original.txt", ".txt")]
            written = next((text for text in texts if text.is_file()), None)
            if written is None:
                found.without_text.append(audio)
            else:
                text = " ".join(line.strip() for _, line in numbered_lines(written))
                rows.append((audio, text, f"{written}:1"))
    found.rows = [
        Row(audio=audio, text=text, where=where, speaker=audio.stem.split("_")[0]) for audio, text, where in rows
    ]
    return found


def _tsv(path: Path, phase: str) -> Transcripts:
    """Columns by the names in the first line, or text and path in either order, then codes."""
    file = _file_in(path, ("metadata.tsv", "train.tsv" if phase == "train" else "val.tsv"), "tsv")
    lines = list(numbered_lines(file))
    names = [name.strip().lower() for name in lines[0][1].split("\t")] if lines else []
    if set(names) & set(_AUDIO_COLUMNS) and set(names) & set(_TEXT_COLUMNS):
        return _named_columns(file, names, lines[1:], _AUDIO_COLUMNS, _TEXT_COLUMNS, file.parent)
    found = Transcripts()
    for number, line in lines:
        fields, where = line.split("\t"), f"{file}:{number}"
        if len(fields) < 2:
            found.problems.append(f"{where}: has {len(fields)} column between tabs, needs text and path")
            continue
        first = is_audio_name(fields[0]) and not is_audio_name(fields[1])
        name, text = (fields[0], fields[1]) if first else (fields[1], fields[0])
        codes = numbers(fields[2]) if len(fields) > 2 else None
        found.rows.append(Row(audio=beside(file.parent, name), text=text.strip(), where=where, codes=codes))
    return found


def _mozilla_cv(path: Path, phase: str) -> Transcripts:
    """Common Voice: a header with ``path`` and ``sentence``; clips/ lies beside."""
    file = _file_in(path, ("train.tsv" if phase == "train" else "dev.tsv",), "mozilla_cv")
    names, lines = _header(file)
    found = _named_columns(file, names, lines, ("path",), ("sentence",), file.parent / "clips")
    found.rows = [row if row.audio.suffix else replace(row, audio=row.audio.with_suffix(".mp3")) for row in found.rows]
    return found


def _voxpopuli(path: Path, phase: str) -> Transcripts:
    """VoxPopuli: a header with ``id`` and ``raw_text``; recordings lie in a folder for each year, or anywhere below."""
    name = "asr_train.tsv" if phase == "train" else "asr_dev.tsv"
    languages = sorted(path.glob(f"data/*/{name}")) if path.is_dir() and not (path / name).is_file() else []
    if len(languages) > 1:
        there = ", ".join(file.parent.name for file in languages)
        raise TranscriptError(f"path: {path} has several languages: give {path / 'data'}/ and one of {there}")
    file = languages[0] if languages else _file_in(path, (name,), "voxpopuli")
    names, lines = _header(file)
    found = _named_columns(file, names, lines, ("id", "id_", "audio_id"), ("raw_text", "normalized_text"), file.parent)
    below: dict[str, Path] | None = None  # looked up once, where it is needed
    rows = []
    for row in found.rows:
        name = row.audio.name
        places = [file.parent / name[:4] / f"{name}{suffix}" for suffix in _VOXPOPULI_SUFFIXES]
        places += [file.parent / f"{name}{suffix}" for suffix in _VOXPOPULI_SUFFIXES]
        audio = _first_there(places)
        if not audio.is_file():
            below = _recordings_below(file.parent) if below is None else below
            audio = below.get(name, audio)
        rows.append(replace(row, audio=audio))
    found.rows = rows
    archives = sorted(file.parent.glob("*/*.tar.gz")) if rows and not any(row.audio.is_file() for row in rows) else []
    if archives:
        raise TranscriptError(f"path: {file}: no recording is unpacked; unpack {archives[0]} and the others beside it")
    return found


def _recordings_below(folder: Path) -> dict[str, Path]:
    """Every audio file below a folder by its name without suffixes."""
    found = {}
    for file in sorted(folder.rglob("*")):
        suffix = next((suffix for suffix in _VOXPOPULI_SUFFIXES if file.name.endswith(suffix)), None)
        if suffix is not None:
            found.setdefault(file.name.removesuffix(suffix), file)
    return found


def _jsonl(path: Path, phase: str) -> Transcripts:
    """One JSON object a line."""
    file = _file_in(path, (f"{phase}.jsonl", "metadata.jsonl"), "jsonl")
    found = Transcripts()
    for number, line in numbered_lines(file):
        where = f"{file}:{number}"
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            found.problems.append(f"{where}: is not JSON: {error.msg} at column {error.colno}")
            continue
        row = _from_record(record, file.parent, where)
        if isinstance(row, Row):
            found.rows.append(row)
        else:
            found.problems.append(f"{where}: {row}")
    return found


def _from_record(record: Any, folder: Path, where: str) -> Row | str:
    """The row, or what is wrong with it."""
    if not isinstance(record, dict):
        return f"is a JSON {type(record).__name__}, needs an object with audio and text"
    values: dict[str, Any] = {}
    for meaning, columns in (("audio", _AUDIO_COLUMNS), ("text", _TEXT_COLUMNS), ("speaker", _SPEAKER_COLUMNS)):
        name = next((column for column in columns if column in record), None)
        if name is None and meaning != "speaker":
            return f"has no {meaning}: needs one of {', '.join(columns)}; has {', '.join(record) or 'nothing'}"
        values[meaning] = None if name is None else record[name]
    if not isinstance(values["audio"], str) or not isinstance(values["text"], str):
        return f"audio and text must be text, got {values['audio']!r} and {values['text']!r}"
    stretch = _stretch(record)
    if isinstance(stretch, str):
        return stretch
    codes = record.get("codes")
    if codes is not None and not (isinstance(codes, list) and all(type(c) is int and c >= 0 for c in codes)):
        return f"codes must be a list of whole numbers, got {str(codes)[:40]}"
    speaker = None if values["speaker"] is None else str(values["speaker"])
    made = None if codes is None else tuple(codes)
    audio = beside(folder, values["audio"])
    return Row(
        audio=audio, text=values["text"].strip(), where=where, speaker=speaker, codes=made, start_seconds=stretch[0],
        seconds=stretch[1],
    )  # fmt: skip


def _stretch(record: dict[str, Any]) -> tuple[float, float | None] | str:
    """Where the recording begins and how long it is, by NeMo's keys; without ``offset`` it is the whole file.

    Returns:
        seconds and seconds (None: up to the end), or what is wrong with them.
    """
    given = record.get("offset")
    if given is None:
        return 0.0, None
    for name, value in (("offset", given), ("duration", record.get("duration", 1))):
        wrong = isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf")
        if wrong or (name == "duration" and value == 0):
            least = "0 or more" if name == "offset" else "above 0"
            return f"{name} must be a number of seconds, {least}, got {str(value)[:40]}"
    return float(given), float(record["duration"]) if "duration" in record else None


def _named_columns(
    file: Path, names: list[str], lines: list[tuple[int, str]], audio: tuple[str, ...], text: tuple[str, ...],
    folder: Path,
) -> Transcripts:  # fmt: skip
    """Rows of a table by the names of its columns; of several text columns the first that is not empty."""
    audio_at = next((names.index(name) for name in audio if name in names), None)
    text_at = [names.index(name) for name in text if name in names]
    if audio_at is None or not text_at:
        missing = " or ".join(audio if audio_at is None else text)
        raise TranscriptError(
            f"{file}:1: has no column {missing}: the first line names {', '.join(names) or 'nothing'}"
        )
    speaker_at = next((names.index(name) for name in _SPEAKER_COLUMNS if name in names), None)
    codes_at = names.index("codes") if "codes" in names else None
    found = Transcripts()
    for number, line in lines:
        fields, where = line.split("\t"), f"{file}:{number}"
        if len(fields) <= max(audio_at, *text_at) or not fields[audio_at].strip():
            found.problems.append(f"{where}: has {len(fields)} columns between tabs, needs {len(names)}")
            continue
        spoken = next((fields[at].strip() for at in text_at if fields[at].strip()), "")
        speaker = fields[speaker_at].strip() if speaker_at is not None and speaker_at < len(fields) else None
        codes = numbers(fields[codes_at]) if codes_at is not None and codes_at < len(fields) else None
        found.rows.append(
            Row(audio=beside(folder, fields[audio_at]), text=spoken, where=where, speaker=speaker or None, codes=codes)
        )
    return found


def _header(file: Path) -> tuple[list[str], list[tuple[int, str]]]:
    """The names in the first line, and the lines after it."""
    lines = list(numbered_lines(file))
    if not lines:
        raise TranscriptError(f"path: {file} is empty")
    return [name.strip().lower() for name in lines[0][1].split("\t")], lines[1:]


def _file_in(path: Path, names: tuple[str, ...], mode: str) -> Path:
    """The file itself, or the first of these names in a folder."""
    if path.is_file():
        return path
    found: Iterator[Path] = (path / name for name in names if (path / name).is_file())
    file = next(found, None)
    if file is None:
        raise TranscriptError(f"path: {path} is a folder without {' or '.join(names)} (fetcher_mode {mode})")
    return file


def _first_there(places: list[Path]) -> Path:
    """The first file that exists; the first of all where none does."""
    return next((place for place in places if place.is_file()), places[0])


def _unnamed(folder: Path, rows: list[Row]) -> list[Path]:
    """The audio files of a folder that no row names."""
    if not folder.is_dir():
        return []
    named = {row.audio for row in rows}
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in EXTENSIONS and file not in named)


def _hint(path: Path, mode: str) -> str:
    """Another mode that the file looks like."""
    suffixes = {".jsonl": "jsonl", ".json": "jsonl", ".tsv": "tsv"}
    other = suffixes.get(path.suffix.lower(), mode)
    return f"; by its name it is fetcher_mode: {other}" if other != mode else ""


_READERS: dict[str, Callable[[Path, str], Transcripts]] = {
    "lj": _lj,
    "libritts": _libritts,
    "tsv": _tsv,
    "mozilla_cv": _mozilla_cv,
    "voxpopuli": _voxpopuli,
    "jsonl": _jsonl,
}
assert set(_READERS) == set(get_args(FetcherMode))
