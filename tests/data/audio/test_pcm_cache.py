"""The cache of decoded PCM: exact, built once, whole or not at all, and read from any thread and process."""

import hashlib
import logging
import mmap
import multiprocessing
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from codes import registry
from codes.convert import Component
from codes.data.audio import pcm_cache, pcm_entry
from codes.data.audio.pcm_cache import CachedPcm, PcmCache, PcmCacheError, PcmEntryError, PcmRequest
from codes.data.audio.reader import AudioInfo, AudioReadError, probe, read
from codes.data.audio.resample import resample, resample_counted
from codes.yaml_source import Mark, OptionError

ROOT = Path(__file__).resolve().parents[3]
NUM_FRAMES = 50_000


def write(path: Path, bits: int = 16, num_channels: int = 2, num_frames: int = NUM_FRAMES, seed: int = 0) -> np.ndarray:
    """Write noise of half scale (with the extremes) in the format that the name says; (C, T)."""
    limit = 1 << (bits - 2)
    pcm = np.random.default_rng(seed).integers(-limit, limit, (num_channels, num_frames))
    pcm[:, 0], pcm[:, 1] = -2 * limit, 2 * limit - 1
    subtype = "PCM_U8" if (bits, path.suffix) == (8, ".wav") else f"PCM_{'S8' if bits == 8 else bits}"
    soundfile.write(path, (pcm << (32 - bits)).astype(np.int32).T, 44_100, subtype=subtype)
    return pcm


def request(path: Path, **how: Any) -> PcmRequest:
    reading = {name: how[name] for name in ("stream", "float_bits") if name in how}
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return PcmRequest(path=path, content_hash=digest, info=probe(path, **reading), **how)


def build(cache: PcmCache, *requests: PcmRequest, **how: Any) -> list[CachedPcm]:
    built = cache.build(requests, **how)
    assert all(isinstance(entry, CachedPcm) for entry in built)
    return [entry for entry in built if isinstance(entry, CachedPcm)]


def files_in(cache: PcmCache) -> list[Path]:
    return sorted(path for path in cache.root.rglob("*") if path.is_file())


@pytest.fixture
def cache(tmp_path: Path) -> PcmCache:
    return PcmCache(tmp_path / "cache")


@pytest.fixture
def entry(tmp_path: Path, cache: PcmCache) -> CachedPcm:
    """An entry of 16-bit stereo from a.wav."""
    write(tmp_path / "a.wav")
    return build(cache, request(tmp_path / "a.wav"))[0]


@pytest.mark.parametrize(
    ("name", "bits", "num_channels"),
    [("a.wav", 8, 2), ("a.wav", 16, 1), ("a.wav", 24, 6), ("a.wav", 32, 2), ("a.flac", 16, 2), ("a.flac", 24, 2)],
)
def test_every_depth_exactly(tmp_path: Path, cache: PcmCache, name: str, bits: int, num_channels: int):
    pcm = write(tmp_path / name, bits, num_channels, num_frames=150_001)  # more than two blocks
    (cached,) = build(cache, request(tmp_path / name))
    assert (cached.num_frames, cached.num_channels, cached.bits, cached.sample_rate_hz) == (
        *(150_001, num_channels, bits, 44_100),
    )
    assert cached.num_clipped == 0
    assert cached.path.stat().st_size == 4096 + pcm.size * (2 if bits <= 16 else 4) == cached.num_bytes
    whole = cached.read()
    assert whole.dtype == (np.int16 if bits <= 16 else np.int32)
    np.testing.assert_array_equal(whole, pcm)
    for start, count in ((0, 1), (65_535, 3), (150_000, 1), (70_001, 60_000), (150_001, 0)):
        np.testing.assert_array_equal(cached.read(start, count), pcm[:, start : start + count])
    np.testing.assert_array_equal(cached.read(149_990), pcm[:, 149_990:])
    whole[:] = 0
    np.testing.assert_array_equal(cached.read(0, 100), pcm[:, :100], "what is read is the reader's own")


