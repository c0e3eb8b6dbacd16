"""Lists of files: every kind as its own program writes it, told apart by content; what they claim is compared."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from codes.data.audio.listing.folder import scan
from codes.data.audio.listing.index import build_index
from codes.data.audio.listing.manifest_record import ManifestError
from codes.data.audio.listing.manifest_writer import WRITERS, write_manifest
from codes.data.audio.listing.manifests import ManifestItem, contradiction, is_manifest, read_manifest
from codes.data.audio.reader import AudioInfo, AudioReadError


def audio(path: Path, num_frames: int = 16000, channels: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros((num_frames, channels), np.int16), 16000, subtype="PCM_16")
    return path


def lines(*records: Any) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def recording(source: str, **others: Any) -> dict[str, Any]:
    return {
        "id": "one",
        "sources": [{"type": "file", "channels": [0], "source": source}],
        "sampling_rate": 16000,
        "num_samples": 16000,
        "duration": 1.0,
        "channel_ids": [0],
        **others,
    }


def cut(source: str, start: float, duration: float) -> dict[str, Any]:
    return {
        "id": "one-0",
        "start": start,
        "duration": duration,
        "channel": 0,
        "supervisions": [],
        "recording": recording(source),
        "type": "MonoCut",
    }


MIXED = {
    "id": "mix",
    "tracks": [{"cut": cut("a.wav", 0.0, 1.0), "offset": 0.0}, {"cut": cut("b/a.wav", 0.5, 0.25), "offset": 0.2}],
    "type": "MixedCut",
}
AUDIOCRAFT = {"duration": 1.0, "sample_rate": 16000, "amplitude": None, "weight": None, "info_path": None}
KINDS = {
    "lengths": json.dumps({"a.wav": 16000, "b/a.wav": 16000}),
    "trilobyte": json.dumps(
        {
            name: {"length": 16000, "sample_rate": 16000, "bits_per_sample": 16, "n_channels": 1}
            for name in ("a.wav", "b/a.wav")
        },
        indent=2,
    ),
    "audiocraft": lines({"path": "a.wav", **AUDIOCRAFT}, {"path": "b/a.wav", **AUDIOCRAFT}),
    "nemo": lines(
        {"audio_filepath": "a.wav", "duration": 1.0, "text": "one"},
        {"audio_filepath": "b/a.wav", "duration": 1.004, "text": "", "lang": "en"},
    ),
    "lhotse": lines(recording("a.wav"), recording("b/a.wav")),
    "lhotse cuts": lines(cut("a.wav", 0.0, 1.0), cut("b/a.wav", 0.0, 1.0)),
    "lhotse mixed": lines(MIXED, {"id": "pad", "duration": 1.0, "type": "PaddingCut"}),
    "lhotse list": json.dumps([recording("a.wav"), recording("b/a.wav")]),
}


@pytest.fixture
def music(tmp_path: Path) -> Path:
    audio(tmp_path / "music" / "a.wav")
    audio(tmp_path / "music" / "b" / "a.wav")
    return tmp_path / "music"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("beside", [True, False])
def test_every_kind_is_recognised_and_scanned(music: Path, kind: str, packed: bool, beside: bool) -> None:
    folder = music if beside else music.parent / "elsewhere"
    folder.mkdir(exist_ok=True)
    path = folder / ("list.jsonl.gz" if packed else "list.json")
    path.write_bytes(gzip.compress(KINDS[kind].encode()) if packed else b"\xef\xbb\xbf" + KINDS[kind].encode())
    root = None if beside else music
    manifest = read_manifest(path, root)
    assert manifest.kind == kind.split(" ")[0]
    assert [item.path for item in manifest.items] == [music / "a.wav", music / "b" / "a.wav"]
    found = scan([path], manifest_root=root)
    assert [(file.relative, file.path) for file in found.files] == [
        ("a.wav", music / "a.wav"),
        ("b/a.wav", music / "b" / "a.wav"),
    ]
    assert found.left_out == {}


def test_what_each_kind_says(music: Path) -> None:
    def first(kind: str, **others: Any) -> ManifestItem:
        (music / "list.json").write_text(KINDS[kind])
        item = read_manifest(music / "list.json").items[0]
        where = "key 'a.wav'" if kind in ("lengths", "trilobyte") else "item 1" if kind == "lhotse list" else "line 1"
        common = {"path": music / "a.wav", "looked_in": (music / "a.wav",), "relative": "a.wav"}
        assert item == ManifestItem(where=f"{music / 'list.json'}, {where}", **common, **others)
        return item

    first("lengths", num_frames=16000)
    first("trilobyte", num_frames=16000, sample_rate_hz=16000, bits=16, num_channels=1)
    first("audiocraft", duration_seconds=1.0, sample_rate_hz=16000)
    first("nemo", duration_seconds=1.0, text="one")
    first("lhotse", num_frames=16000, sample_rate_hz=16000, duration_seconds=1.0)
    first("lhotse list", num_frames=16000, sample_rate_hz=16000, duration_seconds=1.0)
    first("lhotse cuts", num_frames=16000, sample_rate_hz=16000, duration_seconds=1.0)


@pytest.mark.parametrize("kind", sorted(WRITERS))
@pytest.mark.parametrize("suffix", ["json", "jsonl.gz"])
def test_what_is_written_is_read_back(music: Path, kind: str, suffix: str) -> None:
    audio(music / "c.flac", 8000, channels=2)
    entries = build_index([music]).entries
    path = music.parent / "out" / f"list.{suffix}"
    write_manifest(path, kind, entries)
    assert (path.read_bytes()[:2] == b"\x1f\x8b") == suffix.endswith("gz")
    manifest = read_manifest(path, music)
    assert manifest.kind == ("index" if kind == "jsonl" else kind)
    assert [item.path for item in manifest.items] == [entry.path for entry in entries]
    assert all(contradiction(item, entry.info) is None for item, entry in zip(manifest.items, entries, strict=True))
    assert [file.path for file in scan([path], manifest_root=music).files] == [entry.path for entry in entries]
    assert [path.name for path in path.parent.iterdir()] == [path.name]


def test_written_fields_are_those_of_the_other_programs(music: Path) -> None:
    (entry, _) = build_index([music]).entries

    def written(kind: str) -> Any:
        write_manifest(music / "list.json", kind, [entry])
        return json.loads((music / "list.json").read_text())

    place = str(music / "a.wav")
    assert written("lengths") == {"a.wav": 16000}
    facts = {"length": 16000, "sample_rate": 16000, "bits_per_sample": 16, "n_channels": 1}
    assert written("trilobyte") == {"a.wav": facts}
    assert written("audiocraft") == {"path": place, **AUDIOCRAFT}
    assert written("nemo") == {"audio_filepath": place, "duration": 1.0, "text": ""}
    assert written("lhotse") == {**recording(place), "id": "a.wav"}


def test_whole_paths_where_relative_ones_are_not_unique(music: Path) -> None:
    entries = build_index([music / "a.wav", music / "b"]).entries
    assert [entry.relative for entry in entries] == ["a.wav", "a.wav"]
    write_manifest(music / "lengths.json", "lengths", entries)
    assert json.loads((music / "lengths.json").read_text()) == {str(entry.path): 16000 for entry in entries}
    assert [file.relative for file in scan([music / "lengths.json"]).files] == ["a.wav", "b/a.wav"]


def test_absolute_paths_outside_the_folder_keep_their_names_apart(music: Path) -> None:
    path = music.parent / "elsewhere" / "lengths.json"
    path.parent.mkdir()
    path.write_text(json.dumps({str(music / "a.wav"): 16000, str(music / "b" / "a.wav"): 16000}))
    files = scan([path]).files
    assert [file.path for file in files] == [music / "a.wav", music / "b" / "a.wav"]
    assert files[0].relative == (music / "a.wav").as_posix().lstrip("/")


def test_parts_of_files_are_taken_whole_and_said(music: Path) -> None:
    path = music / "list.jsonl"
    path.write_text(
        lines(
            {"audio_filepath": "a.wav", "offset": 0.0, "duration": 0.25, "text": "a"},
            {"audio_filepath": "a.wav", "offset": 0.25, "duration": 0.75, "text": "b"},
            {"audio_filepath": ["a.wav", "b/a.wav"], "duration": None},
        )
    )
    items = read_manifest(path).items
    assert [(item.start_seconds, item.part_seconds, item.text) for item in items] == [
        (0.0, 0.25, "a"),
        (0.25, 0.75, "b"),
        (None, None, None),
        (None, None, None),
    ]
    found = scan([path])
    assert [file.relative for file in found.files] == ["a.wav", "b/a.wav"]
    assert found.left_out == {}
    assert found.notes == [f"{path}: 2 of 4 entries mean a part of a file; whole files are taken"]


def test_a_file_listed_and_in_a_folder_counts_once(music: Path) -> None:
    (music / "list.json").write_text(json.dumps({"a.wav": 16000}))
    found = scan([music, music / "list.json"])
    assert [file.relative for file in found.files] == ["a.wav", "b/a.wav"]
    assert found.left_out == {
        "not audio by its name (.json)": [music / "list.json"],
        "found twice": [music / "a.wav"],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps({"a.wav": 15999}), r"key 'a\.wav': says 15999 frames, .*a\.wav has 16000 frames"),
        (
            json.dumps({"a.wav": {"length": 16000, "sample_rate": 8000, "bits_per_sample": 16, "n_channels": 1}}),
            r"key 'a\.wav': says 8000 Hz, .*a\.wav has 16000 Hz",
        ),
        (
            json.dumps({"a.wav": {"length": 16000, "sample_rate": 16000, "bits_per_sample": 24, "n_channels": 1}}),
            "says 24 bits, .* has 16 bits",
        ),
        (
            json.dumps({"a.wav": {"length": 16000, "sample_rate": 16000, "bits_per_sample": 16, "n_channels": 2}}),
            "says 2 channels, .* has 1 channels",
        ),
        (lines({"path": "a.wav", **AUDIOCRAFT, "duration": 1.5}), "line 1: says 1.5 seconds, .* has 1 seconds"),
        ("\n" + KINDS["nemo"].replace("1.004", "2"), r"line 3: says 2 seconds, .*b/a\.wav has 1 seconds"),
        (lines(recording("a.wav", num_samples=20000)), "line 1: says 20000 frames, .* has 16000 frames"),
        (lines(cut("a.wav", 0.5, 0.75)), "line 1: says audio until 1.25 seconds, .* has audio until 1 seconds"),
        (
            lines({"audio_filepath": "a.wav", "offset": 3, "duration": None}),
            "says audio until 3 seconds, .* has audio until 1 seconds",
        ),
    ],
)
def test_a_list_that_lies(music: Path, text: str, message: str) -> None:
    path = music / "list.jsonl"
    path.write_text(text)
    with pytest.raises(AudioReadError, match=message):
        scan([path])
    assert next(iter(build_index([path]).errors.values())).startswith(f"{path}, ")


def test_missing_files_are_named_with_the_places_looked_in(music: Path) -> None:
    path = music / "list.jsonl"
    path.write_text(KINDS["nemo"].replace("b/a.wav", "b/c.wav"))
    found = build_index([path], manifest_root=music.parent)
    assert [entry.relative for entry in found.entries] == ["a.wav"]
    assert found.errors == {
        music / "b" / "c.wav": f"{path}, line 2: {music / 'b/c.wav'} does not exist, nor {music.parent / 'b/c.wav'}"
    }
    with pytest.raises(AudioReadError, match=r"line 2: .*c\.wav does not exist"):
        scan([path])
    assert scan([path], on_error="collect").errors.keys() == {music / "b" / "c.wav"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("b", "line 1: .*b is not a file but a folder"),
        ("x" * 300, "line 1: .* cannot be opened: File name too long"),
        ("\ud800.wav", "line 1: .* cannot be opened: .*surrogates not allowed"),
    ],
)
def test_names_that_are_no_files(music: Path, name: str, message: str) -> None:
    (music / "list.jsonl").write_text(lines({"audio_filepath": name, "duration": 1}))
    with pytest.raises(AudioReadError, match=message):
        scan([music / "list.jsonl"])


def test_broken_audio_in_a_list_is_named(music: Path) -> None:
    (music / "a.wav").write_bytes(b"RIFF")
    (music / "list.json").write_text(KINDS["lengths"])
    with pytest.raises(AudioReadError, match=r"a\.wav: "):
        scan([music / "list.json"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no files: it is empty"),
        ("{}", "lists no files: it is empty"),
        ("[]", "lists no files: it is empty"),
        ("hello\nworld", r"line 1: is not JSON \(.*\): 'hello'; read are an index, lengths"),
        ("3", "is JSON, but no list of files: 3; read are"),
        ('["a.wav"]', r"item 1: is 'a\.wav'; an object \{\.\.\.\} is wanted"),
        ('{"a": 1}\n[1]\n', r"line 2: is \[1\]; an object"),
        ('{"path": "a.wav"}\n', "line 1: an object of no known kind, with the keys path; read are"),
        ('{"id": "a", "recording_id": "b", "duration": 1}', "lhotse supervisions name no files: give the recordings"),
        ('{"a.wav": 0}', r"key 'a\.wav': is 0; a whole number from 1 on is wanted"),
        ('{"a.wav": 1.5}', r"key 'a\.wav': is 1\.5; a whole number"),
        ('{"a.wav": true}', r"key 'a\.wav': is True; a whole number"),
        ('{"": 1}', "the name of the file is ''; a text without NUL is wanted"),
        ('{"a\\u0000.wav": 1}', "a text without NUL is wanted"),
        ('{"a.wav": 1, "a.wav": 2}', r"the key 'a\.wav' stands in it twice"),
        ('{"path": "a", "duration": 1}\n{"path": "a", "path": "b"}', "line 2: the key 'path' stands in it twice"),
        ('{"a.wav": {"length": 1}}', r"key 'a\.wav': lacks 'sample_rate'; it has the keys length"),
        ('{"path": "a.wav", "duration": -1}', "duration is -1; a number from 0 on is wanted"),
        ('{"path": "a.wav", "duration": 1e999}', "duration is inf; a number from 0 on is wanted"),
        ('{"path": "a.wav", "duration": 1' + "0" * 400 + "}", "duration is 1000.*; a number from 0 on is wanted"),
        ('{"path": "a.wav", "duration": "1"}', "duration is '1'; a number from 0 on is wanted"),
        ('{"path": 3, "duration": 1}', "path is 3; a text"),
        ('{"path": "a.wav", "duration": 1}\n{"duration": 1}', "line 2: lacks 'path'; it has the keys duration"),
        ('{"audio_filepath": []}', r"audio_filepath is \[\]; a text"),
        (KINDS["nemo"] + "{}", "line 3: lacks 'audio_filepath'; it has no keys"),
        ('{"audio_filepath": ["a.wav", 1]}', "audio_filepath is 1; a text"),
        (lines(recording("a.wav", sources=[])), r"line 1: sources is \[\]; a list is wanted"),
        (lines(recording("a.wav", sources=[1])), "line 1: a source is 1; an object"),
        (lines(recording("a.wav", sources=[{"type": "url", "source": "http://x"}])), "type 'url'; only 'file' is read"),
        (lines(recording("a.wav", transforms=[{"name": "Speed"}])), "asks for transforms, which are not applied"),
        (lines({**cut("a.wav", 0, 1), "recording": None}), "line 1: recording is None; an object"),
        (lines({"id": "pad", "duration": 1.0, "type": "PaddingCut"}), "none of its 1 lhotse entries names one"),
        ("[" * 100_000, "list.jsonl.*: maximum recursion depth exceeded"),
    ],
)
def test_what_is_no_list(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text(text)
    with pytest.raises(ManifestError, match=message) as caught:
        scan([path])
    assert str(caught.value).startswith(str(path))


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_bytes(b"\0\1\2")
    with pytest.raises(ManifestError, match=r"list\.json: is binary, not text"):
        scan([path])
    path.write_bytes(gzip.compress(b'{"a.wav": 1}' * 100)[:-9])
    with pytest.raises(ManifestError, match=r"list\.json: is broken gzip: "):
        scan([path])


def test_lossy_files_may_differ_at_their_ends(tmp_path: Path) -> None:
    claim = ManifestItem(path=tmp_path / "x.mp3", where="list, line 1", num_frames=10_000, bits=24)
    facts = {"sample_rate_hz": 16000, "bits": 16, "num_channels": 1, "format": "MP3", "lossy": True}
    assert contradiction(claim, AudioInfo(num_frames=11_600, **facts)) is None
    problem = contradiction(claim, AudioInfo(num_frames=11_601, **facts))
    assert problem == f"list, line 1: says 10000 frames, {tmp_path / 'x.mp3'} has 11601 frames"


@pytest.mark.parametrize(
    ("name", "is_one"), [("x.json", True), ("x.JSONL.gz", True), ("x.gz", False), ("x.wav", False), ("json", False)]
)
def test_lists_go_by_their_names(name: str, is_one: bool) -> None:
    assert is_manifest(Path(name)) is is_one


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_lists_are_read_or_refused(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "list.jsonl"
    refused = 0
    for number in range(150):
        data = bytearray(KINDS[kind].encode())
        for _ in range(rng.integers(1, 4)):
            start = int(rng.integers(len(data)))
            junk = b'{}[]":,0-9eE\\x\xff\0 tn'[rng.integers(22) :]
            data[start : start + int(rng.integers(0, 4))] = junk[: rng.integers(3)]
        path.write_bytes(gzip.compress(data) if number % 5 == 0 else data)
        try:
            read_manifest(path)
        except ManifestError as error:
            refused += str(error).startswith(str(path))
    assert 50 < refused < 150
