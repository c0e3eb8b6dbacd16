"""16-bit WAV read straight from the file: the same samples as the reader gives, and the same care for broken files."""

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codes.data.audio.formats import plain_wav
from codes.data.audio.formats.plain_wav import PlainWav, new_scratch, open_plain_wav
from codes.data.audio.reader import AudioFile, AudioReadError
from codes.data.audio.stereo_chunk import StereoChunkDataset

pytestmark = pytest.mark.skipif(not hasattr(os, "preadv"), reason="this system has no preadv")


def noise(num_frames: int, channels: int) -> np.ndarray:
    """Full-scale noise, both limits among it: (C, T) int16."""
    pcm = np.random.default_rng([num_frames, channels]).integers(-(2**15), 2**15, (channels, num_frames))
    pcm[:, 0], pcm[:, -1] = -(2**15), 2**15 - 1
    return pcm.astype(np.int16)


@pytest.fixture
def opened() -> Iterator[Callable[[Path], PlainWav | None]]:
    """Open a file as `open_plain_wav` does; it is closed when the test is over."""
    made: list[PlainWav] = []

    def make(path: Path) -> PlainWav | None:
        with AudioFile(path) as audio:
            plain = open_plain_wav(audio)
        if plain is not None:
            made.append(plain)
        return plain

    yield make
    for plain in made:
        plain.close()


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
@pytest.mark.parametrize("container", ["WAV", "WAVEX"])
def test_reads_what_was_written(tmp_path: Path, opened: Callable, channels: int, container: str) -> None:
    pcm = noise(3001, channels)
    soundfile.write(tmp_path / "a.wav", pcm.T, 44100, subtype="PCM_16", format=container)
    plain = opened(tmp_path / "a.wav")
    assert plain is not None
    for start, num_frames in ((0, 3001), (0, 1), (3000, 1), (1, 2999), (1234, 777), (5, 0)):
        read = plain.read(start, num_frames, new_scratch())
        assert read.dtype == np.int16
        assert read.flags.c_contiguous
        np.testing.assert_array_equal(read, pcm[:, start : start + num_frames])


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_long_reads_go_in_parts(tmp_path: Path, opened: Callable, channels: int) -> None:
    pcm = noise(5000, channels)
    soundfile.write(tmp_path / "a.wav", pcm.T, 8000, subtype="PCM_16")
    plain = opened(tmp_path / "a.wav")
    np.testing.assert_array_equal(plain.read(3, 4990, np.empty(1000, np.int16)), pcm[:, 3:4993])


def test_what_was_read_is_not_written_over(tmp_path: Path, opened: Callable) -> None:
    soundfile.write(tmp_path / "a.wav", noise(500, 1).T, 8000, subtype="PCM_16")
    plain, scratch = opened(tmp_path / "a.wav"), new_scratch()
    first = plain.read(0, 100, scratch)
    kept = first.copy()
    plain.read(200, 100, scratch)
    np.testing.assert_array_equal(first, kept)


def test_chunks_before_the_samples_are_stepped_over(tmp_path: Path, opened: Callable) -> None:
    """Of odd length too, which is padded, and long ones."""
    pcm = noise(400, 2)
    soundfile.write(tmp_path / "a.wav", pcm.T, 8000, subtype="PCM_16")
    content = (tmp_path / "a.wav").read_bytes()
    for name, num_bytes in (("odd.wav", 33), ("far.wav", 5000)):
        extra = b"note" + struct.pack("<I", num_bytes) + bytes(num_bytes + num_bytes % 2)
        size = struct.pack("<I", len(content) - 8 + len(extra))
        (tmp_path / name).write_bytes(b"RIFF" + size + content[8:36] + extra + content[36:])
        np.testing.assert_array_equal(opened(tmp_path / name).read(0, 400, new_scratch()), pcm)


@pytest.mark.parametrize(
    ("name", "subtype", "endian"),
    [
        ("a.flac", "PCM_16", "FILE"),
        ("a.wav", "PCM_24", "FILE"),
        ("a.wav", "PCM_U8", "FILE"),
        ("a.wav", "PCM_16", "BIG"),
        ("a.aiff", "PCM_16", "FILE"),
    ],
)
def test_other_files_are_left_to_the_reader(
    tmp_path: Path, opened: Callable, name: str, subtype: str, endian: str
) -> None:
    soundfile.write(tmp_path / name, noise(300, 2).T, 8000, subtype=subtype, endian=endian)
    assert opened(tmp_path / name) is None


def test_what_reads_differently_is_left_to_the_reader(
    tmp_path: Path, opened: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "a.wav", noise(300, 2).T, 8000, subtype="PCM_16")
    monkeypatch.setattr(plain_wav, "samples_start", lambda raw: 40)
    assert opened(tmp_path / "a.wav") is None


def test_a_file_that_shrinks_is_named(tmp_path: Path, opened: Callable) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(300, 2).T, 8000, subtype="PCM_16")
    plain = opened(path)
    os.truncate(path, 44 + 4 * 100)
    np.testing.assert_array_equal(plain.read(0, 100, new_scratch()), noise(300, 2)[:, :100])
    with pytest.raises(AudioReadError, match=r"a\.wav: truncated since it was opened: it ends at byte 444"):
        plain.read(50, 100, new_scratch())


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, opened: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(300, 2).T, 8000, subtype="PCM_16")
    plain = opened(path)

    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(AudioReadError, match=r"a\.wav: broken at or after frame 7: Input/output error"):
        plain.read(7, 10, new_scratch())


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(300, 2).T, 8000, subtype="PCM_16")
    with AudioFile(path) as audio:
        path.unlink()
        with pytest.raises(AudioReadError, match=r"a\.wav: cannot be opened: No such file"):
            open_plain_wav(audio)


def test_a_dataset_reads_the_same_either_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        soundfile.write(tmp_path / f"{number}.wav", noise(2000 + number, 2).T, 8000, subtype="PCM_16")
    straight = StereoChunkDataset(path=tmp_path, chunk_frames=200, val_fraction=0.0)
    through_the_reader = StereoChunkDataset(path=tmp_path, chunk_frames=200, val_fraction=0.0)
    items = [straight.item(0, np.random.default_rng(seed)) for seed in range(30)]
    monkeypatch.setattr("codes.data.audio.recordings.open_plain_wav", lambda audio: None)
    for seed, item in enumerate(items):
        other = through_the_reader.item(0, np.random.default_rng(seed))
        assert (item["path"], item["start_frame"]) == (other["path"], other["start_frame"])
        np.testing.assert_array_equal(item["wav"], other["wav"])
