"""Updates that are not finite: skipped and counted, and after too many of them a stop that says what to look at."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from codes.trainer.nonfinite import NonFiniteError

ROOT = Path(__file__).resolve().parents[2]
L2 = {"type": "pix", "criterion": "l2", "real": "y", "fake": "fake"}
PREDICT = {"type": "generator", "generator": "net", "in": "x", "out": "fake"}


def bad_from(step: int, to: int | None = None) -> dict[str, Any]:
    """A loss that is NaN at these steps, beside the usual one."""
    return {"steps.fit.losses": {"error": L2, "bad": {"type": "toy_nan", "fake": "fake", "after": step, "before": to}}}


@pytest.mark.parametrize("factor", [1, 3])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_update_is_skipped(toys: Any, weights: Any, same: Any, factor: int, clip: float | None) -> None:
    """Bit-equal weights at that step; training goes on, and equals a run that never saw the batch's gradient."""
    changes = {"train.mega_batch_factor": factor, "steps.fit.clip_grad_eps": clip}
    trainer = toys().trainer(bad_from(3, 4) | changes)
    moved = []
    for _ in range(6):
        before = weights(trainer)
        trainer.train_step()
        moved.append(not same(before, weights(trainer)))
    assert moved == [True, True, False, False, True, True]
    assert all(torch.isfinite(value).all() for value in weights(trainer).values())


def test_skipped_updates_are_counted(toy: Any, lines: Any) -> None:
    trainer = toy.train(bad_from(3, 4) | {"train.niter": 7})
    found = {line["step"]: line for line in lines(trainer.folder.path)}
    assert [found[step].get("skipped_updates.net", 0) for step in range(1, 8)] == [0, 0, 1, 2, 2, 2, 2]
    assert [found[step]["grad_norm.net"] is None for step in range(1, 8)] == [False, False, True, True] + [False] * 3
    assert all(line["error"] > 0 for line in found.values())


def test_counts_survive_a_restart(toys: Any, lines: Any) -> None:
    whole, parts = toys(), toys()
    whole.train(bad_from(2, 3) | {"train.niter": 6})
    for niter in (2, 6):
        parts.train(bad_from(2, 3) | {"train.niter": niter})
    assert lines(whole.folder / "runs/toy") == lines(parts.folder / "runs/toy")


def test_a_figure_that_is_not_finite_is_null_not_zero(toy: Any, lines: Any) -> None:
    """Where every step since the last line was NaN there is no loss to report: neither NaN (no JSON) nor 0."""
    changes = {"steps.fit.losses": {"bad": {"type": "toy_nan", "fake": "fake"}}, "train.niter": 3}
    for line in lines(toy.train(changes).folder.path):
        assert line.get("loss") is None
        assert line.get("bad") is None


def test_validation_that_is_not_finite_is_never_the_best(toy: Any, lines: Any) -> None:
    """One val item is NaN: the figures must not be those of the others."""
    trainer = toy.train({
        "datasets.val": {"num_items": 8, "batch_size": 4, "nan_items": [6]}, "train.val_freq": 2,
    })  # fmt: skip
    for line in lines(trainer.folder.path):
        if line["split"] == "val":
            assert line.get("loss") is None
            assert line.get("error") is None
    assert trainer.best is None


def stopped(toy: Any, changes: dict[str, Any]) -> tuple[str, Any]:
    trainer = toy.trainer({"train.max_nonfinite_steps": 4, "train.niter": 50} | changes)
    with pytest.raises(NonFiniteError) as caught:
        trainer.train()
    return str(caught.value), trainer


def test_stops_after_too_many(toy: Any) -> None:
    message, trainer = stopped(toy, bad_from(3))
    assert trainer.step == 6
    assert message.startswith("step 6: the last 4 updates of network net were skipped, their gradients were not finite")
    batch = trainer.parts.train_loader.batch(5)
    assert f"files of the batch: {', '.join(dict.fromkeys(batch['path']))}" in message
    where = f"{toy.file}:{toy.line('type: toy_nan')}"
    assert re.search(rf"first non-finite value: 'loss bad' .*{re.escape(where)}", message)


def test_fewer_do_not_stop(toy: Any) -> None:
    toy.train(bad_from(3, 5) | {"train.max_nonfinite_steps": 4, "train.niter": 10})


def test_the_streak_goes_on_through_a_restart(toy: Any) -> None:
    changes = bad_from(3) | {"train.max_nonfinite_steps": 4}
    toy.train(changes | {"train.niter": 4})
    message, trainer = stopped(toy, changes)
    assert trainer.step == 6
    assert "the last 4 updates" in message


