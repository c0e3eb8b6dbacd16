"""Codecs of our own on disk: the run that trained one, or a folder that one was exported to.

An exported folder holds `codec.json` (the name of the network and its options) and `codec.safetensors`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from codes import registry
from codes.experiment import load_experiment
from codes.models.audio_codec import AudioCodec
from codes.run_files import best_checkpoint, network_weights

DESCRIPTION, WEIGHTS = "codec.json", "codec.safetensors"


def load_run_codec(run: Path) -> AudioCodec:
    """The codec that a run has trained, of its best checkpoint, with averaged weights where there are any.

    Raises:
        ValueError: the run has no checkpoint or no codec; messages begin with `path`.
    """
    experiment = load_experiment(run / "options.yml")
    found = {name: entry for name, entry in experiment.networks.items() if _is_trained(entry.built_from.cls)}
    if len(found) != 1:
        raise ValueError(f"path is {run}: a run that trains one codec is wanted, it trains {len(found)}")
    name, entry = next(iter(found.items()))
    try:
        checkpoint = best_checkpoint(run)
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"path is {run}: {error}") from error
    return _filled(entry.built_from.build(), network_weights(checkpoint, name))


def load_exported_codec(folder: Path) -> AudioCodec:
    """The codec of a folder that `export_codec` wrote.

    Raises:
        ValueError: it is none; messages begin with `path`.
    """
    try:
        described = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        cls: Any = registry.classes("network")[described["which_model"]]
        codec = cls(**described["kwargs"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"path is {folder}: {DESCRIPTION} describes no codec of ours: {error}") from error
    return _filled(codec, folder / WEIGHTS)


def export_codec(codec: AudioCodec, kwargs: Mapping[str, Any], folder: Path) -> None:
    """Write a codec as a folder of its own.

    Args:
        codec: one of our own networks.
        kwargs: the options that it was built with.
        folder: where it goes.
    """
    from safetensors.torch import save_file

    names = {cls: name for name, cls in registry.classes("network").items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.detach().cpu().contiguous() for name, value in codec.state_dict().items()}, folder / WEIGHTS)
    description = {"which_model": names[type(codec)], "kwargs": dict(kwargs)}
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")


def _is_trained(cls: Any) -> bool:
    return issubclass(cls, AudioCodec) and not getattr(cls, "wraps", False)


def _filled(codec: AudioCodec, weights: Path) -> AudioCodec:
    """The codec with the weights of a file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found: dict[str, Tensor] = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"path is {weights.parent}: {weights.name} cannot be read: {error}") from error
    own = codec.state_dict()
    unlike = [name for name in own.keys() & found.keys() if own[name].shape != found[name].shape]
    faults = sorted([*(own.keys() ^ found.keys()), *unlike])
    if faults:
        raise ValueError(
            f"path is {weights.parent}: {weights.name} is of another architecture: {len(faults)} tensors differ, "
            f"{', '.join(faults[:3])} among them"
        )
    codec.load_state_dict(found)
    return codec.eval()
