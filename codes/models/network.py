"""The base class of all networks: a torch module whose constructor's arguments are the YAML's ``kwargs``."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from torch import Tensor, nn

from codes.registry import Registered


class Network(nn.Module, Registered):
    """A trainable network, built by ``networks.NAME.which_model`` and ``networks.NAME.kwargs``.

    ``gradient_checkpointing`` is set by the trainer from ``checkpointing_enabled``; a network that can recompute its
    blocks in the backward pass honours it.
    """

    kind: ClassVar[str] = "network"
    gradient_checkpointing: bool = False

    def figures(self) -> dict[str, Tensor]:
        """What the network counts of itself while it trains, by name: written where training figures are."""
        return {}

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """In evaluation mode within the block (no dropout), in the mode from before after it."""
        training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(training)

    def released_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """A file's weights under this network's names, where other programs' files differ from its own."""
        return weights
