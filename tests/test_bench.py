"""The benchmarks run, print their tables and write their figures; how they count and judge is right."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parents[1]
TINY = ["--rounds", "1", "--reads", "16", "--steps", "3", "--chunk-seconds", "0.1"]


def run(*arguments: str) -> str:
    command = [sys.executable, str(ROOT / "scripts" / "bench.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def bench_data(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module("bench_data")


@pytest.fixture
def bench_rounds(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module("bench_rounds")


def test_trainer(tmp_path: Path) -> None:
    file = tmp_path / "trainer.json"
    experiment = str(ROOT / "experiments" / "tiny_cpu.yml")
    printed = run("trainer", "-opt", experiment, "--rounds", "2", "--json", str(file))
    assert "operations a step: bare" in printed
    assert "bare / bare (A/A)" in printed
    assert "NOT DECLARED" not in printed
    figures = json.loads(file.read_text())
    assert {"operations_bare", "operations_trainer", "ratio", "ratio_bare_to_bare", "rounds"} <= set(figures)
    assert figures["syncs_trainer"] == 0


def test_data(tmp_path: Path) -> None:
    for number in range(3):
        pcm = np.random.default_rng(number).integers(-3000, 3000, (40_000, 2)).astype(np.int16)
        soundfile.write(tmp_path / f"{number}.wav", pcm, 8000)
    file = tmp_path / "data.json"
    printed = run("data", *TINY, "--path", str(tmp_path), "--json", str(file))
    assert "random stereo chunks of 800 frames from 0.2 minutes, 1 rounds in turns" in printed
    figures = json.loads(file.read_text())
    assert set(figures) == {
        "rounds", "chunk_frames", "audio_seconds", "speed", "bytes", "same_batches", "dtypes", "wait", "targets",
    }  # fmt: skip
    for name in (*figures["speed"], *figures["bytes"], *(row["what"] for row in figures["targets"])):
        assert name in printed
    assert {"soundfile WAV float32", "soundfile WAV float32 (A/A)", "dataset WAV", "dataset cached PCM"} <= set(
        figures["speed"]
    )
    assert figures["same_batches"] is True
    assert set(figures["dtypes"].values()) == {"torch.int16"}
    assert 0 <= figures["wait"]["share"] <= figures["wait"]["largest"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.wav", "1.wav", "2.wav", "data.json"]


def test_a_folder_without_wav_is_named(bench_data: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"there is no \.wav file"):
        bench_data.Corpus(tmp_path / "made", tmp_path, 1.0, 0.1)


def test_made_audio_is_what_the_targets_speak_of(bench_data: ModuleType, tmp_path: Path) -> None:
    corpus = bench_data.Corpus(tmp_path, None, 0.5, 0.1)
    assert len(corpus.wav_files) == 6
    for wav, flac in zip(corpus.wav_files, corpus.flac_files, strict=True):
        assert (soundfile.info(wav).samplerate, soundfile.info(wav).subtype) == (44_100, "PCM_16")
        np.testing.assert_array_equal(soundfile.read(wav, dtype="int16")[0], soundfile.read(flac, dtype="int16")[0])
    places = corpus.places()
    assert all(0 <= start <= 22_050 - 4410 for _, start in (next(places) for _ in range(100)))


@pytest.mark.parametrize(
    ("places", "covered"),
    [
        ([("a", 5)], 10),
        ([("a", 0), ("a", 10)], 20),
        ([("a", 4), ("a", 0), ("a", 4)], 14),
        ([("a", 0), ("b", 5)], 20),
        ([("b", 3), ("a", 0), ("a", 30), ("b", 0)], 33),
    ],
)
def test_frames_that_chunks_share_are_counted_once(
    bench_data: ModuleType, places: list[tuple[str, int]], covered: int
) -> None:
    assert bench_data.covered_frames(places, 10) == covered


def test_the_clock_leaves_out_preparation(bench_rounds: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes its own time; the first runs again at the end; the first round does not count."""
    now, order = [0.0], []
    monkeypatch.setattr(bench_rounds.time, "perf_counter", lambda: now[0])

    def busy(name: str, seconds: float, pieces: int) -> Any:
        def go() -> int:
            order.append(name)
            now[0] += seconds
            return pieces

        def pause() -> None:
            now[0] += 100.0

        return bench_rounds.Run(go=go, prepare=pause, finish=pause)

    runs = {"a": busy("a", 2.0, 1), "b": busy("b", 6.0, 2), "c": busy("c", 1.0, 1)}
    assert bench_rounds.in_turns(runs, 2) == {"a": [2.0, 2.0], "b": [3.0, 3.0], "c": [1.0, 1.0], "a (A/A)": [2.0, 2.0]}
    assert "".join(order) == "abca" + "acba" + "abca"


def test_quartiles(bench_rounds: ModuleType) -> None:
    assert bench_rounds.quartiles([4.0, 1.0, 2.0, 3.0, 5.0]) == [2.0, 3.0, 4.0]
    assert bench_rounds.quartiles([7.0]) == [7.0, 7.0, 7.0]


def figures_that_reach_everything() -> dict[str, Any]:
    return {
        "speed": {
            "dataset WAV": {"ratio": [3.0, 4.0, 5.0]},
            "dataset cached PCM": {"ratio": [9.0, 10.0, 11.0]},
            "dataset FLAC": {"ratio_to_faster_soundfile_flac": [0.9, 1.0, 1.1]},
        },
        "bytes": {
            "dataset WAV": {"by_read_calls": 1.0, "from_disk": 1.1},
            "dataset cached PCM": {"by_read_calls": 0.0, "from_disk": 1.1},
        },
        "wait": {"share": 0.01},
        "same_batches": True,
        "dtypes": {"WAV": "torch.int16", "FLAC": "torch.int16"},
    }


def test_targets_at_their_limits_are_reached(bench_data: ModuleType) -> None:
    rows = bench_data.targets(figures_that_reach_everything())
    assert len(rows) == 8
    assert all(row["reached"] is True for row in rows)


@pytest.mark.parametrize(
    ("place", "value", "which"),
    [
        (("speed", "dataset WAV", "ratio"), [4, 3.99, 5], 0),
        (("speed", "dataset cached PCM", "ratio"), [10, 9.99, 11], 1),
        (("speed", "dataset FLAC", "ratio_to_faster_soundfile_flac"), [1, 0.99, 1], 2),
        (("bytes", "dataset WAV", "from_disk"), 1.11, 3),
        (("bytes", "dataset WAV", "by_read_calls"), 1.11, 3),
        (("bytes", "dataset cached PCM", "from_disk"), 1.11, 4),
        (("wait", "share"), 0.011, 5),
        (("same_batches",), False, 6),
        (("dtypes", "FLAC"), "torch.int32", 7),
    ],
)
def test_targets_that_are_missed_are_said(
    bench_data: ModuleType, place: tuple[str, ...], value: Any, which: int
) -> None:
    figures = figures_that_reach_everything()
    inner = figures
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    reached = [row["reached"] for row in bench_data.targets(figures)]
    assert [number for number, good in enumerate(reached) if not good] == [which]


def test_bytes_that_nobody_counted_are_neither_reached_nor_missed(bench_data: ModuleType) -> None:
    figures = figures_that_reach_everything()
    figures["bytes"]["dataset cached PCM"]["from_disk"] = None
    assert bench_data.targets(figures)[4]["reached"] is None
