"""Ctrl-C and SIGTERM as a request that the loop reads between two steps; Ctrl-C after that stops at once.

A second SIGTERM does not: schedulers send it to every process of a job, and torchrun hands its own on to the same ones.
"""

import signal
from types import FrameType
from typing import Any


class StopRequest:
    """Context in which SIGINT and SIGTERM only set `requested`."""

    def __init__(self) -> None:
        self.requested = False
        self.name = ""
        self._former: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._former[number] = signal.signal(number, self._handle)
            except ValueError:  # not the main thread: the caller keeps its own handling
                break
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.requested:
            self.requested, self.name = True, signal.Signals(number).name
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
