"""One named training step: injectors, then losses, then gradients, then an update of the networks it trains.

The YAML is resolved at build time: an injector here is a bound callable with its keys, so that a batch pays for tensor
operations and little else. Gradients of micro-batches add up to those of the whole batch, each loss weighed by what
it counted in each of them.
"""

import contextlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from codes.entries import Entry, InjectorFlags, LossEntry, LossFlags, StepEntry
from codes.options import TrainOptions
from codes.randomness import ITEM_SEED
from codes.trainer.injector import Injector
from codes.trainer.losses import Figure, Loss
from codes.trainer.optim import Updater
from codes.trainer.state import State, batch_size

Values = dict[str, tuple[Tensor, Tensor | float]]  # loss -> (sum, count) of one micro-batch
Tally = dict[str, list[tuple[Tensor, Tensor | float]]]  # loss -> (sum, count) of each micro-batch


def batch_seed(seed: int, step: int) -> int:
    """What the injectors' random numbers of a batch follow from; micro-batch n adds n."""
    return (seed * 1_000_003 + step) << 8


class BoundInjector:
    """An injector with the keys that it reads and writes."""

    def __init__(self, entry: Entry, injector: Injector, step: str) -> None:
        self.name, self.mark, self.injector = entry.name, entry.mark, injector
        self.flags: InjectorFlags = entry.flags
        injector.num_outputs = len(entry.flags.out)
        self.where = f"injector {entry.name}, step {step}, {entry.mark}"
        self._seed = injector.salt = zlib.crc32(f"{step}.{entry.name}".encode())

    def runs(self, phase: str, micro: int, step: int) -> bool:
        """Whether it takes part in this phase, micro-batch and step."""
        if phase == "val":
            return not self.flags.train
        return not self.flags.eval and not (self.flags.no_accum and micro) and self.flags.due(step)

    def run(self, state: State, seed: int, step: int = 0) -> None:
        """Read, compute, write."""
        # Torch's CPU generator takes 32 bits of a seed: batch, micro-batch and name must all reach them.
        self.injector.reseed(zlib.crc32((seed % 2**64).to_bytes(8, "little"), self._seed))
        self.injector.item_seeds = state.get(ITEM_SEED)
        self.injector.step = step
        self.injector.trained_steps = step or self.injector.trained_steps
        grad = torch.no_grad() if self.flags.no_grad else contextlib.nullcontext()
        try:
            with grad:
                result = self.injector.forward(*[state[key] for key in self.flags.in_])
            self._bind(state, result)
        except Exception as error:
            error.add_note(f"in {self.where}")
            raise

    def _bind(self, state: State, result: Any) -> None:
        out = self.flags.out
        if result is None:
            raise ValueError(f"{self.name} returned nothing for {', '.join(out)}: is a `return` missing?")
        if len(out) == 1 and not isinstance(result, tuple):
            return state.write(out[0], result)
        if not isinstance(result, (tuple, list)) or len(result) != len(out):
            got = f"{len(result)} values" if isinstance(result, (tuple, list)) else "one value"
            raise ValueError(f"{self.name} returned {got} for {len(out)} keys under out ({', '.join(out)})")
        for key, value in zip(out, result, strict=True):
            state.write(key, value)


class BoundLoss:
    """A loss with the keys that it reads."""

    def __init__(self, entry: LossEntry, loss: Loss, step: str) -> None:
        self.name, self.mark, self.loss, self.reads = entry.name, entry.mark, loss, entry.reads
        self.flags: LossFlags = entry.flags
        self.where = f"loss {entry.name}, step {step}, {entry.mark}"

    def measure(self, state: State) -> tuple[Tensor, Tensor | float]:
        """The loss of a micro-batch as (sum, count)."""
        try:
            value = self.loss.forward(**{name: _fp32(state[key]) for name, key in self.reads.items()})
            if isinstance(value, tuple):
                return value
            if value.ndim:
                raise ValueError(f"a loss is a scalar or (sum, count), got a tensor of shape {tuple(value.shape)}")
            items = batch_size(state)
            return value.float() * items, items
        except Exception as error:
            error.add_note(f"in {self.where}")
            raise

    def figures(self, state: State) -> Mapping[str, Figure]:
        """What validation reports beside the loss."""
        try:
            return self.loss.figures(**{name: _fp32(state[key]) for name, key in self.reads.items()})
        except Exception as error:
            error.add_note(f"in the figures of {self.where}")
            raise


