"""From a dataset to batches: the order of items, worker processes, and a position that a run resumes from.

Item n of a run belongs to epoch ``n // len(dataset)``; which item it is and every random draw inside it follow from
(seed, epoch, n) alone. So the number of workers changes nothing, several processes share an epoch without overlap, and
the position in the data is one number: the count of batches taken. Every batch has a key more than the items,
`item_seed`: (B,) int64, a hash of each item's (seed, epoch, index), from which injectors draw.
"""

import logging
import pickle
import signal
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler, get_worker_info

from codes.data.audio.reader import AudioReadError
from codes.data.batch_rows import BatchRows, new_tensor
from codes.data.dataset import SKIPPED, Dataset
from codes.randomness import ITEM_SEED, item_generator, item_seed

logger = logging.getLogger(__name__)

_SMALL_BYTES = 1 << 16  # a pipe holds as much


class _Stream(Sampler[list[tuple[int, int]]]):
    """Yields batches of (epoch, index); endless in training, one pass in validation."""

    def __init__(self, dataset: Dataset, batch_size: int, seed: int, endless: bool, rank: int, ranks: int) -> None:
        length = len(dataset)
        self.length, self.batch_size, self.seed, self.endless = length, batch_size, seed, endless
        self._new_order = dataset.order
        self.rank, self.ranks = rank, ranks
        self.start = 0
        self._epoch = -1
        self._order = np.arange(length)

    def __len__(self) -> int:
        return (self.length + self.batch_size - 1) // self.batch_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        batch = self.start
        while self.endless or batch < len(self):
            yield self.batch(batch)
            batch += 1

    def batch(self, number: int) -> list[tuple[int, int]]:
        """The items of a batch that this process takes, every `ranks`-th of the batch."""
        return self.whole(number)[self.rank :: self.ranks]

    def whole(self, number: int) -> list[tuple[int, int]]:
        """The items of a batch, of all processes."""
        first = number * self.batch_size
        last = first + self.batch_size if self.endless else min(first + self.batch_size, self.length)
        return [self._place(n) for n in range(first, last)]

    def _place(self, n: int) -> tuple[int, int]:
        epoch, at = divmod(n, self.length)
        if not self.endless:
            return 0, at
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._new_order(np.random.default_rng((self.seed, epoch)))
        return epoch, int(self._order[at])


