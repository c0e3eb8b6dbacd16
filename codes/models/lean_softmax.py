"""Cross-entropy over large vocabularies that never holds the logits of all tokens.

The logits of N tokens over V = 65,536 codes are the largest thing in a training step: 2 GiB at N = 8192, and their
gradient as much again. Here the tokens are taken some rows at a time, before the projection; each block of logits is
made, used and overwritten. With p the softmax and e the code that came,

    d nats / d logits = p - e,    d hidden = (p - e) W,    d W = (p - e)^T hidden,

so the gradients are made in the forward pass as well, while the block is at hand. What they must be multiplied by,
the gradient of each token's code length, is known only later: it is one number for all tokens where the loss is their
plain sum or mean, and d W is then simply scaled. Else (a mask, a weight for each token) the blocks are made a second
time for d W.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

BLOCK_LOGITS = 2**24  # logits at a time: 64 MiB
MOST_ROWS = 1024  # tokens at a time
LEAN_CODES = 4096  # vocabularies from here on are worth it

Term = tuple[Tensor, Tensor]  # hidden (N, D) and weight (V or more, D): their product is a part of the logits


def linear_terms(layer: nn.Module, hidden: Tensor) -> list[Term]:
    """An output layer without bias as hidden (N, D) and weight (V, D) whose product are the logits.

    A layer that peft has given low-rank adapters has a second pair: A hidden (N, r) and B (V, r).
    """
    base = getattr(layer, "base_layer", None)
    if base is None:
        return [(hidden, layer.weight)]  # type: ignore[list-item]
    adapted: Any = layer
    terms = [(hidden, base.weight)]
    for name in [] if adapted.merged or adapted.disable_adapters else adapted.active_adapters:
        low = adapted.lora_A[name](adapted.lora_dropout[name](hidden)) * adapted.scaling[name]
        terms.append((low, adapted.lora_B[name].weight))
    return terms


def lean_nats(terms: Sequence[Term], codes: Tensor, num_codes: int, block_logits: int = BLOCK_LOGITS) -> Tensor:
    """Code lengths under the softmax of the summed products of the terms.

    Args:
        terms: hidden (N, D) and weight (num_codes or more, D) float32 each, D may differ; later rows are not used.
        codes: (N,) int64, 0 .. num_codes - 1.
        num_codes: number of codes V.
        block_logits: logits that are held at once.

    Returns:
        (N,) float32 nats.
    """
    flat = [tensor.float() for term in terms for tensor in term]
    rows = max(1, min(block_logits // num_codes, MOST_ROWS))
    return _LeanNats.apply(codes, num_codes, rows, torch.is_grad_enabled(), *flat)


class _Blocks:
    """The blocks of logits, all in one buffer."""

    def __init__(self, flat: Sequence[Tensor], num_codes: int, rows: int) -> None:
        self.hidden, self.weights = flat[::2], [weight[:num_codes] for weight in flat[1::2]]
        self.rows = rows
        self.buffer = self.hidden[0].new_empty(min(rows, len(self.hidden[0])), num_codes)

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        for start in range(0, len(self.hidden[0]), self.rows):
            part = slice(start, min(start + self.rows, len(self.hidden[0])))
            logits = self.buffer[: part.stop - part.start]
            torch.mm(self.hidden[0][part], self.weights[0].t(), out=logits)
            for hidden, weight in zip(self.hidden[1:], self.weights[1:], strict=True):
                logits.addmm_(hidden[part], weight.t())
            yield part, logits


class _LeanNats(torch.autograd.Function):
    """See `lean_nats`; inputs: codes, num_codes, rows, whether gradients will be asked for, and the terms, flat."""

    @staticmethod
    @torch.autocast("cpu", enabled=False)
    @torch.autocast("cuda", enabled=False)
    def forward(ctx: Any, codes: Tensor, num_codes: int, rows: int, grads: bool, *flat: Tensor) -> Tensor:
        needed = [grads and need for need in ctx.needs_input_grad[4:]]
        made = [_zeros(tensor, need) for tensor, need in zip(flat, needed, strict=True)]
        nats, logs = flat[0].new_empty(len(codes)), flat[0].new_empty(len(codes))
        blocks = _Blocks(flat, num_codes, rows)
        for part, logits in blocks:
            chosen = codes[part, None]
            largest = logits.amax(-1, keepdim=True)
            logits.sub_(largest)
            picked = logits.gather(-1, chosen)
            total = logits.exp_().sum(-1, keepdim=True)
            nats[part] = (total.log() - picked)[:, 0]
            logs[part] = (total.log() + largest)[:, 0]
            if any(needed):
                logits.div_(total).scatter_add_(-1, chosen, logits.new_full(chosen.shape, -1.0))
                _add_gradients(made, blocks, part, logits)
        ctx.num_codes, ctx.rows, ctx.num_terms = num_codes, rows, len(flat)
        ctx.save_for_backward(codes, logs, *flat, *made)
        return nats

    @staticmethod
    @once_differentiable
    @torch.autocast("cpu", enabled=False)
    @torch.autocast("cuda", enabled=False)
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (grad,) = grads
        codes, logs, *tensors = ctx.saved_tensors
        flat, made = tensors[: ctx.num_terms], tensors[ctx.num_terms :]
        needed = list(ctx.needs_input_grad[4:])
        results = [unit * grad[:, None] if need else None for unit, need in zip(made[::2], needed[::2], strict=True)]
        # A tensor that autograd has expanded from one number says so in its strides; asking for values would wait.
        if all(stride == 0 for stride in grad.stride()):
            weights = [unit * grad[:1] if need else None for unit, need in zip(made[1::2], needed[1::2], strict=True)]
        else:
            weights = _weight_gradients(flat, codes, logs, grad, needed, ctx)
        pairs = [value for pair in zip(results, weights, strict=True) for value in pair]
        return (None, None, None, None, *pairs)


def _zeros(tensor: Tensor, needed: bool) -> Tensor:
    return torch.zeros_like(tensor) if needed else tensor.new_empty(0)


def _add_gradients(made: Sequence[Tensor], blocks: _Blocks, part: slice, logits: Tensor) -> None:
    """Add a block's part, logits holding d nats / d logits."""
    num_codes = logits.shape[1]
    for index, (hidden, weight) in enumerate(zip(blocks.hidden, blocks.weights, strict=True)):
        of_hidden, of_weight = made[2 * index], made[2 * index + 1]
        if len(of_hidden):
            torch.mm(logits, weight, out=of_hidden[part])
        if len(of_weight):
            of_weight[:num_codes].addmm_(logits.t(), hidden[part])


def _weight_gradients(
    flat: Sequence[Tensor], codes: Tensor, logs: Tensor, grad: Tensor, needed: Sequence[bool], ctx: Any
) -> list[Tensor | None]:
    """The weights' gradients where every token has a factor of its own, (N,): the blocks once more."""
    if not any(needed[1::2]):
        return [None] * (len(flat) // 2)
    made = [
        _zeros(tensor, need and index % 2 == 1) for index, (tensor, need) in enumerate(zip(flat, needed, strict=True))
    ]
    blocks = _Blocks(flat, ctx.num_codes, ctx.rows)
    for part, logits in blocks:
        chosen = codes[part, None]
        logits.sub_(logs[part, None]).exp_().scatter_add_(-1, chosen, logits.new_full(chosen.shape, -1.0))
        _add_gradients(made, blocks, part, logits.mul_(grad[part, None]))
    return [value if need else None for value, need in zip(made[1::2], needed[1::2], strict=True)]
