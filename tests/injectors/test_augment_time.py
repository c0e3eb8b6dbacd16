"""Pitch shift and time stretch: frequency, level, duration, stereo, edges, and the resampling between."""

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from codes.trainer.injectors.augment_time import PitchShiftInjector, TimeStretchInjector, fast_size, read_at, stretch

RATE_HZ = 44100


def tone(frequency_hz: float, seconds: float = 0.7) -> Tensor:
    """(1, 2, T): a sine of amplitude 0.5 on the left, its cosine on the right."""
    turn = 2 * math.pi * frequency_hz * torch.arange(int(seconds * RATE_HZ), dtype=torch.float64) / RATE_HZ
    return (0.5 * torch.stack([turn.sin(), turn.cos()])[None]).float()


def frequency_of(x: Tensor) -> float:
    """Frequency in Hz of the highest peak of the spectrum, between bins by a parabola through its logarithm."""
    size = 8 * len(x)
    spectrum = np.log(np.abs(np.fft.rfft(x.double().numpy() * np.hanning(len(x)), size)) + 1e-30)
    k = int(spectrum.argmax())
    below, peak, above = spectrum[k - 1 : k + 2]
    return (k + 0.5 * (below - above) / (below - 2 * peak + above)) / size * RATE_HZ


def cents(found_hz: float, expected_hz: float) -> float:
    return 1200 * math.log2(found_hz / expected_hz)


def level_db(x: Tensor) -> float:
    """Level of a tone against one of amplitude 0.5."""
    return float(20 * torch.log10(x.square().mean().sqrt() / (0.5 / math.sqrt(2))))


def inner(x: Tensor) -> Tensor:
    """Without a window at either end."""
    return x[..., 2048:-2048]


@pytest.mark.parametrize("semitones", [-24.0, -5.0, -0.3, 0.0, 1.0, 7.0, 12.0])
@pytest.mark.parametrize("frequency_hz", [233.0, 1000.0, 4001.7])
def test_pitch_moves_by_semitones_and_length_stays(frequency_hz: float, semitones: float) -> None:
    wav = tone(frequency_hz)
    found = PitchShiftInjector(semitones=semitones)(wav)
    assert found.shape == wav.shape
    expected = frequency_hz * 2 ** (semitones / 12)
    for channel in inner(found)[0]:
        assert abs(cents(frequency_of(channel), expected)) < 0.1
        assert abs(level_db(channel)) < 0.05
    edges = found[0, 0, :300], found[0, 0, -300:]
    assert all(edge.abs().max() > 0.3 for edge in edges)  # it sounds from the first frame to the last


@pytest.mark.parametrize("rate", [0.25, 0.5, 0.8, 1.0, 1.3, 2.0, 4.0])
@pytest.mark.parametrize("frequency_hz", [233.0, 4001.7])
def test_stretching_changes_the_length_and_not_the_pitch(frequency_hz: float, rate: float) -> None:
    wav = tone(frequency_hz)
    T = wav.shape[-1]
    found = TimeStretchInjector(rate=rate, num_frames=5 * T)(wav)[0]
    assert found.shape == (2, 5 * T)
    sounding = int((found.abs() > 1e-3).any(0).nonzero().max()) + 1
    assert abs(sounding - T / rate) <= 2
    assert (found[:, sounding + 2 :] == 0).all()
    for channel in inner(found[:, :sounding]):
        assert abs(cents(frequency_of(channel), frequency_hz)) < 0.5
        assert abs(level_db(channel)) < 0.05


@pytest.mark.parametrize(
    "injector", [PitchShiftInjector(semitones=4.0), TimeStretchInjector(rate=0.8), TimeStretchInjector(rate=1.3)]
)
def test_channels_keep_together(injector: Any) -> None:
    """The right channel stays a quarter of a period ahead of the left, and a difference of level stays."""
    wav = tone(1000.0) * torch.tensor([1.0, 0.25])[:, None]
    left, right = inner(injector(wav)[0, :, :25000]).double()
    spectra = [np.fft.rfft(channel.numpy() * np.hanning(len(channel))) for channel in (left, right)]
    k = int(np.abs(spectra[0]).argmax())
    assert abs(np.angle(spectra[1][k] / spectra[0][k]) - math.pi / 2) < 0.01
    assert abs(np.abs(spectra[1][k] / spectra[0][k]) - 0.25) < 0.001


def test_opposite_channels_do_not_cancel() -> None:
    wav = tone(500.0)[:, :1] * torch.tensor([1.0, -1.0])[:, None]
    left, right = PitchShiftInjector(semitones=3.0)(wav)[0]
    torch.testing.assert_close(left, -right, rtol=0, atol=1e-4)
    assert abs(level_db(inner(left))) < 0.05


def test_two_tones_stay_two() -> None:
    """A chord: each tone at its own place and level."""
    found = inner(PitchShiftInjector(semitones=2.0)(tone(440.0) + 0.1 * tone(1234.0))[0, 0])
    spectrum = np.abs(np.fft.rfft(found.double().numpy() * np.hanning(len(found)), 1 << 18))
    bins = [round(f * 2 ** (2 / 12) / RATE_HZ * (1 << 18)) for f in (440.0, 1234.0)]
    strong, weak = (spectrum[k - 40 : k + 40].max() for k in bins)
    assert abs(20 * math.log10(weak / strong) + 20) < 0.2


