"""WAV headers: samples are read as the audio reader reads them, and everything around them is kept byte for byte."""

import io
import struct
import wave
from pathlib import Path

import numpy as np
import pytest

from codes.compression.codec import CodedFileError
from codes.compression.pcm_bytes import SampleBytes
from codes.compression.wav_header import FullPaddingError, NotPcmWavError, WavHeader, read_wav, usual_header
from codes.data.audio.reader import AudioFile

GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")


def chunk(name: bytes, content: bytes, order: str = "<") -> bytes:
    return name + struct.pack(f"{order}I", len(content)) + content + bytes(len(content) % 2)


def riff(*chunks: bytes, name: bytes = b"RIFF", order: str = "<") -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return name + struct.pack(f"{order}I", len(body)) + body


def form(channels: int, bits: int, sample_bytes: int, *, tag: int = 1, rate: int = 8000, order: str = "<") -> bytes:
    frame = channels * sample_bytes
    return chunk(b"fmt ", struct.pack(f"{order}HHIIHH", tag, channels, rate, rate * frame, frame, bits), order)


def extensible(channels: int, bits: int, sample_bytes: int, tag: int = 1) -> bytes:
    frame = channels * sample_bytes
    head = struct.pack("<HHIIHHHHIH", 0xFFFE, channels, 8000, 8000 * frame, frame, 8 * sample_bytes, 22, bits, 0, tag)
    return chunk(b"fmt ", head + GUID_TAIL)


DATA = bytes(range(1, 13))
PADDED_20 = bytes.fromhex("f0ffff 100000 e0ff7f 000080")

# name -> (bytes of the file, (channels, frames, bits) that are read)
FILES = {
    "usual": (riff(form(2, 16, 2), chunk(b"data", DATA)), (2, 3, 16)),
    "tags before and after": (
        riff(chunk(b"LIST", b"INFOISFT\5\0\0\0ours\0\0"), form(1, 16, 2), chunk(b"cue ", b"odd"), chunk(b"data", DATA),
             chunk(b"id3 ", b"tags!")),
        (1, 6, 16),
    ),
    "odd data without padding": (riff(form(1, 8, 1), b"data" + struct.pack("<I", 5) + DATA[:5]), (1, 5, 8)),
    "odd data with padding that is not zero": (
        riff(form(1, 8, 1), b"data" + struct.pack("<I", 5) + DATA[:5] + b"\x7f"), (1, 5, 8),
    ),
    "no frame": (riff(form(2, 16, 2), chunk(b"data", b"")), (2, 0, 16)),
    "no frame and a tag": (riff(form(2, 16, 2), chunk(b"data", b""), chunk(b"note", b"x")), (2, 0, 16)),
    "a part of a frame": (riff(form(2, 16, 2), chunk(b"data", DATA[:11])), (2, 2, 16)),
    "unknown length": (
        riff(form(2, 16, 2)) + b"data" + b"\xff" * 4 + DATA, (2, 3, 16),
    ),
    "length of zero that was not filled in": (riff(form(2, 16, 2)) + b"data" + bytes(4) + DATA, (2, 3, 16)),
    "shorter than it says": (riff(form(2, 16, 2), b"data" + struct.pack("<I", 99) + DATA), (2, 3, 16)),
    "garbage behind": (riff(form(2, 16, 2), chunk(b"data", DATA)) + b"\0garbage\xff" * 3, (2, 3, 16)),
    "24 bits": (riff(form(2, 24, 3), chunk(b"data", DATA)), (2, 2, 24)),
    "32 bits": (riff(form(1, 32, 4), chunk(b"data", DATA)), (1, 3, 32)),
    "20 in 24": (riff(extensible(1, 20, 3), chunk(b"data", PADDED_20)), (1, 4, 20)),
    "20 in 24 without extensible": (riff(form(1, 20, 3), chunk(b"data", PADDED_20)), (1, 4, 20)),
    "24 in 32": (riff(extensible(1, 24, 4), chunk(b"data", b"\0\1\2\3\0\xff\xff\xff")), (1, 2, 24)),
    "1 in 8": (riff(extensible(1, 1, 1), chunk(b"data", b"\x80\0\0\x80\x80")), (1, 5, 1)),
    "samples before their format": (riff(chunk(b"data", DATA), form(2, 16, 2)), (2, 3, 16)),
    "RIFX": (riff(form(2, 16, 2, order=">"), chunk(b"data", DATA, ">"), name=b"RIFX", order=">"), (2, 3, 16)),
    "RF64": (
        riff(chunk(b"ds64", struct.pack("<QQQI", 100, 12, 3, 0)), form(2, 16, 2), b"data" + b"\xff" * 4 + DATA,
             chunk(b"LIST", b"behind"), name=b"RF64"),
        (2, 3, 16),
    ),
}  # fmt: skip


