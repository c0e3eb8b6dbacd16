"""FLAC and order-0 entropy: lossless, near what is known of known signals, and clear about bad input."""

import builtins
import io

import numpy as np
import pytest
import soundfile

from codes.compression import baselines


def noise(bits: int, num_channels: int = 2, num_frames: int = 20_000) -> np.ndarray:
    limit = 1 << (bits - 1)
    return np.random.default_rng(0).integers(-limit, limit, (num_channels, num_frames))


def walk(bits: int, num_channels: int) -> np.ndarray:
    steps = np.random.default_rng(1).integers(-3, 4, (num_channels, 20_000))
    return np.clip(np.cumsum(steps, 1), -(1 << (bits - 1)), (1 << (bits - 1)) - 1)


def decode(stream: bytes, bits: int) -> np.ndarray:
    pcm, _ = soundfile.read(io.BytesIO(stream), dtype="int32", always_2d=True)
    return pcm.T >> (32 - bits)


@pytest.mark.parametrize("bits", [8, 12, 16, 20, 24])
@pytest.mark.parametrize("num_channels", [1, 2, 3, 6])
def test_every_stream_is_lossless(bits: int, num_channels: int):
    for pcm in (walk(bits, num_channels), noise(bits, num_channels, 5000)):
        streams = baselines.flac_streams(pcm, bits, 44_100)
        assert len(streams) == (1 if bits == 8 else 3 if num_channels == 2 else 2)
        for stream in streams:
            np.testing.assert_array_equal(decode(stream, bits), pcm)


@pytest.mark.parametrize("bits", [8, 16, 24])
def test_noise_costs_its_bits_and_silence_next_to_nothing(bits: int):
    pcm = noise(bits)
    assert bits <= baselines.flac_bits(pcm, bits, 44_100) / pcm.size < bits + 0.05
    assert baselines.flac_bits(np.zeros_like(pcm), bits, 44_100) / pcm.size < 0.05


def test_prediction_pays_on_a_tone():
    tone = np.rint(20_000 * np.sin(np.arange(44_100) * 0.05)).astype(np.int16)
    assert baselines.flac_bits(np.stack([tone, tone]), 16, 44_100) / (2 * tone.size) < 2.0


def test_takes_the_smallest_stream_without_metadata():
    pcm = walk(16, 2)
    streams = baselines.flac_streams(pcm, 16, 44_100)
    sizes = [len(baselines.audio_frames(stream)) for stream in streams]
    assert baselines.flac_bits(pcm, 16, 44_100) == 8 * min(sizes)
    for stream, size in zip(streams, sizes, strict=True):
        frames = stream[len(stream) - size :]
        assert frames[0] == 0xFF, "a frame starts with its sync code, 14 ones"
        assert frames[1] >> 2 == 0b111110
        assert size < len(stream)


def test_without_av_libflac_alone_and_said(monkeypatch: pytest.MonkeyPatch):
    assert "FFmpeg level 12" in baselines.flac_label(16)
    assert "FFmpeg" not in baselines.flac_label(8)
    real_import = builtins.__import__

    def no_av(name: str, *arguments: object, **options: object) -> object:
        if name == "av":
            raise ImportError("No module named 'av'")
        return real_import(name, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", no_av)
    assert len(baselines.flac_streams(walk(16, 2), 16, 44_100)) == 1
    assert "av is not installed" in baselines.flac_label(16)


def test_order0_of_known_distributions():
    assert baselines.order0_bits_per_sample([np.zeros((2, 9), np.int16)], 16) == 0.0
    assert baselines.order0_bits_per_sample([np.array([[0, 1]]), np.array([[-1], [-2]])], 2) == pytest.approx(2.0)
    assert baselines.order0_bits_per_sample([np.array([[5, 5, 5, -7]])], 24) == pytest.approx(0.8112781)
    uniform = np.arange(-128, 128, dtype=np.int16).repeat(4).reshape(2, -1)
    assert baselines.order0_bits_per_sample([uniform], 8) == pytest.approx(8.0)


def test_compare_adds_up_over_files():
    files = [("a", walk(16, 2), 16, 44_100), ("b", noise(16, 2, 4000), 16, 22_050)]
    both = baselines.compare(iter(files), 16)
    assert both.num_samples == 48_000
    total = sum(baselines.flac_bits(pcm, bits, rate) for _, pcm, bits, rate in files)
    assert both.flac_bits_per_sample == total / 48_000
    assert both.order0_bits_per_sample == baselines.order0_bits_per_sample([pcm for _, pcm, _, _ in files], 16)
    assert both.flac_label == baselines.flac_label(16)


def test_bad_input():
    with pytest.raises(ValueError, match=r"samples from 0 to 128 are not of 8 bits \(-128 to 127\)"):
        baselines.flac_bits(np.array([[0, 128]]), 8, 44_100)
    with pytest.raises(ValueError, match="PCM must be integers, got float64"):
        baselines.flac_bits(np.zeros((2, 4)), 16, 44_100)
    with pytest.raises(ValueError, match=r"got \(4,\)"):
        baselines.flac_bits(np.zeros(4, np.int16), 16, 44_100)
    with pytest.raises(ValueError, match="bit depths from 1 to 24, got 32"):
        baselines.order0_bits_per_sample([], 32)
    with pytest.raises(ValueError, match="the entropy of nothing"):
        baselines.order0_bits_per_sample([], 16)
    with pytest.raises(ValueError, match="no audio to compare with"):
        baselines.compare([], 16)
    with pytest.raises(ValueError, match=r"x\.wav: is given with 24 bits, the comparison is at 16"):
        baselines.compare([("x.wav", noise(24), 24, 44_100)], 16)
