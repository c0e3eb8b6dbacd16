"""Folders of sound and broken files for the tests of the data doctor."""

import struct
from pathlib import Path

import numpy as np
import soundfile

RATE_HZ = 44_100


def noise(seed: int = 0, *, num_frames: int = 44_100, num_channels: int = 2, rms: float = 2000.0) -> np.ndarray:
    """(C, T) int16 of white noise: it clips nowhere and fills the band."""
    samples = np.random.default_rng(seed).normal(0.0, rms, (num_channels, num_frames))
    return np.clip(np.rint(samples), -32_000, 32_000).astype(np.int16)


def music(seed: int = 0, *, num_frames: int = 66_150, num_channels: int = 2) -> np.ndarray:
    """(C, T) int16: decaying notes over pink noise that rolls off by itself."""
    random = np.random.default_rng(seed)
    time = np.arange(num_frames) / RATE_HZ
    spectrum = np.fft.rfft(random.normal(0.0, 1.0, (num_channels, num_frames)), axis=1)
    shape = 1.0 / np.sqrt(1.0 + np.arange(spectrum.shape[1]) / 50.0)
    pink = np.fft.irfft(spectrum * shape, n=num_frames, axis=1)
    notes = sum(np.sin(2 * np.pi * hz * time) * np.exp(-3 * time) for hz in (220.0, 554.4, 1318.5))
    return np.rint(3000.0 * pink / pink.std() + 3000.0 * notes).clip(-32_000, 32_000).astype(np.int16)


def write(path: Path, pcm: np.ndarray, sample_rate_hz: int = RATE_HZ, *, bits: int = 16, title: str = "") -> Path:
    """``pcm`` (C, T) at its depth, in the format that the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    full = pcm.astype(np.int32) << (32 - bits)
    subtype = "PCM_U8" if bits == 8 and path.suffix == ".wav" else f"PCM_{bits}"
    with soundfile.SoundFile(path, "w", sample_rate_hz, len(pcm), subtype) as file:
        if title:
            file.title = title
        file.write(full.T)
    return path


def write_broken(folder: Path) -> dict[str, str]:
    """A folder with one sound file and one of each kind of trouble: name -> the kind of finding that it must give."""
    whole = write(folder / "good.wav", noise(1)).read_bytes()
    (folder / "cut.wav").write_bytes(whole[: len(whole) // 2])
    (folder / "nothing.wav").write_bytes(b"")
    (folder / "text.wav").write_text("this is no sound\n" * 50)
    lying = bytearray(whole)
    lying[40:44] = struct.pack("<I", 2**31 - 4096)
    (folder / "lying.wav").write_bytes(lying)
    flac = bytearray(write(folder / "hit.flac", noise(2)).read_bytes())
    flac[len(flac) // 2 : len(flac) // 2 + 64] = bytes(64)
    (folder / "hit.flac").write_bytes(flac)
    (folder / "random.flac").write_bytes(np.random.default_rng(0).bytes(5000))
    soundfile.write(folder / "float.wav", noise(3).T / 32768.0, RATE_HZ, "FLOAT")
    (folder / "gone.wav").symlink_to(folder / "nowhere.wav")
    return {
        "cut.wav": "truncated",
        "nothing.wav": "empty",
        "text.wav": "not_audio",
        "lying.wav": "truncated",
        "hit.flac": "broken",
        "random.flac": "not_audio",
        "float.wav": "floating_point",
        "gone.wav": "unreadable",
    }
