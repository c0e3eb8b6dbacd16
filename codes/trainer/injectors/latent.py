"""What sequence models need besides codes: noise, coins of teacher forcing, latents, a gradient penalty.

All random numbers are the items' own: a validation gives the same figures twice, micro-batches change nothing.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from codes.entries import WeightSchedule
from codes.trainer.injector import Injector


class TeacherForcingInjector(Injector):
    """Which steps of a decoder read the real value. values: (B, ...) -> (B, num_steps) bool, or (B, 0): all of them.

    Args:
        num_steps: steps of the decoder.
        ratio: share of the steps that read the real value, a number or a schedule {from, to, start_step, end_step}.
        granularity: step: a coin for every step; sequence: one for each item.
    """

    def __init__(
        self, *, num_steps: int, ratio: float | WeightSchedule = 1.0, granularity: Literal["step", "sequence"] = "step"
    ) -> None:
        shares = [ratio.from_, ratio.to] if isinstance(ratio, WeightSchedule) else [ratio]
        if not all(0 <= share <= 1 for share in shares):
            raise ValueError(f"ratio must be 0 to 1, got {' and '.join(map(str, shares))}")
        if num_steps < 1:
            raise ValueError(f"num_steps must be 1 or more, got {num_steps}")
        self.num_steps, self.ratio, self.granularity = num_steps, ratio, granularity

    def forward(self, values: Tensor) -> Tensor:
        """values: (B, ...) -> (B, num_steps) bool; no column where the ratio is 1, so that the fused pass is taken."""
        ratio = self.ratio.at(self.step) if isinstance(self.ratio, WeightSchedule) else self.ratio
        if ratio == 1:
            return torch.ones(len(values), 0, dtype=torch.bool, device=values.device)
        coins = self.draw_uniform(values, 0, 1, self.num_steps if self.granularity == "step" else 1)
        return (coins < ratio).expand(-1, self.num_steps)


class NoiseInjector(Injector):
    """Normal random numbers for each item. values: (B, ...) -> (B, *shape) float32.

    Args:
        shape: of an item's numbers; one number stands for a list of one.
    """

    def __init__(self, *, shape: list[int]) -> None:
        if not shape or min(shape) < 1:
            raise ValueError(f"shape must be one or more numbers of 1 or more, got {shape}")
        self.shape = shape

    def forward(self, values: Tensor) -> Tensor:
        """values: (B, ...) -> (B, *shape), mean 0 and standard deviation 1."""
        return self.draw_normal(values, *self.shape)


class DrawNoiseInjector(NoiseInjector):
    """`noise` of one dimension. values: (B, ...) -> (B, size) float32.

    Args:
        size: numbers of an item.
    """

    def __init__(self, *, size: int) -> None:
        super().__init__(shape=[size])


class EncodeLatentsInjector(Injector):
    """Audio to the latents of an auto-encoder. wav: (B, T) or (B, 1, T) float -> (B, N, D) float.

    Args:
        autoencoder: name of the network under `networks`, one with encode() and decode().
    """

    def __init__(self, *, autoencoder: nn.Module) -> None:
        self.autoencoder: Any = _require_methods(autoencoder)

    def forward(self, wav: Tensor) -> Tensor:
        """wav: (B, T) or (B, 1, T) -> latents (B, N, D)."""
        return self.autoencoder.encode(wav)

    def inverse(self, latents: Tensor) -> Tensor:
        """latents: (B, N, D) -> wav: (B, 1, N * stride)."""
        return self.autoencoder.decode(latents)[:, None]


class DecodeLatentsInjector(Injector):
    """Latents of an auto-encoder to audio. latents: (B, N, D) float -> (B, N * stride) float.

    Args:
        autoencoder: name of the network under `networks`, one with encode() and decode().
    """

    def __init__(self, *, autoencoder: nn.Module) -> None:
        self.autoencoder: Any = _require_methods(autoencoder)

    def forward(self, latents: Tensor) -> Tensor:
        """latents: (B, N, D) -> wav: (B, N * stride)."""
        return self.autoencoder.decode(latents)


class GradientPenaltyInjector(Injector):
    """Squared gradient norm of a discriminator at real inputs: R1 (Mescheder et al., 2018). values -> (B,) float32.

    Its weight in the loss is gamma / 2. The gradients are of all values under `in`, together.

    Args:
        discriminator: name of the network under `networks`.
    """

    def __init__(self, *, discriminator: nn.Module) -> None:
        self.network = discriminator

    def forward(self, *values: Tensor) -> Tensor:
        """values: (B, ...) float each -> (B,): the sum of squares of d verdict / d values; in validation as well."""
        training = torch.is_grad_enabled()
        with torch.enable_grad(), torch.autocast(values[0].device.type, enabled=False):
            inputs = [value.detach().float().requires_grad_() for value in values]
            verdict = self.network(*inputs)
            gradients = torch.autograd.grad(verdict.sum(), inputs, create_graph=training)
            penalty = torch.stack([gradient.square().flatten(1).sum(1) for gradient in gradients]).sum(0)
        return penalty if training else penalty.detach()


def _require_methods(network: nn.Module) -> nn.Module:
    if not (hasattr(network, "encode") and hasattr(network, "decode")):
        raise ValueError(f"autoencoder must have encode() and decode(): {type(network).__name__} has not")
    return network
