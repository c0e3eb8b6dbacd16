"""What an entropy coder asks of a token language model: the weights of the next token, in stages of at most 4096.

A walk goes along B sequences at once, token by token, with the key-value cache, and is the same walk when coding and
when decoding: the integers that come out agree bit for bit on the same software (profile fast). A token is coded in
`stages`: one for a small vocabulary; high byte, then the bytes below it given the ones above, for many codes. The
mixture of logistics gives each stage as differences of its distribution function, taken on the side where they are
small, in float64.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from codes.models.forecast import Forecast
from codes.models.generation import Stepper
from codes.models.gpt import Gpt
from codes.models.heads import BytesHead, LogisticsHead, SoftmaxHead
from codes.models.llama import Llama, LlamaStepper

MOST_AT_ONCE = 4096  # codes of one stage


def stages_of(vocabulary: int, by_bytes: bool) -> tuple[int, ...]:
    """How many values each stage of a token has, most significant first; their product covers the vocabulary."""
    if vocabulary <= (256 if by_bytes else MOST_AT_ONCE):
        return (vocabulary,)
    return (*stages_of(-(-vocabulary // 256), True), 256)


class TokenLanguageModel:
    """A `gpt` or `llama` as a coder sees it.

    Args:
        network: the network; put in eval mode.

    Raises:
        ValueError: it is another network.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        if not isinstance(network, Gpt | Llama):
            raise ValueError(f"a {type(network).__name__} cannot be walked token by token: it must be a gpt or a llama")
        self.network = network.eval()
        self.vocabulary = network.vocabulary
        by_bytes = isinstance(network, Gpt) and not isinstance(network.head, SoftmaxHead)
        self.stages = stages_of(network.vocabulary, by_bytes)

    @torch.inference_mode()
    def start(self, batch: int, tokens: int) -> "TokenWalk":
        """A walk along ``batch`` sequences of ``tokens`` tokens, of which nothing is known yet."""
        return GptWalk(self, batch, tokens) if isinstance(self.network, Gpt) else LlamaWalk(self, batch, tokens)

    def digest(self, more: Mapping[str, Any]) -> bytes:
        """SHA-256 of all weights, and of what else decides the code."""
        digest = hashlib.sha256(repr(sorted(more.items())).encode())
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.digest()


class TokenWalk:
    """B sequences, one token at a time: `step`, then `weights` of each stage, then `update` with the tokens."""

    def __init__(self, model: TokenLanguageModel) -> None:
        self.stages = model.stages

    def step(self) -> None:
        """Compute what is known of the next token."""
        raise NotImplementedError

    def weights(self, stage: int, prefix: np.ndarray) -> np.ndarray:
        """Relative probabilities (B, stages[stage]) float64 of a stage, given the stages before it.

        Args:
            stage: number of the stage, from 0.
            prefix: (B,) int64, the stages before as one number, most significant first; zeros for stage 0.
        """
        raise NotImplementedError

    def update(self, tokens: np.ndarray) -> None:
        """Tell the tokens (B,) int64 that `step` was about."""
        raise NotImplementedError

    def _stage_of(self, probabilities: Tensor, stage: int, prefix: Tensor) -> Tensor:
        """Probabilities (B, V) of whole tokens -> (B, stages[stage]) of a stage."""
        if len(self.stages) == 1:
            return probabilities
        sizes = (*self.stages[: stage + 1], -1)
        total = int(np.prod(self.stages))
        padded = torch.nn.functional.pad(probabilities, (0, total - probabilities.shape[1]))
        own = padded.view(len(padded), int(np.prod(sizes[:stage], dtype=np.int64)), self.stages[stage], -1)
        return own[torch.arange(len(own), device=own.device), prefix].sum(-1)


