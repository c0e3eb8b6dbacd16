"""Token-by-token completion of a target by a `t5`, equal to its parallel forward.

Long targets are made in windows of ``max_length`` tokens, as long as the model is used to; each but the first begins
with the last half of the one before.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from codes.models.forecast import Forecast
from codes.models.front_end import Hierarchy, HierarchyState
from codes.models.heads import BytesHead, Choice, LogisticsHead, SoftmaxHead
from codes.models.t5_inputs import TargetInput

Progress = Callable[[int, int], None]
PROGRESS_TOKENS = 256


class Steppable(Protocol):
    """What generation needs of a network; `t5` says what each part is."""

    vocabulary: int
    context: int
    max_length: int
    alignment: str
    decoder: nn.Module
    decoder_front: Hierarchy | None
    out_norm: nn.Module
    target_input: TargetInput
    head: SoftmaxHead | BytesHead | LogisticsHead

    @property
    def silence(self) -> int: ...

    def encode(self, source: Tensor) -> Tensor: ...

    def source_part(self, source: Tensor, encoded: Tensor, length: int) -> Tensor: ...

    def target_window(self, target: Tensor) -> Tensor: ...

    def forecast(self, source: Tensor, target: Tensor, first: int) -> Forecast | None: ...


class Stepper:
    """Walks a `t5` along a window of the target: `step` gives the hidden vector of the next token, `update` its code.

    Args:
        network: the network, in eval mode.
        source: (B, S) codes, with the context.
        target: (B, N) codes of which the first ``known`` are read now.
        known: tokens known from the start.
    """

    def __init__(self, network: Steppable, source: Tensor, target: Tensor, known: int) -> None:
        from transformers import DynamicCache, EncoderDecoderCache

        self.network, self.token, self.source = network, known, source
        self.reach = network.target_input.reach
        self.encoded = network.encode(source)
        length = target.shape[1]
        self.given = network.source_part(source, self.encoded, length).expand(-1, length, -1)
        self.target = functional.pad(target, (self.reach, 0), value=-1).clone()
        self.cache: Any = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self.state = HierarchyState(len(network.decoder_front.levels)) if network.decoder_front is not None else None
        self._started = False
        if known:
            self._extend(self._inputs(0, known))

    def _inputs(self, first: int, last: int) -> Tensor:
        own = self.network.target_window(self.target[:, first : last + self.reach])
        return self.given[:, first:last] + own

    def _extend(self, x: Tensor) -> Tensor:
        front = self.network.decoder_front

        def inner(z: Tensor) -> Tensor:
            found = self.network.decoder(
                inputs_embeds=z, encoder_hidden_states=self.encoded, past_key_values=self.cache, use_cache=True
            )
            return found.last_hidden_state

        if front is None or self.state is None:
            return inner(x)
        started, self._started = self._started, True
        made = front.step(x, inner, self.state) if started else front(x, inner, state=self.state)
        return self.network.out_norm(made)

    def step(self) -> tuple[Tensor, Forecast | None]:
        """Hidden vector (B, 1, D) of the next token, and its forecast where the head needs one."""
        hidden = self._extend(self._inputs(self.token, self.token + 1))
        known = self.target[:, self.token : self.token + 1 + self.reach]
        return hidden, self.network.forecast(self.source, known, self.token)

    def update(self, codes: Tensor) -> None:
        """Tell the code (B,) of the token that `step` was about."""
        self.target[:, self.reach + self.token] = codes
        self.token += 1


def complete(
    network: Steppable, source: Tensor, target: Tensor, choice: Choice, progress: Progress | None = None
) -> Tensor:
    """Fill the positions of target (B, N) that are -1; see `T5.generate`."""
    source = _checked(network, source, target)
    total = target.shape[1]
    done, start = target.clone(), 0
    while True:
        # without an alignment a window of the source means nothing: all of it is read, and the target is one window
        end = total if network.alignment == "none" else min(start + network.max_length, total)
        part = source if network.alignment == "none" else source[:, start : end + 2 * network.context]
        window = done[:, start:end]
        free = (window < 0).any(0)
        if free.any():
            done[:, start:end] = _fill(network, part, window, free.tolist(), choice, progress, (start, total))
        if end == total:
            break
        start = end - network.max_length // 2
    if progress is not None:
        progress(total, total)
    return done


def _fill(
    network: Steppable, source: Tensor, window: Tensor, free: list[bool], choice: Choice, progress: Progress | None,
    place: tuple[int, int],
) -> Tensor:  # fmt: skip
    stepper = Stepper(network, source, window, free.index(True))
    for token in range(stepper.token, window.shape[1]):
        hidden, forecast = stepper.step()
        codes = window[:, token]
        if free[token]:
            codes = torch.where(codes < 0, network.head.sample(hidden[:, 0], choice, forecast), codes)
        stepper.update(codes)
        if progress is not None and (token + 1) % PROGRESS_TOKENS == 0:
            progress(place[0] + token + 1, place[1])
    return stepper.target[:, stepper.reach :]


def _checked(network: Steppable, source: Tensor, target: Tensor) -> Tensor:
    """The source with its context."""
    if source.dim() != 2 or target.dim() != 2 or len(source) != len(target) or not target.numel():
        shapes = f"source {tuple(source.shape)} and target {tuple(target.shape)}"
        raise ValueError(f"generate got {shapes}: it needs (B, S) and (B, N), -1 where free")
    for name, ids, least in (("source", source, 0), ("target", target, -1)):
        low, high = int(ids.min()), int(ids.max())
        if low < least or high >= network.vocabulary:
            allowed = f"{'-1 (free) or ' if least else ''}0 to {network.vocabulary - 1}"
            raise ValueError(f"generate got a {name} of codes from {low} to {high}: they must be {allowed}")
    if network.alignment == "none" or source.shape[1] == target.shape[1] + 2 * network.context:
        return source
    if source.shape[1] != target.shape[1]:
        raise ValueError(f"generate got a source of {source.shape[1]} and a target of {target.shape[1]} tokens")
    return functional.pad(source, (network.context, network.context), value=network.silence)


def stepwise_nats(network: Steppable, source: Tensor, target: Tensor, known: int = 0) -> Tensor:
    """Code lengths (B, N - known) by steps, as a decoder would see them; equal to the network's parallel forward."""
    stepper = Stepper(network, source, target, known)
    nats = []
    for token in range(known, target.shape[1]):
        hidden, forecast = stepper.step()
        nats.append(network.head.nats(hidden, target[:, token : token + 1], forecast))
        stepper.update(target[:, token])
    return torch.cat(nats, 1)
