"""Where a run keeps what it learned, for those who use a trained network without the trainer."""

import json
from pathlib import Path


def best_checkpoint(run: Path) -> Path:
    """The best checkpoint of a run's folder, or its newest where none is marked.

    Raises:
        FileNotFoundError: there is none yet.
        ValueError: what marks the best cannot be read.
    """
    folder = run / "checkpoints"
    paths = [manifest.parent for manifest in folder.glob("step_*/manifest.json")]
    found = {path.name.removeprefix("step_"): path for path in paths}
    by_step = {int(step): path for step, path in found.items() if step.isdecimal()}  # others come and go
    if not by_step:
        raise FileNotFoundError(f"{run} has no checkpoint yet")
    best = _best_step(folder / "marks.json")
    return by_step[best if best in by_step else max(by_step)]


def _best_step(marks: Path) -> int | None:
    if not marks.is_file():
        return None
    try:
        best = json.loads(marks.read_text(encoding="utf-8"))["best"]
        return int(best["step"]) if best else None
    except (ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ValueError(f"{marks} cannot be read ({reason}): without it the newest checkpoint is taken") from error


def network_weights(checkpoint: Path, name: str) -> Path:
    """A network's file in a checkpoint: the averaged weights where there are any."""
    averaged = checkpoint / f"{name}_ema.safetensors"
    return averaged if averaged.is_file() else checkpoint / f"{name}.safetensors"
