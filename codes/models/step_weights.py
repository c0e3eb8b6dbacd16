"""Weights where a CPU reads them fastest, for steps of one vector.

A step of generation multiplies one vector by every weight once: it waits for memory, hardly for arithmetic. Two things
shorten that wait by a quarter. Pages of 2 MiB, of which all weights need a few dozen, spare the search for each of
thousands of small ones; and a matrix that lies in memory column by column is read in long runs that all add to the same
sums, where row by row each sum is finished by itself. Values, shapes and names stay as they are.
"""

import mmap

import torch
from torch import Tensor, nn

HUGE_PAGE_BYTES = 2**21
FLOAT_BYTES = 4


def lay_out_for_steps(network: nn.Module) -> None:
    """Move the float32 weights of a network's linear layers on the CPU into one block of huge pages, by columns.

    For a network that is not trained any further: a matrix that lies otherwise is multiplied with other rounding. A
    table that is an embedding as well keeps its rows in one piece each. For several vectors at a time, plain weights
    are the faster ones.
    """
    tables = {id(module.weight) for module in network.modules() if isinstance(module, nn.Embedding)}
    linear = [module.weight for module in network.modules() if isinstance(module, nn.Linear)]
    unique = {id(weight): weight for weight in linear if weight.device.type == "cpu" and weight.dtype == torch.float32}
    block = huge_pages(sum(weight.numel() for weight in unique.values()))
    start = 0
    with torch.no_grad():
        for identity, weight in unique.items():
            part = block[start : start + weight.numel()]
            place = part.view(weight.shape) if identity in tables else part.view(weight.shape[::-1]).t()
            weight.data = place.copy_(weight)
            start += weight.numel()


def huge_pages(num: int) -> Tensor:
    """So many float32 zeros, on pages of 2 MiB where the system has them for who asks (Linux)."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros(num)
    size = num * FLOAT_BYTES + HUGE_PAGE_BYTES
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    found = torch.frombuffer(memory, dtype=torch.float32)
    first = -found.data_ptr() % HUGE_PAGE_BYTES // FLOAT_BYTES
    return found[first : first + num]