@pytest.mark.parametrize("make", [lambda: PitchShiftInjector(semitones=0.0), lambda: TimeStretchInjector(rate=1.0)])
def test_no_change_changes_nothing(make: Any) -> None:
    """Whatever the sound, its edges included."""
    wav = torch.randn(2, 2, 9001) * 0.2
    torch.testing.assert_close(make()(wav), wav, rtol=0, atol=1e-5)
    pcm = (wav * 32768).round().clamp(-32768, 32767).short()
    assert torch.equal(make()(pcm), pcm)


def test_items_have_rates_of_their_own() -> None:
    wav = tone(1000.0, 0.3).expand(6, -1, -1)
    shifted = PitchShiftInjector(semitones=(-4.0, 4.0))(wav)
    found = [cents(frequency_of(item), 1000.0) / 100 for item in inner(shifted)[:, 0]]
    assert all(-4.01 < semitones < 4.01 for semitones in found)
    assert len({round(semitones, 2) for semitones in found}) == 6
    stretched = TimeStretchInjector(rate=(1.5, 3.0))(wav)
    lengths = [int(item.abs().amax(0).gt(0.01).nonzero().max()) for item in stretched]
    assert len(set(lengths)) == 6
    assert all(13230 / 3 - 3 < length < 13230 / 1.5 + 3 for length in lengths)


@pytest.mark.parametrize("num_frames", [None, 500, 3000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int16, torch.uint8])
def test_items_that_stay_are_cut_or_padded_alike(dtype: torch.dtype, num_frames: int | None) -> None:
    wav = torch.randint(0, 100, (3, 1, 1000)).to(dtype)
    found = TimeStretchInjector(rate=2.0, probability=0.0, num_frames=num_frames)(wav)
    assert found.shape == (3, 1, num_frames or 1000)
    assert torch.equal(found[..., :1000], wav[..., : found.shape[-1]])
    assert (found[..., 1000:] == (128 if dtype == torch.uint8 else 0)).all()


@pytest.mark.parametrize("frames", [1, 7, 100, 513])
def test_audio_shorter_than_a_window(frames: int) -> None:
    wav = torch.randn(2, 2, frames)
    assert PitchShiftInjector()(wav).isfinite().all()
    assert TimeStretchInjector(num_frames=50)(wav).isfinite().all()


def test_silence_stays_silent() -> None:
    assert (PitchShiftInjector()(torch.zeros(2, 2, 5000)) == 0).all()
    assert (TimeStretchInjector()(torch.zeros(2, 2, 5000)) == 0).all()


def test_reading_faster_does_not_alias() -> None:
    """A tone that would lie beyond half the sample rate is gone; one below is where it belongs."""
    two = torch.full((1,), 2.0, dtype=torch.float64)
    assert level_db(inner(read_at(tone(15000.0), two, 15000)[0, 0])) < -80
    kept = inner(read_at(tone(9000.0), two, 15000)[0, 0])
    assert abs(cents(frequency_of(kept), 18000.0)) < 0.1
    assert abs(level_db(kept)) < 0.01


def test_reading_slower_is_exact() -> None:
    """Against the sine that was sampled, up to a third of the sample rate."""
    factor = torch.tensor([0.7], dtype=torch.float64)
    for frequency_hz in (300.0, 5000.0, 14000.0):
        expected = inner(tone(frequency_hz * 0.7, 0.9)[..., :25000])
        found = inner(read_at(tone(frequency_hz, 0.9), factor, 25000))
        assert (found - expected).abs().max() < 1e-3


def test_float64_is_kept_within() -> None:
    wav = tone(1000.0).double()
    one = torch.ones(1, dtype=torch.float64)
    assert (stretch(wav, one, wav.shape[-1], 2048) - wav).abs().max() < 1e-12


@pytest.mark.parametrize("num_frames", [1, 2, 9, 17, 1000, 44100, 65537])
def test_fast_sizes(num_frames: int) -> None:
    size = fast_size(num_frames)
    assert num_frames <= size <= num_frames * 1.25 + 1
    while size % 2 == 0:
        size //= 2
    assert size in (1, 3, 5, 7)


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (TimeStretchInjector, {"rate": 0.2}, "rate must be a finite number or [low, high], at least 0.25"),
        (TimeStretchInjector, {"num_frames": 0}, "num_frames must be 1 or more, got 0"),
        (TimeStretchInjector, {"window_frames": 1022}, "window_frames must be a multiple of 4, 16 or more, got 1022"),
        (PitchShiftInjector, {"window_frames": 8}, "window_frames must be a multiple of 4, 16 or more, got 8"),
        (PitchShiftInjector, {"semitones": (0.0, 25.0)}, "semitones must be a finite number or [low, high], at"),
    ],
)
def test_options_are_checked(cls: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        cls(**options)