def test_lossy_and_floating_point_are_what_the_reader_gives(tmp_path: Path, cache: PcmCache):
    wave = np.sin(np.arange(44_100) / 20)[:, None].repeat(2, 1) / 2
    soundfile.write(tmp_path / "a.mp3", wave, 44_100)
    soundfile.write(tmp_path / "a.wav", wave, 44_100, subtype="FLOAT")
    lossy, sixteen, twenty_four = build(
        cache,
        request(tmp_path / "a.mp3"),
        request(tmp_path / "a.wav", float_bits=16),
        request(tmp_path / "a.wav", float_bits=24),
    )
    np.testing.assert_array_equal(lossy.read(), read(tmp_path / "a.mp3"))
    np.testing.assert_array_equal(sixteen.read(), read(tmp_path / "a.wav", float_bits=16))
    np.testing.assert_array_equal(twenty_four.read(), read(tmp_path / "a.wav", float_bits=24))
    assert (sixteen.bits, twenty_four.bits) == (16, 24)


def test_each_stream_of_a_file_has_its_entry(tmp_path: Path, cache: PcmCache):
    import av

    with av.open(str(tmp_path / "a.m4a"), "w") as container:
        for stream, hz in [(container.add_stream("alac", rate=44_100, layout="stereo"), hz) for hz in (440, 880)]:
            wave = np.rint(9000 * np.sin(2 * np.pi * hz * np.arange(8192) / 44_100)).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(wave[None].repeat(2, 0), "s16p", "stereo")
            frame.sample_rate = 44_100
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                container.mux(packet)
    built = build(cache, *(request(tmp_path / "a.m4a", stream=stream) for stream in (0, 1)))
    for stream, entry in enumerate(built):
        np.testing.assert_array_equal(entry.read(), read(tmp_path / "a.m4a", stream=stream))
    assert not np.array_equal(built[0].read(), built[1].read())


def test_several_rates_of_one_file_lie_beside_each_other(tmp_path: Path, cache: PcmCache):
    pcm = write(tmp_path / "a.wav", num_frames=100_000).astype(np.int16)
    rates = (None, 8000, 16_000, 44_100, 48_000)
    built = build(cache, *(request(tmp_path / "a.wav", sample_rate_hz=rate) for rate in rates))
    assert [entry.sample_rate_hz for entry in built] == [44_100, 8000, 16_000, 44_100, 48_000]
    assert built[0] == built[3], "the file's own rate, named or not, is one entry"
    assert len(files_in(cache)) == 4
    for entry in built:
        expected, num_clipped = resample_counted(pcm, 44_100, entry.sample_rate_hz, 16)
        np.testing.assert_array_equal(entry.read(), expected)
        assert entry.num_clipped == num_clipped


def test_clipped_samples_are_counted_and_remembered(tmp_path: Path, cache: PcmCache):
    square = np.where(np.arange(60_000) % 200 < 100, 32_767, -32_768).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", square, 44_100, subtype="PCM_16")
    wanted = request(tmp_path / "a.wav", sample_rate_hz=48_000)
    (made,) = build(cache, wanted)
    assert made.num_clipped == resample_counted(square[None], 44_100, 48_000, 16)[1] > 1000
    assert build(cache, wanted) == [made]


def test_equal_content_shares_an_entry_and_nothing_is_decoded_twice(tmp_path: Path, cache: PcmCache):
    write(tmp_path / "a.wav")
    write(tmp_path / "other.wav", seed=1)
    (tmp_path / "sub").mkdir()
    shutil.copy(tmp_path / "a.wav", tmp_path / "sub" / "copy.wav")
    wanted = [request(tmp_path / name) for name in ("other.wav", "a.wav", "sub/copy.wav", "other.wav")]
    first = build(cache, *wanted)
    assert first[1] == first[2]
    assert first[0] == first[3] != first[1]
    assert len(files_in(cache)) == 2
    for path in tmp_path.rglob("*.wav"):
        path.unlink()
    assert build(cache, *wanted) == first, "from the entries: there are no files any more"


