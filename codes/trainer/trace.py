"""A batch through the steps one key at a time, for `--check` and for finding the first value that is not finite."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from codes.trainer.build import Parts
from codes.trainer.state import State, move, split_batch
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


def trace(parts: Parts, batch: dict[str, Any], number: int, seed: int, micro_batches: int = 1) -> list[Record]:
    """Run the first micro-batch of a batch through every step in training, without an update.

    Gradients flow into the parameters, so that their finiteness can be seen too.

    Returns:
        every key of the dataset, every output and every loss, in order.
    """
    first = split_batch(move(batch, parts.device), micro_batches)[0]
    records = [Record("", key, None, None, value) for key, value in first.items()]
    for step in parts.steps:
        step.require_grad()
        for updater in step.updaters:
            updater.zero_grad()
        state = State(first)
        for injector in step.injectors:
            if not injector.runs("train", 0, number):
                continue
            with parts.precision.autocast():
                injector.run(state, seed)
            records += [Record(step.name, k, injector.name, injector.mark, state[k]) for k in injector.flags.out]
        total = torch.zeros((), device=parts.device)
        for loss in step.losses:
            value, count = loss.measure(state)
            records.append(Record(step.name, f"loss {loss.name}", loss.name, loss.mark, value.detach() / count))
            total = total + loss.flags.weight_at(number) * value / count
        total.backward()
        first |= step.outputs(state, set(first))
    return records
