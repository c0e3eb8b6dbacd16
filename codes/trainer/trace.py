"""A batch through the steps one key at a time, for `--check` and for finding the first value that is not finite."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from codes.trainer.build import Parts
from codes.trainer.state import State, move, split_batch
from codes.trainer.step import BoundInjector
from codes.yaml_source import Mark


@dataclass(frozen=True)
class Record:
    """One value of the state: its key, who made it (None: the dataset) and where that stands in the YAML."""

    step: str
    key: str
    maker: str | None
    mark: Mark | None
    value: Any

    def finite(self) -> bool:
        """Whether all of it is finite; what is no floating-point tensor always is."""
        if not isinstance(self.value, Tensor) or not self.value.is_floating_point():
            return True
        return bool(torch.isfinite(self.value).all())

    def shape(self) -> str:
        """Shape and dtype, or the type of what is no tensor."""
        if isinstance(self.value, Tensor):
            dtype = str(self.value.dtype).removeprefix("torch.")
            return f"({', '.join(map(str, self.value.shape))}) {dtype}"
        if isinstance(self.value, list):
            return f"{len(self.value)} x {type(self.value[0]).__name__}"
        return type(self.value).__name__


def _refuse_changes(state: State, versions: dict[str, int], injector: BoundInjector) -> None:
    for key, version in versions.items():
        if state[key]._version != version:
            error = ValueError(f"it changes {key!r} in place: other readers of that key would see the change")
            error.add_note(f"in {injector.where}")
            raise error


def trace(
    parts: Parts, batch: dict[str, Any], number: int, seed: int, micro_batches: int = 1, micro: int = 0
) -> list[Record]:
    """Run one micro-batch of a batch through every step in training, without an update.

    Gradients flow into the parameters, so that their finiteness can be seen too.

    Args:
        batch: as the loader gave it.
        number: the iteration at which it is used.
        seed: of the batch (step.batch_seed).
        micro_batches, micro: into how many the batch is split, and which of them is run.

    Returns:
        every key of the dataset, every output and every loss, in order.
    """
    part = split_batch(move(batch, parts.device), micro_batches)[micro]
    records = [Record("", key, None, None, value) for key, value in part.items()]
    for step in (step for step in parts.steps if step.flags.met_by(part)):
        step.require_grad()
        for updater in step.updaters:
            updater.zero_grad()
        state = State(part)
        for injector in step.injectors:
            if not injector.runs("train", micro, number):
                continue
            versions = {key: value._version for key, value in state.items() if isinstance(value, Tensor)}
            with parts.precision.autocast():
                injector.run(state, seed + micro, number)
            _refuse_changes(state, versions, injector)
            records += [Record(step.name, k, injector.name, injector.mark, state[k]) for k in injector.flags.out]
        total = torch.zeros((), device=parts.device)
        for loss in [loss for loss in step.losses if loss.flags.due(number)]:
            value, count = loss.measure(state)
            mean = value / count if not isinstance(count, Tensor) else value / count.clamp(min=1e-9)
            records.append(Record(step.name, f"loss {loss.name}", loss.name, loss.mark, mean.detach()))
            total = total + loss.flags.weight_at(number) * mean
        if not total.requires_grad:
            raise ValueError(f"step {step.name}: its losses do not depend on what it trains")
        total.backward()
        part |= step.outputs(state, set(part))
    return records
