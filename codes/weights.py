"""Weights of networks in files: read without running anything, and fitted into a network with a line that says how."""

import hashlib
import pickle
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

WRAPPERS = ("_orig_mod.", "module.")  # what torch.compile and DistributedDataParallel put before names


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or used; the message names the file and the way out."""


def load_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, or of a torch file that holds nothing but tensors.

    Raises:
        CheckpointError: the file is missing, truncated, or holds something else.
    """
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch's unpickler stumbles over
        raise CheckpointError(f"weights {path} cannot be read: {unreadable(error)}") from error
    for key in ("state_dict", "model", "generator", "model_g"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise CheckpointError(f"weights {path} holds no state dict of tensors")
    return found


def weights_sha256(network: nn.Module, *described: Any) -> str:
    """SHA-256 in hexadecimal of a network's tensors, and of what else decides its values."""
    digest = hashlib.sha256(repr(described).encode() if described else b"")
    for name, value in sorted(network.state_dict().items()):
        digest.update(repr((name, str(value.dtype), tuple(value.shape))).encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def unreadable(error: Exception) -> str:
    """Why a file of tensors could not be read, in one line; without torch's advice to run what is in it."""
    if isinstance(error, pickle.UnpicklingError) or "weights_only" in str(error):
        return "it is no file of weights, or holds more than tensors: nothing of it was run"
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return _line(error)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def fit_weights(network: nn.Module, name: str, weights: Mapping[str, Tensor], source: Path, strict: bool) -> str:
    """Load weights into a network; returns a line that says what matched.

    Prefixes that compiling or wrapping put before all names (``_orig_mod.``, ``module.``) are taken off, and a network
    may translate other programs' files (`Network.released_weights`).

    Raises:
        CheckpointError: they do not fit; names the missing, unexpected and differently shaped parameters.
    """
    own = network.state_dict()
    weights = without_prefixes(weights, own)
    if hasattr(network, "released_weights"):
        weights = network.released_weights(dict(weights))  # type: ignore[operator]
    missing = sorted(own.keys() - weights.keys())
    unexpected = sorted(weights.keys() - own.keys())
    unlike = [k for k in own.keys() & weights.keys() if own[k].shape != weights[k].shape]
    faults = [f"missing {_some(missing)}"] if missing else []
    faults += [f"unexpected {_some(unexpected)}"] if unexpected else []
    shapes = sorted(f"{k} {tuple(weights[k].shape)} for {tuple(own[k].shape)}" for k in unlike)
    faults += [f"of another shape {_some(shapes)}"] if unlike else []
    if faults and strict:
        matched = f"{len(own) - len(missing) - len(unlike)} of {len(own)} tensors match"
        raise CheckpointError(
            f"{source} does not fit network {name}: {'; '.join(faults)}; {matched}: give the network the sizes of the "
            "file, or set path.strict_load: false to take what matches"
        )
    fitting = {key: weights[key] for key in own.keys() & weights.keys() if key not in unlike}
    if own and not fitting:
        raise CheckpointError(f"{source} does not fit network {name}: no parameter matches")
    network.load_state_dict(fitting, strict=False)
    rest = f" ({'; '.join(faults)})" if faults else ""
    return f"network {name}: {len(fitting)} of {len(own)} tensors from {source}{rest}"


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"


def without_prefixes(weights: Mapping[str, Tensor], own: Collection[str] = ()) -> Mapping[str, Tensor]:
    """Wrappers' prefixes taken off where all names have one, and a network with these names of its own has none."""
    while True:
        prefix = next((p for p in WRAPPERS if weights and all(name.startswith(p) for name in weights)), None)
        if prefix is None or any(name.startswith(prefix) for name in own):
            return weights
        weights = {name.removeprefix(prefix): value for name, value in weights.items()}
