"""What the file format asks of a method of compression, and how it says that a file or a model is not what it must be.

A file is cut into blocks, the channels of a block into pairs (a single where one is left); each is coded by itself, by
whichever codec makes it smallest. `container_writer` and `container_reader` know codecs by this interface only.
"""

from typing import Protocol

import numpy as np

NO_MODEL = bytes(32)  # the model hash of a codec without a model
NO_FINGERPRINT = bytes(16)

# What a file's header calls its codecs. Raw and linear belong to the format: no header lists them.
CODEC_NUMBERS = {"raw": 0, "linear": 1, "residual": 2, "tokens": 3}
CODEC_NAMES = {number: name for name, number in CODEC_NUMBERS.items()}
PROFILES = ("exact", "fast")


class BlockCodec(Protocol):
    """Codes the samples of one or two channels, a block at a time, each block independent of the others.

    Attributes:
        name: a key of `CODEC_NUMBERS`.
        profile: "exact": decodes to the same integers on every machine; "fast": on the same software only, which
            `fingerprint` tells.

    A codec may also have an attribute ``channel_bits``: how many bits each channel took in the last `encode`.
    """

    name: str
    profile: str

    def model_hash(self) -> bytes:
        """32 bytes: the SHA-256 of the model file that a decoder must have; `NO_MODEL` where there is none."""
        ...

    def fingerprint(self) -> bytes:
        """16 bytes that differ where the arithmetic does: of the result of a fixed computation in profile "fast"."""
        ...

    def encode(self, pcm: np.ndarray, bits: int, sample_rate_hz: int) -> bytes:
        """Code (C, T) int32, C 1 or 2, T at least 1, of values in -2^(bits-1) .. 2^(bits-1) - 1.

        Raises:
            ValueError: this codec does not code such a block (another number of channels, too many bits).
        """
        ...

    def decode(self, data: bytes, num_channels: int, num_frames: int, bits: int, sample_rate_hz: int) -> np.ndarray:
        """What was coded: (num_channels, num_frames) int32. Any bytes must be safe to give.

        Raises:
            ValueError: the data is not such a block.
        """
        ...


class CodedFileError(ValueError):
    """A coded file cannot be read: not one, of a later version, damaged, or truncated. The message names the place."""


class ModelError(ValueError):
    """The model, the profile or the arithmetic here is not what the file was coded with."""
