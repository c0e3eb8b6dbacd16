"""The stereo_chunk dataset: exact samples, random but repeatable chunks, and a clear error for each bad folder."""

import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from codes import registry
from codes.data.audio.channel_layout import ChannelMix
from codes.data.audio.reader import AudioReadError
from codes.data.audio.resample import resample
from codes.data.audio.stereo_chunk import StereoChunkDataset


def write(path: Path, num_frames: int, *, bits: int = 16, channels: int = 2, rate: int = 8000, seed: int = 0) -> Any:
    """Noise as (C, T) integers of that depth, which are also written to the path."""
    limit = 1 << (bits - 1)
    pcm = np.random.default_rng([seed, num_frames]).integers(-limit, limit, (channels, num_frames))
    soundfile.write(path, (pcm << (32 - bits)).astype(np.int32).T, rate, subtype=f"PCM_{bits}")
    return pcm


def dataset(path: Path, **options: Any) -> StereoChunkDataset:
    return StereoChunkDataset(**{"path": str(path), "chunk_frames": 100, "val_fraction": 0.0, **options})


def relatives(data: StereoChunkDataset) -> list[str]:
    return [segment.recording.file.relative for segment in data.segments]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(10):
        write(tmp_path / f"{number}.wav", 350 + 100 * number)
    return tmp_path


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_is_registered_and_its_options_are_documented():
    assert registry.find("dataset", "stereo_chunk") is StereoChunkDataset
    assert all(option.doc for option in registry.options_of(StereoChunkDataset).values())


def test_train_items_are_what_the_files_hold(tmp_path: Path):
    pcm = {str(tmp_path / name): write(tmp_path / name, frames) for name, frames in (("a.wav", 300), ("b.wav", 900))}
    data = dataset(tmp_path, context_frames=50)
    assert len(data) == 12
    starts = []
    for seed in range(200):
        item = data.item(seed % 12, rng(seed))
        assert set(item) == set(StereoChunkDataset.provides)
        start = item["start_frame"]
        whole = np.pad(pcm[item["path"]], ((0, 0), (50, 0)))  # zeros before the start
        assert item["wav"].dtype == np.int16
        np.testing.assert_array_equal(item["wav"], whole[:, start : start + 150])
        assert (item["sample_rate"], item["bit_depth"]) == (8000, 16)
        starts.append((Path(item["path"]).name, start))
    share = np.mean([name == "b.wav" for name, _ in starts])
    assert abs(share - 801 / 1002) < 0.1, "files weigh as much as they have chunk starts"
    assert min(start for _, start in starts) < 50, "starts whose context reaches before the file"
    assert max(start for name, start in starts if name == "b.wav") > 700


def test_item_follows_from_rng_alone(folder: Path):
    data = dataset(folder)
    for seed in range(5):
        first, again = data.item(0, rng(seed)), pickle.loads(pickle.dumps(data)).item(3, rng(seed))
        assert first["path"] == again["path"]
        np.testing.assert_array_equal(first["wav"], again["wav"])


def test_val_items_are_all_whole_chunks_and_the_scored_audio(folder: Path):
    data = dataset(folder, phase="val", val_fraction=0.4, context_frames=30)
    chunks: dict[str, list[np.ndarray]] = {}
    for index in range(len(data)):
        item = data.item(index, rng(index))
        assert item["start_frame"] == 100 * len(chunks.setdefault(item["path"], []))
        chunks[item["path"]].append(item["wav"][:, 30:])
    scored = list(data.scored_audio())
    assert [path for path, *_ in scored] == list(chunks)
    for path, pcm, bits, rate in scored:
        assert (bits, rate, pcm.dtype) == (16, 8000, np.int16)
        np.testing.assert_array_equal(pcm, np.concatenate(chunks[path], axis=1))
    with pytest.raises(IndexError, match=f"item {len(data)} of a dataset of {len(data)}"):
        data.item(len(data), rng(0))


