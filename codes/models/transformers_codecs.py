"""Codecs of the package transformers behind our interface: EnCodec (24 kHz mono, 48 kHz stereo), DAC and Mimi.

Each is called without the chunks and loudness factors of its library: one code of each codebook a hop, whatever the
length. EnCodec at 48 kHz was trained on seconds of audio divided by their loudness, which its files carry beside the
codes. Codes alone are to say what is heard here, so that factor is a fixed one, of audio of usual loudness.
"""

from math import ceil
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from codes.models.audio_codec import AudioCodec
from codes.models.transformers_weights import load_pretrained

USUAL_LEVEL = 0.1  # root mean square of speech and music as they are published: 20 dB below full scale


class TransformersCodec(AudioCodec, abstract=True):
    """A model of transformers as a codec.

    Args:
        model: the model, with its weights.
    """

    family: ClassVar[str]  # transformers' name of the architecture
    class_name: ClassVar[str]  # and of its class

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model: Any = model.eval()
        config = model.config
        self.sample_rate_hz, self.codebook_size = int(config.sampling_rate), int(config.codebook_size)
        self.num_channels = int(getattr(config, "audio_channels", 1))
        self.hop_samples, self.num_codebooks = self._hop(config), self._codebooks(config)

    def _hop(self, config: Any) -> int:
        return int(config.hop_length)

    def _codebooks(self, config: Any) -> int:
        raise NotImplementedError

    def _encode(self, wav: Tensor, num_codebooks: int) -> Tensor:
        """wav (B, C, F * hop) -> codes (B, K, F)."""
        raise NotImplementedError

    def _decode(self, codes: Tensor) -> Tensor:
        """codes (B, K, F) -> wav (B, C, about F * hop)."""
        raise NotImplementedError

    def encode(self, wav: Tensor, *, num_codebooks: int | None = None) -> Tensor:
        """wav (B, C, T) float -> codes (B, K, F) int64; see `AudioCodec.encode`."""
        self.check_wav(wav)
        frames = ceil(wav.shape[2] / self.hop_samples)
        whole = fitted(wav, frames * self.hop_samples)
        return fitted(self._encode(whole, self.checked_codebooks(num_codebooks)), frames).long()

    def decode(self, codes: Tensor) -> Tensor:
        """codes (B, K, F) -> wav (B, C, F * hop_samples) float; see `AudioCodec.decode`."""
        self.check_codes(codes)
        return fitted(self._decode(codes.long()), codes.shape[2] * self.hop_samples)


class EncodecModelCodec(TransformersCodec, abstract=True):
    """EnCodec (Défossez et al., 2022): EncodecModel."""

    family, class_name = "encodec", "EncodecModel"

    def _codebooks(self, config: Any) -> int:
        return len(self.model.quantizer.layers)

    @property
    def _level(self) -> float:
        return USUAL_LEVEL if self.model.config.normalize else 1.0

    def _encode(self, wav: Tensor, num_codebooks: int) -> Tensor:
        residual = self.model.encoder(wav / self._level)
        codes = []
        for layer in self.model.quantizer.layers[:num_codebooks]:
            codes.append(layer.encode(residual))
            residual = residual - layer.decode(codes[-1])
        return torch.stack(codes, 1)

    def _decode(self, codes: Tensor) -> Tensor:
        return self.model.decoder(self.model.quantizer.decode(codes.transpose(0, 1))) * self._level


class DacModelCodec(TransformersCodec, abstract=True):
    """DAC (Kumar et al., 2023): DacModel."""

    family, class_name = "dac", "DacModel"

    def _codebooks(self, config: Any) -> int:
        return int(config.n_codebooks)

    def _encode(self, wav: Tensor, num_codebooks: int) -> Tensor:
        return self.model.encode(wav, n_quantizers=num_codebooks).audio_codes

    def _decode(self, codes: Tensor) -> Tensor:
        return self.model.decode(audio_codes=codes).audio_values[:, None]


class MimiModelCodec(TransformersCodec, abstract=True):
    """Mimi (Défossez et al., 2024): MimiModel. Its first codebook was distilled from features of speech."""

    family, class_name = "mimi", "MimiModel"

    def _hop(self, config: Any) -> int:
        return round(config.sampling_rate / config.frame_rate)

    def _codebooks(self, config: Any) -> int:
        return int(config.num_quantizers)

    def _encode(self, wav: Tensor, num_codebooks: int) -> Tensor:
        return self.model.encode(wav, num_quantizers=num_codebooks).audio_codes

    def _decode(self, codes: Tensor) -> Tensor:
        return self.model.decode(codes).audio_values


FAMILIES = {kind.family: kind for kind in (EncodecModelCodec, DacModelCodec, MimiModelCodec)}


def load_transformers_codec(source: str, family: str) -> TransformersCodec:
    """A codec of transformers with its weights.

    Args:
        source: a folder, or a name on the hub.
        family: its architecture: encodec, dac or mimi.

    Raises:
        ValueError: it is not there, or lacks weights.
    """
    kind = FAMILIES[family]
    return kind(load_pretrained(source, family, kind.class_name))


def fitted(value: Tensor, length: int) -> Tensor:
    """The last axis cut, or filled up with zeros, to a length."""
    missing = length - value.shape[-1]
    return nn.functional.pad(value, (0, missing)) if missing > 0 else value[..., :length]