def test_the_key_holds_all_that_decides_samples(monkeypatch: pytest.MonkeyPatch):
    info = AudioInfo(num_frames=10, sample_rate_hz=44_100, bits=16, num_channels=2, format="WAV PCM_16")
    base: dict[str, Any] = {"path": Path("a.wav"), "content_hash": "ab" * 32, "info": info}
    key = PcmRequest(**base).key
    assert len(bytes.fromhex(key)) == 32
    same = ({"path": Path("b.wav")}, {"sample_rate_hz": 44_100}, {"content_hash": "AB" * 32})
    others = ({"content_hash": "cd" * 32}, {"stream": 1}, {"float_bits": 16}, {"float_bits": 24})
    rates = ({"sample_rate_hz": 8000}, {"sample_rate_hz": 16_000})
    assert {PcmRequest(**base | change).key for change in same} == {key}
    assert len({key, *(PcmRequest(**base | change).key for change in (*others, *rates))}) == 7
    resampled = PcmRequest(**base, sample_rate_hz=8000).key
    monkeypatch.setattr("codes.data.audio.resample.VERSION", 99)
    assert PcmRequest(**base, sample_rate_hz=8000).key != resampled
    assert PcmRequest(**base).key == key, "the resampler's version does not touch what it does not make"
    monkeypatch.setattr(pcm_cache, "VERSION", 99)
    assert PcmRequest(**base).key != key


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("WAVESCHOOL_CACHE", str(tmp_path))
    assert PcmCache().root == tmp_path / "pcm"


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


def _change_byte(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def _change_version(path: Path) -> None:
    import zlib

    data = bytearray(path.read_bytes())
    data[8] += 1
    data[4092:4096] = zlib.crc32(data[:4092]).to_bytes(4, "little")
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut, rf"damaged: has {4095 + 4 * NUM_FRAMES} bytes, should have {4096 + 4 * NUM_FRAMES}"),
        (_append, "damaged: has"),
        (lambda path: os.truncate(path, 0), "is not an entry of the PCM cache"),
        (lambda path: os.truncate(path, 100), "is not an entry of the PCM cache"),
        (lambda path: _change_byte(path, 3), "is not an entry of the PCM cache"),
        (lambda path: _change_byte(path, 16), "damaged: the header's checksum is wrong"),
        (lambda path: _change_byte(path, 4000), "damaged: the header's checksum is wrong"),
        (_change_version, "is of version 2, this program reads version 1"),
    ],
)
def test_damage_is_found_when_opened_and_built_again(
    tmp_path: Path, cache: PcmCache, entry: CachedPcm, caplog: pytest.LogCaptureFixture, damage: Any, message: str
):
    damage(entry.path)
    with pytest.raises(PcmEntryError, match=message) as caught:
        entry.read(0, 10)
    assert str(entry.path) in str(caught.value)
    with caplog.at_level(logging.WARNING):
        assert build(cache, request(tmp_path / "a.wav")) == [entry]
    assert "it is built again" in caplog.text
    np.testing.assert_array_equal(entry.read(), read(tmp_path / "a.wav"))


def test_another_file_under_an_entrys_name_is_found(tmp_path: Path, cache: PcmCache, entry: CachedPcm, caplog: Any):
    write(tmp_path / "b.wav", seed=1)
    (other,) = build(cache, request(tmp_path / "b.wav"))
    shutil.copy(other.path, entry.path)
    assert build(cache, request(tmp_path / "a.wav")) == [entry]
    assert "holds other PCM than expected; it is built again" in caplog.text
    np.testing.assert_array_equal(entry.read(), read(tmp_path / "a.wav"))


def test_entry_that_is_gone_or_shrinks_while_it_is_open(tmp_path: Path, cache: PcmCache, entry: CachedPcm):
    entry.read(0, 10)
    os.truncate(entry.path, 5000)
    with pytest.raises(PcmEntryError, match="has changed its size since it was opened"):
        entry.read(NUM_FRAMES - 10, 10)
    with pytest.raises(PcmEntryError, match="damaged: has 5000 bytes"):
        entry.read(0, 10)
    assert build(cache, request(tmp_path / "a.wav")) == [entry]
    np.testing.assert_array_equal(entry.read(), read(tmp_path / "a.wav"), "the new one is read, not the old")
    cache.clear()
    fresh = CachedPcm(**{**vars(entry), "path": entry.path.with_name("gone.pcm")})
    with pytest.raises(PcmEntryError, match=r"gone\.pcm: cannot be opened: No such file or directory; build it again"):
        fresh.read(0, 1)


