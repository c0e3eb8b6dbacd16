"""Resampling: the frequencies, levels and aliases that it leaves, against three references, and however it is cut."""

import itertools
import math
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from codes.data.audio.resample import num_resampled, resample, resample_blocks, resample_counted

RATES_HZ = (8000, 16_000, 22_050, 24_000, 44_100, 48_000, 96_000)
PAIRS = list(itertools.permutations(RATES_HZ, 2))
ODD_PAIRS = [(44_100, 48_000), (48_000, 44_100), (16_000, 8000), (8000, 24_000), (7919, 7907), (101, 997), (11, 7)]
WIDTH, ROLLOFF, BETA = 96, 0.95, 14.769656459379492


def tone(hz: float, rate_hz: int, num_frames: int, bits: int, level: float = 0.5) -> np.ndarray:
    """(1, num_frames) integers."""
    wave = np.cos(2 * np.pi * hz * np.arange(num_frames) / rate_hz + 0.3)
    return np.rint(level * 2.0 ** (bits - 1) * wave[None]).astype(np.int32)


def noise(num_channels: int, num_frames: int, bits: int = 16, seed: int = 0) -> np.ndarray:
    limit = 1 << (bits - 2)
    pcm = np.random.default_rng(seed).integers(-limit, limit, (num_channels, num_frames))
    return pcm.astype(np.int16 if bits <= 16 else np.int32)


def blocks_of(pcm: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, pcm.shape[1], size):
        yield pcm[:, start : start + size]


def peak_hz(samples: np.ndarray, rate_hz: int) -> float:
    """The loudest frequency, by a parabola through the logarithms of three bins under a Gaussian window: exact."""
    time = (np.arange(len(samples)) - len(samples) / 2) / len(samples)
    spectrum = np.log(np.abs(np.fft.rfft(samples * np.exp(-((time / 0.11) ** 2) / 2))) + 1e-300)
    at = int(spectrum[:-1].argmax())
    left, middle, right = spectrum[at - 1 : at + 2]
    return (at + (left - right) / (2 * (left - 2 * middle + right))) * rate_hz / len(samples)


def fitted(samples: np.ndarray, hz: float, rate_hz: int, first: int) -> tuple[complex, float]:
    """Amplitude and phase of a cosine of that frequency, and the rms of everything else."""
    angle = 2 * np.pi * hz * (first + np.arange(len(samples))) / rate_hz
    basis = np.stack([np.cos(angle), -np.sin(angle)], 1)
    factors = np.linalg.lstsq(basis, samples, rcond=None)[0]
    rest = samples - basis @ factors
    return complex(*factors), float(np.sqrt(np.mean(rest**2)))


def kernel(times: np.ndarray) -> np.ndarray:
    """The windowed sinc over zero crossings, in SciPy's Bessel function."""
    from scipy.special import i0

    inside = np.sqrt(np.clip(1 - (times / WIDTH) ** 2, 0, 1))
    return np.sinc(times) * np.where(np.abs(times) < WIDTH, i0(BETA * inside) / i0(BETA), 0)


