"""A folder of recordings in, a dataset of speech out: cut at pauses, filtered, written down, listed.

What is made, in one folder::

    wavs/SPEAKER/NAME_0001.wav    16 bits, one channel, one rate
    metadata.csv                  wavs/...|text, of the clips with text: `paired_voice_audio` reads the folder
    clips.jsonl                   every clip, and every piece that was left out and why: where it is from, its measures
    prepared.json                 the options it was made with

Recordings are worked through one after the other, in bounded memory; what is finished is in ``clips.jsonl``, and the
same command goes on after an interruption. A recording with a text of its own (NAME.txt, .lab or .normalized.txt beside
it) is not cut, as its text is that of the whole.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from codes.data.audio.listing.file_progress import FileProgress
from codes.data.audio.listing.folder import scan
from codes.data.audio.listing.index_entry import IndexEntry
from codes.data.audio.reader import AudioFile, AudioReadError, to_bits
from codes.data.audio.resample import resample
from codes.data.audio.transcripts.rows import numbered_lines
from codes.data.speech.quality import QualityLimits, measure_clip
from codes.data.speech.splitting import FRAMES_A_SECOND, FrameLevels, SplitOptions, find_pieces
from codes.data.speech.summary import Summary
from codes.data.speech.transcription import Transcriber

_TEXT_SUFFIXES = (".normalized.txt", ".txt", ".lab")
_MOST_TEXT_BYTES = 65_536
_FLOAT_BITS = 24
_BITS = 16
_PIECES_AT_ONCE = 32


class PreparationError(ValueError):
    """A dataset that cannot be made, and why."""


@dataclass(frozen=True, kw_only=True)
class PreparationOptions:
    """How a dataset is made.

    Args:
        sample_rate: frames per second of the clips, in Hz.
        split: where recordings are cut.
        limits: which clips are good enough.
        speaker: "folder": who speaks is the first folder below the one that is read; "file": each recording is a
            speaker; any other word: that is the speaker's name.
        asr: the model that writes down what is said, a folder or a name on the Hugging Face hub; without one, only
            recordings that have a text beside them get one.
        language: of the speech, for the model.
    """

    sample_rate: int = 22_050
    split: SplitOptions = field(default_factory=SplitOptions)
    limits: QualityLimits = field(default_factory=QualityLimits)
    speaker: str = "folder"
    asr: str | None = None
    language: str | None = None

    def __post_init__(self) -> None:
        if self.sample_rate < FRAMES_A_SECOND:
            raise ValueError(f"sample_rate is {self.sample_rate}, it must be {FRAMES_A_SECOND} Hz or more")
        if not self.speaker or not _file_name(self.speaker):
            raise ValueError(f"speaker is {self.speaker!r}: give folder, file or a name")


@dataclass(frozen=True, kw_only=True)
class _Source:
    """A recording: where it is, who speaks, and what its clips' names begin with."""

    file: IndexEntry
    speaker: str
    name: str


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """A stretch of a recording, and what clips.jsonl says of it; ``wav`` is (n,) int16 at the dataset's rate."""

    wav: np.ndarray
    record: dict[str, Any]


def prepare(folder: Path, out: Path, options: PreparationOptions, *, device: str | None = None) -> Summary:
    """Make a dataset of the recordings in a folder and below, or go on making it; progress is shown on stderr.

    Args:
        folder: recordings of any length and format.
        out: the dataset; must be empty, or be begun with the same options.
        options: how.
        device: where the model runs.

    Raises:
        PreparationError: ``out`` holds something else, or lies in ``folder``.
        AudioReadError, ValueError, OSError: there is nothing to read, or nowhere to write.
    """
    folder, out = Path(folder).expanduser().absolute(), Path(out).expanduser().absolute()
    if out == folder or folder in out.parents:
        raise PreparationError(f"--out {out} lies in {folder}, which would be read again: name another folder")
    found = scan([folder], on_error="collect", progress=True, float_bits=_FLOAT_BITS)
    transcriber = Transcriber(options.asr, options.language, device) if options.asr else None
    done = _begin(out, folder, options)
    with (out / "clips.jsonl").open("a", encoding="utf-8") as log:
        for path, error in found.errors.items():
            _write(log, [{"source": str(path), "finished": False, "seconds": 0.0, "error": error}])
        waiting = [source for source in _sources(found.files, options.speaker) if source.file.relative not in done]
        for number, source in enumerate(waiting, start=1):
            title = f"[{number}/{len(waiting)}] {source.file.relative} ({source.file.seconds / 60:.1f} min)"
            _prepare_file(source, title, log, out, options, transcriber)
    return _finish(out)


