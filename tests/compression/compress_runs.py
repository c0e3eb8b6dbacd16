"""What tests of scripts/compress.py share: sounds, a model, and running it."""

from pathlib import Path
from types import ModuleType

import numpy as np

from tests.compression.test_container_wav import chunk, form, riff

ROOT = Path(__file__).resolve().parents[2]


def music(num_channels: int, num_frames: int, bits: int = 16) -> np.ndarray:
    """(T, C) int32 that fills most of the depth."""
    rng = np.random.default_rng(0)
    time = np.arange(num_frames)[:, None] / 8000
    waves = np.sin(2 * np.pi * time * rng.uniform(100, 900, num_channels))
    return np.round((waves * 0.5 + rng.normal(0, 0.01, waves.shape)) * 2 ** (bits - 1) * 0.9).astype(np.int32)


def siren(num_channels: int, num_frames: int) -> np.ndarray:
    """(T, C) int32: tones that rise and fall too fast for a predictor that does not adapt within a stretch."""
    time = np.arange(num_frames)[:, None] / 8000
    rates = np.arange(7, 7 + num_channels)
    waves = np.sin(2 * np.pi * (900 * time + 40 * np.sin(2 * np.pi * time * rates)))
    return np.round(waves * 12_000).astype(np.int32)


def wav_bytes(samples: np.ndarray, sample_bytes: int = 2, rate: int = 8000) -> bytes:
    """A WAV with a tag behind its samples."""
    channels = samples.shape[1]
    octets = (samples + (128 if sample_bytes == 1 else 0)).astype("<i4").view(np.uint8)
    data = octets.reshape(-1, 4)[:, :sample_bytes].tobytes()
    head = form(channels, 8 * sample_bytes, sample_bytes, rate=rate)
    return riff(head, chunk(b"data", data), chunk(b"LIST", b"INFOINAM\5\0\0\0song\0\0"))


def run(compress: ModuleType, *arguments: str | Path) -> int:
    return compress.main([str(argument) for argument in arguments])


def there_and_back(compress: ModuleType, source: Path, *options: str) -> bytes:
    coded, back = source.with_suffix(".wsl"), source.with_suffix(".back")
    assert run(compress, "encode", source, coded, "--no-model", *options) == 0
    assert run(compress, "verify", coded) == 0
    assert run(compress, "decode", coded, back) == 0
    assert list(source.parent.glob(".*")) == []
    return back.read_bytes()


def small_model_file() -> bytes:
    """A small untrained residual language model as a file: it adapts, so it beats linear prediction on tones."""
    from codes.adaptive.cascade_options import AdaptiveOptions, CascadeOptions
    from codes.compression.residual_model import residual_model_bytes
    from codes.models.residual_lm import ResidualLm

    cascade = CascadeOptions(own_taps=16, other_taps=4, filter_taps=[16], filter_rates=[0.02])
    adaptive = AdaptiveOptions(cascades=[cascade], own_history=2, other_history=1)
    network = ResidualLm(features=adaptive.num_features, offsets=1, hidden=4, mixtures=2)
    tensors = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    return residual_model_bytes(tensors, adaptive, 2, {"made by": "a test"})
