"""Noise of a colour for degrading audio: white, pink or brown, of exactly one power."""

from typing import Literal

import numpy as np

NoiseColour = Literal["white", "pink", "brown"]
_SLOPES = {"white": 0.0, "pink": 0.5, "brown": 1.0}  # amplitude falls with frequency to this power


def coloured_noise(rng: np.random.Generator, colour: NoiseColour, shape: tuple[int, int]) -> np.ndarray:
    """Gaussian noise float64 (C, T) of mean square 1 in each channel; channels are independent.

    White noise has equal power at all frequencies, pink falls by 3 dB an octave, brown by 6 dB.
    """
    noise = rng.standard_normal(shape)
    if colour != "white":
        spectrum = np.fft.rfft(noise)
        number = np.maximum(np.arange(spectrum.shape[1]), 1)
        noise = np.fft.irfft(spectrum / number ** _SLOPES[colour], shape[1])
    return noise / np.sqrt(np.mean(noise**2, axis=1, keepdims=True))


def add_at_snr(pcm: np.ndarray, noise: np.ndarray, snr_db: float, bits: int) -> np.ndarray:
    """Integers (C, T) of ``bits`` bits with noise (C, T) or (1, T) added at a signal to noise ratio over all channels.

    Rounded, and held at full scale where the sum goes beyond it. Silence stays silent: it has no ratio to anything.
    """
    signal, limit = pcm.astype(np.float64), 2.0 ** (bits - 1)
    power, noise_power = np.mean(signal**2), np.mean(noise**2)
    if power == 0 or noise_power == 0:
        return pcm.copy()
    gain = np.sqrt(power / noise_power) * 10.0 ** (-snr_db / 20.0)
    return np.clip(np.rint(signal + gain * noise), -limit, limit - 1).astype(pcm.dtype)
