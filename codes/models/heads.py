"""Output heads: from hidden vectors to exact probabilities of integer codes.

Three heads share one interface: `nats` (code lengths of known codes), `sample` (new codes) and `log_probabilities`
(of every code, for tests and small vocabularies). All start so that an untrained network gives about ln V nats.

The mixture head follows PixelCNN++ (Salimans et al., 2017) with two changes that make it exact. A component gives the
code x the mass F((x + 1/2 - mu) / s) - F((x - 1/2 - mu) / s) of a logistic with distribution function F, divided by
its mass over 0 - 1/2 .. V - 1/2, so the codes sum to one. And with b - a = 1/s known without subtraction,

    F(b) - F(a) = F(b) F(-a) (1 - exp(-(b - a)))

is a sum of three logarithms that loses no digits, for scales below one step and ranges of 2^32 alike. Means are kept
as offsets from an integer anchor near the code; the difference code - anchor is taken in int64.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from codes.models.forecast import Forecast
from codes.models.lean_softmax import LEAN_CODES, lean_nats, linear_terms

BIAS_GAIN = 8.0  # biases and gates of the mixture learn this much faster than weights
GATE_GAIN = 16.0


class SoftmaxHead(nn.Module):
    """One softmax over all codes, starting uniform; a large vocabulary costs no more memory than a small one.

    Args:
        dim: width of the hidden vectors.
        vocabulary: number of codes V.
        table: the embedding table to use as the output weights, V rows or more (dim wide), or None for its own.
        lean: never hold the logits of all tokens; a large vocabulary is always handled so.
    """

    def __init__(self, dim: int, vocabulary: int, table: nn.Parameter | None = None, lean: bool = False) -> None:
        super().__init__()
        self.lean = lean or vocabulary >= LEAN_CODES
        # without drawing numbers for weights that are replaced
        self.output = nn.utils.skip_init(nn.Linear, dim, vocabulary if table is None else len(table), bias=False)
        self.output.weight = table if table is not None else nn.Parameter(torch.zeros(vocabulary, dim))
        self.vocabulary = vocabulary
        # A tied table has rows of size 0.02 sqrt(dim) and normed hidden vectors sqrt(dim): hold the logits small.
        self.gain = min(1.0, 8 / math.sqrt(dim)) if table is not None else 1.0

    def _logits(self, hidden: Tensor) -> Tensor:
        """hidden (..., D) -> (..., V) float32."""
        terms = linear_terms(self.output, hidden.float() * self.gain)  # few vectors beside many weights in a step
        parts = [functional.linear(part, weight[: self.vocabulary].float()) for part, weight in terms]
        return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)

    def log_probabilities(self, hidden: Tensor, forecast: Forecast | None = None) -> Tensor:
        """hidden (..., D) -> (..., V) float32."""
        return self._logits(hidden).log_softmax(-1)

    def nats(self, hidden: Tensor, codes: Tensor, forecast: Forecast | None = None) -> Tensor:
        """hidden (B, N, D), codes (B, N) int64 -> code lengths (B, N) float32."""
        if self.lean:
            terms = linear_terms(self.output, hidden.float().flatten(0, -2) * self.gain)
            return lean_nats(terms, codes.flatten(), self.vocabulary).view_as(codes)
        logits = self._logits(hidden)
        return functional.cross_entropy(logits.flatten(0, -2), codes.flatten(), reduction="none").view_as(codes)

    def sample(self, hidden: Tensor, choice: "Choice", forecast: Forecast | None = None) -> Tensor:
        """hidden (B, D) -> codes (B,) int64."""
        return choice.draw(self.log_probabilities(hidden))


class BytesHead(nn.Module):
    """p(high byte) p(low byte | high byte): exact over 65,536 codes with two small softmaxes.

    Args:
        dim: width of the hidden vectors.
        bits: bit depth, 9 to 16; the low byte has 8 of them.
    """

    def __init__(self, dim: int, bits: int) -> None:
        super().__init__()
        num_high = 2 ** (bits - 8)
        self.high = nn.Linear(dim, num_high)
        self.low_hidden = nn.Linear(dim, dim)
        self.low_given_high = nn.Embedding(num_high, dim)
        self.low = nn.Linear(dim, 256)
        nn.init.normal_(self.low_given_high.weight, std=0.02)
        for layer in (self.high, self.low):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def _low_logits(self, hidden: Tensor, high: Tensor) -> Tensor:
        return self.low(functional.gelu(self.low_hidden(hidden) + self.low_given_high(high)))

    def log_probabilities(self, hidden: Tensor, forecast: Forecast | None = None) -> Tensor:
        """hidden (..., D) -> (..., V) float32; V = 65,536 at 16 bits, so for a few vectors only."""
        hidden = hidden.float()
        high = torch.arange(self.high.out_features, device=hidden.device)
        low = self._low_logits(hidden[..., None, :], high).log_softmax(-1)
        return (self.high(hidden).log_softmax(-1)[..., None] + low).flatten(-2)

    def nats(self, hidden: Tensor, codes: Tensor, forecast: Forecast | None = None) -> Tensor:
        """hidden (B, N, D), codes (B, N) int64 -> code lengths (B, N) float32."""
        hidden, high = hidden.float().flatten(0, -2), codes.flatten() >> 8
        nats = functional.cross_entropy(self.high(hidden), high, reduction="none")
        low_nats = functional.cross_entropy(self._low_logits(hidden, high), codes.flatten() & 255, reduction="none")
        return (nats + low_nats).view_as(codes)

    def sample(self, hidden: Tensor, choice: "Choice", forecast: Forecast | None = None) -> Tensor:
        """hidden (B, D) -> codes (B,) int64; ``top_k`` and ``top_p`` hold for each byte."""
        hidden = hidden.float()
        high = choice.draw(self.high(hidden))
        return high * 256 + choice.draw(self._low_logits(hidden, high))


class LogisticsHead(nn.Module):
    """A mixture of discretised logistics over 2^bits codes.

    With a forecast the means sit around the predictions (learned weights over them, plus a learned part in units of
    the running error) and a learned gate takes the scales from about uniform to the running error within tens of
    steps; the last component keeps its broad scale, for surprises. Without one they sit around the previous sample.

    Args:
        dim: width of the hidden vectors.
        bits: bit depth, 2 to 32.
        mixtures: number of components M.
        num_offsets: predictions of the forecast, 0 without one.
        num_features: features of the forecast, which also reach the output directly.
    """

    start: Tensor  # (M, 3 + K)
    narrows: Tensor  # (M,), 1 where the gate narrows a component

    def __init__(self, dim: int, bits: int, mixtures: int, num_offsets: int = 0, num_features: int = 0) -> None:
        super().__init__()
        self.bits, self.mixtures, self.num_offsets = bits, mixtures, num_offsets
        # per component: logit, log scale, delta of the mean, weight of each prediction
        self.output = nn.Linear(dim + num_features, mixtures * (3 + num_offsets), bias=False)
        nn.init.zeros_(self.output.weight)
        self.bias = nn.Parameter(torch.zeros(mixtures, 3 + num_offsets))
        self.gate = nn.Parameter(torch.zeros(())) if num_offsets else None
        self.register_buffer("start", self._start(), persistent=False)
        narrows = torch.ones(mixtures)
        narrows[-1] = 0.0 if mixtures > 1 else 1.0
        self.register_buffer("narrows", narrows, persistent=False)
        self.broad = math.log(4.0) + bits * math.log(2)

    def _start(self) -> Tensor:
        """What the components begin with, (M, 3 + K): different scales and predictions, so that they part."""
        start = torch.zeros(self.mixtures, 3 + self.num_offsets)
        index = torch.arange(self.mixtures)
        start[:, 1] = index - (self.mixtures - 1) / 2
        start[:, 1] *= 2 / max(self.mixtures, 1)
        if self.num_offsets:
            start[index, 3 + index % self.num_offsets] = 1.0
        return start

    def _components(self, hidden: Tensor, forecast: Forecast) -> tuple[Tensor, Tensor, Tensor]:
        """hidden (B, N, D) -> log weights, means as offsets from the anchor, log scales in steps: (B, N, M) each."""
        inputs = torch.cat([hidden.float(), forecast.features], -1)
        output = self.output(inputs).unflatten(-1, (self.mixtures, -1)) + self.bias * BIAS_GAIN + self.start
        log_weights = output[..., 0].log_softmax(-1)
        log_scales = self.broad + output[..., 1]
        if self.gate is not None:
            unit = forecast.log_unit[..., None]
            gate = torch.tanh(self.gate * GATE_GAIN) * self.narrows
            log_scales = log_scales + gate * (unit - self.broad)
            means = (output[..., 3:] * forecast.offsets[..., None, :]).sum(-1) + output[..., 2] * unit.exp()
        else:
            means = output[..., 2] * log_scales.detach().exp()
        return log_weights, means, log_scales.clamp(-7.0, self.broad + 4.0)

    def _log_masses(self, means: Tensor, log_scales: Tensor, steps: Tensor, anchor: Tensor) -> Tensor:
        """Log mass of the codes anchor + steps under each component; all broadcast over a last axis of M."""
        inverse = (-log_scales).exp()
        below = (0 - anchor).float()[..., None] - 0.5 - means  # lower end of the range
        above = (2**self.bits - 1 - anchor).float()[..., None] + 0.5 - means
        inside = _log_mass((steps - 0.5 - means) * inverse, (steps + 0.5 - means) * inverse, inverse)
        return inside - _log_mass(below * inverse, above * inverse, inverse * 2.0**self.bits)

    def nats(self, hidden: Tensor, codes: Tensor, forecast: Forecast | None = None) -> Tensor:
        """hidden (B, N, D), codes (B, N) int64, forecast -> code lengths (B, N) float32."""
        assert forecast is not None, "the mixture needs an anchor"
        log_weights, means, log_scales = self._components(hidden, forecast)
        steps = (codes - forecast.anchor).float()[..., None]
        masses = self._log_masses(means, log_scales, steps, forecast.anchor)
        return -torch.logsumexp(log_weights + masses, -1)

    def log_probabilities(self, hidden: Tensor, forecast: Forecast | None = None) -> Tensor:
        """hidden (B, N, D) -> (B, N, V) float32, for small bit depths."""
        assert forecast is not None, "the mixture needs an anchor"
        codes = torch.arange(2**self.bits, device=hidden.device)
        steps = (codes - forecast.anchor[..., None]).float()[..., None]  # (B, N, V, 1)
        log_weights, means, log_scales = (x[..., None, :] for x in self._components(hidden, forecast))
        masses = self._log_masses(means, log_scales, steps, forecast.anchor[..., None])
        return torch.logsumexp(log_weights + masses, -1)

    def sample(self, hidden: Tensor, choice: "Choice", forecast: Forecast | None = None) -> Tensor:
        """hidden (B, D), forecast of one token (N = 1) -> codes (B,) int64; ``top_p`` keeps a component's centre."""
        assert forecast is not None, "the mixture needs an anchor"
        log_weights, means, log_scales = (x[:, 0] for x in self._components(hidden[:, None], forecast))
        component = choice.draw(log_weights, whole=True)[:, None]
        anchor = forecast.anchor[:, 0]
        mean = means.gather(-1, component)[:, 0].double()
        scale = log_scales.gather(-1, component)[:, 0].double().exp() * choice.temperature
        if choice.temperature > 0:
            lower, upper = -anchor - 0.5 - mean, 2**self.bits - 0.5 - anchor - mean
            mean = mean + scale * choice.logistic(lower / scale, upper / scale)
        return (anchor + mean.round().long()).clamp_(0, 2**self.bits - 1)


