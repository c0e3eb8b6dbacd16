"""Lists of audio files that other programs write and read: which files, and what is said of them.

Read and recognised by what they hold, compressed with gzip or not:

==================  ================================================================================================
``index``           JSON lines of `codes.data.audio.listing.index`
``lengths``         ``{file: frames}``
``trilobyte``       ``{file: {length, sample_rate, bits_per_sample, n_channels}}``
``audiocraft``      JSON lines: ``path``, ``duration``, ``sample_rate``, ``amplitude``, ``weight``, ``info_path``
``nemo``            JSON lines: ``audio_filepath``, ``duration``, ``offset``, ``text``
``lhotse``          JSON lines of recordings (``sources``, ``sampling_rate``, ``num_samples``) or of cuts
==================  ================================================================================================

What a list says of a file is a claim: `contradiction` compares it with the file.
"""

import gzip
import io
import json
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from codes.data.audio.listing import index_entry
from codes.data.audio.listing.manifest_record import ManifestError, Record
from codes.data.audio.reader import AudioInfo

SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
_RECORD_KEYS = {"id", "path", "audio_filepath"}  # an object with one of these is a line, not lengths by file name
# Durations are written rounded; decoders of lossy formats differ in what they cut off at the ends.
_TOLERANCE_SECONDS = 0.011
_LOSSY_TOLERANCE_SECONDS = 0.1
# What gzip may unpack to: so many times its own size, within these bytes. Lists pack to a tenth or a thirtieth.
_MOST_TIMES = 200
_LEAST_LIMIT_BYTES, _MOST_LIMIT_BYTES = 1 << 26, 1 << 30


