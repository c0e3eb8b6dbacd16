"""What all tests share: one thread, a cache of their own, seeded random numbers, small stereo folders."""

import os
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

SAMPLE_RATE_HZ = 22050


@pytest.fixture(scope="session", autouse=True)
def _own_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One thread here and in subprocesses; nothing is read from or left in the user's cache."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
        patch.setenv("WAVESCHOOL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def stereo_music(num_samples: int, bits: int = 16, seed: int = 0) -> np.ndarray:
    """A quiet stereo chord with a little noise: (T, 2) int32, right-justified at `bits`."""
    rng = np.random.default_rng(seed)
    time = np.arange(num_samples) / SAMPLE_RATE_HZ
    tones = np.sin(2 * np.pi * time[:, None] * rng.uniform(80, 800, 4)) @ rng.uniform(0.02, 0.1, (4, 2))
    noise = rng.normal(0, 1e-3, (num_samples, 2))
    return np.round((tones + noise) * 2 ** (bits - 1)).astype(np.int32)


def write_wav(path: Path, samples: np.ndarray, sample_rate_hz: int = SAMPLE_RATE_HZ, bits: int = 16) -> None:
    """Write (T, C) integers, right-justified at `bits` (8, 16, 24 or 32), as a PCM WAV file."""
    num_bytes = bits // 8
    signed = samples.astype("<i4") + (128 if bits == 8 else 0)  # 8-bit WAV is unsigned
    raw = np.ascontiguousarray(signed).view(np.uint8).reshape(-1, 4)[:, :num_bytes].tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(num_bytes)
        file.setframerate(sample_rate_hz)
        file.writeframes(raw)


@pytest.fixture
def make_stereo_folder(tmp_path: Path) -> Callable[..., Path]:
    """Call it to write a folder of stereo WAV files: (num_files, num_samples, bits, sample_rate_hz, name) -> path."""

    def make(
        num_files: int = 4,
        num_samples: int = SAMPLE_RATE_HZ // 2,
        bits: int = 16,
        sample_rate_hz: int = SAMPLE_RATE_HZ,
        name: str = "music",
    ) -> Path:
        for number in range(num_files):
            subfolder = "album" if number % 2 else "."  # datasets must walk into folders
            path = tmp_path / name / subfolder / f"track_{number}.wav"
            write_wav(path, stereo_music(num_samples, bits, seed=number), sample_rate_hz, bits)
        return tmp_path / name

    return make


@pytest.fixture
def stereo_folder(make_stereo_folder: Callable[..., Path]) -> Path:
    """Four 16-bit stereo WAV files of half a second at 22050 Hz, two of them in a subfolder."""
    return make_stereo_folder()


@pytest.fixture(name="write_wav")
def write_wav_fixture() -> Callable[..., None]:
    """`write_wav(path, samples, sample_rate_hz, bits)` for tests that need a file of their own."""
    return write_wav
