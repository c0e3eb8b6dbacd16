"""The codec of a `residual_lm`: adaptive prediction under a small recurrent network, exact on every machine.

A block holds one or two channels and begins with a head of little-endian fields:

    u8   by how many bits the samples are shifted left after decoding
    then for each channel: u8 kind (0: range, 1: table), i32 lowest value, u32 count - 1 of numbers;
    of a table also u32 size and so many bytes: the steps between the values that occur, less 1, u16 each, as zlib
    u32  words, and so many 32-bit words of the range coder
"""

import hashlib
import struct
import zlib

import numpy as np

from codes.adaptive import cascade
from codes.compression import residual_loops
from codes.compression.residual_model import ResidualModel, load_residual_model
from codes.compression.residual_network import Network

__all__ = ["ResidualCodec", "ResidualModel", "load_residual_model"]

MAX_BITS = 32
MOST_SAVED_BITS = 4.0  # of a sample, by leaving out values that never occur


class ResidualCodec:
    """Codes blocks of one or two channels by a `residual_lm`; see `codes.compression.codec.BlockCodec`.

    Attributes:
        channel_bits: bits that each channel took in the last `encode`, a list.
    """

    name = "residual"
    profile = "exact"

    def __init__(self, model: ResidualModel) -> None:
        self.model = model
        self.channel_bits: list[float] = []
        residual_loops.build()

    def model_hash(self) -> bytes:
        """SHA-256 of the model file."""
        return self.model.digest

    def fingerprint(self) -> bytes:
        """16 bytes of a hash of what a fixed block is coded as: another arithmetic would show."""
        rng = np.random.default_rng(1)
        noise = rng.integers(-40, 40, (2, 200))
        tone = np.array([[(7 * t * (t % 50 - 25)) % 3001 - 1500 for t in range(200)]] * 2)
        data = self.encode((noise + tone).astype(np.int32), 16, 44100)
        return hashlib.sha256(data).digest()[:16]

    def encode(self, pcm: np.ndarray, bits: int, sample_rate_hz: int) -> bytes:
        """Code (C, T) int32 of 1 or 2 channels.

        Raises:
            ValueError: another number of channels, or of bits.
        """
        channels = len(pcm)
        if channels not in (1, 2):
            raise ValueError(f"the residual codec takes 1 or 2 channels at a time, got {channels}")
        if not 1 <= bits <= MAX_BITS:
            raise ValueError(f"the residual codec takes 1 to {MAX_BITS} bits, got {bits}")
        wide = pcm.astype(np.int64)
        shift = _common_zeros(wide)
        wide >>= shift
        head = struct.pack("<B", shift)
        plain = [_Range.whole(channel) for channel in wide]
        tables = [_Range.of(channel) for channel in wide]
        coded, self.channel_bits = self._code(wide, plain)
        if any(len(found.values) for found in tables):
            again, channel_bits = self._code(wide, tables)
            if len(again) < len(coded):
                coded, self.channel_bits = again, channel_bits
        return head + coded

    def _code(self, pcm: np.ndarray, ranges: list["_Range"]) -> tuple[bytes, list[float]]:
        """Ranges and words of (C, T) int64, and the bits that each channel took."""
        channels, frames = pcm.shape
        words = np.zeros(4 * channels * frames + 8, np.uint32)
        channel_bits = np.zeros(channels)
        numbers = np.stack([found.number(channel) for found, channel in zip(ranges, pcm, strict=True)])
        state, network = self._fresh(channels)
        lowest, counts, values, starts = _tables(ranges)
        options = self.model.adaptive
        size = residual_loops.encode_block(
            state, network, self.model.table, options.own_history, options.other_history, np.ascontiguousarray(pcm),
            numbers, lowest, counts, values, starts, words, channel_bits,
        )  # fmt: skip
        packed = b"".join(found.pack() for found in ranges)
        coded = packed + struct.pack("<I", size) + words[:size].astype("<u4").tobytes()
        return coded, [float(value) for value in channel_bits]

    def decode(self, data: bytes, num_channels: int, num_frames: int, bits: int, sample_rate_hz: int) -> np.ndarray:
        """What was coded: (num_channels, num_frames) int32.

        Raises:
            ValueError: the data is not such a block.
        """
        try:
            shift, ranges, place = _read_head(data, num_channels)
            (size,) = struct.unpack_from("<I", data, place)
        except (struct.error, zlib.error) as error:
            raise ValueError(f"a residual block's head is cut short or damaged: {error}") from error
        if len(data) != place + 4 + 4 * size:
            raise ValueError(f"a residual block says it has {4 * size} coded bytes, it has {len(data) - place - 4}")
        lowest, highest = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
        for found in ranges:
            if found.lowest << shift < lowest or found.highest << shift > highest:
                raise ValueError(f"a residual block holds values that {bits} bits cannot hold")
        words = np.frombuffer(data, "<u4", size, place + 4).astype(np.uint32)
        pcm = np.zeros((num_channels, num_frames), np.int64)
        state, network = self._fresh(num_channels)
        tables, options = _tables(ranges), self.model.adaptive
        if not residual_loops.decode_block(
            state, network, self.model.table, options.own_history, options.other_history, pcm, *tables, words
        ):
            raise ValueError("a residual block's words are no code of a block")
        return (pcm << shift).astype(np.int32)

    def _fresh(self, channels: int) -> tuple[cascade.State, Network]:
        return cascade.new_state(self.model.adaptive, channels), self.model.fresh_network()