def test_the_system_is_told_once_of_pages_that_are_needed(entry: CachedPcm, monkeypatch: pytest.MonkeyPatch):
    """Twice within seconds would take longer than it saves; afterwards they may have been forgotten."""

    class Spy:
        def __init__(self, real: Any) -> None:
            self.real, self.told = real, []

        def __len__(self) -> int:
            return len(self.real)

        def size(self) -> int:
            return self.real.size()

        def madvise(self, advice: int, start: int, length: int) -> None:
            self.told.append((start, start + length))

    opened = pcm_entry._OpenEntry(entry.path)
    spy = opened._map = Spy(opened._map)
    opened.read(10, 100, None)
    starts = [4096 + 2 * (channel * NUM_FRAMES + 10) for channel in range(2)]
    assert spy.told == [(start - start % mmap.PAGESIZE, start + 200) for start in starts]
    opened.read(12, 50, None)
    assert len(spy.told) == 2
    monkeypatch.setattr(pcm_entry.time, "monotonic", lambda: opened._told_until + 1.0)
    opened.read(12, 50, None)
    assert len(spy.told) == 4


def test_entry_of_another_shape_than_was_promised(entry: CachedPcm):
    with pytest.raises(PcmEntryError, match=r"holds CachedPcm\(.*bits=16.*expected was .*bits=24.*; build it again"):
        CachedPcm(**{**vars(entry), "bits": 24}).read(0, 1)


@pytest.mark.parametrize(("start", "count"), [(-1, 5), (NUM_FRAMES, 1), (0, NUM_FRAMES + 1), (5, -1), (0, 2**63)])
def test_range_outside_the_entry(entry: CachedPcm, start: int, count: int):
    expected = rf"\.pcm: frames {start} to {start + count} were asked for, the entry has {NUM_FRAMES}"
    with pytest.raises(AudioReadError, match=expected):
        entry.read(start, count)


def test_changed_content_is_refused(tmp_path: Path, cache: PcmCache):
    write(tmp_path / "a.wav")
    wanted = request(tmp_path / "a.wav")
    write(tmp_path / "a.wav", seed=1)
    with pytest.raises(AudioReadError, match=r"a\.wav: has changed since it was indexed: its SHA-256 is [0-9a-f]{12}"):
        cache.build([wanted])
    (tmp_path / "a.wav").unlink()
    with pytest.raises(AudioReadError, match=r"a\.wav: cannot be read: No such file"):
        cache.build([wanted])
    assert files_in(cache) == []


@pytest.mark.parametrize(
    ("name", "value"), [("num_frames", 49_999), ("sample_rate_hz", 8000), ("bits", 24), ("num_channels", 1)]
)
def test_index_that_says_otherwise_is_refused(tmp_path: Path, cache: PcmCache, name: str, value: int):
    write(tmp_path / "a.wav")
    good = request(tmp_path / "a.wav")
    wrong = PcmRequest(**{**vars(good), "info": AudioInfo(**{**vars(good.info), name: value})})
    with pytest.raises(AudioReadError, match=r"a\.wav: has changed: was \d+ frames.*, is 50000 frames"):
        cache.build([wrong])
    assert files_in(cache) == []


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(2, 6), (2, 3)], "promises 10 frames and decodes to 9$"),
        ([], "promises 10 frames and decodes to 0$"),
        ([(2, 6), (2, 5)], "promises 10 frames and decodes to 11 or more"),
        ([(2, 6), (1, 4)], "has 1 channels from frame 6 on, promises 2"),
    ],
)
def test_other_length_or_channels_than_promised(shapes: list[tuple[int, int]], message: str):
    info = AudioInfo(num_frames=10, sample_rate_hz=44_100, bits=16, num_channels=2, format="WAV PCM_16")
    wanted = PcmRequest(path=Path("a.wav"), content_hash="", info=info)
    blocks = (np.zeros(shape, np.int16) for shape in shapes)
    with pytest.raises(AudioReadError, match=rf"^a\.wav: {message}"):
        list(pcm_cache._counted(blocks, wanted))


