"""Losses: functions of some values of the state that return a sum and a count.

``forward(*values)`` returns ``(sum, count)``, so that micro-batches of unequal size weigh right, or a scalar, which
stands for a mean over the items of the micro-batch. A loss whose sum is a code length in nats says so with
``measures_bits``; the trainer then reports bits per sample. The names of forward()'s parameters are the keys by which
the YAML says where they come from. A whole loss::

    class AbsoluteErrorLoss(Loss):
        '''Mean absolute error. real, fake: (B, ...).'''

        def forward(self, real, fake):
            return (real - fake).abs().sum(), real.numel()

What is to be reported beside a loss in validation, and not minimised, comes from ``figures(*values)``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from codes.registry import Registered

LossValue = Tensor | tuple[Tensor, Tensor | float]


@dataclass(frozen=True)
class Figure:
    """Something that validation reports beside a loss; totals and counts add up over all batches.

    Args:
        total: a number, or a vector for a curve (or a histogram).
        count: what it is divided by, of the same shape or a number.
        kind: mean: total / count, element by element; entropy: that of the histogram `total`, in bits; perplexity: 2 to
            that, and usage: the share of its places that came, of the histogram or of each row of (K, V). frechet: the
            distance of two sets, each with its number of vectors, their sum and the sum of their outer products.
    """

    total: Tensor
    count: Tensor | float = 1.0
    kind: Literal["mean", "entropy", "perplexity", "usage", "frechet"] = "mean"


class Loss(Registered):
    """A training objective.

    ``measures_bits``: sum is a code length in nats and ``count / tokens_per_sample`` the audio samples that it codes.
    """

    kind: ClassVar[str] = "loss"
    measures_bits: ClassVar[bool] = False
    tokens_per_sample: float = 1.0

    def forward(self, *values: Any) -> LossValue:
        """The loss of a micro-batch as (sum, count), or as a mean over its items."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(self, ...)")

    def figures(self, *values: Any) -> Mapping[str, Figure]:
        """What validation reports beside the loss, by name; it gets the values that forward() gets."""
        return {}

    def __call__(self, *values: Any, **named: Any) -> LossValue:
        return self.forward(*values, **named)


def masked_sum(values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | float]:
    """Sum of the values where the mask (same shape, true or 1 where counted) allows, in fp32, and how many they are."""
    values = values.float()
    if mask is None:
        return values.sum(), values.numel()
    try:
        mask = mask.to(values.dtype).expand_as(values)
    except RuntimeError as error:
        raise ValueError(f"a mask {tuple(mask.shape)} does not fit values {tuple(values.shape)}") from error
    return (values * mask).sum(), mask.sum()


class DirectLoss(Loss):
    """Uses a value of the state as the loss, for networks that compute their own. key: any shape; its mean counts.

    A network that knows how many tokens its loss is of returns it as a pair (sum, count).

    Args:
        inverted: maximise it instead
    """

    def __init__(self, *, inverted: bool = False) -> None:
        self.inverted = inverted

    def forward(self, key: Tensor | tuple[Tensor, Tensor], mask: Tensor | None = None) -> LossValue:
        """Sum and count of the values that count."""
        total, count = key if isinstance(key, tuple) else masked_sum(key, mask)
        return (-total if self.inverted else total), count


class CodeLengthLoss(Loss):
    """Code length of the tokens in nats, as a language model over audio returns it. nats: (B, N) or (B, C, N).

    Reported as bits per audio sample: mean of nats / ln 2 x tokens_per_sample. mask: same shape as nats.

    Validation also reports, in bits per sample, what the options ask for; with direction: (B,), as `channel_split`
    gives it, the figure of each direction; and with target: the integer codes of the audio samples that are predicted,
    of any shape, their marginal entropy: what a model needs that has learned nothing but the histogram. The entropy of
    few samples is an underestimate.

    Args:
        tokens_per_sample: tokens that code one sample of one channel (2 for 16-bit samples as two bytes)
        last_part: share of the window, at its end, whose bits are reported by themselves; null: not
        curve_points: points of the curve of bits by position in the window; 0: none
    """

    measures_bits = True

    def __init__(
        self, *, tokens_per_sample: float = 1.0, last_part: float | None = None, curve_points: int = 0
    ) -> None:
        if tokens_per_sample <= 0:
            raise ValueError(f"tokens_per_sample must be above 0, got {tokens_per_sample}")
        if last_part is not None and not 0 < last_part <= 1:
            raise ValueError(f"last_part must be above 0 and at most 1, got {last_part}")
        if curve_points < 0:
            raise ValueError(f"curve_points must be 0 or more, got {curve_points}")
        self.tokens_per_sample = tokens_per_sample
        self.last_part, self.curve_points = last_part, curve_points

    def forward(
        self, nats: Tensor, mask: Tensor | None = None, direction: Tensor | None = None, target: Tensor | None = None
    ) -> LossValue:
        """Total code length in nats and the tokens that it codes."""
        if target is not None and round(target.numel() * self.tokens_per_sample) != nats.numel():
            what = f"nats {tuple(nats.shape)} do not code the samples of target {tuple(target.shape)}"
            raise ValueError(f"code_length: {what}, {self.tokens_per_sample:g} tokens each")
        return masked_sum(nats, mask)

    def figures(
        self, nats: Tensor, mask: Tensor | None = None, direction: Tensor | None = None, target: Tensor | None = None
    ) -> Mapping[str, Figure]:
        """Bits of the last part, by position, and by direction; the marginal entropy of the target."""
        bits = nats.float() * (self.tokens_per_sample / math.log(2))
        counted = torch.ones_like(bits) if mask is None else mask.to(bits.dtype).expand_as(bits)
        bits, length = bits * counted, bits.shape[-1]
        found: dict[str, Figure] = {}
        if self.last_part is not None:
            start = length - max(1, round(length * self.last_part))
            found["bits_last_part"] = Figure(bits[..., start:].sum(), counted[..., start:].sum())
        if self.curve_points:
            place = torch.arange(length, device=bits.device) * self.curve_points // length
            sums = [value.reshape(-1, length).sum(0) for value in (bits, counted)]
            pooled = [value.new_zeros(self.curve_points).index_add_(0, place, value) for value in sums]
            found["bits_by_position"] = Figure(pooled[0], pooled[1])
        if direction is not None:
            for number, name in enumerate(("left_to_right", "right_to_left")):
                mine = (direction == number).to(bits.dtype)
                of_items = [(value.flatten(1).sum(1) * mine).sum() for value in (bits, counted)]
                found[f"bits_{name}"] = Figure(of_items[0], of_items[1])
        if target is not None:
            found["marginal_entropy"] = Figure(torch.bincount(target.flatten().long()), kind="entropy")
        return found


