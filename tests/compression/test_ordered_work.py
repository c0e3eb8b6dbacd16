"""Work in order: as many things at a time as asked for, and Ctrl-C waits for none of them."""

import signal as signals
import threading
from collections.abc import Iterator

import pytest

from codes.compression.ordered_work import in_order


def test_work_in_order_takes_no_more_than_it_must() -> None:
    taken = []

    def things() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    made = in_order(lambda number: number * number, things(), 4)
    assert [next(made) for _ in range(10)] == [number * number for number in range(10)]
    assert len(taken) <= 10 + 4
    assert list(made) == [number * number for number in range(10, 100)]
    assert list(in_order(str, [], 4)) == []

    def fail(number: int) -> int:
        if number == 5:
            raise ValueError("five")
        return number

    made = in_order(fail, range(100), 3)
    assert [next(made) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="five"):
        next(made)


def test_ctrl_c_does_not_wait_for_work_under_way() -> None:
    endless = threading.Event()  # as compiled code, which does not look up
    before = signals.signal(signals.SIGINT, signals.default_int_handler)  # in the background it is ignored
    timer = threading.Timer(0.05, signals.pthread_kill, [threading.main_thread().ident, signals.SIGINT])
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            next(in_order(lambda _: endless.wait(), [0], 1))
    finally:
        timer.join()
        signals.signal(signals.SIGINT, before)
        endless.set()
