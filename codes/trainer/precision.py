"""Device and number format of a run: which device, autocast, and the loss scaler that fp16 needs."""

import contextlib
from typing import Any

import torch

from codes.options import ExperimentOptions
from codes.trainer.distributed import Ranks, device_number


def choose_device(options: ExperimentOptions, ranks: Ranks = Ranks()) -> torch.device:  # noqa: B008 (frozen)
    """The CUDA device of `gpu_ids`, or the CPU where that is empty or there is none; of several processes, one each.

    Raises:
        ValueError: the machine has GPUs, but not the one named.
    """
    if not options.gpu_ids or not torch.cuda.is_available():
        return torch.device("cpu")
    number = device_number(options, ranks)
    if number >= torch.cuda.device_count():
        who = "gpu_ids names" if ranks.size == 1 else f"process {ranks.rank} of {ranks.size} wants"
        raise ValueError(f"{who} GPU {number}; this machine has {torch.cuda.device_count()} (from 0)")
    return torch.device("cuda", number)


def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 numbers itself (AVX512-BF16 or AMX); elsewhere it is emulated, slowly."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


class Precision:
    """Autocast and scaling for a device.

    Args:
        device: where the run is.
        fp16, bf16: as the YAML says; fp16 on a CPU becomes bf16, because its fp16 is slower than fp32; on one
            without bfloat16 arithmetic both become fp32.
    """

    def __init__(self, device: torch.device, fp16: bool, bf16: bool) -> None:
        self.device = device
        self.note = ""
        self.dtype = torch.float16 if fp16 else torch.bfloat16 if bf16 else torch.float32
        if fp16 and device.type == "cpu":
            self.dtype = torch.bfloat16
            self.note = "fp16: this is a CPU, so bfloat16 is used instead (float16 is slower than float32 there)"
        if self.dtype == torch.bfloat16 and device.type == "cpu" and not cpu_has_bfloat16():
            self.dtype = torch.float32
            self.note = (
                "bf16: this CPU has no bfloat16 arithmetic, so float32 is used instead (bfloat16 would be slower)"
            )
        self.scaler = torch.amp.GradScaler(device.type) if self.dtype == torch.float16 else None

    def autocast(self) -> Any:
        """The context of a forward pass."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)