def test_errors_fail_or_are_collected(tmp_path: Path, cache: PcmCache):
    wanted = []
    for number in range(4):
        write(tmp_path / f"{number}.flac", seed=number)
        wanted.append(request(tmp_path / f"{number}.flac"))
    data = (tmp_path / "2.flac").read_bytes()[:-50_000]
    (tmp_path / "2.flac").write_bytes(data)
    wanted[2] = PcmRequest(**{**vars(wanted[2]), "content_hash": hashlib.sha256(data).hexdigest()})
    with pytest.raises(AudioReadError, match=r"2\.flac"):
        cache.build(wanted)
    good_0, good_1, bad, good_3 = cache.build(wanted, on_error="collect", workers=3)
    assert isinstance(bad, AudioReadError)
    assert "2.flac" in str(bad)
    for number, good in ((0, good_0), (1, good_1), (3, good_3)):
        assert isinstance(good, CachedPcm)
        np.testing.assert_array_equal(good.read(), read(tmp_path / f"{number}.flac"))
    assert len(files_in(cache)) == 3, "nothing of the broken one"
    with pytest.raises(ValueError, match=r"on_error is 'skip', allowed are \"fail\" and \"collect\""):
        cache.build(wanted, on_error="skip")  # pyright: ignore[reportArgumentType]


def test_rates_that_are_not_allowed(tmp_path: Path, cache: PcmCache):
    write(tmp_path / "a.wav")
    with pytest.raises(ValueError, match="from 44100 Hz to 0 Hz: both rates must be 1 Hz or more"):
        cache.build([request(tmp_path / "a.wav", sample_rate_hz=0)])
    assert files_in(cache) == []


def test_disk_without_room_is_known_before(tmp_path: Path, cache: PcmCache):
    write(tmp_path / "a.wav")
    good = request(tmp_path / "a.wav")
    endless = PcmRequest(**{**vars(good), "info": AudioInfo(**{**vars(good.info), "num_frames": 2**50})})
    message = (
        r"no room for the decoded PCM of 1 file in .*cache: 4,194,304\.00 GiB are needed, [\d,.]+ [GM]iB are free; "
        r"delete old entries \(.*--prune 30 --root .*cache\) or name a folder on a larger disk$"
    )
    with pytest.raises(PcmCacheError, match=message):
        cache.build([endless])


def test_disk_that_fills_up_while_writing(tmp_path: Path, cache: PcmCache):
    write(tmp_path / "a.wav")
    wanted = request(tmp_path / "a.wav")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    message = r"cannot write .*\.pcm, the decoded PCM of .*a\.wav: the disk is full: .*; 0\.2 MiB are needed"
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # Python ignores the signal: an error is left
    try:
        with pytest.raises(PcmCacheError, match=message):
            cache.build([wanted], on_error="collect")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files_in(cache) == []


def test_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "a.wav")
    (tmp_path / "file").touch()
    root = tmp_path / "file" / "pcm"
    made = rf"the PCM cache cannot be made in {root}: Not a directory; "
    with pytest.raises(PcmCacheError, match=rf"^cache_folder {root}: {made}name a folder that can be written$"):
        PcmCache(root).build([request(tmp_path / "a.wav")])
    monkeypatch.setenv("WAVESCHOOL_CACHE", str(tmp_path / "file"))
    with pytest.raises(PcmCacheError, match=rf"^{made}set the environment variable WAVESCHOOL_CACHE to a folder that"):
        PcmCache().build([request(tmp_path / "a.wav")])


