"""Optimizers, parameter groups, learning rates as closed forms of the step, gradient clipping, and the moving average.

An update whose gradients are not finite is skipped on the device itself, without asking it: every optimizer here
reads ``found_inf`` as GradScaler's fused optimizers do, so no step waits for a number to come back.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from codes.entries import OptimizerParams
from codes.options import TrainOptions
from codes.trainer.eight_bit import AdamW8bit


class Lion(Optimizer):
    """Sign of an interpolated momentum (Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms").

    Args:
        params: parameters or parameter groups.
        lr: learning rate, typically a third to a tenth of AdamW's.
        betas: interpolation for the update, decay of the momentum.
        weight_decay: decoupled weight decay.
    """

    _step_supports_amp_scaling = True

    def __init__(self, params: Any, lr: float, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Update all parameters; with ``found_inf`` set to 1 nothing changes."""
        assert closure is None
        found_inf = getattr(self, "found_inf", None)
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            for p in parameters:
                if not self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p)
            if parameters:
                self._update(parameters, group, found_inf)

    def _update(self, parameters: list[Tensor], group: dict[str, Any], found_inf: Tensor | None) -> None:
        """All parameters of a group by kernels over lists. With ``found_inf`` the momentum stands for the gradient,
        which leaves the momentum as it is, and the step is of length 0."""
        (beta1, beta2), rate = group["betas"], group["lr"]
        momenta = [_local(self.state[p]["momentum"]) for p in parameters]
        gradients = [_local(p.grad) for p in parameters]
        weights = [_local(p) for p in parameters]
        if found_inf is not None:
            skip, rate = found_inf.bool(), group["lr"] * (1.0 - found_inf)
            gradients = [torch.where(skip, *pair) for pair in zip(momenta, gradients, strict=True)]
        direction = torch._foreach_lerp(momenta, gradients, 1 - beta1)
        torch._foreach_sign_(direction)
        torch._foreach_add_(direction, torch._foreach_mul(weights, group["weight_decay"]))
        torch._foreach_mul_(direction, rate)
        torch._foreach_sub_(weights, direction)
        torch._foreach_lerp_(momenta, gradients, 1 - beta2)


class ShardedSGD(torch.optim.SGD):
    """SGD on the parts of parameters that a process holds (FSDP2), for which torch's fused kernel has no rule."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Update all parameters; with ``found_inf`` set to 1 nothing changes."""
        assert closure is None
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            held = [self.state[p]["momentum_buffer"].to_local() for p in parameters] if group["momentum"] else []
            torch._fused_sgd_(
                [p.to_local() for p in parameters], [p.grad.to_local() for p in parameters], held,
                weight_decay=group["weight_decay"], momentum=group["momentum"], lr=group["lr"], dampening=0.0,
                nesterov=False, maximize=False, is_first_step=False, found_inf=getattr(self, "found_inf", None),
            )  # fmt: skip


def parameter_groups(network: nn.Module, params: OptimizerParams) -> list[dict[str, Any]]:
    """Split a network's parameters: no decay on norms, biases and embeddings; the YAML's own groups apart.

    Parameters that the network's constructor froze (``requires_grad`` false) are in no group and stay frozen.

    Raises:
        ValueError: a group of the YAML matches no parameter.
    """
    undecayed = _undecayed(network)
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        own = next((g for g, o in params.param_groups.items() if name.startswith(tuple(o.match or [g]))), "")
        groups.setdefault((own, name not in undecayed), []).append(parameter)
    for own in params.param_groups:
        if not any(key[0] == own for key in groups):
            raise ValueError(f"param_groups.{own} matches no parameter of the network")
    made = []
    for (own, decayed), members in groups.items():
        options = params.param_groups.get(own)
        lr = params.lr if options is None or options.lr is None else options.lr
        decay = params.weight_decay if options is None or options.weight_decay is None else options.weight_decay
        number = 0 if options is None else 1 + list(params.param_groups).index(own)
        decayed_by = decay if decayed else 0.0
        made.append({"params": members, "lr": lr, "base_lr": lr, "weight_decay": decayed_by, "number": number})
    return made


def _undecayed(network: nn.Module) -> set[str]:
    """Names of norm and embedding parameters, biases, and everything else of one dimension or none."""
    names = {name for name, p in network.named_parameters() if p.ndim < 2 or name.endswith("bias")}
    for prefix, module in network.named_modules():
        if isinstance(module, nn.Embedding) or "norm" in type(module).__name__.lower():
            names |= {f"{prefix}.{name}".lstrip(".") for name, _ in module.named_parameters(recurse=False)}
    return names


