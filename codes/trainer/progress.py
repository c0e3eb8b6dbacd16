"""What a person sees of a run: a live line on a terminal, plain lines elsewhere, everything in log.txt."""

import contextlib
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch


class Progress:
    """The progress line and the log of a run.

    Args:
        log: file that every printed line is appended to.
        total: number of steps.
        losses: names of the experiment's losses; several are shown each by itself.
        stream: where lines go (default: standard output).
    """

    def __init__(self, log: Path, total: int, losses: Sequence[str] = (), stream: Any = None) -> None:
        from rich.console import Console

        self.log = log
        self.total = total
        self.losses = losses
        self.console = Console(file=stream or sys.stdout, highlight=False, soft_wrap=True)
        self._live: Any = None
        self._task: Any = None
        self._started = time.perf_counter()
        self._started_step = 0

    def start(self, step: int) -> None:
        """Begin to count at a step; on a terminal, show the live line."""
        self._started, self._started_step = time.perf_counter(), step
        if not self.console.is_terminal:
            return
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Live

        columns = (TextColumn("{task.fields[title]}"), BarColumn(bar_width=20), TextColumn("{task.fields[figures]}"))
        self._live = Live(*columns, console=self.console, refresh_per_second=2)
        self._task = self._live.add_task("", total=self.total, completed=step, title=f"step {step}", figures="")
        self._live.start()

    def figures(self, step: int, figures: Mapping[str, Any]) -> None:
        """Show training figures at a step."""
        text = "  ".join(self._shown(step, figures))
        if self._live is not None:
            self._live.update(self._task, completed=step, title=f"step {step}/{self.total}", figures=text)
            self._append(f"step {step}/{self.total}  {text}")
        else:
            self.line(f"step {step}/{self.total}  {text}")

    def advance(self, step: int) -> None:
        """Move the bar; costs nothing where there is none."""
        if self._live is not None:
            self._live.update(self._task, completed=step, title=f"step {step}/{self.total}")

    def _shown(self, step: int, figures: Mapping[str, Any]) -> list[str]:
        parts = []
        losses = [name for name in self.losses if name in figures]
        for name in losses if len(losses) > 1 else ["loss"] if "loss" in figures else []:
            parts.append(f"{name} {figures[name]:.4f}")
        if "bits_per_sample" in figures:
            parts.append(f"{figures['bits_per_sample']:.3f} bits/sample")
        parts.append(f"{figures['tokens_per_second']:,.0f} tokens/s")
        if "mfu" in figures:
            parts.append(f"{100 * figures['mfu']:.1f} % MFU")
        parts.append(f"data wait {100 * figures['data_wait_share']:.1f} %")
        if figures.get("memory_bytes"):
            parts.append(f"{figures['memory_bytes'] / 2**30:.2f} GiB")
        parts.append(f"ETA {duration(self._remaining(step))}")
        return parts

    def _remaining(self, step: int) -> float:
        done = max(1, step - self._started_step)
        return (time.perf_counter() - self._started) / done * (self.total - step)

    def line(self, text: str) -> None:
        """Print a line above the live one and append it to the log."""
        self.console.print(text, markup=False)
        self._append(text)

    def _append(self, text: str) -> None:
        with contextlib.suppress(OSError), self.log.open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    def stop(self) -> None:
        """Take the live line away."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def duration(seconds: float) -> str:
    """Seconds as ``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def memory_bytes(device: torch.device) -> int | None:
    """Peak memory of this process: on the GPU where it trains there, else resident; None where that is unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows has none
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
