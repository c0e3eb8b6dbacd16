"""The measures of the data doctor by themselves: however a signal is cut into blocks, and at their limits."""

from pathlib import Path

import numpy as np
import pytest

from codes.data.audio.doctor import diagnose
from codes.data.audio.health.diagnosis import Plan
from codes.data.audio.health.measure import measure
from codes.data.audio.health.signals import Clipping, Depth, Levels, PcmHash
from codes.data.audio.health.spectrum import Band, MeanSpectrum, find_band
from codes.data.audio.resample import resample
from codes.data.audio.splits import Split
from tests.data.audio.coded_audio import write_coded
from tests.data.audio.doctor_folders import RATE_HZ, noise, write


def clipping(pcm: np.ndarray, cuts: list[int]) -> tuple[int, int]:
    counted = Clipping(len(pcm))
    for block in np.split(pcm, cuts, axis=1):
        counted.add(block, 1)
    return counted.totals(16)


def clipped_by_hand(channel: np.ndarray) -> tuple[int, int]:
    """Runs of 3 or more at the highest and lowest value, entered from more than 2 below, and their samples."""
    runs = samples = 0
    for side in (channel.astype(int), -channel.astype(int)):
        peak, at = side.max(), 0
        while at < len(side):
            length = 0
            while at + length < len(side) and side[at + length] == peak:
                length += 1
            if length >= 3 and (side[at - 1] if at else 0) < peak - 2:
                runs, samples = runs + 1, samples + length
            at += length + 1
    return runs, samples


def clipped_sine(num_frames: int = 3000) -> np.ndarray:
    wave = 50_000 * np.sin(2 * np.pi * 700.0 * np.arange(num_frames) / RATE_HZ)
    return np.clip(np.rint(wave), -32_768, 32_767)[None].astype(np.int16)


def test_clipping_agrees_with_counting_by_hand_wherever_the_blocks_end():
    pcm = clipped_sine()
    expected = clipped_by_hand(pcm[0])
    assert expected[0] > 90
    for cut in (1, 2, 3, 20, 21, 22, 23, 24, 25, 26, 27, 2999):
        assert clipping(pcm, [cut]) == expected
    assert clipping(pcm, list(range(7, 3000, 7))) == expected
    assert clipping(pcm, list(range(1, 3000))) == expected


def test_a_higher_peak_later_undoes_what_looked_like_clipping():
    pcm = np.concatenate([np.clip(clipped_sine(), -32_500, 32_500), [[0, 32_767, 0, -32_768, 0]]], axis=1)
    assert clipping(pcm.astype(np.int16), [1000, 2000]) == (0, 0)


@pytest.mark.parametrize("hz", [3.0, 10.0, 30.0])
def test_the_round_top_of_a_slow_wave_is_no_clipping(hz: float):
    sine = np.rint(32_767 * np.sin(2 * np.pi * hz * np.arange(RATE_HZ) / RATE_HZ))[None].astype(np.int16)
    assert (sine == 32_767).sum() > 3
    assert clipping(sine, [5000]) == (0, 0)


def test_equal_channels_too_quiet_for_a_fit_are_equal_by_hash(tmp_path: Path):
    write(tmp_path / "a.wav", np.repeat(noise(num_channels=1, rms=5.0), 2, axis=0))
    assert measure(tmp_path / "a.wav").equal_channels == [(0, 1, 1.0)]


def test_rounding_noise_in_two_channels_is_not_one_signal(tmp_path: Path):
    write(tmp_path / "a.wav", noise(rms=0.3))
    assert measure(tmp_path / "a.wav").equal_channels == []


def test_silence_is_measured_across_blocks():
    levels = Levels(1, 441)
    sound, nothing = np.full((1, 4410), 5, np.int16), np.zeros((1, 4410), np.int16)
    for block in (sound, nothing, nothing, nothing, sound, nothing):
        levels.add(block)
    assert levels.silence() == (pytest.approx(4 / 6), pytest.approx(0.3))