def test_a_wrong_cache_folder_is_found_in_the_yaml(tmp_path: Path):
    write(tmp_path / "a.wav")
    (tmp_path / "file").touch()
    options: dict[str, Any] = {
        "path": tmp_path / "a.wav",
        "chunk_frames": 1000,
        "cache": "all",
        "cache_folder": tmp_path / "file",
    }
    options["val_fraction"] = 0.0
    mark, other = Mark("a.yml", 7, 3), Mark("a.yml", 5, 3)
    marks = dict.fromkeys(options, other) | {"cache_folder": mark}
    cls = registry.find("dataset", "stereo_chunk")
    assert cls is not None
    component = Component(kind="dataset", type="stereo_chunk", cls=cls, options=options, mark=other, marks=marks)
    with pytest.raises(OptionError) as caught:
        component.build(phase="train")
    ((place, message),) = caught.value.problems
    assert message.startswith(f"dataset stereo_chunk: cache_folder {tmp_path}")
    assert place == mark


def start_build(cache: PcmCache, path: Path, sample_rate_hz: int | None) -> subprocess.Popen[str]:
    """A process of its own that builds one entry and prints its path."""
    code = (
        "import hashlib, signal, sys; from pathlib import Path\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # what runs in the background ignores it
        "from codes.data.audio.pcm_cache import PcmCache, PcmRequest; from codes.data.audio.reader import probe\n"
        f"path = Path({str(path)!r}); digest = hashlib.sha256(path.read_bytes()).hexdigest()\n"
        "request = PcmRequest(path=path, content_hash=digest, info=probe(path), "
        f"sample_rate_hz={sample_rate_hz})\n"
        f"print(PcmCache(Path({str(cache.root)!r})).build([request])[0].path)\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for_partial(cache: PcmCache, process: subprocess.Popen[str]) -> Path:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        found = list(cache.root.glob("??/.*.partial"))
        if found:
            return found[0]
        time.sleep(0.001)
    raise AssertionError(f"no partial entry appeared: {process.communicate()}")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_interrupted_build_leaves_no_entry(tmp_path: Path, cache: PcmCache, how: signal.Signals):
    write(tmp_path / "a.wav", num_frames=4_000_000)
    process = start_build(cache, tmp_path / "a.wav", 48_001)
    partial = wait_for_partial(cache, process)
    process.send_signal(how)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert list(cache.root.glob("??/*.pcm")) == []
    if how == signal.SIGINT:
        assert "KeyboardInterrupt" in errors
        assert files_in(cache) == [], "what was begun has been deleted"
        return
    assert partial.exists(), "nobody could delete it"
    write(tmp_path / "b.wav")
    build(cache, request(tmp_path / "b.wav"))
    assert partial.exists(), "another process may still be writing it"
    os.utime(partial, (time.time() - 90_000,) * 2)
    write(tmp_path / "c.wav", seed=1)
    build(cache, request(tmp_path / "c.wav"))
    assert not partial.exists(), "abandoned for a day"


def test_two_processes_that_build_the_same_end_with_one_good_entry(tmp_path: Path, cache: PcmCache):
    pcm = write(tmp_path / "a.wav", num_frames=1_000_000).astype(np.int16)
    processes = [start_build(cache, tmp_path / "a.wav", 48_000) for _ in range(2)]
    printed = []
    for process in processes:
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        printed.append(output.strip())
    assert printed[0] == printed[1]
    assert files_in(cache) == [Path(printed[0])]
    pcm_entry.verify(Path(printed[0]))
    np.testing.assert_array_equal(pcm_entry.read_header(Path(printed[0])).pcm.read(), resample(pcm, 44_100, 48_000, 16))


@pytest.fixture
def many(tmp_path: Path, cache: PcmCache) -> list[tuple[CachedPcm, np.ndarray]]:
    """Six entries and what they hold."""
    pcm = [write(tmp_path / f"{number}.wav", seed=number) for number in range(6)]
    entries = build(cache, *(request(tmp_path / f"{number}.wav") for number in range(6)), workers=4)
    return list(zip(entries, pcm, strict=True))


def num_wrong(many: list[tuple[CachedPcm, np.ndarray]], seed: int, num_reads: int = 300) -> int:
    rng = random.Random(seed)
    wrong = 0
    for _ in range(num_reads):
        entry, pcm = rng.choice(many)
        start, count = rng.randrange(NUM_FRAMES - 500), rng.randrange(500)
        wrong += not np.array_equal(entry.read(start, count), pcm[:, start : start + count])
    return wrong


def test_threads_read_while_entries_are_closed_and_opened(many: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pcm_entry, "_MOST_OPEN", 2)
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda seed: num_wrong(many, seed), range(8))) == 0


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files as Linux lists them")
def test_few_entries_are_open_at_once(many: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pcm_entry, "_MOST_OPEN", 3)
    num_wrong(many, 0)
    names = [
        os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{n}")
    ]
    ours = {str(entry.path) for entry, _ in many}
    assert 1 <= sum(name in ours for name in names) <= 3


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_processes_read_what_their_parent_has_open(many: Any, start_method: str):
    entry, pcm = many[0]
    entry.read(0, 10)
    assert pickle.loads(pickle.dumps(entry)) == entry
    with multiprocessing.get_context(start_method).Pool(2) as pool:
        got = pool.starmap(entry.read, [(start, 100) for start in range(0, 20_000, 1000)])
    for start, chunk in zip(range(0, 20_000, 1000), got, strict=True):
        np.testing.assert_array_equal(chunk, pcm[:, start : start + 100])
    np.testing.assert_array_equal(entry.read(5, 5), pcm[:, 5:10])


