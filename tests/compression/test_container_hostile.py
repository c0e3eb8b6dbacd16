"""Coded files of other versions, other files, and headers made to do harm: refused, with nothing allocated."""

import struct
from pathlib import Path

import pytest

from codes.compression.codec import CodedFileError
from codes.compression.container import Header, read_header, with_crc
from codes.compression.container_packet import Packet
from codes.compression.container_reader import CodedFile
from tests.compression.containers import no_model, signal, write


def test_a_later_version_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "x.wsl", signal(1, 100, 16), 16)
    data = bytearray((tmp_path / "x.wsl").read_bytes())
    data[8] = 2
    (tmp_path / "x.wsl").write_bytes(data)
    with pytest.raises(CodedFileError, match="is of version 2, this program reads version 1"):
        CodedFile(tmp_path / "x.wsl", no_model)


@pytest.mark.parametrize("data", [b"", b"\x89WS", b"RIFF" + bytes(100)])
def test_other_files_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.wsl").write_bytes(data)
    for keep_going in (False, True):
        with pytest.raises(CodedFileError, match=r"x\.wsl: not a coded file, or damaged in its header: it begins with"):
            CodedFile(tmp_path / "x.wsl", no_model, keep_going=keep_going)


HOSTILE = {
    "frames": ({"num_frames": 1 << 48}, "packets need"),
    "many frames": ({"num_frames": 1 << 60}, f"impossible header: {1 << 60} frames"),
    "block": ({"block_frames": (1 << 32) - 1}, "impossible header: blocks of 4294967295 frames of 1 channels"),
    "no block": ({"block_frames": 0}, "impossible header: blocks of 0 frames"),
    "channels": ({"num_channels": 65535}, "impossible header: blocks of"),
    "no channels": ({"num_channels": 0}, "impossible header: 0 channels of 16 bits"),
    "bits": ({"bits": 33}, "impossible header: 1 channels of 33 bits"),
    "rate": ({"sample_rate_hz": 0}, "impossible header: 1 channels of 16 bits at 0 Hz"),
    "metadata": ({"metadata_bytes": (1 << 32) - 1}, "truncated before its first block, or its header is wrong"),
    "model": ({"model_bytes": (1 << 64) - 1}, "truncated before its first block, or its header is wrong"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_header_allocates_nothing(tmp_path: Path, name: str) -> None:
    import tracemalloc

    changes, message = HOSTILE[name]
    sound = {"sample_rate_hz": 8000, "num_channels": 1, "bits": 16, "num_frames": 9, "block_frames": 1000}
    header = Header(**{**sound, "md5": bytes(16), **changes})
    (tmp_path / "x.wsl").write_bytes(header.pack() + with_crc(bytes(4)) + bytes(1000))
    tracemalloc.start()
    try:
        for keep_going in (False, True):
            with pytest.raises(CodedFileError, match=message):
                CodedFile(tmp_path / "x.wsl", no_model, keep_going=keep_going)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_packet_that_says_to_be_large_allocates_nothing(tmp_path: Path) -> None:
    header = Header(sample_rate_hz=8000, num_channels=1, bits=16, num_frames=9, block_frames=1000, md5=bytes(16))
    table = with_crc(struct.pack("<I", 0xFFFFFFFF))
    (tmp_path / "x.wsl").write_bytes(header.pack() + table + struct.pack("<2sIBBII", b"\xb5W", 0, 0, 0, 2**32 - 1, 0))
    with pytest.raises(CodedFileError, match=r"truncated in block 0 \(0\.00 to 0\.00 s\)"):
        CodedFile(tmp_path / "x.wsl", no_model)
    with CodedFile(tmp_path / "x.wsl", no_model, keep_going=True) as coded:
        assert not coded.block(0).any()


def test_unknown_codecs_are_refused(tmp_path: Path) -> None:
    header = Header(sample_rate_hz=8000, num_channels=1, bits=16, num_frames=9, block_frames=1000, md5=bytes(16))
    packet = Packet(0, 7, 0, b"x").pack()
    (tmp_path / "x.wsl").write_bytes(header.pack() + with_crc(struct.pack("<I", len(packet))) + packet)
    with (
        CodedFile(tmp_path / "x.wsl", no_model) as coded,
        pytest.raises(CodedFileError, match=r"block 0 \(0\.00 to 0\.00 s\): its codec 7 is not in the header's list"),
    ):
        list(coded.blocks())
    data = bytearray(header.pack()[:-4])
    data[11] = 1
    with pytest.raises(CodedFileError, match="needs an unknown codec 9 in profile 0"):
        read_header(with_crc(bytes(data) + b"\x09\x00"))
