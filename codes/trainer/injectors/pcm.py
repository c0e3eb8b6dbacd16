"""Samples to codes and back: linear PCM, mu-law, and codes split into bytes.

Integer audio is right-justified two's complement: a sample of b bits lies in [-2^(b-1), 2^(b-1)). Its code is the
sample plus 2^(b-1), so codes count up from 0 with the sample's value. Float audio x stands for the sample x 2^(b-1).
Integers are shifted, never converted to float on the way, so up to 32 bits every code is exact.
"""

import math

import torch
from torch import Tensor

from codes.trainer.injector import Injector

DTYPE_BITS = {torch.uint8: 8, torch.int8: 8, torch.int16: 16, torch.int32: 32}


class PcmQuantizeInjector(Injector):
    """Linear PCM to unsigned codes. wav: any shape, integer or float -> codes: same shape, int64, 0 .. 2^bits - 1.

    Integers at `bits` map one to one. At fewer bits the low bits are dropped (rounding down), at more bits zeros are
    appended. uint8 is read as the unsigned 8-bit PCM of WAV files. Floats are rounded to the nearest sample, exactly
    the one they came from; those outside [-1, 1) take the outermost code. The inverse gives integer PCM at `bits`,
    right-justified: int16 up to 16 bits, int32 above.

    Args:
        bits: bits of a code, 1 to 32.
        input_bits: bits of an integer sample, 1 to 32. None: all bits of its dtype. Set it where the audio is narrower
            than its dtype, as 24-bit audio in int32 is.
    """

    def __init__(self, *, bits: int = 16, input_bits: int | None = None) -> None:
        self.bits = in_range("bits", bits, 1, 32)
        self.input_bits = input_bits if input_bits is None else in_range("input_bits", input_bits, 1, 32)
        self.zero = 1 << (bits - 1)  # the code of silence

    def forward(self, wav: Tensor) -> Tensor:
        """wav: (...) integer or float -> codes: (...) int64.

        Raises:
            ValueError: the dtype is none of audio, or narrower than `input_bits`.
        """
        if wav.is_floating_point():
            return self._quantize_float(wav)
        samples, input_bits = samples_and_bits(wav, self.input_bits)
        if input_bits > self.bits:
            samples = samples >> (input_bits - self.bits)
        elif input_bits < self.bits:
            samples = samples << (self.bits - input_bits)
        return samples + self.zero

    def _quantize_float(self, wav: Tensor) -> Tensor:
        """Scaling by a power of two is exact; 2^31 - 1 is no float32, hence the second clamp after the conversion."""
        wide = wav.to(torch.promote_types(wav.dtype, torch.float32))
        samples = (wide * self.zero).round().clamp(-self.zero, self.zero).long()
        return samples.clamp(max=self.zero - 1) + self.zero

    def inverse(self, codes: Tensor) -> Tensor:
        """codes: (...) integer -> wav: (...) integer PCM at `bits`, int16 up to 16 bits, int32 above."""
        _require_integer(codes)
        return (codes.long() - self.zero).to(torch.int16 if self.bits <= 16 else torch.int32)