class GptWalk(TokenWalk):
    """Along a `gpt`, behind a context of silence where it wants one."""

    @torch.inference_mode()
    def __init__(self, model: TokenLanguageModel, batch: int, tokens: int) -> None:
        super().__init__(model)
        network = model.network
        assert isinstance(network, Gpt)
        self.network = network
        silence = torch.full((batch, network.context + tokens), network.silence)
        self.stepper = Stepper(network, silence, network.context)
        while self.stepper.token < network.context:  # a context that does not end with a block of linear prediction
            self.stepper.step()
            self.stepper.update(self.stepper.ids.new_full((batch,), network.silence))
        self.hidden: Tensor = torch.empty(0)
        self.forecast: Forecast | None = None
        self.whole: Tensor | None = None  # probabilities of all codes
        self.components: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    @torch.inference_mode()
    def step(self) -> None:
        """Compute the hidden vector of the next token, and what follows from it for every stage."""
        hidden, self.forecast = self.stepper.step()
        self.hidden = hidden
        head = self.network.head
        if isinstance(head, SoftmaxHead):
            self.whole = head.log_probabilities(hidden[:, 0]).double().exp()
        elif isinstance(head, LogisticsHead):
            self.components = self._mixture(head, hidden)

    def _mixture(self, head: LogisticsHead, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weights over the mass that lies in range, means from the anchor, inverse scales (B, 1, M); anchors (B,)."""
        assert self.forecast is not None
        log_weights, means, log_scales = (x.double() for x in head._components(hidden, self.forecast))
        anchor, inverse = self.forecast.anchor[:, 0], (-log_scales).exp()
        low = ((0 - anchor)[:, None, None] - 0.5 - means) * inverse
        high = ((2**head.bits - 1 - anchor)[:, None, None] + 0.5 - means) * inverse
        return log_weights.exp() / _mass(low, high).clamp_min(1e-300), means, inverse, anchor

    @torch.inference_mode()
    def weights(self, stage: int, prefix: np.ndarray) -> np.ndarray:
        """As `TokenWalk.weights`."""
        known = torch.from_numpy(prefix).to(self.hidden.device)
        head = self.network.head
        if self.whole is not None:
            return self._stage_of(self.whole, stage, known).cpu().numpy()
        if isinstance(head, BytesHead):
            hidden = self.hidden[:, 0].float()
            logits = head.high(hidden) if stage == 0 else head._low_logits(hidden, known)
            return logits.double().softmax(-1).cpu().numpy()
        assert self.components is not None
        weight, means, inverse, anchor = self.components
        size, width = self.stages[stage], int(np.prod(self.stages[stage + 1 :], dtype=np.int64))
        first = (known[:, None] * size + torch.arange(size, device=known.device)) * width - anchor[:, None]
        low = (first[:, :, None].double() - 0.5 - means) * inverse  # (B, size, M)
        return (weight * _mass(low, low + width * inverse)).sum(-1).cpu().numpy()

    @torch.inference_mode()
    def update(self, tokens: np.ndarray) -> None:
        """As `TokenWalk.update`."""
        self.stepper.update(torch.from_numpy(tokens).to(self.stepper.ids.device))


def _mass(low: Tensor, high: Tensor) -> Tensor:
    """F(high) - F(low) of the standard logistic, on the side of the mean where both are small."""
    flipped = low > 0
    return torch.where(flipped, -low, high).sigmoid() - torch.where(flipped, -high, low).sigmoid()


class LlamaWalk(TokenWalk):
    """Along a `llama`."""

    def __init__(self, model: TokenLanguageModel, batch: int, tokens: int) -> None:
        super().__init__(model)
        assert isinstance(model.network, Llama)
        self.stepper = LlamaStepper(model.network, torch.full((batch, tokens), -1), 0)
        self.whole: Tensor = torch.empty(0)

    @torch.inference_mode()
    def step(self) -> None:
        """Compute the probabilities of the next token."""
        self.whole = self.stepper.step().double().softmax(-1)

    @torch.inference_mode()
    def weights(self, stage: int, prefix: np.ndarray) -> np.ndarray:
        """As `TokenWalk.weights`."""
        return self._stage_of(self.whole, stage, torch.from_numpy(prefix).to(self.whole.device)).cpu().numpy()

    @torch.inference_mode()
    def update(self, tokens: np.ndarray) -> None:
        """As `TokenWalk.update`."""
        self.stepper.update(torch.from_numpy(tokens).to(self.stepper.ids.device))


def fingerprint(model: TokenLanguageModel, batches: Sequence[int] = (1,), steps: int = 6) -> bytes:
    """16 bytes of the hash of a fixed computation: the same where, and only where, the numbers come out the same.

    Walks through the start, and through the edge where a full key-value cache is filled again.

    Args:
        model: the model.
        batches: for how many sequences at once.
        steps: tokens at each place.
    """
    digest = hashlib.sha256()
    network = model.network
    around = sorted({0, network.max_length // 3, network.max_length - steps // 2})
    with torch.inference_mode():
        for batch in batches:
            for place in around:
                _walk_some(model, batch, place, steps, digest)
    return digest.digest()[:16]


def _walk_some(model: TokenLanguageModel, batch: int, place: int, steps: int, digest: Any) -> None:
    """Jump to a place in fixed tokens, take some steps and add what they give to the hash."""
    index = np.arange(place + steps, dtype=np.int64)
    tokens = np.stack([(index * 40503 + lane * 977 + index * index % 251) % model.vocabulary for lane in range(batch)])
    walk = model.start(batch, place + steps)
    _jump(walk, tokens[:, :place])
    for token in tokens[:, place:].T:
        walk.step()
        prefix = np.zeros(batch, np.int64)
        for stage, size in enumerate(model.stages):
            digest.update(walk.weights(stage, prefix).tobytes())
            divisor = int(np.prod(model.stages[stage + 1 :], dtype=np.int64))
            prefix = prefix * size + token // divisor % size
        walk.update(np.ascontiguousarray(token))


def _jump(walk: TokenWalk, known: np.ndarray) -> None:
    """Read known tokens in parallel rather than step by step."""
    if known.shape[1] == 0:
        return
    ids = torch.from_numpy(known)
    if isinstance(walk, GptWalk):
        network = walk.network
        room = walk.stepper.ids.shape[1] - network.reach - network.context
        before = torch.full((len(ids), network.context), network.silence)
        after = torch.full((len(ids), room - ids.shape[1]), network.silence)
        walk.stepper = Stepper(network, torch.cat([before, ids, after], 1), network.context + ids.shape[1])
        while walk.stepper.token < network.context + ids.shape[1]:
            walk.stepper.step()
            walk.stepper.update(ids[:, walk.stepper.token - network.context].to(walk.stepper.ids.device))
    elif isinstance(walk, LlamaWalk):
        walk.stepper.ids[:, : ids.shape[1]] = ids
        walk.stepper.token = ids.shape[1]
