"""Mel spectrograms as DL-Art-School's models of speech see them, and what is done to mels and to sound before."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from codes.speech_mel import MelSettings, mel_filters, mel_spectrogram, read_mel_norms
from codes.trainer.injector import Injector
from codes.trainer.injectors.pcm import samples_and_bits
from codes.weights import unreadable

LEAST_LOG_MEL = math.log(1e-5)
MOST_LOG_MEL = 2.3143386840820312  # of a Tacotron mel, as Tortoise's diffusion model was trained with
MOST_LOG_POWER_MEL = 4.82  # of torch_mel_spectrogram's


def float_wav(wav: Tensor, input_bits: int | None) -> Tensor:
    """Integers of that depth (None: of their dtype) as floats in [-1, 1); floats as they are."""
    if wav.is_floating_point():
        return wav
    samples, bits = samples_and_bits(wav, input_bits)
    return samples.float() / 2.0 ** (bits - 1)


class TorchMelSpectrogramInjector(Injector):
    """Log-mel spectrogram. wav: (B, 1, T) or (B, T) -> (B, n_mel_channels, T // hop_length + 1) float32.

    Powers under triangles of equal area on HTK's mel scale, clamped at 1e-5 and logged; no gradient flows through it.

    Args:
        mel_norm_file: what each band is divided by (scripts/mel_norms.py makes it); null: 1.
        filter_length: samples of a frame.
        hop_length: samples between two frames.
        win_length: accepted for DLAS's sake; it must be filter_length.
        n_mel_channels: bands.
        mel_fmin: where the lowest band begins, in Hz.
        mel_fmax: where the highest band ends, in Hz.
        sampling_rate: of the sound.
        normalize: divide the spectrum by the root of the window's energy.
        true_normalization: scale the logarithms to about -1 .. 1, after the norms.
        input_bits: bits of an integer sample. None: those of the dataset.
    """

    def __init__(
        self, *, mel_norm_file: Path | None = None, filter_length: int = 1024, hop_length: int = 256,
        win_length: int = 1024, n_mel_channels: int = 80, mel_fmin: float = 0.0, mel_fmax: float = 8000.0,
        sampling_rate: int = 22050, normalize: bool = False, true_normalization: bool = False,
        input_bits: int | None = None,
    ) -> None:  # fmt: skip
        if win_length != filter_length:
            raise ValueError(f"win_length must be filter_length, {filter_length}, got {win_length}")
        self.settings = MelSettings(
            sample_rate_hz=sampling_rate, window=filter_length, hop=hop_length, bands=n_mel_channels,
            lowest_hz=mel_fmin, highest_hz=mel_fmax,
        )  # fmt: skip
        mel_filters(self.settings)  # here, not in the first step, which must not wait for values
        self.norms = read_mel_norms(mel_norm_file, n_mel_channels) if mel_norm_file is not None else None
        # the power of a Hann window's energy: 3/8 of its samples
        self._gain = math.sqrt(0.375 * filter_length) if normalize else 1.0
        self.true_normalization, self.input_bits = true_normalization, input_bits

    @torch.no_grad()
    def forward(self, wav: Tensor) -> Tensor:
        """wav: (B, 1, T) or (B, T) -> mel: (B, bands, F).

        Raises:
            ValueError: several channels, or too few samples for a frame.
        """
        mel = mel_spectrogram(float_wav(_mono(wav), self.input_bits) / self._gain, self.settings)
        if self.norms is not None:
            self.norms = self.norms.to(mel.device)
            mel = mel / self.norms[:, None]
        return scaled(mel, MOST_LOG_POWER_MEL) if self.true_normalization else mel

    def logarithms(self, mel: Tensor) -> Tensor:
        """A mel of forward() as logarithms of the sound's own powers. mel: (..., bands, F) -> same shape."""
        if self.true_normalization:
            mel = unscaled(mel, MOST_LOG_POWER_MEL)
        if self.norms is not None:
            mel = mel * self.norms.to(mel.device)[:, None]
        return mel + 2 * math.log(self._gain)


def scaled(mel: Tensor, most: float) -> Tensor:
    """Logarithms from that of 1e-5 to `most` as -1 .. 1."""
    return 2 * (mel - LEAST_LOG_MEL) / (most - LEAST_LOG_MEL) - 1


def unscaled(mel: Tensor, most: float) -> Tensor:
    """Back from `scaled`."""
    return (mel + 1) / 2 * (most - LEAST_LOG_MEL) + LEAST_LOG_MEL


class MelSpectrogramInjector(Injector):
    """Tacotron's log-mel spectrogram. wav: (B, 1, T) or (B, T) -> (B, n_mel_channels, T // hop_length + 1) float32.

    Magnitudes under triangles of equal area on slaney's mel scale, clamped at 1e-5 and logged: what vocoders for
    Tacotron take. The mels of released models of speech are those of `torch_mel_spectrogram`.

    Args:
        do_normalization: scale the logarithms to about -1 .. 1.
        filter_length: samples of a frame.
        hop_length: samples between two frames.
        win_length: accepted for DLAS's sake; it must be filter_length.
        n_mel_channels: bands.
        mel_fmin: where the lowest band begins, in Hz.
        mel_fmax: where the highest band ends, in Hz.
        sampling_rate: of the sound.
        input_bits: bits of an integer sample. None: those of the dataset.
    """

    def __init__(
        self, *, do_normalization: bool = False, filter_length: int = 1024, hop_length: int = 256,
        win_length: int = 1024, n_mel_channels: int = 80, mel_fmin: float = 0.0, mel_fmax: float = 8000.0,
        sampling_rate: int = 22050, input_bits: int | None = None,
    ) -> None:  # fmt: skip
        if win_length != filter_length:
            raise ValueError(f"win_length must be filter_length, {filter_length}, got {win_length}")
        self.settings = MelSettings(
            sample_rate_hz=sampling_rate, window=filter_length, hop=hop_length, bands=n_mel_channels,
            lowest_hz=mel_fmin, highest_hz=mel_fmax, magnitude=True, slaney_scale=True,
        )  # fmt: skip
        mel_filters(self.settings)
        self.do_normalization, self.input_bits = do_normalization, input_bits

    def forward(self, wav: Tensor) -> Tensor:
        """wav: (B, 1, T) or (B, T) -> mel: (B, bands, F); gradients flow through it.

        Raises:
            ValueError: several channels, or too few samples for a frame.
        """
        mel = mel_spectrogram(float_wav(_mono(wav), self.input_bits), self.settings)
        return scaled(mel, MOST_LOG_MEL) if self.do_normalization else mel

    def logarithms(self, mel: Tensor) -> Tensor:
        """A mel of forward() as logarithms of the sound's own magnitudes. mel: (..., bands, F) -> same shape."""
        return unscaled(mel, MOST_LOG_MEL) if self.do_normalization else mel


def _mono(wav: Tensor) -> Tensor:
    """(B, 1, T) or (B, T) as (B, T)."""
    if wav.dim() == 3 and wav.shape[1] == 1:
        wav = wav[:, 0]
    if wav.dim() != 2:
        raise ValueError(f"expected sound of one channel (B, 1, T) or (B, T), got {tuple(wav.shape)}")
    return wav


class NormalizeMelInjector(Injector):
    """Logarithms of Tacotron's mels as about -1 .. 1. mel: any shape -> same shape."""

    def forward(self, mel: Tensor) -> Tensor:
        """mel: (...) float -> (...)."""
        return scaled(mel, MOST_LOG_MEL)

    def inverse(self, mel: Tensor) -> Tensor:
        """Back to logarithms."""
        return unscaled(mel, MOST_LOG_MEL)


class FrequencyBinNormalizeInjector(Injector):
    """Each band shifted and scaled by its own numbers. mel: (B, bands, F) -> (B, bands, F).

    Args:
        stats_file: a torch file with two tensors (bands,): shifts and scales.
    """

    def __init__(self, *, stats_file: Path) -> None:
        try:
            found = torch.load(stats_file, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever torch's unpickler stumbles over
            raise ValueError(f"stats_file {stats_file} cannot be read: {unreadable(error)[:200]}") from error
        pair = isinstance(found, (tuple, list)) and len(found) == 2
        if not pair or not all(isinstance(part, Tensor) and part.ndim == 1 for part in found):
            raise ValueError(f"stats_file {stats_file} must hold two tensors (bands,): shifts and scales")
        self.shift, self.scale = found

    def forward(self, mel: Tensor) -> Tensor:
        """mel: (B, bands, F) -> (mel - shift) / scale."""
        self._check(mel)
        return (mel - self.shift[:, None]) / self.scale[:, None]

    def inverse(self, mel: Tensor) -> Tensor:
        """mel: (B, bands, F) -> mel scale + shift."""
        self._check(mel)
        return mel * self.scale[:, None] + self.shift[:, None]

    def _check(self, mel: Tensor) -> None:
        if mel.dim() != 3 or mel.shape[1] != len(self.shift):
            raise ValueError(f"expected (B, {len(self.shift)}, F), as stats_file has it, got {tuple(mel.shape)}")
        self.shift, self.scale = self.shift.to(mel.device), self.scale.to(mel.device)


class MelMaskInjector(Injector):
    """SpecAugment (Park et al. 2019): bands and frames of each item set to 0. mel: (B, bands, F) -> same shape.

    Args:
        frequency_mask_size_high: most bands of one mask.
        frequency_mask_count: masks of bands.
        time_mask_size_high: most frames of one mask.
        time_mask_count: masks of frames.
    """

    def __init__(
        self, *, frequency_mask_size_high: int = 27, frequency_mask_count: int = 1, time_mask_size_high: int = 5,
        time_mask_count: int = 3,
    ) -> None:  # fmt: skip
        self.masks = {1: (frequency_mask_size_high, frequency_mask_count), 2: (time_mask_size_high, time_mask_count)}
        if min(number for pair in self.masks.values() for number in pair) < 0:
            raise ValueError("frequency_mask_size_high, time_mask_size_high and the counts must be 0 or more")

    def forward(self, mel: Tensor) -> Tensor:
        """mel: (B, bands, F) -> (B, bands, F)."""
        if mel.dim() != 3:
            raise ValueError(f"expected mels (B, bands, F), got {tuple(mel.shape)}")
        for dim, (most, count) in self.masks.items():
            size = mel.shape[dim]
            place = torch.arange(size, device=mel.device)
            for _ in range(count):
                length = (self.draw_uniform(mel, 0, 1) * (min(most, size) + 1)).long()
                start = (self.draw_uniform(mel, 0, 1) * (size - length + 1)).long()
                inside = (place >= start[:, None]) & (place < (start + length)[:, None])
                mel = mel.masked_fill(inside.unsqueeze(3 - dim), 0.0)
        return mel


class ChannelClipInjector(Injector):
    """Some of the channels. x: (B, C, ...) -> (B, channel_high - channel_low, ...).

    Args:
        channel_low: the first.
        channel_high: the one after the last.
    """

    def __init__(self, *, channel_low: int, channel_high: int) -> None:
        if not 0 <= channel_low < channel_high:
            raise ValueError(f"channel_low must be 0 or more and below channel_high, got {channel_low}, {channel_high}")
        self.low, self.high = channel_low, channel_high

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, ...) -> those channels.

        Raises:
            ValueError: there are fewer channels.
        """
        if x.dim() < 2 or x.shape[1] < self.high:
            raise ValueError(f"expected {self.high} channels or more in dimension 1, got {tuple(x.shape)}")
        return x[:, self.low : self.high]


class AudioResampleInjector(Injector):
    """Sound at another rate, by windowed sinc. wav: (..., T) float -> (..., T output / input rounded up).

    Args:
        input_sample_rate: in Hz.
        output_sample_rate: in Hz.
    """

    def __init__(self, *, input_sample_rate: int, output_sample_rate: int) -> None:
        if min(input_sample_rate, output_sample_rate) < 1:
            raise ValueError("input_sample_rate and output_sample_rate must be 1 or more")
        from torchaudio.transforms import Resample

        self._there = Resample(input_sample_rate, output_sample_rate)
        self._back = Resample(output_sample_rate, input_sample_rate)

    def forward(self, wav: Tensor) -> Tensor:
        """wav: (..., T) float at the input rate -> at the output rate."""
        return _resampled(self._there, wav)

    def inverse(self, wav: Tensor) -> Tensor:
        """Back to the input rate; what lay above half the lower rate is gone."""
        return _resampled(self._back, wav)


def _resampled(filters: Any, wav: Tensor) -> Tensor:
    """wav (..., T) through torchaudio's windowed sinc; the length is computed on the host, so nothing waits."""
    if filters.orig_freq == filters.new_freq:
        return wav
    step, made = filters.orig_freq // filters.gcd, filters.new_freq // filters.gcd
    filters.kernel = filters.kernel.to(wav.device)  # kept there: a copy in each step would wait for the device
    flat = functional.pad(wav.reshape(-1, 1, wav.shape[-1]), (filters.width, filters.width + step))
    with torch.autocast(wav.device.type, enabled=False):
        out = functional.conv1d(flat, filters.kernel.to(wav.dtype), stride=step).transpose(1, 2)
    length = -(-wav.shape[-1] * made // step)
    return out.reshape(*wav.shape[:-1], -1)[..., :length]
