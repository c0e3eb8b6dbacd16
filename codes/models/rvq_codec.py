"""`rvq_codec`: a neural codec of our own. SEANet makes a vector of each hop of audio, residual codebooks code it.

It is trained by two steps that follow each other (experiments/codec.yml): the codec, against what discriminators and
spectra say of what it decodes, then the discriminators (`codec_discriminators.py`). With `distilled_dim` its first
codebook is also trained to tell what features of speech are (SpeechTokenizer; Zhang et al., 2023): its codes are then
semantic tokens, the others add how it sounds.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from codes.models.audio_codec import AudioCodec
from codes.models.rvq import ResidualQuantizer
from codes.models.seanet import SeanetDecoder, SeanetEncoder, SeanetSizes, padded


class RvqCodec(AudioCodec):
    """SEANet with residual vector quantisation.

    The defaults are EnCodec's at 24 kHz with 8 codebooks: 75 frames in a second, 6 kbit/s.

    Args:
        sample_rate_hz: of the audio; nothing is resampled here.
        num_channels: of the audio.
        causal: code and audio depend on the past alone.
        filters: channels of the outermost convolution; each stride doubles them.
        ratios: strides of the decoder, first one first; their product is the hop; null: [8, 5, 4, 2].
        dim: numbers in the vector that is quantised.
        lstm_layers: 0 for none.
        residual_layers: blocks before each stride.
        norm: weight: weight normalisation; group: over the whole excerpt, only where causal is false.
        num_codebooks: codes in a frame.
        codebook_size: codes in a codebook.
        decay: of the codebooks' moving averages, per step.
        restart_share: a code that is used less than this share of an even use starts again; 0: never.
        quantizer_dropout: share of the items of a training batch that use only the first codebooks, 1 to all.
        distilled_dim: numbers in the features that the first codebook is to tell; null: no distillation.
    """

    def __init__(
        self, *, sample_rate_hz: int = 24_000, num_channels: int = 1, causal: bool = True, filters: int = 32,
        ratios: list[int] | None = None, dim: int = 128, lstm_layers: int = 2, residual_layers: int = 1,
        norm: Literal["weight", "group"] = "weight", num_codebooks: int = 8, codebook_size: int = 1024,
        decay: float = 0.99, restart_share: float = 0.1, quantizer_dropout: float = 0.5,
        distilled_dim: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        _check(sample_rate_hz, num_codebooks, codebook_size, decay, restart_share, quantizer_dropout, distilled_dim)
        ratios = ratios or [8, 5, 4, 2]
        sizes = SeanetSizes(num_channels, filters, ratios, dim, lstm_layers, residual_layers, causal, norm)
        self.sample_rate_hz, self.num_channels, self.hop_samples = sample_rate_hz, num_channels, sizes.hop
        self.num_codebooks, self.codebook_size = num_codebooks, codebook_size
        self.encoder, self.decoder = SeanetEncoder(sizes), SeanetDecoder(sizes)
        self.quantizer = ResidualQuantizer(
            num_codebooks, codebook_size, dim, decay, restart_share, quantizer_dropout
        )  # fmt: skip
        self.telling = nn.Linear(dim, distilled_dim) if distilled_dim else None

    def forward(self, wav: Tensor) -> tuple[Tensor, ...]:
        """What the codec makes of audio, for training.

        Args:
            wav: (B, C, T) float.

        Returns:
            made: (B, C, T) float, decoded from the codes; codes: (B, K, F) int64, all codebooks; commitment: (B,)
            float; with distilled_dim also told: (B, F, distilled_dim), what the first codebook tells.
        """
        self.check_wav(wav)
        found = self.quantizer(self.encoder(padded(wav, self.hop_samples)))
        made = self.decoder(found.vectors)[..., : wav.shape[-1]]
        if self.telling is None:
            return made, found.codes, found.commitment
        return made, found.codes, found.commitment, self.telling(found.first.transpose(1, 2))

    @torch.no_grad()
    def encode(self, wav: Tensor, *, num_codebooks: int | None = None) -> Tensor:
        """wav: (B, C, T) float -> codes (B, K, F) int64, F = T / hop_samples rounded up; see `AudioCodec`."""
        self.check_wav(wav)
        number = self.checked_codebooks(num_codebooks)
        return self.quantizer.encode(self.encoder(padded(wav, self.hop_samples)), number)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """codes: (B, K, F) integers -> wav (B, C, F * hop_samples) float; see `AudioCodec`."""
        self.check_codes(codes)
        return self.decoder(self.quantizer.decode(codes))


def _check(
    sample_rate_hz: int, num_codebooks: int, codebook_size: int, decay: float, restart_share: float, dropout: float,
    distilled_dim: int | None,
) -> None:  # fmt: skip
    sizes = {"sample_rate_hz": sample_rate_hz, "num_codebooks": num_codebooks, "codebook_size": codebook_size}
    for name, size in (sizes | {"distilled_dim": distilled_dim or 1}).items():
        if size < 1:
            raise ValueError(f"{name} is {size}: it must be 1 or more")
    for name, share in {"decay": decay, "restart_share": restart_share}.items():
        if not 0 <= share < 1:
            raise ValueError(f"{name} is {share}: it must be 0 or more and below 1")
    if not 0 <= dropout <= 1:
        raise ValueError(f"quantizer_dropout is {dropout}: it must be 0 to 1")
