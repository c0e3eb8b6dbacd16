"""Plumbing between injectors: apply one to every slice, rename, join, stack, cut, pad and reshape."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from codes import randomness
from codes.trainer.injector import Injector


class ForEachInjector(Injector):
    """Another injector over every slice along a dimension. values: (B, N, ...) -> (B, N, ...), slice by slice.

    Each value under `in` is cut into N slices without that dimension; what the inner injector returns for them is
    stacked along it again. The inner injector's options stand beside `subtype` in the YAML. It is called N times; one
    that takes any leading shape needs no for_each.

    Args:
        subtype: type of the inner injector.
        dim: the dimension that is walked over.
    """

    def __init__(self, *, subtype: Injector, dim: int = 1) -> None:
        self.subtype = subtype
        self.dim = dim

    def forward(self, *values: Tensor) -> Any:
        """values: each (B, N, ...) with the same N -> as many values as the inner injector returns, each (B, N, ...).

        Raises:
            ValueError: the values differ in N, lack the dimension, or N is 0.
        """
        return self._map(self._forward, values)

    def inverse(self, *values: Tensor) -> Any:
        """The inner injector's inverse over every slice."""
        return self._map(lambda index, *parts: self.subtype.inverse(*parts), values)

    def reseed(self, seed: int) -> None:
        """Start the inner injector's random numbers anew as well."""
        super().reseed(seed)
        self.subtype.reseed(seed)

    def _forward(self, index: int, *parts: Tensor) -> Any:
        """One slice. Its draws are its own; where the slices are the items, an item's seed is spread over its rows."""
        seeds, part = self.item_seeds, parts[0]
        if seeds is not None and self.dim % (part.ndim + 1):
            self.subtype.seed_items(seeds, randomness.mix_number(self.salt + index))
        elif seeds is not None and part.ndim:
            rows = randomness.derive(seeds[index : index + 1], self.salt, len(part))[0]
            self.subtype.seed_items(rows, self.salt)
        return self.subtype.forward(*parts)

    def _map(self, function: Any, values: tuple[Tensor, ...]) -> Any:
        shapes = [tuple(value.shape) for value in values]
        if not all(_has_dim(value, self.dim) for value in values):
            raise ValueError(f"expected values that have dimension {self.dim}, got {_list(shapes)}")
        sizes = {value.shape[self.dim] for value in values}
        if len(sizes) != 1 or sizes == {0}:
            raise ValueError(f"expected values of one size above 0 along dimension {self.dim}, got {_list(shapes)}")
        slices = zip(*(value.unbind(self.dim) for value in values), strict=True)
        results = [function(index, *parts) for index, parts in enumerate(slices)]
        if isinstance(results[0], tuple):
            return tuple(torch.stack(parts, self.dim) for parts in zip(*results, strict=True))
        return torch.stack(results, self.dim)


class DirectInjector(Injector):
    """The values as they are, under another name: one key under `out` for each under `in`."""

    def forward(self, *values: Any) -> Any:
        """One value -> itself; several -> all of them."""
        return values[0] if len(values) == 1 else values

    def inverse(self, *values: Any) -> Any:
        """The same again."""
        return self.forward(*values)


