"""What tests of coded files share: samples, writing and reading them, and a codec with faults to choose."""

import hashlib
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from codes.compression.codec import BlockCodec, ModelError
from codes.compression.container import CodecEntry
from codes.compression.container_reader import CodedFile
from codes.compression.container_writer import PcmForm, Report, write_coded_file
from codes.compression.raw_codec import RawCodec

HASH = hashlib.sha256(b"a model").digest()


def signal(num_channels: int, num_frames: int, bits: int, seed: int = 0) -> np.ndarray:
    """A wave with noise over most of the range, with the ends of the range in it."""
    rng = np.random.default_rng(seed)
    half = 2.0 ** (bits - 1)
    time = np.arange(num_frames)
    waves = np.sin(time * rng.uniform(0.01, 0.2, (num_channels, 1))) * half * 0.7
    pcm = np.clip(np.floor(waves + rng.normal(0, half / 50 + 0.5, waves.shape)), -half, half - 1).astype(np.int32)
    if num_frames > 4:
        pcm[:, 2], pcm[:, 3] = -half, half - 1
    return pcm


def write(
    path: Path,
    pcm: np.ndarray,
    bits: int,
    *,
    block_frames: int = 1000,
    codecs: Sequence[BlockCodec] = (),
    **options: object,
) -> Report:
    form = PcmForm(sample_rate_hz=8000, num_channels=len(pcm), bits=bits)
    blocks = (pcm[:, first : first + block_frames] for first in range(0, pcm.shape[1], block_frames))
    with open(path, "wb") as file:
        return write_coded_file(file, blocks, form, block_frames=block_frames, codecs=codecs, **options)  # pyright: ignore


def no_model(entry: CodecEntry, embedded: bytes) -> BlockCodec:
    raise ModelError(f"no model {entry.model_hash.hex()}")


def read(path: Path) -> np.ndarray:
    with CodedFile(path, no_model) as coded:
        blocks = list(coded.blocks())
        return np.concatenate([np.zeros((coded.header.num_channels, 0), np.int32), *blocks], 1)


class Shift:
    """A codec for tests: raw samples with one added to each byte. Its faults can be chosen."""

    name = "residual"

    def __init__(self, profile: str = "fast", model_hash: bytes = HASH, fingerprint: bytes = b"F" * 16) -> None:
        self.profile = profile
        self._hash, self._fingerprint = model_hash, fingerprint
        self.wrong = False
        self.too_long = False
        self.only_bits = 0

    def model_hash(self) -> bytes:
        return self._hash

    def fingerprint(self) -> bytes:
        return self._fingerprint

    def encode(self, pcm: np.ndarray, bits: int, sample_rate_hz: int) -> bytes:
        if self.too_long:
            return bytes(pcm.nbytes)
        if self.only_bits not in (0, bits):
            raise ValueError(f"codes {self.only_bits} bits, not {bits}")
        return zlib.compress(RawCodec().encode(pcm, bits, sample_rate_hz))[1:]

    def decode(self, data: bytes, num_channels: int, num_frames: int, bits: int, sample_rate_hz: int) -> np.ndarray:
        try:
            raw = zlib.decompress(b"x" + data)
        except zlib.error as error:
            raise ValueError(str(error)) from error
        pcm = RawCodec().decode(raw, num_channels, num_frames, bits, sample_rate_hz)
        return pcm + 1 if self.wrong else pcm


def repetitive(num_frames: int = 2500) -> np.ndarray:
    """What zlib codes better than linear prediction does."""
    return np.tile(np.random.default_rng(1).integers(-(2**15), 2**15, (2, 100)), num_frames // 100).astype(np.int32)
