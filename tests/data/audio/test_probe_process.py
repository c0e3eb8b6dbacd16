"""Probing in other processes: the same answers and errors as here, and a crash costs one file."""

import os
from pathlib import Path

import av
import numpy as np
import pytest

from codes.data.audio.listing import probe_process
from codes.data.audio.listing.index import build_index
from codes.data.audio.listing.probe_process import ProbeProcesses, is_costly
from codes.data.audio.reader import AudioReadError, probe


@pytest.fixture(autouse=True)
def _always_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_process, "_WORTH_A_PROCESS_BYTES", 1)


def mp3(path: Path, num_frames: int) -> Path:
    with path.open("wb") as file, av.open(file, "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=16000, layout="mono")
        pcm = np.random.default_rng(num_frames).integers(-9000, 9000, (1, num_frames)).astype(np.int16)
        fifo = av.AudioFifo()
        frame = av.AudioFrame.from_ndarray(pcm, "s16", "mono")
        frame.rate = 16000
        fifo.write(frame)
        while (part := fifo.read(576, partial=True)) is not None:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


def test_the_same_answers_as_here(tmp_path: Path) -> None:
    files = [mp3(tmp_path / f"{number}.mp3", 3000 + 1000 * number) for number in range(9)]
    files.append(mp3(tmp_path / os.fsdecode("é".encode() + b"\xff.mp3"), 5000))
    (tmp_path / "bad.mp3").write_bytes(b"no music")
    (tmp_path / "empty.m4a").touch()
    found = build_index([tmp_path], workers=4)
    assert {entry.path: entry.info for entry in found.entries} == {path: probe(path) for path in files}
    for name in ("bad.mp3", "empty.m4a"):
        with pytest.raises(AudioReadError) as here:
            probe(tmp_path / name)
        assert found.errors[tmp_path / name] == str(here.value)


def test_a_crash_costs_one_file(tmp_path: Path) -> None:
    path = mp3(tmp_path / "x.mp3", 4000)
    with ProbeProcesses(1, 10) as processes:
        info = processes.probe(path, None)
        (worker,) = processes._all
        assert worker._process is not None
        worker._process.kill()
        with pytest.raises(AudioReadError, match=r"x\.mp3: the decoder crashed over it \(exit status -9\)"):
            processes.probe(path, None)
        assert processes.probe(path, None) == info == probe(path)
        process = worker._process
    assert process.poll() is not None


def test_processes_are_started_only_where_that_is_worth_it(tmp_path: Path) -> None:
    path = mp3(tmp_path / "x.mp3", 4000)
    with ProbeProcesses(3, 0) as processes:
        assert processes.probe(path, None) == probe(path)
        assert processes._all == []
    assert is_costly(path)
    assert not is_costly(Path("x.FLAC"))