def test_child_forked_while_a_thread_holds_the_lock_still_reads(many: Any):
    entry, pcm = many[0]
    entry.read(0, 1)
    with pcm_entry._open_entries()._lock:
        child = os.fork()
        if child == 0:
            os._exit(0 if np.array_equal(entry.read(7, 9), pcm[:, 7:16]) else 1)
    deadline = time.monotonic() + 20
    done, status = os.waitpid(child, os.WNOHANG)
    while not done and time.monotonic() < deadline:
        time.sleep(0.01)
        done, status = os.waitpid(child, os.WNOHANG)
    if not done:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert done, "the child waits for a lock that nobody will release"
    assert os.waitstatus_to_exitcode(status) == 0


def test_systems_without_advice(many: Any, monkeypatch: pytest.MonkeyPatch):
    for name in ("MADV_RANDOM", "MADV_WILLNEED", "MADV_SEQUENTIAL"):
        monkeypatch.delattr(mmap, name, raising=False)
    assert num_wrong(many, 0) == 0
    pcm_entry.verify(many[0][0].path)


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts bytes as Linux does")
def test_little_more_is_read_from_the_disk_than_needed(tmp_path: Path, cache: PcmCache):
    def num_bytes_read() -> int:
        return int(Path("/proc/self/io").read_text().split("read_bytes: ")[1].split()[0])

    write(tmp_path / "a.wav", num_frames=4_000_000)
    (entry,) = build(cache, request(tmp_path / "a.wav"))
    with entry.path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # out of the system's memory
    before = num_bytes_read()
    needed = sum(entry.read(start, 88_200).nbytes for start in range(100_000, 4_000_000 - 88_200, 900_001))
    assert needed > 1_000_000
    if num_bytes_read() == before:
        pytest.skip("the folder for temporary files is not on a disk")
    assert num_bytes_read() - before <= 1.1 * needed


def test_an_hour_in_bounded_memory(tmp_path: Path, cache: PcmCache):
    with soundfile.SoundFile(tmp_path / "a.wav", "w", 8000, 1, "PCM_16") as file:
        minute = np.random.default_rng(0).integers(-9000, 9000, 480_000).astype(np.int16)
        for _ in range(60):
            file.write(minute)
    wanted = [request(tmp_path / "a.wav", sample_rate_hz=rate) for rate in (8000, 4000)]
    tracemalloc.start()
    try:
        whole, half = build(cache, *wanted, workers=1)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (whole.num_frames, half.num_frames) == (3600 * 8000, 3600 * 4000)
    assert peak_bytes < 16 << 20
    np.testing.assert_array_equal(whole.read(59 * 480_000, 480_000), minute[None])


