"""Mel spectrograms and what is made of them: the distance of sounds, and the cepstra that semantic tokens begin with.

The scale is HTK's, the triangles are not normalised: torchaudio's defaults.
"""

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional

LEAST_POWER = 1e-6  # added to that of a band before the logarithm: what is 60 dB below full scale hardly counts
DELTA_FRAMES = 2  # to either side, of the slope of a cepstrum


def to_mel(frequency_hz: float) -> float:
    """Hertz on HTK's mel scale."""
    return 2595.0 * math.log10(1.0 + frequency_hz / 700.0)


@functools.cache
def mel_filters(sample_rate_hz: int, window: int, bands: int, device: torch.device | str = "cpu") -> Tensor:
    """Triangles that are evenly spaced in mel from 0 to half the sample rate: (window / 2 + 1, bands) float32."""
    mels = torch.linspace(0, to_mel(sample_rate_hz / 2), bands + 2, dtype=torch.float64)
    edges = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    bins = torch.linspace(0, sample_rate_hz / 2, window // 2 + 1, dtype=torch.float64)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp(min=0).float().to(device, non_blocking=True)


@functools.cache
def _hann(window: int, device: torch.device) -> Tensor:
    return torch.hann_window(window, device=device)


@functools.cache
def _cosines(coefficients: int, bands: int, device: torch.device) -> Tensor:
    """(coefficients, bands): the orthonormal DCT-II, but for row 0."""
    angles = torch.arange(coefficients)[:, None] * (torch.arange(bands) + 0.5) * (math.pi / bands)
    return (angles.cos() * math.sqrt(2 / bands)).to(device, non_blocking=True)


def spectrum(wav: Tensor, window: int, hop: int) -> Tensor:
    """wav: (..., T) float -> complex (..., window / 2 + 1, F), F = T / hop rounded up; frame n is centred on n * hop.

    Zeros stand before and after the audio. Divided by the root of the window's energy, so that noise has its own level
    whatever the window.
    """
    flat = wav.float().reshape(-1, wav.shape[-1])
    frames = -(-wav.shape[-1] // hop)
    flat = functional.pad(flat, (window // 2, (frames - 1) * hop + window - window // 2 - wav.shape[-1]))
    shape = _hann(window, wav.device)
    found = torch.stft(flat, window, hop, window=shape, center=False, return_complex=True)
    return (found / math.sqrt(0.375 * window)).reshape(*wav.shape[:-1], *found.shape[1:])


def log_mel(wav: Tensor, sample_rate_hz: int, *, window: int, hop: int, bands: int) -> Tensor:
    """wav: (..., T) float -> log10 of the power in each band: (..., bands, F) float32; see `spectrum` for F."""
    power = torch.view_as_real(spectrum(wav, window, hop)).square().sum(-1)
    filters = mel_filters(sample_rate_hz, window, bands, wav.device)
    return (power.transpose(-1, -2) @ filters + LEAST_POWER).log10().transpose(-1, -2)


def mfcc(wav: Tensor, sample_rate_hz: int, *, coefficients: int = 13) -> Tensor:
    """Mel-frequency cepstra with their first and second slopes, the features of HuBERT's own first iteration.

    Windows of 25 ms every 10 ms, 40 bands.

    Args:
        wav: (B, T) float.
        sample_rate_hz: of it.
        coefficients: cepstra in a frame.

    Returns:
        (B, F, 3 * coefficients) float32, F = T / hop rounded up.
    """
    bands, window = 40, max(2, round(0.025 * sample_rate_hz))
    levels = log_mel(wav, sample_rate_hz, window=window, hop=mfcc_hop(sample_rate_hz), bands=bands)
    cepstra = _cosines(coefficients, bands, levels.device) @ levels
    slopes = _slopes(cepstra)
    return torch.cat([cepstra, slopes, _slopes(slopes)], 1).transpose(1, 2)


def mfcc_hop(sample_rate_hz: int) -> int:
    """Samples between two frames of `mfcc`."""
    return max(1, round(0.01 * sample_rate_hz))


def _slopes(values: Tensor) -> Tensor:
    """values: (B, C, F) -> least-squares slopes over 5 frames: (B, C, F); the first and last frames go on for ever."""
    weights = torch.arange(-DELTA_FRAMES, DELTA_FRAMES + 1, device=values.device, dtype=values.dtype)
    weights = weights / weights.square().sum()
    spread = functional.pad(values, (DELTA_FRAMES, DELTA_FRAMES), mode="replicate")
    return (spread.unfold(-1, len(weights), 1) * weights).sum(-1)
