"""Augmentation by filters: low-pass, high-pass, band-pass and peak, and the reverberation of rooms."""

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from codes.trainer.injectors.augment import Augmentation, Span, decibels, span
from codes.trainer.injectors.augment_time import fast_size

INAUDIBLE = 1e-7  # what is left of a filter's response may wrap around
IMPULSE_SUFFIXES = (".wav", ".flac", ".aif", ".aiff")


class RatedAugmentation(Augmentation, abstract=True):
    """An augmentation in Hz or seconds. A subclass gets ready in `tune`, as soon as the sample rate is known.

    Args:
        sample_rate_hz: sample rate of the audio. None: that of the dataset.
        probability: share of the items that are changed.
        input_bits: bits of an integer sample. None: those of the dataset.
    """

    def __init__(self, *, sample_rate_hz: int | None, probability: float, input_bits: int | None) -> None:
        super().__init__(probability=probability, input_bits=input_bits)
        if sample_rate_hz is not None and sample_rate_hz < 1:
            raise ValueError(f"sample_rate_hz must be 1 or more, got {sample_rate_hz}")
        self.sample_rate_hz = sample_rate_hz
        self.given = sample_rate_hz is not None

    def meet(self, dataset: Any) -> None:
        """Take the sample rate from the dataset, unless it was given.

        Raises:
            ValueError: the datasets' rates differ, or an option does not fit the rate.
        """
        recordings = getattr(dataset, "recordings", None)
        if self.given or not recordings:
            return
        found = recordings[0].sample_rate_hz
        if self.sample_rate_hz not in (None, found):
            raise ValueError(
                f"sample_rate_hz: the datasets have {self.sample_rate_hz} and {found} Hz: give both one sample_rate"
            )
        if self.sample_rate_hz is None:
            self.sample_rate_hz = found
            self.tune(found)

    def tune(self, sample_rate_hz: int) -> None:
        """Get ready for audio of a sample rate.

        Raises:
            ValueError: an option does not fit it.
        """

    def require(self, wav: Tensor) -> None:
        """Refuse audio of another shape, or of no known sample rate."""
        super().require(wav)
        if self.sample_rate_hz is None:
            raise ValueError("sample_rate_hz: the dataset does not say its sample rate: give it here")


