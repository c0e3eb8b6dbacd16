"""The base class of codecs that turn audio into codes and back: what injectors, scripts and datasets of codes rely on.

A codec says what audio it takes and what codes it makes; `encode` and `decode` are all that others call. A codec of
another library becomes one of ours by these five numbers and two functions.
"""

from math import log2

import torch
from torch import Tensor

from codes.models.network import Network


class AudioCodec(Network, abstract=True):
    """A network whose codes are frames of `num_codebooks` whole numbers, coarse first.

    Attributes:
        sample_rate_hz: of the audio that it codes.
        num_channels: of the audio that it codes.
        num_codebooks: codes in a frame at its best quality.
        codebook_size: a code lies in 0 .. codebook_size - 1.
        hop_samples: samples (of each channel) that a frame stands for.
    """

    sample_rate_hz: int
    num_channels: int
    num_codebooks: int
    codebook_size: int
    hop_samples: int

    def encode(self, wav: Tensor, *, num_codebooks: int | None = None) -> Tensor:
        """Audio to codes; zeros fill the last frame.

        Args:
            wav: (B, C, T) float in [-1, 1], T of 1 or more.
            num_codebooks: how many codebooks, the first ones (default: all).

        Returns:
            (B, K, F) int64, F = T / hop_samples rounded up.

        Raises:
            ValueError: another shape, integers, or a number of codebooks that it does not have.
        """
        raise NotImplementedError(f"{type(self).__name__} must define encode(self, wav, *, num_codebooks=None)")

    def decode(self, codes: Tensor) -> Tensor:
        """Codes to audio.

        Args:
            codes: (B, K, F) integers; K from 1 to num_codebooks.

        Returns:
            (B, C, F * hop_samples) float.

        Raises:
            ValueError: another shape, or codes out of range.
        """
        raise NotImplementedError(f"{type(self).__name__} must define decode(self, codes)")

    @property
    def frame_rate_hz(self) -> float:
        """Frames in a second."""
        return self.sample_rate_hz / self.hop_samples

    def bits_per_second(self, num_codebooks: int | None = None) -> float:
        """What so many codebooks cost (default: all), each code at the full log2(codebook_size) bits."""
        return self.checked_codebooks(num_codebooks) * self.frame_rate_hz * log2(self.codebook_size)

    def checked_codebooks(self, num_codebooks: int | None) -> int:
        """How many codebooks are meant; None: all.

        Raises:
            ValueError: it has not that many.
        """
        if num_codebooks is None:
            return self.num_codebooks
        if not 1 <= num_codebooks <= self.num_codebooks:
            raise ValueError(f"num_codebooks is {num_codebooks}: this codec has 1 to {self.num_codebooks}")
        return num_codebooks

    def check_wav(self, wav: Tensor) -> None:
        """Refuse what is no audio for this codec.

        Raises:
            ValueError: not (B, C, T) with the codec's channels, without frames, or integers.
        """
        if wav.dim() != 3 or wav.shape[1] != self.num_channels or not wav.is_floating_point():
            raise ValueError(
                f"expected float audio (B, {self.num_channels}, T) at {self.sample_rate_hz} Hz in [-1, 1], "
                f"got {wav.dtype} {tuple(wav.shape)}"
            )
        if wav.shape[2] < 1:
            raise ValueError("there is nothing to encode: the audio has no frames")

    def check_codes(self, codes: Tensor) -> None:
        """Refuse what are no codes of this codec; it waits for the device, so no training step may call it.

        Raises:
            ValueError: not (B, K, F) integers, other codebooks, or a code out of range.
        """
        if codes.dim() != 3 or codes.is_floating_point() or codes.dtype is torch.bool:
            raise ValueError(f"expected integer codes (B, K, F), got {codes.dtype} {tuple(codes.shape)}")
        self.checked_codebooks(codes.shape[1])
        if codes.numel():
            low, high = (int(value) for value in torch.aminmax(codes))
            if low < 0 or high >= self.codebook_size:
                raise ValueError(f"codes must lie in 0 .. {self.codebook_size - 1}, got {low} .. {high}")
