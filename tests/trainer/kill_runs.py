"""Trains experiments many times and kills each run with SIGKILL at another moment; test_kill.py continues them.

    python kill_runs.py EXPERIMENT FOLDER NUM TIMES [EXPERIMENT FOLDER NUM TIMES ...]

Leaves NUM runs, each under FOLDER/N, killed at its moment N and, where TIMES is 2, once more after it was continued.
A moment is a file opened, renamed or removed, a folder made or removed, or an item taken from the dataset. Each run is
a forked child, so that torch is imported once.
"""

import os
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
EVENTS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "toy.item")
SECOND = 61  # the moment of the second kill


def train(file: Path, root: Path, moment: int | None) -> int:
    """Train in this process and count its moments; the one of that number is its last."""
    from codes.experiment import load_experiment
    from codes.trainer.extensible_trainer import ExtensibleTrainer

    process, passed = os.getpid(), 0
    trainer = ExtensibleTrainer(load_experiment(file, [f"path.root={root}"]))

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal passed
        if event not in EVENTS or os.getpid() != process:
            return
        path = str(arguments[0])  # rmtree removes by names relative to the folder
        if event not in ("toy.item", "os.remove", "os.rmdir") and not path.startswith(str(root)):
            return
        passed += 1
        if passed == moment:
            os.kill(process, signal.SIGKILL)

    sys.addaudithook(watch)
    trainer.train()
    return passed


def forked(file: Path, root: Path, moment: int | None) -> tuple[bool, int]:
    """Train in a child: (whether it was killed, its moments if not)."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, str(train(file, root, moment)).encode())
        os._exit(0)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading) as pipe:
        count = int(pipe.read() or 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed or status == 0, f"{file}, moment {moment}: status {status}"
    return killed, count


def main() -> None:
    """Count the moments of each experiment, then kill at some of them."""
    import torch

    from codes.trainer import extensible_trainer  # noqa: F401 (imported before the fork, as what an optimizer imports)

    torch.set_num_threads(1)
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    torch.optim.AdamW([weight], fused=True).step()
    for at in range(1, len(sys.argv), 4):
        file, folder = Path(sys.argv[at]), Path(sys.argv[at + 1])
        num, times = map(int, sys.argv[at + 2 : at + 4])
        _, total = forked(file, folder.with_name(folder.name + "_count"), None)
        for moment in sorted({1 + (2 * n + 1) * total // (2 * num) for n in range(num)}):
            killed, _ = forked(file, folder / str(moment), moment)
            assert killed, f"{file}: moment {moment} of {total} was not reached"
            if times == 2:
                forked(file, folder / str(moment), SECOND)


if __name__ == "__main__":
    main()
