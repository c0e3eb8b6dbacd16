"""Models of the package transformers from a folder or the hub, with errors that say what is wrong."""

import logging
from pathlib import Path
from typing import Any

import torch

_NOT_FOUND = "is no folder here, and no model that the hub gives (is there a network, does it ask for a licence?)"


def require_transformers(network: str) -> Any:
    """The package, told to keep its progress bars and advice to itself.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import transformers
        from transformers.utils import logging as transformers_logging
    except ImportError as error:
        raise ImportError(
            f"which_model: {network} needs the package transformers (pip install transformers): {error}"
        ) from error
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity(logging.ERROR)
    return transformers


def load_pretrained(source: str, network: str, class_name: str, **changes: Any) -> Any:
    """A model in float32.

    Args:
        source: a folder, or a name on the hub.
        network: the name of ours that asks; also transformers' name of the architecture.
        class_name: transformers' class.
        changes: options of its configuration that are set otherwise.

    Raises:
        ValueError: it is not there, is of another architecture, or lacks weights; messages begin with `pretrained`.
    """
    transformers = require_transformers(network)
    try:
        config = transformers.AutoConfig.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        where = "has no config.json that transformers reads" if Path(source).is_dir() else _NOT_FOUND
        raise ValueError(f"pretrained is {source}: it {where}: {one_line(error)}") from error
    if config.model_type != network:
        found = f"pretrained is {source}, a model of type {config.model_type!r}"
        raise ValueError(f"{found}: which_model: {network} takes {network!r} only")
    for name, value in changes.items():
        setattr(config, name, value)
    try:
        model, report = getattr(transformers, class_name).from_pretrained(
            source, config=config, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # whatever the readers of its many formats raise
        raise ValueError(f"pretrained is {source}: its weights cannot be loaded: {one_line(error)}") from error
    missing = sorted(report["missing_keys"])
    unlike = sorted(str(key[0]) for key in report.get("mismatched_keys") or ())
    if missing or unlike:
        lists = (("missing", missing), ("of another shape", unlike))
        faults = [f"{len(keys)} {what} ({', '.join(keys[:3])})" for what, keys in lists if keys]
        raise ValueError(f"pretrained is {source}: it does not hold all weights of its model: {', '.join(faults)}")
    return model


def one_line(error: Exception) -> str:
    """An error of a library, its kind first, cut to a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