def test_the_stop_waits_for_a_log_line_at_most(toy: Any) -> None:
    message, trainer = stopped(toy, bad_from(3) | {"logger.print_freq": 10})
    assert trainer.step == 10
    assert "the last 8 updates" in message


def test_first_key_of_the_dataset(toy: Any) -> None:
    message, _ = stopped(toy, {"datasets.train.nan_items": list(range(24))})
    assert re.search(r"first non-finite value: 'x' \(8, 6\) float32, 8 of 48 \(the dataset\)", message)


def test_first_key_of_an_injector(toy: Any) -> None:
    changes = {
        "steps.fit.injectors": {
            "double": {"type": "toy_doubles", "in": "x", "out": "twice"},
            "overflow": {"type": "denormalize", "scale": 1e38, "shift": 1e38, "in": "twice", "out": "huge"},
            "again": {"type": "denormalize", "scale": 1e38, "in": "huge", "out": "z"},
            "predict": PREDICT | {"in": "z"},
        },
    }
    message, _ = stopped(toy, changes)
    where = f"{toy.file}:{toy.line('again:') + 1}"
    first = re.search(r"first non-finite value: '(\w+)' .* \((.*), (\w+) of step fit\)", message)
    assert first is not None
    assert first[1] in ("huge", "z")
    assert first[2].startswith(where.rsplit(":", 1)[0])


@pytest.mark.parametrize("item", range(8))
def test_found_in_any_micro_batch(toy: Any, item: int) -> None:
    """The NaN may be in the last of four micro-batches."""
    changes = {
        "datasets.train": {"mode": "toy_numbers", "num_items": 8, "batch_size": 8, "nan_items": [item]},
        "train.mega_batch_factor": 4,
    }
    message, _ = stopped(toy, changes)
    assert re.search(r"first non-finite value: 'x' .* 1 of \d+ \(the dataset\)", message)
    assert f"item_{item}.wav" in message


def test_first_gradient(toy: Any) -> None:
    """All values are finite but a gradient is not: the square root at 0."""
    changes = {
        "networks.net": {"which_model": "toy_scale", "kwargs": {"start": 0.0}},
        "plugins": [str(toy.folder / "root.py"), str(Path(__file__).with_name("toys.py"))],
        "steps.fit.injectors.root": {"type": "square_root", "in": "fake", "out": "rooted"},
        "steps.fit.losses.error": L2 | {"fake": "rooted"},
    }
    (toy.folder / "root.py").write_text(
        "from codes.trainer.injector import Injector\n\n\n"
        "class SquareRootInjector(Injector):\n    '''x -> sqrt |x|.'''\n\n"
        "    def forward(self, x):\n        return x.abs().sqrt()\n"
    )
    message, _ = stopped(toy, changes)
    assert "all values are finite; first non-finite gradient: parameter factor of network net" in message


def test_every_network_is_watched(toy: Any) -> None:
    """The second of two steps that train one network is watched as the first is."""
    second = {
        "training": "net",
        "injectors": {"predict": PREDICT | {"out": "fake2"}},
        "losses": {"bad": {"type": "toy_nan", "fake": "fake2"}},
    }
    message, _ = stopped(toy, {"steps.again": second})
    assert "updates of network net were skipped" in message


def test_command_stops_with_status_1_and_the_replay_runs(toy: Any) -> None:
    """The command in the message, as it stands there, shows the value and its line."""
    file = toy.write({"datasets.train.nan_items": list(range(24)), "train.max_nonfinite_steps": 3, "train.niter": 50})
    command = [sys.executable, str(ROOT / "train.py"), "-opt", str(file), "train.warmup_iter=2"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=toy.folder)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    (replay,) = re.findall(r"^replay it with: python (train\.py .*)$", done.stderr, re.M)
    assert "train.warmup_iter=2" in replay
    again = subprocess.run([sys.executable, *shlex.split(replay)], capture_output=True, text=True, cwd=ROOT)
    assert again.returncode == 0, again.stderr
    assert "batch 3 of" in again.stdout
    assert re.search(r"^first non-finite value: 'x'", again.stdout, re.M)
    rows = {line.split()[0] for line in again.stdout.splitlines() if line.strip()}
    assert {"x", "y", "fake"} <= rows


def test_the_run_can_go_on_after_the_stop(toy: Any) -> None:
    """The stop's own checkpoint is no checkpoint of the run; without the fault the run continues from its last one."""
    changes = {"logger.save_checkpoint_freq": 2, "train.max_nonfinite_steps": 4}
    stopped(toy, changes | bad_from(3))
    trainer = toy.trainer(changes | bad_from(3) | {"train.niter": 50})
    assert trainer.step == 4
    kept = toy.folder / "runs/toy/nonfinite"
    assert [path.name for path in kept.iterdir()] == ["step_00000006"]
