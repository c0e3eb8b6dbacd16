"""Every format against what was written or an independent decoder: FFmpeg, libsndfile, and the program flac."""

import dataclasses
import shutil
import struct
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from codes.data.audio.formats.info import open_file
from codes.data.audio.formats.pyav import PyAvDecoder
from codes.data.audio.reader import AudioFile, AudioReadError, num_streams, probe, read
from tests.data.audio.coded_audio import (
    CODED,
    LOSSLESS,
    decoded,
    to_int16,
    tones,
    write_coded,
    write_lossless,
    write_lossy,
)
from tests.data.audio.flac_writer import flac_bytes


def noise(bits: int, num_channels: int = 2, num_frames: int = 1000) -> np.ndarray:
    """Full-scale integers (C, T) int64 of that depth, the extremes among them."""
    limit = 1 << (bits - 1)
    pcm = np.random.default_rng(bits).integers(-limit, limit, (num_channels, num_frames))
    pcm[:, 0], pcm[:, 1] = -limit, limit - 1
    return pcm


def assert_random_reads_equal_slices(path: Path, whole: np.ndarray, count: int = 25, **how: int) -> None:
    """Reads at offsets, backwards and forwards, in one open file and in new ones; and block by block."""
    rng = np.random.default_rng(0)
    num_frames = whole.shape[1]
    with AudioFile(path, **how) as file:
        for number in range(count):
            start = int(rng.integers(num_frames))
            length = int(rng.integers(min(3000, num_frames - start) + 1))
            expected = whole[:, start : start + length]
            np.testing.assert_array_equal(file.read(start, length), expected)
            if number < 3:
                np.testing.assert_array_equal(read(path, start, length, **how), expected)
        np.testing.assert_array_equal(np.concatenate(list(file.blocks(777)), 1), whole)
        np.testing.assert_array_equal(np.concatenate(list(file.blocks(100, 50, 333)), 1), whole[:, 50:383])


# -- lossy


@pytest.mark.parametrize("name", sorted(CODED))
def test_lossy_equals_ffmpeg_and_reads_at_offsets_equal_slices(tmp_path: Path, name: str):
    path = write_lossy(tmp_path, name)
    expected = to_int16(decoded(path))
    info = probe(path)
    assert (info.num_frames, info.num_channels) == (expected.shape[1], expected.shape[0])
    assert (info.bits, info.lossy) == (16, True)
    whole = read(path)
    assert whole.dtype == np.int16
    np.testing.assert_array_equal(whole, expected)
    assert_random_reads_equal_slices(path, whole, count=12)
    with AudioFile(path) as file:
        assert not file.seeks_exactly


