"""A function over many things, several at a time, its results in their order and no more than a few in memory."""

import collections
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


def in_order(function: Callable[[Given], Made], things: Iterable[Given], workers: int) -> Iterator[Made]:
    """What ``map`` gives, by so many threads; the first thing is done alone, so that kernels are compiled once.

    What is taken from ``things`` and what is made of it is held for ``workers`` things at a time. Also one at a time
    they are done in threads, and in such as nobody waits for at the end: compiled code runs for many seconds without
    looking up, and Ctrl-C must not wait for it.
    """
    waiting: collections.deque[Future[Made]] = collections.deque()
    is_first = True
    for thing in things:
        waiting.append(_begun(function, thing))
        if is_first or len(waiting) >= workers:
            yield waiting.popleft().result()
        is_first = False
    while waiting:
        yield waiting.popleft().result()


def _begun(function: Callable[[Given], Made], thing: Given) -> Future[Made]:
    future: Future[Made] = Future()

    def work() -> None:
        try:
            future.set_result(function(thing))
        except BaseException as error:  # raised again where the result is asked for
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future