def _log_mass(lower: Tensor, upper: Tensor, width: Tensor) -> Tensor:
    """log(F(upper) - F(lower)) of the standard logistic, width = upper - lower given exactly."""
    log_inside = (-torch.expm1(-width)).clamp_min(1e-38).log()
    return functional.logsigmoid(upper) + functional.logsigmoid(-lower) + log_inside


def check_codes(
    network: str, bits: int | None, vocabulary: int | None, head: str, input: str, of_samples: dict[str, bool]
) -> int:
    """Refuse combinations of options about codes that make no sense.

    Args:
        network: its name, for messages.
        bits, vocabulary: one of the two.
        head, input: their kinds.
        of_samples: whether each of its other parts that need sample values is wanted, by the option's name.

    Returns:
        the number of codes.
    """
    if (bits is None) == (vocabulary is None):
        raise ValueError(f"{network} needs bits or vocabulary, one of them: got bits: {bits}, vocabulary: {vocabulary}")
    if bits is None and (head != "softmax" or input != "ids" or any(of_samples.values())):
        raise ValueError(
            f"vocabulary goes with head: softmax and input: ids, without {' and '.join(of_samples)}: "
            "the others need sample values; give bits instead"
        )
    allowed = {"softmax": (1, 16), "bytes": (9, 16), "logistics": (2, 32)}[head]
    if bits is not None and not allowed[0] <= bits <= allowed[1]:
        raise ValueError(f"bits is {bits}: head: {head} takes {allowed[0]} to {allowed[1]} bits")
    if vocabulary is not None and not 2 <= vocabulary <= 65536:
        raise ValueError(f"vocabulary is {vocabulary}: head: softmax takes 2 to 65536 codes")
    return vocabulary or 2 ** (bits or 0)


