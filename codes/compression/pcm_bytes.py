"""Integers as the bytes that files keep them in: 1 to 4 bytes a sample, channels taking turns."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class SampleBytes:
    """How a file writes its samples: left-justified in ``num_bytes`` (1 to 4), as WAV does, or offset by half."""

    num_bytes: int
    big_endian: bool = False
    is_unsigned: bool = False

    def pack(self, pcm: np.ndarray, bits: int) -> bytes:
        """(C, T) integers of ``bits`` bits to C * T * num_bytes bytes."""
        container_bits = 8 * self.num_bytes
        words = np.ascontiguousarray(pcm.T).astype("<u4", casting="unsafe")  # (T, C), modulo 2^32
        words <<= container_bits - bits
        if self.is_unsigned:
            words += np.uint32(1 << (container_bits - 1))  # half the range, modulo 2^32
        octets = words.view(np.uint8).reshape(*words.shape, 4)[..., : self.num_bytes]
        return (octets[..., ::-1] if self.big_endian else octets).tobytes()

    def unpack(self, data: bytes, num_channels: int, bits: int) -> np.ndarray | None:
        """The way back: (C, T) int32 of ``bits`` bits; None where the bits below are not all zero."""
        octets = np.frombuffer(data, np.uint8).reshape(-1, num_channels, self.num_bytes)
        words = np.zeros((*octets.shape[:2], 4), np.uint8)
        words[..., 4 - self.num_bytes :] = octets[..., ::-1] if self.big_endian else octets
        samples = words.view("<i4")[..., 0]  # left-justified in 32 bits
        if self.is_unsigned:
            samples = samples ^ np.int32(-(2**31))
        if bits < 8 * self.num_bytes and (samples & ((1 << (32 - bits)) - 1)).any():
            return None
        return np.ascontiguousarray(samples.T).astype(np.int32) >> (32 - bits)


def md5_bytes(pcm: np.ndarray, bits: int) -> bytes:
    """What the MD5 of PCM is taken of, as in FLAC: signed, right-justified in whole bytes, lowest byte first."""
    num_bytes = -(-bits // 8)
    words = np.ascontiguousarray(pcm.T).astype("<i4", casting="unsafe")
    return words.view(np.uint8).reshape(-1, 4)[:, :num_bytes].tobytes()