class _Batches(torch.utils.data.Dataset[dict[str, Any]]):
    """What a worker process holds: the dataset, and the plug-ins without which it could not be unpickled."""

    def __init__(self, dataset: Dataset, seed: int, plugins: list[Path], skips: bool = False) -> None:
        self.dataset, self.seed, self.plugins = dataset, seed, plugins
        self.skips = skips  # a validation item cannot be drawn anew, it can only be left out
        self._lends = True  # memory of the batch to the dataset, as long as that comes back in items

    def __getitem__(self, places: list[tuple[int, int]]) -> dict[str, Any] | Exception:
        """The batch of these (epoch, index), or the error that prevents it: errors that a worker raised would come
        with torch's own words around them."""
        try:
            batch = self._batch(places)
            return batch if get_worker_info() is None else _boxed(batch)
        except Exception as error:
            if not isinstance(error, AudioReadError):
                error.add_note("".join(traceback.format_tb(error.__traceback__)).rstrip())
            return error if get_worker_info() is None else _sendable(error)

    def _batch(self, places: list[tuple[int, int]]) -> dict[str, Any]:
        rows = BatchRows(len(places), None if get_worker_info() is None else _SMALL_BYTES)
        self.dataset.lend(rows if self._lends else None)
        try:
            made = [self._item(epoch, index) for epoch, index in places]
        finally:
            self.dataset.lend(None)
        places = [place for place, item in zip(places, made, strict=True) if isinstance(item, dict)]
        failed = [(str(item), str(item)) for item in made if isinstance(item, AudioReadError)]
        if failed and not places:
            raise AudioReadError(f"no item of a batch can be read; the last: {failed[-1][1]}")
        items = [item for item in made if isinstance(item, dict)]
        try:
            batch = collate(items, rows)
        except ValueError as error:
            listed = ", ".join(f"{index} of epoch {epoch}" for epoch, index in places)
            error.add_note(f"in {type(self.dataset).__name__}, a batch of the items {listed}")
            raise
        self._lends = self._lends and rows.serves(items)
        if ITEM_SEED in batch:
            name = type(self.dataset).__name__
            raise ValueError(f"{name} gives {ITEM_SEED!r}, which the loader adds to every batch: choose another name")
        batch[ITEM_SEED] = torch.tensor([item_seed(self.seed, epoch, index) for epoch, index in places])
        if failed:
            batch[SKIPPED] = [*batch.get(SKIPPED, []), failed]
        return batch

    def _item(self, epoch: int, index: int) -> dict[str, Any] | AudioReadError:
        """The item; or what is wrong with its file, where the dataset was asked to leave such files out."""
        try:
            return self.dataset.item(index, item_generator(item_seed(self.seed, epoch, index)))
        except Exception as error:
            if isinstance(error, AudioReadError) and self.skips and getattr(self.dataset, "on_error", "") == "skip":
                return error
            error.add_note(f"in {type(self.dataset).__name__}, item {index} of epoch {epoch}")
            raise

    def __getstate__(self) -> dict[str, Any]:
        return {"plugins": self.plugins, "seed": self.seed, "skips": self.skips, "dataset": pickle.dumps(self.dataset)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        from codes.registry import load_plugin

        for plugin in state["plugins"]:
            load_plugin(plugin)
        dataset = pickle.loads(state["dataset"])  # our own process's pickle
        self.__init__(dataset, state["seed"], state["plugins"], state["skips"])


def collate(items: list[dict[str, Any]], rows: BatchRows | None = None) -> dict[str, Any]:
    """Stack arrays, tensors and numbers to tensors (B, ...); other values become lists.

    Args:
        items: of one batch.
        rows: the batch's memory, where some of it was lent to those who made the items.

    Raises:
        ValueError: the items' keys or shapes differ, with the key and the shapes.
    """
    batch: dict[str, Any] = {}
    for key in dict.fromkeys(key for item in items for key in item):
        if any(key not in item for item in items):
            raise ValueError(f"not every item of the batch has the key {key!r}")
        values = [item[key] for item in items]
        if isinstance(values[0], (bool, int, float)):
            batch[key] = torch.tensor(values)
        elif rows is not None and (stacked := rows.stacked(values)) is not None:
            batch[key] = stacked
        elif isinstance(values[0], (np.ndarray, np.generic, torch.Tensor)):
            tensors = [_tensor(value) for value in values]
            if len({tensor.shape for tensor in tensors}) > 1:
                shapes = ", ".join(str(tuple(shape)) for shape in {tensor.shape for tensor in tensors})
                raise ValueError(f"items of one batch differ in the shape of {key!r}: {shapes}")
            batch[key] = _stack(tensors)
        else:
            batch[key] = values
    return batch


def _stack(tensors: list[torch.Tensor]) -> torch.Tensor:
    """One tensor of all, in a worker process in memory that the trainer sees: it need not be copied there."""
    if get_worker_info() is None or len({tensor.dtype for tensor in tensors}) > 1:
        return torch.stack(tensors)
    shape = (len(tensors), *tensors[0].shape)
    return torch.stack(tensors, out=new_tensor(shape, tensors[0].dtype, _SMALL_BYTES))


def _tensor(value: Any) -> torch.Tensor:
    """An array, number or tensor as a tensor; of arrays that torch cannot share (reversed, read-only) a copy."""
    if isinstance(value, np.ndarray) and not (value.flags.writeable and all(stride >= 0 for stride in value.strides)):
        value = value.copy()
    return torch.as_tensor(value)


class Loader:
    """Batches of a dataset from any position, and the time spent waiting for them.

    Args:
        dataset: where the items come from.
        batch_size: items of a batch over all processes.
        seed: decides order and random draws.
        endless: go on with the next epoch (training), or stop after one pass in order (validation).
        num_workers: worker processes; 0 makes the items here.
        pin_memory: batches in page-locked memory, for a GPU.
        rank, ranks: this process's number and how many there are.
        plugins: files that worker processes must load before they can make items.
    """

    def __init__(
        self, dataset: Dataset, batch_size: int, *, seed: int, endless: bool, num_workers: int = 0,
        pin_memory: bool = False, rank: int = 0, ranks: int = 1, plugins: list[Path] | None = None,
    ) -> None:  # fmt: skip
        if len(dataset) == 0:
            raise ValueError(f"{type(dataset).__name__} has no items")
        if batch_size < ranks and endless:
            raise ValueError(f"batch_size {batch_size} gives nothing to some of {ranks} processes")
        self.dataset = dataset
        self.position = 0  # batches taken
        self.waited_seconds = 0.0
        self.skipped: dict[str, int] = {}  # reads that failed and were left out, as the dataset was asked to, by file
        self._stream = _Stream(dataset, batch_size, seed, endless, rank, ranks)
        self._batches = _Batches(dataset, seed, plugins or [], skips=not endless)
        self._loader = DataLoader(
            self._batches, batch_size=None, sampler=self._stream, num_workers=num_workers, collate_fn=_as_is,
            pin_memory=pin_memory, worker_init_fn=_start_worker, generator=torch.Generator().manual_seed(seed),
        )  # fmt: skip
        self._iterator: Iterator[dict[str, Any]] | None = None

    def __len__(self) -> int:
        """Batches of one pass."""
        return len(self._stream)

    def seek(self, position: int) -> None:
        """Continue with batch number `position`."""
        self.close()
        self.position = position

    def next(self) -> dict[str, Any]:
        """The next batch; `waited_seconds` grows by the time it took to get it.

        Raises:
            StopIteration: the pass is over (never in training).
        """
        started = time.perf_counter()
        if self._iterator is None:
            self._stream.start = self.position
            self._iterator = iter(self._loader)
        batch = _checked(next(self._iterator))
        self.position += 1
        self._count_skipped(batch)
        self.waited_seconds += time.perf_counter() - started
        return batch

    def _count_skipped(self, batch: dict[str, Any]) -> None:
        """Say which files could not be read, each once, and count; more files than max_errors stop the run."""
        messages = [message for item in batch.pop(SKIPPED, []) for message in item]
        for file, message in messages:
            if file not in self.skipped:
                logger.warning("skipped: %s", message)
            self.skipped[file] = self.skipped.get(file, 0) + 1
        most = getattr(self.dataset, "max_errors", None)
        total = len(self.skipped) + getattr(self.dataset, "num_errors", 0)
        if messages and most is not None and total > most:
            raise AudioReadError(f"max_errors is {most}, and {total} files cannot be read; the last: {messages[-1][1]}")

    def batch(self, number: int) -> dict[str, Any]:
        """One batch by number, that of all processes, made here and without moving the position."""
        return self._made(self._stream.whole(number))

    def share(self, number: int) -> tuple[dict[str, Any], bool]:
        """This process's part of a batch, and whether it counts: where the batch has fewer items than there are
        processes, the others get its first item, so that all can compute together."""
        own = self._stream.batch(number)
        return self._made(own or self._stream.whole(number)[:1]), bool(own)

    def _made(self, places: list[tuple[int, int]]) -> dict[str, Any]:
        batch = _checked(self._batches[places])
        if self._stream.endless:  # a look at training data is no read of the run: it must not count again on resuming
            batch.pop(SKIPPED, None)
        self._count_skipped(batch)
        return batch

    def close(self) -> None:
        """Stop the worker processes, also after an error, whose traceback would hold them until the collector comes."""
        stop = getattr(self._iterator, "_shutdown_workers", None)
        self._iterator = None
        if stop is not None:
            stop()


def _start_worker(worker: int) -> None:
    """One thread; Ctrl-C and SIGTERM often reach all processes, but only the trainer decides when to stop."""
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@dataclass(frozen=True)
class _Box:
    """A small tensor on its way from a worker process, as an array: torch would send each tensor through shared memory
    and a socket of its own, 0.3 ms of waiting apiece."""

    array: np.ndarray

    def pin_memory(self) -> torch.Tensor:
        """What the loader asks of everything in a batch that is copied to a GPU."""
        return torch.from_numpy(self.array).pin_memory()


def _boxed(batch: dict[str, Any]) -> dict[str, Any]:
    return {key: _Box(value.numpy()) if _is_small(value) else value for key, value in batch.items()}


def _is_small(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.nbytes <= _SMALL_BYTES and value.dtype != torch.bfloat16


def _sendable(error: Exception) -> Exception:
    """The error, where it comes through a pipe as it is; else what can be said of it: torch would wait for ever."""
    try:
        if type(pickle.loads(pickle.dumps(error))) is type(error):
            return error
    except Exception:  # whatever a plug-in's exception does when it is packed
        pass
    told = RuntimeError(f"{type(error).__name__}: {error}")
    for note in getattr(error, "__notes__", []):
        told.add_note(note)
    return told


def _checked(batch: dict[str, Any] | Exception) -> dict[str, Any]:
    if isinstance(batch, Exception):
        raise batch
    return {key: torch.from_numpy(value.array) if isinstance(value, _Box) else value for key, value in batch.items()}


def _as_is(batch: Any) -> Any:
    return batch