@dataclass
class _Gradients:
    """Losses whose counts stand in one ratio to their estimates: they can share one backward pass."""

    losses: list[BoundLoss]
    held: list[Tensor | None] = field(default_factory=list)


class Step:
    """A named step of the experiment.

    Args:
        entry: its part of the YAML.
        injectors, losses: built, in YAML order.
        updaters: the optimizers of the networks that it trains.
        networks: all networks of the experiment that can be trained.
        kept: keys that later steps see.
    """

    def __init__(
        self, entry: StepEntry, injectors: list[Injector], losses: list[Loss], updaters: list[Updater],
        networks: Mapping[str, nn.Module], kept: set[str],
    ) -> None:  # fmt: skip
        self.name, self.flags, self.updaters, self.kept = entry.name, entry.flags, updaters, kept
        self.injectors = [BoundInjector(e, i, entry.name) for e, i in zip(entry.injectors, injectors, strict=True)]
        self.losses = [BoundLoss(e, loss, entry.name) for e, loss in zip(entry.losses, losses, strict=True)]
        trained = {id(p) for updater in updaters for p in updater.parameters}
        others = [p for network in networks.values() for p in network.parameters()]
        self._frozen_parameters = [p for p in others if id(p) not in trained]
        self._trained_parameters = [p for updater in updaters for p in updater.parameters]
        self.updated = False  # whether the last train() took an optimizer step; a loss scaler must know

    def require_grad(self) -> None:
        """Let gradients flow to the networks that this step trains, and to no other's parameters."""
        for p in self._frozen_parameters:
            p.requires_grad_(False)
        for p in self._trained_parameters:
            p.requires_grad_(True)

    def inject(self, state: State, phase: str, step: int, micro: int, seed: int) -> None:
        """Run the injectors that take part."""
        for injector in self.injectors:
            if injector.runs(phase, micro, step):
                injector.run(state, seed, step)

    def figures(self, state: State) -> dict[str, Mapping[str, Figure]]:
        """What all losses have to report in validation besides themselves, by loss."""
        return {loss.name: loss.figures(state) for loss in self.losses if type(loss.loss).figures is not Loss.figures}

    def measure(self, state: State, step: int | None = None) -> Values:
        """All losses that take part, as (sum, count) by name."""
        return {loss.name: loss.measure(state) for loss in self.losses if step is None or loss.flags.due(step)}

    def train(self, states: list[State], step: int, seed: int, autocast: Any, options: TrainOptions) -> Tally:
        """Forward, backward and update over the micro-batches; returns what each loss summed and counted.

        Args:
            states: the micro-batches; the step's outputs are written to them.
            step: the iteration, from 1.
            seed: of this batch; injectors draw from it.
            autocast: a function that gives the autocast context of the forward pass.
            options: learning rate and schedule.
        """
        for updater in self.updaters:
            updater.zero_grad()
        tally: Tally = {}
        groups: list[_Gradients] | None = None
        items = [batch_size(state) for state in states]
        for micro, state in enumerate(states):
            last = micro + 1 == len(states) and (groups is None or len(groups) == 1)
            values = self._forward(state, step, micro, seed + micro, autocast, last)
            for name, value in values.items():
                tally.setdefault(name, []).append(value)
            if groups is None:
                groups = self._group(values, len(states))
            if values:
                self._backward(groups, values, tally, items, step)
            for name, (total, count) in values.items():
                tally[name][-1] = total.detach(), count
        self._correct(groups or [], tally, items)
        taken = [updater.update(step, options) for updater in self.updaters] if tally else []
        self.updated = any(taken)
        return tally

    def _forward(self, state: State, step: int, micro: int, seed: int, autocast: Any, last: bool) -> Values:
        """Inject and measure; the backward pass after the last one completes the gradients."""
        with autocast():
            self.inject(state, "train", step, micro, seed)
        return self.measure(state, step)

    def _group(self, values: Mapping[str, Any], parts: int) -> list[_Gradients]:
        """One group, unless the counts of several losses are known only on the device and may differ by batch."""
        losses = [loss for loss in self.losses if loss.name in values]
        if parts == 1 or len(losses) == 1 or not any(isinstance(values[loss.name][1], Tensor) for loss in losses):
            return [_Gradients(losses)]
        return [_Gradients([loss]) for loss in losses]

    def _backward(
        self, groups: list[_Gradients], values: Values, tally: Tally, items: list[int], step: int,
    ) -> None:  # fmt: skip
        scaler = self.updaters[0].scaler
        for number, group in enumerate(groups):
            terms = []
            for loss in group.losses:
                expected = self._expected_count(loss.name, tally, items)
                terms.append(values[loss.name][0] * (loss.flags.weight_at(step) / expected))
            total = terms[0] if len(terms) == 1 else torch.stack(terms).sum()
            if scaler is not None:
                total = scaler.scale(total)
            if not total.requires_grad:
                names = ", ".join(loss.name for loss in group.losses)
                raise ValueError(f"step {self.name}: loss {names} does not depend on what the step trains")
            if len(groups) > 1:
                self._load(group)
            total.backward(retain_graph=number + 1 < len(groups))
            if len(groups) > 1:
                group.held = [p.grad for p in self._trained_parameters]

    def _load(self, group: _Gradients) -> None:
        """Put the gradients that this group has gathered in place, so that the next backward adds to them."""
        held = group.held or [None] * len(self._trained_parameters)
        for p, grad in zip(self._trained_parameters, held, strict=True):
            p.grad = grad

    def _expected_count(self, loss: str, tally: Tally, items: list[int]) -> Tensor | float:
        """What the loss will have counted over the whole batch, judged by the first micro-batch.

        Any positive number would do, as `_correct` replaces it; a tiny one, where the first micro-batch is masked out,
        would make gradients that fp16 cannot hold.
        """
        first = tally[loss][0][1]
        if len(items) == 1:
            return _at_least(first, 1e-9)
        return _at_least(first * (sum(items) / items[0]), 1.0)

    def _correct(self, groups: list[_Gradients], tally: Tally, items: list[int]) -> None:
        """Turn the expected counts into those that were counted, and add up the groups' gradients."""
        if len(items) == 1 or not tally:
            return
        ratios = [self._ratio(group, tally, items) for group in groups]
        if len(groups) == 1:
            if isinstance(ratios[0], Tensor) or abs(ratios[0] - 1) > 1e-9:
                for p in self._trained_parameters:
                    if p.grad is not None:
                        p.grad.mul_(ratios[0])
            return
        for index, p in enumerate(self._trained_parameters):
            parts = [(group.held[index], ratio) for group, ratio in zip(groups, ratios, strict=True)]
            scaled = [grad * ratio for grad, ratio in parts if grad is not None]
            p.grad = torch.stack(scaled).sum(0) if scaled else None

    def _ratio(self, group: _Gradients, tally: Tally, items: list[int]) -> Tensor | float:
        """Expected over counted, the same for every loss of a group."""
        ratios = []
        for loss in group.losses:
            counted = _at_least(sum(count for _, count in tally[loss.name]), 1e-9)
            ratios.append(self._expected_count(loss.name, tally, items) / counted)
        known = [ratio for ratio in ratios if not isinstance(ratio, Tensor)]
        if len(known) > 1 and max(known) - min(known) > 1e-9:
            names = ", ".join(loss.name for loss in group.losses)
            raise ValueError(f"losses {names} counted unevenly over micro-batches: let them return counts as tensors")
        return ratios[0]

    def outputs(self, state: State, before: set[str]) -> dict[str, Any]:
        """What later steps see of this step's outputs, detached."""
        return {
            key: value.detach() if isinstance(value, Tensor) else value
            for key, value in state.items()
            if key in self.kept and key not in before
        }


def _at_least(count: Tensor | float, smallest: float) -> Tensor | float:
    return count.clamp(min=smallest) if isinstance(count, Tensor) else max(count, smallest)


def _fp32(value: Any) -> Any:
    """Half-precision values of the state as losses get them; all others as they are."""
    return value.float() if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16) else value