def test_offset_must_be_there_throughout():
    constant, halves = Levels(1, 441), Levels(1, 441)
    random = np.random.default_rng(0)
    for number in range(10):
        block = random.integers(-1000, 1000, (1, 4410)).astype(np.int16)
        constant.add(block + np.int16(300))
        halves.add(block + np.int16(600 * (number % 2)))
    assert constant.offsets()[0] == pytest.approx(300, abs=10)
    assert halves.offsets()[0] == 0.0


@pytest.mark.parametrize("bits", [16, 24])
def test_depth_counts_values_and_zeros(bits: int):
    depth = Depth()
    values = np.arange(-30, 31) * 48
    for block in np.split(np.resize(values, (1, 6100)), [100, 3000], axis=1):
        depth.add(block.astype(np.int16 if bits == 16 else np.int32))
    assert (depth.step, depth.num_values, depth.grid_step()) == (16, 61, 48)


def test_hash_does_not_depend_on_blocks_nor_on_depth():
    pcm = noise()
    hashes = []
    for bits, cuts in ((16, [10_000]), (24, [1, 2, 30_000])):
        taken = PcmHash(2, bits)
        for block in np.split(pcm.astype(np.int32) << (bits - 16), cuts, axis=1):
            taken.add(block)
        hashes.append(taken.channels())
    assert hashes[0] == hashes[1]
    assert hashes[0][0] != hashes[0][1]


def test_spectrum_is_that_of_the_whole_and_calibrated():
    pcm = noise(num_frames=200_000)
    whole, cut = MeanSpectrum(16), MeanSpectrum(16)
    whole.add(pcm)
    for block in np.split(pcm, [1000, 5000, 77_777], axis=1):
        cut.add(block)
    power, again = whole.power(), cut.power()
    assert power is not None
    assert again is not None
    np.testing.assert_allclose(power, again, rtol=1e-4)
    assert power[10:-10].mean() == pytest.approx(pcm.astype(float).var(), rel=0.02)


def test_too_short_for_a_spectrum():
    spectrum = MeanSpectrum(16)
    spectrum.add(noise(num_frames=9000, num_channels=1))
    assert spectrum.power() is None


def band(power: np.ndarray) -> Band:
    return find_band(power + 1.0 / 12.0, RATE_HZ)


HZ = np.linspace(0.0, RATE_HZ / 2, 2049)


@pytest.mark.parametrize(("fall_db", "found"), [(10.0, False), (20.0, True), (60.0, True)])
def test_a_step_is_an_edge_from_15_db_on(fall_db: float, found: bool):
    found_band = band(np.where(HZ < 10_000.0, 1e7, 1e7 * 10 ** (-fall_db / 10)))
    assert (found_band.edge_hz is not None) == found
    if found:
        assert found_band.edge_hz == pytest.approx(10_000.0, rel=0.05)
        assert found_band.fall_db == pytest.approx(fall_db, abs=1.0)


@pytest.mark.parametrize("order", [1, 2, 4, 8])
@pytest.mark.parametrize("corner_hz", [1000.0, 6000.0])
def test_a_slope_is_no_edge_however_long(order: int, corner_hz: float):
    found = band(1e9 / (1.0 + (HZ / corner_hz) ** (2 * order)))
    assert found.edge_hz is None
    assert corner_hz < found.bandwidth_hz <= RATE_HZ / 2


def test_a_fall_that_the_slope_before_lets_expect_is_no_edge():
    """144 dB an octave: 20 dB from 0.925 f to 1.02 f."""
    power = 1e40 / (1.0 + (HZ / 1000.0) ** 48)
    assert band(power).edge_hz is None


def test_a_lone_partial_is_no_edge():
    power = np.full(2049, 10.0)
    power[1300:1303] = 1e9
    assert band(power).edge_hz is None


def test_a_low_edge_of_a_lossy_file_is_a_note(tmp_path: Path):
    low = resample(resample(noise(), RATE_HZ, 16_000, 16), 16_000, RATE_HZ, 16) / 32_768.0
    write_coded(tmp_path / "a.mp3", "libmp3lame", low, sample_rate_hz=RATE_HZ)
    findings = diagnose([tmp_path], plan=Plan(split=Split(val_fraction=0.0))).findings
    assert [(finding.kind, finding.severity) for finding in findings] == [("band_limited", "note"), ("lossy", "note")]
