"""Checkpoints: folders that are written aside and renamed, verified when read, and thinned out.

``checkpoints/step_00000500/`` holds one safetensors file for each network (and for each moving average), ``state.pt``
with everything else that a run needs to go on as if nothing had happened, and ``manifest.json`` with the size and
checksum of each. A folder without a manifest is not a checkpoint; a rename makes it one, so a kill or a full disk at
any moment leaves the former ones whole.
"""

import contextlib
import errno
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codes.weights import CheckpointError as CheckpointError
from codes.weights import fit_weights as fit_weights
from codes.weights import load_weights as load_weights

PREFIX = "step_"
MANIFEST = "manifest.json"
REFUSALS = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG, getattr(errno, "EDQUOT", -1))


@contextlib.contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turn it into a CheckpointError where a disk refuses what is written to a file, or below a folder."""
    try:
        yield
    except OSError as error:
        name = None if error.filename is None else Path(error.filename)
        within = name is not None and place.absolute() in (name.absolute(), *name.absolute().parents)
        refused = error.errno in REFUSALS and (name is None or not name.is_absolute())  # shutil names parts of paths
        if not within and not refused:
            raise
        raise CheckpointError(
            f"{place} cannot be written: {error}; checkpoints that were saved are whole: "
            "make room, or it writable, and start the same command again"
        ) from error


def list_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints in a folder, oldest first."""
    return sorted(path.parent for path in folder.glob(f"{PREFIX}*/{MANIFEST}") if path.parent.suffix == "")


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was written."""
    return int(json.loads((checkpoint / MANIFEST).read_text())["step"])


def save_checkpoint(
    folder: Path, step: int, weights: Mapping[str, Mapping[str, Tensor]], state: Any, shards: Path | None = None
) -> Path:
    """Write a checkpoint aside, then rename it into place.

    Args:
        folder: the run's checkpoints.
        step: the step that it follows.
        weights: state dicts by file name without ending.
        state: plain containers, numbers, text and tensors.
        shards: a folder that becomes a part of it, where there is one (distributed_checkpoint.py).

    Raises:
        CheckpointError: it could not be written (disk full, no permission); nothing of it is left.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    final = folder / f"{PREFIX}{step:08d}"
    aside = final.with_suffix(".tmp")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        for name, tensors in weights.items():
            save_file(_contiguous(tensors), aside / f"{name}.safetensors")
        torch.save(state, aside / "state.pt")
        if shards is not None and shards.is_dir():
            os.replace(shards, aside / "shards")
        written = sorted(path for path in aside.rglob("*") if path.is_file())
        files = {path.relative_to(aside).as_posix(): _fingerprint(path) for path in written}
        (aside / MANIFEST).write_text(json.dumps({"step": step, "torch": torch.__version__, "files": files}, indent=1))
        for path in aside.rglob("*"):
            _sync(path)
        remove_checkpoint(final)
        os.replace(aside, final)
        _sync(folder)
    except (OSError, SafetensorError, RuntimeError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        free = shutil.disk_usage(folder).free / 2**20 if folder.exists() else 0
        raise CheckpointError(
            f"checkpoint {final} could not be written: {error} ({free:.0f} MiB free there); "
            "earlier checkpoints are untouched: make room and start the same command again"
        ) from error
    return final


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write a state dict as a safetensors file of its own, aside and then renamed into place."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".tmp")
    save_file(_contiguous(weights), aside)
    os.replace(aside, path)


def remove_checkpoint(checkpoint: Path) -> None:
    """Delete a checkpoint, if it is there: renamed first, so that a kill on the way leaves nothing that looks whole."""
    doomed = checkpoint.with_suffix(".old.tmp")
    shutil.rmtree(doomed, ignore_errors=True)
    if checkpoint.exists():
        os.replace(checkpoint, doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as safetensors takes them: on the CPU, contiguous, none sharing memory (tied weights, views)."""
    seen: set[int] = set()
    copies = {}
    for name, tensor in tensors.items():
        value = tensor.detach().to("cpu").contiguous()
        memory = value.untyped_storage().data_ptr()
        copies[name] = value.clone() if memory in seen else value
        seen.add(memory)
    return copies


def _fingerprint(path: Path) -> dict[str, int]:
    checksum, size = 0, 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            checksum, size = zlib.crc32(chunk, checksum), size + len(chunk)
    return {"bytes": size, "crc32": checksum}


def _sync(path: Path) -> None:
    """Make sure that a file's, or on POSIX a folder's, content is on the disk."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() or os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def verify(checkpoint: Path) -> None:
    """Compare a checkpoint's files with its manifest.

    Raises:
        CheckpointError: a file is missing, truncated or altered; the message names it.
    """
    try:
        files = dict(json.loads((checkpoint / MANIFEST).read_text())["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{checkpoint} is not a checkpoint: its {MANIFEST} cannot be read ({error})") from error
    for name, expected in files.items():
        path = checkpoint / name
        found = _fingerprint(path) if path.is_file() else None
        if found == expected:
            continue
        what = "is missing" if found is None else "has been altered"
        if found and found["bytes"] < expected["bytes"]:
            what = f"is truncated ({found['bytes']} of {expected['bytes']} bytes)"
        raise CheckpointError(
            f"checkpoint file {path} {what}. To go on from an earlier checkpoint, "
            f"give path.resume_state=FOLDER with one of {_earlier(checkpoint)}; to start anew, --fresh"
        )


def _earlier(checkpoint: Path) -> str:
    others = [str(path) for path in list_checkpoints(checkpoint.parent) if path != checkpoint]
    return ", ".join(others) or "(none is left)"


def load_state(checkpoint: Path) -> dict[str, Any]:
    """The state of a verified checkpoint, on the CPU; nothing in it is executed."""
    try:
        return torch.load(checkpoint / "state.pt", map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch's unpickler stumbles over
        raise CheckpointError(f"{checkpoint / 'state.pt'} cannot be read: {_line(error)}") from error


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def thin_out(folder: Path, keep_newest: int, keep_steps: set[int]) -> None:
    """Delete checkpoints that are neither among the newest nor of these steps, and what a kill left half written.

    Those of later steps than all of `keep_steps` go as well: the run went on from an earlier one (path.resume_state),
    and they would pass for its newest.
    """
    steps = {int(path.name.removeprefix(PREFIX)): path for path in list_checkpoints(folder)}
    current = [step for step in steps if not keep_steps or step <= max(keep_steps)]
    kept = keep_steps | set(current[-keep_newest:])
    for step in steps.keys() - kept:
        remove_checkpoint(steps[step])
    for leftover in folder.glob(f"{PREFIX}*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)


def write_atomically(path: Path, text: str) -> None:
    """Replace a text file's content as a whole."""
    aside = path.with_name(path.name + ".tmp")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)
