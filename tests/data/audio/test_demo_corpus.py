"""The demo corpus: the same bytes from a seed, whole or absent, stereo music at the level it says."""

import hashlib
import os
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from codes.data.audio import demo_corpus
from codes.data.audio.reader import probe, read


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo_corpus.demo_corpus(tmp_path_factory.mktemp("cache"))


def test_is_two_minutes_of_stereo_files(corpus: Path):
    infos = [probe(path) for path in sorted(corpus.iterdir())]
    assert len(infos) == demo_corpus.NUM_FILES
    assert {(info.num_channels, info.bits, info.sample_rate_hz) for info in infos} == {(2, 16, 22_050)}
    seconds = [info.num_frames / info.sample_rate_hz for info in infos]
    assert 100 < sum(seconds) < 140
    assert min(seconds) >= 8
    assert max(seconds) <= 12


def test_level_noise_floor_and_width(corpus: Path):
    for path in corpus.iterdir():
        pcm = read(path).astype(np.float64) / 32768
        assert 0.69 < np.abs(pcm).max() < 0.72, "peaks at -3 dBFS"
        silence = pcm[:, : int(0.1 * 22_050)]
        assert 5e-5 < silence.std() < 5e-4, "a noise floor before the first note"
        assert np.corrcoef(pcm)[0, 1] < 0.95, "left and right differ"


def test_is_made_once_and_is_complete_or_absent(corpus: Path):
    before = {path: path.stat().st_mtime_ns for path in corpus.iterdir()}
    assert demo_corpus.demo_corpus(corpus.parent) == corpus
    assert {path: path.stat().st_mtime_ns for path in corpus.iterdir()} == before
    assert list(corpus.parent.iterdir()) == [corpus], "nothing is left aside"


def test_files_follow_from_the_seed(corpus: Path):
    name, pcm = demo_corpus.compose(0, 3)
    np.testing.assert_array_equal(read(corpus / name), pcm)
    _, other = demo_corpus.compose(1, 3)
    assert other.shape != pcm.shape or (other != pcm).any()


def test_file_is_the_same_in_another_process():
    name, pcm = demo_corpus.compose(7, 0)
    code = (
        "import hashlib; from codes.data.audio.demo_corpus import compose; "
        "name, pcm = compose(7, 0); print(name, hashlib.sha256(pcm.tobytes()).hexdigest())"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.split() == [name, hashlib.sha256(pcm.tobytes()).hexdigest()]


def test_interrupted_synthesis_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    written = []

    def write_two(path: Path, pcm: np.ndarray) -> None:
        written.append(path)
        if len(written) > 2:
            raise KeyboardInterrupt
        path.touch()

    monkeypatch.setattr(demo_corpus, "write_wav", write_two)
    monkeypatch.setattr(demo_corpus, "compose", lambda seed, index: (f"{index}.wav", np.zeros((2, 1), np.int16)))
    with pytest.raises(KeyboardInterrupt):
        demo_corpus.demo_corpus(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_second_process_takes_the_first_ones_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def compose(seed: int, index: int) -> tuple[str, np.ndarray]:
        first = tmp_path / f"demo_corpus_v{demo_corpus.VERSION}_seed{seed}"
        first.mkdir(exist_ok=True)  # meanwhile, the other process has finished
        (first / "first.wav").touch()
        return f"{index}.wav", np.zeros((2, 1), np.int16)

    monkeypatch.setattr(demo_corpus, "compose", compose)
    folder = demo_corpus.demo_corpus(tmp_path)
    assert [path.name for path in folder.iterdir()] == ["first.wav"]
    assert list(tmp_path.iterdir()) == [folder]


def test_unwritable_cache_says_what_to_do(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot make the demo corpus in .*file.*WAVESCHOOL_CACHE"):
        demo_corpus.demo_corpus(tmp_path / "file")


def test_cache_root_follows_the_platform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("WAVESCHOOL_CACHE", str(tmp_path))
    assert demo_corpus.cache_root() == tmp_path
    monkeypatch.delenv("WAVESCHOOL_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("LOCALAPPDATA", "local")
    homes = {"linux": Path.home() / ".cache" / "waveschool", "win32": Path("local", "waveschool", "Cache")}
    for platform, expected in {**homes, "darwin": Path.home() / "Library" / "Caches" / "waveschool"}.items():
        monkeypatch.setattr(sys, "platform", platform)
        assert demo_corpus.cache_root() == expected


def test_written_wav_is_what_it_was(tmp_path: Path):
    pcm = np.array([[-32768, 0, 32767], [1, -1, 2]], np.int16)
    demo_corpus.write_wav(tmp_path / "a.wav", pcm)
    with wave.open(os.fspath(tmp_path / "a.wav")) as file:
        assert np.frombuffer(file.readframes(3), "<i2").reshape(3, 2).T.tolist() == pcm.tolist()
