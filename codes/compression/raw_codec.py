"""Samples as they are, in no more bits than they have: what a block falls back to, so that no file grows."""

import numpy as np

from codes.compression.codec import NO_FINGERPRINT, NO_MODEL

_PIECE_SAMPLES = 1 << 16  # a multiple of 8: pieces end at whole bytes


def raw_bytes(num_samples: int, bits: int) -> int:
    """Size of so many samples of ``bits`` bits."""
    return -(-num_samples * bits // 8)


class RawCodec:
    """L0 R0 L1 R1 ... in ``bits`` bits of two's complement each, highest bit first; the last byte is filled with 0."""

    name = "raw"
    profile = "exact"

    def model_hash(self) -> bytes:
        return NO_MODEL

    def fingerprint(self) -> bytes:
        return NO_FINGERPRINT

    def encode(self, pcm: np.ndarray, bits: int, sample_rate_hz: int) -> bytes:
        """See `codec.BlockCodec`."""
        samples = np.ascontiguousarray(pcm.T).reshape(-1).astype(np.uint32)  # modulo 2^32
        return b"".join(
            np.packbits(_bit_matrix(samples[first : first + _PIECE_SAMPLES], bits)).tobytes()
            for first in range(0, len(samples), _PIECE_SAMPLES)
        )

    def decode(self, data: bytes, num_channels: int, num_frames: int, bits: int, sample_rate_hz: int) -> np.ndarray:
        """See `codec.BlockCodec`."""
        num_samples = num_channels * num_frames
        if len(data) != raw_bytes(num_samples, bits):
            raise ValueError(f"{num_samples} samples of {bits} bits do not fit {len(data)} bytes")
        octets = np.frombuffer(data, np.uint8)
        samples = np.empty(num_samples, np.int32)
        for first in range(0, num_samples, _PIECE_SAMPLES):
            piece = samples[first : first + _PIECE_SAMPLES]
            start = first * bits // 8
            flat = np.unpackbits(octets[start : start + raw_bytes(len(piece), bits)])[: len(piece) * bits]
            words = np.zeros((len(piece), 32), np.uint8)
            words[:, :bits] = flat.reshape(len(piece), bits)
            piece[:] = np.packbits(words, axis=1).view(">i4")[:, 0] >> (32 - bits)
        return np.ascontiguousarray(samples.reshape(num_frames, num_channels).T)


def _bit_matrix(samples: np.ndarray, bits: int) -> np.ndarray:
    """(N,) uint32 to (N, bits) of 0 and 1, highest bit first."""
    octets = samples.astype(">u4").view(np.uint8).reshape(-1, 4)
    return np.unpackbits(octets, axis=1)[:, 32 - bits :]