class RandomFilterInjector(RatedAugmentation):
    """A filter of second order at a random frequency. wav: (B, C, T) -> same shape and dtype.

    The four are those of R. Bristow-Johnson's "Audio EQ Cookbook". Frequencies are drawn evenly in pitch, so as many
    from 100 to 200 Hz as from 1 to 2 kHz.

    Args:
        response: low_pass, high_pass (12 dB an octave), band_pass (0 dB in its middle) or peak.
        cutoff_hz: corner or middle frequency, a number or [low, high], below half the sample rate.
        sample_rate_hz: sample rate of the audio. None: that of the dataset.
        q: resonance, a number or [low, high], 0.1 to 100: 0.7071 has none; the middle over the width of a band.
        gain_db: gain of a peak in its middle, a number or [low, high].
        probability: share of the items that are changed.
        input_bits: bits of an integer sample. None: those of the dataset.
    """

    transforms = True

    def __init__(
        self, *, response: Literal["low_pass", "high_pass", "band_pass", "peak"], cutoff_hz: Span,
        sample_rate_hz: int | None = None, q: Span = 0.7071, gain_db: Span = (-12.0, 12.0), probability: float = 1.0,
        input_bits: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(sample_rate_hz=sample_rate_hz, probability=probability, input_bits=input_bits)
        self.response = response
        self.cutoff_hz = span("cutoff_hz", cutoff_hz, 1)
        self.q = span("q", q, 0.1, 100)
        self.gain_db = span("gain_db", gain_db, -60, 60)
        if sample_rate_hz is not None:
            self.tune(sample_rate_hz)

    def tune(self, sample_rate_hz: int) -> None:
        """Reckon how long the filter that rings longest can be heard.

        Raises:
            ValueError: cutoff_hz is not below half the sample rate.
        """
        span("cutoff_hz", self.cutoff_hz, 1, 0.499 * sample_rate_hz)
        self.tail_frames = self._tail_frames(sample_rate_hz)

    def change(self, x: Tensor) -> Tensor:
        """x: (B, C, T) -> the filtered audio, from silence on."""
        cutoff = self.draw_log_span(x, self.cutoff_hz)[:, 0]  # (B, 1)
        q = self.draw_log_span(x, self.q)[:, 0]
        gain_db = self.draw_span(x, self.gain_db)[:, 0]
        size = fast_size(x.shape[-1] + self.tail_frames)
        turn = torch.arange(size // 2 + 1, device=x.device) * (-2 * math.pi / size)
        delay = torch.polar(torch.ones_like(turn, dtype=torch.float64), turn.double())
        assert self.sample_rate_hz is not None  # held by require
        transfer = self._transfer(cutoff * (2 * math.pi / self.sample_rate_hz), q, gain_db, delay)
        transfer = transfer.to(torch.complex64 if x.dtype == torch.float32 else torch.complex128)
        return torch.fft.irfft(torch.fft.rfft(x, n=size) * transfer[:, None], n=size)[..., : x.shape[-1]]

    def _transfer(self, turn: Tensor, q: Tensor, gain_db: Tensor, delay: Tensor) -> Tensor:
        """(B, 1) each, turn in radians a frame, delay: (F,), e^-iw -> (B, F) complex128."""
        b, a = self._coefficients(turn, q, gain_db)
        return (b[0] + delay * (b[1] + delay * b[2])) / (a[0] + delay * (a[1] + delay * a[2]))

    def _coefficients(self, turn: Tensor, q: Tensor, gain_db: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Numerator and denominator in powers of the delay of one frame; each as many numbers as there are filters."""
        cosine, alpha = turn.cos(), turn.sin() / (2 * q)
        if self.response == "peak":
            root = decibels(gain_db / 2)
            return (
                [1 + alpha * root, -2 * cosine, 1 - alpha * root],
                [1 + alpha / root, -2 * cosine, 1 - alpha / root],
            )
        denominator = [1 + alpha, -2 * cosine, 1 - alpha]
        if self.response == "band_pass":
            return [alpha, torch.zeros_like(alpha), -alpha], denominator
        sign = 1 if self.response == "low_pass" else -1
        side = (1 - sign * cosine) / 2
        return [side, sign * 2 * side, side], denominator

    def _tail_frames(self, sample_rate_hz: int) -> int:
        """The pole nearest to the circle says it."""
        corners = [torch.tensor([value], dtype=torch.float64) for value in (*self.cutoff_hz, *self.q, *self.gain_db)]
        radius = 0.0
        for cutoff_hz in corners[:2]:
            for q in corners[2:4]:
                for gain_db in corners[4:]:
                    denominator = self._coefficients(cutoff_hz * (2 * math.pi / sample_rate_hz), q, gain_db)[1]
                    radius = max(radius, *np.abs(np.roots([float(term) for term in denominator])))
        return math.ceil(math.log(INAUDIBLE) / math.log(radius)) if radius > 0 else 2


class ReverbInjector(RatedAugmentation):
    """The sound of a room. wav: (B, C, T) -> same shape and dtype; what rings on after frame T is cut off.

    The room is noise that dies away, anew for each item and channel, or one of the recorded impulse responses under
    `path`. Either is scaled to an energy of 1, so that noise keeps its loudness.

    Args:
        sample_rate_hz: sample rate of the audio. None: that of the dataset.
        rt60_seconds: time in which the reverberation falls by 60 dB, a number or [low, high], 0.01 to 20; not used with
            `path`.
        wet: share of the reverberation, a number or [low, high], 0 to 1; the rest is the sound itself.
        path: a file or a folder of impulse responses at that sample rate, mono or with the channels of the audio.
        probability: share of the items that are changed.
        input_bits: bits of an integer sample. None: those of the dataset.
    """

    transforms = True

    def __init__(
        self, *, sample_rate_hz: int | None = None, rt60_seconds: Span = (0.2, 1.0), wet: Span = (0.1, 0.5),
        path: Path | None = None, probability: float = 1.0, input_bits: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(sample_rate_hz=sample_rate_hz, probability=probability, input_bits=input_bits)
        self.rt60_seconds = span("rt60_seconds", rt60_seconds, 0.01, 20)
        self.wet = span("wet", wet, 0, 1)
        self.path = None if path is None else Path(path)
        self.recorded: Tensor | None = None
        if sample_rate_hz is not None:
            self.tune(sample_rate_hz)

    def tune(self, sample_rate_hz: int) -> None:
        """Read the recorded impulses.

        Raises:
            ValueError: one cannot be read, or is not of that rate.
        """
        if self.path is not None:
            self.recorded = read_impulses(self.path, sample_rate_hz)

    def change(self, x: Tensor) -> Tensor:
        """x: (B, C, T) -> (1 - wet) x + wet (x in the room).

        Raises:
            ValueError: the recorded impulses have other channels.
        """
        wet = self.draw_span(x, self.wet).to(x.dtype)
        impulses = self.impulses(x)
        size = fast_size(x.shape[-1] + impulses.shape[-1])
        spectrum = torch.fft.rfft(x, n=size) * torch.fft.rfft(impulses, n=size)
        return torch.lerp(x, torch.fft.irfft(spectrum, n=size)[..., : x.shape[-1]], wet)

    def impulses(self, x: Tensor) -> Tensor:
        """x: (B, C, T) -> a room for each item: (B, C or 1, L), of x's dtype."""
        if self.recorded is not None:
            return self._recorded(x)
        assert self.sample_rate_hz is not None  # held by require
        num_frames = math.ceil(self.rt60_seconds[1] * self.sample_rate_hz)
        rt60_frames = self.draw_log_span(x, self.rt60_seconds) * self.sample_rate_hz
        decay = (torch.arange(num_frames, device=x.device) * (-math.log(1000) / rt60_frames)).exp()
        noise = self.draw_normal(x, x.shape[1], num_frames) * decay
        return (noise / noise.square().sum(-1, keepdim=True).sqrt()).to(x.dtype)

    def _recorded(self, x: Tensor) -> Tensor:
        assert self.recorded is not None
        num_channels = self.recorded.shape[1]
        if num_channels not in (1, x.shape[1]):
            raise ValueError(f"expected audio of {num_channels} channels, as the impulses have, got {tuple(x.shape)}")
        self.recorded = self.recorded.to(x.device)
        return self.recorded[self.draw_integers(x, 0, len(self.recorded))].to(x.dtype)


def read_impulses(path: Path, sample_rate_hz: int) -> Tensor:
    """Impulse responses from a file or a folder: (N, C, L) float64, each of energy 1 a channel, zeros after its end.

    Raises:
        ValueError: there is none, or one is silent, unreadable, of another rate or with other channels than the first.
    """
    found = sorted(path.rglob("*")) if path.is_dir() else [path]
    files = [file for file in found if file.suffix.lower() in IMPULSE_SUFFIXES and file.is_file()]
    if not files:
        raise ValueError(f"path {path}: there is no impulse response ({', '.join(IMPULSE_SUFFIXES)})")
    impulses = [_read_impulse(file, sample_rate_hz) for file in files]
    for file, impulse in zip(files, impulses, strict=True):
        if len(impulse) != len(impulses[0]):
            raise ValueError(f"path {file}: {len(impulse)} channels, but {files[0]} has {len(impulses[0])}")
    longest = max(impulse.shape[1] for impulse in impulses)
    return torch.stack([torch.nn.functional.pad(impulse, (0, longest - impulse.shape[1])) for impulse in impulses])


def _read_impulse(file: Path, sample_rate_hz: int) -> Tensor:
    import soundfile

    try:
        samples, rate_hz = soundfile.read(str(file), always_2d=True)
    except (OSError, soundfile.SoundFileError) as error:
        raise ValueError(f"path {file}: cannot be read: {error}") from error
    if rate_hz != sample_rate_hz:
        raise ValueError(f"path {file}: {rate_hz} Hz, but the audio has {sample_rate_hz} Hz: resample it")
    impulse = torch.from_numpy(samples.T.copy())
    energy = impulse.square().sum(1, keepdim=True)
    if impulse.shape[1] == 0 or not bool((energy > 0).all()):
        raise ValueError(f"path {file}: a channel is silent")
    return impulse / energy.sqrt()
