"""docs/wsl-format.md is enough: a decoder written from that page alone gives the same files as ours.

Nothing of the project is used to decode here. It is plain Python and slow.
"""

import hashlib
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from codes.compression.container_writer import PcmForm, write_coded_file
from codes.compression.wav_header import WavHeader, read_wav, usual_header
from tests.compression.test_container_wav import FILES

FIXED = {0: [], 1: [1], 2: [2, -1], 3: [3, -3, 1], 4: [4, -6, 4, -1]}


class Bits:
    def __init__(self, data: bytes) -> None:
        self.text = "".join(f"{octet:08b}" for octet in data)
        self.at = 0

    def unsigned(self, width: int) -> int:
        piece = self.text[self.at : self.at + width]
        assert len(piece) == width
        self.at += width
        return int(piece, 2) if width else 0

    def signed(self, width: int) -> int:
        value = self.unsigned(width)
        return value - (1 << width) if width and value >> (width - 1) else value

    def zeros(self) -> int:
        count = self.text.index("1", self.at) - self.at
        self.at += count + 1
        return count


def decode_file(data: bytes) -> bytes:
    """The original file of a coded one."""
    magic, version, layout, bits, num_entries, channels, rate, block, frames, md5, kept_bytes, model_bytes = (
        struct.unpack_from("<8sBBBBHIIQ16sIQ", data)
    )
    assert (magic, version, num_entries, model_bytes) == (b"\x89WSL\r\n\x1a\n", 1, 0, 0)
    assert zlib.crc32(data[:58]) == struct.unpack_from("<I", data, 58)[0]
    pairs = -(-channels // 2)
    num_packets = -(-frames // block) * pairs
    place = 62
    sizes = struct.unpack_from(f"<{num_packets}I", data, place)
    assert (
        zlib.crc32(data[place : place + 4 * num_packets]) == struct.unpack_from("<I", data, place + 4 * num_packets)[0]
    )
    place += 4 * num_packets + 4
    kept = data[place : place + kept_bytes]
    place += kept_bytes
    columns: list[list[int]] = [[] for _ in range(channels)]
    for number, size in enumerate(sizes):
        marker, k, codec, zero_bits, payload_bytes, crc = struct.unpack_from("<2sIBBII", data, place)
        payload = data[place + 16 : place + size]
        assert (marker, k, payload_bytes) == (b"\xb5W", number, len(payload))
        assert crc == zlib.crc32(data[place : place + 12] + payload)
        first = number // pairs * block
        here = list(range(number % pairs * 2, min(number % pairs * 2 + 2, channels)))
        count = min(block, frames - first)
        decoded = (raw if codec == 0 else linear)(payload, len(here), count, bits - zero_bits)
        for channel, values in zip(here, decoded, strict=True):
            columns[channel] += [value << zero_bits for value in values]
        place += size
    assert place == len(data)
    samples = [value for frame in zip(*columns, strict=True) for value in frame]
    sample_bytes = -(-bits // 8)
    assert hashlib.md5(b"".join(x.to_bytes(sample_bytes, "little", signed=True) for x in samples)).digest() == md5
    return around(layout, kept, samples, bits, channels, rate, frames)


def around(layout: int, kept: bytes, samples: list[int], bits: int, channels: int, rate: int, frames: int) -> bytes:
    if layout == 3:
        return bytes(value + 128 for value in samples)
    size, order, is_unsigned = -(-bits // 8), "little", bits <= 8
    if layout == 2:
        assert zlib.crc32(kept[:-4]) == struct.unpack("<I", kept[-4:])[0]
        size, flags, head_bytes, tail_bytes = struct.unpack_from("<BBQQ", kept)
        both = zlib.decompress(kept[18:-4])
        head, tail = both[:head_bytes], both[head_bytes:]
        assert len(tail) == tail_bytes
        order, is_unsigned = ("big" if flags & 1 else "little"), bool(flags & 2)
    else:
        data_bytes = frames * channels * size
        form = struct.pack("<HIIHH", channels, rate, rate * channels * size, channels * size, 8 * size)
        if bits % 8:
            guid = struct.pack("<IHH", 1, 0, 16) + bytes.fromhex("800000AA00389B71")
            form = struct.pack("<4sIH", b"fmt ", 40, 0xFFFE) + form + struct.pack("<HHI", 22, bits, 0) + guid
        else:
            form = struct.pack("<4sIH", b"fmt ", 16, 1) + form
        tail = bytes(data_bytes % 2)
        head = b"WAVE" + form + b"data" + struct.pack("<I", data_bytes)
        head = b"RIFF" + struct.pack("<I", len(head) + data_bytes + len(tail)) + head
    half = 1 << (8 * size - 1) if is_unsigned else 0
    words = [(value << (8 * size - bits)) + half for value in samples]
    return head + b"".join(word.to_bytes(size, order, signed=not is_unsigned) for word in words) + tail


def raw(payload: bytes, channels: int, count: int, bits: int) -> list[list[int]]:
    source = Bits(payload)
    flat = [source.signed(bits) for _ in range(count * channels)]
    return [flat[channel::channels] for channel in range(channels)]


def linear(payload: bytes, channels: int, count: int, bits: int) -> list[list[int]]:
    source = Bits(payload[1:])
    if payload[0] == 0x80:
        return [[source.signed(bits)] * count for _ in range(channels)]
    out: list[list[int]] = [[] for _ in range(channels)]
    for first in range(0, count, 1 << payload[0]):
        num = min(1 << payload[0], count - first)
        mode = source.unsigned(2) if channels == 2 else 0
        past = [sent(*frame, mode) for frame in zip(*out, strict=True)] if channels == 2 else [(x,) for x in out[0]]
        signals = []
        for channel in range(channels):
            is_side = (channel == 1 and mode in (1, 3)) or (channel == 0 and mode == 2)
            signals.append(stretch(source, [frame[channel] for frame in past], num, bits + is_side))
        for n in range(num):
            frame = received(signals[0][n], signals[1][n], mode) if channels == 2 else (signals[0][n],)
            for channel, value in enumerate(frame):
                out[channel].append(value)
    assert len(source.text) - source.at < 8
    assert "1" not in source.text[source.at :]
    return out


def sent(left: int, right: int, mode: int) -> tuple[int, int]:
    side, middle = left - right, (left + right) >> 1
    return [(left, right), (left, side), (side, right), (middle, side)][mode]


def received(one: int, two: int, mode: int) -> tuple[int, int]:
    if mode == 3:
        left = (2 * one + (two & 1) + two) >> 1
        return left, left - two
    return [(one, two), (one, one - two), (one + two, two)][mode]


def stretch(source: Bits, past: list[int], num: int, width: int) -> list[int]:
    kind = source.unsigned(2)
    if kind == 0:
        return [source.signed(width)] * num
    if kind == 1:
        return [source.signed(width) for _ in range(num)]
    if kind == 2:
        coefficients, shift = FIXED[source.unsigned(3)], 0
    else:
        order, shift, precision = source.unsigned(5) + 1, source.unsigned(4), source.unsigned(4)
        coefficients = [source.signed(precision) for _ in range(order)]
    residuals: list[int] = []
    length = -(-num // (1 << source.unsigned(4)))
    while len(residuals) < num:
        here = min(length, num - len(residuals))
        rice = source.unsigned(6)
        if rice == 63:
            escape = source.unsigned(6)
            residuals += [source.signed(escape) for _ in range(here)]
            continue
        for _ in range(here):
            folded = (source.zeros() << rice) | source.unsigned(rice)
            residuals.append(folded >> 1 if folded % 2 == 0 else -(folded + 1) // 2)
    signal = [0] * 32 + past
    for residual in residuals:
        predicted = sum(c * x for c, x in zip(coefficients, reversed(signal), strict=False))
        signal.append(residual + (predicted >> shift))
    return signal[-num:]


def encode(path: Path, data: bytes) -> bytes:
    """A WAV as a coded file, by the project's encoder."""
    with open(path, "w+b") as file:
        file.write(data)
        wav = read_wav(file)
        assert wav is not None
        layout = "usual" if wav.is_usual else "stored"
        form = PcmForm(sample_rate_hz=wav.sample_rate_hz, num_channels=wav.num_channels, bits=wav.bits, layout=layout)
        with open(path.with_suffix(".wsl"), "wb") as coded:
            metadata = b"" if wav.is_usual else wav.header.pack()
            write_coded_file(coded, wav.blocks(700), form, block_frames=700, metadata=metadata)
    return path.with_suffix(".wsl").read_bytes()


@pytest.mark.parametrize("name", FILES)
def test_odd_wav_files(tmp_path: Path, name: str) -> None:
    data, _ = FILES[name]
    assert decode_file(encode(tmp_path / "x.wav", data)) == data


@pytest.mark.parametrize("bits", [4, 8, 12, 16, 20, 24, 32])
@pytest.mark.parametrize("num_channels", [1, 2, 3])
@pytest.mark.parametrize("kind", ["music", "noise", "steps", "opposite"])
def test_audio(tmp_path: Path, kind: str, num_channels: int, bits: int) -> None:
    rng = np.random.default_rng(bits)
    half = 2 ** (bits - 1)
    time = np.arange(1500)
    if kind == "music":
        pcm = np.sin(time * rng.uniform(0.01, 0.3, (num_channels, 1))) * half / 2 + rng.normal(0, half / 300, 1500)
    elif kind == "noise":
        pcm = rng.integers(-half, half, (num_channels, 1500))
    elif kind == "steps":
        pcm = np.repeat(rng.integers(-half, half, (num_channels, 5)), 300, 1)
    else:
        pcm = np.sin(time * 0.05) * half * 0.9 * (1 - 2 * (np.arange(num_channels)[:, None] % 2)) + rng.normal(
            0, 1, 1500
        )
    pcm = np.clip(np.floor(pcm), -half, half - 1).astype(np.int32)
    header: WavHeader = usual_header(44100, num_channels, bits, 1500)
    data = header.head + header.samples.pack(pcm, bits) + header.tail
    assert decode_file(encode(tmp_path / "x.wav", data)) == data
