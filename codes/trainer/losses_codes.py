"""The loss of language models over the codes of a codec, and what validation reports of it."""

import math
from collections.abc import Mapping

from torch import Tensor

from codes.trainer.losses import CodeLengthLoss, Figure, LossValue, masked_sum


class CodebookCodeLengthLoss(CodeLengthLoss):
    """Code length of codes by codebook. nats, codes: (B, K, F), as `restore_codes` and the codec give them.

    The loss is the mean over all codes, in nats a code. Validation also reports the bits of a code of each codebook and
    bits per second; the run compares them with unigrams and bigrams of the same codes. bits_per_sample is per sample of
    audio.

    Args:
        frame_rate_hz: frames in a second of audio
        sample_rate_hz: of that audio
        num_codebooks: codes in a frame
    """

    def __init__(self, *, frame_rate_hz: float, sample_rate_hz: int, num_codebooks: int) -> None:
        if frame_rate_hz <= 0 or sample_rate_hz < 1 or num_codebooks < 1:
            raise ValueError("frame_rate_hz, sample_rate_hz and num_codebooks must be above 0")
        super().__init__(tokens_per_sample=frame_rate_hz * num_codebooks / sample_rate_hz)
        self.codes_per_second, self.num_codebooks = frame_rate_hz * num_codebooks, num_codebooks

    def forward(self, nats: Tensor, codes: Tensor) -> LossValue:
        """Total code length in nats and the codes that it is of.

        Raises:
            ValueError: the shapes differ, or have another number of codebooks.
        """
        if nats.shape != codes.shape or nats.dim() != 3 or nats.shape[1] != self.num_codebooks:
            shapes = f"nats {tuple(nats.shape)} and codes {tuple(codes.shape)}"
            raise ValueError(f"codebook_code_length: {shapes}: both must be (B, {self.num_codebooks}, F)")
        return masked_sum(nats, None)

    def figures(self, nats: Tensor, codes: Tensor) -> Mapping[str, Figure]:
        """Bits a code by codebook, and bits per second."""
        bits = nats.float() / math.log(2)
        count = bits.shape[0] * bits.shape[2]
        found = {f"bits_codebook_{k}": Figure(row.sum(), count) for k, row in enumerate(bits.unbind(1))}
        return {**found, "bits_per_second": Figure(bits.sum() * self.codes_per_second, bits.numel())}