class MuLawInjector(Injector):
    """Mu-law companding to codes. wav: (B, C, T) or any shape -> codes: same shape, int64, 0 .. 2^bits - 1.

    F(x) = sign(x) ln(1 + mu |x|) / ln(1 + mu) for x in [-1, 1], then 2^bits equal steps from -1 to 1 (ITU-T G.711 is
    its piecewise approximation). The inverse gives float32 in [-1, 1], the middle of each code's range, and
    encode(decode(code)) == code for every code. Samples outside [-1, 1] take the outermost code.

    Args:
        bits: bits of a code, 2 to 16.
        mu: strength of the companding, above 0. None: 2^bits - 1.
        input_bits: bits of an integer sample, 1 to 32. None: all bits of its dtype.
    """

    def __init__(self, *, bits: int = 8, mu: float | None = None, input_bits: int | None = None) -> None:
        self.top = (1 << in_range("bits", bits, 2, 16)) - 1
        self.mu = float(self.top) if mu is None else mu
        self.input_bits = input_bits if input_bits is None else in_range("input_bits", input_bits, 1, 32)
        if not (self.mu > 0 and math.isfinite(self.mu)):
            raise ValueError(f"mu must be a finite number above 0, got {mu}")

    def forward(self, wav: Tensor) -> Tensor:
        """wav: (...) integer or float -> codes: (...) int64.

        Raises:
            ValueError: the dtype is none of audio, or narrower than `input_bits`.
        """
        x = self._to_float(wav).clamp(-1, 1)
        companded = x.sign() * torch.log1p(self.mu * x.abs()) / math.log1p(self.mu)
        return ((companded + 1) * (self.top / 2) + 0.5).long()  # .long() rounds down what is not negative

    def _to_float(self, wav: Tensor) -> Tensor:
        if wav.is_floating_point():
            return wav.to(torch.promote_types(wav.dtype, torch.float32))
        samples, input_bits = samples_and_bits(wav, self.input_bits)
        return samples.float() * 2.0 ** (1 - input_bits)

    def inverse(self, codes: Tensor) -> Tensor:
        """codes: (...) integer -> wav: (...) float32 in [-1, 1]."""
        _require_integer(codes)
        companded = codes.float() * (2 / self.top) - 1
        wav = companded.sign() * torch.expm1(companded.abs() * math.log1p(self.mu)) / self.mu
        return wav.clamp(-1, 1)  # rounding may step over


class ByteSplitInjector(Injector):
    """Codes to bytes, most significant first. codes: (..., T) -> bytes: (..., T * n), int64, n = bits / 8 rounded up.

    Args:
        bits: bits of a code, 1 to 32.
        distinct: add 256 * position to each byte, position 0 being the most significant, so that bytes of different
            weight are different ids (0 .. 256 n - 1).
    """

    def __init__(self, *, bits: int = 16, distinct: bool = False) -> None:
        self.num_bytes = (in_range("bits", bits, 1, 32) + 7) // 8
        self.distinct = distinct

    def forward(self, codes: Tensor) -> Tensor:
        """codes: (..., T) integer, 0 .. 2^bits - 1 -> bytes: (..., T * n) int64.

        Raises:
            ValueError: the codes are not integers.
        """
        _require_integer(codes)
        codes = codes.long()
        parts = [codes >> 8 * (self.num_bytes - 1 - position) & 0xFF for position in range(self.num_bytes)]
        if self.distinct:
            parts = [part + 256 * position for position, part in enumerate(parts)]
        return torch.stack(parts, -1).flatten(-2)

    def inverse(self, ids: Tensor) -> Tensor:
        """ids: (..., T * n) integer -> codes: (..., T) int64.

        Raises:
            ValueError: the ids are not integers or do not make up whole codes.
        """
        _require_integer(ids)
        if ids.shape[-1] % self.num_bytes:
            raise ValueError(f"expected (..., T * {self.num_bytes}), whole codes of bytes, got {tuple(ids.shape)}")
        parts = (ids.long() & 0xFF).unflatten(-1, (ids.shape[-1] // self.num_bytes, self.num_bytes)).unbind(-1)
        codes = parts[0]
        for part in parts[1:]:
            codes = codes << 8 | part
        return codes


def in_range(name: str, value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise ValueError(f"{name} must be {low} to {high}, got {value}")
    return value


def samples_and_bits(wav: Tensor, input_bits: int | None) -> tuple[Tensor, int]:
    """Signed int64 samples and their depth. int64 audio has no depth of its own."""
    dtype_bits = DTYPE_BITS.get(wav.dtype)
    if wav.dtype == torch.int64 and input_bits is not None:
        return wav, input_bits
    if dtype_bits is None:
        hint = " without input_bits" if wav.dtype == torch.int64 else ""
        raise ValueError(f"expected float, uint8, int8, int16 or int32 audio, got {_describe(wav)}{hint}")
    if input_bits is not None and input_bits > dtype_bits:
        raise ValueError(f"input_bits {input_bits} do not fit the audio, {_describe(wav)}")
    samples = wav.long() - 128 if wav.dtype == torch.uint8 else wav.long()
    return samples, dtype_bits if input_bits is None else input_bits


def _require_integer(codes: Tensor) -> None:
    if codes.is_floating_point() or codes.is_complex() or codes.dtype == torch.bool:
        raise ValueError(f"expected integer codes, got {_describe(codes)}")


def _describe(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
