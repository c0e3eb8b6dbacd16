"""Filters against SciPy's, and reverberation: its time, its level, recorded rooms, and what is wrong with them."""

import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from scipy import signal
from torch import Tensor

from codes.trainer.injectors.augment_filter import RandomFilterInjector, ReverbInjector

RATE_HZ = 44100
IMPULSE = torch.zeros(1, 1, 16384, dtype=torch.float64).index_fill_(2, torch.tensor([0]), 1.0)


def decibels_at(injector: RandomFilterInjector, frequencies_hz: list[float]) -> list[float]:
    """Gain at some frequencies, from the response to an impulse."""
    response = injector(IMPULSE)[0, 0].numpy()
    _, gains = signal.freqz(response, worN=frequencies_hz, fs=RATE_HZ)
    return [float(20 * np.log10(abs(gain) + 1e-12)) for gain in gains]


def filtering(response: Any, cutoff_hz: Any, **options: Any) -> RandomFilterInjector:
    return RandomFilterInjector(response=response, cutoff_hz=cutoff_hz, sample_rate_hz=RATE_HZ, **options)


# --- filters


@pytest.mark.parametrize("frequency_hz", [50.0, 1000.0, 12000.0])
@pytest.mark.parametrize("kind", ["lowpass", "highpass"])
def test_low_and_high_pass_are_butterworth_filters(kind: str, frequency_hz: float) -> None:
    """Of second order, as SciPy designs them, run in time from silence on."""
    x = torch.randn(2, 2, 6000, dtype=torch.float64)
    b, a = signal.butter(2, frequency_hz, kind, fs=RATE_HZ)
    found = filtering(f"{kind[:-4]}_pass", frequency_hz, q=math.sqrt(0.5))(x)
    np.testing.assert_allclose(found.numpy(), signal.lfilter(b, a, x.numpy()), rtol=0, atol=2e-6)
    single = filtering(f"{kind[:-4]}_pass", frequency_hz)(x.float())
    np.testing.assert_allclose(single.numpy(), signal.lfilter(b, a, x.numpy()), rtol=0, atol=2e-4)


@pytest.mark.parametrize("q", [0.5, 2.0, 30.0])
@pytest.mark.parametrize("frequency_hz", [100.0, 5000.0])
def test_band_pass_and_peak_are_scipys(frequency_hz: float, q: float) -> None:
    """SciPy's peaking resonator, of the same bandwidth; a peak of g dB is the sound and (g - 1) times its band."""
    x = torch.randn(1, 2, 4000, dtype=torch.float64)
    turn = 2 * math.pi * frequency_hz / RATE_HZ
    width = 2 * math.atan(math.sin(turn) / (2 * q))  # the bilinear transform's, in radians a frame
    band = signal.lfilter(*signal.iirpeak(turn / math.pi, turn / width), x.numpy())
    np.testing.assert_allclose(filtering("band_pass", frequency_hz, q=q)(x).numpy(), band, rtol=0, atol=1e-5)
    gain = 10 ** (9 / 20)
    narrow = 2 * math.atan(math.sin(turn) / (2 * q * math.sqrt(gain)))
    band = signal.lfilter(*signal.iirpeak(turn / math.pi, turn / narrow), x.numpy())
    found = filtering("peak", frequency_hz, q=q, gain_db=9.0)(x).numpy()
    np.testing.assert_allclose(found, x.numpy() + (gain - 1) * band, rtol=0, atol=1e-4)


@pytest.mark.parametrize("response", ["low_pass", "high_pass", "band_pass"])
def test_gain_at_some_frequencies(response: str) -> None:
    """By hand: that of the analog filter, where the bilinear transform puts each frequency."""
    frequencies_hz = [250.0, 1000.0, 4000.0, 16000.0]
    ratios = [math.tan(math.pi * f / RATE_HZ) / math.tan(math.pi * 1000 / RATE_HZ) for f in frequencies_hz]
    losses = {
        "low_pass": [1 + ratio**4 for ratio in ratios],
        "high_pass": [1 + ratio**-4 for ratio in ratios],
        "band_pass": [1 + 0.5 * (ratio - 1 / ratio) ** 2 for ratio in ratios],
    }
    expected_db = [-10 * math.log10(loss) for loss in losses[response]]
    assert decibels_at(filtering(response, 1000.0), frequencies_hz) == pytest.approx(expected_db, abs=0.01)


def test_a_peak_has_its_gain_in_the_middle() -> None:
    for gain_db in (-15.0, 0.0, 12.0):
        found = decibels_at(filtering("peak", 2000.0, q=1.0, gain_db=gain_db), [20.0, 2000.0, 20000.0])
        assert found == pytest.approx([0, gain_db, 0], abs=0.05)


