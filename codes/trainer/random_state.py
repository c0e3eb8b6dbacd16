"""The global random number generators, which networks draw from: seeded, saved with a checkpoint, restored."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def seed_random(seed: int) -> None:
    """Seed every global random number generator; a run does so right before its first step."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002


def random_state() -> dict[str, Any]:
    """The state of every global random number generator."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002 (users' code may draw from it)
    return {
        "python": [version, list(internal), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Restore what `random_state` gave."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():  # on a machine with fewer GPUs perhaps
        torch.cuda.set_rng_state_all(state["cuda"][: torch.cuda.device_count()])