def direct_sum(pcm: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """The definition: y[j] = sum_i x[i] h(i - j from / to), each output by itself, float64."""
    cutoff = min(1, to_hz / from_hz) * ROLLOFF
    frames = np.arange(pcm.shape[1])
    outputs = []
    for j in range(math.ceil(pcm.shape[1] * to_hz / from_hz)):
        whole, rest = divmod(j * from_hz, to_hz)
        outputs.append(pcm.astype(float) @ (cutoff * kernel(cutoff * (frames - whole - rest / to_hz))))
    return np.stack(outputs, 1)


@pytest.mark.parametrize(("from_hz", "to_hz"), PAIRS)
def test_a_tone_keeps_frequency_phase_and_level_and_gains_nothing(from_hz: int, to_hz: int):
    bits, first = 24, to_hz // 20
    for share in (0.05, 0.3, 0.9):  # of the lower Nyquist frequency: all within the passband
        hz = share * min(from_hz, to_hz) / 2 + 0.37
        out = resample(tone(hz, from_hz, from_hz // 2, bits), from_hz, to_hz, bits)[0, first:-first].astype(float)
        assert abs(peak_hz(out, to_hz) - hz) < 1e-3
        factor, rest = fitted(out, hz, to_hz, first)
        amplitude = 0.5 * 2.0 ** (bits - 1)
        assert abs(20 * math.log10(abs(factor) / amplitude)) < 0.01
        assert abs(np.angle(factor) - 0.3) < 1e-5
        assert rest < 1e-6 * amplitude, "images and rounding: -120 dB of the tone's rms"


@pytest.mark.parametrize(("from_hz", "to_hz"), [pair for pair in PAIRS if pair[0] > pair[1]])
def test_what_the_lower_rate_cannot_hold_is_gone(from_hz: int, to_hz: int):
    bits, first = 24, to_hz // 10
    nyquist_hz = to_hz / 2
    for hz in (nyquist_hz * 1.001, min(nyquist_hz * 1.07, 0.99 * from_hz / 2), 0.995 * from_hz / 2):
        out = resample(tone(hz, from_hz, from_hz // 2, bits), from_hz, to_hz, bits)[0, first:-first]
        assert np.abs(out).max() <= 0.5 * 2 ** (bits - 1) * 10 ** (-130 / 20) + 0.5, f"{hz} Hz: -130 dB and rounding"


def test_the_documented_response():
    """44.1 kHz to 22.05 kHz at 32 bits: the figures of the module's docstring."""
    for share, lowest_db, highest_db in ((0.915, -0.01, 0.01), (0.943, -3.1, -2.8), (1.0, -170.0, -140.0)):
        hz = share * 11_025
        out = resample(tone(hz, 44_100, 44_100, 32), 44_100, 22_050, 32)[0, 4000:-4000].astype(float)
        gain_db = 20 * math.log10(abs(fitted(out, min(hz, 22_050 - hz), 22_050, 4000)[0]) / 2.0**30 + 1e-12)
        assert lowest_db < gain_db < highest_db, (share, gain_db)


@pytest.mark.parametrize(("from_hz", "to_hz"), [*ODD_PAIRS, (96_000, 8000), (22_050, 44_101)])
def test_equals_the_direct_sum(from_hz: int, to_hz: int):
    pcm = noise(2, 700, 32)
    expected = direct_sum(pcm, from_hz, to_hz)
    got = resample(pcm, from_hz, to_hz, 32)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() < 0.5 + 1e-4, "rounding, and float64 at 2^31"


@pytest.mark.parametrize(("from_hz", "to_hz"), [(44_100, 48_000), (96_000, 44_100), (8000, 22_050), (48_000, 16_000)])
def test_equals_scipy_and_torchaudio(from_hz: int, to_hz: int):
    from scipy.signal import resample_poly
    from torchaudio.functional import resample as torchaudio_resample

    pcm = noise(2, 50_000, 24)
    got = resample(pcm, from_hz, to_hz, 24)
    divisor = math.gcd(from_hz, to_hz)
    up, down = to_hz // divisor, from_hz // divisor
    cutoff = min(1, up / down) * ROLLOFF
    half = math.ceil(WIDTH / cutoff) * up
    taps = cutoff / up * kernel(cutoff * np.arange(-half, half + 1) / up)
    by_scipy = resample_poly(pcm.astype(float), up, down, axis=1, window=taps)
    assert got.shape == by_scipy.shape
    assert np.abs(got - by_scipy).max() < 0.5 + 1e-6
    how = {"lowpass_filter_width": WIDTH, "rolloff": ROLLOFF, "resampling_method": "sinc_interp_kaiser", "beta": BETA}
    by_torch = torchaudio_resample(torch.from_numpy(pcm).double(), from_hz, to_hz, **how).numpy()
    assert got.shape == by_torch.shape
    assert np.abs(got - by_torch).max() < 1.0, "torchaudio keeps beta in float32: 1e-8 of the level"


@pytest.mark.parametrize(("from_hz", "to_hz"), ODD_PAIRS)
@pytest.mark.parametrize("num_channels", [1, 2])
def test_blocks_of_any_size_give_the_same_bits(from_hz: int, to_hz: int, num_channels: int):
    pcm = noise(num_channels, 150_001)
    whole = resample(pcm, from_hz, to_hz, 16)
    assert whole.shape == (num_channels, math.ceil(150_001 * to_hz / from_hz))
    for size in (311, 4096, 32_768, 65_537, 150_001):
        got = np.concatenate(list(resample_blocks(blocks_of(pcm, size), from_hz, to_hz, 16)), axis=1)
        np.testing.assert_array_equal(got, whole)
    ragged = np.concatenate(list(resample_blocks(np.split(pcm, [1, 1, 2, 90_000], 1), from_hz, to_hz, 16)), axis=1)
    np.testing.assert_array_equal(ragged, whole)
    alone = resample(pcm[:1], from_hz, to_hz, 16)
    np.testing.assert_array_equal(alone, whole[:1], "a channel does not depend on the others")


@pytest.mark.parametrize(("from_hz", "to_hz"), [(11_025, 44_101), (44_100, 48_001)])
def test_ratios_of_large_numbers(from_hz: int, to_hz: int):
    pcm = tone(1000.2, from_hz, from_hz, 16)
    out, num_clipped = resample_counted(pcm, from_hz, to_hz, 16)
    assert (out.shape, num_clipped) == ((1, to_hz), 0)
    assert abs(peak_hz(out[0, 2000:-2000].astype(float), to_hz) - 1000.2) < 1e-3
    cut = np.concatenate(list(resample_blocks(blocks_of(pcm.astype(np.int16), 1000), from_hz, to_hz, 16)), axis=1)
    np.testing.assert_array_equal(cut, out)


@pytest.mark.parametrize("num_frames", [0, 1, 2, 3, 1000, 99_999])
def test_length(num_frames: int):
    for from_hz, to_hz in ODD_PAIRS:
        expected = -(-num_frames * to_hz // from_hz)
        assert num_resampled(num_frames, from_hz, to_hz) == expected
        assert resample(noise(2, num_frames), from_hz, to_hz, 16).shape == (2, expected)
    assert num_resampled(2**62, 44_100, 48_000) == -(-(2**62) * 48_000 // 44_100), "in integers"


@pytest.mark.parametrize("bits", [8, 12, 16, 20, 24, 32])
def test_depth_stays_and_what_lies_beyond_is_held_and_counted(bits: int):
    limit = 1 << (bits - 1)
    square = np.where(np.arange(3000) % 300 < 150, limit - 1, -limit)[None].repeat(2, 0).astype(np.int32)
    expected = np.rint(direct_sum(square[:1], 44_100, 48_000))
    out, num_clipped = resample_counted(square, 44_100, 48_000, bits)
    assert out.dtype == (np.int16 if bits <= 16 else np.int32)
    assert (out.min(), out.max()) == (-limit, limit - 1)
    if bits <= 24:  # at 32, float64 may round a half to the other side
        np.testing.assert_array_equal(out[0], np.clip(expected[0], -limit, limit - 1))
        assert num_clipped == 2 * np.count_nonzero((expected < -limit) | (expected > limit - 1))
    assert num_clipped > 1000
    assert resample_counted(square // 2, 44_100, 48_000, bits)[1] == 0, "half scale: the overshoot has room"


def test_clipped_samples_are_counted_over_blocks():
    loud = np.where(noise(2, 100_000) > 0, 32767, -32768).astype(np.int16)
    blocks = resample_blocks(blocks_of(loud, 999), 44_100, 48_000, 16)
    assert blocks.num_clipped == 0
    list(blocks)
    assert blocks.num_clipped == resample_counted(loud, 44_100, 48_000, 16)[1] > 0


def test_equal_rates_change_nothing():
    pcm = noise(2, 1000)
    np.testing.assert_array_equal(resample(pcm, 44_100, 44_100, 16), pcm)
    assert [len(block.T) for block in resample_blocks(blocks_of(pcm, 300), 8000, 8000, 16)] == [300, 300, 300, 100]


def test_silence_and_a_constant():
    assert not resample(np.zeros((2, 5000), np.int16), 44_100, 48_000, 16).any()
    out = resample(np.full((1, 5000), 12_345, np.int16), 44_100, 48_000, 16)
    assert set(out[0, 300:-300].tolist()) == {12_345}


def test_an_hour_in_bounded_memory():
    block = noise(1, 80_000)
    list(resample_blocks([block], 8000, 4000, 16))  # the filter is kept: not counted
    tracemalloc.start()
    try:
        hour = itertools.repeat(block, 360)
        total = sum(made.shape[1] for made in resample_blocks(hour, 8000, 4000, 16))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == 3600 * 4000
    assert peak_bytes < 8 << 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 8000, 16), "cannot resample from 0 Hz to 8000 Hz: both rates must be 1 Hz or more"),
        ((8000, -1, 16), "cannot resample from 8000 Hz to -1 Hz"),
        ((8000, 16_000, 33), "cannot resample samples of 33 bits: allowed are 1 to 32"),
        ((8000, 16_000, 0), "samples of 0 bits"),
        (
            (383_999, 384_001, 16),
            r"from 383999 Hz to 384001 Hz: their ratio is 384001 / 383999 in lowest terms, which takes \d+ filter "
            r"taps, allowed are 16777216; choose a rate that shares",
        ),
    ],
)
def test_refuses(arguments: tuple[int, int, int], message: str):
    with pytest.raises(ValueError, match=message):
        resample(noise(1, 10), *arguments)


def test_refuses_blocks_that_do_not_belong_together():
    with pytest.raises(ValueError, match="has 1 channels, those before it have 2"):
        list(resample_blocks([noise(2, 10), noise(1, 10)], 8000, 16_000, 16))
    with pytest.raises(ValueError, match=r"is float64 \(2, 10\), allowed are integers \(channels, n\)"):
        list(resample_blocks([noise(2, 10) / 2], 8000, 16_000, 16))
    with pytest.raises(ValueError, match=r"is int16 \(10,\)"):
        list(resample_blocks([noise(2, 10)[0]], 8000, 16_000, 16))