class Choice:
    """How to choose among probabilities: temperature, nucleus and a random number generator.

    Args:
        temperature: 0 takes the likeliest, 1 samples as learned.
        top_k: keep only so many of the likeliest codes; 0 keeps all.
        top_p: keep the likeliest codes that together have this probability.
        generator: random numbers; None is torch's own.
        first: codes below it are never drawn.
    """

    def __init__(
        self, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, generator: torch.Generator | None = None,
        first: int = 0,
    ) -> None:  # fmt: skip
        if temperature < 0:
            raise ValueError(f"temperature is {temperature}: it must be 0 or more")
        if top_k < 0:
            raise ValueError(f"top_k is {top_k}: it must be 0 (all) or more")
        if not 0 < top_p <= 1:
            raise ValueError(f"top_p is {top_p}: it must be above 0 and at most 1")
        self.temperature, self.top_k, self.top_p, self.generator = temperature, top_k, top_p, generator
        self.first = first

    def meant_for(self, head: nn.Module) -> "Choice":
        """Itself, for a head that it suits.

        Raises:
            ValueError: the head has no list of codes, of which top_k could keep some.
        """
        if self.top_k and isinstance(head, LogisticsHead):
            raise ValueError(
                f"top_k is {self.top_k}: a logistics head has no list of codes to keep; use top_p or temperature"
            )
        if self.first and not isinstance(head, SoftmaxHead):
            raise ValueError(f"codes from {self.first} on alone: only a softmax head draws one whole code at a time")
        return self

    def draw(self, logits: Tensor, whole: bool = False) -> Tensor:
        """logits (B, V) -> (B,) int64; ``whole`` leaves top_k and top_p aside."""
        if self.first and not whole:
            logits = functional.pad(logits[..., self.first :], (self.first, 0), value=-math.inf)
        if self.temperature == 0:
            return logits.argmax(-1)
        logits = logits / self.temperature
        if not whole:
            logits = self._keep(logits)
        noise = torch.rand(logits.shape, generator=self.generator, device=logits.device, dtype=torch.float64)
        return (logits - (-(noise.clamp_min(1e-300)).log()).log()).argmax(-1)  # Gumbel

    def _keep(self, logits: Tensor) -> Tensor:
        if 0 < self.top_k < logits.shape[-1]:
            least = logits.topk(self.top_k).values[..., -1:]
            logits = logits.masked_fill(logits < least, -math.inf)
        if self.top_p < 1:
            ordered, order = logits.softmax(-1).sort(-1, descending=True)
            dropped = ordered.cumsum(-1) - ordered >= self.top_p
            logits = logits.masked_fill(dropped.scatter(-1, order, dropped), -math.inf)
        return logits

    def logistic(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Standard logistic noise between bounds (B,) float64, its outer 1 - top_p left out."""
        noise = torch.rand(lower.shape, generator=self.generator, device=lower.device, dtype=torch.float64)
        lowest, highest = lower.sigmoid(), upper.sigmoid()
        return torch.logit(lowest + (0.5 + (noise - 0.5) * self.top_p) * (highest - lowest), eps=1e-12)
