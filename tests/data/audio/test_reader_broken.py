"""Files that are cut, joined, wrong about themselves or no audio: a named error, and never a silent substitute."""

import io
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from codes.data.audio.formats.cut_end import mpeg_frame_bytes
from codes.data.audio.formats.flac_end import ends_as_promised, stream_info
from codes.data.audio.formats.info import open_file
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
    write_silent_video,
)
from tests.data.audio.flac_writer import crc, flac_bytes

BARE_MP3 = {"mux": {"write_xing": "0", "id3v2_version": "0"}}


def noise(bits: int, num_channels: int = 2, num_frames: int = 3000) -> np.ndarray:
    limit = 1 << (bits - 1)
    return np.random.default_rng(bits).integers(-limit, limit, (num_channels, num_frames))


def coded(codec: str, container: str, rate: int = 44_100, num_channels: int = 2, **how: Any) -> bytes:
    target = io.BytesIO()
    write_coded(target, codec, tones(num_channels, 30_000, rate), sample_rate_hz=rate, container=container, **how)
    return target.getvalue()


def wav(pcm: np.ndarray, subtype: str = "PCM_16") -> bytearray:
    target = io.BytesIO()
    soundfile.write(target, (pcm << 16).astype(np.int32).T, 44_100, format="WAV", subtype=subtype)
    return bytearray(target.getvalue())


