"""AdamW whose moments are held in 8 bits: 2 bytes a parameter in place of 8 (Dettmers et al. 2022, ICLR).

In torch alone, so that it runs on a CPU and on every GPU. A moment is cut into blocks of 256 numbers; each block keeps
its number of largest magnitude as a float, and of each number a code of 8 bits: the nearest of 256 values that lie as
floats do, more finely near 1. Unlike that paper, of the second moment the square root is held: it is what divides, its
range is half as wide in decades, and what is not 0 never becomes 0, which would make an update without bound.
Parameters of few numbers (norms, biases) keep both moments as floats.
"""

import functools
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

BLOCK = 256
DECADES = 7


@functools.cache
def code_values(signed: bool, device: torch.device) -> Tensor:
    """The 256 values that codes stand for, rising, from nearly -1 (or 0) to 1: (256,) float32.

    Of decade d below 1 there are 2^(6 - d) magnitudes (twice as many without signs), in the middles of equal parts of
    [0.1, 1); with both signs that makes 254, and 0 and 1 are added.
    """
    magnitudes = []
    for decade in range(DECADES):
        parts = 2 ** (DECADES - 1 - decade + (not signed))
        edges = torch.linspace(0.1, 1, parts + 1, dtype=torch.float64)
        magnitudes.append((edges[1:] + edges[:-1]) / 2 * 10.0**-decade)
    found = torch.cat([*magnitudes, torch.tensor([0.0, 1.0], dtype=torch.float64)])
    found = torch.cat([found, -torch.cat(magnitudes)]) if signed else found
    return found.sort().values.float().to(device)


@functools.cache
def _between(signed: bool, device: torch.device) -> Tensor:
    """Where the nearest value changes: (255,)."""
    values = code_values(signed, torch.device("cpu")).double()
    return ((values[1:] + values[:-1]) / 2).float().to(device)


def to_codes(numbers: Tensor, signed: bool) -> tuple[Tensor, Tensor]:
    """Numbers as codes and the number of largest magnitude of each block, which stays exact.

    Args:
        numbers: (...) float32, 0 or more where not signed.
        signed: whether there are negative ones.

    Returns:
        (blocks, 256) uint8, the last one filled up with zeros, and (blocks, 1) float32.
    """
    flat = numbers.reshape(-1)
    blocks = torch.nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    scale = blocks.gather(1, blocks.abs().argmax(1, keepdim=True))  # with its sign: 1 is a value of codes, -1 is none
    shares = blocks / torch.where(scale == 0, 1.0, scale)
    codes = torch.bucketize(shares, _between(signed, numbers.device), out_int32=True)
    if not signed:
        codes = torch.where(blocks > 0, codes.clamp(min=1), codes)
    return codes.to(torch.uint8), scale


def from_codes(codes: Tensor, scale: Tensor, signed: bool, like: Tensor) -> Tensor:
    """Back from `to_codes`, in the shape of another tensor: float32."""
    numbers = code_values(signed, codes.device)[codes.int()] * scale
    return numbers.view(-1)[: like.numel()].view(like.shape)


class AdamW8bit(Optimizer):
    """AdamW with moments in 8 bits; all else as torch's.

    Args:
        params: parameters or parameter groups.
        lr: learning rate.
        betas: decay of the first and of the second moment.
        eps: added to the denominator.
        weight_decay: decoupled weight decay.
        least_size: parameters of fewer numbers keep their moments as floats.
    """

    _step_supports_amp_scaling = True

    def __init__(
        self, params: Any, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0.01, least_size: int = 4096,
    ) -> None:  # fmt: skip
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.least_size = least_size

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Update all parameters; with ``found_inf`` set to 1 nothing changes."""
        assert closure is None
        found_inf = getattr(self, "found_inf", None)
        for group in self.param_groups:
            given = [p for p in group["params"] if p.grad is not None]
            small = [p for p in given if p.numel() < self.least_size]
            if small:
                self._update_small(small, group, found_inf)
            for p in given:
                if p.numel() >= self.least_size:
                    self._update(p, group, found_inf)

    def _update_small(self, parameters: list[Tensor], group: dict[str, Any], found_inf: Tensor | None) -> None:
        """Torch's own fused AdamW."""
        for p in parameters:
            if not self.state[p]:
                zeros = {name: torch.zeros_like(p) for name in ("first", "second")}
                self.state[p] = {"step": torch.zeros((), device=p.device), **zeros}
        states = [self.state[p] for p in parameters]
        steps = [state["step"] for state in states]
        torch._foreach_add_(steps, 1)
        torch._fused_adamw_(
            parameters, [p.grad for p in parameters if p.grad is not None], [state["first"] for state in states],
            [state["second"] for state in states], [], steps, amsgrad=False, lr=group["lr"], beta1=group["betas"][0],
            beta2=group["betas"][1], weight_decay=group["weight_decay"], eps=group["eps"], maximize=False,
            found_inf=found_inf,
        )  # fmt: skip
        if found_inf is not None:
            torch._foreach_sub_(steps, [found_inf] * len(steps))

    def _update(self, p: Tensor, group: dict[str, Any], found_inf: Tensor | None) -> None:
        assert p.grad is not None
        state, (beta1, beta2) = self.state[p], group["betas"]
        if not state:
            zeros = torch.zeros(p.shape, device=p.device)
            state["step"] = torch.zeros((), device=p.device)
            state["first"], state["first_scale"] = to_codes(zeros, True)
            state["root"], state["root_scale"] = to_codes(zeros, False)
        grad = p.grad.float()
        first = from_codes(state["first"], state["first_scale"], True, grad).lerp_(grad, 1 - beta1)
        root = from_codes(state["root"], state["root_scale"], False, grad)
        root = root.square_().mul_(beta2).addcmul_(grad, grad, value=1 - beta2).sqrt_()
        step = state["step"] + 1
        towards = first * ((1 - beta2**step).sqrt() / (1 - beta1**step))
        towards = towards / root.add(group["eps"] * (1 - beta2**step).sqrt())
        moved = p.float() * (1 - group["lr"] * group["weight_decay"]) - towards * group["lr"]
        found = dict(zip(("first", "first_scale"), to_codes(first, True), strict=True))
        found |= dict(zip(("root", "root_scale"), to_codes(root, False), strict=True)) | {"step": step}
        for name, value in found.items():
            state[name].copy_(value if found_inf is None else torch.where(found_inf.bool(), state[name], value))
        p.copy_(moved if found_inf is None else torch.where(found_inf.bool(), p.float(), moved))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` gave; types stay, where torch would make codes floats like the parameters."""
        super().load_state_dict(state_dict)
        numbers = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        for number, p in zip(numbers, chain.from_iterable(g["params"] for g in self.param_groups), strict=True):
            for name, value in state_dict["state"].get(number, {}).items():
                self.state[p][name] = value.to(p.device, copy=True)
