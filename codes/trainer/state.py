"""The state of one micro-batch: a mapping in which every key is written once."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch


class State(Mapping[str, Any]):
    """Values by key. A key that exists cannot be written again, so a reader sees the same whoever ran before."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    def __getitem__(self, key: str) -> Any:
        try:
            return self._values[key]
        except KeyError:
            raise KeyError(f"state has no key {key!r}; it has {', '.join(sorted(self._values))}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def write(self, key: str, value: Any) -> None:
        """Add a value.

        Raises:
            KeyError: the key is written already.
        """
        if key in self._values:
            raise KeyError(f"state key {key!r} is written already")
        self._values[key] = value


def batch_size(batch: Mapping[str, Any]) -> int:
    """Number of items of a batch: the length of its first tensor or list."""
    for value in batch.values():
        if (isinstance(value, torch.Tensor) and value.ndim) or isinstance(value, list):
            return len(value)
    raise ValueError("a batch must hold at least one tensor or list")


def split_batch(batch: Mapping[str, Any], parts: int) -> list[dict[str, Any]]:
    """Split a batch along its items into at most `parts` micro-batches; the last may be smaller."""
    if parts == 1:
        return [dict(batch)]
    items = batch_size(batch)
    size = -(-items // parts)
    return [{key: value[at : at + size] for key, value in batch.items()} for at in range(0, items, size)]


def move(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch's tensors on the device, copied without waiting where they are pinned."""
    return {
        key: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for key, value in batch.items()
    }
