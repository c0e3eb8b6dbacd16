"""LibriSpeech, LJ Speech, VCTK and SC09 in small: exact samples, texts, speakers, labels, official splits, errors."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codes.data.audio.librispeech import LibrispeechDataset
from codes.data.audio.ljspeech import LjspeechDataset
from codes.data.audio.published_layout import LayoutError
from codes.data.audio.sc09 import Sc09Dataset
from codes.data.audio.vctk import VctkDataset
from tests.data.audio import published_corpora as corpora


def items(data: Any) -> list[dict[str, Any]]:
    return [data.item(index, np.random.default_rng(index)) for index in range(len(data))]


def whole(data: Any) -> dict[str, np.ndarray]:
    """Name of each file -> the chunks of it, one after the other; of a validation dataset."""
    found: dict[str, list[np.ndarray]] = {}
    for item in items(data):
        found.setdefault(Path(item["path"]).name, []).append(item["wav"])
    return {name: np.concatenate(chunks, axis=1) for name, chunks in found.items()}


def names(data: Any) -> list[str]:
    return [recording.file.relative for recording in data.recordings]


def test_librispeech_by_its_subsets(tmp_path: Path):
    pcm = corpora.librispeech(tmp_path)
    train = LibrispeechDataset(path=tmp_path, chunk_frames=100)
    assert names(train) == [f"{s}/198/{s}-198-{n:04}.flac" for s in (19, 26) for n in range(2)]
    for item in items(train):
        name, start = Path(item["path"]).stem, item["start_frame"]
        np.testing.assert_array_equal(item["wav"], pcm[name][:, start : start + 100])
        assert set(item) == set(LibrispeechDataset.provides)
        assert item["speaker"] == name.split("-")[0]
        assert item["text"] == f"WORDS OF {item['speaker']} {int(name[-4:])}"
    val = LibrispeechDataset(path=tmp_path / "LibriSpeech", phase="val", chunk_frames=100)
    assert names(val) == ["84/198/84-198-0000.flac", "84/198/84-198-0001.flac"]
    for name, samples in whole(val).items():
        np.testing.assert_array_equal(samples, pcm[Path(name).stem][:, : samples.shape[1]])
    test = LibrispeechDataset(path=tmp_path, phase="val", subsets=["test-clean"], chunk_frames=100)
    assert {item["speaker"] for item in items(test)} == {"61"}
    again = pickle.loads(pickle.dumps(test)).item(0, np.random.default_rng(0))
    assert again["text"] == "WORDS OF 61 0"


def test_librispeech_by_speaker(tmp_path: Path):
    corpora.librispeech(tmp_path)
    how: dict[str, Any] = {"path": tmp_path, "split": "folder", "val_fraction": 0.4, "chunk_frames": 100}
    train, val = (LibrispeechDataset(phase=phase, **how) for phase in ("train", "val"))
    speakers = [{name.split("/")[0] for name in names(data)} for data in (train, val)]
    assert speakers[0] | speakers[1] == {"19", "26", "84"}
    assert not speakers[0] & speakers[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"subsets": ["train-clean"]}, "subsets names 'train-clean', allowed are train-clean-100"),
        ({"subsets": ["train-other-500"]}, "train-other-500 is not there. LibriSpeech is to be had at https://"),
        (
            {"subsets": ["train-clean-100"], "phase": "val"},
            "split: official has no file of LibriSpeech for phase 'val'",
        ),
        ({"subsets": ["dev-clean"]}, "files here 0 are to train and 2 to validate; take phase 'val', another subset"),
        ({"path": ["a", "b"]}, "path: give one folder, that of LibriSpeech, got 2"),
    ],
)
def test_librispeech_errors(tmp_path: Path, options: dict[str, Any], message: str):
    corpora.librispeech(tmp_path)
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        LibrispeechDataset(**{"path": tmp_path, "chunk_frames": 100, **options})


def test_librispeech_notes_what_has_no_text_and_leaves_out_strangers(tmp_path: Path):
    corpora.librispeech(tmp_path)
    folder = tmp_path / "LibriSpeech" / "train-clean-100"
    (folder / "19" / "198" / "19-198.trans.txt").write_text("19-198-0001 ONE\n", encoding="utf-8")
    corpora.write(folder / "mine.flac", 300)
    data = LibrispeechDataset(path=tmp_path, chunk_frames=300)
    report = "\n".join(data.report())
    assert "no transcript, so text is empty: 1 files" in report
    assert "left out: 1 that is not at SPEAKER/CHAPTER/SPEAKER-CHAPTER-NUMBER (mine.flac)" in report
    assert {item["text"] for item in items(data)} <= {"", "ONE", "WORDS OF 26 0", "WORDS OF 26 1"}
    (folder / "19" / "198" / "19-198.trans.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(LayoutError, match=r"19-198\.trans\.txt cannot be read: 'utf-8' codec"):
        LibrispeechDataset(path=tmp_path)


@pytest.mark.parametrize("cls", [LibrispeechDataset, LjspeechDataset, VctkDataset, Sc09Dataset])
def test_a_wrong_folder_says_what_is_there_and_where_to_get_the_corpus(tmp_path: Path, cls: Any):
    for make, found in (
        (lambda: None, r"found nothing in it\."),
        (lambda: (tmp_path / "a.mp3").touch(), r"found a\.mp3\."),
        (lambda: [(tmp_path / f"d{n}").mkdir() for n in range(7)], r"found a\.mp3, d0/, .*d4/ and 2 more\."),
    ):
        make()
        expected = (
            rf"path: .* is not .* as it was published: looked for .*; {found} .* is to be had at https://\S+: .*DIR"
        )
        with pytest.raises(LayoutError, match=expected):
            cls(path=tmp_path)
    with pytest.raises(LayoutError, match="found that it does not exist"):
        cls(path=tmp_path / "nowhere")
    with pytest.raises(LayoutError, match="found a file, not a folder"):
        cls(path=tmp_path / "a.mp3")


def test_ljspeech(tmp_path: Path):
    pcm = corpora.ljspeech(tmp_path)
    train = LjspeechDataset(path=tmp_path, chunk_frames=50)
    val = LjspeechDataset(path=tmp_path / "LJSpeech-1.1", chunk_frames=50, phase="val")
    assert len(names(val)) == 1
    assert sorted(names(train) + names(val)) == [f"{name}.wav" for name in pcm]
    for item in items(val):
        name = Path(item["path"]).stem
        np.testing.assert_array_equal(item["wav"], pcm[name][:, item["start_frame"] :][:, :50])
        assert item["text"] == f"Doctor {name} said “hm”"
        assert item["sample_rate"] == 22_050


def test_ljspeech_metadata_that_does_not_fit(tmp_path: Path):
    corpora.ljspeech(tmp_path)
    folder = tmp_path / "LJSpeech-1.1"
    lines = (folder / "metadata.csv").read_text(encoding="utf-8").splitlines()
    (folder / "metadata.csv").write_text("\n".join([*lines[1:], "LJ009-0001|a|b"]), encoding="utf-8")
    report = LjspeechDataset(path=folder, chunk_frames=50).report()
    assert "no transcript in metadata.csv, so text is empty: 1 files" in report
    assert "named in metadata.csv but not there: 1 files" in report
    (folder / "metadata.csv").write_text("LJ001-0001|only two", encoding="utf-8")
    with pytest.raises(LayoutError, match=r"metadata\.csv:1 has 2 fields between \|, not 3"):
        LjspeechDataset(path=folder)
    (folder / "metadata.csv").write_bytes(b"\xff")
    with pytest.raises(LayoutError, match=r"metadata\.csv cannot be read"):
        LjspeechDataset(path=folder)
    (folder / "wavs").rename(folder / "waves")
    (folder / "metadata.csv").write_text("LJ001-0001|a|b", encoding="utf-8")
    with pytest.raises(LayoutError, match=r"found metadata\.csv, waves/\."):
        LjspeechDataset(path=folder)
    (folder / "wavs").mkdir()
    with pytest.raises(LayoutError, match=r"found no file in .*wavs\. LJ Speech is to be had at"):
        LjspeechDataset(path=folder)


@pytest.mark.parametrize("microphone", ["mic1", "mic2", "both"])
def test_vctk_trimmed(tmp_path: Path, microphone: Any):
    pcm = corpora.vctk(tmp_path)
    how: dict[str, Any] = {"path": tmp_path, "microphone": microphone, "chunk_frames": 100}
    train, val = VctkDataset(**how), VctkDataset(phase="val", **how)
    assert len(names(train)) + len(names(val)) == (12 if microphone == "both" else 6)
    assert all(microphone in ("both", name[-9:-5]) for name in names(train) + names(val))
    speakers = [{name.split("/")[0] for name in names(data)} for data in (train, val)]
    assert not speakers[0] & speakers[1]
    assert len(speakers[1]) == 1
    for name, samples in whole(val).items():
        np.testing.assert_array_equal(samples, pcm[name])
    for item in items(train) + items(val):
        name = Path(item["path"]).name
        assert item["speaker"] == name[:4]
        expected = "" if name.startswith("p315") else f"Sentence {int(name[5:8])} of {name[:4]}."
        assert item["text"] == expected
    assert "no text, so text is empty: speakers p315" in train.report()
    if microphone != "both":
        other = "mic2" if microphone == "mic1" else "mic1"
        assert any(
            f"left out: 6 of another microphone than {microphone} (p225_001_{other}" in n for n in train.report()
        )


def test_vctk_of_version_80(tmp_path: Path):
    pcm = corpora.vctk(tmp_path, trimmed=False)
    data = VctkDataset(path=tmp_path, split="file", phase="val", val_fraction=1.0, chunk_frames=100)
    assert len(names(data)) == 6
    for name, samples in whole(data).items():
        np.testing.assert_array_equal(samples, pcm[name])
    assert {item["text"] for item in items(data)} >= {"Sentence 1 of p225.", "Sentence 2 of p226.", ""}


def test_vctk_errors(tmp_path: Path):
    corpora.vctk(tmp_path)
    with pytest.raises(ValueError, match="microphone: both does not go with split: file"):
        VctkDataset(path=tmp_path, microphone="both", split="file")
    (tmp_path / "VCTK-Corpus-0.92" / "txt").rename(tmp_path / "text")
    with pytest.raises(LayoutError, match=r"found wav48_silence_trimmed/\. VCTK is to be had at"):
        VctkDataset(path=tmp_path)


def test_sc09_by_its_lists(tmp_path: Path):
    pcm = corpora.sc09(tmp_path / "sc09")
    train = Sc09Dataset(path=tmp_path, chunk_frames=160)
    val = Sc09Dataset(path=tmp_path / "sc09", chunk_frames=160, phase="val")
    test = Sc09Dataset(path=tmp_path / "sc09", chunk_frames=160, phase="val", subset="test")
    takes = [{name.split("/")[1][0] for name in names(data)} for data in (train, val, test)]
    assert takes == [{"0", "1"}, {"2"}, {"3"}]
    assert [len(names(data)) for data in (train, val, test)] == [20, 10, 10]
    assert any(line.startswith("left out: 10 of another subset than train (") for line in train.report())
    for item in items(val) + items(test):
        digit, name = Path(item["path"]).parts[-2:]
        np.testing.assert_array_equal(item["wav"], pcm[f"{digit}/{name}"])
        assert item["label"] == corpora.DIGITS.index(digit)
        assert item["speaker"] == name[:4]
    with pytest.raises(ValueError, match="of the 10 files here 0 are to train and 10 to validate"):
        Sc09Dataset(path=tmp_path, subset="test")


def test_sc09_errors(tmp_path: Path):
    corpora.sc09(tmp_path)
    (tmp_path / "nine").rename(tmp_path / "none")
    (tmp_path / "testing_list.txt").unlink()
    with pytest.raises(LayoutError, match=r"nine/, testing_list\.txt is not there\. SC09 is to be had at"):
        Sc09Dataset(path=tmp_path)
    (tmp_path / "none").rename(tmp_path / "nine")
    (tmp_path / "testing_list.txt").write_bytes(b"\xff")
    with pytest.raises(LayoutError, match=r"testing_list\.txt cannot be read"):
        Sc09Dataset(path=tmp_path)
