"""Audio to the codes of a codec and back, live or from a cache. The codec is a network of the experiment.

Both injectors have the same way back, so that a model that was trained on cached codes is heard like one that was
trained on audio.
"""

from math import ceil
from typing import Any

import torch
from torch import Tensor, nn

from codes.trainer.injector import Injector
from codes.trainer.injectors.pcm import samples_and_bits


def real_audio(wav: Tensor, input_bits: int | None, rate_hz: int, wanted_hz: int) -> Tensor:
    """wav: (..., T) integer or float -> float32, integers brought to [-1, 1), at the wanted sample rate.

    Raises:
        ValueError: integers that `samples_and_bits` refuses.
    """
    if not wav.is_floating_point():
        samples, bits = samples_and_bits(wav, input_bits)
        wav = samples.float() * 2.0 ** (1 - bits)
    return resampled(wav.float(), rate_hz, wanted_hz)


def resampled(wav: Tensor, rate_hz: int, wanted_hz: int) -> Tensor:
    """wav: (..., T) float32 -> float32 at the wanted sample rate, under autocast as well."""
    if rate_hz == wanted_hz:
        return wav
    from torchaudio.functional import resample

    with torch.autocast(wav.device.type, enabled=False):
        return resample(wav, rate_hz, wanted_hz)


class CodecInjector(Injector, abstract=True):
    """What lies between audio and codes.

    Args:
        codec: name of the codec under `networks`.
        each_channel: a codec of one channel codes each channel by itself: (B, C K, F), first all codebooks of the
            first channel.
    """

    def __init__(self, *, codec: nn.Module, each_channel: bool = False) -> None:
        if not all(hasattr(codec, name) for name in ("encode", "decode", "hop_samples")):
            raise ValueError(f"codec must name a network that is a codec, {type(codec).__name__} is none")
        self.codec: Any = codec
        if each_channel and self.codec.num_channels != 1:
            raise ValueError(f"each_channel is for codecs of one channel, this one has {self.codec.num_channels}")
        self.each_channel = each_channel

    def to_codes(self, wav: Tensor) -> Tensor:
        """wav: (B, C, T) float in [-1, 1] at the codec's rate -> codes: (B, K, F) int64."""
        with torch.no_grad():
            if not self.each_channel:
                return self.codec.encode(wav)
            codes = self.codec.encode(wav.flatten(0, 1)[:, None])
        return codes.unflatten(0, wav.shape[:2]).flatten(1, 2)

    def to_audio(self, codes: Tensor) -> Tensor:
        """codes: (B, K, F) integer -> wav: (B, C, F * hop) float32.

        Raises:
            ValueError: the codec says that they are no codes of its.
        """
        with torch.no_grad():
            if not self.each_channel:
                return self.codec.decode(codes).float()
            num_codebooks = self.codec.num_codebooks
            if codes.dim() != 3 or codes.shape[1] % num_codebooks:
                raise ValueError(f"expected codes (B, C * {num_codebooks}, F), got {tuple(codes.shape)}")
            channels = codes.shape[1] // num_codebooks
            wav = self.codec.decode(codes.unflatten(1, (channels, num_codebooks)).flatten(0, 1))
        return wav.float().view(len(codes), channels, -1)