def make_optimizer(kind: str, network: nn.Module, params: OptimizerParams) -> Optimizer:
    """The optimizer of one network; fused kernels throughout."""
    groups = parameter_groups(network, params)
    betas = (params.beta1, params.beta2)
    sharded = any(hasattr(p, "full_tensor") for group in groups for p in group["params"])
    if kind == "sgd":
        sgd = (ShardedSGD if sharded else torch.optim.SGD)(groups, lr=params.lr, momentum=params.momentum, fused=True)
        if params.momentum:  # a first step that is skipped would leave the kernel's own buffers uninitialised
            for p in (p for group in sgd.param_groups for p in group["params"]):
                sgd.state[p]["momentum_buffer"] = torch.zeros_like(p)
        return sgd
    if kind == "lion":
        return Lion(groups, lr=params.lr, betas=betas)
    if kind == "adamw8bit":
        if sharded:
            raise ValueError("optimizer adamw8bit does not go with parallel: fsdp, which shards adamw's state instead")
        return AdamW8bit(groups, lr=params.lr, betas=betas, eps=params.eps)
    several = torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1
    if kind == "adamw_zero" and several and not sharded:
        from torch.distributed.optim import ZeroRedundancyOptimizer

        return ZeroRedundancyOptimizer(groups, torch.optim.AdamW, lr=params.lr, betas=betas, eps=params.eps, fused=True)
    return torch.optim.AdamW(groups, lr=params.lr, betas=betas, eps=params.eps, fused=True)


def learning_rate(base: float, step: int, options: TrainOptions, group: int = 0) -> float:
    """The learning rate of the update of this step (from 1), a closed form: resuming needs nothing but the step.

    `group` is 0 for the parameters in no group of the YAML, then counts its groups (ProgressiveMultiStepLR).
    """
    warmup = options.warmup_iter
    ramp = min(1.0, step / warmup) if warmup > 0 else 1.0
    if options.default_lr_scheme == "MultiStepLR":
        return ramp * _stepped(base, step, options)
    if options.default_lr_scheme == "ProgressiveMultiStepLR":
        start = options.progressive_starts[group] if group < len(options.progressive_starts) else 0
        return ramp * base * options.lr_gamma ** sum(start + milestone < step for milestone in options.gen_lr_steps)
    if options.default_lr_scheme == "inverse_sqrt":
        return ramp * base * math.sqrt(max(warmup, 1) / max(step, warmup, 1))
    if options.default_lr_scheme == "CosineAnnealingLR_Restart":
        return ramp * _cosine(base, step - 1, options)
    return ramp * base


def _stepped(base: float, step: int, options: TrainOptions) -> float:
    """Multiplied by lr_gamma after each milestone since the last restart, which sets it to its weight times base."""
    past = [number for number, restart in enumerate(options.restarts) if restart < step]
    since = options.restarts[past[-1]] if past else -1
    weight = options.restart_weights[past[-1]] if past and options.restart_weights else 1.0
    return weight * base * options.lr_gamma ** sum(since < milestone < step for milestone in options.gen_lr_steps)


def _cosine(base: float, done: int, options: TrainOptions) -> float:
    """Cosine from base (times the restart's weight) to eta_min; `done` updates lie behind."""
    starts = [0, *options.restarts]
    cycle = max(i for i, start in enumerate(starts) if start <= done)
    ends = [*options.restarts, options.niter]
    length = options.T_period[cycle] if cycle < len(options.T_period) else max(1, ends[cycle] - starts[cycle])
    peak = base * options.restart_weights[cycle - 1] if cycle and options.restart_weights else base
    part = min(1.0, (done - starts[cycle]) / length)
    return options.eta_min + (peak - options.eta_min) * (1 + math.cos(math.pi * part)) / 2