def test_train_and_val_share_no_file_whatever_the_chunk_length(folder: Path):
    train = set(relatives(dataset(folder, val_fraction=0.3)))
    val = set(relatives(dataset(folder, val_fraction=0.3, phase="val", chunk_frames=350)))
    assert train
    assert val
    assert not train & val


@pytest.mark.parametrize(("file_bits", "bits"), [(24, 16), (16, 24), (24, 24), (16, 8), (16, 16)])
def test_bit_depths_are_shifted_and_said(tmp_path: Path, file_bits: int, bits: int):
    pcm = write(tmp_path / "a.wav", 100, bits=file_bits)
    data = dataset(tmp_path, bits=bits)
    item = data.item(0, rng(0))
    shift = bits - file_bits
    np.testing.assert_array_equal(item["wav"], pcm << shift if shift >= 0 else pcm >> -shift)
    assert item["wav"].dtype == (np.int16 if bits <= 16 else np.int32)
    assert item["bit_depth"] == file_bits
    said = any(f"from {file_bits} to {bits} bits as bits says: 1 file" in line for line in data.report())
    assert said == (file_bits != bits)


def test_channels_as_the_options_say(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    mono = write(tmp_path / "mono.wav", 100, channels=1)
    with pytest.raises(
        ValueError, match=r"channels: .*mono\.wav has 1 channel, and 2 are needed: other_channels: skip"
    ):
        dataset(tmp_path)
    data = dataset(tmp_path, channels="duplicate")
    np.testing.assert_array_equal(data.item(0, rng(0))["wav"], np.repeat(mono, 2, 0))
    assert any("duplicated to all channels: 1 file" in line for line in data.report())
    write(tmp_path / "stereo.wav", 200)
    with caplog.at_level(logging.WARNING):
        assert relatives(dataset(tmp_path, other_channels="skip")) == ["stereo.wav"]
    assert "left out: 1 file, 0.00 min whose channels do not fit (mono.wav)" in caplog.text
    six = write(tmp_path / "six.wav", 300, channels=6)
    with pytest.raises(ValueError, match=r"mono\.wav has 1 channel.*\(and 1 more of 3 do not fit\)"):
        dataset(tmp_path)
    data = dataset(tmp_path, channels=ChannelMix(select=[5, 0]), other_channels="skip")
    assert relatives(data) == ["six.wav"]
    item = data.item(0, rng(0))
    start = item["start_frame"]
    np.testing.assert_array_equal(item["wav"], six[[5, 0], start : start + 100])


@pytest.mark.parametrize("choice", ["mono", "each", ChannelMix(select=[1])])
def test_choices_that_give_one_channel_are_refused(folder: Path, choice: Any):
    with pytest.raises(ValueError, match="channels gives 1 channel, and the dataset needs 2"):
        dataset(folder, channels=choice)


def test_sample_rates_must_agree_or_be_chosen(folder: Path, caplog: pytest.LogCaptureFixture):
    other = write(folder / "other.wav", 500, rate=16_000)
    expected = r"the files differ: 10 of 8000 Hz, 1 of 16000 Hz; choose one with sample_rate: 8000"
    with pytest.raises(ValueError, match=expected):
        dataset(folder)
    with pytest.raises(ValueError, match="no file has 44100 Hz: found 10 of 8000 Hz"):
        dataset(folder, sample_rate=44_100, other_rates="skip")
    with pytest.raises(ValueError, match="sample_rate is 8000 Hz and other_rates is refuse"):
        dataset(folder, sample_rate=8000, other_rates="refuse")
    with caplog.at_level(logging.WARNING):
        data = dataset(folder, sample_rate=8000, other_rates="skip")
    assert {recording.sample_rate_hz for recording in data.recordings} == {8000}
    assert "of another sample rate (other.wav)" in caplog.text
    data = dataset(folder, sample_rate=8000, phase="val", val_fraction=1.0)
    assert any("resampled to 8000 Hz: 1 file" in line for line in data.report())
    items = [data.item(index, rng(0)) for index in range(len(data))]
    whole = np.concatenate([item["wav"] for item in items if item["path"].endswith("other.wav")], axis=1)
    np.testing.assert_array_equal(whole, resample(other.astype(np.int16), 16_000, 8000, 16)[:, :200])
    assert {item["sample_rate"] for item in items} == {8000}


def test_short_files_are_left_out_and_named(folder: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        data = dataset(folder, chunk_frames=500)
    assert "left out: 2 files, 0.00 min shorter than an item of 500 frames (0.wav, 1.wav)" in caplog.text
    assert any("shorter than an item" in line for line in data.report())
    expected = r"all 10 files are shorter than what an item takes, 9999 frames; the longest, .*9\.wav, has 1250 frames"
    with pytest.raises(ValueError, match=expected):
        dataset(folder, chunk_frames=9999)


def test_bad_folders_and_options(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        dataset(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"no audio in .*there is no file at all"):
        dataset(tmp_path)
    write(tmp_path / "a.wav", 100)
    with pytest.raises(ValueError, match=r"no file is left for phase 'val' \(.*\): val_fraction is 0"):
        dataset(tmp_path, phase="val")
    with pytest.raises(ValueError, match="chunk_frames is 0, it must be at least 1"):
        dataset(tmp_path, chunk_frames=0)
    with pytest.raises(ValueError, match="context_frames is -1, it must be at least 0"):
        dataset(tmp_path, context_frames=-1)
    (tmp_path / "b.wav").write_bytes(b"RIFF and nothing more of it")
    with pytest.raises(AudioReadError, match=r"b\.wav: is not audio"):
        dataset(tmp_path)


def test_file_that_changed_or_vanished_since_the_scan(tmp_path: Path):
    path = tmp_path / "a.wav"
    write(path, 400)
    data = dataset(tmp_path)
    write(path, 300)
    with pytest.raises(AudioReadError, match=r"a\.wav: has changed: was 400 frames.* is 300"):
        data.item(0, rng(0))
    write(path, 400)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(AudioReadError, match=r"a\.wav: truncated: promises 1600 bytes of samples and has 1200"):
        data.item(0, rng(0))
    path.unlink()
    with pytest.raises(AudioReadError, match=r"a\.wav: cannot be opened"):
        data.item(0, rng(0))


def test_demo_corpus_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WAVESCHOOL_CACHE", str(tmp_path))
    corpus = tmp_path / "demo_corpus_v1_seed0"  # as if it had been made
    corpus.mkdir()
    write(corpus / "a.wav", 100)
    data = StereoChunkDataset(path="demo_corpus", chunk_frames=50, val_fraction=0.0)
    assert [recording.file.path.parent for recording in data.recordings] == [corpus]


def test_report_counts_everything(folder: Path):
    (folder / "notes.txt").touch()
    lines = dataset(folder, val_fraction=0.2).report()
    assert lines[0].startswith("found: 10 files, ")
    assert lines[1] == "left out: 1 not audio by its name (.txt) (notes.txt)"
    assert lines[2].endswith("this is train")
    assert "8000 Hz; 16-bit WAV PCM_16" in lines[-1]


def test_val_seconds_takes_the_middle_of_every_file(make_stereo_folder):
    folder = make_stereo_folder(num_files=4, num_samples=16_000, sample_rate_hz=8000)
    options = {"path": folder, "phase": "val", "chunk_frames": 1000, "val_fraction": 0.5}
    whole = StereoChunkDataset(**options)
    cut = StereoChunkDataset(**options, val_seconds=1.0)
    assert whole.scored_seconds() == 4.0
    assert cut.scored_seconds() == 1.0
    assert len(cut) == 8
    rng = np.random.default_rng(0)
    starts = [cut.item(index, rng)["start_frame"] for index in range(4)]
    assert starts == [6000, 7000, 8000, 9000]
    (path, pcm, _, _), *_ = cut.scored_audio()
    items = np.concatenate([cut.item(index, rng)["wav"] for index in range(4)], axis=1)
    assert (pcm == items).all()
    assert cut.item(0, rng)["path"] == path
    assert "validates on the middle of every file, 1 of 4 seconds" in cut.report()