def _begin(out: Path, folder: Path, options: PreparationOptions) -> set[str]:
    """Make the folder, or take up one that was begun: the sources that are finished."""
    settings = json.loads(json.dumps({"folder": str(folder), **asdict(options)}))
    file = out / "prepared.json"
    if file.is_file():
        earlier = json.loads(file.read_text(encoding="utf-8"))
        differing = sorted(key for key in settings | earlier if settings.get(key) != earlier.get(key))
        if differing:
            raise PreparationError(
                f"--out {out} was begun with another {differing[0]}: {earlier.get(differing[0])}, now "
                f"{settings.get(differing[0])}; give the same options, or another folder"
            )
        records = list(_records(out))
        done = {record["source"] for record in records if record.get("finished")}
        text = "".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in records if record["source"] in done)
        (out / "clips.jsonl").write_text(text, encoding="utf-8")
        return done
    if out.exists() and any(out.iterdir()):
        raise PreparationError(f"--out {out} is not empty and no dataset of this command: name another folder")
    out.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    return set()


def _prepare_file(
    source: _Source, title: str, log: Any, out: Path, options: PreparationOptions, transcriber: Transcriber | None
) -> None:
    """Write the clips of a recording, some at a time, and their lines of clips.jsonl."""
    file = source.file
    end: dict[str, Any] = {"source": file.relative, "finished": True, "seconds": round(file.seconds, 3)}
    try:
        text = _own_text(file.path)
        with AudioFile(file.path, stream=file.stream, float_bits=_FLOAT_BITS, known=file.info) as audio:
            stretches = _stretches(audio, options.split, whole=text is not None)
            with FileProgress(title, len(stretches), unit="pieces") as bar:
                for first in range(0, len(stretches), _PIECES_AT_ONCE):
                    some = stretches[first : first + _PIECES_AT_ONCE]
                    pieces = [_piece(audio, start, frames, file.relative, options) for start, frames in some]
                    _write(log, _written(pieces, text, source, out, options, transcriber))
                    bar.advance(len(some))
    except (AudioReadError, PreparationError) as error:
        end |= {"finished": False, "seconds": 0.0, "error": str(error)}
    _write(log, [end])


