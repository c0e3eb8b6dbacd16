"""Keys and values of past positions, and the step by one more position.

On a CPU the step reads views of the positions in use. On a GPU it would spend its time launching kernels, so there
every shape is fixed: the position is a tensor, keys and values are written there by `index_copy_`, attention reads the
whole cache with the positions behind masked, and after a few steps the work of all blocks is recorded as one CUDA graph
and replayed.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

WARM_CALLS = 3  # as they are, before a call is recorded: libraries set themselves up, kernels are chosen


class KeyValueCache:
    """Keys and values of one block: (B, H, length, dim) each, in the data type of autocast where that is on."""

    def __init__(self, batch: int, heads: int, length: int, dim: int, device: torch.device) -> None:
        lower = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if lower else torch.float32
        # zeros: what is masked weighs nothing, but nothing times NaN is NaN
        self.keys = torch.zeros(batch, heads, length, dim, device=device, dtype=dtype)
        self.values = torch.zeros_like(self.keys)
        self.positions = torch.arange(length, device=device)[None, None, None]

    def extend(self, start: int | Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Write keys and values (B, H, N, dim) from ``start`` on.

        Args:
            start: the first position; a tensor (1,) int64, with N = 1, asks for fixed shapes.
            keys, values: what to write.

        Returns:
            keys, values and mask for attention: views of all up to there and None, or everything and a mask
            (1, 1, 1, length).
        """
        if isinstance(start, Tensor):
            self.keys.index_copy_(2, start, keys.to(self.keys.dtype))
            self.values.index_copy_(2, start, values.to(self.values.dtype))
            return self.keys, self.values, self.positions <= start
        num, end = keys.shape[2], start + keys.shape[2]
        self.keys.narrow(2, start, num).copy_(keys)  # narrow(): a slice takes three views
        self.values.narrow(2, start, num).copy_(values)
        return self.keys.narrow(2, 0, end), self.values.narrow(2, 0, end), None


class FixedStep:
    """A function of tensors of fixed shapes, called many times: on a GPU recorded once, then replayed as a CUDA graph.

    Args:
        function: takes tensors, may change others in place, returns one. It must not wait for the device, nor use
            random numbers.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, *inputs: Tensor) -> Tensor:
        """What the function gives for these inputs, whose shapes and types are those of the first call."""
        if self.graph is None:
            if not inputs[0].is_cuda or self.calls < WARM_CALLS:
                self.calls += 1
                return self.function(*inputs)
            self._record(inputs)
        assert self.graph is not None
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given)
        self.graph.replay()
        return self.output.clone()  # the graph's own memory is written again by the next call

    def _record(self, inputs: tuple[Tensor, ...]) -> None:
        """Nothing is computed while recording. Weights that autocast converts are converted inside the graph."""
        self.inputs = tuple(value.clone() for value in inputs)
        self.graph = torch.cuda.CUDAGraph()
        lower, dtype = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        with (
            torch.cuda.device(inputs[0].device),
            torch.autocast("cuda", dtype, lower, cache_enabled=False),
            torch.cuda.graph(self.graph, capture_error_mode="thread_local"),  # threads of loaders may go on
        ):
            self.output = self.function(*self.inputs)


Through = Callable[..., Tensor]  # (the blocks' caches, x (B, N, dim), start, ...) -> (B, N, dim)


class Caches:
    """The caches of a stack of blocks.

    Args:
        num: blocks.
        batch, heads, length, dim: of each: sequences, attention heads, positions, width of a head.
        device: where they are.
        static: fixed shapes for steps of one position; None: on a GPU.
    """

    def __init__(
        self, num: int, batch: int, heads: int, length: int, dim: int, device: torch.device, static: bool | None = None
    ) -> None:
        self.blocks = [KeyValueCache(batch, heads, length, dim, device) for _ in range(num)]
        self.positions = torch.arange(length, device=device)
        self.static = device.type == "cuda" if static is None else static
        self.step: FixedStep | None = None

    def extend(self, through: Through, x: Tensor, start: int, *more: Tensor) -> Tensor:
        """Run x (B, N, dim) at positions start .. start + N - 1 (N = 1, or start = 0) through the blocks.

        Args:
            through: the blocks: takes their caches, x, start (int, or a tensor (1,) for fixed shapes) and ``more``;
                the same at every call.
            x: inputs.
            start: the first position.
            more: further tensors.
        """
        assert x.shape[1] == 1 or start == 0, "several positions at once only from the start"
        if x.shape[1] > 1 or not self.static:
            return through(self.blocks, x, start, *more)
        if self.step is None:
            self.step = FixedStep(functools.partial(through, self.blocks))
        return self.step(x, self.positions[start : start + 1], *more)