@dataclass(frozen=True, kw_only=True)
class ManifestItem:
    """One mention of an audio file, and what is said of it; None: nothing is.

    Args:
        path: where the file is; if it is nowhere, the first place where it was looked for.
        looked_in: every place where it was looked for.
        where: the manifest and the line or key, for messages.
        relative: the file's name among others: as it is written, or below the manifest's folder; "/" between parts.
        num_frames, sample_rate_hz, bits, num_channels, duration_seconds: of the whole file.
        start_seconds, part_seconds: the part of the file that is meant; None: the whole.
        text: what is said in it.
    """

    path: Path
    where: str
    looked_in: tuple[Path, ...] = ()
    relative: str = ""
    num_frames: int | None = None
    sample_rate_hz: int | None = None
    bits: int | None = None
    num_channels: int | None = None
    duration_seconds: float | None = None
    start_seconds: float | None = None
    part_seconds: float | None = None
    text: str | None = None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What was recognised (a key of the table above) and what it lists, in its order."""

    kind: str
    items: list[ManifestItem]


def is_manifest(path: PurePath) -> bool:
    """Whether a file is a list of files by its name."""
    return path.name.lower().endswith(SUFFIXES)


def read_manifest(path: Path, root: Path | None = None) -> Manifest:
    """Read a list of audio files, whatever kind it is. The audio files themselves are not opened.

    Args:
        path: the list.
        root: where relative paths are looked for when they are not beside the list.

    Raises:
        ManifestError: it is of no known kind or breaks its own rules; the message names the line or key.
        OSError: it cannot be opened.
    """
    records = list(read_records(path))
    if not records:
        raise ManifestError(f"{path}: lists no files: it is empty")
    kind = _kind(records[0])
    items = [_located(item, path.absolute().parent, root) for record in records for item in _PARSERS[kind](record)]
    if not items:
        raise ManifestError(f"{path}: lists no files: none of its {len(records)} {kind} entries names one")
    return Manifest(kind=kind, items=items)


def read_records(path: Path) -> Iterator[Record]:
    """The objects of a JSON file: one a line, those of a list, or those of one object by their keys.

    Raises:
        ManifestError: it is not JSON, or not made of objects.
    """
    text = _text(path)
    try:
        whole = json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError:
        yield from _lines(path, text)
        return
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{path}: {error}") from error
    if isinstance(whole, list):
        yield from (Record.of(item, f"{path}, item {number}") for number, item in enumerate(whole, start=1))
    elif not isinstance(whole, dict):
        raise ManifestError(f"{path}: is JSON, but no list of files: {whole!s:.40}; {_ALLOWED}")
    elif not whole.keys() & _RECORD_KEYS and all(isinstance(value, int | float | dict) for value in whole.values()):
        yield from (Record({"": value}, f"{path}, key {key!r}", key) for key, value in whole.items())
    else:
        yield Record(whole, f"{path}, line 1")


def contradiction(item: ManifestItem, info: AudioInfo) -> str | None:
    """What a list says of a file that the file does not hold to; None where all is well.

    Frames of lossless files must agree exactly, durations to 0.011 s; of lossy ones, where decoders differ at the
    ends, both to 0.1 s.
    """
    tolerance_frames = round((_LOSSY_TOLERANCE_SECONDS if info.lossy else 0) * info.sample_rate_hz)
    tolerance_seconds = _LOSSY_TOLERANCE_SECONDS if info.lossy else _TOLERANCE_SECONDS
    seconds = info.num_frames / info.sample_rate_hz
    bits = None if info.lossy else item.bits
    end_seconds = None if item.start_seconds is None else item.start_seconds + (item.part_seconds or 0.0)
    claims = (
        ("{} Hz", item.sample_rate_hz, info.sample_rate_hz, 0),
        ("{} channels", item.num_channels, info.num_channels, 0),
        ("{} bits", bits, info.bits, 0),
        ("{} frames", item.num_frames, info.num_frames, tolerance_frames),
        ("{:g} seconds", item.duration_seconds, seconds, tolerance_seconds),
        ("audio until {:g} seconds", end_seconds and max(end_seconds, seconds), seconds, tolerance_seconds),
    )
    for unit, claimed, real, tolerance in claims:
        if claimed is not None and abs(claimed - real) > tolerance:
            return f"{item.where}: says {unit.format(claimed)}, {item.path} has {unit.format(real)}"
    return None


def _text(path: Path) -> str:
    raw = path.read_bytes()
    try:
        raw = _unpacked(path, raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise ManifestError(f"{path}: is broken gzip: {error}") from error
    if b"\0" in raw:
        raise ManifestError(f"{path}: is binary, not text; {_ALLOWED}")
    return raw.decode("utf-8-sig", "surrogateescape")


def _unpacked(path: Path, raw: bytes) -> bytes:
    """The content of a gzip file, which may be small and unpack to more than memory holds."""
    most_bytes = min(_MOST_LIMIT_BYTES, max(_LEAST_LIMIT_BYTES, _MOST_TIMES * len(raw)))
    with gzip.GzipFile(fileobj=io.BytesIO(raw)) as stream:
        content = stream.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise ManifestError(
            f"{path}: its {len(raw):,} bytes unpack to more than the {most_bytes:,} that are allowed; "
            f"if that is as it should be, unpack it and name the plain file"
        )
    return content


def _lines(path: Path, text: str) -> Iterator[Record]:
    for number, line in enumerate(text.split("\n"), start=1):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            yield Record.of(json.loads(line, object_pairs_hook=_unique), where)
        except json.JSONDecodeError as error:
            raise ManifestError(f"{where}: is not JSON ({error.msg}): {line.strip()[:60]!r}; {_ALLOWED}") from error
        except ManifestError:
            raise
        except (ValueError, RecursionError) as error:
            raise ManifestError(f"{where}: {error}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; the standard library keeps the last of two equal keys in silence."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} stands in it twice")
        found[key] = value
    return found


def _kind(record: Record) -> str:
    keys = record.values.keys()
    if record.key is not None:
        return "trilobyte" if isinstance(record.values[""], dict) else "lengths"
    if "audio_filepath" in keys:
        return "nemo"
    if "sources" in keys or "recording" in keys or "tracks" in keys or record.values.get("type") == "PaddingCut":
        return "lhotse"
    if keys >= set(index_entry.KEYS):
        return "index"
    if {"path", "duration"} <= keys:
        return "audiocraft"
    hint = "; lhotse supervisions name no files: give the recordings or the cuts" if "recording_id" in keys else ""
    raise ManifestError(f"{record.where}: an object of no known kind, with {record.named()}; {_ALLOWED}{hint}")


def _index_items(record: Record) -> list[ManifestItem]:
    try:
        entry = index_entry.from_record(record.values)
    except ValueError as error:
        raise ManifestError(f"{record.where}: {error}") from error
    info = entry.info
    facts = {name: getattr(info, name) for name in ("num_frames", "sample_rate_hz", "bits", "num_channels")}
    facts |= {"bits": None} if entry.float_bits else {}
    return [ManifestItem(path=entry.path, where=record.where, relative=entry.relative, **facts)]


def _length_items(record: Record) -> list[ManifestItem]:
    return [ManifestItem(path=Path(record.file_name()), where=record.where, num_frames=record.count(""))]


def _trilobyte_items(record: Record) -> list[ManifestItem]:
    facts = record.inner("")
    item = ManifestItem(
        path=Path(record.file_name()),
        where=record.where,
        num_frames=facts.count("length"),
        sample_rate_hz=facts.count("sample_rate"),
        bits=facts.count("bits_per_sample"),
        num_channels=facts.count("n_channels"),
    )
    return [item]


def _audiocraft_items(record: Record) -> list[ManifestItem]:
    rate_hz = record.count("sample_rate") if "sample_rate" in record.values else None
    path, seconds = Path(record.file_name("path")), record.seconds("duration")
    return [ManifestItem(path=path, where=record.where, duration_seconds=seconds, sample_rate_hz=rate_hz)]


def _nemo_items(record: Record) -> list[ManifestItem]:
    names = record.values.get("audio_filepath")
    seconds = record.seconds("duration") if record.values.get("duration") not in (None, -1) else None
    start = record.seconds("offset") if record.values.get("offset") is not None else None
    text = record.values.get("text")
    many = [Record({"audio_filepath": name}, record.where) for name in names] if isinstance(names, list) else []
    paths = [one.file_name("audio_filepath") for one in many or [record]]
    text = text if isinstance(text, str) else None
    items = [ManifestItem(path=Path(path), where=record.where, text=text) for path in paths]
    if start is None:
        return [replace(item, duration_seconds=seconds) for item in items]
    return [replace(item, start_seconds=start, part_seconds=seconds) for item in items]


def _lhotse_items(record: Record) -> list[ManifestItem]:
    if "sources" in record.values:
        return _recording_items(record)
    if "tracks" in record.values:
        tracks = [Record.of(track, record.where, "a track") for track in record.listed("tracks")]
        return [item for track in tracks for item in _lhotse_items(track.inner("cut"))]
    if record.values.get("type") == "PaddingCut":
        return []
    start, part = record.seconds("start"), record.seconds("duration")
    items = _recording_items(record.inner("recording"))
    whole = start == 0 and items[0].duration_seconds is not None and abs(part - items[0].duration_seconds) < 1e-3
    return items if whole else [replace(item, start_seconds=start, part_seconds=part) for item in items]


def _recording_items(record: Record) -> list[ManifestItem]:
    if record.values.get("transforms"):
        raise ManifestError(f"{record.where}: the recording asks for transforms, which are not applied here")
    items = []
    for listed in record.listed("sources"):
        source = Record.of(listed, record.where, "a source")
        if source.values.get("type") != "file":
            raise ManifestError(f"{record.where}: a source of type {source.values.get('type')!r}; only 'file' is read")
        item = ManifestItem(
            path=Path(source.file_name("source")),
            where=record.where,
            num_frames=record.count("num_samples"),
            sample_rate_hz=record.count("sampling_rate"),
            duration_seconds=record.seconds("duration"),
        )
        items.append(item)
    return items


def _located(item: ManifestItem, folder: Path, root: Path | None) -> ManifestItem:
    """The item with its path beside the manifest, or below ``root``, and a name among others."""
    places = tuple(place / item.path for place in ((folder,) if root is None else (folder, root.absolute())))
    looked_in = (item.path,) if item.path.is_absolute() else places
    path = next((place for place in looked_in if os.path.exists(place)), looked_in[0])
    short = item.path.relative_to(folder) if item.path.is_relative_to(folder) else item.path
    relative = item.relative or short.as_posix().removeprefix(short.anchor.replace("\\", "/"))
    return replace(item, path=path, looked_in=looked_in, relative=relative)


_PARSERS: dict[str, Callable[[Record], list[ManifestItem]]] = {
    "index": _index_items,
    "lengths": _length_items,
    "trilobyte": _trilobyte_items,
    "audiocraft": _audiocraft_items,
    "nemo": _nemo_items,
    "lhotse": _lhotse_items,
}
_ALLOWED = "read are an index, lengths and Trilobyte JSON, and JSON lines of audiocraft, NeMo and lhotse"
