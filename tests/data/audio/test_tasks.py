"""The tasks as datasets: past and future, prev and next, denoising, restoration, several channels to stereo."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from codes import registry
from codes.data.audio.denoising import DenoisingDataset
from codes.data.audio.mono_chunk import MonoChunkDataset
from codes.data.audio.multichannel_to_stereo import MultichannelToStereoDataset
from codes.data.audio.noise import add_at_snr, coloured_noise
from codes.data.audio.past_future import PastFutureDataset
from codes.data.audio.prev_next import PrevNextDataset
from codes.data.audio.restoration import RestorationDataset, coarsen
from codes.data.dataset import SKIPPED

RATE_HZ = 16_000
TASKS = ("mono_chunk", "past_future", "prev_next", "denoising", "restoration", "multichannel_to_stereo")


def write(path: Path, seconds: float = 2.0, channels: int = 1, rate: int = RATE_HZ, seed: int = 0) -> np.ndarray:
    """Tones at 440, 3000 and 6500 Hz, other levels in each channel: 16-bit (C, T), also written to the path."""
    time = np.arange(int(seconds * rate)) / rate
    levels = np.random.default_rng(seed).uniform(1000, 4000, (channels, 3))
    pcm = np.rint(levels @ np.sin(2 * np.pi * np.outer([440.0, 3000.0, 6500.0], time))).astype(np.int16)
    soundfile.write(path, pcm.T, rate)
    return pcm


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def level_at(pcm: np.ndarray, hz: float) -> float:
    """Amplitude of a tone in (T,), by projection."""
    time = np.arange(len(pcm)) / RATE_HZ
    return 2 * abs(np.mean(pcm * np.exp(-2j * np.pi * hz * time) * np.hanning(len(pcm)) * 2))


@pytest.mark.parametrize("name", TASKS)
def test_every_option_of_every_task_is_documented(name: str):
    cls = registry.find("dataset", name)
    assert cls is not None
    options = registry.options_of(cls)
    assert {"path", "phase", "bits", "sample_rate", "channels", "on_error", "split", "cache"} <= options.keys()
    assert [option.name for option in options.values() if not option.doc] == []


@pytest.mark.parametrize("name", TASKS)
def test_items_are_what_the_dataset_says_that_it_provides(name: str, tmp_path: Path):
    write(tmp_path / "a.wav", channels=6)
    cls: Any = registry.find("dataset", name)
    extra = {"low_bits": 8} if name == "restoration" else {}
    data = cls(path=tmp_path, val_fraction=0.0, **extra)
    item = data.item(0, rng())
    assert item.keys() == cls.provides.keys()
    assert item["wav"].dtype == np.int16
    for key, value in data.item(0, rng()).items():
        np.testing.assert_array_equal(value, item[key], err_msg="follows from rng alone")


def test_past_and_future_are_adjacent(tmp_path: Path):
    pcm = write(tmp_path / "a.wav")
    data = PastFutureDataset(path=tmp_path, val_fraction=0.0, past_frames=300, future_frames=100)
    for seed in range(20):
        item = data.item(0, rng(seed))
        start = item["start_frame"]
        np.testing.assert_array_equal(item["future"], pcm[:, start : start + 100])
        known = min(start, 300)
        np.testing.assert_array_equal(item["past"][:, 300 - known :], pcm[:, start - known : start])
        np.testing.assert_array_equal(np.concatenate([item["past"], item["future"]], 1), item["wav"])
    with pytest.raises(ValueError, match="past_frames and future_frames must be 1 or more, got 0 and 5"):
        PastFutureDataset(path=tmp_path, past_frames=0, future_frames=5)
    assert "chunk_frames" not in registry.options_of(PastFutureDataset)


def test_prev_and_next_have_random_lengths_around_one_border(tmp_path: Path):
    pcm = write(tmp_path / "a.wav")
    data = PrevNextDataset(path=tmp_path, val_fraction=0.0, prev_frames=(50, 200), next_frames=(20, 80))
    lengths = set()
    for seed in range(60):
        item = data.item(0, rng(seed))
        prev, following, border = item["prev_length"], item["next_length"], item["start_frame"] + 200
        lengths.add((prev, following))
        np.testing.assert_array_equal(item["prev"][:, 200 - prev :], pcm[:, border - prev : border])
        np.testing.assert_array_equal(item["next"][:, :following], pcm[:, border : border + following])
        assert not item["prev"][:, : 200 - prev].any()
        assert not item["next"][:, following:].any()
        assert item["next_mask"].tolist() == [frame < following for frame in range(80)]
    assert min(prev for prev, _ in lengths) < 70
    assert max(prev for prev, _ in lengths) > 180
    assert len({following for _, following in lengths}) > 20
    with pytest.raises(ValueError, match=r"next_frames must be one length or \[shortest, longest\].*got \[9, 3\]"):
        PrevNextDataset(path=tmp_path, next_frames=(9, 3))


@pytest.mark.parametrize("colour", ["white", "pink", "brown"])
def test_noise_has_the_snr_that_it_says(tmp_path: Path, colour: Any):
    write(tmp_path / "a.wav")
    data = DenoisingDataset(path=tmp_path, val_fraction=0.0, chunk_frames=8000, snr_db=(5.0, 15.0), noise=colour)
    drawn = []
    for seed in range(10):
        item = data.item(0, rng(seed))
        clean, noise = item["wav"].astype(float), item["noisy"].astype(float) - item["wav"]
        measured = 10 * np.log10(np.mean(clean**2) / np.mean(noise**2))
        assert abs(measured - item["snr_db"]) < 0.1
        drawn.append(item["snr_db"])
    assert 5 <= min(drawn) < max(drawn) <= 15


@pytest.mark.parametrize(("colour", "db_an_octave"), [("white", 0.0), ("pink", -3.01), ("brown", -6.02)])
def test_noise_has_its_colour(colour: Any, db_an_octave: float):
    noise = coloured_noise(rng(), colour, (1, 1 << 18))[0]
    assert abs(np.mean(noise**2) - 1) < 1e-9
    power = np.abs(np.fft.rfft(noise)) ** 2
    octaves = [10 * np.log10(np.mean(power[1 << k : 2 << k])) for k in range(8, 16)]
    np.testing.assert_allclose(np.diff(octaves), db_an_octave, atol=0.6)


def test_noise_of_recordings(tmp_path: Path):
    (tmp_path / "noise").mkdir()
    (tmp_path / "music").mkdir()
    write(tmp_path / "music" / "a.wav", seed=1)
    hum = np.rint(3000 * np.sin(2 * np.pi * 100 * np.arange(3 * 8000) / 8000)).astype(np.int16)
    soundfile.write(tmp_path / "noise" / "hum.wav", hum, 8000)
    options = {"val_fraction": 0.0, "chunk_frames": 16_000, "snr_db": 0.0}
    data = DenoisingDataset(path=tmp_path / "music", noise_path=tmp_path / "noise", **options)
    item = data.item(0, rng())
    noise = item["noisy"][0].astype(float) - item["wav"][0]
    assert level_at(noise, 100) / np.sqrt(2 * np.mean(noise**2)) > 0.99, "resampled to the music's rate, the hum alone"
    plain = DenoisingDataset(path=tmp_path / "music", **options)
    assert data.fingerprint() != plain.fingerprint()
    assert any(line.startswith("noise: taken: 1 file") for line in data.report())


def test_broken_noise_recordings_are_counted(tmp_path: Path):
    for folder, seed in (("noise", 0), ("music", 1)):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "a.wav", seed=seed)
        write(tmp_path / folder / "b.flac", seed=seed)
    content = (tmp_path / "noise" / "b.flac").read_bytes()
    half, quarter = len(content) // 2, len(content) // 4
    (tmp_path / "noise" / "b.flac").write_bytes(content[:half] + bytes(quarter) + content[half + quarter :])
    options = {"path": tmp_path / "music", "noise_path": tmp_path / "noise", "val_fraction": 0.0, "chunk_frames": 8000}
    data = DenoisingDataset(**options, on_error="skip", max_errors=0)
    skipped = [file for seed in range(20) for file, _ in data.item(0, rng(seed))[SKIPPED]]
    assert set(skipped) == {str(tmp_path / "noise" / "b.flac")}


def test_loud_noise_is_held_at_full_scale_and_silence_stays():
    loud = add_at_snr(np.full((1, 1000), 32_000, np.int16), rng().standard_normal((1, 1000)), 0.0, 16)
    assert (loud.max(), loud.dtype) == (32_767, np.int16)
    silent = np.zeros((1, 10), np.int16)
    np.testing.assert_array_equal(add_at_snr(silent, np.ones((1, 10)), 0.0, 16), silent)


@pytest.mark.parametrize("snr_db", [(9.0, 3.0), float("nan")])
def test_ratios_that_make_no_sense(tmp_path: Path, snr_db: Any):
    with pytest.raises(ValueError, match=r"snr_db must be one number or \[lowest, highest\]"):
        DenoisingDataset(path=tmp_path, snr_db=snr_db)


def test_bandwidth_restoration_takes_the_upper_band_away_and_nothing_else(tmp_path: Path):
    write(tmp_path / "a.wav")
    data = RestorationDataset(path=tmp_path, val_fraction=0.0, chunk_frames=4000, low_rate=8000)
    for seed in range(5):
        item = data.item(0, rng(seed))
        clean, degraded = item["wav"][0].astype(float), item["degraded"][0].astype(float)
        assert level_at(degraded, 6500) < 0.002 * level_at(clean, 6500)
        for hz in (440, 3000):
            assert abs(level_at(degraded, hz) / level_at(clean, hz) - 1) < 0.002
        kept = np.sin(2 * np.pi * 6500 * (np.arange(4000) + item["start_frame"]) / RATE_HZ)
        expected = clean - kept * np.dot(clean, kept) / np.dot(kept, kept)
        inside = slice(400, -400) if item["start_frame"] < 500 else slice(None)
        assert np.abs(degraded - expected)[inside].max() < 0.01 * np.abs(clean).max(), "in time with it, no edge heard"


@pytest.mark.parametrize("bits", [16, 24])
def test_bit_depth_restoration(tmp_path: Path, bits: Any):
    write(tmp_path / "a.wav")
    options = {"path": tmp_path, "val_fraction": 0.0, "bits": bits}
    item = RestorationDataset(**options, low_bits=8).item(0, rng())
    assert not (item["degraded"] % 2 ** (bits - 8)).any()
    assert np.abs(item["degraded"].astype(int) - item["wav"]).max() <= 2 ** (bits - 9)
    companded = RestorationDataset(**options, low_bits=8, companding="mu_law").item(0, rng())
    assert len(np.unique(companded["degraded"])) <= 256
    assert companded["degraded"].dtype == companded["wav"].dtype


def test_mu_law_is_that_of_the_injector():
    torch = pytest.importorskip("torch")
    injector: Any = registry.find("injector", "mu_law")
    pcm = np.arange(-32768, 32768, 7, dtype=np.int16)[None]
    through = injector(bits=8, input_bits=16)
    expected = np.clip(np.rint(through.inverse(through.forward(torch.from_numpy(pcm))).numpy() * 32768), -32768, 32767)
    np.testing.assert_allclose(coarsen(pcm, 16, 8, "mu_law"), expected, atol=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "low_rate or low_bits must be given"),
        ({"low_rate": 16_000}, "low_rate is 16000 Hz, it must be below the 16000 Hz of the audio"),
        ({"low_bits": 16}, "low_bits is 16, it must be below bits, 16"),
    ],
)
def test_detours_that_are_none(tmp_path: Path, options: dict[str, Any], message: str):
    write(tmp_path / "a.wav")
    with pytest.raises(ValueError, match=message):
        RestorationDataset(path=tmp_path, val_fraction=0.0, **options)


def test_multichannel_to_stereo_by_the_standard_and_by_weights(tmp_path: Path):
    write(tmp_path / "a.wav", channels=6)
    options = {"path": tmp_path, "val_fraction": 1.0, "phase": "val", "chunk_frames": 1000}
    item = MultichannelToStereoDataset(**options).item(3, rng())
    six, half = item["multichannel"].astype(float), 0.5**0.5
    left = (six[0] + half * six[2] + half * six[4]) / (1 + 2 * half)
    np.testing.assert_allclose(item["wav"][0], left, atol=0.51)
    data = MultichannelToStereoDataset(**options, weights=[[0, 0, 0, 1, 0, 0], [0, 0.5, 0, 0, 0, 0.5]])
    np.testing.assert_array_equal(data.item(0, rng())["wav"][0], data.item(0, rng())["multichannel"][3])
    (_, scored, bits, rate), *_ = data.scored_audio()
    assert (bits, rate, scored.shape) == (16, RATE_HZ, (2, 32_000))
    np.testing.assert_array_equal(scored[:, 3000:4000], data.item(3, rng())["wav"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source_channels": 8}, "no standard downmix of 8 channels"),
        ({"weights": [[1.0] * 6, [0.0] * 6]}, "weights: the weights of channel 0 add up to 6"),
        ({"weights": [[0.5, 0.5]]}, "weights must be two lists of 6 numbers"),
        ({"source_channels": 4}, "has 6 channels, and 4 are needed"),
    ],
)
def test_mixes_that_do_not_fit(tmp_path: Path, options: dict[str, Any], message: str):
    write(tmp_path / "a.wav", channels=6)
    with pytest.raises(ValueError, match=message):
        MultichannelToStereoDataset(path=tmp_path, val_fraction=0.0, **options)


def test_mono_takes_the_channels_that_it_is_told(tmp_path: Path):
    pcm = write(tmp_path / "a.wav", channels=2)
    options = {"path": tmp_path, "val_fraction": 1.0, "phase": "val", "chunk_frames": 1000}
    mean = MonoChunkDataset(**options, channels="mono").item(0, rng())["wav"]
    np.testing.assert_allclose(mean[0], pcm[:, :1000].mean(0), atol=0.5)
    with pytest.raises(ValueError, match="has 2 channels, and 1 is needed"):
        MonoChunkDataset(**options, channels="exact")
