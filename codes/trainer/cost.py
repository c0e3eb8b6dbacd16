"""What an experiment would cost on other machines: memory of each process, operations a step, hours.

    python train.py -opt FILE --check --devices 8 --gpu h200

Counted on one real micro-batch: operations as `speed.py` counts them, activations as the most bytes that tensors hold
at once up to the end of its backward pass, gradients aside. Parameters, gradients, optimizer and moving averages follow
from the networks. What the libraries take beside (context, workspace, fragmentation: 1 to 3 GB on a GPU) is not in it.
`python scripts/bench.py cost` compares it with what is taken.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from codes.entries import Experiment
from codes.trainer.build import Parts
from codes.trainer.peak_memory import PeakMemory
from codes.trainer.speed import GPUS, Gpu, step_flops
from codes.trainer.state import batch_size, split_batch
from codes.trainer.step import batch_seed
from codes.trainer.trace import trace

USUAL_MFU = 0.4  # of the peak, assumed: nothing of this project has been measured on a GPU yet (benchmarks/RESULTS.md)
# what an optimizer keeps for each parameter, in numbers of the parameter's type; adamw8bit: two bytes, and scales
MOMENTS = {"adamw": 2, "adamw_zero": 2, "adamw8bit": 0.51, "lion": 1, "sgd": 1}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Bytes of one process, and operations of all.

    Args:
        weights_bytes, gradients_bytes, optimizer_bytes, averages_bytes, activations_bytes: in memory at once, at most.
        step_flops: of one iteration, over all processes.
    """

    weights_bytes: float
    gradients_bytes: float
    optimizer_bytes: float
    averages_bytes: float
    activations_bytes: float
    step_flops: float

    @property
    def memory_bytes(self) -> float:
        """All of it."""
        model = self.weights_bytes + self.gradients_bytes + self.optimizer_bytes + self.averages_bytes
        return model + self.activations_bytes

    def hours(self, steps: int, gpu: Gpu, devices: int, dtype: torch.dtype, tf32: bool) -> float:
        """Time of so many steps at the usual utilisation."""
        return steps * self.step_flops / (gpu.peak_flops(dtype, tf32) * devices * USUAL_MFU) / 3600


def estimate(experiment: Experiment, parts: Parts, devices: int) -> Cost:
    """Measure one micro-batch here and reckon what each of `devices` processes would hold.

    Raises:
        ValueError: the batch has fewer items than there are devices.
    """
    options = experiment.options
    batch = parts.train_loader.batch(0)
    items = batch_size(batch)
    if items < devices:
        raise ValueError(f"datasets.train.batch_size is {items}: give each of {devices} devices one item or more")
    first = split_batch(batch, options.train.mega_batch_factor)[0]
    micro = {key: value.clone() if isinstance(value, Tensor) else value for key, value in first.items()}
    share, items_of_one = -(-items // devices), batch_size(micro)
    with PeakMemory() as peak:
        trace(parts, micro, 1, batch_seed(0, 1))
    sharded = devices if options.parallel == "fsdp" else 1
    weights = sum(bytes_of(network.parameters()) / (sharded if experiment.networks[name].flags.trainable else 1)
                  for name, network in parts.networks.items())  # fmt: skip
    trained = sum(bytes_of(us[0].parameters) for us in parts.updaters.values())
    averages = {id(value): value for average in parts.averages.values() for value in average.average.values()}
    return Cost(
        weights_bytes=weights,
        gradients_bytes=trained / sharded,
        optimizer_bytes=_optimizer_bytes(experiment, parts, devices),
        averages_bytes=bytes_of(averages.values()) / sharded,
        activations_bytes=max(peak.most - trained, 0) / items_of_one * -(-share // options.train.mega_batch_factor),
        step_flops=step_flops(parts, batch, 1, options.train),
    )


def _optimizer_bytes(experiment: Experiment, parts: Parts, devices: int) -> float:
    total = 0.0
    for entry, step in zip(experiment.steps, parts.steps, strict=True):
        kind = entry.flags.optimizer
        shared = devices if experiment.options.parallel == "fsdp" or kind == "adamw_zero" else 1
        total += sum(MOMENTS[kind] * bytes_of(updater.parameters) / shared for updater in step.updaters)
    return total


def bytes_of(parameters: Iterable[Tensor]) -> int:
    """What tensors take in memory."""
    return sum(p.numel() * p.element_size() for p in parameters)


def lines(experiment: Experiment, parts: Parts, devices: int, gpu_name: str | None) -> list[str]:
    """The estimate for people.

    Raises:
        ValueError: the GPU is not in the table, or the batch too small.
    """
    if gpu_name is not None and gpu_name.lower() not in GPUS:
        raise ValueError(f"--gpu {gpu_name}: known are {', '.join(GPUS)}")
    cost, options = estimate(experiment, parts, devices), experiment.options
    parts_of_memory = {
        "weights": cost.weights_bytes, "gradients": cost.gradients_bytes, "optimizer": cost.optimizer_bytes,
        "averages": cost.averages_bytes, "activations": cost.activations_bytes,
    }  # fmt: skip
    detail = ", ".join(f"{name} {_gib(value)}" for name, value in parts_of_memory.items() if value)
    how = f"{devices} device(s), {options.parallel}" if devices > 1 else "one device"
    found = [
        f"{how}: {_gib(cost.memory_bytes)} each ({detail})",
        f"operations a step, all devices: {cost.step_flops:.4g} FLOPs; of the whole run: "
        f"{cost.step_flops * options.train.niter:.4g}",
    ]
    if gpu_name is None:
        return found
    gpu = GPUS[gpu_name.lower()]
    dtype = torch.bfloat16 if options.bf16 or options.fp16 else torch.float32
    hours = cost.hours(options.train.niter, gpu, devices, dtype, options.tf32)
    fits = "fits" if cost.memory_bytes < 0.9 * gpu.memory_bytes else "does not fit"
    name = str(dtype).removeprefix("torch.")
    found.append(
        f"{gpu_name}: {fits} {_gib(gpu.memory_bytes)}; about {hours:.2g} hours for {options.train.niter} steps at "
        f"{100 * USUAL_MFU:.0f} % of its {gpu.peak_flops(dtype, options.tf32) / 1e12:.0f} TFLOPS in {name}"
    )
    return found


def _gib(number: float) -> str:
    return f"{number / 2**30:.2f} GiB" if number >= 2**30 / 10 else f"{number / 2**20:.1f} MiB"
