"""`residual_lm`: a small recurrent network over what adaptive prediction knows, that emits a mixture of logistics.

Adaptive linear prediction explains nearly all that can be known of a sample's value; what is left to a network is to
say which prediction to trust at this moment, and how far. So it sees features that do not depend on loudness (residuals
over their expected size, the disagreement of the predictors, their running errors) and emits weights over the
predictions and the shape of a mixture, with means around the predictions and scales in units of the expected error. It
is simple enough to be computed exactly, one step a sample, by a compiled decoder
(codes/compression/residual_network.py).
"""

import math
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional

from codes.models.network import Network
from codes.registry import Range

MIN_SCALE = 0.03  # of a component, in steps of the samples
MAX_LOG_SCALE = 8.0  # of a component, relative to the unit


class ResidualLm(Network):
    """Code lengths of a channel's samples: features (B, T, F), offsets (B, T, K), residual, unit (B, T) -> nats (B, N).

    Args:
        features: F, as `codes.adaptive.features` gives them.
        offsets: K, the number of cascades.
        hidden: width of the GRU.
        mixtures: logistic components M.
        context: leading samples that only warm the state up; they are not scored.
    """

    def __init__(
        self,
        *,
        features: Annotated[int, Range(least=1)] = 52,
        offsets: Annotated[int, Range(least=1)] = 5,
        hidden: Annotated[int, Range(least=1)] = 96,
        mixtures: Annotated[int, Range(least=1)] = 8,
        context: Annotated[int, Range(least=0)] = 64,
    ) -> None:
        super().__init__()
        self.mixtures, self.offsets, self.context = mixtures, offsets, context
        self.gru = nn.GRU(features, hidden, batch_first=True)
        self.output = nn.Linear(hidden + features, mixtures * (3 + offsets))
        nn.init.zeros_(self.output.weight)
        with torch.no_grad():
            start = torch.zeros(mixtures, 3 + offsets)  # logit, log scale, mean, weight of each offset
            start[:, 1] = torch.linspace(-2.0, 1.0, mixtures) if mixtures > 1 else -0.4
            self.output.bias.copy_(start.flatten())

    def forward(self, features: Tensor, offsets: Tensor, residual: Tensor, unit: Tensor) -> Tensor:
        """Code lengths after the context.

        Args:
            features: (B, T, F) float32.
            offsets: (B, T, K) float32, in units.
            residual: (B, T) float32, samples less the stack's predictions, in steps.
            unit: (B, T) float32, in steps.

        Returns:
            nats: (B, T - context) float32.
        """
        if features.shape[1] <= self.context:
            raise ValueError(
                f"residual_lm got {features.shape[1]} samples: it needs more than context = {self.context}"
            )
        hidden, _ = self.gru(features)
        first = self.context
        seen = torch.cat([hidden[:, first:], features[:, first:]], -1)
        with torch.autocast(features.device.type, enabled=False):
            parameters = self.output(seen.float()).unflatten(-1, (self.mixtures, 3 + self.offsets))
            return mixture_nats(parameters, offsets[:, first:], residual[:, first:], unit[:, first:])


def mixture_nats(parameters: Tensor, offsets: Tensor, residual: Tensor, unit: Tensor) -> Tensor:
    """Code length of integers under a mixture of discretised logistics.

    With b - a = 1/s known without subtraction, F(b) - F(a) = F(b) F(-a) (1 - exp(-(b - a))) loses no digits.

    Args:
        parameters: (..., M, 3 + K): logit, log scale in units, mean in units, weights of the offsets.
        offsets: (..., K) in units.
        residual: (...) and unit (...), in steps.

    Returns:
        (...) nats.
    """
    log_weights = parameters[..., 0].log_softmax(-1)
    log_scales = parameters[..., 1].clamp(-MAX_LOG_SCALE, MAX_LOG_SCALE) + unit.log()[..., None]
    means = parameters[..., 2] + (parameters[..., 3:] * offsets[..., None, :]).sum(-1)
    inverse = (-log_scales.clamp_min(math.log(MIN_SCALE))).exp()
    distance = residual[..., None] - means * unit[..., None]
    upper, lower = (distance + 0.5) * inverse, (distance - 0.5) * inverse
    inside = (-torch.expm1(-inverse)).clamp_min(1e-38).log()
    masses = functional.logsigmoid(upper) + functional.logsigmoid(-lower) + inside
    return -torch.logsumexp(log_weights + masses.clamp_min(-60.0), -1)
