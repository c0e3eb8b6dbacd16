"""What all datasets of audio share: errors that are skipped and counted, intervals, rates, the cache, changed files."""

import logging
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from codes.data.audio.chunk_dataset import ChunkDataset
from codes.data.audio.listing.index_entry import IndexEntry
from codes.data.audio.mono_chunk import MonoChunkDataset
from codes.data.audio.reader import AudioReadError
from codes.data.audio.resample import num_resampled
from codes.data.audio.stereo_chunk import StereoChunkDataset
from codes.data.dataset import SKIPPED
from codes.data.loader import Loader
from tests.data.audio.coded_audio import write_coded, write_silent_video


def write(path: Path, num_frames: int, *, channels: int = 2, rate: int = 8000, seed: int = 0) -> np.ndarray:
    """16-bit noise (C, T), also written to the path."""
    pcm = np.random.default_rng([seed, num_frames]).integers(-9000, 9000, (channels, num_frames)).astype(np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, pcm.T, rate)
    return pcm


def dataset(path: Path | list[Path], **options: Any) -> StereoChunkDataset:
    return StereoChunkDataset(**{"path": path, "chunk_frames": 100, "val_fraction": 0.0, **options})


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def take_all(loader: Loader) -> None:
    while True:
        assert SKIPPED not in loader.next()


def break_in_the_middle(path: Path) -> None:
    """A FLAC file whose header and last frames are right, and whose third quarter is zeros."""
    content = path.read_bytes()
    quarter = len(content) // 4
    path.write_bytes(content[: 2 * quarter] + bytes(quarter) + content[3 * quarter :])


def test_unreadable_files_stop_or_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write(tmp_path / "good.wav", 500)
    (tmp_path / "text.wav").write_text("no audio at all, a few words instead")
    (tmp_path / "empty.flac").touch()
    with pytest.raises(AudioReadError, match=r"empty\.flac.*\(and 1 more of 3 files cannot be read\)"):
        dataset(tmp_path)
    with caplog.at_level(logging.WARNING):
        data = dataset(tmp_path, on_error="skip")
    assert data.num_errors == 2
    assert [recording.file.relative for recording in data.recordings] == ["good.wav"]
    for name in ("text.wav", "empty.flac"):
        assert any(line.startswith("left out: ") and name in line for line in data.report())
        assert name in caplog.text
    with pytest.raises(AudioReadError, match=r"max_errors is 1, and 2 files cannot be read; the last: .*wav"):
        dataset(tmp_path, on_error="skip", max_errors=1)


