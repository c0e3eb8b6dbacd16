"""Coded files: every form of samples comes back, the header says what it is, blocks fall back, models are checked."""

import hashlib
import io
import signal as signals
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from codes.compression.codec import BlockCodec, CodedFileError, ModelError
from codes.compression.container import CodecEntry, Header, mended, read_header, with_crc
from codes.compression.container_packet import Packet, read_packet
from codes.compression.container_reader import CodedFile
from codes.compression.container_writer import PcmForm, Report, block_frames_for, write_coded_file
from codes.compression.linear_codec import LinearCodec
from codes.compression.ordered_work import in_order
from codes.compression.pcm_bytes import md5_bytes
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

    def model_hash(self) -> bytes:
        return self._hash

    def fingerprint(self) -> bytes:
        return self._fingerprint

    def encode(self, pcm: np.ndarray, bits: int, sample_rate_hz: int) -> bytes:
        if self.too_long:
            return bytes(pcm.nbytes)
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


def test_the_smallest_codec_is_taken_block_by_block(tmp_path: Path) -> None:
    pcm = np.concatenate([repetitive(1000), signal(2, 1000, 16), np.zeros((2, 500), np.int32)], 1)
    report = write(tmp_path / "x.wsl", pcm, 16, codecs=[Shift()])
    assert report.packets_by_codec == {"residual": 1, "linear": 2}
    with CodedFile(tmp_path / "x.wsl", lambda entry, embedded: Shift()) as coded:
        assert np.array_equal(np.concatenate(list(coded.blocks()), 1), pcm)
        assert coded.packets_by_codec == {"residual": 1, "linear": 2}
        assert coded.header.codecs == (
            CodecEntry(name="residual", profile="fast", model_hash=HASH[:16], fingerprint=b"F" * 8),
        )


def test_a_codec_that_is_not_used_is_not_needed(tmp_path: Path) -> None:
    codec = Shift()
    codec.too_long = True
    pcm = repetitive()
    write(tmp_path / "x.wsl", pcm, 16, codecs=[codec], model=b"a model")
    assert np.array_equal(read(tmp_path / "x.wsl"), pcm)


def test_a_codec_that_does_not_give_back_the_samples_is_not_taken(tmp_path: Path) -> None:
    codec = Shift()
    codec.wrong = True
    pcm = repetitive()
    report = write(tmp_path / "x.wsl", pcm, 16, codecs=[codec])
    assert report.refused == ["packet 0: residual", "packet 1: residual", "packet 2: residual"]
    assert np.array_equal(read(tmp_path / "x.wsl"), pcm)
    write(tmp_path / "y.wsl", pcm, 16, codecs=[codec], verify=False)
    with (
        CodedFile(tmp_path / "y.wsl", lambda entry, embedded: codec) as coded,
        pytest.raises(CodedFileError, match=r"what it decodes to has not the MD5|samples are not"),
    ):
        list(coded.blocks())


@pytest.mark.parametrize("profile", ["exact", "fast"])
def test_threads_make_no_difference(tmp_path: Path, profile: str) -> None:
    pcm = np.concatenate([signal(3, 5500, 16), np.tile(repetitive(4000)[:1], (3, 1)), signal(3, 100, 16)], 1)
    codec = Shift(profile)
    one = write(tmp_path / "one.wsl", pcm, 16, block_frames=500, codecs=[codec])
    many = write(tmp_path / "many.wsl", pcm, 16, block_frames=500, codecs=[codec], workers=4)
    assert (tmp_path / "one.wsl").read_bytes() == (tmp_path / "many.wsl").read_bytes()
    assert one.packets_by_codec == many.packets_by_codec
    assert np.array_equal(one.channel_bits, many.channel_bits)
    with CodedFile(tmp_path / "many.wsl", lambda entry, embedded: codec) as coded:
        assert np.array_equal(np.concatenate(list(coded.blocks(workers=4)), 1), pcm)
        assert coded.packets_by_codec == one.packets_by_codec
        assert np.array_equal(np.concatenate(list(coded.blocks(3, workers=3)), 1), pcm[:, 1500:])
    data = bytearray((tmp_path / "many.wsl").read_bytes())
    data[-20] ^= 1
    (tmp_path / "many.wsl").write_bytes(data)
    with CodedFile(tmp_path / "many.wsl", lambda entry, embedded: codec) as coded:
        blocks = coded.blocks(workers=4)
        for number in range(19):
            assert np.array_equal(next(blocks), pcm[:, 500 * number : 500 * number + 500])
        with pytest.raises(CodedFileError, match="damaged in block 19"):
            next(blocks)