@pytest.mark.parametrize("name", ["lame.mp3", "no_xing.mp3"])
def test_what_is_known_is_not_counted_again_and_held_to(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    path = write_lossy(tmp_path, name)
    whole, info = read(path), probe(path)
    steps = []
    step = PyAvDecoder._step
    monkeypatch.setattr(PyAvDecoder, "_step", lambda decoder: steps.append(step(decoder)))
    with AudioFile(path, known=info) as file:
        assert len(steps) == 1, "the first frame alone is decoded"
        assert file.info == info
        np.testing.assert_array_equal(file.read(), whole)
    longer = dataclasses.replace(info, num_frames=info.num_frames + 1)
    with AudioFile(path, known=longer) as file, pytest.raises(AudioReadError, match="ends after"):
        file.read()
    with pytest.raises(AudioReadError, match=rf"{name}: has changed: was .* 8000 Hz, is .* {info.sample_rate_hz} Hz"):
        AudioFile(path, known=dataclasses.replace(info, sample_rate_hz=8000))


@pytest.mark.parametrize(("name", "num_frames"), [("lame.mp3", 30_000), ("music.opus", 30_000), ("mono.mp3", 30_000)])
def test_encoder_delay_and_padding_are_left_out(tmp_path: Path, name: str, num_frames: int):
    path = write_lossy(tmp_path, name, num_frames)
    assert probe(path).num_frames == num_frames
    _, how = CODED[name]
    original = tones(how.get("num_channels", 2), num_frames, how.get("sample_rate_hz", 44_100))
    both = np.stack([original[0], read(path)[0] / 2**15])
    assert np.corrcoef(both)[0, 1] > 0.95, "aligned with what was encoded"


@pytest.mark.parametrize(
    "form", [("OGG", "VORBIS", "a.ogg"), ("OGG", "OPUS", "a.opus"), ("MP3", "MPEG_LAYER_III", "a.mp3")]
)
def test_lossy_files_of_libsndfile_have_their_length_and_its_samples(tmp_path: Path, form: tuple[str, str, str]):
    file_format, subtype, name = form
    soundfile.write(tmp_path / name, tones(2, 24_000, 48_000).T, 48_000, format=file_format, subtype=subtype)
    whole = read(tmp_path / name)
    assert whole.shape == (2, 24_000)
    other = soundfile.read(tmp_path / name, dtype="float64")[0].T * 2**15
    assert np.sqrt(np.mean((whole - other) ** 2)) < 2.0, "two independent decoders"
    assert_random_reads_equal_slices(tmp_path / name, whole, count=8)


def test_lossy_saturates(tmp_path: Path):
    write_coded(tmp_path / "a.mp3", "libmp3lame", np.sign(tones(1, 20_000, 44_100)) * 0.999, sample_rate_hz=44_100)
    loud = decoded(tmp_path / "a.mp3")
    assert np.abs(loud).max() > 1.01, "the decoder overshoots"
    np.testing.assert_array_equal(
        read(tmp_path / "a.mp3"), np.clip(np.rint(loud.astype(float) * 2**15), -(2**15), 2**15 - 1)
    )


@pytest.mark.parametrize(("subtype", "bits"), [("ULAW", 16), ("ALAW", 16), ("IMA_ADPCM", 16), ("MS_ADPCM", 16)])
def test_companded_wav_is_lossy_and_seeks(tmp_path: Path, subtype: str, bits: int):
    soundfile.write(tmp_path / "a.wav", tones(1, 5000, 8_000).T, 8_000, subtype=subtype)
    info = probe(tmp_path / "a.wav")
    assert (info.lossy, info.bits) == (True, bits)
    whole = read(tmp_path / "a.wav")
    if subtype in ("ULAW", "ALAW"):
        np.testing.assert_array_equal(whole, decoded(tmp_path / "a.wav"))
    assert_random_reads_equal_slices(tmp_path / "a.wav", whole)


def test_gsm_goes_through_ffmpeg(tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", tones(1, 8000, 8_000).T, 8_000, subtype="GSM610")
    whole = read(tmp_path / "a.wav")
    np.testing.assert_array_equal(whole, to_int16(decoded(tmp_path / "a.wav")))
    assert probe(tmp_path / "a.wav").lossy
    assert_random_reads_equal_slices(tmp_path / "a.wav", whole, count=8)


# -- lossless


@pytest.mark.parametrize("name", sorted(LOSSLESS))
def test_lossless_through_ffmpeg_is_exact(tmp_path: Path, name: str):
    bits = LOSSLESS[name][2]
    pcm = noise(bits, num_frames=30_000)
    path = write_lossless(tmp_path, name, pcm)
    info = probe(path)
    assert (info.num_frames, info.bits, info.num_channels, info.lossy) == (30_000, bits, 2, False)
    whole = read(path)
    assert whole.dtype == (np.int16 if bits <= 16 else np.int32)
    np.testing.assert_array_equal(whole, pcm)
    assert_random_reads_equal_slices(path, whole)


@pytest.mark.parametrize("bits", range(4, 33))
def test_flac_of_every_depth(tmp_path: Path, bits: int):
    pcm = noise(bits)
    (tmp_path / "a.flac").write_bytes(flac_bytes(pcm, bits))
    info = probe(tmp_path / "a.flac")
    assert (info.num_frames, info.bits, info.lossy) == (1000, bits, False)
    np.testing.assert_array_equal(read(tmp_path / "a.flac"), pcm)
    assert_random_reads_equal_slices(tmp_path / "a.flac", pcm, count=10)


@pytest.mark.skipif(shutil.which("flac") is None, reason="the program flac is not installed")
@pytest.mark.parametrize("bits", [8, 12, 16, 20, 24, 32])
def test_flac_equals_the_program_flac(tmp_path: Path, bits: int):
    path, wav = tmp_path / "a.flac", tmp_path / "a.wav"
    path.write_bytes(flac_bytes(noise(bits), bits))
    subprocess.run(["flac", "-d", "-s", str(path), "-o", str(wav)], check=True)
    content = wav.read_bytes()
    wide = (bits + 7) // 8
    samples = np.frombuffer(content[content.index(b"data") + 8 :], np.uint8)[: 2000 * wide].reshape(1000, 2, wide)
    padded = np.concatenate([np.zeros((1000, 2, 4 - wide), np.uint8), samples], -1)
    left = padded.view("<i4")[..., 0].T
    pcm = (left ^ -(2**31) if bits == 8 else left) >> (32 - bits)  # WAV of 8 bits is unsigned
    np.testing.assert_array_equal(read(path), pcm)
    np.testing.assert_array_equal(pcm, noise(bits))
    assert probe(wav).bits == bits, "its WAV tells the valid bits"
    np.testing.assert_array_equal(read(wav), pcm)


@pytest.mark.skipif(shutil.which("flac") is None, reason="the program flac is not installed")
@pytest.mark.parametrize("options", [["-8"], ["-0", "-b", "576"], ["--lax", "-b", "16384", "--no-seektable"]])
def test_compressed_flac_of_the_program_flac_through_both_libraries(tmp_path: Path, options: list[str]):
    pcm = (tones(2, 200_000, 44_100) * 2**15).clip(-(2**15), 2**15 - 1).astype(np.int16)
    pcm[:, 50_000:120_000] = 7
    soundfile.write(tmp_path / "a.wav", pcm.T, 44_100)
    subprocess.run(["flac", "-s", *options, str(tmp_path / "a.wav")], check=True)
    assert_random_reads_equal_slices(tmp_path / "a.flac", pcm)
    assert probe(tmp_path / "a.flac").format == "FLAC PCM_16", "libsndfile reads it, and its end is found right"
    raw = open_file(tmp_path / "a.flac")
    decoder = PyAvDecoder(raw, 0, None)
    rng = np.random.default_rng(0)
    for start in rng.integers(0, 199_000, 30):
        part = np.empty((2, 1000), np.int16)
        decoder.fill(int(start), part)
        np.testing.assert_array_equal(part, pcm[:, start : start + 1000])
    decoder.close()
    raw.file.close()


@pytest.mark.parametrize("bits", [12, 16, 24])
def test_flac_of_unknown_length(tmp_path: Path, bits: int):
    pcm = noise(bits)
    (tmp_path / "a.flac").write_bytes(flac_bytes(pcm, bits, promised=0))
    assert probe(tmp_path / "a.flac").num_frames == 1000
    np.testing.assert_array_equal(read(tmp_path / "a.flac"), pcm)
    assert_random_reads_equal_slices(tmp_path / "a.flac", pcm, count=10)


@pytest.mark.parametrize("num_channels", [1, 3, 6, 8])
def test_channels_keep_their_order(tmp_path: Path, num_channels: int):
    pcm = noise(16, num_channels)
    soundfile.write(tmp_path / "a.wav", pcm.T.astype(np.int16), 44_100)
    (tmp_path / "a.flac").write_bytes(flac_bytes(pcm, 16, promised=0))  # through FFmpeg
    np.testing.assert_array_equal(read(tmp_path / "a.wav"), pcm)
    np.testing.assert_array_equal(read(tmp_path / "a.flac"), pcm)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32"])
@pytest.mark.parametrize("file_format", ["WAV", "WAVEX", "W64", "AIFF", "CAF", "AU", "RF64"])
def test_what_libsndfile_reads_equals_ffmpeg(tmp_path: Path, file_format: str, subtype: str):
    if subtype not in soundfile.available_subtypes(file_format):
        subtype = "PCM_S8"
    bits = int(subtype.removeprefix("PCM_").lstrip("US"))
    path = tmp_path / f"a.{file_format.lower()}"
    soundfile.write(path, (noise(bits) << (32 - bits)).astype(np.int32).T, 48_000, format=file_format, subtype=subtype)
    samples = decoded(path).astype(np.int64)
    if samples.max() <= 255 and bits == 8:
        samples = samples - 128
    else:
        samples >>= {24: 8}.get(bits, 0)
    np.testing.assert_array_equal(read(path), samples)


def test_alac_cut_at_its_start_by_an_edit_list(tmp_path: Path):
    pcm = noise(16, num_frames=30_000)
    source = write_lossless(tmp_path, "alac16.m4a", pcm)
    with av.open(str(source)) as whole, av.open(str(tmp_path / "cut.m4a"), "w") as cut:
        stream = cut.add_stream_from_template(whole.streams.audio[0])
        for packet in whole.demux(whole.streams.audio[0]):
            if packet.pts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - 942, packet.dts - 942, stream
                cut.mux(packet)
    info = probe(tmp_path / "cut.m4a")
    whole_cut = read(tmp_path / "cut.m4a")
    assert info.num_frames == whole_cut.shape[1] == decoded(tmp_path / "cut.m4a").shape[1]
    np.testing.assert_array_equal(whole_cut, pcm[:, 30_000 - info.num_frames :])
    assert_random_reads_equal_slices(tmp_path / "cut.m4a", whole_cut)


def test_a_long_way_is_sought_and_a_short_one_decoded(tmp_path: Path):
    pcm = noise(24, num_channels=1, num_frames=600_000)
    path = write_lossless(tmp_path, "alac24.m4a", np.repeat(pcm, 2, 0))
    with AudioFile(path) as file:
        assert file.seeks_exactly
        for start in (500_000, 10, 250_000, 250_100, 599_990, 0):
            np.testing.assert_array_equal(file.read(start, 10)[:1], pcm[:, start : start + 10])


# -- WAV and AIFF whose samples have fewer bits than their container


def wav_bytes(pcm: np.ndarray, bits: int, container: int, extensible: bool = True, dirty: bool = False) -> bytes:
    """WAVE_FORMAT_EXTENSIBLE with valid bits, or plain PCM of an odd depth: left-justified in the container."""
    left = np.ascontiguousarray(pcm.T << (container - bits)) | (1 if dirty else 0)
    if container == 8:
        samples = (left + 128).astype(np.uint8).tobytes()
    else:
        samples = left.astype("<i4").view(np.uint8).reshape(*left.shape, 4)[..., : container // 8].tobytes()
    num_channels = len(pcm)
    tag, said = (0xFFFE, container) if extensible else (1, bits)
    frame_bytes = num_channels * container // 8
    form = struct.pack("<HHIIHH", tag, num_channels, 44_100, 44_100 * frame_bytes, frame_bytes, said)
    if extensible:
        form += struct.pack("<HHI", 22, bits, 3) + bytes.fromhex("0100000000001000800000aa00389b71")
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(samples)) + samples
    return b"RIFF" + struct.pack("<I", len(body)) + body


def aiff_bytes(pcm: np.ndarray, bits: int) -> bytes:
    container = (bits + 7) // 8
    left = np.ascontiguousarray(pcm.T << (8 * container - bits)).astype(">i4").view(np.uint8).reshape(*pcm.T.shape, 4)
    comm = struct.pack(">hIh", len(pcm), pcm.shape[1], bits) + bytes.fromhex("400eac44000000000000")
    ssnd = struct.pack(">II", 0, 0) + left[..., 4 - container :].tobytes()
    body = b"AIFFCOMM" + struct.pack(">I", len(comm)) + comm + b"SSND" + struct.pack(">I", len(ssnd)) + ssnd
    return b"FORM" + struct.pack(">I", len(body)) + body


@pytest.mark.parametrize(
    ("bits", "container", "extensible"),
    [(12, 16, True), (20, 24, True), (20, 32, True), (24, 32, True), (12, 16, False), (20, 24, False), (4, 8, False)],
)
def test_wav_of_valid_bits_below_the_container(tmp_path: Path, bits: int, container: int, extensible: bool):
    (tmp_path / "a.wav").write_bytes(wav_bytes(noise(bits), bits, container, extensible))
    assert probe(tmp_path / "a.wav").bits == bits
    np.testing.assert_array_equal(read(tmp_path / "a.wav"), noise(bits))
    np.testing.assert_array_equal(read(tmp_path / "a.wav", 500, 9), noise(bits)[:, 500:509])


def test_wav_of_more_bits_than_it_says(tmp_path: Path):
    (tmp_path / "a.wav").write_bytes(wav_bytes(noise(20), 20, 24, dirty=True))
    with pytest.raises(AudioReadError, match=r"a\.wav: says its samples have 20 bits, and has samples of more bits"):
        read(tmp_path / "a.wav")


@pytest.mark.parametrize("bits", [12, 20])
def test_aiff_of_bits_below_the_container(tmp_path: Path, bits: int):
    (tmp_path / "a.aiff").write_bytes(aiff_bytes(noise(bits), bits))
    assert probe(tmp_path / "a.aiff").bits == bits
    np.testing.assert_array_equal(read(tmp_path / "a.aiff"), noise(bits))


# -- WAV of any chunk order


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_wav_with_its_samples_before_their_format(tmp_path: Path, subtype: str):
    soundfile.write(tmp_path / "a.wav", tones(2, 5000, 44_100).T, 44_100, subtype=subtype)
    content = (tmp_path / "a.wav").read_bytes()
    at = content.index(b"data")
    extra = b"LIST" + struct.pack("<I", 3) + b"odd\0"
    form = content[12 : 20 + int.from_bytes(content[16:20], "little")]
    (tmp_path / "b.wav").write_bytes(content[:12] + extra + content[at:] + extra + form + extra)
    whole = read(tmp_path / "a.wav", float_bits=24)
    assert probe(tmp_path / "b.wav", float_bits=24).num_frames == 5000
    np.testing.assert_array_equal(read(tmp_path / "b.wav", float_bits=24), whole)
    assert_random_reads_equal_slices(tmp_path / "b.wav", whole, float_bits=24)


def test_wav_with_many_chunks_around(tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", noise(16).T.astype(np.int16), 44_100)
    content = (tmp_path / "a.wav").read_bytes()
    extra = b"".join(name + struct.pack("<I", 5001) + bytes(5002) for name in (b"bext", b"iXML", b"cue ", b"LIST"))
    (tmp_path / "a.wav").write_bytes(content[:12] + extra + content[12:] + extra)
    np.testing.assert_array_equal(read(tmp_path / "a.wav"), noise(16))


@pytest.mark.parametrize("tail", [b"TAG" + b"a" * 125, bytes(1000), b"ID3\4\0\0\0\0\0\0"])
def test_wav_with_a_tag_behind_its_chunks(tmp_path: Path, tail: bytes):
    soundfile.write(tmp_path / "a.wav", noise(16).T.astype(np.int16), 44_100)
    (tmp_path / "a.wav").write_bytes((tmp_path / "a.wav").read_bytes() + tail)
    np.testing.assert_array_equal(read(tmp_path / "a.wav"), noise(16))


@pytest.mark.parametrize("num_frames", [1000, 999])
@pytest.mark.parametrize("bits", [16, 24])
def test_w64_with_a_chunk_behind_its_samples(tmp_path: Path, num_frames: int, bits: int):
    pcm = noise(bits, num_frames=num_frames)
    left = (pcm << (32 - bits)).astype(np.int32).T
    soundfile.write(tmp_path / "a.w64", left, 44_100, format="W64", subtype=f"PCM_{bits}")
    content = bytearray((tmp_path / "a.w64").read_bytes())
    size = content.index(b"data") + 16
    content[size : size + 8] = struct.pack("<Q", 24 + num_frames * 2 * bits // 8)  # libsndfile counts its padding
    marker = b"levl" + bytes.fromhex("f3acd3118cd100c04f8edb8a") + struct.pack("<Q", 24 + 104) + bytes(104)
    (tmp_path / "a.w64").write_bytes(content.ljust(-(-len(content) // 8) * 8, b"\0") + marker)
    np.testing.assert_array_equal(read(tmp_path / "a.w64"), pcm)
    assert_random_reads_equal_slices(tmp_path / "a.w64", pcm, count=8)


# -- floating point


@pytest.mark.parametrize(
    ("file_format", "subtype"), [("WAV", "FLOAT"), ("WAV", "DOUBLE"), ("AIFF", "FLOAT"), ("CAF", "FLOAT")]
)
@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_float_bits_rounds_and_saturates(tmp_path: Path, file_format: str, subtype: str, bits: int):
    step = 2.0 ** (1 - bits)
    samples = np.array([0.0, step, -step, 0.4 * step, 0.6 * step, 1.5 * step, 2.5 * step, 1.0, 2.0, -1.0, -3.0, 0.7])
    path = tmp_path / "a.audio"
    soundfile.write(path, samples, 44_100, format=file_format, subtype=subtype)
    stored = samples.astype(np.float32).astype(float) if subtype == "FLOAT" else samples
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    expected = [min(max(round(sample / step), low), high) for sample in stored]
    info = probe(path, float_bits=bits)
    assert (info.bits, info.lossy) == (bits, False)
    pcm = read(path, float_bits=bits)
    assert pcm.dtype == (np.int16 if bits <= 16 else np.int32)
    assert pcm.tolist() == [expected]


def test_float_in_matroska(tmp_path: Path):
    write_coded(tmp_path / "a.mka", "pcm_f32le", tones(2, 3000, 44_100), sample_rate_hz=44_100)
    with pytest.raises(AudioReadError, match=r"a\.mka: holds floating point samples \(pcm_f32le\).*set float_bits"):
        probe(tmp_path / "a.mka")
    expected = np.rint(tones(2, 3000, 44_100).astype(np.float32).astype(float) * 2**23)
    np.testing.assert_array_equal(read(tmp_path / "a.mka", float_bits=24), expected)


def test_float_bits_leaves_integers_as_they_are(tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", noise(16).T.astype(np.int16), 44_100)
    np.testing.assert_array_equal(read(tmp_path / "a.wav", float_bits=24), noise(16))


@pytest.mark.parametrize("bits", [7, 33, 0])
def test_float_bits_out_of_range(tmp_path: Path, bits: int):
    with pytest.raises(ValueError, match=f"float_bits is {bits}, it must be 8 to 32, or None"):
        probe(tmp_path / "a.wav", float_bits=bits)


@pytest.mark.parametrize("bits", [16, 24])
def test_not_a_number(tmp_path: Path, bits: int):
    soundfile.write(tmp_path / "a.wav", np.array([0.0, np.nan]), 44_100, subtype="FLOAT")
    with pytest.raises(AudioReadError, match=r"a\.wav: holds samples that are not numbers \(NaN\)"):
        read(tmp_path / "a.wav", float_bits=bits)


# -- several streams


def stem_file(path: Path) -> None:
    """An MP4 of three ALAC streams, in which stream n holds n, n + 1, ..."""
    with av.open(str(path), "w") as out:
        streams = [out.add_stream("alac", rate=44_100, layout="stereo", format="s16p") for _ in range(3)]
        for number, stream in enumerate(streams):
            pcm = np.tile(np.arange(4096, dtype=np.int16) + number, (2, 1))
            frame = av.AudioFrame.from_ndarray(pcm, format="s16p", layout="stereo")
            frame.sample_rate, frame.pts = 44_100, 0
            out.mux(stream.encode(frame))
        for stream in streams:
            out.mux(stream.encode(None))


def test_streams_of_a_stem_file(tmp_path: Path):
    stem_file(tmp_path / "a.stem.mp4")
    assert num_streams(tmp_path / "a.stem.mp4") == 3
    for number in range(3):
        np.testing.assert_array_equal(
            read(tmp_path / "a.stem.mp4", 5, 3, stream=number), [[number + 5, number + 6, number + 7]] * 2
        )
    with pytest.raises(AudioReadError, match=r"mp4: audio stream 3 was asked for, the file has 3 audio streams"):
        probe(tmp_path / "a.stem.mp4", stream=3)


def test_one_stream(tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", noise(16).T.astype(np.int16), 44_100)
    (tmp_path / "a.flac").write_bytes(flac_bytes(noise(12), 12))
    write_lossy(tmp_path, "lame.mp3", 3000)
    for name in ("a.wav", "a.flac", "lame.mp3"):
        assert num_streams(tmp_path / name) == 1
        for stream in (1, -1):
            with pytest.raises(
                AudioReadError, match=rf"{name}: audio stream {stream} was asked for, the file has 1 audio st"
            ):
                probe(tmp_path / name, stream=stream)


def test_sound_of_a_video(tmp_path: Path):
    with av.open(str(tmp_path / "a.mp4"), "w") as out:
        video = out.add_stream("mpeg4", rate=10, width=64, height=64, pix_fmt="yuv420p")
        audio = out.add_stream("aac", rate=44_100, layout="mono")
        for _ in range(5):
            out.mux(video.encode(av.VideoFrame(64, 64, "yuv420p")))
        frame = av.AudioFrame.from_ndarray(tones(1, 20_480, 44_100).astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 44_100, 0
        out.mux(audio.encode(frame))
        out.mux([*audio.encode(None), *video.encode(None)])
    np.testing.assert_array_equal(read(tmp_path / "a.mp4"), to_int16(decoded(tmp_path / "a.mp4")))


def test_blocks_of_no_frames(tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", noise(16).T.astype(np.int16), 44_100)
    with (
        AudioFile(tmp_path / "a.wav") as file,
        pytest.raises(ValueError, match="block_frames is 0, it must be at least 1"),
    ):
        next(file.blocks(0))