def _stretches(audio: AudioFile, split: SplitOptions, whole: bool) -> list[tuple[int, int]]:
    """The pieces of a recording as (first frame, number of frames); the first of two passes over it."""
    rate = audio.info.sample_rate_hz
    levels = FrameLevels(rate, audio.info.bits)
    for block in audio.blocks():
        levels.add(_mono(block))
    found = find_pieces(levels.decibels(), split)
    if whole and found:
        found = [(found[0][0], found[-1][1])]
    starts = [first * rate // FRAMES_A_SECOND for first, _ in found]
    ends = [min(last * rate // FRAMES_A_SECOND, audio.info.num_frames) for _, last in found]
    return [(start, end - start) for start, end in zip(starts, ends, strict=True)]


def _piece(audio: AudioFile, start: int, frames: int, source: str, options: PreparationOptions) -> _Piece:
    """A stretch of a recording, at the dataset's rate, judged."""
    info = audio.info
    record: dict[str, Any] = {
        "source": source,
        "start_seconds": round(start / info.sample_rate_hz, 3),
        "seconds": round(frames / info.sample_rate_hz, 3),
    }
    reason = _wrong_length(record["seconds"], options.split)
    if reason is not None:
        return _Piece(wav=np.zeros(0, np.int16), record={**record, "left_out": reason})
    pcm = to_bits(_mono(audio.read(start, frames))[None], info.bits, _BITS)
    wav = resample(pcm, info.sample_rate_hz, options.sample_rate, _BITS)[0]
    quality = measure_clip(wav, options.sample_rate)
    record |= {name: round(float(value), 4) for name, value in asdict(quality).items()}
    reason = options.limits.reason_against(quality)
    return _Piece(wav=wav, record=record | ({"left_out": reason} if reason else {}))


def _wrong_length(seconds: float, split: SplitOptions) -> str | None:
    if seconds < split.min_seconds:
        return f"shorter than {split.min_seconds:g} seconds"
    return f"longer than {split.max_seconds:g} seconds" if seconds > split.max_seconds else None


def _written(
    pieces: list[_Piece], text: str | None, source: _Source, out: Path, options: PreparationOptions,
    transcriber: Transcriber | None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Write the sound of the pieces that are good; the lines that clips.jsonl gets for all of them."""
    good = [piece for piece in pieces if "left_out" not in piece.record]
    texts: list[str | None] = [text] * len(good)
    if text is None and transcriber is not None:
        texts = list(transcriber.transcribe([piece.wav for piece in good], options.sample_rate))
    spoken = dict(zip(map(id, good), texts, strict=True))
    return [_written_clip(piece, spoken.get(id(piece)), source, out, options) for piece in pieces]


def _written_clip(
    piece: _Piece, text: str | None, source: _Source, out: Path, options: PreparationOptions
) -> dict[str, Any]:
    """Write the sound of one piece, if it is good; its line of clips.jsonl."""
    import soundfile

    if "left_out" in piece.record:
        return piece.record
    reason = None if text is None else options.limits.reason_against_text(text, piece.record["seconds"])
    if reason is not None:
        return {**piece.record, "text": text, "left_out": reason}
    place = Path("wavs") / source.speaker / f"{source.name}_{piece.record['start_seconds']:09.2f}.wav"
    (out / place).parent.mkdir(parents=True, exist_ok=True)
    try:
        soundfile.write(out / place, piece.wav, options.sample_rate, subtype="PCM_16")
    except soundfile.SoundFileError as error:
        raise OSError(f"{out / place} cannot be written: {error}") from error
    spoken = {} if text is None else {"text": text.replace("|", " ").strip()}
    return {"audio": place.as_posix(), **spoken, "speaker": source.speaker, **piece.record}


def _finish(out: Path) -> Summary:
    """Write metadata.csv and sum up."""
    summary = Summary()
    lines = []
    for record in _records(out):
        summary.add(record)
        if record.get("text") and "left_out" not in record:
            lines.append(f"{record['audio']}|{record['text']}\n")
    (out / "metadata.csv").write_text("".join(lines), encoding="utf-8")
    return summary


def _records(out: Path) -> Iterator[dict[str, Any]]:
    """The lines of clips.jsonl; one that was cut by an interruption is left away."""
    file = out / "clips.jsonl"
    if not file.exists():
        return
    for _, line in numbered_lines(file):
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return


def _write(log: Any, records: list[dict[str, Any]]) -> None:
    log.write("".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in records))
    log.flush()


def _own_text(audio: Path) -> str | None:
    """The text that lies beside a recording."""
    for suffix in _TEXT_SUFFIXES:
        file = audio.with_suffix(suffix)
        if file.is_file():
            try:
                raw = file.read_bytes()
                if len(raw) > _MOST_TEXT_BYTES:
                    raise PreparationError(f"{file}: has {len(raw)} bytes, more than the text of a clip can have")
                return " ".join(raw.decode("utf-8-sig").split())
            except (OSError, UnicodeDecodeError) as error:
                raise PreparationError(f"{file}: cannot be read as text: {error}") from error
    return None


def _mono(pcm: np.ndarray) -> np.ndarray:
    """(C, n) integers -> (n,), the mean of the channels."""
    return pcm[0] if len(pcm) == 1 else np.rint(pcm.mean(axis=0)).astype(pcm.dtype)


def _sources(files: list[IndexEntry], speaker: str) -> list[_Source]:
    """The recordings; where two would have one name, their paths' hashes tell them apart."""
    found = [(file, *_names(file.relative, speaker)) for file in files]
    times = Counter((who.casefold(), name.casefold()) for _, who, name in found)
    sources = []
    for file, who, name in found:
        if times[who.casefold(), name.casefold()] > 1 or not name:
            name = f"{name}_{hashlib.sha256(file.relative.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"
        sources.append(_Source(file=file, speaker=who or "speaker", name=name))
    return sources


def _names(relative: str, speaker: str) -> tuple[str, str]:
    """Speaker and name of a recording, both usable as names of files."""
    *folders, last = relative.split("/")
    stem = last.rpartition(".")[0] or last
    if speaker == "file":
        return _file_name("_".join([*folders, stem])), _file_name(stem)
    if speaker == "folder":
        below = folders[1:] if folders else []
        return _file_name(folders[0]) if folders else "speaker", _file_name("_".join([*below, stem]))
    return _file_name(speaker), _file_name("_".join([*folders, stem]))


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text).strip("._")
