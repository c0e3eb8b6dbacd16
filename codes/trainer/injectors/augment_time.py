"""Augmentation of time and pitch, each without the other, by a phase vocoder.

An item is cut into windows a quarter of a window apart. Windows of the output are taken from the input at another pace,
their magnitudes interpolated, and each bin's phase goes on as fast as it does in the input (Flanagan and Golden, "Phase
vocoder", 1966). Two things keep the sound together: a bin takes the turn of phase of the nearest peak of the spectrum
("identity phase locking", Laroche and Dolson, "Improved phase vocoder time-scale modification of audio", 1999), and
all channels turn together, so the stereo image stays. Pitch is shifted by stretching and then reading faster.

Tones keep their pitch to a hundredth of a cent and their level to a hundredth of a dB. As with every phase vocoder,
attacks are smeared over a window, and noise loses 2 to 3 dB.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from codes.trainer.injectors.augment import Augmentation, Span, span

OVERLAP = 4  # windows that cover a sample
OVERSAMPLING = 4
NUM_TAPS = 6  # of the interpolation between oversampled samples


class TimeStretchInjector(Augmentation):
    """Faster or slower at the same pitch. wav: (B, C, T) -> (B, C, num_frames), same dtype.

    Each item has its own rate; so that items still fit into one batch, all are given `num_frames` frames: cut off at
    the end, or followed by silence. An item of T frames at rate r has T / r frames of sound: with num_frames at most
    T / (highest rate) there is never silence.

    Args:
        rate: speed, a number or [low, high], 0.25 to 4: 2 is twice as fast.
        num_frames: frames of the output. None: as many as the input.
        window_frames: length of a window, a multiple of 4: 2048 for music at 44.1 kHz, less at lower rates.
        probability: share of the items that are changed.
        input_bits: bits of an integer sample. None: those of the dataset.
    """

    transforms = True

    def __init__(
        self, *, rate: Span = (0.8, 1.25), num_frames: int | None = None, window_frames: int = 2048,
        probability: float = 1.0, input_bits: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(probability=probability, input_bits=input_bits)
        if num_frames is not None and num_frames < 1:
            raise ValueError(f"num_frames must be 1 or more, got {num_frames}")
        self.rate = span("rate", rate, 0.25, 4)
        self.num_frames = num_frames
        self.window_frames = _window_frames(window_frames)

    def change(self, x: Tensor) -> Tensor:
        """x: (B, C, T) -> (B, C, num_frames)."""
        rate = self.draw_log_span(x, self.rate).flatten()
        return stretch(x, rate, self.num_frames or x.shape[-1], self.window_frames)

    def keep(self, wav: Tensor) -> Tensor:
        """wav: (B, C, T) -> (B, C, num_frames): cut off or followed by silence."""
        silence = 128 if wav.dtype == torch.uint8 else 0
        return F.pad(wav, (0, (self.num_frames or wav.shape[-1]) - wav.shape[-1]), value=silence)


class PitchShiftInjector(Augmentation):
    """Higher or lower at the same speed. wav: (B, C, T) -> same shape and dtype.

    Args:
        semitones: a number or [low, high], -24 to 24: 12 is an octave up.
        window_frames: length of a window, a multiple of 4: 2048 for music at 44.1 kHz, less at lower rates.
        probability: share of the items that are changed.
        input_bits: bits of an integer sample. None: those of the dataset.
    """

    transforms = True

    def __init__(
        self, *, semitones: Span = (-2.0, 2.0), window_frames: int = 2048, probability: float = 1.0,
        input_bits: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(probability=probability, input_bits=input_bits)
        self.semitones = span("semitones", semitones, -24, 24)
        self.window_frames = _window_frames(window_frames)

    def change(self, x: Tensor) -> Tensor:
        """x: (B, C, T) -> (B, C, T)."""
        factor = (self.draw_span(x, self.semitones) * (math.log(2) / 12)).exp().flatten()
        needed = math.ceil(x.shape[-1] * 2 ** (self.semitones[1] / 12)) + NUM_TAPS
        return read_at(stretch(x, 1 / factor, needed, self.window_frames), factor, x.shape[-1])


def stretch(x: Tensor, rate: Tensor, num_frames: int, window_frames: int) -> Tensor:
    """Each item at its own speed.

    Args:
        x: (B, C, T) float.
        rate: (B,) float64, above 0.
        num_frames: frames of the output.
        window_frames: length of a window.

    Returns:
        (B, C, num_frames); zeros from frame T / rate on.
    """
    hop, T = window_frames // OVERLAP, x.shape[-1]
    window = torch.hann_window(window_frames, dtype=x.dtype, device=x.device)
    num_windows = T // hop + 3  # window n is centred on frame n hop
    padded = F.pad(x, (window_frames // 2, (num_windows - 1) * hop + window_frames // 2 - T))
    spectra = torch.fft.rfft(padded.unfold(-1, window_frames, hop) * window).transpose(1, 2)  # (B, N, C, F)
    places = torch.arange(num_frames // hop + 2, device=x.device) * rate[:, None]  # (B, M), counted in windows
    made = _at_another_pace(spectra, places).transpose(1, 2)  # (B, C, M, F)
    frames = _overlap(torch.fft.irfft(made, n=window_frames) * window)
    weights = _overlap(window.square().expand(made.shape[2], -1))
    cut = slice(window_frames // 2, window_frames // 2 + num_frames)
    sounding = torch.arange(num_frames, device=x.device) * rate[:, None] < T
    return frames[..., cut] / weights[cut] * sounding[:, None]


def _at_another_pace(spectra: Tensor, places: Tensor) -> Tensor:
    """spectra: (B, N, C, F) complex, places: (B, M) in units of N -> (B, M, C, F)."""
    last = spectra.shape[1] - 1
    before = places.long().clamp(max=last)
    after = (before + 1).clamp(max=last)
    item = torch.arange(len(spectra), device=spectra.device)[:, None]
    magnitudes = spectra.abs()
    part = (places - before).to(magnitudes.dtype)[:, :, None, None]
    magnitude = torch.lerp(magnitudes[item, before], magnitudes[item, after], part.clamp(max=1))
    magnitude = magnitude * (places < last)[:, :, None, None]
    # How far a bin turns from one window to the next, over all channels; then how far it has turned in all.
    turns = F.pad((spectra[:, 1:] * spectra[:, :-1].conj()).sum(2).angle(), (0, 0, 0, 1))  # (B, N, F)
    there = turns.cumsum(1) - turns
    taken = turns[item, before]
    extra = taken.cumsum(1) - taken - there[item, before]  # what the output has turned beyond the input
    extra = extra.gather(2, _nearest_peak(magnitude.sum(2)))
    return torch.polar(magnitude, spectra.angle()[item, before] + extra[:, :, None])


def _nearest_peak(magnitude: Tensor) -> Tensor:
    """magnitude: (..., F) -> (..., F) int64, the bin of the nearest peak, one not below its two neighbours a side."""
    num_bins = magnitude.shape[-1]
    highest = F.max_pool1d(magnitude.flatten(0, -2), 5, stride=1, padding=2).view_as(magnitude)
    bins = torch.arange(num_bins, device=magnitude.device)
    peaks = magnitude >= highest
    left = torch.where(peaks, bins, -num_bins).cummax(-1).values
    right = torch.where(peaks, bins, 2 * num_bins).flip(-1).cummin(-1).values.flip(-1)
    return torch.where(bins - left <= right - bins, left, right)


def _overlap(windows: Tensor) -> Tensor:
    """windows: (..., M, W), a quarter of W apart -> their sum (..., (M + 3) W / 4)."""
    num_windows, hop = windows.shape[-2], windows.shape[-1] // OVERLAP
    total = windows.new_zeros(*windows.shape[:-2], num_windows + OVERLAP - 1, hop)
    for quarter, part in enumerate(windows.unflatten(-1, (OVERLAP, hop)).unbind(-2)):
        total[..., quarter : quarter + num_windows, :] += part
    return total.flatten(-2)


def read_at(x: Tensor, factor: Tensor, num_frames: int) -> Tensor:
    """Each item read faster or slower: output frame t is input frame t factor, without aliasing.

    The input is oversampled by a Fourier transform; between those samples a polynomial (Lagrange's) is laid.

    Args:
        x: (B, C, T) float; zeros beyond it.
        factor: (B,) float64, above 0.
        num_frames: frames of the output.

    Returns:
        (B, C, num_frames)
    """
    size = fast_size(x.shape[-1] + 2 * NUM_TAPS)
    spectrum = torch.fft.rfft(x, n=size)
    frequency = torch.arange(spectrum.shape[-1], device=x.device) / size  # in cycles a frame
    highest = 0.5 / factor[:, None]
    rolloff = ((highest - frequency) / (0.05 * highest)).clamp(0, 1).where(highest < 0.5, 1.0)
    rolloff[:, -1] /= 2  # half the sample rate (the size is even) has a twin in the longer transform
    fine = torch.fft.irfft(spectrum * rolloff.to(x.dtype)[:, None], n=OVERSAMPLING * size) * OVERSAMPLING
    place = torch.arange(num_frames, device=x.device) * (factor * OVERSAMPLING)[:, None]  # (B, T)
    whole = place.floor()
    part = (place - whole).to(x.dtype)
    first = whole.long() - (NUM_TAPS // 2 - 1)
    total = torch.zeros(*x.shape[:2], num_frames, dtype=x.dtype, device=x.device)
    for tap, weight in enumerate(_lagrange(part)):
        index = (first + tap).remainder(fine.shape[-1])[:, None].expand(-1, x.shape[1], -1)
        total += fine.gather(2, index) * weight[:, None]
    return total


def _lagrange(part: Tensor) -> list[Tensor]:
    """Weights of NUM_TAPS samples around a place, which lies `part` behind the middle ones' first."""
    nodes = [tap - (NUM_TAPS // 2 - 1) for tap in range(NUM_TAPS)]
    weights = []
    for node in nodes:
        weight = torch.ones_like(part)
        for other in nodes:
            if other != node:
                weight = weight * ((part - other) / (node - other))
        weights.append(weight)
    return weights


def fast_size(num_frames: int) -> int:
    """A number of frames at least as large that Fourier transforms like: 5, 6, 7 or 8 times a power of two."""
    step = 1 << max(0, num_frames.bit_length() - 3)
    return -(-num_frames // step) * step


def _window_frames(value: int) -> int:
    if value < 16 or value % OVERLAP:
        raise ValueError(f"window_frames must be a multiple of {OVERLAP}, 16 or more, got {value}")
    return value
