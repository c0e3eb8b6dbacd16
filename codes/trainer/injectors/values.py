"""Values from nowhere and values in other shapes: constants, schedules, a dimension folded into the items and back."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from codes.registry import Range, StateKey
from codes.trainer.injector import Injector


@dataclass(frozen=True, kw_only=True)
class ScalarSchedule:
    """A number that moves with the training step; before start_step it is its first value.

    Args:
        type: fixed: `weight`; linear_decay: from initial_weight by equal steps down to lower_bound, reached after
            `steps`; sinusoidal: a cosine from upper_weight to lower_weight and back in `period` steps
        weight: fixed
        initial_weight: linear_decay
        lower_bound: linear_decay
        steps: linear_decay
        upper_weight: sinusoidal
        lower_weight: sinusoidal
        period: sinusoidal
        start_step: linear_decay, sinusoidal: where it begins to move
    """

    type: Literal["fixed", "linear_decay", "sinusoidal"]
    weight: float | None = None
    initial_weight: float | None = None
    lower_bound: float | None = None
    steps: Annotated[int, Range(least=1)] | None = None
    upper_weight: float | None = None
    lower_weight: float | None = None
    period: Annotated[int, Range(least=1)] | None = None
    start_step: int = 0

    def __post_init__(self) -> None:
        needed = {
            "fixed": ("weight",),
            "linear_decay": ("initial_weight", "lower_bound", "steps"),
            "sinusoidal": ("upper_weight", "lower_weight", "period"),
        }
        for kind, names in needed.items():
            for name in names:
                if (getattr(self, name) is None) == (kind == self.type):
                    raise ValueError(f"{name} {'is missing' if kind == self.type else 'has no effect'} in {self.type}")
        if self.initial_weight is not None and self.lower_bound is not None and self.initial_weight < self.lower_bound:
            raise ValueError(f"initial_weight must not be below lower_bound, {self.lower_bound:g}")

    def at(self, step: int) -> float:
        """The number at a training step."""
        done = max(0, step - self.start_step)
        if self.initial_weight is not None and self.lower_bound is not None and self.steps is not None:
            return self.initial_weight - (self.initial_weight - self.lower_bound) * min(1.0, done / self.steps)
        if self.upper_weight is not None and self.lower_weight is not None and self.period is not None:
            centre, swing = (self.upper_weight + self.lower_weight) / 2, (self.upper_weight - self.lower_weight) / 2
            return centre + swing * math.cos(2 * math.pi * done / self.period)
        assert self.weight is not None
        return self.weight


class ScheduledScalarInjector(Injector):
    """A number that moves with the training step, for other injectors; it needs no input. -> float.

    In validation it is that of the newest training step.

    Args:
        scheduler: how it moves.
    """

    def __init__(self, *, scheduler: ScalarSchedule) -> None:
        self.scheduler = scheduler

    def forward(self) -> float:
        """The number at this step."""
        return self.scheduler.at(self.trained_steps)


class ConstantInjector(Injector):
    """A value of the shape, type and device of another, that is the same everywhere. values: any -> same shape.

    Args:
        constant_type: zeroes, or ones.
        like: key of the other value; it may stand under `in` as well.
    """

    def __init__(
        self, *, constant_type: Literal["zeroes", "ones"], like: Annotated[str | None, StateKey()] = None
    ) -> None:
        self.number = 0 if constant_type == "zeroes" else 1

    def forward(self, values: Tensor) -> Tensor:
        """values: (...) -> (...)."""
        return torch.full_like(values, self.number)


class IndicesExtractorInjector(Injector):
    """The first slices along a dimension, one for each key under `out`. values: (B, N, ...) -> n times (B, ...).

    Args:
        dim: the dimension.
    """

    def __init__(self, *, dim: int = 1) -> None:
        self.dim = dim

    def forward(self, values: Tensor) -> Any:
        """values: (B, N, ...) -> as many values (B, ...) as there are keys; outside of a step all N.

        Raises:
            ValueError: the value lacks the dimension.
        """
        if not -values.ndim <= self.dim < values.ndim:
            raise ValueError(f"expected a value that has dimension {self.dim}, got {tuple(values.shape)}")
        slices = values.unbind(self.dim)[: self.num_outputs]
        return slices[0] if len(slices) == 1 else slices

    def inverse(self, *slices: Tensor) -> Tensor:
        """All N values (B, ...) -> (B, N, ...)."""
        return torch.stack(slices, self.dim)


class DecomposeDimensionInjector(Injector):
    """A dimension folded into the items, first all of its first slice. values: (B, ..., N, ...) -> (N B, ...).

    `recompose_dimension` undoes it; two lists that it needs are written beside the value.

    Args:
        dim: the dimension, not 0.
        cutoff_dim: keep only so many of the new items; null: all. What is cut cannot be put together again.
        shape_key: key of the shape to come back to; null: the first key under `out` with _reverse_shape behind it.
        permute_key: key of the order of dimensions; null: that key with _reverse_permute behind it.
    """

    def __init__(
        self, *, dim: int, cutoff_dim: int | None = None,
        shape_key: Annotated[str | None, StateKey(written=True, suffix="_reverse_shape")] = None,
        permute_key: Annotated[str | None, StateKey(written=True, suffix="_reverse_permute")] = None,
    ) -> None:  # fmt: skip
        if dim == 0:
            raise ValueError("dim must not be 0, the items' own")
        if cutoff_dim is not None and cutoff_dim != -1 and cutoff_dim < 1:
            raise ValueError(f"cutoff_dim must be 1 or more, got {cutoff_dim}")
        self.dim, self.cutoff = dim, None if cutoff_dim == -1 else cutoff_dim

    def forward(self, values: Tensor) -> tuple[Tensor, list[int], list[int]]:
        """values: (B, ..., N, ...) -> (N B, ...), the shape to come back to, and the order of dimensions.

        Raises:
            ValueError: the value lacks the dimension.
        """
        if not -values.ndim <= self.dim < values.ndim or self.dim % values.ndim == 0:
            raise ValueError(f"expected a value that has dimension {self.dim} besides 0, got {tuple(values.shape)}")
        first = values.movedim(self.dim, 0)
        order = list(range(1, values.ndim))
        order.insert(self.dim % values.ndim, 0)
        return first.flatten(0, 1)[: self.cutoff], list(first.shape), order

    def undo(self, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> Tensor:
        """The items put together again."""
        return recomposed(*outputs)


class RecomposeDimensionInjector(Injector):
    """What `decompose_dimension` folded, unfolded. values: (N B, ...) -> (B, ..., N, ...).

    Args:
        reverse_shape: key of the shape that decompose_dimension wrote.
        reverse_permute: key of the order of dimensions that it wrote.
    """

    def __init__(
        self, *, reverse_shape: Annotated[str | None, StateKey()] = None,
        reverse_permute: Annotated[str | None, StateKey()] = None,
    ) -> None:  # fmt: skip
        pass

    def forward(self, values: Tensor, shape: Sequence[int], order: Sequence[int]) -> Tensor:
        """values: (N B, ...), shape (N, B, ...) -> (B, ..., N, ...).

        What was done to the values between may have changed their later dimensions' sizes, not their number.

        Raises:
            ValueError: the items are not as many as there were.
        """
        return recomposed(values, shape, order)


def recomposed(values: Tensor, shape: Sequence[int], order: Sequence[int]) -> Tensor:
    """values: (N B, ...) -> (B, ..., N, ...)."""
    if values.ndim + 1 != len(shape) or len(values) != shape[0] * shape[1]:
        raise ValueError(
            f"expected {shape[0] * shape[1]} items of {len(shape) - 1} dimensions, as decompose_dimension made, "
            f"got {tuple(values.shape)}"
        )
    return values.unflatten(0, (shape[0], shape[1])).permute(*order).contiguous()
