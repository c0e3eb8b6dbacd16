"""Damage to coded files: every wrong bit and every cut is found and named, and the blocks around it still decode."""

import re
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from codes.compression.codec import CodedFileError
from codes.compression.container import Header, read_header, with_crc
from codes.compression.container_packet import HEAD_BYTES, Packet
from codes.compression.container_reader import CodedFile
from codes.compression.container_writer import PcmForm, write_coded_file
from tests.compression.containers import no_model

BLOCK_FRAMES, RATE_HZ = 20, 10
METADATA = b"the original header"
PLACE = re.compile(r"in block (\d+) \((\d+\.\d\d) to (\d+\.\d\d) s(?:, channels? (\d)(?: and (\d))?)?\)")


@pytest.fixture(scope="module")
def pcm() -> np.ndarray:
    """Three channels, three blocks."""
    rng = np.random.default_rng(0)
    return rng.integers(-90, 90, (3, 2 * BLOCK_FRAMES + 7)).astype(np.int32)


@pytest.fixture(scope="module")
def data(pcm: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("damage") / "x.wsl"
    blocks = (pcm[:, first : first + BLOCK_FRAMES] for first in range(0, pcm.shape[1], BLOCK_FRAMES))
    form = PcmForm(sample_rate_hz=RATE_HZ, num_channels=3, bits=16)
    with open(path, "wb") as file:
        write_coded_file(file, blocks, form, block_frames=BLOCK_FRAMES, metadata=METADATA)
    return path.read_bytes()


def sections(data: bytes) -> Iterator[tuple[str, int, int]]:
    """Name, start and end of every part of the file; packets are named by their number."""
    header, start = read_header(data)
    yield "header", 0, start
    table_end = start + 4 * header.num_packets + 4
    sizes = struct.unpack_from(f"<{header.num_packets}I", data, start)
    yield "seek table", start, table_end
    place = table_end + header.metadata_bytes
    yield "metadata", table_end, place
    for number, size in enumerate(sizes):
        yield str(number), place, place + size
        place += size
    assert place == len(data)


def first_error(path: Path) -> str:
    with pytest.raises(CodedFileError) as error, CodedFile(path, no_model) as coded:
        list(coded.blocks())
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value)


def go_around(path: Path) -> tuple[np.ndarray, list[str], bytes | None]:
    with CodedFile(path, no_model, keep_going=True) as coded:
        return np.concatenate(list(coded.blocks()), 1), coded.damages, coded.metadata


def lost(pcm: np.ndarray, packet: int) -> tuple[np.ndarray, str]:
    """The samples without those of a packet, and the place as a message must name it."""
    block, group = divmod(packet, 2)
    end = min((block + 1) * BLOCK_FRAMES, pcm.shape[1])
    without = pcm.copy()
    without[2 * group : 2 * group + 2, block * BLOCK_FRAMES : end] = 0
    seconds = f"{block * BLOCK_FRAMES / RATE_HZ:.2f} to {end / RATE_HZ:.2f} s"
    return without, f"block {block} ({seconds}, " + ("channels 0 and 1)" if group == 0 else "channel 2)")