def refused(path: Path, content: bytes, message: str) -> None:
    """`read` must refuse it with that message, which also names the file."""
    path.write_bytes(content)
    with pytest.raises(AudioReadError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


# -- cut short


CUT = [name for name in [*CODED, *LOSSLESS] if not name.endswith(".ac3")]  # whose decoder conceals, and tells nobody


@pytest.mark.parametrize("name", CUT)
@pytest.mark.parametrize("kept", [0.3, 0.61, 0.9])
def test_cut_file(tmp_path: Path, name: str, kept: float):
    if name in CODED:
        path = write_lossy(tmp_path, name)
    else:
        path = write_lossless(tmp_path, name, noise(LOSSLESS[name][2], num_frames=60_000))
    content = path.read_bytes()
    refused(path, content[: int(kept * len(content))], "truncated|broken|has no samples in it")


@pytest.mark.parametrize(
    "name", ["lame.mp3", "no_xing.mp3", "audio.mp2", "adts.aac", "edit_list.m4a", "vorbis.ogg", "aac.mka"]
)
def test_lossy_file_that_lacks_its_last_bytes(tmp_path: Path, name: str):
    path = write_lossy(tmp_path, name)
    refused(path, path.read_bytes()[:-20], "truncated|broken")


def test_mp3_that_lacks_whole_frames_its_header_counts(tmp_path: Path):
    path = write_lossy(tmp_path, "lame.mp3")
    content = path.read_bytes()
    end = content.rindex(b"\xff\xfb", 0, len(content) // 2)
    refused(path, content[:end], r"lame\.mp3: truncated or broken: it promises 30000 frames and ends after \d+")


@pytest.mark.parametrize("bits", [12, 16])
def test_cut_flac_is_found_when_it_is_opened(tmp_path: Path, bits: int):
    content = flac_bytes(noise(bits), bits)
    (tmp_path / "a.flac").write_bytes(content[: len(content) // 2])
    with pytest.raises(AudioReadError, match=r"a\.flac: truncated or broken"):
        probe(tmp_path / "a.flac")


def test_extensible_wav_cut(tmp_path: Path):
    refused(
        tmp_path / "a.wav", wav(noise(16))[:-100], r"a\.wav: truncated: promises 12000 bytes of samples and has 11900"
    )


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "b.flac", "a.m4a"])
def test_file_that_shrinks_while_it_is_open(tmp_path: Path, name: str):
    path = tmp_path / name
    pcm = noise(16, num_frames=30_000)
    content = {
        "a.wav": lambda: bytes(wav(pcm)),
        "a.flac": lambda: flac_bytes(pcm, 16),
        "b.flac": lambda: flac_bytes(pcm, 16, promised=0),
        "a.m4a": lambda: write_lossless(tmp_path, "alac16.m4a", pcm).read_bytes(),
    }[name]()
    path.write_bytes(content)
    with AudioFile(path) as file:
        np.testing.assert_array_equal(file.read(0, 10), pcm[:, :10])
        os.truncate(path, len(content) // 3)
        with pytest.raises(AudioReadError, match=f"{name}: (truncated|broken)"):
            file.read(29_000, 1000)


# -- wrong about their length


@pytest.mark.parametrize("bits", [12, 16, 24])
def test_flac_that_lies_about_its_length(tmp_path: Path, bits: int):
    more, less = (flac_bytes(noise(bits), bits, promised=promised) for promised in (4000, 2000))
    refused(tmp_path / "a.flac", more, r"a\.flac: truncated or broken: it promises 4000 frames and ends after 3000")
    refused(tmp_path / "a.flac", less, r"a\.flac: goes on after the 2000 frames that its header promises")


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_wav_that_goes_on_after_its_length(tmp_path: Path, subtype: str):
    content = wav(noise(16), subtype)
    at = content.index(b"data") + 4
    content[at : at + 4] = (1000).to_bytes(4, "little")
    message = r"a\.wav: its header promises 1000 bytes of samples, and after them come \d+ bytes that are no chunks"
    refused(tmp_path / "a.wav", bytes(content), message)


def aiff(pcm: np.ndarray) -> bytearray:
    target = io.BytesIO()
    soundfile.write(target, pcm.astype(np.int16).T, 44_100, format="AIFF", subtype="PCM_16")
    return bytearray(target.getvalue())


def test_aiff_that_goes_on_after_its_length(tmp_path: Path):
    content = aiff(noise(16))
    at = content.index(b"SSND") + 4
    content[at : at + 4] = (1008).to_bytes(4, "big")
    frames = content.index(b"COMM") + 10
    content[frames : frames + 4] = (250).to_bytes(4, "big")
    message = r"a\.aiff: its header promises 1008 bytes of samples, and after them come 11000 bytes that are no chunks"
    refused(tmp_path / "a.aiff", bytes(content), message)


@pytest.mark.parametrize("file_format", ["RF64", "AU"])
def test_rf64_and_au_that_go_on_after_their_length(tmp_path: Path, file_format: str):
    soundfile.write(tmp_path / "a", noise(16).astype(np.int16).T, 44_100, format=file_format, subtype="PCM_16")
    content = (tmp_path / "a").read_bytes()
    size = len(content)
    message = f"a: its header promises {size} bytes, and it has {{}}: the length is wrong"
    tail = b"note\6\0\0\0a word" if file_format == "RF64" else content
    refused(tmp_path / "a", content + tail, message.format(size + len(tail)))


def test_two_rf64_in_a_row(tmp_path: Path):
    soundfile.write(tmp_path / "a", noise(16).astype(np.int16).T, 44_100, format="RF64", subtype="PCM_16")
    content = (tmp_path / "a").read_bytes()
    message = f"promises 12000 bytes of samples, and after them come {len(content)} bytes that are no chunks"
    refused(tmp_path / "a", content * 2, message)


@pytest.mark.parametrize("promised", [500, 5000])
def test_aiff_of_two_lengths(tmp_path: Path, promised: int):
    content = aiff(noise(16))
    at = content.index(b"COMM") + 10
    content[at : at + 4] = promised.to_bytes(4, "big")
    message = rf"a\.aiff: its header promises {promised} frames, and its samples are 3000 frames"
    refused(tmp_path / "a.aiff", bytes(content), message)


def test_two_wavs_in_a_row(tmp_path: Path):
    content = bytes(wav(noise(16)))
    refused(
        tmp_path / "a.wav", content * 2, rf"and after them come {len(content)} bytes that are no chunks: the length"
    )


def test_wav_that_contradicts_itself_on_the_size_of_a_frame(tmp_path: Path):
    content = wav(noise(16))
    content[32:34] = (6).to_bytes(2, "little")
    content[40:44] = b"\0\0\0\1"  # libsndfile gives up on it
    content[36:40] = b"xxxx"
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(AudioReadError, match=r"a\.wav: says that a frame has 6 bytes and is 2 samples of 16 bits"):
        read(tmp_path / "a.wav")


def test_unknown_length_with_impossible_memory(tmp_path: Path):
    content = flac_bytes(noise(16), 16, promised=2**36 - 1)
    refused(tmp_path / "a.flac", content, r"a\.flac: says it has 68719476735 frames, which its \d+ bytes cannot hold")


def test_a_length_that_would_not_fit_into_memory_costs_none(tmp_path: Path):
    """Half a billion frames are promised: possible for so many bytes, and refused without having been allocated."""
    content = flac_bytes(noise(16), 16, promised=500_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(tmp_path / "a.flac", content, "truncated or broken: it promises 500000000 frames and ends after 3000")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000, "KiB"


# -- changes within a file


@pytest.mark.parametrize(
    ("codec", "container", "how"), [("libmp3lame", "mp3", BARE_MP3), ("aac", "adts", {})], ids=["mp3", "adts"]
)
def test_rate_or_channels_change(tmp_path: Path, codec: str, container: str, how: dict[str, Any]):
    first = coded(codec, container, **how)
    refused(
        tmp_path / "a", first + coded(codec, container, rate=22_050, **how), r"changes at frame \d+ from .* Hz .* to "
    )
    mono = coded(codec, container, num_channels=1, **how)
    refused(
        tmp_path / "a", first + mono, r"changes at frame \d+ from 2 channels at 44100 Hz .* to 1 channels at 44100 Hz"
    )


@pytest.mark.parametrize("promised", [None, 0])
def test_rate_channels_or_depth_of_a_flac_change(tmp_path: Path, promised: int | None):
    first = flac_bytes(noise(16), 16, promised=promised)
    change = r"a\.flac: changes at frame 3000 from 2 channels at 44100 Hz \(s16\) to"
    refused(tmp_path / "a.flac", first + flac_bytes(noise(16), 16, 48_000), f"{change} 2 channels at 48000 Hz")
    refused(tmp_path / "a.flac", first + flac_bytes(noise(16, 1), 16), f"{change} 1 channels at 44100 Hz")
    if promised == 0:
        refused(tmp_path / "a.flac", first + flac_bytes(noise(24), 24), "changes at frame|broken")


@pytest.mark.parametrize(("codec", "rate"), [("libopus", 48_000), ("vorbis", 44_100), ("flac", 44_100)])
def test_ogg_streams_in_a_row(tmp_path: Path, codec: str, rate: int):
    options = {"strict": "experimental"} if codec == "vorbis" else {}
    first = coded(codec, "ogg", rate, options=options)
    message = rf"a\.ogg: a second Ogg stream starts at byte {len(first)}: split the file there"
    for second in (first, coded(codec, "ogg", rate, 1, options={}) if codec == "flac" else first):
        refused(tmp_path / "a.ogg", first + second, message)


def test_ogg_with_missing_pages_or_garbage_between(tmp_path: Path):
    content = coded("flac", "ogg")
    pages = [at for at in range(len(content)) if content[at : at + 4] == b"OggS"]
    holed = content[: pages[2]] + content[pages[3] :]
    refused(tmp_path / "a.ogg", holed, rf"broken: Ogg pages are missing before byte {pages[2]}")
    torn = content[: pages[3]] + b"garbage" + content[pages[3] :]
    refused(tmp_path / "a.ogg", torn, rf"broken: no Ogg page starts at byte {pages[3]}, where one should")
    (tmp_path / "a.ogg").write_bytes(content + b"TAG" + bytes(125))
    assert read(tmp_path / "a.ogg").shape == (2, 30_000), "a tag behind the end is none of this"


# -- broken within


@pytest.mark.parametrize(("bits", "promised"), [(12, None), (16, None), (16, 0), (24, None), (20, 0)])
def test_flac_with_a_flipped_bit_or_a_hole(tmp_path: Path, bits: int, promised: int | None):
    content = flac_bytes(noise(bits), bits, promised=promised)
    middle = len(content) // 2
    flipped = bytearray(content)
    flipped[middle] ^= 1
    refused(tmp_path / "a.flac", bytes(flipped), r"a\.flac: (broken|truncated)")
    refused(tmp_path / "a.flac", content[:middle] + content[middle + 100 :], r"a\.flac: (broken|truncated)")


def test_flac_without_one_whole_frame_says_what_is_missing(tmp_path: Path):
    content = flac_bytes(noise(12), 12, promised=0)
    starts = [
        at
        for at in range(42, len(content))
        if content[at : at + 2] == b"\xff\xf8" and crc(content[at : at + 8], 8, 7) == 0
    ]
    holed = content[: starts[4]] + content[starts[5] :]
    refused(tmp_path / "a.flac", holed, r"broken: after frame 1024 comes frame 1280, what is between is missing")


# -- the look at the end of a FLAC, and at the frames of MP3


@pytest.mark.parametrize("num_frames", [1, 255, 256, 257, 3000])
def test_end_of_flac(tmp_path: Path, num_frames: int):
    content = flac_bytes(noise(16, num_frames=num_frames), 16)
    (tmp_path / "a.flac").write_bytes(content + b"TAG" + bytes(125))
    raw = open_file(tmp_path / "a.flac")
    info = stream_info(content[8:42])
    assert (info.num_frames, info.num_channels, info.bits, info.sample_rate_hz) == (num_frames, 2, 16, 44_100)
    assert ends_as_promised(raw, info)
    assert not ends_as_promised(raw, stream_info(flac_bytes(noise(16, num_frames=num_frames), 16, promised=9000)[8:42]))
    raw.file.close()


@pytest.mark.parametrize("rate", [44_100, 48_000, 32_000, 22_050, 16_000, 8_000])
@pytest.mark.parametrize("codec", ["libmp3lame", "mp2"])
def test_length_of_an_mpeg_frame_equals_ffmpegs_packets(tmp_path: Path, codec: str, rate: int):
    if codec == "mp2" and rate < 16_000:
        pytest.skip("layer 2 has no such rate")
    (tmp_path / "a.mp3").write_bytes(
        coded(codec, "mp2" if codec == "mp2" else "mp3", rate, **(BARE_MP3 if codec == "libmp3lame" else {}))
    )
    with av.open(str(tmp_path / "a.mp3")) as container:
        sizes = [(packet.size, mpeg_frame_bytes(bytes(packet))) for packet in container.demux() if packet.size]
    assert len(sizes) > 5
    assert all(size == own for size, own in sizes)


def test_no_mpeg_frame():
    for header in (b"TAG", b"TAGa", b"\xff\xe0\0\0", b"\xff\xfb\xf0\0", b"\xff\xfb\x0c\0", b"\xff\xeb\x90\0"):
        assert mpeg_frame_bytes(header) is None
    assert mpeg_frame_bytes(b"\xff\xff\x90\0") == 312, "layer 1: 288 kbit/s at 44.1 kHz: 78 slots of 4 bytes"


# -- no audio


@pytest.mark.parametrize(
    "suffix",
    ["wav", "flac", "mp3", "m4a", "ogg", "aac", "opus", "wv", "tta", "wma", "mka", "aiff", "ac3", "dts", "ape", "ts"],
)
def test_text_by_any_name(tmp_path: Path, suffix: str):
    content = b"no audio at all, but a few words\n" * 100
    message = rf"a\.{suffix}: is not audio that libsndfile reads: Format not recognised; nor FFmpeg: \w"
    refused(tmp_path / f"a.{suffix}", content, message)
    with pytest.raises(AudioReadError, match=r"is not audio that libsndfile reads|has no audio stream"):
        num_streams(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize(
    "script", [b"#EXTM3U\n#EXTINF:1,\nFILE\n", b"ffconcat version 1.0\nfile FILE\n", b"v=0\nm=audio 5004 RTP/AVP 0\n"]
)
def test_playlists_and_scripts_open_no_other_file(tmp_path: Path, script: bytes):
    other = write_lossy(tmp_path, "lame.mp3", 3000)
    for name in ("a.mp3", "a.m3u8", "a.ffconcat", "a.sdp"):
        refused(tmp_path / name, script.replace(b"FILE", bytes(other)), "is not audio that libsndfile reads")


def test_video_without_sound(tmp_path: Path):
    write_silent_video(tmp_path / "a.mp4")
    for look in (probe, num_streams):
        with pytest.raises(AudioReadError, match=r"a\.mp4: has no audio stream in it"):
            look(tmp_path / "a.mp4")


def test_random_bytes(tmp_path: Path):
    content = np.random.default_rng(0).bytes(30_000)
    for name in ("a.wav", "a.mp3", "a.aac", "a.flac", "a.m4a"):
        refused(tmp_path / name, content, f"{name}: ")
    refused(tmp_path / "b.mp3", b"ID3\4\0\0\0\0\0\0" + content, r"b\.mp3: ")


# -- names


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps any bytes as a name")
def test_name_that_is_not_utf8_and_looks_like_an_address(tmp_path: Path):
    folder = os.fsencode(tmp_path)
    pcm = noise(16)
    for suffix, content in {
        "wav": bytes(wav(pcm)),
        "flac": flac_bytes(pcm, 16),
        "a.flac": flac_bytes(pcm, 16, promised=0),
    }.items():
        name = os.fsdecode(folder + b"/http:\xff\xfe%d|?." + suffix.encode())
        Path(name).write_bytes(content)
        np.testing.assert_array_equal(read(name), pcm)
    broken = os.fsdecode(folder + b"/\xff.wav")
    Path(broken).write_bytes(b"text")
    with pytest.raises(AudioReadError, match=r"\\udcff\.wav: is not audio") as caught:
        read(broken)
    str(caught.value).encode("utf-8")  # it can be printed


def test_relative_name_that_looks_like_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    source = write_lossy(tmp_path, "lame.mp3", 5000)
    Path("concat:a.mp3").write_bytes(source.read_bytes())
    np.testing.assert_array_equal(read("concat:a.mp3"), to_int16(decoded(source)))


def test_very_long_names(tmp_path: Path):
    longest = tmp_path / ("x" * 251 + ".wav")
    longest.write_bytes(wav(noise(16)))
    np.testing.assert_array_equal(read(longest), noise(16))
    for name in ("x" * 300 + ".wav", "x/" * 3000 + "a.wav"):
        with pytest.raises(AudioReadError, match="cannot be opened: File name too long"):
            probe(tmp_path / name)


def test_no_regular_file(tmp_path: Path):
    (tmp_path / "link.wav").symlink_to("nowhere.wav")
    with pytest.raises(
        AudioReadError, match=r"link\.wav: cannot be opened: No such file or directory \(a link to nothing\)"
    ):
        probe(tmp_path / "link.wav")
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    with pytest.raises(AudioReadError, match=r"loop\.wav: cannot be opened: Too many levels of symbolic links"):
        probe(tmp_path / "loop.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(AudioReadError, match=r"pipe\.wav: is not a regular file"):
        probe(tmp_path / "pipe.wav")
    with pytest.raises(AudioReadError, match="cannot be opened: embedded null byte"):
        probe(tmp_path / "a\0.wav")


# -- resources


def test_nothing_stays_open(tmp_path: Path):
    files = [write_lossy(tmp_path, name, 3000) for name in ("lame.mp3", "edit_list.m4a")]
    (tmp_path / "a.wav").write_bytes(wav(noise(16)))
    (tmp_path / "b.wav").write_bytes(b"text")
    (tmp_path / "c.mp3").write_bytes(files[0].read_bytes()[:700])
    (tmp_path / "d.flac").write_bytes(flac_bytes(noise(12), 12, promised=9000))
    before = len(os.listdir("/proc/self/fd"))
    for path in [*tmp_path.iterdir()] * 3:
        try:
            read(path)
        except AudioReadError:
            continue
    assert len(os.listdir("/proc/self/fd")) == before


def test_nothing_is_printed(tmp_path: Path):
    (tmp_path / "a.mp3").write_bytes(coded("libmp3lame", "mp3")[:-200])
    (tmp_path / "b.m4a").write_bytes(b"\0\0\0\x18ftypM4A " + np.random.default_rng(0).bytes(5000))
    (tmp_path / "c.flac").write_bytes(flac_bytes(noise(12), 12)[:-99])
    program = (
        "import sys\nfrom codes.data.audio.reader import AudioReadError, read\n"
        "for name in sys.argv[1:]:\n    try:\n        read(name)\n    except AudioReadError:\n        pass\n"
    )
    names = [str(path) for path in tmp_path.iterdir()]
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", program, *names], cwd=root, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")


@pytest.mark.parametrize("name", ["a.flac", "a.mp3"])
def test_a_long_file_is_streamed_in_bounded_memory(tmp_path: Path, name: str):
    """Four to six minutes: 42 to 63 MB of samples."""
    if name == "a.mp3":
        (tmp_path / name).write_bytes(coded("libmp3lame", "mp3", **BARE_MP3) * 350)
    else:
        with soundfile.SoundFile(tmp_path / name, "w", 44_100, 2) as out:
            block = (tones(2, 44_100, 44_100) * 2**14).astype(np.int16).T
            for _ in range(36):
                out.write(np.tile(block, (10, 1)))
    program = (
        "import resource, sys\nfrom codes.data.audio.reader import AudioFile\n"
        "with AudioFile(sys.argv[1]) as file:\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "    total = sum(block.shape[1] for block in file.blocks())\n"
        "    assert total == file.info.num_frames\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    root = Path(__file__).resolve().parents[3]
    command = [sys.executable, "-c", program, str(tmp_path / name)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 12, "MiB"
