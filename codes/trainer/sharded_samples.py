"""Samples of networks that several processes hold in parts: the first process keeps whole copies of them.

The copies are the experiment, built once more as for one process. They lie on the CPU and, when samples are due, get
the weights, gathered tensor by tensor, and the device: there must be room for whole networks, without gradients or
optimizer.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import nn

from codes.entries import Experiment
from codes.trainer.build import build
from codes.trainer.distributed import Ranks
from codes.trainer.distributed_checkpoint import gathered
from codes.trainer.sampling import AnySampler, make_sampler


class WholeCopies:
    """Copies of an experiment's networks, and its sampler, which uses them; nothing on processes but the first.

    Args:
        experiment: with samples, or nothing is made.
        ranks: the processes.

    Raises:
        OptionError: it cannot be sampled.
    """

    def __init__(self, experiment: Experiment, ranks: Ranks) -> None:
        self.ranks = ranks
        self.wanted = experiment.options.samples is not None
        self.parts = build(experiment) if self.wanted and ranks.first else None
        self.sampler: AnySampler | None = make_sampler(experiment, self.parts) if self.parts is not None else None
        self._move("cpu")

    def _move(self, device: object) -> None:
        for network in self.parts.networks.values() if self.parts is not None else ():
            network.to(device)  # type: ignore[call-overload]

    @contextmanager
    def loaded(self, networks: Mapping[str, nn.Module]) -> Iterator[None]:
        """Inside, the copies have the weights of networks held in parts; every process takes part."""
        if not self.wanted:
            yield
            return
        for name, network in networks.items():
            weights = gathered(network.state_dict(), self.ranks.first)
            if self.parts is not None:
                self.parts.networks[name].load_state_dict(weights)
        if self.parts is not None:
            self._move(self.parts.device)
        try:
            yield
        finally:
            self._move("cpu")
