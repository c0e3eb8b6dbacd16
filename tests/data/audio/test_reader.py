"""Reading audio: exact integers at the file's own depth, and a clear error for every kind of broken file."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codes.data.audio.reader import AudioFile, AudioReadError, probe, read, to_bits

FORMATS = [
    *(("WAV", subtype, bits) for subtype, bits in (("PCM_U8", 8), ("PCM_16", 16), ("PCM_24", 24), ("PCM_32", 32))),
    *(("FLAC", subtype, bits) for subtype, bits in (("PCM_S8", 8), ("PCM_16", 16), ("PCM_24", 24))),
    *(("AIFF", subtype, bits) for subtype, bits in (("PCM_S8", 8), ("PCM_16", 16), ("PCM_24", 24))),
    *(("W64", "PCM_24", 24), ("RF64", "PCM_16", 16), ("AU", "PCM_24", 24), ("CAF", "PCM_24", 24)),
    *(("CAF", f"ALAC_{bits}", bits) for bits in (16, 20, 24, 32)),
]


def noise(bits: int, num_channels: int = 2, num_frames: int = 1000) -> np.ndarray:
    """Full-scale integers (C, T) int64 of that depth, the extremes among them."""
    limit = 1 << (bits - 1)
    pcm = np.random.default_rng(0).integers(-limit, limit, (num_channels, num_frames))
    pcm[:, 0], pcm[:, 1] = -limit, limit - 1
    return pcm


def write(path: Path, pcm: np.ndarray, bits: int, **how: str) -> None:
    soundfile.write(path, (pcm << (32 - bits)).astype(np.int32).T, 44_100, **how)


@pytest.mark.parametrize(("file_format", "subtype", "bits"), FORMATS)
def test_reads_every_integer_format_exactly(tmp_path: Path, file_format: str, subtype: str, bits: int):
    path = tmp_path / f"a.{file_format.lower()}"
    pcm = noise(bits)
    if "ALAC" in subtype:  # libsndfile writes broken ALAC from full-scale noise (FFmpeg cannot decode it either)
        pcm = np.rint(np.sin(np.arange(2000).reshape(2, -1) / 30) * 2.0 ** (bits - 2)).astype(np.int64)
    write(path, pcm, bits, format=file_format, subtype=subtype)
    info = probe(path)
    assert (info.num_frames, info.sample_rate_hz, info.bits, info.num_channels) == (1000, 44_100, bits, 2)
    got = read(path)
    assert got.dtype == (np.int16 if bits <= 16 else np.int32)
    np.testing.assert_array_equal(got, pcm)
    np.testing.assert_array_equal(read(path, 400, 77), pcm[:, 400:477])
    np.testing.assert_array_equal(read(path, 990), pcm[:, 990:])
    assert read(path, 1000, 0).shape == (2, 0)


@pytest.mark.parametrize("name", ["a.ogg", "a.mp3"])
def test_lossy_files_are_16_bits(tmp_path: Path, name: str):
    time = np.arange(44_100) / 44_100
    soundfile.write(tmp_path / name, np.stack([np.sin(2 * np.pi * 440 * time) / 2] * 2, 1), 44_100)
    assert probe(tmp_path / name).bits == 16
    pcm = read(tmp_path / name)
    assert pcm.dtype == np.int16
    assert 14_000 < np.abs(pcm).max() < 18_000


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_refuses_floating_point(tmp_path: Path, subtype: str):
    soundfile.write(tmp_path / "a.wav", np.zeros((10, 2)), 44_100, subtype=subtype)
    with pytest.raises(
        AudioReadError, match=rf"a\.wav: holds floating point samples \({subtype}\).*convert it.*set float_bits"
    ):
        probe(tmp_path / "a.wav")


def test_missing_empty_folder_and_not_audio(tmp_path: Path):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("no audio at all, but a few words " * 10)
    (tmp_path / "raw.raw").write_bytes(b"12345678")
    for name, message in {
        "missing.wav": "cannot be opened: No such file",
        "empty.wav": r"is empty \(0 bytes\)",
        "text.wav": "is not audio that libsndfile reads: Format not recognised",
        "raw.raw": "is not audio that libsndfile reads",
        ".": "is a folder",
    }.items():
        with pytest.raises(AudioReadError, match=message) as caught:
            probe(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value), "names the file"


def test_header_without_samples(tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", np.zeros((0, 2), np.int16), 44_100)
    with pytest.raises(AudioReadError, match="has no samples in it"):
        probe(tmp_path / "a.wav")


@pytest.mark.skipif(os.name == "nt" or (hasattr(os, "geteuid") and os.geteuid() == 0), reason="root may read all")
def test_without_permission(tmp_path: Path):
    write(tmp_path / "a.wav", noise(16), 16)
    (tmp_path / "a.wav").chmod(0)
    with pytest.raises(AudioReadError, match=r"a\.wav: cannot be opened: Permission denied"):
        probe(tmp_path / "a.wav")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="a file that exists and cannot be read, on Linux")
def test_unreadable_file_even_for_root(tmp_path: Path):
    (tmp_path / "a.wav").symlink_to("/proc/self/mem")
    with pytest.raises(AudioReadError, match=r"a\.wav: cannot be opened: Input/output error"):
        probe(tmp_path / "a.wav")


@pytest.mark.parametrize("file_format", ["WAV", "WAVEX", "AIFF", "CAF", "W64", "RF64", "AU"])
def test_truncated_file_is_found_by_its_header(tmp_path: Path, file_format: str):
    path = tmp_path / f"a.{file_format.lower()}"
    write(path, noise(24), 24, format=file_format, subtype="PCM_24")
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(AudioReadError, match=rf"{path.name}: truncated: promises \d+ .* and has \d+"):
        probe(path)


def test_truncated_flac_is_found(tmp_path: Path):
    path = tmp_path / "a.flac"
    write(path, noise(16, num_frames=20_000), 16)
    path.write_bytes(path.read_bytes()[:30_000])
    with pytest.raises(AudioReadError, match=r"a\.flac: truncated or broken at or after frame \d+"):
        probe(path)


def test_streamed_wav_of_unknown_length_is_read(tmp_path: Path):
    path = tmp_path / "a.wav"
    write(path, noise(16), 16, subtype="PCM_16")
    header = bytearray(path.read_bytes())
    at = header.index(b"data") + 4
    header[at : at + 4] = b"\xff" * 4
    path.write_bytes(header)
    np.testing.assert_array_equal(read(path), noise(16))


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "ALAC_16", "ULAW"])
def test_streamed_caf_of_unknown_length_is_read(tmp_path: Path, subtype: str):
    """A length of -1 means that the samples go on until the end."""
    path, whole = tmp_path / "a.caf", tmp_path / "whole.caf"
    for name in (path, whole):
        write(name, noise(16), 16, subtype=subtype)
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 8] = b"\xff" * 8
    path.write_bytes(content)
    assert probe(path) == probe(whole)
    np.testing.assert_array_equal(read(path), read(whole))
    np.testing.assert_array_equal(read(path, 77, 100), read(whole, 77, 100))


def test_impossible_length(tmp_path: Path):
    path = tmp_path / "a.flac"
    write(path, noise(16), 16)
    header = bytearray(path.read_bytes())
    header[21] |= 0x0F  # the 36 bits of the number of samples in STREAMINFO
    header[22:26] = b"\xff" * 4
    path.write_bytes(header)
    with pytest.raises(AudioReadError, match=r"a\.flac: says it has 68719476735 frames, which its \d+ bytes cannot"):
        probe(path)


@pytest.mark.parametrize(("start", "count"), [(990, 11), (1001, 0), (-1, 5), (0, 2**63), (5, -1)])
def test_range_outside_the_file(tmp_path: Path, start: int, count: int):
    write(tmp_path / "a.wav", noise(16), 16, subtype="PCM_16")
    expected = rf"a\.wav: frames {start} to {start + count} were asked for, the file has 1000"
    with AudioFile(tmp_path / "a.wav") as file, pytest.raises(AudioReadError, match=expected):
        file.read(start, count)


def test_to_bits_shifts():
    pcm = np.array([[-(2**23), -1, 0, 255, 256, 2**23 - 1]], np.int32)
    down = to_bits(pcm, 24, 16)
    assert down.dtype == np.int16
    assert down.tolist() == [[-32768, -1, 0, 0, 1, 32767]]
    up = to_bits(down, 16, 24)
    assert up.dtype == np.int32
    assert up.tolist() == [[-(2**23), -256, 0, 0, 256, 32767 * 256]]
    assert to_bits(down, 16, 8).tolist() == [[-128, -1, 0, 0, 0, 127]]
    np.testing.assert_array_equal(to_bits(up, 24, 16), down)
