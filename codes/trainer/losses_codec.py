"""Losses of codecs, and what validation reports of one: SI-SDR, mel distance, use of the codebooks, bitrate.

The adversarial ones are `generator_gan` and `discriminator_gan` with `gan_type: hinge`; shares of the gradient in place
of weights are the network `gradient_balancer`'s.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from codes import mel
from codes.trainer.losses import Figure, Loss, LossValue, PixLoss

LEAST = 1e-8


def si_sdr(real: Tensor, fake: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al., 2019). real, fake: (..., T) -> (...)."""
    real, fake = (value.float() - value.float().mean(-1, keepdim=True) for value in (real, fake))
    scale = (real * fake).sum(-1, keepdim=True) / real.square().sum(-1, keepdim=True).clamp(min=LEAST)
    target = scale * real
    ratio = target.square().sum(-1).clamp(min=LEAST) / (fake - target).square().sum(-1).clamp(min=LEAST)
    return 10 * ratio.log10()


class WaveformLoss(PixLoss):
    """Distance of two sounds, sample by sample; validation also reports SI-SDR in dB. real, fake: (B, C, T).

    Args:
        criterion: l1 (absolute) or l2 (square)
    """

    def __init__(self, *, criterion: Literal["l1", "l2"] = "l1") -> None:
        super().__init__(criterion=criterion)

    def figures(self, real: Tensor, fake: Tensor, mask: Tensor | None = None) -> Mapping[str, Figure]:
        """SI-SDR over all channels of an item."""
        ratios = si_sdr(real.flatten(1), fake.flatten(1))
        return {"si_sdr_db": Figure(ratios.sum(), len(ratios))}