def test_frequencies_are_drawn_evenly_in_pitch() -> None:
    x = IMPULSE.expand(400, -1, -1)
    response = filtering("low_pass", (100.0, 6400.0))(x)[:, 0].numpy()
    gains = 20 * np.log10(np.abs(np.fft.rfft(response)))
    cutoffs = np.argmax(gains < -3.01, axis=1) * RATE_HZ / response.shape[1]
    assert 97 <= cutoffs.min() < 115
    assert 5800 < cutoffs.max() <= 6410
    assert abs(np.log2(cutoffs / 100).mean() - 3) < 0.3


def test_a_filter_does_not_wrap_around() -> None:
    """What rings at the end of the audio is cut off and does not come in at its start."""
    x = torch.zeros(1, 1, 1000)
    x[..., -10:] = 1
    assert filtering("low_pass", 20.0, q=20.0)(x)[..., :900].abs().max() < 1e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cutoff_hz": 0.0}, "cutoff_hz must be a finite number or [low, high], at least 1, got 0.0"),
        ({"cutoff_hz": (100.0, 22050.0)}, "at most 22005.9, got (100.0, 22050.0)"),
        ({"q": 0.0}, "q must be a finite number or [low, high], at least 0.1 and at most 100, got 0.0"),
        ({"gain_db": 61.0}, "gain_db must be a finite number or [low, high], at least -60 and at most 60, got 61.0"),
        ({"sample_rate_hz": 0}, "sample_rate_hz must be 1 or more, got 0"),
    ],
)
def test_options_of_a_filter_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        RandomFilterInjector(**{"response": "peak", "cutoff_hz": 100.0, "sample_rate_hz": RATE_HZ, **options})


class Dataset:
    """What `meet` looks at: recordings of some sample rate."""

    def __init__(self, sample_rate_hz: int) -> None:
        self.recordings = [SimpleNamespace(sample_rate_hz=sample_rate_hz)]


def test_the_sample_rate_is_that_of_the_dataset() -> None:
    found = RandomFilterInjector(response="peak", cutoff_hz=3000.0, gain_db=12.0)
    with pytest.raises(ValueError, match="sample_rate_hz: the dataset does not say its sample rate: give it here"):
        found(IMPULSE)
    found.meet(Dataset(8000))
    given = RandomFilterInjector(response="peak", cutoff_hz=3000.0, gain_db=12.0, sample_rate_hz=8000)
    given.meet(Dataset(RATE_HZ))  # audio that was resampled on its way has the rate that was given
    assert torch.equal(found(IMPULSE), given(IMPULSE))
    with pytest.raises(ValueError, match="the datasets have 8000 and 44100 Hz: give both one sample_rate"):
        found.meet(Dataset(RATE_HZ))
    late = RandomFilterInjector(response="peak", cutoff_hz=5000.0)
    with pytest.raises(ValueError, match="at most 3992, got"):
        late.meet(Dataset(8000))


# --- reverberation


def rt60_seconds(impulse: Tensor) -> float:
    """From the slope of Schroeder's backward integral, -5 to -35 dB (T30 of ISO 3382)."""
    energy = impulse.double().square().flip(-1).cumsum(-1).flip(-1).numpy()
    level = 10 * np.log10(energy / energy[0])
    chosen = np.flatnonzero((level <= -5) & (level >= -35))
    slope = np.polyfit(chosen / RATE_HZ, level[chosen], 1)[0]
    return -60 / slope


@pytest.mark.parametrize("seconds", [0.1, 0.5, 1.5])
def test_reverberation_dies_away_in_time(seconds: float) -> None:
    impulse = torch.zeros(4, 2, int(RATE_HZ * 1.6))
    impulse[..., 0] = 1
    found = ReverbInjector(sample_rate_hz=RATE_HZ, rt60_seconds=seconds, wet=1.0)(impulse)
    measured = [rt60_seconds(channel) for channel in found.flatten(0, 1)]
    assert measured == pytest.approx([seconds] * 8, rel=0.08)
    torch.testing.assert_close(found.square().sum(-1), torch.ones(4, 2), rtol=1e-3, atol=0)
    normal = found.flatten(0, 1) / found.flatten(0, 1).norm(dim=1, keepdim=True)
    assert (normal @ normal.T).fill_diagonal_(0).abs().max() < 0.15  # rooms and channels are all different