class EncodecCodesInjector(CodecInjector):
    """Audio to codes. wav: (B, C, T) integer or float -> codes: (B, K, F) int64, F = T / hop rounded up.

    The inverse decodes: (B, K, F) -> wav (B, C, F * hop) float32 in about [-1, 1].

    Args:
        codec: name of the codec under `networks`.
        each_channel: a codec of one channel codes each channel by itself: (B, C K, F), first all codebooks of the
            first channel.
        resample: audio of another rate than the codec's is resampled, and back on the way back; false: refused.
        audio_rate_hz: sample rate of the audio; null: the dataset's.
        input_bits: depth of integer samples; null: the dataset's, or that of their dtype.
    """

    def __init__(
        self,
        *,
        codec: nn.Module,
        each_channel: bool = False,
        resample: bool = False,
        audio_rate_hz: int | None = None,
        input_bits: int | None = None,
    ) -> None:
        super().__init__(codec=codec, each_channel=each_channel)
        self.resample, self.audio_rate_hz, self.input_bits = resample, audio_rate_hz, input_bits
        if audio_rate_hz is not None:
            self._check_rate(audio_rate_hz)

    def meet(self, dataset: Any) -> None:
        """Hold the dataset's audio to what the codec takes.

        Raises:
            ValueError: another sample rate or number of channels.
        """
        recordings = getattr(dataset, "recordings", None)
        if self.audio_rate_hz is None and recordings:
            self._check_rate(recordings[0].sample_rate_hz)
            self.audio_rate_hz = recordings[0].sample_rate_hz
        channels = getattr(dataset, "num_channels", None)
        if channels is not None:
            self._check_channels(channels)

    def _check_rate(self, rate_hz: int) -> None:
        wanted = self.codec.sample_rate_hz
        if rate_hz != wanted and not self.resample:
            raise ValueError(
                f"audio_rate_hz: the audio has {rate_hz} Hz, the codec takes {wanted} Hz: set sample_rate: {wanted} in "
                "the dataset, or resample: true here"
            )

    def _check_channels(self, channels: int) -> None:
        wanted = self.codec.num_channels
        if channels != wanted and not self.each_channel:
            hint = ", or each_channel: true here" if wanted == 1 else ""
            what = f"codec: the audio has {channels} channel(s), the codec takes {wanted}"
            raise ValueError(f"{what}: set channels in the dataset{hint}")

    def forward(self, wav: Tensor) -> Tensor:
        """wav: (B, C, T) integer or float -> codes: (B, K, F) int64.

        Raises:
            ValueError: another number of channels, or a sample rate that is not known or not the codec's.
        """
        if wav.dim() != 3:
            raise ValueError(f"expected wav (B, C, T), got {tuple(wav.shape)}")
        self._check_channels(wav.shape[1])
        return self.to_codes(real_audio(wav, self.input_bits, self._audio_rate(), self.codec.sample_rate_hz))

    def inverse(self, codes: Tensor) -> Tensor:
        """codes: (B, K, F) integer -> wav: (B, C, T) float32, T = F * hop at the codec's rate."""
        return resampled(self.to_audio(codes), self.codec.sample_rate_hz, self._audio_rate())

    def frames_of(self, num_samples: int) -> int:
        """Codec frames that so many samples of the audio make."""
        return ceil(num_samples * self.codec.sample_rate_hz / self._audio_rate() / self.codec.hop_samples)

    def _audio_rate(self) -> int:
        if self.audio_rate_hz is None:
            raise ValueError("audio_rate_hz is needed: the dataset does not say its sample rate")
        return self.audio_rate_hz


class CachedCodesInjector(CodecInjector):
    """Codes of a dataset of codes as they are; the way back is the codec's. codes: (B, K, F) -> (B, K, F) int64.

    Args:
        codec: name of the codec under `networks`; it must be the one that made them.
        each_channel: it coded each channel by itself.
    """

    def __init__(self, *, codec: nn.Module, each_channel: bool = False) -> None:
        super().__init__(codec=codec, each_channel=each_channel)

    def meet(self, dataset: Any) -> None:
        """Hold the dataset's codes to the codec.

        Raises:
            ValueError: they were made by another codec, or by other weights or settings of it.
        """
        made_by = getattr(dataset, "codec_hash", None)
        if made_by is None:
            raise ValueError("cached_codes wants a dataset of codes (mode: codes); for audio take encodec_codes")
        own = getattr(self.codec, "weights_hash", made_by)
        if own != made_by:
            raise ValueError(
                f"codec: the codes were made by other weights ({made_by[:12]}...) than it has ({own[:12]}...): encode "
                "the audio again with scripts/encode_audio.py, or name the codec that made them"
            )
        rows = self.codec.num_codebooks * (getattr(dataset, "coded_channels", 1) if self.each_channel else 1)
        if dataset.num_codebooks != rows:
            what = f"codec: it makes {rows} codebooks, the dataset gives {dataset.num_codebooks}"
            raise ValueError(f"{what}: set num_codebooks in both")

    def forward(self, codes: Tensor) -> Tensor:
        """codes: (B, K, F) integer -> (B, K, F) int64.

        Raises:
            ValueError: the shape or type is not that of codes.
        """
        if codes.dim() != 3 or codes.is_floating_point():
            raise ValueError(f"expected integer codes (B, K, F), got {codes.dtype} {tuple(codes.shape)}")
        return codes.long()

    def inverse(self, codes: Tensor) -> Tensor:
        """codes: (B, K, F) integer -> wav: (B, C, F * hop) float32 at the codec's rate."""
        return self.to_audio(codes)

    def frames_of(self, num_samples: int) -> int:
        """Codec frames that so many samples make."""
        return ceil(num_samples / self.codec.hop_samples)
