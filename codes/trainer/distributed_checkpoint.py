"""Checkpoints of several processes: networks whole, as every other command reads them; optimizers in shards.

Under ddp the first process writes what a run of one process writes. Under fsdp the weights are gathered tensor by
tensor and written by the first process as well, while each process writes its part of the optimizers' tensors with
torch.distributed.checkpoint, into ``shards/`` of the same checkpoint. Those are safetensors files too: nothing is
unpickled. A checkpoint of either kind can be continued by any number of processes, of either kind.
"""

import shutil
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codes.trainer import checkpoint as checkpoints
from codes.trainer.checkpoint import PREFIX, CheckpointError
from codes.trainer.distributed import RANK_SEEDS, Ranks
from codes.trainer.random_state import random_state, restore_random_state, seed_random

SHARDED = "in shards/"  # in state.pt, in the place of a tensor


def is_sharded(value: Any) -> bool:
    """Whether a tensor is held in parts by several processes."""
    return hasattr(value, "full_tensor")


def save(
    ranks: Ranks, folder: Path, step: int, weights: Mapping[str, Mapping[str, Tensor]], state: dict[str, Any]
) -> Path:
    """Write a checkpoint; every process calls it, with its own view of weights and state.

    Raises:
        CheckpointError: on every process, where one could not write.
    """
    whole = {name: gathered(tensors, ranks.first) for name, tensors in weights.items()}
    state, tensors = _split(state)
    shards = folder / f"{PREFIX}{step:08d}.shards.tmp"
    if any(ranks.gather(bool(tensors))):
        ranks.do_once(lambda: shutil.rmtree(shards, ignore_errors=True))
        _write_shards(tensors, shards)
    ranks.do_once(lambda: checkpoints.save_checkpoint(folder, step, whole, state, shards))
    return folder / f"{PREFIX}{step:08d}"


def gathered(tensors: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """A state dict with whole tensors, on the CPU where they were gathered; empty where it is not kept."""
    found = {}
    for name, tensor in tensors.items():
        whole = tensor.full_tensor().cpu() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]
        if keep:
            found[name] = whole
    return found


def _split(state: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The state without its sharded tensors, and those by name."""
    tensors: dict[str, Tensor] = {}
    plain = {
        network: [updater | {"optimizer": _without_shards(updater["optimizer"], f"{network}.{number}", tensors)}
                  for number, updater in enumerate(updaters)]
        for network, updaters in state["updaters"].items()
    }  # fmt: skip
    return state | {"updaters": plain}, tensors


def _without_shards(optimizer: dict[str, Any], prefix: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    kept = {}
    for index, values in optimizer.get("state", {}).items():
        for name, value in values.items():
            if is_sharded(value):
                tensors[f"{prefix}.{index}.{name}"] = value
        kept[index] = {name: SHARDED if is_sharded(value) else value for name, value in values.items()}
    return optimizer | {"state": kept} if "state" in optimizer else optimizer


def _write_shards(tensors: dict[str, Tensor], folder: Path) -> None:
    from torch.distributed.checkpoint import CheckpointException, HuggingFaceStorageWriter, save

    try:
        save(tensors, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))
    except (CheckpointException, OSError) as error:
        raise CheckpointError(f"the optimizers' shards {folder} could not be written: {_line(error)}") from error


def load_updater(checkpoint: Path, prefix: str, saved: dict[str, Any], parameters: list[Tensor]) -> dict[str, Any]:
    """An updater's saved state with its tensors laid out as its parameters are now: whole, or in parts.

    Args:
        checkpoint: the folder.
        prefix: NETWORK.NUMBER of the updater.
        saved: what `save` was given for it.
        parameters: of its optimizer, in order.

    Raises:
        CheckpointError: the shards cannot be read.
    """
    state = saved["optimizer"].get("state", {})
    wanted = {
        f"{prefix}.{index}.{name}": torch.zeros_like(parameters[index])
        for index, values in state.items()
        for name, value in values.items()
        if isinstance(value, str) and value == SHARDED
    }
    if wanted:
        _read_shards(wanted, checkpoint / "shards")
    laid_out = {
        index: {
            name: wanted[f"{prefix}.{index}.{name}"] if isinstance(value, str) else like(parameters[index], value)
            for name, value in values.items()
        }
        for index, values in state.items()
    }
    return saved | {"optimizer": saved["optimizer"] | {"state": laid_out}}


def _read_shards(tensors: dict[str, Tensor], folder: Path) -> None:
    """Fill tensors, whole or in parts, from the shards of any number of processes."""
    from torch.distributed.checkpoint import CheckpointException, HuggingFaceStorageReader, load

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # one process reads them all
            load(tensors, storage_reader=HuggingFaceStorageReader(str(folder)))
    except (CheckpointException, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"the optimizers' shards {folder} cannot be read: {_line(error)}") from error


def like(model: Tensor, value: Any) -> Any:
    """A whole tensor as the model's parts, where the model is held in parts and of the same shape."""
    if not is_sharded(model) or not isinstance(value, Tensor) or is_sharded(value) or value.shape != model.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    where: Any = model
    return distribute_tensor(value.to(model.device), where.device_mesh, where.placements, src_data_rank=None)


def fitted(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights from a file, laid out as those that a network holds now."""
    return {name: like(own[name], value) if name in own else value for name, value in weights.items()}


def random_states(ranks: Ranks) -> dict[str, Any]:
    """The random numbers of this process, with those of the others where there are some."""
    own = random_state()
    return own if ranks.size == 1 else own | {"ranks": ranks.gather(own)}


def begin_random(ranks: Ranks, saved: dict[str, Any] | None, seed: int, step: int) -> None:
    """Random numbers as a checkpoint has them for this process; else, also where another number of processes wrote it,
    by seed, step and process."""
    states = [] if saved is None else saved.get("ranks", [saved])
    if len(states) == ranks.size:
        restore_random_state(states[ranks.rank])
    else:
        drawn = 0 if saved is None else 1_000_003 * step
        seed_random(seed + drawn + RANK_SEEDS * ranks.rank)


def merged_counts(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Counts by name, added up."""
    total: dict[str, int] = {}
    for part in counts:
        for name, number in part.items():
            total[name] = total.get(name, 0) + number
    return total


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
