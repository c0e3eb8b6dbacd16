"""What makes the same arithmetic faster: compiled networks, TF32, and the count of operations that says how fast it is.

Networks are compiled, one by one; the loop over injectors is not, as it costs microseconds (benchmarks/RESULTS.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from codes.convert import NetworkName
from codes.entries import Experiment
from codes.options import ExperimentOptions
from codes.trainer.build import Parts
from codes.trainer.distributed_step import blocks_of
from codes.trainer.state import batch_size, split_batch
from codes.trainer.step import batch_seed
from codes.trainer.trace import trace


@dataclass(frozen=True)
class Gpu:
    """What a GPU can do at most, without sparsity, and hold.

    Args:
        half_flops: operations a second with bfloat16 or float16 matrix products.
        tf32_flops: with TF32 ones.
        float_flops: with float32 ones.
        memory_bytes: its memory.
    """

    half_flops: float
    tf32_flops: float
    float_flops: float
    memory_bytes: float

    def peak_flops(self, dtype: torch.dtype, tf32: bool) -> float:
        """The peak for a number format."""
        return self.half_flops if dtype != torch.float32 else self.tf32_flops if tf32 else self.float_flops


# NVIDIA's data sheets, dense rates of the SXM modules where there are such. Names are parts of what torch calls them.
GPUS = {
    "b200": Gpu(2250e12, 1125e12, 80e12, 180e9),
    "h200": Gpu(989e12, 494e12, 67e12, 141e9),
    "h100": Gpu(989e12, 494e12, 67e12, 80e9),
    "a100": Gpu(312e12, 156e12, 19.5e12, 80e9),
    "l40s": Gpu(362e12, 183e12, 91.6e12, 48e9),
    "l4": Gpu(121e12, 60e12, 30.3e12, 24e9),
    "4090": Gpu(165e12, 82.6e12, 82.6e12, 24e9),
    "3090": Gpu(71e12, 35.6e12, 35.6e12, 24e9),
}


def gpu_named(name: str) -> Gpu | None:
    """The GPU whose key is a part of that name, or None."""
    return next((gpu for key, gpu in GPUS.items() if key in name.lower()), None)


def prepare(experiment: Experiment, parts: Parts) -> list[str]:
    """TF32 as the options say, and networks compiled in place (their blocks where FSDP2 gathers those).

    Returns:
        lines for people.
    """
    options, notes = experiment.options, []
    torch.set_float32_matmul_precision("high" if options.tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = options.tf32  # convolutions have a switch of their own, which is on
    apart = _differentiated_twice(experiment)
    for name, network in parts.networks.items() if options.compile else ():
        if name in apart:
            notes.append(f"network {name} is not compiled: a gradient penalty differentiates it twice")
            continue
        for module in (blocks_of(network) if options.parallel == "fsdp" else []) or [network]:
            module.compile(**_how(options.compile_mode), dynamic=False)
    return notes


def _how(mode: str) -> dict[str, Any]:
    return {"backend": "aot_eager"} if mode == "eager" else {} if mode == "default" else {"mode": mode}


def _differentiated_twice(experiment: Experiment) -> set[str]:
    """The networks under a gradient_penalty, which torch.compile refuses."""
    entries = [entry for step in experiment.steps for entry in step.injectors if entry.component]
    penalties = [entry.built_from for entry in entries if entry.built_from.type == "gradient_penalty"]
    return {v.name for penalty in penalties for v in penalty.options.values() if isinstance(v, NetworkName)}


def step_flops(parts: Parts, batch: dict[str, Any], number: int, options: Any) -> float:
    """Floating-point operations of one training iteration of all processes: products and sums of matrix products,
    convolutions and attention, forward and backward, counted on one micro-batch.

    Weights, buffers and random numbers are as before; gradients are not. The fused LSTM of a GPU is not counted.

    Args:
        parts: of the experiment.
        batch: as the loader gives it to this process.
        number: the iteration.
        options: `train` of the experiment.
    """
    from torch.utils.flop_counter import FlopCounterMode

    micro = batch_size(split_batch(batch, options.mega_batch_factor)[0])
    held = {name: _copy(network) for name, network in parts.networks.items()}
    cuda = [parts.device] if parts.device.type == "cuda" else []
    modes = {name: network.training for name, network in parts.networks.items()}
    with (
        torch.random.fork_rng(cuda),
        torch.compiler.set_stance("force_eager"),
        FlopCounterMode(display=False) as counter,
    ):
        trace(parts, batch, number, batch_seed(0, number), options.mega_batch_factor)
    for name, network in parts.networks.items():
        _restore(network, held[name])
        network.train(modes[name])
    for step in parts.steps:
        for updater in step.updaters:
            updater.zero_grad()
    return counter.get_total_flops() * batch_size(batch) / micro * parts.ranks.size


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.detach().clone() for name, buffer in network.named_buffers()}


@torch.no_grad()
def _restore(network: nn.Module, buffers: Mapping[str, Tensor]) -> None:
    for name, buffer in network.named_buffers():
        buffer.copy_(buffers[name])


class Speed:
    """How much of the GPU's peak a run makes use of: model FLOPs utilisation (MFU).

    Args:
        parts: of the experiment.
        options: all of it.
    """

    def __init__(self, parts: Parts, options: ExperimentOptions) -> None:
        self.parts, self.options = parts, options
        self.peak_flops = peak_flops(parts.device, parts.precision.dtype, options.tf32)
        self.step_flops = 0.0

    def count(self, step: int) -> None:
        """Count the operations of the next iteration; where no peak is known there is nothing to compare with."""
        if self.peak_flops is not None:
            batch = self.parts.train_loader.share(step)[0]
            self.step_flops = step_flops(self.parts, batch, step + 1, self.options.train)

    def figures(self, steps_a_second: float) -> dict[str, float]:
        """MFU between 0 and 1, of what all processes' GPUs can do."""
        if self.peak_flops is None:
            return {}
        return {"mfu": self.step_flops * steps_a_second / (self.peak_flops * self.parts.ranks.size)}


def peak_flops(device: torch.device, dtype: torch.dtype, tf32: bool) -> float | None:
    """What the run's GPU can do at most; None on a CPU or where it is not in the table."""
    if device.type != "cuda":
        return None
    gpu = gpu_named(torch.cuda.get_device_name(device))
    return gpu.peak_flops(dtype, tf32) if gpu else None