class MelDistanceLoss(Loss):
    """Distance of log mel spectrograms in several resolutions, in decades of power. real, fake: (B, [C,] T) float.

    The mean over windows of the mean absolute difference of log10 powers (as in DAC; Kumar et al., 2023). A window of n
    samples has n / 8 bands, at most 80, and the hop is a quarter of it.

    Args:
        sample_rate_hz: of the audio
        windows: lengths in samples
    """

    def __init__(self, *, sample_rate_hz: int, windows: list[int] | None = None) -> None:
        self.sample_rate_hz = sample_rate_hz
        self.windows = [2048, 1024, 512, 256, 128, 64] if windows is None else windows
        if sample_rate_hz < 1:
            raise ValueError(f"sample_rate_hz must be 1 or more, got {sample_rate_hz}")
        if not self.windows or min(self.windows) < 16 or any(window % 4 for window in self.windows):
            raise ValueError(f"windows must be multiples of 4, 16 or more, got {self.windows}")

    def forward(self, real: Tensor, fake: Tensor) -> LossValue:
        """The sum over items of their distances, and how many they are."""
        if real.shape != fake.shape:
            raise ValueError(f"mel_distance: real {tuple(real.shape)} and fake {tuple(fake.shape)} differ in shape")
        with torch.autocast(real.device.type, enabled=False):
            return self.distances(real, fake).sum(), len(real)

    def distances(self, real: Tensor, fake: Tensor) -> Tensor:
        """real, fake: (B, C, T) or (B, T) -> (B,), differentiable in both."""
        if real.dim() == 2:
            real, fake = real[:, None], fake[:, None]
        found = torch.stack(
            [(self._levels(real, n) - self._levels(fake, n)).abs().mean((1, 2, 3)) for n in self.windows]
        )
        return found.mean(0)

    def _levels(self, wav: Tensor, window: int) -> Tensor:
        bands = min(80, window // 8)
        return mel.log_mel(wav, self.sample_rate_hz, window=window, hop=window // 4, bands=bands)


class FeatureMatchingLoss(Loss):
    """How far apart a discriminator's features of two sounds are. real, fake: lists of (B, ...), of all its layers.

    Each layer's mean absolute difference, divided by the mean size of the real ones (Défossez et al., 2022); the mean
    over layers. No gradient flows to `real`.
    """

    def forward(self, real: list[Tensor], fake: list[Tensor]) -> LossValue:
        """The distance, weighed by the items."""
        if [value.shape for value in real] != [value.shape for value in fake]:
            raise ValueError(f"feature_matching: {len(real)} and {len(fake)} features, or their shapes, differ")
        distances = [self._distance(one.detach().float(), other.float()) for one, other in zip(real, fake, strict=True)]
        return torch.stack(distances).mean() * len(real[0]), len(real[0])

    def _distance(self, real: Tensor, fake: Tensor) -> Tensor:
        return (real - fake).abs().mean() / real.abs().mean().clamp(min=LEAST)


class CommitmentLoss(Loss):
    """What a codec's vectors lose to their codes, and what validation reports of the codes. commitment: (B,).

    With codes: (B, K, F), validation reports the bits per second that they take, the share of the codebooks' codes that
    are used, and for each codebook its perplexity and use; with wav: (B, C, T) as well, SI-SDR and mel distance of the
    audio that the first 1 .. K codebooks decode to.

    Args:
        codec: name of the network under `networks`.
    """

    def __init__(self, *, codec: nn.Module) -> None:
        if not hasattr(codec, "bits_per_second"):
            raise ValueError(f"codec must be one of audio: {type(codec).__name__} is not")
        self.codec: Any = codec

    def forward(self, commitment: Tensor, codes: Tensor | None = None, wav: Tensor | None = None) -> LossValue:
        """The sum over items, and how many they are."""
        return commitment.float().sum(), len(commitment)

    def figures(
        self, commitment: Tensor, codes: Tensor | None = None, wav: Tensor | None = None
    ) -> Mapping[str, Figure]:
        """Bitrate, perplexity and use of the codebooks, and the quality by codebooks."""
        if codes is None:
            return {}
        size = self.codec.codebook_size
        histogram = torch.stack([torch.bincount(one.flatten(), minlength=size) for one in codes.unbind(1)])
        rate = torch.tensor(float(self.codec.bits_per_second(codes.shape[1])), device=codes.device)
        found = {
            "bits_per_second": Figure(rate),
            "codes_used": Figure(histogram.flatten(), kind="usage"),
            "perplexity_by_codebook": Figure(histogram, kind="perplexity"),
            "use_by_codebook": Figure(histogram, kind="usage"),
        }
        return found if wav is None else found | self._by_codebooks(codes, wav)

    def _by_codebooks(self, codes: Tensor, wav: Tensor) -> dict[str, Figure]:
        measure = MelDistanceLoss(sample_rate_hz=self.codec.sample_rate_hz)
        ratios, distances = [], []
        for number in range(1, codes.shape[1] + 1):
            made = self.codec.decode(codes[:, :number])[..., : wav.shape[-1]].float()
            ratios.append(si_sdr(wav.flatten(1), made.flatten(1)).sum())
            distances.append(measure.distances(wav, made).sum())
        return {
            "si_sdr_db_by_codebooks": Figure(torch.stack(ratios), len(wav)),
            "mel_distance_by_codebooks": Figure(torch.stack(distances), len(wav)),
        }


class DistillationLoss(Loss):
    """How far what a codec's first codebook tells is from features of speech. told: (B, F, D), features: (B, N, D).

    The features are brought to the codec's F frames, linearly. With `axis: time` each number's course over time is
    compared, with `axis: features` each frame's vector: minus the log-sigmoid of the cosine (Zhang et al.,
    "SpeechTokenizer", 2023, which found time better).

    Args:
        axis: time or features
    """

    def __init__(self, *, axis: Literal["time", "features"] = "time") -> None:
        self.dim = 1 if axis == "time" else 2

    def forward(self, told: Tensor, features: Tensor) -> LossValue:
        """The sum over items, and how many they are."""
        return -functional.logsigmoid(self._cosines(told, features)).mean(1).sum(), len(told)

    def figures(self, told: Tensor, features: Tensor) -> Mapping[str, Figure]:
        """The mean cosine, which is easier to read."""
        return {"cosine": Figure(self._cosines(told, features).mean(1).sum(), len(told))}

    def _cosines(self, told: Tensor, features: Tensor) -> Tensor:
        if told.dim() != 3 or features.dim() != 3 or told.shape[::2] != features.shape[::2]:
            shapes = f"{tuple(told.shape)} and {tuple(features.shape)}"
            raise ValueError(f"distillation: expected told (B, F, D) and features (B, N, D), got {shapes}")
        given = features.detach().float().transpose(1, 2)
        given = functional.interpolate(given, told.shape[1], mode="linear", align_corners=False).transpose(1, 2)
        return functional.cosine_similarity(told.float(), given, dim=self.dim)
