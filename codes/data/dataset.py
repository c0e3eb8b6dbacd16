"""The base class of all datasets.

A dataset declares the keys it provides, says how many items it has and makes item ``index`` from a random number
generator that is a pure function of (seed, epoch, index). It never seeds anything itself, so the number of workers
changes nothing and a run resumes where it stopped. The constructor's arguments are the YAML's options.
"""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from codes.data.batch_rows import BatchRows
from codes.registry import Registered

SKIPPED = "_skipped"  # key of an item: (file, what is wrong) of what could not be read; the loader counts it


class Dataset(Registered):
    """Items by number. A subclass sets ``provides`` and defines ``__len__`` and ``item``."""

    kind: ClassVar[str] = "dataset"
    provides: ClassVar[dict[str, str]] = {}  # key of the batch -> what it holds (shape, dtype), for people

    @classmethod
    def provided_keys(cls, options: Mapping[str, Any]) -> dict[str, str]:
        """The keys of an item under these options. Override where they depend on the options."""
        return dict(cls.provides)

    def __len__(self) -> int:
        """Number of items in an epoch."""
        raise NotImplementedError(f"{type(self).__name__} must define __len__")

    def fingerprint(self) -> dict[str, Any]:
        """What identifies the data, as plain values; a run is continued on the same data only."""
        return {"items": len(self)}

    def lend(self, rows: BatchRows | None) -> None:
        """Told before the items of a batch are made: arrays for them may be taken from ``rows``; None: no longer."""

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """The items of an epoch of training in the order in which they are read: each index once.

        Override where some orders are read faster than others.
        """
        return rng.permutation(len(self))

    def item(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """Item ``index`` as a dict of arrays, tensors, numbers and strings with the keys of ``provides``.

        Arrays and tensors of one key must have the same shape in all items: they are stacked to (B, ...).
        """
        raise NotImplementedError(f"{type(self).__name__} must define item(self, index, rng)")


@contextlib.contextmanager
def warnings_in_report() -> Iterator[None]:
    """Inside, datasets do not warn of what they leave out: for callers that print their reports, which name it."""
    loggers = [logging.getLogger(f"codes.data.audio.{name}") for name in ("audio_dataset", "transcripts.left_out")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
