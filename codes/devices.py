"""Devices that the arguments of commands name."""

import argparse

import torch


def usable_device(name: str) -> torch.device:
    """A device of this machine, as argparse's `type`.

    Args:
        name: cpu, cuda, cuda:1 ...

    Raises:
        argparse.ArgumentTypeError: torch has no such device here.
    """
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # an assertion: of a torch without CUDA
        reason = str(error).splitlines()[0]
        raise argparse.ArgumentTypeError(f"{name} is no device that can be used here: {reason}") from error
