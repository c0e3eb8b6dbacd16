"""Thousands of mutated files: each is read consistently or refused by name; no crash, no hang, no other error."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.data.audio.reader_fuzzer import mutate, outcome, seed_files

FILES = seed_files()


@pytest.mark.parametrize("name", sorted(FILES))
def test_mutated_files_are_read_consistently_or_refused(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]):
    outcomes = set()
    for seed in range(400 if name.endswith((".wav", ".flac")) else 100):
        rng = np.random.default_rng([seed, 7])
        (tmp_path / name).write_bytes(mutate(FILES[name], rng))
        outcomes.add(outcome(tmp_path / name, rng))
    assert "refused" in outcomes
    assert capfd.readouterr() == ("", ""), "nothing of FFmpeg's or libsndfile's spills onto the terminal"


@pytest.mark.parametrize("name", sorted(FILES))
def test_the_files_are_sound_before_they_are_mutated(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(FILES[name])
    assert outcome(tmp_path / name, np.random.default_rng(0)) == "read"


@pytest.mark.parametrize(
    "name", ["verbatim.flac", "verbatim12.flac", "a.wav", "a.aiff", "a.rf64", "a.caf", "a.w64", "a.au"]
)
def test_every_shortening_is_refused(tmp_path: Path, name: str):
    size = len(FILES[name])
    for length in sorted({*range(1, size, 97), *range(1, 150), *range(size - 150, size)}):
        (tmp_path / name).write_bytes(FILES[name][:length])
        assert outcome(tmp_path / name, np.random.default_rng(0)) == "refused", length


@pytest.mark.skipif(sys.platform == "win32", reason="no resource limits there")
def test_fuzzer_runs_as_a_program():
    root = Path(__file__).resolve().parents[3]
    command = [sys.executable, "tests/data/audio/reader_fuzzer.py", "150"]
    done = subprocess.run(command, cwd=root, env={"PYTHONPATH": "."}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "150 mutations" in done.stdout
    assert not done.stderr, "nothing of FFmpeg's or libsndfile's spills onto the terminal"
