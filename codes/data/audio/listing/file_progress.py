"""How far a long work over many files has come: a bar on a terminal, a line now and then elsewhere; on stderr."""

import sys
import threading
import time
from types import TracebackType
from typing import Any, Self, TextIO

_SECONDS_BETWEEN_LINES = 10.0


class FileProgress:
    """Counts files; a context manager, and may be told of them by several threads.

    Args:
        title: what is done, as in "indexing".
        total: how many files there are.
        shown: False: nothing is shown.
        stream: where to (default: standard error).
        unit: what is counted.
    """

    def __init__(
        self, title: str, total: int, shown: bool = True, stream: TextIO | None = None, unit: str = "files"
    ) -> None:
        self.title = title
        self.total: int | None = total
        self.done = 0
        self._unit = unit
        self._shown = shown
        self._stream = stream or sys.stderr
        self._bar: Any = None
        self._task: Any = None
        self._lock = threading.Lock()
        self._started = self._last = time.monotonic()

    def __enter__(self) -> Self:
        if self.total:
            self._start()
        return self

    def _start(self) -> None:
        if self._shown and self._stream.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (TextColumn("{task.description}"), BarColumn(), *self._columns())
            self._bar = Progress(*columns, console=Console(file=self._stream), transient=True)
            self._task = self._bar.add_task(self.title, total=self.total, completed=self.done)
            self._bar.start()

    def _columns(self) -> tuple[Any, ...]:
        """What stands beside the bar."""
        from rich.progress import MofNCompleteColumn, TimeRemainingColumn

        return MofNCompleteColumn(), TimeRemainingColumn()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._shown and self._last > self._started and kind is None:
            self._line()

    def advance(self, count: int = 1) -> None:
        """So many more are done."""
        with self._lock:
            self.done += count
            if self._bar is not None:
                self._bar.update(self._task, completed=self.done)
            elif self._shown and time.monotonic() - self._last >= _SECONDS_BETWEEN_LINES:
                self._line()

    def _line(self) -> None:
        self._last = time.monotonic()
        print(f"{self.title}: {self._counted(self._last - self._started)}", file=self._stream, flush=True)

    def _counted(self, seconds: float) -> str:
        rate = self.done / max(1e-9, seconds)
        return f"{self.done} of {self.total} {self._unit}, {rate:,.0f} {self._unit}/s"
