"""Metrics and progress of the processes that write nothing: all but the first of a run."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from codes.trainer.metrics import MetricsFile
from codes.trainer.progress import Progress


class SilentMetrics(MetricsFile):
    """Takes figures and keeps none."""

    def __init__(self) -> None:
        self.path, self.wandb = Path(os.devnull), None

    @property
    def tensorboard(self) -> Any:
        """None: there are no TensorBoard files."""
        return None

    def write(self, step: int, split: str, figures: Mapping[str, Any], curves: Any = None) -> None:
        """Keep nothing."""

    def flush(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


def silent_progress() -> Progress:
    """A progress line that nobody sees."""
    return Progress(Path(os.devnull), 1, stream=open(os.devnull, "w", encoding="utf-8"))
