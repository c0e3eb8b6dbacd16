"""Losses and figures of models with a latent or with noise: KL divergence, and how much noise changes what is made."""

import math

import torch
from torch import Tensor

from codes.trainer.losses import Loss, LossValue


class KlLoss(Loss):
    """KL divergence of posterior and prior in nats. kl: (B, D), number by number; the mean of an item's sum.

    It is part of the code length (z has to be sent as well): bits per sample count it, whatever its weight, so that
    they are an upper bound of the true ones. Its warm-up is a schedule of its weight.
    """

    measures_bits = True
    tokens_per_sample = math.inf  # it adds nats, no samples

    def forward(self, kl: Tensor) -> LossValue:
        """Total divergence and the items that it is of."""
        return kl.float().sum(), len(kl)


class FreeBitsLoss(Loss):
    """KL divergence of which each number of z has some for nothing (Kingma et al., 2016). kl: (B, D).

    It is trained on in the place of `kl`, which then, with weight 0, says what the divergence is.

    Args:
        free_nats: what a number of z costs at least, and has for it.
    """

    def __init__(self, *, free_nats: float = 0.1) -> None:
        if free_nats <= 0:
            raise ValueError(f"free_nats must be above 0, got {free_nats}: use kl")
        self.free_nats = free_nats

    def forward(self, kl: Tensor) -> LossValue:
        """Total divergence, each number raised to free_nats, and the items that it is of."""
        return kl.float().clamp(min=self.free_nats).sum(), len(kl)


class NoiseDistanceLoss(Loss):
    """How far apart a generator's outputs for two noises are, relative to their size: 0 where its modes collapsed.

    first, second: (B, ...). A figure where its weight is 0; with a negative one it keeps them apart (Mao et al., 2019).

    Args:
        enough: items that are so far apart are pushed no further; null: without end.
    """

    def __init__(self, *, enough: float | None = None) -> None:
        if enough is not None and enough <= 0:
            raise ValueError(f"enough must be above 0, got {enough}")
        self.enough = enough

    def forward(self, first: Tensor, second: Tensor) -> LossValue:
        """The sum of absolute differences, and half the sum of absolute values."""
        if first.shape != second.shape:
            raise ValueError(f"noise_distance: {tuple(first.shape)} and {tuple(second.shape)} differ in shape")
        distance = (first - second).float().abs().flatten(1).sum(1)
        size = (first.abs() + second.abs()).float().detach().flatten(1).sum(1) / 2
        if self.enough is not None:
            distance = torch.where(distance < self.enough * size, distance, distance.detach())
        return distance.sum(), size.sum()
