"""Token-by-token completion of a sequence by a `gpt`, equal to its parallel forward.

The known beginning is run in parallel up to the edge of a block of the linear prediction; from there every token takes
one step with the key-value cache (`key_value_cache.py`). When that is full it is filled again from the last half of
the inputs.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from codes.models.forecast import Forecast, Forecaster, plain_forecast
from codes.models.front_end import HierarchicalTransformer
from codes.models.heads import BytesHead, Choice, LogisticsHead, SoftmaxHead
from codes.models.transformer import Transformer

Progress = Callable[[int, int], None]
Emit = Callable[[Tensor, int], None]
PROGRESS_TOKENS = 256


class Steppable(Protocol):
    """What generation needs of a network; `gpt` says what each part is."""

    num_channels: int
    context: int
    max_length: int
    vocabulary: int
    channel_embedding: torch.nn.Parameter
    forecaster: Forecaster | None
    transformer: Transformer | HierarchicalTransformer
    head: SoftmaxHead | BytesHead | LogisticsHead

    @property
    def silence(self) -> int: ...

    @property
    def reach(self) -> int: ...

    def embed(self, ids: Tensor, first: int, forecast: Forecast | None) -> Tensor: ...

    def embed_window(self, ids: Tensor, first: int, forecast: Forecast | None) -> Tensor: ...


class Stepper:
    """Walks a `gpt` along a sequence: `step` gives the hidden vector of the next token, `update` its code.

    Args:
        network: the network, in eval mode.
        ids: (B, T) codes of which the first ``known`` are read now.
        known: tokens known from the start, at least the network's context.
        static: a key-value cache of fixed shapes; None: on a GPU.
    """

    def __init__(self, network: Steppable, ids: Tensor, known: int, static: bool | None = None) -> None:
        self.network = network
        self.heads_forecast = isinstance(network.head, LogisticsHead)
        batch, length = ids.shape
        device = network.channel_embedding.device
        self.ids = torch.full((batch, network.reach + length), network.silence, device=device)
        self.caches = network.transformer.caches(batch, network.max_length, device, static)
        rotary = network.transformer.rotary
        self.rotary = rotary(torch.arange(network.max_length, device=device) // network.num_channels)
        self.inputs = torch.zeros(batch, network.max_length, network.channel_embedding.shape[1], device=device)
        self.used = 0  # positions in the cache
        self.token = self._edge(known)
        self.forecaster_state = None
        self._prefill(ids[:, : self.token].to(device), length)

    def _edge(self, known: int) -> int:
        forecaster = self.network.forecaster
        tokens = self.network.num_channels * (forecaster.block if forecaster else 1)
        return max(known // tokens * tokens, 0)

    def _prefill(self, ids: Tensor, length: int) -> None:
        """Read the first tokens (B, T0) in parallel; the transformer sees the last of them that fit."""
        network = self.network
        self.ids[:, network.reach : network.reach + ids.shape[1]] = ids
        first = self._first_input(ids.shape[1])
        forecast = None
        if network.forecaster is not None:
            origin = network.forecaster.origin(first)
            self.forecaster_state, known = network.forecaster.start(ids, origin, length)
            if known is not None:
                forecast = _from(known, first - origin * network.num_channels)
        if ids.shape[1] > first:
            x = network.embed(ids, first, forecast)
            self.inputs[:, : x.shape[1]] = x
            self._extend(x, 0)

    def _first_input(self, known: int) -> int:
        """The first token that the transformer sees when it starts behind ``known`` tokens."""
        network = self.network
        if known - network.context < network.max_length:
            return min(network.context, known)
        return known - network.max_length // 2

    def _extend(self, x: Tensor, start: int) -> Tensor:
        end = start + x.shape[1]
        rotary = (self.rotary[0][start:end], self.rotary[1][start:end])
        self.used = end
        return self.network.transformer.extend(x, self.caches, start, rotary)  # type: ignore[arg-type]

    def step(self) -> tuple[Tensor, Forecast | None]:
        """Hidden vector (B, 1, D) of the next token, and its forecast where the head needs one."""
        network, token = self.network, self.token
        ids = self.ids[:, token : token + network.reach + 1]
        forecast = self._forecast()
        if token < network.context:  # before the transformer's first token
            return self.inputs[:, :1], forecast
        x = network.embed_window(ids, token, forecast)
        if self.used == network.max_length:
            half = self.inputs[:, network.max_length // 2 :].clone()
            self.inputs[:, : half.shape[1]] = half
            self._extend(half, 0)
        self.inputs[:, self.used : self.used + 1] = x
        return self._extend(x, self.used), forecast

    def _forecast(self) -> Forecast | None:
        network = self.network
        if self.forecaster_state is not None and network.forecaster is not None:
            return network.forecaster.step(self.forecaster_state, self.token)
        if not self.heads_forecast:
            return None
        place = self.token - network.num_channels
        if place < 0:
            return plain_forecast(torch.full_like(self.ids[:, :1], network.silence))
        return plain_forecast(self.ids[:, network.reach + place : network.reach + place + 1])

    def update(self, codes: Tensor) -> None:
        """Tell the code (B,) of the token that `step` was about."""
        self.ids[:, self.network.reach + self.token] = codes
        if self.forecaster_state is not None and self.network.forecaster is not None:
            self.network.forecaster.update(self.forecaster_state, self.token, codes)
        self.token += 1


def _from(forecast: Forecast, first: int) -> Forecast:
    return Forecast(
        forecast.anchor[:, first:],
        forecast.offsets[:, first:],
        forecast.log_unit[:, first:],
        forecast.features[:, first:],
    )


def complete(
    network: Steppable,
    ids: Tensor,
    choice: Choice,
    progress: Progress | None = None,
    emit: Emit | None = None,
    static: bool | None = None,
) -> Tensor:
    """Fill the positions of ids (B, T) that are -1; see `Gpt.generate`."""
    check_codes(ids, network.vocabulary)
    known = known_tokens(ids)
    if known < min(network.context, ids.shape[1]):  # as at the start of a file: silence before it
        context = network.context
        silence = ids.new_full((len(ids), context), network.silence)
        behind = None if emit is None else lambda made, done: emit(made[:, context:], max(done - context, 0))
        return complete(network, torch.cat([silence, ids], 1), choice, progress, behind, static)[:, context:]
    stepper = Stepper(network, ids, known, static)
    ids = ids.to(stepper.ids.device)
    total = ids.shape[1]
    free = (ids < 0).any(0).tolist()
    for token in range(stepper.token, total):
        hidden, forecast = stepper.step()
        codes = ids[:, token]
        if free[token]:
            sampled = network.head.sample(hidden[:, 0], choice, forecast)
            codes = torch.where(codes < 0, sampled, codes)
        stepper.update(codes)
        if (token + 1) % PROGRESS_TOKENS == 0:
            if progress is not None:
                progress(token + 1, total)
            if emit is not None:
                emit(stepper.ids[:, network.reach :], token + 1)
    if progress is not None:
        progress(total, total)
    return stepper.ids[:, network.reach :].clone()


def known_tokens(ids: Tensor) -> int:
    """Leading tokens of ids (B, T) that are given (not -1) in all sequences."""
    free = (ids < 0).any(0).nonzero()
    return int(free[0]) if len(free) else ids.shape[1]


def check_codes(ids: Tensor, vocabulary: int) -> None:
    """Refuse what `generate` cannot complete.

    Raises:
        ValueError: ids are not (B, T), or a code is not -1 .. vocabulary - 1.
    """
    if ids.dim() != 2 or ids.shape[1] == 0:
        raise ValueError(f"generate got ids of shape {tuple(ids.shape)}: it needs (B, T), -1 where free")
    low, high = int(ids.min()), int(ids.max())
    if low < -1 or high >= vocabulary:
        raise ValueError(f"generate got ids from {low} to {high}: they must be -1 (free) or 0 to {vocabulary - 1}")


def stepwise_nats(network: Steppable, ids: Tensor, known: int | None = None, static: bool | None = None) -> Tensor:
    """Code lengths (B, T - known) by steps, as a decoder would see them; equal to the network's parallel forward."""
    known = network.context if known is None else known
    stepper = Stepper(network, ids, known, static)
    nats = []
    for token in range(stepper.token, ids.shape[1]):
        hidden, forecast = stepper.step()
        if token >= known:
            nats.append(network.head.nats(hidden, ids[:, token : token + 1], forecast))
        stepper.update(ids[:, token])
    return torch.cat(nats, 1)
