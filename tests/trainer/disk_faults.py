"""A disk that fails at its k-th operation, for a run in this process; and, by hand, every k of whole runs.

    python tests/trainer/disk_faults.py FOLDER -opt EXPERIMENT [--kinds full read_only denied once]

What a run does to its folder goes through a few functions: opening and writing files, fsync, making and removing
folders, renaming. Each is counted here and may be refused, as a full disk (what takes room fails from then on), a
read-only one, or a folder without permission (everything fails from then on), or once only. Files that Python does not
write itself (torch.save, safetensors) are left half written, with the errors that those libraries have for it.
"""

import argparse
import builtins
import errno
import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from safetensors import SafetensorError

from codes.trainer import commands
from codes.trainer.checkpoint import list_checkpoints, verify
from codes.trainer.metrics import WALL_CLOCK, read_metrics

KINDS = {"full": errno.ENOSPC, "read_only": errno.EROFS, "denied": errno.EACCES, "once": errno.EIO}
FREES = ("os.unlink", "os.remove", "os.rmdir")  # a full disk lets them pass


class NoSuchOperationError(Exception):
    """The run had fewer of them."""


class Disk:
    """Counts operations below a folder, and refuses them from the k-th on.

    Args:
        folder: operations elsewhere pass.
        kind: one of KINDS.
        fail_at: the operation, from 1; 0 counts only.
    """

    def __init__(self, folder: Path, kind: str = "full", fail_at: int = 0) -> None:
        self.folder, self.kind, self.fail_at = str(folder), kind, fail_at
        self.count = 0
        self.names: list[str] = []

    def ask(self, name: str, path: Any) -> None:
        """Count an operation; OSError where the disk refuses it."""
        text = "" if path is None else os.fsdecode(path)
        if text.startswith("/") and not text.startswith(self.folder):
            return
        self.count += 1
        self.names.append(f"{name} {text.removeprefix(self.folder)}")
        due = self.count == self.fail_at if self.kind == "once" else 0 < self.fail_at <= self.count
        if due and not (self.kind == "full" and name in FREES):
            number = KINDS[self.kind]
            raise OSError(number, os.strerror(number), *([text] if name != "write" else []))

    def _of_os(self, name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(path: Any, *args: Any, **options: Any) -> Any:
            self.ask(f"os.{name}", None if isinstance(path, int) else path)
            return real(path, *args, **options)

        return call

    def _open(self, file: Any, mode: str = "r", buffering: int = -1, *args: Any, **options: Any) -> Any:
        path: Any = file
        if isinstance(file, int) or not set(mode) & set("wax+") or not os.fsdecode(path).startswith(self.folder):
            return REAL_OPEN(file, mode, buffering, *args, **options)
        self.ask("open", file)
        raw = _Raw(self, os.fsdecode(path), mode.replace("b", "").replace("t", ""))
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *args, **options)

    def _library(self, error: Callable[[str], Exception], real: Callable[..., Any]) -> Callable[..., Any]:
        def call(value: Any, path: Any, *args: Any, **options: Any) -> Any:
            try:
                self.ask("write", path)
            except OSError as refused:
                if self.kind == "full":
                    real(value, path, *args, **options)
                    os.truncate(path, os.path.getsize(path) // 2)
                raise error(str(refused)) from None
            return real(value, path, *args, **options)

        return call

    @contextmanager
    def attached(self) -> Iterator["Disk"]:
        """Everything inside goes to this disk."""
        import safetensors.torch

        functions: Any = {name: self._of_os(name) for name in OS_FUNCTIONS}
        with mock.patch.multiple(os, **functions), \
             mock.patch.object(builtins, "open", self._open), mock.patch.object(io, "open", self._open), \
             mock.patch.object(torch, "save", self._library(RuntimeError, torch.save)), \
             mock.patch.object(safetensors.torch, "save_file",
                               self._library(SafetensorError, safetensors.torch.save_file)):  # fmt: skip
            yield self


REAL_OPEN = io.open
OS_FUNCTIONS = ("fsync", "mkdir", "rename", "replace", "unlink", "remove", "rmdir")


class _Raw(io.FileIO):
    def __init__(self, disk: Disk, path: str, mode: str) -> None:
        super().__init__(path, mode)
        self.disk = disk

    def write(self, data: Any) -> int:
        self.disk.ask("write", self.name)
        return super().write(data)


def command(file: Path, *overrides: str) -> tuple[int, str]:
    """Exit status and messages of `python train.py -opt FILE`, in this process.

    Raises:
        Exception: where the command would end with a traceback.
    """
    arguments = argparse.Namespace(
        opt=file, overrides=list(overrides), check=False, doctor=False, fresh=False, replay=None, list=None, schema=None
    )
    said = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(said):
        status = commands.run(arguments)
    return status, said.getvalue()


def lines(run: Path) -> list[dict[str, Any]]:
    """A run's metrics without what the clock decides."""
    return [{k: v for k, v in line.items() if k not in WALL_CLOCK} for line in read_metrics(run / "metrics.jsonl")]


def survive(file: Path, run: Path, kind: str, fail_at: int, whole: Path) -> str:
    """Let the k-th operation fail, then give the command again; what the first one said ("" where it went on).

    Args:
        file: the experiment.
        run: its folder.
        kind: see KINDS.
        fail_at: k.
        whole: folder of the same run, undisturbed.
    """
    override = f"path.root={run.parent}"
    with Disk(run.parent, kind, fail_at).attached() as disk:
        status, said = command(file, override)
    if disk.count < fail_at:
        raise NoSuchOperationError
    where = f"{kind} at {fail_at}, {disk.names[fail_at - 1]}"
    assert (status, bool(said)) in ((0, False), (1, True)), f"{where}: status {status}, {said!r}"
    assert "Traceback" not in said, f"{where}: {said}"
    assert not said or "writ" in said or "moved" in said, f"{where}: {said}"
    for checkpoint in list_checkpoints(run / "checkpoints"):
        verify(checkpoint)
    again, said_again = command(file, override)
    assert (again, said_again) == (0, ""), f"{where}: then {said_again}"
    assert lines(run) == lines(whole), f"{where}: other metrics"
    last, expected = (list_checkpoints(folder / "checkpoints")[-1] for folder in (run, whole))
    verify(last)
    for weights in expected.glob("*.safetensors"):
        assert (last / weights.name).read_bytes() == weights.read_bytes(), f"{where}: other weights"
    return said


def matrix(file: Path, folder: Path, kinds: tuple[str, ...], whole: Path) -> Iterator[tuple[int, str]]:
    """Every operation of a run refused in turn, the kinds taking turns as well; yields the operation and what was said.

    Args:
        file: the experiment.
        folder: for the runs, one after the other.
        kinds: of refusal; each operation is refused in one of these ways.
        whole: folder of an undisturbed run.
    """
    fail_at = 0
    while True:
        fail_at += 1
        root = folder / str(fail_at)
        root.mkdir()
        kind = kinds[fail_at % len(kinds)]
        try:
            yield fail_at, survive(file, root / whole.name, kind, fail_at, whole)
        except NoSuchOperationError:
            return
        finally:
            shutil.rmtree(root)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for the runs; one in memory saves time")
    parser.add_argument("-opt", type=Path, required=True, help="an experiment; make it short by overrides in the file")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    arguments = parser.parse_args()
    whole = arguments.folder / "whole"
    status, said = command(arguments.opt, f"path.root={whole}")
    assert status == 0, said
    (run,) = whole.iterdir()
    for kind in arguments.kinds:
        ended = [said for _, said in matrix(arguments.opt, arguments.folder, (kind,), run)]
        print(f"{kind}: {len(ended)} operations refused; the run ended with a message at {sum(map(bool, ended))}")
    shutil.rmtree(whole)


if __name__ == "__main__":
    main()
