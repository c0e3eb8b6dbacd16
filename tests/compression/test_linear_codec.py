"""Linear prediction and raw samples: exact at every depth, near FLAC in size, safe whatever is read."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from codes.compression import baselines, linear_analysis, linear_kernels
from codes.compression.linear_codec import LinearCodec
from codes.compression.raw_codec import RawCodec, raw_bytes

RATE_HZ = 44_100


def music(num_channels: int, num_frames: int, bits: int, seed: int = 0) -> np.ndarray:
    """Decaying tones with a little noise, as (C, T) int32."""
    rng = np.random.default_rng(seed)
    time = np.arange(num_frames) / RATE_HZ
    tones = np.sin(2 * np.pi * time[:, None] * rng.uniform(80, 3000, 8)) * np.exp(-time[:, None] * rng.uniform(0, 9, 8))
    signal = tones @ rng.uniform(0.01, 0.1, (8, num_channels)) + rng.normal(0, 2e-3, (num_frames, num_channels))
    return np.round(signal.T * 2.0 ** (bits - 1)).astype(np.int32)


def coded(pcm: np.ndarray, bits: int) -> bytes:
    """What it is coded to, after decoding it."""
    data = LinearCodec().encode(pcm, bits, RATE_HZ)
    assert np.array_equal(LinearCodec().decode(data, *pcm.shape, bits, RATE_HZ), pcm)
    return data


@pytest.mark.parametrize("bits", [1, 2, 3, 8, 16, 24, 31, 32])
@pytest.mark.parametrize("num_channels", [1, 2])
@pytest.mark.parametrize("codec", [LinearCodec(), RawCodec()])
def test_noise_over_the_whole_range_comes_back(codec: LinearCodec | RawCodec, num_channels: int, bits: int) -> None:
    half = 1 << (bits - 1)
    pcm = np.random.default_rng(0).integers(-half, half, (num_channels, 5000)).astype(np.int32)
    data = codec.encode(pcm, bits, RATE_HZ)
    assert np.array_equal(codec.decode(data, num_channels, 5000, bits, RATE_HZ), pcm)
    assert len(data) <= raw_bytes(pcm.size, bits) + 8


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
@pytest.mark.parametrize("num_frames", [1, 2, 5, 31, 32, 33, 100, 4095, 4096, 4097, 9000])
def test_any_length_comes_back(num_frames: int, bits: int) -> None:
    coded(music(2, num_frames, bits), bits)
    coded(music(1, num_frames, bits), bits)


def test_the_worked_example_of_the_format_page() -> None:
    data = bytes.fromhex("0C 88 03 11 08 88 88")
    page = (Path(__file__).resolve().parents[2] / "docs" / "wsl-format.md").read_text()
    assert data.hex(" ").upper() in page
    assert LinearCodec().decode(data, 1, 8, 16, 44_100).tolist() == [[0, 2, 4, 7, 9, 11, 13, 15]]


@pytest.mark.parametrize("value", [0, 1, -(2**23), 2**23 - 1])
def test_one_value_takes_a_few_bytes(value: int) -> None:
    assert len(coded(np.full((2, 100_000), value, np.int32), 24)) == 7


def test_extremes_come_back() -> None:
    half = 1 << 31
    alternating = np.where(np.arange(9000) % 2, half - 1, -half).astype(np.int32)
    coded(np.stack([alternating, -1 - alternating]), 32)  # the difference has 33 bits
    square = np.where(np.arange(9000) // 700 % 2, half - 1, -half).astype(np.int32)
    coded(np.stack([square, square[::-1]]), 32)
    clicks = np.zeros((2, 9000), np.int32)
    clicks[0, 5000], clicks[1, 8191] = half - 1, -half
    assert len(coded(clicks, 32)) < 700


def test_stereo_is_used() -> None:
    pcm = music(1, 20_000, 16)
    same = np.concatenate([pcm, pcm])
    assert len(coded(same, 16)) < 1.01 * len(coded(pcm, 16)) + 20
    apart = music(2, 20_000, 16)
    assert len(coded(apart, 16)) <= len(coded(apart[:1], 16)) + len(coded(apart[1:], 16)) + 20


@pytest.mark.parametrize("bits", [16, 24])
@pytest.mark.parametrize("num_channels", [1, 2])
def test_size_is_below_libflacs(num_channels: int, bits: int) -> None:
    pcm = music(num_channels, 60_000, bits)
    flac = len(baselines.audio_frames(baselines.flac_streams(pcm, bits, RATE_HZ)[0]))
    assert len(coded(pcm, bits)) < flac


def test_bits_by_channel_add_up() -> None:
    codec = LinearCodec()
    data = codec.encode(music(2, 50_000, 16), 16, RATE_HZ)
    assert 0 <= 8 * len(data) - sum(codec.channel_bits) < 8 + 8 + 2 * 13


def test_more_than_two_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="linear prediction codes one or two channels, got 3"):
        LinearCodec().encode(np.zeros((3, 10), np.int32), 16, RATE_HZ)


def test_raw_samples_are_packed_highest_bit_first() -> None:
    pcm = np.array([[1, -1, 3], [0, 2, -4]], np.int32)
    data = RawCodec().encode(pcm, 3, RATE_HZ)
    assert data == bytes([0b001_000_11, 0b1_010_011_1, 0b00_000000])
    with pytest.raises(ValueError, match="6 samples of 3 bits do not fit 4 bytes"):
        RawCodec().decode(data + b"\0", 2, 3, 3, RATE_HZ)


def test_the_first_bytes_are_these() -> None:
    """A written-out example of docs/wsl-format.md: eight samples of one channel, predicted by the last one."""
    pcm = np.array([[0, 2, 4, 7, 9, 11, 13, 15]], np.int32)
    bits = []
    at = np.zeros(64, np.uint8)
    end = 0
    for value, width in [(12, 8), (2, 2), (1, 3), (0, 4), (1, 6)]:  # stretch 2^12; fixed, order 1; 1 partition, Rice 1
        end = linear_kernels.write_bits(at, end, value, width)
    for residual in [0, 2, 2, 3, 2, 2, 2, 2]:
        folded = 2 * residual
        bits += [0] * (folded >> 1) + [1, folded & 1]
    for bit in bits:
        end = linear_kernels.write_bits(at, end, bit, 1)
    data = at[: -(-end // 8)].tobytes()
    assert np.array_equal(LinearCodec().decode(data, 1, 8, 16, RATE_HZ), pcm)


@pytest.mark.parametrize("data", [b"", b"\x11", b"\x40\0\0", b"\xff\0\0", b"\x0c", b"\x80\0"])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"not a block of linear prediction|is not what an encoder writes"):
        LinearCodec().decode(data, 2, 100, 16, RATE_HZ)


def test_whatever_is_read_ends_well() -> None:
    """Random bytes and wrong bits decode to something in range, or are refused; nothing else."""
    rng = np.random.default_rng(0)
    sound = coded(music(2, 3000, 16), 16)
    outcomes = {"refused": 0, "decoded": 0}
    for trial in range(3000):
        data = bytearray(sound) if trial % 2 else bytearray(rng.bytes(rng.integers(1, 400)))
        data[0] = 12 if rng.random() < 0.9 else data[0]
        for _ in range(trial % 3):
            data[rng.integers(len(data))] = rng.integers(256)
        num_frames = int(rng.choice([1, 100, 3000]))
        try:
            pcm = LinearCodec().decode(bytes(data), 2, num_frames, 16, RATE_HZ)
        except ValueError:
            outcomes["refused"] += 1
        else:
            outcomes["decoded"] += 1
            assert pcm.shape == (2, num_frames)
            assert pcm.min() >= -(2**15)
            assert pcm.max() < 2**15
    assert outcomes["refused"] > 1000
    assert outcomes["decoded"] > 10


def test_compiled_code_computes_what_plain_code_does(tmp_path: Path) -> None:
    """The kernels are plain Python as they stand; what they make without numba is what they make with it."""
    pcm = music(2, 300, 16)
    np.save(tmp_path / "pcm.npy", pcm)
    program = f"""
import json, numpy as np
from codes.compression import linear_analysis, linear_kernels
pcm = np.load({str(tmp_path / "pcm.npy")!r}).astype(np.int64, order='C')
data = np.zeros(4000, np.uint8)
end = linear_analysis.encode(data, 8, pcm, 64, 16, np.zeros(2))
back = np.zeros_like(pcm)
assert linear_kernels.decode(data, 8, back, 64, 16) == end
assert (back == pcm).all()
print(json.dumps([int(end), data.tolist()]))
"""
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    end, data = json.loads(result.stdout)
    coded(pcm, 16)  # compiles
    assert callable(getattr(linear_kernels.decode, "py_func", None))
    back = np.zeros(pcm.shape, np.int64)
    assert linear_kernels.decode(np.array(data, np.uint8), 8, back, 64, 16) == end
    assert np.array_equal(back, pcm)
    compiled = np.zeros(4000, np.uint8)
    compiled_end = linear_analysis.encode(compiled, 8, np.ascontiguousarray(pcm, np.int64), 64, 16, np.zeros(2))
    assert abs(compiled_end - end) <= 0.01 * end  # floats choose, and their sums are in another order