def test_times_are_drawn_from_the_range() -> None:
    impulse = torch.zeros(30, 1, RATE_HZ // 2)
    impulse[..., 0] = 1
    found = ReverbInjector(sample_rate_hz=RATE_HZ, rt60_seconds=(0.05, 0.4), wet=1.0)(impulse)
    measured = [rt60_seconds(channel) for channel in found[:, 0]]
    assert 0.045 < min(measured) < 0.08
    assert 0.27 < max(measured) < 0.44


def test_wet_and_dry() -> None:
    x = torch.randn(2, 2, 3000)
    for wet in (0.0, 0.25):
        injector = ReverbInjector(sample_rate_hz=RATE_HZ, rt60_seconds=0.05, wet=wet)
        injector.reseed(1)
        found = injector(x)
        injector.reseed(1)
        injector.wet = (1.0, 1.0)
        torch.testing.assert_close(found, (1 - wet) * x + wet * injector(x), rtol=0, atol=1e-5)
        assert wet > 0 or torch.equal(found, x)


def write(path: Path, samples: np.ndarray, rate_hz: int = RATE_HZ) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(str(path), samples, rate_hz, subtype="DOUBLE" if path.suffix == ".wav" else None)
    return path


def test_recorded_rooms(tmp_path: Path) -> None:
    """Each item gets one of them, at energy 1; the convolution is NumPy's."""
    rng = np.random.default_rng(0)
    rooms = [rng.normal(size=length) for length in (50, 200)]
    write(tmp_path / "a/small.wav", rooms[0])
    write(tmp_path / "large.wav", rooms[1])
    (tmp_path / "notes.txt").write_text("no sound")
    x = torch.randn(20, 2, 500, dtype=torch.float64)
    found = ReverbInjector(sample_rate_hz=RATE_HZ, wet=1.0, path=tmp_path)(x).numpy()
    used = []
    for item, result in zip(x.numpy(), found, strict=True):
        expected = [
            np.stack([np.convolve(channel, room / np.linalg.norm(room))[:500] for channel in item]) for room in rooms
        ]
        used += [number for number in range(2) if np.allclose(result, expected[number], atol=1e-10)]
    assert len(used) == 20
    assert set(used) == {0, 1}


def test_a_recorded_room_in_stereo(tmp_path: Path) -> None:
    room = np.random.default_rng(0).normal(size=(40, 2))
    path = write(tmp_path / "room.flac", room * 0.1)
    x = torch.randn(1, 2, 100)
    found = ReverbInjector(sample_rate_hz=RATE_HZ, wet=1.0, path=path)(x)[0]
    for channel in range(2):
        response = room[:, channel] / np.linalg.norm(room[:, channel])
        expected = np.convolve(x[0, channel].numpy(), response)[:100]
        np.testing.assert_allclose(found[channel].numpy(), expected, rtol=0, atol=3e-3)
    message = "expected audio of 2 channels, as the impulses have, got (1, 1, 100)"
    with pytest.raises(ValueError, match=re.escape(message)):
        ReverbInjector(sample_rate_hz=RATE_HZ, path=path)(x[:, :1])


def test_rooms_that_cannot_be_used(tmp_path: Path) -> None:
    def refused(path: Path, message: str) -> None:
        with pytest.raises(ValueError, match=re.escape(message)):
            ReverbInjector(sample_rate_hz=RATE_HZ, path=path)

    refused(tmp_path, f"path {tmp_path}: there is no impulse response (.wav, .flac, .aif, .aiff)")
    file = write(tmp_path / "slow/x.wav", np.ones(9), 8000)
    refused(file, f"path {file}: 8000 Hz, but the audio has {RATE_HZ} Hz: resample it")
    file = write(tmp_path / "silent/x.wav", np.stack([np.ones(9), np.zeros(9)], 1))
    refused(file, f"path {file}: a channel is silent")
    file = write(tmp_path / "empty/x.wav", np.zeros(0))
    refused(file, f"path {file}: a channel is silent")
    file = tmp_path / "text.wav"
    file.write_text("no sound")
    refused(file, f"path {file}: cannot be read: ")
    first, second = write(tmp_path / "two/a.wav", np.ones(9)), write(tmp_path / "two/b.wav", np.ones((9, 2)))
    refused(tmp_path / "two", f"path {second}: 2 channels, but {first} has 1")
    refused(tmp_path / "nowhere.wav", f"path {tmp_path / 'nowhere.wav'}: there is no impulse response")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"wet": (0.0, 1.5)}, "wet must be a finite number or [low, high], at least 0 and at most 1, got (0.0, 1.5)"),
        ({"rt60_seconds": 0.0}, "rt60_seconds must be a finite number or [low, high], at least 0.01 and at most 20"),
        ({"sample_rate_hz": -1}, "sample_rate_hz must be 1 or more, got -1"),
    ],
)
def test_options_of_a_reverb_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        ReverbInjector(**{"sample_rate_hz": RATE_HZ, **options})
