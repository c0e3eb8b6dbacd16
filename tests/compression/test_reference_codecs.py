"""Other coders: what they write decodes to the same samples, stereo is stereo, headers are counted as headers."""

import gzip
import io
import lzma
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from codes.compression import program_codecs
from codes.compression.reference_codecs import (
    AV_CODERS,
    NotCodedError,
    av_stream,
    coders,
    container_bits,
    flac_size,
    pcm_bytes,
    png,
)


def sound(bits: int, num_channels: int, num_frames: int = 9000) -> np.ndarray:
    time, rng = np.arange(num_frames), np.random.default_rng(0)
    wave = [0.3 * np.sin(0.05 * time) + 0.01 * rng.normal(size=num_frames) for _ in range(num_channels)]
    return np.rint(np.stack(wave) * 2 ** (bits - 1)).astype(np.int32)


@pytest.mark.parametrize("name", [name for name in AV_CODERS if name != "wavpack-slow"])
@pytest.mark.parametrize("bits", [8, 12, 16, 20, 24])
@pytest.mark.parametrize("num_channels", [1, 2])
def test_ffmpegs_encoders_are_lossless(name: str, bits: int, num_channels: int):
    import av

    pcm = sound(bits, num_channels)
    if container_bits(bits) not in AV_CODERS[name].sample_formats:
        with pytest.raises(NotCodedError, match=f"takes 16, 24 bits and 1 or 2 channels, not {bits}"):
            av_stream(name, pcm, bits, 44_100)
        return
    data, audio_bytes = av_stream(name, pcm, bits, 44_100)
    assert 0.9 * len(data) < audio_bytes < len(data)
    with av.open(io.BytesIO(data)) as file:
        assert file.streams.audio[0].codec_context.sample_rate == 44_100
        frames = [frame.to_ndarray() for frame in file.decode(audio=0)]
        planar = frames[0].shape[0] == num_channels and num_channels > 1
    samples = np.concatenate(frames, 1).astype(np.int64)
    samples = samples if planar else samples.reshape(-1, num_channels).T
    depth = container_bits(bits)
    is_byte = frames[0].dtype == np.uint8
    samples = samples - 128 if is_byte else samples >> {8: 8, 16: 0, 24: 8}[depth]
    np.testing.assert_array_equal(samples[:, : pcm.shape[1]] >> (depth - bits), pcm)


def test_every_coder_gains_on_a_tone_and_knows_its_header():
    pcm = sound(16, 2)
    found = coders()
    assert {"flac", "flac-best", "wavpack", "tta", "alac", "gzip", "lzma", "png"} <= found.keys()
    assert "wavpack-slow" not in found
    sizes = {name: coder(pcm, 16, 44_100) for name, coder in found.items()}
    for name, size in sizes.items():
        assert 0 < size.header_bytes < size.total_bytes / 5, name
        assert size.total_bytes < pcm.size * 2, name
    assert sizes["flac-best"].total_bytes <= sizes["flac"].total_bytes < sizes["gzip"].total_bytes


def test_stereo_is_not_interleaved_into_one_channel():
    """A tone and its negative: as one interleaved channel they would cost far more."""
    noise = np.random.default_rng(0).normal(size=20_000)
    left = np.rint(9000 * np.sin(0.02 * np.arange(20_000)) + 3 * noise)
    pcm = np.stack([left, -left]).astype(np.int32)
    for name in ("flac", "flac-best", "wavpack", "tta", "alac"):
        coder = coders([name])[name]
        interleaved = coder(pcm.T.reshape(1, -1), 16, 44_100)
        assert coder(pcm, 16, 44_100).total_bytes < 0.8 * interleaved.total_bytes, name


def test_bytes_are_those_of_a_wav_file():
    import wave

    for bits in (8, 16, 24):
        pcm, buffer = sound(bits, 2, 100), io.BytesIO()
        with wave.open(buffer, "wb") as file:
            file.setnchannels(2)
            file.setsampwidth(bits // 8)
            file.setframerate(44_100)
            file.writeframes(pcm_bytes(pcm, bits))
        import soundfile

        buffer.seek(0)
        read, _ = soundfile.read(buffer, dtype="int32", always_2d=True)
        np.testing.assert_array_equal(read.T >> (32 - bits), pcm)
        header = program_codecs.wav_header(pcm.size * bits // 8, 2, bits, 44_100)
        assert buffer.getvalue() == header + pcm_bytes(pcm, bits)
    assert pcm_bytes(np.array([[1, -1]]), 12) == bytes([16, 0, 240, 255])


def test_gzip_lzma_and_png_are_those_of_the_bytes():
    from PIL import Image

    pcm = sound(8, 1, 2048)
    data = pcm_bytes(pcm, 8)
    found = coders(["gzip", "lzma", "png"])
    assert found["gzip"](pcm, 8, 1).total_bytes == len(gzip.compress(data, 9))
    assert found["lzma"](pcm, 8, 1).total_bytes == len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))
    picture = Image.open(io.BytesIO(png(data)))
    assert (picture.size, picture.mode) == ((64, 32), "L")
    assert picture.tobytes() == data
    prime = bytes(range(251)) * 1 + bytes(6)  # 257 bytes
    picture = Image.open(io.BytesIO(png(prime)))
    assert picture.size == (17, 16)
    assert picture.tobytes()[:257] == prime


def test_padding_of_flac_is_no_header():
    block = b"\x00" + (34).to_bytes(3, "big") + bytes(34)
    padding = b"\x81" + (8192).to_bytes(3, "big") + bytes(8192)
    size = flac_size(b"fLaC" + block + padding + b"frames")
    assert (size.total_bytes, size.header_bytes) == (48, 42)


def test_unknown_coders_are_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ValueError, match=r"sac-program \(sac is not on PATH\), oggvorbis \(there are flac, "):
        coders(["flac", "sac-program", "oggvorbis"])
    assert not [name for name in coders() if name.endswith("-program")]


def program(folder: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a shell script on PATH."""
    script = folder / name
    script.write_text(f"#!/bin/sh\n{text}\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")


@pytest.mark.skipif(os.name == "nt", reason="shell scripts")
def test_programs_get_a_wav_and_their_file_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    program(tmp_path, "sac", '[ "$1 $2" = "--encode --normal" ] && cp "$3" "$4"', monkeypatch)
    pcm = sound(16, 2, 500)
    size = coders(["sac-program"])["sac-program"](pcm, 16, 44_100)
    assert (size.total_bytes, size.header_bytes) == (44 + 2000, 44 + 4)


@pytest.mark.skipif(os.name == "nt", reason="shell scripts")
def test_programs_that_fail_are_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    program(tmp_path, "ofr", "echo no licence for you >&2; exit 3", monkeypatch)
    with pytest.raises(OSError, match=r"ofr ended with status 3 and no file: no licence for you"):
        coders(["optimfrog-program"])["optimfrog-program"](sound(16, 2, 500), 16, 44_100)
    program(tmp_path, "mac", "sleep 5", monkeypatch)
    with pytest.raises(OSError, match="took longer than 0 s"):
        program_codecs.code_with_program("monkeys-program", b"", 2, 16, 44_100, timeout_seconds=0.2)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(OSError, match="sac is not on PATH"):
        program_codecs.code_with_program("sac-program", b"", 2, 16, 44_100)