class _Range:
    """Which values a channel of a block may have: all from lowest to highest, or those of a table."""

    def __init__(self, lowest: int, count: int, values: np.ndarray | None = None) -> None:
        self.lowest, self.count = lowest, count
        self.values = np.zeros(0, np.int64) if values is None else values
        self.highest = int(self.values[-1]) if len(self.values) else lowest + count - 1

    @classmethod
    def whole(cls, channel: np.ndarray) -> "_Range":
        """All values between the least and the greatest of (T,) int64."""
        lowest = int(channel.min())
        return cls(lowest, int(channel.max()) - lowest + 1)

    @classmethod
    def of(cls, channel: np.ndarray) -> "_Range":
        """Those values of (T,) int64 that occur, where that promises to save more than their table takes.

        A value then has the mass from midway to its neighbours, and saves the logarithm of that width.
        """
        values, counts = np.unique(channel, return_counts=True)
        if len(values) < 3 or len(values) == values[-1] - values[0] + 1:
            return cls.whole(channel)
        widths = (values[2:] - values[:-2]) / 2
        saved = float((counts[1:-1] * np.minimum(np.log2(widths), MOST_SAVED_BITS)).sum()) / 8
        if np.diff(values).max() > 1 << 16 or saved <= (table := cls(int(values[0]), len(values), values)).size():
            return cls.whole(channel)
        return table

    def number(self, channel: np.ndarray) -> np.ndarray:
        """The numbers of values (T,) int64."""
        return np.searchsorted(self.values, channel) if len(self.values) else channel - self.lowest

    def size(self) -> int:
        """Bytes in a block's head."""
        return len(self.pack())

    def pack(self) -> bytes:
        """As a block's head has it."""
        table = b""
        if len(self.values):
            steps = np.diff(self.values, prepend=self.lowest - 1) - 1
            packed = zlib.compress(steps.astype("<u2").tobytes(), 9)
            table = struct.pack("<I", len(packed)) + packed
        return struct.pack("<BiI", bool(len(self.values)), self.lowest, self.count - 1) + table


def _read_head(data: bytes, num_channels: int) -> tuple[int, list[_Range], int]:
    """Shift, ranges and where the words begin."""
    (shift,) = struct.unpack_from("<B", data)
    if shift > 31:
        raise ValueError(f"a residual block is shifted by {shift} bits")
    place = 1
    ranges = []
    for _ in range(num_channels):
        kind, lowest, count = struct.unpack_from("<BiI", data, place)
        place += 9
        values = None
        if kind > 1:
            raise ValueError(f"a residual block has a range of unknown kind {kind}")
        if kind == 1:
            (size,) = struct.unpack_from("<I", data, place)
            values = _read_table(data[place + 4 : place + 4 + size], lowest, count + 1)
            place += 4 + size
        ranges.append(_Range(lowest, count + 1, values))
    return shift, ranges, place


def _read_table(packed: bytes, lowest: int, count: int) -> np.ndarray:
    """The values that occur, (count,) int64; a table of another length is refused without being unpacked whole."""
    unpacker = zlib.decompressobj()
    steps = unpacker.decompress(packed, 2 * count + 1) if count < 1 << 24 else b""
    if len(steps) != 2 * count or not unpacker.eof or unpacker.unused_data:
        raise ValueError(f"a residual block's table has not the {count} values that it should")
    return lowest + np.cumsum(np.frombuffer(steps, "<u2").astype(np.int64) + 1) - 1


def _tables(ranges: list[_Range]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """lowest, counts, values, starts as `residual_loops` takes them."""
    starts = np.cumsum([0, *(len(found.values) for found in ranges)])
    return (
        np.array([found.lowest for found in ranges], np.int64),
        np.array([found.count for found in ranges], np.int64),
        np.concatenate([found.values for found in ranges]).astype(np.int64),
        starts.astype(np.int64),
    )


def _common_zeros(pcm: np.ndarray) -> int:
    """How many low bits are zero in all samples; 0 for silence."""
    joined = int(np.bitwise_or.reduce(pcm, axis=None))
    return (joined & -joined).bit_length() - 1 if joined else 0
