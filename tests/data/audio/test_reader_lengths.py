"""RF64 and CAF that lie about their length, which formats can be sought, and what is no fault of a file."""

import errno
import io
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codes.data.audio.formats.info import opening_error
from codes.data.audio.reader import AudioFile, AudioReadError, probe, read
from tests.data.audio.coded_audio import CODED, LOSSLESS, write_lossless, write_lossy
from tests.data.audio.flac_writer import flac_bytes

PCM = np.random.default_rng(0).integers(-(2**15), 2**15, (2, 3000)).astype(np.int16)
FILE_BYTES, DATA_BYTES, FRAMES = 8, 16, 24  # in the chunk "ds64" of RF64, from its name on


def sound(file_format: str) -> bytes:
    target = io.BytesIO()
    soundfile.write(target, PCM.T, 44_100, format=file_format, subtype="PCM_16")
    return target.getvalue()


def rf64(numbers: dict[int, int], cut_bytes: int = 0) -> bytes:
    content = bytearray(sound("RF64"))
    start = content.index(b"ds64")
    for place, number in numbers.items():
        content[start + place : start + place + 8] = struct.pack("<Q", number)
    return bytes(content[: len(content) - cut_bytes])


@pytest.mark.parametrize("num_bytes", [12_001, 10**9, 2**63, 2**63 - 1, 2**64 - 8])
@pytest.mark.parametrize("with_frames", [False, True])
def test_rf64_that_promises_too_much(tmp_path: Path, num_bytes: int, with_frames: bool):
    numbers = {DATA_BYTES: num_bytes} | ({FRAMES: num_bytes // 4} if with_frames else {})
    (tmp_path / "a.rf64").write_bytes(rf64(numbers))
    message = rf"a\.rf64: truncated: promises {num_bytes} bytes of samples and has 12000"
    with pytest.raises(AudioReadError, match=message):
        read(tmp_path / "a.rf64")


@pytest.mark.parametrize("num_frames", [1500, 3000, 0])
def test_rf64_that_promises_half(tmp_path: Path, num_frames: int):
    (tmp_path / "a.rf64").write_bytes(rf64({DATA_BYTES: 6000, FRAMES: num_frames}))
    message = r"a\.rf64: its header promises 6000 bytes of samples, and after them come 6000 bytes that are no chunks"
    with pytest.raises(AudioReadError, match=message):
        read(tmp_path / "a.rf64")


@pytest.mark.parametrize("num_frames", [1500, 3001, 10**9, 2**62, 2**63, 2**64 - 2])
def test_rf64_of_two_lengths(tmp_path: Path, num_frames: int):
    (tmp_path / "a.rf64").write_bytes(rf64({FRAMES: num_frames}))
    message = rf"a\.rf64: its header promises {num_frames} frames, and its samples are 3000 frames"
    with pytest.raises(AudioReadError, match=message):
        read(tmp_path / "a.rf64")


@pytest.mark.parametrize("cut_bytes", [6000, 4, 1])
def test_rf64_cut_whose_number_of_frames_is_unknown(tmp_path: Path, cut_bytes: int):
    (tmp_path / "a.rf64").write_bytes(rf64({FRAMES: 0}, cut_bytes))
    message = rf"a\.rf64: truncated: promises 12000 bytes of samples and has {12_000 - cut_bytes}"
    with pytest.raises(AudioReadError, match=message):
        read(tmp_path / "a.rf64")


def test_rf64_that_tells_no_number_of_frames(tmp_path: Path):
    (tmp_path / "a.rf64").write_bytes(rf64({FRAMES: 0}))
    np.testing.assert_array_equal(read(tmp_path / "a.rf64"), PCM)


@pytest.mark.parametrize("has_table", [False, True])
def test_rf64_with_a_chunk_behind_its_samples(tmp_path: Path, has_table: bool):
    """Whose size may stand in the table of "ds64" as well."""
    content = sound("RF64")
    start = content.index(b"ds64")
    table = b"note" + struct.pack("<Q", 6) if has_table else b""
    tail = b"note" + struct.pack("<I", 0xFFFFFFFF if has_table else 6) + b"a word"
    size = len(content) + len(table) + len(tail) - 8
    sizes = struct.pack("<IQQQI", 28 + len(table), size, 12_000, 3000, len(table) // 12) + table
    (tmp_path / "a.rf64").write_bytes(content[: start + 4] + sizes + content[start + 36 :] + tail)
    np.testing.assert_array_equal(read(tmp_path / "a.rf64"), PCM)


@pytest.mark.parametrize("cut_bytes", range(1, 13))
def test_caf_that_lacks_its_last_bytes(tmp_path: Path, cut_bytes: int):
    (tmp_path / "a.caf").write_bytes(sound("CAF")[:-cut_bytes])
    message = rf"a\.caf: truncated: promises 12004 bytes of samples and has {12_004 - cut_bytes}"
    with pytest.raises(AudioReadError, match=message):
        probe(tmp_path / "a.caf")


def test_caf_with_a_chunk_behind_its_samples(tmp_path: Path):
    (tmp_path / "a.caf").write_bytes(sound("CAF") + b"note" + struct.pack(">Q", 5) + b"words")
    np.testing.assert_array_equal(read(tmp_path / "a.caf"), PCM)


def test_two_cafs_in_a_row(tmp_path: Path):
    content = sound("CAF")
    (tmp_path / "a.caf").write_bytes(content * 2)
    message = rf"promises 12004 bytes of samples, and after them come {len(content)} bytes that are no chunks"
    with pytest.raises(AudioReadError, match=message):
        read(tmp_path / "a.caf")


# -- which formats can be sought


@pytest.mark.parametrize("name", [*CODED, *LOSSLESS])
def test_whether_files_that_ffmpeg_reads_are_sought(tmp_path: Path, name: str):
    if name in CODED:
        path = write_lossy(tmp_path, name)
    else:
        path = write_lossless(tmp_path, name, (PCM.astype(np.int64) << (LOSSLESS[name][2] - 8)) >> 8)
    expected = name in LOSSLESS and name.endswith((".m4a", ".mp4", ".mov", ".wv", ".tta"))
    with AudioFile(path) as file:
        assert (file.info.seeks, file.seeks_exactly) == (expected, expected)


@pytest.mark.parametrize("subtype", ["PCM_16", "ULAW", "MS_ADPCM"])
def test_files_of_libsndfile_are_sought(tmp_path: Path, subtype: str):
    soundfile.write(tmp_path / "a.wav", PCM.T, 44_100, subtype=subtype)
    with AudioFile(tmp_path / "a.wav") as file:
        assert (file.info.seeks, file.seeks_exactly, file.info.lossy) == (True, True, subtype != "PCM_16")


def test_flac_is_sought_bare_and_not_in_ogg(tmp_path: Path):
    (tmp_path / "a.flac").write_bytes(flac_bytes(PCM, 16, promised=0))
    assert probe(tmp_path / "a.flac").seeks
    info = probe(write_lossless(tmp_path, "flac.ogg", PCM))
    assert (info.lossy, info.seeks) == (False, False)


def test_what_an_old_index_says_of_seeking_changes_no_file(tmp_path: Path):
    path = write_lossless(tmp_path, "flac.ogg", PCM)
    old = type(probe(path))(**{**vars(probe(path)), "seeks": True})
    with AudioFile(path, known=old) as file:
        assert not file.info.seeks
        np.testing.assert_array_equal(file.read(), PCM)


# -- no fault of the file

WITHOUT_DESCRIPTORS = """
import errno, os, resource, sys
import av, soundfile
from codes.data.audio.formats.plain_wav import open_plain_wav
from codes.data.audio.reader import AudioFile, AudioReadError, num_streams, probe, read

path = sys.argv[1]
audio = AudioFile(path)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
try:
    while True:
        taken.append(os.open(path, os.O_RDONLY))
except OSError:
    pass
for look in (probe, read, num_streams, AudioFile, lambda _: open_plain_wav(audio)):
    try:
        look(path)
    except OSError as error:
        assert not isinstance(error, AudioReadError), error
        assert error.errno == errno.EMFILE
        print(error)
for descriptor in taken:
    os.close(descriptor)
print(read(path).shape)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no resource limits there")
def test_too_many_open_files_are_no_fault_of_the_file(tmp_path: Path):
    path = tmp_path / "a.wav"
    path.write_bytes(sound("WAV"))
    root = Path(__file__).resolve().parents[3]
    command = [sys.executable, "-c", WITHOUT_DESCRIPTORS, str(path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    message = (
        f"[Errno {errno.EMFILE}] {path}: cannot be opened: this program has too many files open; the file may be "
        "sound: close some, or raise the limit (ulimit -n)"
    )
    assert done.stdout.splitlines() == [message] * 5 + ["(2, 3000)"]


def test_a_machine_out_of_files_is_no_fault_of_the_file(tmp_path: Path):
    error = opening_error(tmp_path / "a.wav", OSError(errno.ENFILE, "File table overflow"))
    assert not isinstance(error, AudioReadError)
    assert error.errno == errno.ENFILE
    assert "a.wav: cannot be opened: this machine has too many files open" in str(error)
