"""A training step whose networks several processes share: torch's DistributedDataParallel or FSDP2 (`fully_shard`).

Gradients. Process r has the micro-batches of its share; loss l sums to s(l, r) over c(l, r) values. The update needs
d/dw of the sum over l of weight(l) * sum over r of s(l, r) / sum over r of c(l, r), whatever the shares. So the counts
are added up over all processes after the first forward pass, in one message of a few numbers that carries the sums for
the log too; each process divides by that, and both engines, which take the mean over processes, get N times the loss.
With several micro-batches the first one's count is extrapolated, and the gradients are put right at the end, as in a
run of one process (`step.py`).

Messages. Gradients travel once a step: all but the last micro-batch add up at home. DistributedDataParallel wraps the
forward pass of the whole step, injectors and losses included, so that every step of a GAN has its own networks' and a
network that is only called (a discriminator in the generator's step) sends nothing.
"""

import contextlib
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from codes.entries import Experiment
from codes.options import ExperimentOptions
from codes.trainer.distributed import RANK_SEEDS, Ranks
from codes.trainer.state import State, batch_size
from codes.trainer.step import Step, Tally, Values


class _Forward(nn.Module):
    """A step's forward pass with the networks that it trains: what DistributedDataParallel wraps."""

    def __init__(self, step: Step, networks: list[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.run = lambda *arguments: Step._forward(step, *arguments)

    def forward(self, *arguments: Any) -> Values:
        return self.run(*arguments)


class DistributedStep(Step):
    """A `Step` of one process among several.

    Args:
        ranks: the processes.
        options: parallel and the options of ddp.
        arguments: as of `Step`.
    """

    def __init__(self, *arguments: Any, ranks: Ranks, options: ExperimentOptions) -> None:
        super().__init__(*arguments)
        self.ranks, self.options = ranks, options
        self._networks = [updater.network for updater in self.updaters]
        self._sharded = options.parallel == "fsdp"
        self._split = options.train.mega_batch_factor > 1
        self._expected: dict[str, Tensor] = {}
        self._complete = False  # whether the last backward pass has brought the gradients together

    @cached_property
    def _replica(self) -> nn.parallel.DistributedDataParallel:
        """Made at the first step, when only what this step trains needs gradients: the engine looks but once."""
        return nn.parallel.DistributedDataParallel(
            _Forward(self, self._networks), broadcast_buffers=False, gradient_as_bucket_view=True,
            find_unused_parameters=self.options.ddp_find_unused_parameters, static_graph=self.options.ddp_static_graph,
        )  # fmt: skip

    @cached_property
    def _buffers(self) -> "Buffers":
        return Buffers(self._networks, self.ranks)

    def require_grad(self) -> None:
        """As in one process; but FSDP2 fixes what needs a gradient when it first gathers a network.

        A sharded network that a step only calls gets gradients, too; its own step drops them before it begins.
        """
        if not self._sharded:
            super().require_grad()

    def train(self, states: list[State], step: int, seed: int, autocast: Any, options: Any) -> Tally:
        """As `Step.train`; the tally is that of all processes."""
        self._items = [batch_size(state) for state in states]
        buffers = self._buffers
        tally = super().train(states, step, seed + self.ranks.rank * RANK_SEEDS, autocast, options)
        for module in self._kept_whole():
            module.reshard()
        buffers.average()
        return tally

    def _kept_whole(self) -> list[FSDPModule]:
        """The parts of networks that `shard` was told to keep gathered: they must follow their new parameters."""
        networks = [network for network in self._networks if getattr(network, "stays_gathered", False)]
        return [module for network in networks for module in network.modules() if isinstance(module, FSDPModule)]

    def _forward(self, state: State, step: int, micro: int, seed: int, autocast: Any, last: bool) -> Values:
        arguments = (state, step, micro, seed, autocast, last)
        due = any(loss.flags.due(step) for loss in self.losses)
        self._complete = last and due
        if self._sharded:
            for network in self._networks:
                network.set_requires_gradient_sync(last or len(self.losses) > 1)  # type: ignore[operator]
            values = super()._forward(*arguments)
        else:
            with contextlib.nullcontext() if self._complete else self._replica.no_sync():
                values = self._replica(*arguments)
        if micro == 0 and values:
            self._add_up_first(values)
        return values

    def _add_up_first(self, values: Values) -> None:
        """What all processes count in their first micro-batches, extrapolated to the whole batch."""
        counted = self._total([(total, count) for total, count in values.values()], self._items[0], sum(self._items))
        *pairs, (first, all_items) = counted.view(-1, 2).unbind()
        self._first = {name: (pair[0], pair[1]) for name, pair in zip(values, pairs, strict=True)}
        least = 1.0 if self._split else 1e-9
        self._expected = {name: (pair[1] * (all_items / first)).clamp(min=least).float() for name, pair in
                          zip(values, pairs, strict=True)}  # fmt: skip

    def _total(self, pairs: list[tuple[Tensor, Tensor | float]], *more: float) -> Tensor:
        """Pairs of sums and counts, and two more numbers, added up over the processes: (2 P + 2,) float64."""
        device = pairs[0][0].device
        flat = [torch.as_tensor(value, dtype=torch.float64, device=device) for pair in pairs for value in pair]
        flat += [torch.as_tensor(value, dtype=torch.float64, device=device) for value in more]
        return self.ranks.sum(torch.stack([value.detach() for value in flat]))

    def _expected_count(self, loss: str, tally: Tally, items: list[int]) -> Tensor | float:
        return self._expected[loss] / self.ranks.size  # both engines take the mean over processes

    def _correct(self, groups: list[Any], tally: Tally, items: list[int]) -> None:
        if not tally:
            return
        if self._split:
            self._refuse_uneven(groups, tally, items)
            sums = [(torch.stack([part[0] for part in parts]).sum(), sum(part[1] for part in parts)) for parts in
                    tally.values()]  # fmt: skip
            totals = self._total(sums, 0.0, 0.0).view(-1, 2).unbind()
        else:
            totals = list(self._first.values())
        for name, (total, count) in zip(tally, totals, strict=False):
            tally[name][:] = [(total, count / self.ranks.size)]
        if self._split:
            super()._correct(groups, tally, [*items, 0])
        for parts in tally.values():
            parts[:] = [(total, count * self.ranks.size) for total, count in parts]
        if not self._complete and not self._sharded:
            self._reduce_gradients()

    def _refuse_uneven(self, groups: list[Any], tally: Tally, items: list[int]) -> None:
        """Losses of a group must count alike in this process's micro-batches, as in a run of one."""
        for group in groups:
            ratios = [
                sum(part[1] for part in tally[loss.name]) / (tally[loss.name][0][1] * sum(items) / items[0])
                for loss in group.losses
                if not isinstance(tally[loss.name][0][1], Tensor)
            ]
            if ratios and max(ratios) - min(ratios) > 1e-9:
                names = ", ".join(loss.name for loss in group.losses)
                raise ValueError(
                    f"losses {names} counted unevenly over micro-batches: let them return counts as tensors"
                )

    def _reduce_gradients(self) -> None:
        """Bring together what was added up at home: of losses that needed backward passes of their own."""
        gradients = [p.grad for p in self._trained_parameters if p.grad is not None]
        flat = _flatten_dense_tensors(gradients)
        self.ranks.sum(flat).div_(self.ranks.size)
        for grad, whole in zip(gradients, _unflatten_dense_tensors(flat, gradients), strict=True):
            grad.copy_(whole)


class Buffers:
    """Floating-point buffers that training moves (batch norm's, codebooks'): by the mean of all processes' movements.

    Those that nothing moves stay as they are, bit for bit.

    Args:
        networks: whose persistent buffers are kept equal.
        ranks: the processes.
    """

    def __init__(self, networks: list[nn.Module], ranks: Ranks) -> None:
        self._ranks = ranks
        self._places = [
            (module._buffers, name)
            for network in networks
            for module in network.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None and buffer.is_floating_point() and name not in module._non_persistent_buffers_set
        ]
        self._before = [value.detach().clone() for value in self._values()]

    def _values(self) -> list[Tensor]:
        return [buffers[name] for buffers, name in self._places]  # type: ignore[misc]

    @torch.no_grad()
    def average(self) -> None:
        """One message for all of them; none where a network has none."""
        if not self._places:
            return
        values = self._values()
        moved = _flatten_dense_tensors([v - b for v, b in zip(values, self._before, strict=True)])
        self._ranks.sum(moved).div_(self._ranks.size)
        movements = _unflatten_dense_tensors(moved, values)
        for value, before, movement in zip(values, self._before, movements, strict=True):
            value.copy_(before.add_(movement))


def shard(network: nn.Module, keep_gathered: bool) -> None:
    """Let every process hold its part of a network's parameters (FSDP2), gathered block by block when they are used.

    Blocks are the members of the network's module lists; the rest is one part more. Numbers are gathered in float32, so
    that autocast sees what it sees in one process.

    Args:
        keep_gathered: only from an iteration's first use to its end, as double backward (a gradient penalty) needs it.
    """
    for block in reversed(blocks_of(network)):  # those inside others first, which take what is left
        fully_shard(block, reshard_after_forward=not keep_gathered)
    fully_shard(network, reshard_after_forward=not keep_gathered)
    for method in ("encode", "decode"):  # of what injectors call besides forward()
        if hasattr(network, method):
            register_fsdp_forward_method(network, method)
    if keep_gathered:
        network.set_reshard_after_backward(False)  # type: ignore[operator]
        network.stays_gathered = True  # type: ignore[assignment]


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The parts of a network that are gathered and compiled one by one."""
    members = [m for parent in network.modules() if isinstance(parent, nn.ModuleList) for m in parent]
    return [m for m in members if any(True for _ in m.parameters()) and not _shares_parameters(m, network)]


def _shares_parameters(block: nn.Module, network: nn.Module) -> bool:
    """Whether some parameter of the block also stands outside it (tied weights), which FSDP2 cannot gather apart."""
    inside = {id(module) for module in block.modules()}
    own = {id(p) for p in block.parameters()}
    others = [m for m in network.modules() if id(m) not in inside]
    return any(id(p) in own for m in others for p in m.parameters(recurse=False))


def is_whole(experiment: Experiment, ranks: Ranks) -> bool:
    """Whether every process holds whole networks, which it can use by itself."""
    return ranks.size == 1 or experiment.options.parallel == "ddp"


def share_networks(experiment: Experiment, networks: Mapping[str, nn.Module], ranks: Ranks) -> list[str]:
    """Prepare built networks for several processes; returns lines for people.

    Raises:
        ValueError: the experiment cannot be trained so; says what to change.
    """
    options = experiment.options
    batch_size, parts = experiment.datasets["train"].flags.batch_size, options.train.mega_batch_factor
    if batch_size % ranks.size and (options.parallel == "fsdp" or parts > 1):
        raise ValueError(
            f"datasets.train.batch_size is {batch_size}: with parallel: fsdp or mega_batch_factor above 1 it must be a "
            f"multiple of the {ranks.size} processes"
        )
    notes = [f"{ranks.size} processes, {options.parallel}: {batch_size / ranks.size:g} of {batch_size} items each"]
    if options.parallel == "ddp":
        return notes
    for name, network in networks.items():
        flags = experiment.networks[name].flags
        if flags.trainable:  # a pretrained codec that is only called stays whole
            shard(network, keep_gathered=flags.type == "discriminator")
    return notes