def read(data: bytes, **options: bool) -> tuple[np.ndarray, WavHeader, int]:
    wav = read_wav(io.BytesIO(data), **options)
    assert wav is not None
    blocks = list(wav.blocks(2))
    return np.concatenate([np.zeros((wav.num_channels, 0), np.int32), *blocks], 1), wav.header, wav.bits


@pytest.mark.parametrize("name", FILES)
def test_every_byte_comes_back(name: str) -> None:
    data, (num_channels, num_frames, bits) = FILES[name]
    pcm, header, found_bits = read(data)
    assert (*pcm.shape, found_bits) == (num_channels, num_frames, bits)
    kept = WavHeader.unpack(header.pack())
    assert kept == header
    assert kept.head + kept.samples.pack(pcm, bits) + kept.tail == data


REFUSED_BY_THE_READER = (
    "no frame",
    "no frame and a tag",
    "length of zero that was not filled in",
    "shorter than it says",
    "garbage behind",
    "a part of a frame",
    "odd data without padding",
    "odd data with padding that is not zero",
)


@pytest.mark.parametrize("name", sorted(FILES.keys() - {*REFUSED_BY_THE_READER}))
def test_samples_are_those_of_the_audio_reader(name: str, tmp_path: Path) -> None:
    data, _ = FILES[name]
    (tmp_path / "x.wav").write_bytes(data)
    with AudioFile(tmp_path / "x.wav") as audio:
        assert np.array_equal(audio.read(), read(data)[0])
        assert audio.info.bits == read(data)[2]


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
@pytest.mark.parametrize("num_channels", [1, 2, 3])
@pytest.mark.parametrize("num_frames", [0, 1, 5])
def test_the_usual_header_is_that_of_the_standard_library(bits: int, num_channels: int, num_frames: int) -> None:
    file = io.BytesIO()
    samples = np.random.default_rng(0).integers(0, 256, num_frames * num_channels * bits // 8).astype(np.uint8)
    with wave.open(file, "wb") as out:
        out.setnchannels(num_channels)
        out.setsampwidth(bits // 8)
        out.setframerate(44100)
        out.writeframes(samples.tobytes())
    padding = bytes(len(samples) % 2)  # which wave leaves out
    header = usual_header(44100, num_channels, bits, num_frames)
    wanted = bytearray(file.getvalue() + padding)
    wanted[4:8] = struct.pack("<I", len(wanted) - 8)
    assert header.head + samples.tobytes() + header.tail == bytes(wanted)
    wav = read_wav(io.BytesIO(bytes(wanted)))
    assert wav is not None
    assert wav.is_usual


def test_the_usual_header_tells_odd_depths(tmp_path: Path) -> None:
    header = usual_header(8000, 2, 20, 3)
    pcm = np.array([[1, -2, 3], [-(2**19), 2**19 - 1, 0]], np.int32)
    (tmp_path / "x.wav").write_bytes(header.head + header.samples.pack(pcm, 20) + header.tail)
    with AudioFile(tmp_path / "x.wav") as audio:
        assert audio.info.bits == 20
        assert np.array_equal(audio.read(), pcm)


def test_the_usual_header_of_more_than_4_gib_is_rf64() -> None:
    num_frames = 2**30 + 1
    head = usual_header(44100, 2, 16, num_frames).head
    assert head[:4] == b"RF64"
    sizes = struct.unpack_from("<QQQ", head, 20)
    assert sizes == (len(head) - 8 + 4 * num_frames, 4 * num_frames, num_frames)
    assert head[-8:] == b"data\xff\xff\xff\xff"
    assert usual_header(44100, 2, 16, (2**32 - 38) // 4).head[:4] == b"RIFF"


def test_bits_that_should_be_empty_and_are_not_are_part_of_the_samples() -> None:
    data = riff(extensible(1, 20, 3), chunk(b"data", DATA))
    with pytest.raises(FullPaddingError, match="its samples have more than the 20 bits that its header gives"):
        read(data)
    pcm, header, bits = read(data, whole_container=True)
    assert bits == 24
    assert header.head + header.samples.pack(pcm, bits) + header.tail == data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (riff(form(1, 32, 4, tag=3), chunk(b"data", DATA)), "its samples are floating point, not integers"),
        (riff(extensible(1, 32, 4, tag=3), chunk(b"data", DATA)), "its samples are floating point, not integers"),
        (riff(form(1, 8, 1, tag=7), chunk(b"data", DATA)), "its samples are mu-law, not integers"),
        (riff(form(1, 4, 1, tag=99), chunk(b"data", DATA)), "its samples are in the format 99, not integers"),
        (riff(form(1, 64, 8), chunk(b"data", DATA)), "a sample must have 1 to 4 bytes"),
        (riff(form(0, 16, 2), chunk(b"data", DATA)), "its header gives 0 channels"),
        (riff(form(1, 16, 2, rate=0), chunk(b"data", DATA)), "its header gives 1 channels at 0 Hz"),
        (riff(form(1, 24, 2), chunk(b"data", DATA)), "its header gives samples of 24 bits in 2 bytes"),
        (riff(chunk(b"data", DATA)), 'it has no chunk "fmt "'),
        (riff(form(1, 16, 2)), 'it has no chunk "data"'),
        (riff(chunk(b"fmt ", b"short"), chunk(b"data", DATA)), 'its chunk "fmt " has 5 bytes, at least 16 are needed'),
    ],
)
def test_what_is_no_pcm_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(NotPcmWavError, match=message):
        read_wav(io.BytesIO(data))


@pytest.mark.parametrize("data", [b"", b"RIFF", b"fLaC" + bytes(50), b"RIFF\0\0\0\0AVI " + bytes(50)])
def test_other_files_are_no_wav(data: bytes) -> None:
    assert read_wav(io.BytesIO(data)) is None


def test_kept_headers_are_checked() -> None:
    good = WavHeader(head=b"head", tail=b"tail", samples=SampleBytes(num_bytes=2)).pack()
    huge = struct.pack("<BBQQ", 2, 0, 1 << 60, 0) + good[18:]
    for data, message in [
        (b"short", "has 5 bytes"),
        (huge, "is not what an encoder writes"),
        (b"\5" + good[1:], "is not what an encoder writes"),
        (good[:18] + b"nothing packed", "cannot be unpacked"),
        (struct.pack("<BBQQ", 2, 0, 4, 3) + good[18:], "not as long as it should be"),
        (struct.pack("<BBQQ", 2, 0, 4, 5) + good[18:], "not as long as it should be"),
    ]:
        with pytest.raises(CodedFileError, match=message):
            WavHeader.unpack(data)


@pytest.mark.parametrize("num_bytes", [1, 2, 3, 4])
@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("is_unsigned", [False, True])
def test_bytes_and_samples(num_bytes: int, big_endian: bool, is_unsigned: bool) -> None:
    kind = SampleBytes(num_bytes=num_bytes, big_endian=big_endian, is_unsigned=is_unsigned)
    bits = 8 * num_bytes - 3
    pcm = np.array([[0, 1, -1, 2 ** (bits - 1) - 1, -(2 ** (bits - 1))]], np.int32)
    data = kind.pack(pcm, bits)
    offset = 1 << (8 * num_bytes - 1) if is_unsigned else 0
    order = "big" if big_endian else "little"
    wanted = [(int(x) << 3) + offset for x in pcm[0]]
    assert data == b"".join(x.to_bytes(num_bytes, order, signed=not is_unsigned) for x in wanted)
    back = kind.unpack(data, 1, bits)
    assert back is not None
    assert np.array_equal(back, pcm)