class Updater:
    """One network's optimizer: clips, skips what is not finite, steps, and counts what it skipped.

    Args:
        network: the network.
        optimizer: its optimizer.
        clip: largest global gradient norm, or None.
        scaler: the loss scaler under fp16, or None.
        after: the network is frozen until this step.
    """

    def __init__(
        self, network: nn.Module, optimizer: Optimizer, clip: float | None = None,
        scaler: torch.amp.GradScaler | None = None, after: int = 0,
    ) -> None:  # fmt: skip
        self.network = network
        self.optimizer = optimizer
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.clip = clip
        self.scaler = scaler
        self.after = after
        self.skipped = 0  # updates skipped in all, and in a row up to now: as of the last read_norms()
        self.streak = 0
        self.longest_streak = 0  # between the last two calls of read_norms()
        self._norms: list[torch.Tensor] = []  # of the updates since then, on the device

    def zero_grad(self) -> None:
        """Drop the gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def update(self, step: int, options: TrainOptions) -> bool:
        """Take one optimizer step with the gradients at hand; nothing is read back from the device.

        Returns:
            whether it did: not while the network is frozen, nor where no loss that counts depends on it.
        """
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if step < self.after or not gradients:
            return False
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(group["base_lr"], step, options, group.get("number", 0))
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        norm: Any = torch.nn.utils.get_total_norm(gradients)
        if hasattr(norm, "full_tensor"):  # of all processes' parts
            norm = norm.full_tensor()
        if self.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.clip, norm)
        self._norms.append(norm)
        if self.scaler is not None:
            self.scaler.step(self.optimizer)
            return True
        not_finite = (norm - norm).ne(0)  # inf - inf and NaN - NaN are NaN, which differs from 0
        # ZeroRedundancyOptimizer holds the one that steps.
        stepping: Any = getattr(self.optimizer, "optim", self.optimizer)
        stepping.found_inf = not_finite.to(norm.dtype)
        self.optimizer.step()
        return True

    def read_norms(self) -> float | None:
        """Count what was skipped since the last call; returns the last gradient norm. The one place that waits."""
        norms = torch.stack(self._norms).tolist() if self._norms else []
        self._norms.clear()
        self.longest_streak = 0
        for norm in norms:
            bad = not math.isfinite(norm)
            self.skipped += bad
            self.streak = self.streak + 1 if bad else 0
            self.longest_streak = max(self.longest_streak, self.streak)
        return norms[-1] if norms and math.isfinite(norms[-1]) else None

    def state_dict(self) -> dict[str, Any]:
        """Optimizer state and counts; of an optimizer that several processes share, whole on the first of them only."""
        optimizer: Any = self.optimizer
        if hasattr(optimizer, "consolidate_state_dict"):
            optimizer.consolidate_state_dict(to=0)
            held = optimizer.state_dict() if torch.distributed.get_rank() == 0 else {}
        else:
            held = optimizer.state_dict()
        state = {"optimizer": held, "skipped": self.skipped, "streak": self.streak}
        return state | {"norms": list(self._norms)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.skipped, self.streak = state["skipped"], state["streak"]
        self._norms = [norm.to(self.parameters[0].device) for norm in state["norms"]]


class MovingAverage:
    """Exponential moving average of a network's parameters and floating-point buffers; other buffers are copied.

    What the network holds under two names (tied weights) is averaged once. Buffers are looked up at every use, since a
    module may bind one to a new tensor.

    Args:
        network: the network to follow.
        rate: decay per step.
    """

    def __init__(self, network: nn.Module, rate: float) -> None:
        self.network, self.rate = network, rate
        copies: dict[int, Tensor] = {}
        self.average = {
            name: copies.setdefault(id(value), value.detach().clone())
            for name, value in network.state_dict(keep_vars=True).items()
        }
        self._parameters = [(self.average[name], p) for name, p in network.named_parameters()]
        self._buffers = [
            (self.average[f"{prefix}.{name}".lstrip(".")], module._buffers, name)
            for prefix, module in network.named_modules()
            for name, buffer in module._buffers.items()
            if buffer is not None and name not in module._non_persistent_buffers_set
        ]

    def _pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Every average with what it follows."""
        pairs: list[tuple[Tensor, Tensor]] = list(self._parameters)
        for mean, buffers, name in self._buffers:
            value = buffers[name]
            assert value is not None, f"buffer {name} was removed"
            pairs.append((mean, value))
        if any(hasattr(mean, "to_local") for mean, _ in self._parameters):  # a part of them: FSDP2
            return [(_local(mean), _local(value)) for mean, value in pairs]
        return pairs

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the network by 1 - rate."""
        pairs = self._pairs()
        smooth = [pair for pair in pairs if pair[0].is_floating_point()]
        if smooth:
            torch._foreach_lerp_([mean for mean, _ in smooth], [value for _, value in smooth], 1 - self.rate)
        for mean, value in pairs:
            if not mean.is_floating_point():
                mean.copy_(value)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the network's weights and the average; called again, it undoes that."""
        for mean, value in self._pairs():
            held = value.detach().clone()
            value.copy_(mean)
            mean.copy_(held)

    def state_dict(self) -> dict[str, Tensor]:
        """The average by parameter and buffer name."""
        return self.average

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the average."""
        for name, value in state.items():
            self.average[name].copy_(value)


def _local(tensor: Any) -> Tensor:
    """The part of a sharded tensor that this process holds; any other as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
