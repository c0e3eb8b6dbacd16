"""Coded files: every form of samples comes back, and the header says what it is."""

import hashlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from codes.compression.container import mended, with_crc
from codes.compression.container_packet import Packet, read_packet
from codes.compression.container_reader import CodedFile
from codes.compression.container_writer import PcmForm, block_frames_for, write_coded_file
from codes.compression.pcm_bytes import md5_bytes
from tests.compression.containers import no_model, read, signal, write


@pytest.mark.parametrize("bits", [1, 2, 7, 8, 12, 16, 20, 24, 31, 32])
@pytest.mark.parametrize("num_channels", [1, 2, 3])
def test_every_depth_comes_back(tmp_path: Path, bits: int, num_channels: int) -> None:
    pcm = signal(num_channels, 2100, bits)
    report = write(tmp_path / "x.wsl", pcm, bits)
    assert np.array_equal(read(tmp_path / "x.wsl"), pcm)
    assert report.num_bytes == (tmp_path / "x.wsl").stat().st_size
    assert report.num_frames == 2100


@pytest.mark.parametrize("num_frames", [0, 1, 2, 31, 33, 999, 1000, 1001, 3000])
def test_every_length_comes_back(tmp_path: Path, num_frames: int) -> None:
    pcm = signal(2, num_frames, 16)
    write(tmp_path / "x.wsl", pcm, 16)
    assert np.array_equal(read(tmp_path / "x.wsl"), pcm)


@pytest.mark.parametrize("num_channels", [4, 5, 8, 33])
def test_many_channels_are_pairs_and_a_single(tmp_path: Path, num_channels: int) -> None:
    pcm = signal(num_channels, 300, 16)
    report = write(tmp_path / "x.wsl", pcm, 16)
    assert np.array_equal(read(tmp_path / "x.wsl"), pcm)
    assert len(report.packet_bytes) == -(-num_channels // 2)
    assert (report.channel_bits > 0).all()


def test_noise_grows_by_its_header_only(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pcm = rng.integers(-(2**15), 2**15, (2, 4000)).astype(np.int32)
    report = write(tmp_path / "x.wsl", pcm, 16, block_frames=4000)
    assert report.packets_by_codec == {"raw": 1}
    assert report.num_bytes == pcm.size * 2 + 62 + 8 + 16  # header, seek table, head of the packet
    assert np.array_equal(read(tmp_path / "x.wsl"), pcm)


def test_silence_is_a_few_bytes(tmp_path: Path) -> None:
    report = write(tmp_path / "x.wsl", np.zeros((2, 100_000), np.int32), 24, block_frames=100_000)
    assert report.packet_bytes[0] <= 16 + 7
    assert not read(tmp_path / "x.wsl").any()


def test_empty_low_bits_cost_nothing(tmp_path: Path) -> None:
    pcm = signal(2, 2000, 16)
    narrow = write(tmp_path / "narrow.wsl", pcm, 16)
    wide = write(tmp_path / "wide.wsl", pcm << 8, 24)
    assert narrow.num_bytes == wide.num_bytes
    assert np.array_equal(read(tmp_path / "wide.wsl"), pcm << 8)


def test_md5_is_that_of_flac(tmp_path: Path) -> None:
    import soundfile

    pcm = signal(2, 1000, 16)
    write(tmp_path / "x.wsl", pcm, 16)
    soundfile.write(tmp_path / "x.flac", pcm.T.astype(np.int16), 8000, subtype="PCM_16")
    stream_info = (tmp_path / "x.flac").read_bytes()[8:42]
    with CodedFile(tmp_path / "x.wsl", no_model) as coded:
        assert coded.header.md5 == stream_info[18:34]


def test_header_says_what_the_file_holds(tmp_path: Path) -> None:
    write(tmp_path / "x.wsl", signal(3, 2500, 24), 24, metadata=b"kept")
    with CodedFile(tmp_path / "x.wsl", no_model) as coded:
        header = coded.header
        assert (header.sample_rate_hz, header.num_channels, header.bits, header.num_frames) == (8000, 3, 24, 2500)
        assert (header.num_blocks, header.num_packets, header.frames_of(2)) == (3, 6, 500)
        assert header.place(5) == "block 2 (0.25 to 0.31 s, channel 2)"
        assert header.place(4) == "block 2 (0.25 to 0.31 s, channels 0 and 1)"
        assert header.codecs == ()
        assert coded.metadata == b"kept"


def test_the_bytes_of_a_file_are_these() -> None:
    form = PcmForm(sample_rate_hz=8000, num_channels=1, bits=8)
    file = io.BytesIO()
    pcm = np.array([[1, -1, 127]], np.int32)
    write_coded_file(file, [pcm], form, block_frames=10)
    head = struct.pack("<8sBBBBHIIQ16sIQ", b"\x89WSL\r\n\x1a\n", 1, 0, 8, 0, 1, 8000, 10, 3,
                       hashlib.md5(b"\x01\xff\x7f").digest(), 0, 0)  # fmt: skip
    packet = struct.pack("<2sIBBI", b"\xb5W", 0, 0, 0, 3)
    packet += struct.pack("<I", zlib.crc32(packet + b"\x01\xff\x7f")) + b"\x01\xff\x7f"
    table = struct.pack("<I", len(packet))
    crcs = [struct.pack("<I", zlib.crc32(part)) for part in (head, table)]
    assert file.getvalue() == head + crcs[0] + table + crcs[1] + packet


def test_blocks_that_do_not_fit_are_refused() -> None:
    form = PcmForm(sample_rate_hz=8000, num_channels=2, bits=16)
    with pytest.raises(ValueError, match=r"block 0 has shape \(1, 10\), not \(2, 10\)"):
        write_coded_file(io.BytesIO(), [np.zeros((1, 10), np.int32)], form, block_frames=10)
    blocks = [np.zeros((2, 5), np.int32), np.zeros((2, 10), np.int32)]
    with pytest.raises(ValueError, match="block 0 is not the last, and shorter than 10 frames"):
        write_coded_file(io.BytesIO(), blocks, form, block_frames=10)


def test_blocks_are_as_long_as_a_decoder_can_hold() -> None:
    assert block_frames_for(20, PcmForm(sample_rate_hz=44100, num_channels=2, bits=16)) == 882_000
    assert block_frames_for(20, PcmForm(sample_rate_hz=44100, num_channels=65535, bits=16)) == 256
    assert block_frames_for(0.0001, PcmForm(sample_rate_hz=100, num_channels=1, bits=16)) == 1


def test_packets_and_mending() -> None:
    packet = Packet(3, 1, 4, b"payload")
    data = packet.pack()
    assert read_packet(data) == packet
    assert all(read_packet(data[:n]) is None for n in range(len(data)))
    sealed = with_crc(b"some bytes")
    broken = bytearray(sealed)
    broken[3] ^= 8
    assert mended(bytes(broken)) == sealed
    broken[5] ^= 3
    assert mended(bytes(broken)) is None


def test_md5_bytes_are_whole_and_little_endian() -> None:
    assert md5_bytes(np.array([[1, -1], [2, -2]], np.int32), 20) == bytes.fromhex("010000 020000 ffffff feffff")
