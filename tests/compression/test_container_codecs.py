"""Coded files: blocks fall back to the smallest codec that gives them back; codecs and models are checked."""

import io
import time
from pathlib import Path

import numpy as np
import pytest

from codes.compression.codec import BlockCodec, CodedFileError, ModelError
from codes.compression.container import CodecEntry
from codes.compression.container_reader import CodedFile
from codes.compression.container_writer import PcmForm, write_coded_file
from codes.compression.linear_codec import LinearCodec
from tests.compression.containers import HASH, Shift, read, repetitive, signal, write


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


def test_a_codec_of_one_depth_gets_it_where_low_bits_are_zero(tmp_path: Path) -> None:
    codec = Shift()
    codec.only_bits = 16
    pcm = repetitive() & ~3
    report = write(tmp_path / "x.wsl", pcm, 16, codecs=[codec])
    assert report.packets_by_codec == {"residual": 3}
    assert report.unsuited == []
    with CodedFile(tmp_path / "x.wsl", lambda entry, embedded: codec) as coded:
        assert np.array_equal(np.concatenate(list(coded.blocks()), 1), pcm)


def test_why_a_codec_codes_nothing_is_told_once(tmp_path: Path) -> None:
    codec = Shift()
    codec.only_bits = 8
    report = write(tmp_path / "x.wsl", repetitive(), 16, codecs=[codec])
    assert report.unsuited == ["codes 8 bits, not 16"]
    assert report.codecs == ()


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


class SlowFile(io.BufferedReader):
    """Gives other threads time between finding a place and reading there."""

    def seek(self, target: int, whence: int = 0, /) -> int:
        found = super().seek(target, whence)
        time.sleep(0.01)
        return found


def test_a_thread_that_reads_the_embedded_model_disturbs_no_other(tmp_path: Path) -> None:
    pcm = np.concatenate([np.zeros((2, 1000), np.int32), repetitive(4000)], 1)  # the first block needs no model
    report = write(tmp_path / "x.wsl", pcm, 16, codecs=[Shift("exact")], model=b"a model")
    assert report.packets_by_codec == {"linear": 1, "residual": 4}
    found = []

    def resolve(entry: CodecEntry, embedded: bytes) -> BlockCodec:
        found.append(embedded)
        return Shift("exact")

    with CodedFile(tmp_path / "x.wsl", resolve) as coded:
        coded._file.close()
        coded._file = SlowFile(io.FileIO(tmp_path / "x.wsl"))
        assert np.array_equal(np.concatenate(list(coded.blocks(workers=4)), 1), pcm)
    assert found == [b"a model"]