def test_every_wrong_bit_is_found_named_and_gone_around(pcm: np.ndarray, data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.wsl"
    for name, start, end in sections(data):
        for bit in range(8 * start, 8 * end):
            broken = bytearray(data)
            broken[bit // 8] ^= 1 << bit % 8
            path.write_bytes(broken)
            message = first_error(path)
            back, damages, metadata = go_around(path)
            if name.isdigit():
                wanted, place = lost(pcm, int(name))
                assert f"damaged in {place}" in message
                assert damages == [message]
                assert np.array_equal(back, wanted)
            else:
                assert {"header": "header", "metadata": "original header"}.get(name, name) in message
                assert len(damages) == 1
                assert "one wrong bit was mended" in damages[0]
                assert np.array_equal(back, pcm)
                assert metadata == METADATA


def test_every_cut_is_found_and_named(pcm: np.ndarray, data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.wsl"
    parts = list(sections(data))
    for size in range(len(data)):
        path.write_bytes(data[:size])
        name = next(name for name, _, end in parts if size < end)
        message = first_error(path)
        if name.isdigit():
            _, place = lost(pcm, int(name))
            assert f"truncated in {place}" in message
            back, damages, _ = go_around(path)
            for number in range(int(name), 6):
                assert any(f"truncated in {lost(pcm, number)[1]}" in damage for damage in damages)
            whole_frames = int(name) // 2 * BLOCK_FRAMES
            assert np.array_equal(back[:, :whole_frames], pcm[:, :whole_frames])
        else:
            assert "truncated" in message or size < 8
            with pytest.raises(CodedFileError):
                go_around(path)


def test_what_follows_the_end_is_found(pcm: np.ndarray, data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.wsl").write_bytes(data + b"more")
    assert "4 bytes follow behind its last block" in first_error(tmp_path / "x.wsl")
    back, damages, _ = go_around(tmp_path / "x.wsl")
    assert np.array_equal(back, pcm)
    assert len(damages) == 1


@pytest.mark.parametrize("change", ["lost", "inserted"])
def test_bytes_lost_or_inserted_cost_their_packet_only(
    pcm: np.ndarray, data: bytes, tmp_path: Path, change: str
) -> None:
    _, start, _ = next(part for part in sections(data) if part[0] == "2")
    at = start + HEAD_BYTES + 2
    broken = data[:at] + data[at + 3 :] if change == "lost" else data[:at] + b"\xb5W\xb5" + data[at:]
    (tmp_path / "x.wsl").write_bytes(broken)
    assert ("truncated" if change == "lost" else "3 bytes follow") in first_error(tmp_path / "x.wsl")
    back, damages, _ = go_around(tmp_path / "x.wsl")
    wanted, place = lost(pcm, 2)
    assert np.array_equal(back, wanted)
    assert f"damaged in {place}" in damages[-1]


def test_a_seek_table_beyond_mending_costs_nothing(pcm: np.ndarray, data: bytes, tmp_path: Path) -> None:
    broken = bytearray(data)
    _, start, end = list(sections(data))[1]
    broken[start:end] = bytes(end - start)
    (tmp_path / "x.wsl").write_bytes(broken)
    assert "damaged in its seek table" in first_error(tmp_path / "x.wsl")
    back, damages, _ = go_around(tmp_path / "x.wsl")
    assert np.array_equal(back, pcm)
    assert damages == [f"{tmp_path / 'x.wsl'}: damaged in its seek table"]


def test_a_header_beyond_mending_is_the_end(data: bytes, tmp_path: Path) -> None:
    broken = bytearray(data)
    broken[20:24] = b"\xff\x00\xff\x00"
    (tmp_path / "x.wsl").write_bytes(broken)
    assert "damaged in its header" in first_error(tmp_path / "x.wsl")
    with pytest.raises(CodedFileError, match="damaged in its header, beyond mending"):
        CodedFile(tmp_path / "x.wsl", no_model, keep_going=True)


def test_kept_headers_beyond_mending_are_named(pcm: np.ndarray, data: bytes, tmp_path: Path) -> None:
    broken = data.replace(METADATA, METADATA.swapcase())
    (tmp_path / "x.wsl").write_bytes(broken)
    assert "damaged in its part that keeps the original header" in first_error(tmp_path / "x.wsl")
    back, damages, metadata = go_around(tmp_path / "x.wsl")
    assert np.array_equal(back, pcm)
    assert metadata is None
    assert len(damages) == 1


def test_packets_that_changed_places_are_found(pcm: np.ndarray, data: bytes, tmp_path: Path) -> None:
    parts = {name: data[start:end] for name, start, end in sections(data)}
    parts["0"], parts["2"] = parts["2"], parts["0"]
    (tmp_path / "x.wsl").write_bytes(b"".join(parts.values()))
    assert "damaged in block 0" in first_error(tmp_path / "x.wsl")
    back, _, _ = go_around(tmp_path / "x.wsl")
    assert np.array_equal(back, pcm)


def test_another_files_block_is_noticed_by_the_md5(pcm: np.ndarray, data: bytes, tmp_path: Path) -> None:
    other = tmp_path / "other.wsl"
    form = PcmForm(sample_rate_hz=RATE_HZ, num_channels=3, bits=16)
    changed = pcm[:, ::-1]
    blocks = (changed[:, first : first + BLOCK_FRAMES] for first in range(0, pcm.shape[1], BLOCK_FRAMES))
    with open(other, "wb") as file:
        write_coded_file(file, blocks, form, block_frames=BLOCK_FRAMES, metadata=METADATA)
    foreign = other.read_bytes()
    head = next(end for name, _, end in sections(data) if name == "header")
    other.write_bytes(data[:head] + foreign[head:])
    with CodedFile(other, no_model) as coded, pytest.raises(CodedFileError, match="has not the MD5 that its header"):
        list(coded.blocks())


def test_a_payload_that_its_codec_cannot_read_is_named(tmp_path: Path) -> None:
    header = Header(sample_rate_hz=10, num_channels=1, bits=16, num_frames=9, block_frames=1000, md5=bytes(16))
    packet = Packet(0, 1, 3, b"\x0c\xff\xff").pack()
    (tmp_path / "x.wsl").write_bytes(header.pack() + with_crc(struct.pack("<I", len(packet))) + packet)
    message = first_error(tmp_path / "x.wsl")
    assert PLACE.search(message)
    assert "its linear prediction is not what an encoder writes" in message


@pytest.mark.parametrize("num_zero_bits", [16, 255])
def test_more_empty_bits_than_there_are_bits_are_refused(tmp_path: Path, num_zero_bits: int) -> None:
    header = Header(sample_rate_hz=10, num_channels=1, bits=16, num_frames=9, block_frames=1000, md5=bytes(16))
    packet = Packet(0, 0, num_zero_bits, bytes(18)).pack()
    (tmp_path / "x.wsl").write_bytes(header.pack() + with_crc(struct.pack("<I", len(packet))) + packet)
    assert "damaged in block 0" in first_error(tmp_path / "x.wsl")
