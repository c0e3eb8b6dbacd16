"""Weights and inputs that follow from names and shapes: what figures of public implementations were found with."""

import zlib

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]


def seeded(shapes: Shapes) -> dict[str, Tensor]:
    """Weights of these shapes: about 1 in norms and in weight norm's lengths, else about 0."""
    made = {}
    for name, shape in shapes.items():
        about_one = name.endswith("weight_g") or ("norm" in name and name.endswith("weight"))
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        made[name] = torch.randn(shape, generator=generator) * 0.1 + float(about_one)
    return made


def drawn(*shape: int) -> Tensor:
    """Always the same normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(7))
