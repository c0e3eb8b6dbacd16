"""Calls of the networks that the YAML names under ``networks``."""

from typing import Any

from torch import nn

from codes.trainer.injector import Injector


class GeneratorInjector(Injector):
    """What a network makes of the values under `in`, in their order; a network may return several values.

    Args:
        generator: name of the network under `networks`.
    """

    def __init__(self, *, generator: nn.Module) -> None:
        self.network = generator  # not self.generator: that is the injector's random numbers

    def forward(self, *values: Any) -> Any:
        """The network's forward pass; shapes are the network's."""
        return self.network(*values)


class DiscriminatorInjector(Injector):
    """What a discriminator makes of the values under `in`, in their order.

    In a step that does not train it, its parameters need no gradients, while its inputs get theirs through it.

    Args:
        discriminator: name of the network under `networks`.
    """

    def __init__(self, *, discriminator: nn.Module) -> None:
        self.network = discriminator

    def forward(self, *values: Any) -> Any:
        """The network's forward pass; shapes are the network's."""
        return self.network(*values)
