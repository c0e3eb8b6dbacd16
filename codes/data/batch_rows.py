"""The memory of one batch, lent row by row to whoever reads its items: stacked is then what was read, without a copy.

A batch of sixteen chunks of two seconds is 5.6 MB. Read into arrays of their own and stacked afterwards, it is written
twice, and once more on its way out of a worker process. Here the first array that is asked for decides the shape of all
rows; the others of that shape are the rows that follow. Arrays of another shape are nobody's rows, and items that are
not the arrays that were lent (they were padded, or mixed) are stacked as ever.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch


class BatchRows:
    """Rows for the items of one batch.

    Args:
        count: the items of the batch.
        shared_bytes: batches of more bytes are made in memory that processes share; None: in none.
    """

    def __init__(self, count: int, shared_bytes: int | None = None) -> None:
        self._count, self._shared_bytes = count, shared_bytes
        self._stacked: torch.Tensor | None = None
        self._array = np.empty(0)
        self._num_lent = 0

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array to be written: the next row, or memory of its own where there is no such row."""
        if self._stacked is None:
            kind = torch.from_numpy(np.empty(0, dtype)).dtype
            self._stacked = new_tensor((self._count, *shape), kind, self._shared_bytes)
            self._array = self._stacked.numpy()
        if self._num_lent == self._count or self._array.shape[1:] != shape or self._array.dtype != dtype:
            return np.empty(shape, dtype)
        self._num_lent += 1
        return self._array[self._num_lent - 1]

    def stacked(self, values: Sequence[Any]) -> torch.Tensor | None:
        """(B, ...): these values, where they are the rows in their order and nothing else; None where not."""
        if self._stacked is None or len(values) > self._num_lent:
            return None
        places = [_place(value) for value in values]
        return self._stacked[: len(values)] if places == self._places()[: len(values)] else None

    def serves(self, items: Sequence[Mapping[str, Any]]) -> bool:
        """Whether any of the items holds what was lent for it, or nothing was lent at all."""
        lent = self._places()
        return not lent or any(_place(value) in lent for item in items for value in item.values())

    def _places(self) -> list[Any]:
        return [_place(row) for row in self._array[: self._num_lent]]


def _place(value: Any) -> Any:
    """Where an array lies in memory, and how; None of all else."""
    if not isinstance(value, np.ndarray):
        return None
    return value.__array_interface__["data"], value.shape, value.strides, value.dtype


def new_tensor(shape: tuple[int, ...], dtype: torch.dtype, shared_bytes: int | None) -> torch.Tensor:
    """Memory for a tensor, shared between processes where it takes more than ``shared_bytes``; its content is any."""
    num_bytes = dtype.itemsize * int(np.prod(shape))
    if shared_bytes is None or num_bytes <= shared_bytes:
        return torch.empty(shape, dtype=dtype)
    storage = torch.UntypedStorage._new_shared(num_bytes)  # what torch's own collate function does
    return torch.empty(0, dtype=dtype).set_(storage, 0, shape, torch.empty(shape, device="meta").stride())
