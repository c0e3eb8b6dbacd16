"""Cross-entropy over large vocabularies that never holds the logits of all tokens.

The logits of N tokens over V = 65,536 codes are the largest thing in a training step: 2 GiB at N = 8192, and their
gradient as much again. Here the tokens are taken some rows at a time, before the projection; each block of logits is
made, used and overwritten. With p the softmax and e the code that came,

    d nats / d logits = p - e,    d hidden = (p - e) W,    d W = (p - e)^T hidden,

so the gradients are made in the forward pass as well, while the block is at hand. What they must be multiplied by,
the gradient of each token's code length, is known only later: it is one number for all tokens where the loss is their
plain sum or mean, and d W is then simply scaled. Else (a mask, a weight for each token) the blocks are made a second
time for d W.

On a GPU each block takes one kernel of Liger (Hsu et al. 2024) where liger-kernel is installed and the network is not
compiled. Liger's own loss of hidden vectors is not used: it reads numbers back from the device in every step.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
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
        of_block = _of_block(codes.is_cuda)
        for part, logits in blocks:
            of_block(logits, codes[part], nats[part], logs[part], any(needed))
            if any(needed):
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


OfBlock = Callable[[Tensor, Tensor, Tensor, Tensor, bool], None]


def _of_block(on_gpu: bool) -> OfBlock:
    """What makes code lengths of a block of logits (R, V), which are overwritten: with d nats / d logits where asked.

    It is called with logits, codes (R,), nats (R,) and logs (R,) to be filled, and whether gradients are wanted.
    """
    kernel = liger_kernel() if on_gpu and not torch.compiler.is_compiling() else None
    return block_by_torch if kernel is None else functools.partial(block_by_liger, kernel)


def block_by_torch(logits: Tensor, codes: Tensor, nats: Tensor, logs: Tensor, grads: bool) -> None:
    """See `_of_block`."""
    chosen = codes[:, None]
    largest = logits.amax(-1, keepdim=True)
    logits.sub_(largest)
    picked = logits.gather(-1, chosen)
    total = logits.exp_().sum(-1, keepdim=True)
    nats.copy_((total.log() - picked)[:, 0])
    logs.copy_((total.log() + largest)[:, 0])
    if grads:
        logits.div_(total).scatter_add_(-1, chosen, logits.new_full(chosen.shape, -1.0))


def block_by_liger(kernel: Any, logits: Tensor, codes: Tensor, nats: Tensor, logs: Tensor, grads: bool) -> None:
    """See `_of_block`; the arguments that are 0 or None belong to losses that are not ours."""
    rows, num_codes = logits.shape
    picked = logits.gather(-1, codes[:, None])[:, 0]
    with torch.cuda.device_of(logits):
        kernel[(rows,)](
            X_ptr=logits, X_stride=logits.stride(0), Y_ptr=codes, Y_stride=codes.stride(0), weight_ptr=None,
            loss_ptr=nats, z_loss_ptr=None, loss_stride=nats.stride(0), token_accuracy_ptr=None,
            token_accuracy_stride=0, predicted_tokens_ptr=None, predicted_tokens_stride=0, n_cols=num_codes,
            n_non_ignore=rows, sum_non_ignore_weight=rows, weight_sum=0.0, ignore_index=-1, lse_square_scale=0.0,
            label_smoothing=0.0, reduction="none", softcap=None, RETURN_Z_LOSS=False, RETURN_TOKEN_ACCURACY=False,
            RETURN_PREDICTED_TOKENS=False, BLOCK_SIZE=min(2**15, 2 ** (num_codes - 1).bit_length()), HAS_WEIGHT=False,
            HAS_SOFTCAPPING=False, HAS_GRADIENTS=grads, num_warps=32,
        )  # fmt: skip
    torch.add(nats, picked, out=logs)


@functools.cache
def liger_kernel() -> Any:
    """Liger's cross-entropy of a block of logits, with gradients in their place; None where it is not installed, or of
    a version that asks for other arguments."""
    try:
        from liger_kernel.ops.cross_entropy import liger_cross_entropy_kernel  # type: ignore[import-not-found]
    except ImportError:
        return None
    return liger_cross_entropy_kernel if set(liger_cross_entropy_kernel.arg_names) == LIGER_ARGUMENTS else None


LIGER_ARGUMENTS = {
    "X_ptr", "X_stride", "Y_ptr", "Y_stride", "weight_ptr", "loss_ptr", "z_loss_ptr", "loss_stride",
    "token_accuracy_ptr", "token_accuracy_stride", "predicted_tokens_ptr", "predicted_tokens_stride", "n_cols",
    "n_non_ignore", "sum_non_ignore_weight", "weight_sum", "ignore_index", "lse_square_scale", "label_smoothing",
    "reduction", "softcap", "RETURN_Z_LOSS", "RETURN_TOKEN_ACCURACY", "RETURN_PREDICTED_TOKENS", "BLOCK_SIZE",
    "HAS_WEIGHT", "HAS_SOFTCAPPING", "HAS_GRADIENTS",
}  # fmt: skip


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
