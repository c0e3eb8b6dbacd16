"""Linear prediction with Rice codes: what a block is coded by where no model does better, or there is none.

As FLAC, with three things better: a stretch's prediction sees the samples before it, so that none is written as it is;
its coefficients are those of least absolute residuals (`linear_analysis`); its 32 taps are always to be had. All that a
decoder does is integer arithmetic (`linear_kernels`), so the profile is exact. docs/wsl-format.md has the bits.
"""

import functools
from types import ModuleType

import numpy as np

from codes.adaptive.compiled import compile_module
from codes.compression import linear_analysis, linear_kernels
from codes.compression.codec import NO_FINGERPRINT, NO_MODEL

_STRETCH_FRAMES = 4096
_CONSTANT = 0x80  # the payload's first byte: every channel is one value; else it is the log2 of a stretch's frames
_MOST_STRETCH_LOG2 = 16
# Types as numba writes them: i8 is int64, u1 an octet, f8 float64, [::1] an array that lies in one piece.
_SHARED = {
    "write_bits": "i8(u1[::1], i8, i8, i8)",
    "find_residuals": "void(i8[::1], i8[::1], i8, i8, i8[::1])",
    "fixed_coefficients": "void(i8, i8[::1])",
    "signal_bits": "i8(i8, i8, i8)",
    "stereo_signals": "UniTuple(i8, 2)(i8, i8, i8)",
}
_DECODER = {
    "read_bits": "UniTuple(i8, 2)(u1[::1], i8, i8)",
    "read_signed": "UniTuple(i8, 2)(u1[::1], i8, i8)",
    "read_unary": "UniTuple(i8, 2)(u1[::1], i8)",
    "restore": "b1(i8[::1], i8, i8[::1], i8, i8, i8)",
    "left_and_right": "UniTuple(i8, 2)(i8, i8, i8)",
    "read_residuals": "i8(u1[::1], i8, i8[::1])",
    "read_signal": "i8(u1[::1], i8, i8[::1], i8, i8)",
    "decode": "i8(u1[::1], i8, i8[:, ::1], i8, i8)",
}
_SOLVER = {"solve": "b1(f8[::1], f8[::1], i8, f8[::1])"}
_ENCODER = {
    "partition_cost": "UniTuple(i8, 2)(i8[::1])",
    "residual_cost": "UniTuple(i8, 2)(i8[::1])",
    "fold": "i8[::1](i8[::1])",
    "write_residuals": "i8(u1[::1], i8, i8[::1])",
    "precision_of": "i8(i8)",
    "quantise": "i8(f8[::1], i8, i8, i8[::1])",
    "consider": "b1(i8[:, ::1], i8[::1], i8, i8, i8, i8[::1])",
    "is_constant": "b1(i8[::1])",
    "make_plan": "void(i8[::1], i8, i8, i8, i8[:, ::1])",
    "write_signal": "i8(u1[::1], i8, i8[::1], i8, i8[:, ::1])",
    "encode": "i8(u1[::1], i8, i8[:, ::1], i8, i8, f8[::1])",
}


@functools.cache
def _shared() -> ModuleType:
    compile_module(linear_kernels.__name__, _SHARED)
    return linear_kernels


@functools.cache
def _decoder() -> ModuleType:
    kernels = _shared()
    compile_module(kernels.__name__, _DECODER)
    return kernels


@functools.cache
def _encoder() -> ModuleType:
    kernels = _shared()
    for name in _SHARED:  # what it has imported are the functions that are not compiled
        setattr(linear_analysis, name, getattr(kernels, name))
    compile_module(linear_analysis.__name__, _SOLVER, reorder_sums=True)
    compile_module(linear_analysis.__name__, _ENCODER)
    return linear_analysis


class LinearCodec:
    """See the module. Codes one or two channels of 1 to 32 bits.

    Attributes:
        channel_bits: how many bits each channel took in the last `encode`.
    """

    name = "linear"
    profile = "exact"

    def __init__(self) -> None:
        self.channel_bits: tuple[float, ...] = ()

    def model_hash(self) -> bytes:
        return NO_MODEL

    def fingerprint(self) -> bytes:
        return NO_FINGERPRINT

    def encode(self, pcm: np.ndarray, bits: int, sample_rate_hz: int) -> bytes:
        """See `codec.BlockCodec`."""
        if pcm.shape[0] > 2:
            raise ValueError(f"linear prediction codes one or two channels, got {pcm.shape[0]}")
        analysis = _encoder()
        data = np.zeros(64 + (pcm.size * (bits + 2) + 64 * pcm.size // 512) // 8, np.uint8)
        if (pcm == pcm[:, :1]).all():
            data[0] = _CONSTANT
            at = 8
            for value in pcm[:, 0]:
                at = analysis.write_bits(data, at, int(value), bits)
            self.channel_bits = ()
        else:
            data[0] = _STRETCH_FRAMES.bit_length() - 1
            channel_bits = np.zeros(pcm.shape[0])
            samples = np.ascontiguousarray(pcm, np.int64)
            at = analysis.encode(data, 8, samples, _STRETCH_FRAMES, bits, channel_bits)
            self.channel_bits = tuple(channel_bits)
        return data[: -(-at // 8)].tobytes()

    def decode(self, data: bytes, num_channels: int, num_frames: int, bits: int, sample_rate_hz: int) -> np.ndarray:
        """See `codec.BlockCodec`."""
        kernels = _decoder()
        code = np.frombuffer(bytearray(data), np.uint8)
        if len(code) == 0 or (code[0] > _MOST_STRETCH_LOG2 and code[0] != _CONSTANT):
            raise ValueError("not a block of linear prediction")
        pcm = np.zeros((num_channels, num_frames), np.int64)
        at = 8
        if code[0] == _CONSTANT:
            for channel in range(num_channels):
                pcm[channel], at = kernels.read_signed(code, at, bits)
        else:
            at = kernels.decode(code, 8, pcm, 1 << int(code[0]), bits)
        if at < 0 or -(-at // 8) != len(code):
            raise ValueError("its linear prediction is not what an encoder writes")
        return pcm.astype(np.int32)