def test_progress_on_a_terminal_and_elsewhere(
    tmp_path: Path, cache: PcmCache, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    write(tmp_path / "a.wav")
    wanted = request(tmp_path / "a.wav")
    build(cache, wanted, progress=True)
    assert capsys.readouterr().err.startswith(f"decoding 1 file into {cache.root} (0.2 MiB)")
    build(cache, wanted, progress=True)
    assert capsys.readouterr().err == "", "there is nothing to do"
    cache.clear()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    build(cache, wanted, progress=True)
    shown = capsys.readouterr().err
    assert "decoding 1 file" in shown
    assert "━" in shown
    assert "204.1/204.1 kB" in shown, "the bar ends full"


@pytest.fixture
def command(cache: PcmCache, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*arguments: str) -> str:
        pcm_cache.main(["--root", str(cache.root), *arguments])
        return capsys.readouterr().out

    return run


def test_command_lists(cache: PcmCache, entry: CachedPcm, tmp_path: Path, command: Any):
    build(cache, request(tmp_path / "a.wav", sample_rate_hz=8000))
    lines = command().splitlines()
    assert len(lines) == 3
    own = next(line for line in lines if entry.path.stem[:12] in line)
    assert own.split() == [
        *(entry.path.stem[:12], "0.2", "MiB", "1.1", "s", "44100", "Hz", "16", "bits", "2", "ch", "0.0", "days"),
        str(tmp_path / "a.wav"),
    ]
    assert lines[-1] == f"2 entries, 0.2 MiB, in {cache.root}"
    _cut(entry.path)
    assert f"{entry.path}: damaged: has" in command()


def test_command_of_an_empty_cache(cache: PcmCache, command: Any):
    assert command() == f"0 entries, 0.0 MiB, in {cache.root}\n"
    assert command("--clear") == f"0 entries deleted from {cache.root}\n"
    assert not cache.root.exists()


def test_command_prunes_what_nobody_asks_for(cache: PcmCache, entry: CachedPcm, tmp_path: Path, command: Any):
    (other,) = build(cache, request(tmp_path / "a.wav", sample_rate_hz=8000))
    for path in (entry.path, other.path):
        os.utime(path, (time.time() - 10 * 86_400,) * 2)
    assert command("--prune", "11") == f"0 entries deleted from {cache.root}\n"
    build(cache, request(tmp_path / "a.wav"))  # asked for again
    assert command("--prune", "9") == f"1 entry deleted from {cache.root}\n"
    assert files_in(cache) == [entry.path]


def test_command_verifies_samples(cache: PcmCache, entry: CachedPcm, tmp_path: Path, command: Any):
    (other,) = build(cache, request(tmp_path / "a.wav", sample_rate_hz=8000))
    assert command("--verify") == f"0 damaged entries deleted from {cache.root}\n"
    _change_byte(entry.path, -1)
    said = command("--verify").splitlines()
    assert said[0] == f"{entry.path}: damaged: the samples are not those that were written (checksum); deleted"
    assert said[1] == f"1 damaged entry deleted from {cache.root}"
    assert files_in(cache) == [other.path]


def test_command_clears(cache: PcmCache, entry: CachedPcm, command: Any):
    (entry.path.parent / ".x.partial").touch()
    assert command("--clear") == f"2 entries deleted from {cache.root}\n"
    assert list(cache.root.iterdir()) == []


def test_runs_as_a_module(cache: PcmCache):
    done = subprocess.run(
        [sys.executable, "-m", "codes.data.audio.pcm_cache", "--root", str(cache.root)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("0 entries")


@pytest.mark.parametrize("days", ["-3", "nan", "inf"])
def test_an_age_that_is_none_deletes_nothing(
    cache: PcmCache, tmp_path: Path, days: str, capsys: pytest.CaptureFixture[str]
):
    write(tmp_path / "a.wav")
    cache.build([request(tmp_path / "a.wav")])
    with pytest.raises(SystemExit) as caught:
        pcm_cache.main(["--root", str(cache.root), "--prune", days])
    assert caught.value.code == 2
    assert "it must be 0 or more days" in capsys.readouterr().err
    assert len(files_in(cache)) == 1
    assert cache.prune(0) == 1
    assert list(cache.root.iterdir()) == []