class ConcatenateInjector(Injector):
    """Values joined along a dimension. values: (..., N1, ...), (..., N2, ...) -> (..., N1 + N2, ...).

    Args:
        dim: the dimension along which they are joined.
        sizes: each value's size along it; only the inverse, which splits there, needs them.
    """

    def __init__(self, *, dim: int = -1, sizes: list[int] | None = None) -> None:
        self.dim = dim
        self.sizes = sizes

    def forward(self, *values: Tensor) -> Tensor:
        """values: alike in every dimension but `dim` -> one value.

        Raises:
            ValueError: the shapes do not fit, or are not those of `sizes`.
        """
        shapes = [tuple(value.shape) for value in values]
        if not self._fit(values):
            raise ValueError(f"expected values alike in all but dimension {self.dim}, got {_list(shapes)}")
        if self.sizes is not None and [value.shape[self.dim] for value in values] != list(self.sizes):
            raise ValueError(f"expected sizes {self.sizes} along dimension {self.dim}, got {_list(shapes)}")
        return torch.cat(values, self.dim)

    def inverse(self, value: Tensor) -> tuple[Tensor, ...]:
        """value: (..., sum of sizes, ...) -> as many values as there are sizes.

        Raises:
            ValueError: `sizes` is not set or does not add up to the size of the value.
        """
        if self.sizes is None:
            raise ValueError("concatenate has an inverse only where its option sizes is set")
        if not _has_dim(value, self.dim) or value.shape[self.dim] != sum(self.sizes):
            raise ValueError(f"expected size {sum(self.sizes)} in dimension {self.dim}, got {tuple(value.shape)}")
        return value.split(list(self.sizes), self.dim)

    def undo(self, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The sizes are those of the inputs."""
        return outputs[0].split([value.shape[self.dim] for value in inputs], self.dim)

    def _fit(self, values: tuple[Tensor, ...]) -> bool:
        if not all(_has_dim(value, self.dim) for value in values):
            return False
        dim = self.dim % values[0].ndim
        return len({(*value.shape[:dim], *value.shape[dim + 1 :]) for value in values}) == 1


class PadInjector(Injector):
    """Padding along a dimension. value: (..., N, ...) -> (..., left + N + right, ...), then up to a multiple.

    Args:
        multiple: pad further on the right to the next multiple of this size. None: no.
        left: elements added before.
        right: elements added after.
        value: what is added.
        dim: the dimension that is padded.
    """

    def __init__(
        self, *, multiple: int | None = None, left: int = 0, right: int = 0, value: float = 0.0, dim: int = -1
    ) -> None:
        if multiple is not None and multiple < 1:
            raise ValueError(f"multiple must be 1 or more, got {multiple}")
        if left < 0 or right < 0:
            raise ValueError(f"left and right must be 0 or more, got {left} and {right}")
        self.multiple = multiple
        self.left = left
        self.right = right
        self.value = value
        self.dim = dim

    def forward(self, value: Tensor) -> Tensor:
        """value: (..., N, ...) -> (..., padded N, ...), same dtype.

        Raises:
            ValueError: the value lacks the dimension, or is of integers and the padding is not.
        """
        _require_dim(value, self.dim)
        if not value.is_floating_point() and self.value != int(self.value):
            raise ValueError(f"expected a whole number to pad {value.dtype} with, got value {self.value}")
        size = value.shape[self.dim] + self.left + self.right
        extra = -size % self.multiple if self.multiple else 0
        inner_dims = value.ndim - 1 - self.dim % value.ndim  # F.pad counts from the last dimension
        return F.pad(value, [0, 0] * inner_dims + [self.left, self.right + extra], value=self.value)

    def inverse(self, value: Tensor, length: int | None = None) -> Tensor:
        """Cuts the padding off. length: the size before padding, needed where `multiple` is set.

        Raises:
            ValueError: `multiple` is set and no length is given, or the value is too short.
        """
        _require_dim(value, self.dim)
        if length is None:
            if self.multiple:
                raise ValueError("padding to a multiple is undone only with the length before it")
            length = value.shape[self.dim] - self.left - self.right
        if not 0 <= length <= value.shape[self.dim] - self.left:
            raise ValueError(
                f"expected at least {self.left} + {max(length, 0)} + {self.right} elements in dimension {self.dim}, "
                f"got {tuple(value.shape)}"
            )
        return value.narrow(self.dim, self.left, length)


class SqueezeInjector(Injector):
    """A dimension of size 1 taken away. value: (B, 1, T) -> (B, T) for dim 1.

    Args:
        dim: the dimension.
    """

    def __init__(self, *, dim: int = 1) -> None:
        self.dim = dim

    def forward(self, value: Tensor) -> Tensor:
        """value: (..., 1, ...) -> (..., ...).

        Raises:
            ValueError: the size of the dimension is not 1.
        """
        return _squeeze(value, self.dim)

    def inverse(self, value: Tensor) -> Tensor:
        """value: (..., ...) -> (..., 1, ...)."""
        return value.unsqueeze(self.dim)


class UnsqueezeInjector(Injector):
    """A dimension of size 1 put in. value: (B, T) -> (B, 1, T) for dim 1.

    Args:
        dim: the dimension that it becomes.
    """

    def __init__(self, *, dim: int = 1) -> None:
        self.dim = dim

    def forward(self, value: Tensor) -> Tensor:
        """value: (..., ...) -> (..., 1, ...).

        Raises:
            ValueError: the value has too few dimensions.
        """
        if not -value.ndim - 1 <= self.dim <= value.ndim:
            raise ValueError(f"expected a value that can have dimension {self.dim} added, got {tuple(value.shape)}")
        return value.unsqueeze(self.dim)

    def inverse(self, value: Tensor) -> Tensor:
        """value: (..., 1, ...) -> (..., ...)."""
        return _squeeze(value, self.dim)


class StackInjector(Injector):
    """Values of one shape along a new dimension. values: (B, T) each -> (B, N, T) for dim 1.

    Args:
        dim: the new dimension.
    """

    def __init__(self, *, dim: int = 1) -> None:
        self.dim = dim

    def forward(self, *values: Tensor) -> Tensor:
        """values: alike in shape -> one value with a dimension more.

        Raises:
            ValueError: the shapes differ, or are too short for that dimension.
        """
        shapes = [tuple(value.shape) for value in values]
        if len(set(shapes)) != 1 or not -len(shapes[0]) - 1 <= self.dim <= len(shapes[0]):
            raise ValueError(f"expected values of one shape that can be stacked in {self.dim}, got {_list(shapes)}")
        return torch.stack(values, self.dim)

    def inverse(self, value: Tensor) -> tuple[Tensor, ...]:
        """value: (..., N, ...) -> N values."""
        _require_dim(value, self.dim)
        return value.unbind(self.dim)


class NarrowInjector(Injector):
    """A stretch along a dimension. value: (..., N, ...) -> (..., length, ...).

    Args:
        start: its first element, counted from 0; a negative one counts from the end.
        length: how many elements. None: all that follow.
        dim: the dimension.
    """

    def __init__(self, *, start: int = 0, length: int | None = None, dim: int = -1) -> None:
        if length is not None and length < 1:
            raise ValueError(f"length must be 1 or more, got {length}")
        self.start = start
        self.length = length
        self.dim = dim

    def forward(self, value: Tensor) -> Tensor:
        """value: (..., N, ...) -> (..., length, ...).

        Raises:
            ValueError: the value lacks the dimension, or the stretch is not within it.
        """
        _require_dim(value, self.dim)
        size = value.shape[self.dim]
        start = self.start if self.start >= 0 else size + self.start
        length = size - start if self.length is None else self.length
        if start < 0 or length < 1 or start + length > size:
            wanted = f"from {self.start}" if self.length is None else f"from {self.start}, {self.length} long"
            raise ValueError(f"expected dimension {self.dim} to hold a stretch {wanted}, got {tuple(value.shape)}")
        return value.narrow(self.dim, start, length)

    def undo(self, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> Tensor:
        """The input with the stretch in its place."""
        whole = inputs[0].clone()
        self.forward(whole).copy_(outputs[0])
        return whole


def _squeeze(value: Tensor, dim: int) -> Tensor:
    if not _has_dim(value, dim) or value.shape[dim] != 1:
        raise ValueError(f"expected size 1 in dimension {dim}, got {tuple(value.shape)}")
    return value.squeeze(dim)


def _has_dim(value: Tensor, dim: int) -> bool:
    return -value.ndim <= dim < value.ndim


def _require_dim(value: Tensor, dim: int) -> None:
    if not _has_dim(value, dim):
        raise ValueError(f"expected a value that has dimension {dim}, got {tuple(value.shape)}")


def _list(shapes: list[tuple[int, ...]]) -> str:
    return ", ".join(map(str, shapes)) or "no value"