def test_work_in_order_takes_no_more_than_it_must() -> None:
    taken = []

    def things() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    made = in_order(lambda number: number * number, things(), 4)
    assert [next(made) for _ in range(10)] == [number * number for number in range(10)]
    assert len(taken) <= 10 + 4
    assert list(made) == [number * number for number in range(10, 100)]
    assert list(in_order(str, [], 4)) == []

    def fail(number: int) -> int:
        if number == 5:
            raise ValueError("five")
        return number

    made = in_order(fail, range(100), 3)
    assert [next(made) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="five"):
        next(made)


class OneByteLess(Shift):
    """A codec that is not worth its entry in the header."""

    def encode(self, pcm: np.ndarray, bits: int, sample_rate_hz: int) -> bytes:
        return LinearCodec().encode(pcm, bits, sample_rate_hz)[:-1]


def test_a_model_must_save_what_it_takes_in_the_header() -> None:
    form = PcmForm(sample_rate_hz=8000, num_channels=2, bits=16)
    sizes = []
    for codecs in ([], [OneByteLess()]):
        report = write_coded_file(
            io.BytesIO(), [signal(2, 500, 16)], form, block_frames=500, codecs=codecs, verify=False
        )
        sizes.append(report.num_bytes)
        assert report.codecs == ()
    assert sizes[0] == sizes[1]


def test_ctrl_c_does_not_wait_for_work_under_way() -> None:
    endless = threading.Event()  # as compiled code, which does not look up
    before = signals.signal(signals.SIGINT, signals.default_int_handler)  # in the background it is ignored
    timer = threading.Timer(0.05, signals.pthread_kill, [threading.main_thread().ident, signals.SIGINT])
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            next(in_order(lambda _: endless.wait(), [0], 1))
    finally:
        timer.join()
        signals.signal(signals.SIGINT, before)
        endless.set()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Shift(model_hash=b"\1" + bytes(31)), "was coded with the model [0-9a-f]{32}, not 01(00){15}"),
        (Shift(profile="exact"), "was coded in the numerics profile 'fast', not 'exact'"),
        (Shift(fingerprint=b"G" * 16), "was coded with other arithmetic: the fingerprint of this machine's software"),
    ],
)
def test_another_model_profile_or_arithmetic_is_refused(tmp_path: Path, other: Shift, message: str) -> None:
    write(tmp_path / "x.wsl", repetitive(), 16, codecs=[Shift()])
    with (
        CodedFile(tmp_path / "x.wsl", lambda entry, embedded: other) as coded,
        pytest.raises(ModelError, match=message),
    ):
        list(coded.blocks())
    with (
        CodedFile(tmp_path / "x.wsl", lambda entry, embedded: other, keep_going=True) as coded,
        pytest.raises(ModelError, match=message),
    ):
        list(coded.blocks())


def test_the_model_can_be_embedded(tmp_path: Path) -> None:
    write(tmp_path / "x.wsl", repetitive(), 16, codecs=[Shift()], model=b"a model")
    found = []

    def resolve(entry: CodecEntry, embedded: bytes) -> BlockCodec:
        found.append(embedded)
        return Shift()

    with CodedFile(tmp_path / "x.wsl", resolve) as coded:
        list(coded.blocks())
        assert found == [b"a model"]
    data = bytearray((tmp_path / "x.wsl").read_bytes())
    data[data.index(b"a model")] ^= 1
    (tmp_path / "x.wsl").write_bytes(data)
    with pytest.raises(CodedFileError, match="damaged in its embedded model"):
        CodedFile(tmp_path / "x.wsl", resolve)
    with CodedFile(tmp_path / "x.wsl", resolve, keep_going=True) as coded:
        list(coded.blocks())
        assert found == [b"a model", b""]


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
