"""How many bytes have come: a bar on a terminal, a line now and then elsewhere; on stderr."""

import sys
import time
from types import TracebackType
from typing import Any, TextIO

_SECONDS_BETWEEN_LINES = 10.0


class ByteProgress:
    """Counts bytes; a context manager.

    Args:
        title: what is done, as in "downloading".
        shown: False: nothing is shown.
        stream: where to (default: standard error).
    """

    def __init__(self, title: str, shown: bool = True, stream: TextIO | None = None) -> None:
        self.title = title
        self._shown = shown
        self._stream = stream or sys.stderr
        self._bar: Any = None
        self._task: Any = None
        self._done, self._total = 0, None
        self._last = time.monotonic()

    def __enter__(self) -> "ByteProgress":
        return self

    def begin(self, done: int, total: int | None) -> None:
        """So many bytes of so many are there; None where that is not known."""
        self._done, self._total = done, total
        if self._shown and self._stream.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
            self._bar = Progress(*columns, console=Console(file=self._stream), transient=True)
            self._task = self._bar.add_task(self.title, total=total, completed=done)
            self._bar.start()

    def advance(self, num_bytes: int) -> None:
        """So many bytes more."""
        self._done += num_bytes
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done)
        elif self._shown and time.monotonic() - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            of = "" if self._total is None else f" of {self._total / 1e6:,.0f}"
            print(f"{self.title}: {self._done / 1e6:,.0f}{of} MB", file=self._stream, flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
