"""How many bytes have come: a bar on a terminal, a line now and then elsewhere; on stderr."""

from typing import Any, TextIO

from codes.data.audio.listing.file_progress import FileProgress


class ByteProgress(FileProgress):
    """Counts bytes; a context manager. Nothing is shown before `begin`, which is told how many there are.

    Args:
        title: what is done, as in "downloading".
        shown: False: nothing is shown.
        stream: where to (default: standard error).
    """

    def __init__(self, title: str, shown: bool = True, stream: TextIO | None = None) -> None:
        super().__init__(title, 0, shown, stream)

    def begin(self, done: int, total: int | None) -> None:
        """So many bytes of so many are there; None where that is not known."""
        self.done, self.total = done, total
        self._start()

    def _columns(self) -> tuple[Any, ...]:
        from rich.progress import DownloadColumn, TimeRemainingColumn, TransferSpeedColumn

        return DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()

    def _counted(self, seconds: float) -> str:
        of = "" if self.total is None else f" of {self.total / 1e6:,.0f}"
        return f"{self.done / 1e6:,.0f}{of} MB"
