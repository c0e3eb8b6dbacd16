"""A function over many things, several at a time, its results in their order and no more than a few in memory."""

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


def in_order(function: Callable[[Given], Made], things: Iterable[Given], workers: int) -> Iterator[Made]:
    """What ``map`` gives, by so many threads; the first thing is done alone, so that kernels are compiled once.

    What is taken from ``things`` and what is made of it is held for ``workers`` things at a time.
    """
    iterator = iter(things)
    if workers <= 1:
        yield from map(function, iterator)
        return
    for first in iterator:
        yield function(first)
        break
    waiting: collections.deque[Future[Made]] = collections.deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for thing in iterator:
                waiting.append(pool.submit(function, thing))
                if len(waiting) >= workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