def test_video_without_sound_is_left_out_and_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Nothing is wrong with it: neither training nor the count of errors stops at it, unless a list calls it audio."""
    write(tmp_path / "good.wav", 500)
    write_silent_video(tmp_path / "silent.mp4")
    with caplog.at_level(logging.WARNING):
        data = dataset(tmp_path)
    assert data.num_errors == 0
    assert [line for line in [*data.report(), *caplog.messages] if "silent" in line] == [
        "left out: 1 of video without sound (silent.mp4)"
    ]
    (tmp_path / "list.json").write_text('{"silent.mp4": 100, "good.wav": 500}')
    with pytest.raises(AudioReadError, match=r"silent\.mp4: has no audio stream in it"):
        dataset(tmp_path / "list.json")


def test_a_file_broken_in_the_middle_is_skipped_counted_and_stops_at_the_ceiling(tmp_path: Path):
    write(tmp_path / "broken.flac", 40_000)
    write(tmp_path / "whole.flac", 40_000, seed=1)
    break_in_the_middle(tmp_path / "broken.flac")
    failing = dataset(tmp_path)
    with pytest.raises(AudioReadError, match=r"broken\.flac: "):
        [failing.item(0, rng(seed)) for seed in range(30)]
    data = dataset(tmp_path, on_error="skip")
    items = [data.item(0, rng(seed)) for seed in range(30)]
    skipped = [message for item in items for message in item[SKIPPED]]
    assert skipped
    assert all(file == str(tmp_path / "broken.flac") and "broken.flac" in message for file, message in skipped)
    assert all(SKIPPED in item for item in items)
    again = data.item(0, rng(3))
    np.testing.assert_array_equal(again["wav"], items[3]["wav"])
    loader = Loader(dataset(tmp_path, on_error="skip", max_errors=1), 4, seed=0, endless=True)
    for _ in range(10):
        assert SKIPPED not in loader.next()
    assert loader.skipped.keys() == {str(tmp_path / "broken.flac")}
    assert loader.skipped[str(tmp_path / "broken.flac")] > 1, "one file, however often it was drawn"
    counted = dict(loader.skipped)
    for number in range(10):
        assert SKIPPED not in loader.share(number)[0] | loader.batch(number)
    assert loader.skipped == counted, "a look at what training reads is no read of the run"
    loader = Loader(dataset(tmp_path, on_error="skip", max_errors=0), 4, seed=0, endless=True)
    with pytest.raises(AudioReadError, match=r"max_errors is 0, and 1 files cannot be read; the last: .*broken\.flac"):
        take_all(loader)


def test_validation_goes_on_without_a_file_that_breaks_later(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write(tmp_path / "a.wav", 300)
    write(tmp_path / "b.wav", 300)
    data = dataset(tmp_path, phase="val", val_fraction=1.0, on_error="skip")
    (tmp_path / "a.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:-400])
    loader = Loader(data, 4, seed=0, endless=False)
    with caplog.at_level(logging.WARNING):
        first, second = loader.next(), loader.next()
    assert [Path(path).name for path in (*first["path"], *second["path"])] == ["b.wav"] * 3
    assert caplog.text.count("a.wav: truncated") == 1
    failing = Loader(dataset(tmp_path / "b.wav", phase="val", val_fraction=1.0), 4, seed=0, endless=False)
    write(tmp_path / "b.wav", 200)
    with pytest.raises(AudioReadError, match=r"b\.wav: has changed"):
        failing.next()


def test_a_file_that_cannot_be_hashed_is_skipped_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("a.wav", "b.wav"):
        write(tmp_path / "music" / name, 500)
    hashed = IndexEntry.hashed

    def refuse(file: IndexEntry) -> str:
        if file.path.name == "a.wav":
            raise AudioReadError(f"{file.path}: cannot be read: Permission denied")
        return hashed(file)

    monkeypatch.setattr(IndexEntry, "hashed", refuse)
    options = {"cache": "all", "cache_folder": tmp_path / "cache"}
    with pytest.raises(AudioReadError, match=r"a\.wav: cannot be read: Permission denied"):
        dataset(tmp_path / "music", **options)
    data = dataset(tmp_path / "music", on_error="skip", **options)
    assert [recording.file.relative for recording in data.recordings] == ["b.wav"]
    assert data.num_errors == 1


def test_hashes_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "music" / "a.wav", 500)
    options = {"cache": "all", "cache_folder": tmp_path / "cache", "index": tmp_path / "index.jsonl"}
    dataset(tmp_path / "music", **options)
    monkeypatch.setattr(IndexEntry, "hashed", lambda file: pytest.fail(f"{file.path} is hashed again"))
    dataset(tmp_path / "music", **options)


def test_audio_that_was_replaced_is_not_taken_for_the_old(tmp_path: Path):
    write(tmp_path / "a.wav", 500)
    data = dataset(tmp_path)
    data.item(0, rng())
    write(tmp_path / "a.wav", 500, seed=1)
    os.utime(tmp_path / "a.wav", ns=(1, 1))
    with pytest.raises(AudioReadError, match=r"a\.wav: has changed since it was scanned: it was written again"):
        data.item(0, rng())


def test_val_seconds_takes_some_of_many_files(tmp_path: Path):
    for number in range(40):
        write(tmp_path / f"{number:02}.wav", 1000)
    data = dataset(tmp_path, phase="val", val_fraction=1.0, val_seconds=1.0)
    assert data.scored_seconds() == pytest.approx(1.0)
    assert len(data) == 80
    files = [data.item(index, rng())["path"] for index in range(80)]
    assert len(set(files)) == 40
    few = dataset(tmp_path, phase="val", val_fraction=1.0, val_seconds=0.1, chunk_frames=800)
    assert few.scored_seconds() == pytest.approx(0.1)
    assert len(few) == 1
    assert len(list(few.scored_audio())) == 1
    some = dataset(tmp_path, phase="val", val_fraction=1.0, val_seconds=1.0, chunk_frames=800)
    assert [Path(some.item(index, rng())["path"]).name for index in range(len(some))] == [
        "03.wav", "07.wav", "11.wav", "15.wav", "19.wav", "23.wav", "27.wav", "31.wav", "35.wav", "39.wav",
    ]  # fmt: skip
    assert any("validates on the middle of 10 of 40 files, 1 of 4 seconds" in line for line in some.report())


def test_validation_leaves_broken_files_out_from_the_start(tmp_path: Path):
    write(tmp_path / "broken.flac", 40_000)
    whole = write(tmp_path / "whole.flac", 40_000, seed=1)
    break_in_the_middle(tmp_path / "broken.flac")
    data = dataset(tmp_path, phase="val", val_fraction=1.0, on_error="skip")
    assert any("left out" in line and "broken.flac" in line for line in data.report())
    np.testing.assert_array_equal(np.concatenate([data.item(i, rng())["wav"] for i in range(len(data))], 1), whole)


def test_nothing_readable_is_an_error(tmp_path: Path):
    write(tmp_path / "broken.flac", 40_000)
    break_in_the_middle(tmp_path / "broken.flac")
    with pytest.raises(AudioReadError, match="none of the 1 files for phase 'val' can be read"):
        dataset(tmp_path, phase="val", val_fraction=1.0, on_error="skip")


def test_interval_keeps_the_middle_for_validation_and_no_window_crosses_the_border(tmp_path: Path):
    pcm = {name: write(tmp_path / name, frames) for name, frames in (("a.wav", 2000), ("b.wav", 1000))}
    options = {"split": "interval", "val_fraction": 0.3, "context_frames": 50}
    val = dataset(tmp_path, phase="val", **options)
    assert [(s.start_frame, s.num_frames) for s in val.segments] == [(700, 600), (350, 300)]
    first = val.item(0, rng())
    assert first["start_frame"] == 700
    assert not first["wav"][:, :50].any(), "context would be training audio"
    np.testing.assert_array_equal(first["wav"][:, 50:], pcm["a.wav"][:, 700:800])
    train = dataset(tmp_path, **options)
    for seed in range(200):
        item = train.item(0, rng(seed))
        start, length = item["start_frame"], len(pcm[Path(item["path"]).name][0])
        held = range(round(0.35 * length), round(0.65 * length))
        assert start + 100 <= held.start or start >= held.stop
        if held.stop <= start < held.stop + 50:
            assert not item["wav"][:, : held.stop + 50 - start].any(), "context ends at the border"
    assert train.fingerprint() != val.fingerprint()


def test_one_yaml_at_several_rates(tmp_path: Path):
    write(tmp_path / "a.wav", 44_100, rate=44_100)
    write(tmp_path / "b.wav", 16_000, rate=16_000)
    for rate in (8000, 16_000, 44_100):
        data = dataset(tmp_path, sample_rate=rate, cache_folder=tmp_path / "cache")
        assert [r.num_frames for r in data.recordings] == [
            num_resampled(44_100, 44_100, rate), num_resampled(16_000, 16_000, rate),
        ]  # fmt: skip
        assert data.item(0, rng())["sample_rate"] == rate
    cached = list((tmp_path / "cache").rglob("*"))
    dataset(tmp_path, sample_rate=8000, cache_folder=tmp_path / "cache")
    assert list((tmp_path / "cache").rglob("*")) == cached, "built once, several rates beside each other"


def test_a_lossy_file_reads_the_same_from_the_middle_as_from_the_start(tmp_path: Path):
    tone = np.sin(np.arange(60_000) * 0.05)[:, None] * [0.4, 0.3]
    soundfile.write(tmp_path / "a.mp3", tone, 44_100)
    data = dataset(tmp_path, phase="val", val_fraction=1.0, cache_folder=tmp_path / "cache")
    whole = np.concatenate([data.item(index, rng())["wav"] for index in range(len(data))], 1)
    backwards = [data.item(index, rng())["wav"] for index in reversed(range(len(data)))][::-1]
    np.testing.assert_array_equal(np.concatenate(backwards, 1), whole)
    assert 0.39 < np.abs(whole[0] / 32768).max() < 0.42


def test_lossless_audio_that_cannot_be_sought_is_decoded_once(tmp_path: Path):
    pcm = write(tmp_path / "plain.wav", 40_000)
    (tmp_path / "music").mkdir()
    write_coded(tmp_path / "music" / "a.mka", "flac", pcm, sample_rate_hz=8000, container="matroska")
    data = dataset(tmp_path / "music", phase="val", val_fraction=1.0, cache_folder=tmp_path / "cache")
    assert data.recordings[0].cached is not None
    np.testing.assert_array_equal(np.concatenate([data.item(i, rng())["wav"] for i in range(len(data))], 1), pcm)


def test_the_cache_gives_the_same_samples_as_the_files(tmp_path: Path):
    write(tmp_path / "music" / "a.wav", 3000)
    write(tmp_path / "music" / "b.flac", 3000)
    plain = dataset(tmp_path / "music")
    cached = dataset(tmp_path / "music", cache="all", cache_folder=tmp_path / "cache")
    for seed in range(20):
        np.testing.assert_array_equal(plain.item(0, rng(seed))["wav"], cached.item(0, rng(seed))["wav"])
    assert plain.fingerprint() == cached.fingerprint()


def test_floats_only_where_a_depth_is_given(tmp_path: Path):
    values = np.array([[0.5, -1.0], [0.25, 0.999]] * 100)
    soundfile.write(tmp_path / "a.wav", values, 8000, subtype="DOUBLE")
    with pytest.raises(AudioReadError, match="float_bits"):
        dataset(tmp_path)
    item = dataset(tmp_path, float_bits=24, bits=24).item(0, rng())
    assert set(np.unique(item["wav"])) == {2**22, -(2**23), 2**21, round(0.999 * 2**23)}


def test_a_file_that_shrinks_under_an_open_reader_is_named(tmp_path: Path):
    path = tmp_path / "a.wav"
    write(path, 4000)
    data = dataset(tmp_path)
    data.item(0, rng())
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(AudioReadError, match=r"a\.wav: truncated"):
        data.item(0, rng())
    write(path, 300)
    with pytest.raises(AudioReadError, match=r"a\.wav: has changed: was 4000 frames.* is 300"):
        data.item(0, rng())


def test_open_files_do_not_cross_into_other_processes(tmp_path: Path):
    write(tmp_path / "a.wav", 4000)
    data = dataset(tmp_path)
    first = data.item(0, rng(5))["wav"]
    copy = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(copy.item(0, rng(5))["wav"], first)
    loader = Loader(data, 2, seed=0, endless=True, num_workers=2)
    here = Loader(data, 2, seed=0, endless=True)
    for _ in range(6):
        np.testing.assert_array_equal(loader.next()["wav"], here.next()["wav"])
    loader.close()


def test_more_files_than_are_kept_open(tmp_path: Path):
    pcm = [write(tmp_path / f"{number:03}.wav", 120 + number, channels=1) for number in range(80)]
    data = MonoChunkDataset(path=tmp_path, phase="val", val_fraction=1.0, chunk_frames=120)
    open_before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    for index in range(80):
        np.testing.assert_array_equal(data.item(index, rng())["wav"], pcm[index][:, :120])
    if open_before:
        assert len(os.listdir("/proc/self/fd")) - open_before <= 2 * 64


def test_each_channel_stands_for_itself(tmp_path: Path):
    pcm = write(tmp_path / "a.wav", 250, channels=3)
    data = MonoChunkDataset(path=tmp_path, phase="val", val_fraction=1.0, chunk_frames=100)
    assert len(data) == 6
    for channel in range(3):
        (item, _) = (data.item(2 * channel + part, rng()) for part in range(2))
        np.testing.assert_array_equal(item["wav"], pcm[channel : channel + 1, :100])


def test_the_index_remembers_an_unchanged_folder(tmp_path: Path):
    write(tmp_path / "music" / "a.wav", 500)
    index = tmp_path / "index.jsonl"
    first = dataset(tmp_path / "music", index=index)
    assert index.is_file()
    assert dataset(tmp_path / "music", index=index).fingerprint() == first.fingerprint()
    assert dataset(index).fingerprint()["frames"] == 500, "an index stands for its files"


def test_a_dataset_of_ones_own_has_all_options(tmp_path: Path):
    class HalvedChunkDataset(ChunkDataset, abstract=True):
        """Chunks at half the level."""

        num_channels = 2

        def finish(self, item: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
            return {**item, "wav": item["wav"] // 2}

    pcm = write(tmp_path / "a.wav", 100)
    data = HalvedChunkDataset(path=tmp_path, chunk_frames=100, val_fraction=0.0, bits=16)
    np.testing.assert_array_equal(data.item(0, rng())["wav"], pcm // 2)