class CrossEntropyLoss(Loss):
    """Cross-entropy of logits. logits: (B, T, V), labels: (B, T) integers; mask: (B, T).

    Args:
        tokens_per_sample: tokens that code one sample of one channel
        ignore_index: labels of this value do not count
        dim: the dimension of the logits that holds the V classes (DLAS's networks put it second: 1)
    """

    measures_bits = True

    def __init__(self, *, tokens_per_sample: float = 1.0, ignore_index: int = -100, dim: int = -1) -> None:
        self.tokens_per_sample = tokens_per_sample
        self.ignore_index = ignore_index
        self.dim = dim

    def forward(self, logits: Tensor, labels: Tensor, mask: Tensor | None = None) -> LossValue:
        """Total cross-entropy in nats and the labels that it codes."""
        logits = logits.movedim(self.dim, -1)
        if logits.shape[:-1] != labels.shape:
            raise ValueError(
                f"cross_entropy: logits {tuple(logits.shape)} (classes last) do not fit labels {tuple(labels.shape)}"
            )
        nats = F.cross_entropy(
            logits.reshape(-1, logits.shape[-1]).float(), labels.reshape(-1).long(),
            ignore_index=self.ignore_index, reduction="none",
        ).view_as(labels)  # fmt: skip
        counted = labels != self.ignore_index
        return masked_sum(nats, counted if mask is None else counted & mask.bool())


class PixLoss(Loss):
    """Distance of two equal shapes, element by element. real, fake: (B, ...); mask: (B, ...).

    Args:
        criterion: l1 (absolute), l2 (square), or cosine (1 - cosine similarity over dim 1)
    """

    def __init__(self, *, criterion: Literal["l1", "l2", "cosine"] = "l1") -> None:
        self.criterion = criterion

    def forward(self, real: Tensor, fake: Tensor, mask: Tensor | None = None) -> LossValue:
        """Total distance and the elements that it was measured on."""
        if real.shape != fake.shape:
            raise ValueError(f"pix: real {tuple(real.shape)} and fake {tuple(fake.shape)} differ in shape")
        real, fake = real.float(), fake.float()
        if self.criterion == "cosine":
            return masked_sum(1 - F.cosine_similarity(real, fake, dim=1), mask)
        difference = real - fake
        return masked_sum(difference.abs() if self.criterion == "l1" else difference.square(), mask)


class GeneratorGanLoss(Loss):
    """What a generator minimises: fake: the discriminator's verdict (B, ...) on what it made.

    Args:
        gan_type: gan (non-saturating, Goodfellow et al. 2014) or hinge (Lim and Ye 2017)
    """

    def __init__(self, *, gan_type: Literal["gan", "hinge"] = "gan") -> None:
        self.gan_type = gan_type

    def forward(self, fake: Tensor) -> LossValue:
        """The generator's total loss and the verdicts that it is of."""
        fake = fake.float()
        return masked_sum(F.softplus(-fake) if self.gan_type == "gan" else -fake, None)


class DiscriminatorGanLoss(Loss):
    """What a discriminator minimises: its verdicts (B, ...) on real and on made things.

    Args:
        gan_type: gan (binary cross-entropy) or hinge
    """

    def __init__(self, *, gan_type: Literal["gan", "hinge"] = "gan") -> None:
        self.gan_type = gan_type

    def forward(self, real: Tensor, fake: Tensor) -> LossValue:
        """The discriminator's total loss, real and made weighing the same, and half the verdicts."""
        real, fake = real.float(), fake.float()
        if self.gan_type == "gan":
            total = F.softplus(-real).sum() + F.softplus(fake).sum()
        else:
            total = F.relu(1 - real).sum() + F.relu(1 + fake).sum()
        return total / 2, (real.numel() + fake.numel()) / 2
