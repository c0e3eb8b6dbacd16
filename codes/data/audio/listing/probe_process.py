"""Probing in other processes: files whose length is only known once they are decoded, which threads cannot share.

A worker is this module run by itself: it reads one JSON object a line (``path``, ``float_bits``) and answers with one
(the fields of `AudioInfo`, or ``error``). So it needs nothing of the program that started it, whatever that is, and a
decoder that crashes takes only its own process with it.
"""

import json
import os
import queue
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from codes.data.audio.reader import AudioInfo, AudioReadError, SilentVideoError, probe

# Formats whose header says how long they are: to open them costs less than to ask another process.
_TOLD_BY_HEADER = (
    *(".wav", ".wave", ".bwf", ".rf64", ".w64", ".flac", ".aif", ".aiff", ".aifc", ".caf", ".au", ".snd"),
)
_WORTH_A_PROCESS_BYTES = 20_000_000


def is_costly(path: Path) -> bool:
    """Whether a file has to be decoded to know how long it is, by its name."""
    return path.suffix.lower() not in _TOLD_BY_HEADER


class ProbeProcesses:
    """Worker processes that several threads share; a context manager.

    Args:
        num_processes: how many at most; they are started when they are first needed.
        costly_bytes: the size of all files together that are costly; of few, nothing is gained and none is started.
    """

    def __init__(self, num_processes: int, costly_bytes: int) -> None:
        num_processes = num_processes if costly_bytes >= _WORTH_A_PROCESS_BYTES and sys.executable else 0
        self._free: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._all = [_Worker() for _ in range(num_processes)]
        for worker in self._all:
            self._free.put(worker)

    def __enter__(self) -> "ProbeProcesses":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._all:
            worker.stop()

    def probe(self, path: Path, float_bits: int | None) -> AudioInfo:
        """As `codes.data.audio.reader.probe`; waits for a free process where that is worth it.

        Raises:
            AudioReadError: the file cannot be read, or the decoder crashed over it.
        """
        if not self._all or not is_costly(path):
            return probe(path, float_bits=float_bits)
        worker = self._free.get()
        try:
            return worker.probe(path, float_bits)
        finally:
            self._free.put(worker)


class _Worker:
    """One process, used by one thread at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def probe(self, path: Path, float_bits: int | None) -> AudioInfo:
        process = self._process = self._process or _start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps({"path": str(path), "float_bits": float_bits}).encode() + b"\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
        except (OSError, ValueError) as error:
            self.stop()
            message = f"{path}: the decoder crashed over it (exit status {process.returncode})"
            raise AudioReadError(message) from error
        if "error" in answer:
            raise (SilentVideoError if answer["is_silent_video"] else AudioReadError)(answer["error"])
        return AudioInfo(**answer)

    def stop(self) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        process.kill()  # it holds nothing that must be saved
        process.communicate()


def _start() -> "subprocess.Popen[bytes]":
    root = str(Path(__file__).resolve().parents[3])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
    command = [sys.executable, "-m", "codes.data.audio.listing.probe_process"]
    return subprocess.Popen(  # in a session of its own, so that ctrl-C ends the parent and it ends with the parent
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
    )


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    try:
        return vars(probe(Path(request["path"]), float_bits=request["float_bits"]))
    except AudioReadError as error:
        return {"error": str(error), "is_silent_video": isinstance(error, SilentVideoError)}
    except OSError as error:
        return {"error": f"{request['path']}: cannot be read: {error.strerror}", "is_silent_video": False}


def _serve() -> None:
    for line in sys.stdin.buffer:
        print(json.dumps(_answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    _serve()
