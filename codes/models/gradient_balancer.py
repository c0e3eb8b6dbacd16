"""`gradient_balancer`: several losses on one output, each with its share of the gradient, whatever its scale.

Losses of audio differ in scale by orders of magnitude, and those of discriminators change theirs as they learn, so that
weights say little. The balancer of EnCodec (Défossez et al., 2022, section 3.4) makes them shares instead: it divides
each loss's gradient at the output by its usual norm. Here the gradient of the first loss stays as it is and is the
measure of the others (as in VQGAN's adaptive weight; Esser et al., 2021): the scale of fp16 has no effect, and losses
that act elsewhere, such as commitment, keep their relation to the first.
"""

from typing import Any

import torch
from torch import Tensor

from codes.models.network import Network

LEAST_NORM = 1e-12


class GradientBalancer(Network):
    """The value as it is, once for each loss: value (B, ...) -> as many values as there are shares.

    What comes back through copy n is scaled to shares[n] / shares[0] times the usual norm of what comes back through
    copy 0; the loss that reads copy 0 therefore counts in every step. The norms are means over items and moving
    averages over steps, kept in the checkpoint. Set `trainable: false` beside `kwargs`: there is nothing to train.

    Args:
        shares: of the losses, in the order of the keys under `out`.
        decay: of the moving averages, per step.
    """

    norms: Tensor
    steps: Tensor

    def __init__(self, *, shares: list[float], decay: float = 0.99) -> None:
        super().__init__()
        if len(shares) < 2 or min(shares) <= 0:
            raise ValueError(f"shares must be two numbers or more, each above 0, got {shares}")
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}: it must be 0 or more and below 1")
        self.shares, self.decay = list(shares), decay
        self.register_buffer("norms", torch.zeros(len(shares)))
        self.register_buffer("steps", torch.zeros(len(shares)))  # that each norm has seen, decayed like it

    def forward(self, value: Tensor) -> tuple[Tensor, ...]:
        """value: (B, ...) float -> copies of it."""
        return _Balance.apply(value, self)

    def balance(self, gradients: tuple[Tensor | None, ...]) -> Tensor | None:
        """The gradients of the copies to that of the value; a loss that took no part in the step has none."""
        present = {number: gradient for number, gradient in enumerate(gradients) if gradient is not None}
        for number, gradient in present.items():
            norm = gradient.flatten(1).norm(dim=1).mean()
            kept = torch.where(torch.isfinite(norm), self.decay, 1.0)
            self.norms[number] = self.norms[number] * kept + norm.nan_to_num(0, 0, 0) * (1 - kept)
            self.steps[number] = self.steps[number] * kept + (1 - kept)
        usual = self.norms / self.steps.clamp(min=LEAST_NORM)
        total: Tensor | None = None
        for number, gradient in present.items():
            factor = self.shares[number] / self.shares[0] * usual[0] / usual[number].clamp(min=LEAST_NORM)
            part = gradient if number == 0 else gradient * factor
            total = part if total is None else total + part
        return total


class _Balance(torch.autograd.Function):
    """Copies forward; back through the balancer."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, balancer: GradientBalancer) -> tuple[Tensor, ...]:
        ctx.balancer = balancer
        ctx.set_materialize_grads(False)
        return tuple(value.view_as(value) for _ in balancer.shares)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, None]:
        return ctx.balancer.balance(gradients), None
