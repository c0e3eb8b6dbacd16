"""Where a run keeps what it learned, for those who use a trained network without the trainer."""

import json
from pathlib import Path


def best_checkpoint(run: Path) -> Path:
    """The best checkpoint of a run's folder, or its newest where none is marked.

    Raises:
        FileNotFoundError: there is none yet.
    """
    folder = run / "checkpoints"
    found = sorted(manifest.parent for manifest in folder.glob("step_*/manifest.json"))
    found = [path for path in found if path.suffix == ""]  # others are being written or deleted
    if not found:
        raise FileNotFoundError(f"{run} has no checkpoint yet")
    marks = folder / "marks.json"
    best = json.loads(marks.read_text(encoding="utf-8"))["best"] if marks.is_file() else None
    by_step = {int(path.name.removeprefix("step_")): path for path in found}
    return by_step.get(int(best["step"]), found[-1]) if best else found[-1]


def network_weights(checkpoint: Path, name: str) -> Path:
    """A network's file in a checkpoint: the averaged weights where there are any."""
    averaged = checkpoint / f"{name}_ema.safetensors"
    return averaged if averaged.is_file() else checkpoint / f"{name}.safetensors"
