"""Hyper-parameter search: the space and its errors, real trials, resuming, halving, the table and the picture."""

import csv
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import train
from codes.trainer import sweep as sweep_module
from codes.trainer.sweep import Running, Sweep, start_run
from codes.trainer.sweep_report import parallel_coordinates, ranked, rows, table_text, write
from codes.trainer.sweep_space import grid, read_space
from codes.yaml_source import OptionError
from scripts import sweep as command

LR = "steps.fit.optimizer_params.lr"
pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]


class Forked:
    """A run of train.py in a child of this process, which need not import anything again.

    Args:
        arguments, log, environment: as `start_run` takes them.
    """

    def __init__(self, arguments: list[str], log: Any, environment: dict[str, str]) -> None:
        self.code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            self._run(arguments, log)

    def _run(self, arguments: list[str], log: Any) -> None:
        code = 1
        try:
            os.setsid()
            for number in (1, 2):
                os.dup2(log.fileno(), number)
            sys.stdout = sys.stderr = os.fdopen(1, "w")
            sys.argv = ["train.py", *arguments]
            code = train.main()
            sys.stdout.flush()
        finally:
            os._exit(code)  # nothing of the parent's is closed or written

    def poll(self) -> int | None:
        return self._reap(os.WNOHANG)

    def wait(self) -> int | None:
        return self._reap(0)

    def _reap(self, options: int) -> int | None:
        if self.code is None:
            pid, status = os.waitpid(self.pid, options)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def send_signal(self, sig: int) -> None:
        os.kill(self.pid, sig)


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_module, "POLL_SECONDS", 0.02)
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])  # the first optimizer imports much, once for all forks


@pytest.fixture
def search(toy: Any, tmp_path: Path) -> Callable[..., Sweep]:
    """`search(space, **options)`: a sweep over the toy experiment, in tmp_path/out."""
    experiment = toy.write({"train.niter": 9, "train.val_freq": 1, "datasets.val": {"batch_size": 8}})

    def make(space: str, **options: Any) -> Sweep:
        file = tmp_path / "space.yml"
        file.write_text(space)
        overrides = options.pop("overrides", [])
        settings = {
            "sampler": "random",
            "trials": 2,
            "jobs": 1,
            "seed": 0,
            "say": lambda text: None,
            "start": Forked,
            **options,
        }
        found = read_space(file, experiment, overrides)
        return Sweep(experiment, found, tmp_path / "out", overrides=overrides, **{"start": Forked, **settings})

    return make


def states(sweep: Sweep) -> list[str]:
    return [trial.state.name for trial in sweep.study.get_trials()]


def test_everything_wrong_with_a_space_is_said_with_its_line(toy: Any, tmp_path: Path) -> None:
    space = tmp_path / "space.yml"
    space.write_text(
        "steps.fit.optimizer_params.lrr: [1e-3]\n"
        f"{LR}: {{low: 0.0, high: 1.0}}\n"
        "train.niter: {low: 5, hihg: 9}\n"
        "datasets.train.batch_size: {low: 9, high: 5}\n"
        "networks.net.kwargs.hidden: []\n"
        "train.warmup_iter: 7\n"
        "train.eta_min: {low: 0.0, high: 1.0, log: true}\n"
        "train.lr_gamma: {low: 0.1, high: 1.0, num: 0}\n"
        "name: [one, other]\n"
        "train.val_freq: {low: 1, high: 4, num: .nan}\n"
        "train.save_freq: {low: 1, high: 4, step: .inf}\n"
    )
    with pytest.raises(OptionError) as raised:
        read_space(space, toy.write(), [])
    found = {(mark.line, message) for mark, message in raised.value.problems}
    expected = [
        (1, "unknown key 'lrr' in steps.fit.optimizer_params; did you mean 'lr'?"),
        (2, "above 0"),
        (3, "train.niter: unknown key 'hihg'; did you mean 'high'?"),
        (3, "train.niter: a range needs numbers low and high"),
        (10, "train.val_freq: a range needs numbers low and high"),
        (11, "train.save_freq: a range needs numbers low and high"),
        (4, "datasets.train.batch_size: low is 9, above high, 5"),
        (5, "networks.net.kwargs.hidden: the list of values is empty"),
        (6, "train.warmup_iter: expected a list of values or {low, high}, got 7"),
        (7, "train.eta_min: low is 0.0: a logarithmic range begins above 0"),
        (8, "train.lr_gamma: num is 0: it must be a whole number of 1 or more"),
        (9, "name: the search itself sets it, for each trial"),
    ]
    for line, text in expected:
        assert any(place == line and text in message for place, message in found), text
    assert all(str(space) in line for line in str(raised.value).splitlines())


def test_a_missing_or_empty_space_is_an_error(toy: Any, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="the space file does not exist"):
        read_space(tmp_path / "none.yml", toy.write(), [])
    (tmp_path / "empty.yml").write_text("# nothing\n")
    with pytest.raises(OptionError, match="the space names no key"):
        read_space(tmp_path / "empty.yml", toy.write(), [])


def test_points_of_a_grid(toy: Any, tmp_path: Path) -> None:
    space = tmp_path / "space.yml"
    space.write_text(
        f"{LR}: {{low: 1e-4, high: 1e-2, log: true, num: 3}}\n"
        "datasets.train.batch_size: {low: 4, high: 8, step: 2}\n"
        "train.default_lr_scheme: [constant, inverse_sqrt]\n"
    )
    points = grid(read_space(space, toy.write(), []))
    assert len(points) == 3 * 3 * 2
    assert np.allclose(sorted({point[LR] for point in points}), [1e-4, 1e-3, 1e-2])
    assert {point["datasets.train.batch_size"] for point in points} == {4, 6, 8}
    space.write_text(f"{LR}: {{low: 1e-4, high: 1e-2}}\n")
    with pytest.raises(OptionError, match=r"space.yml:1:1: .*a grid needs step or num, or a list"):
        grid(read_space(space, toy.write(), []))


def test_a_grid_runs_every_point_once_and_ranks_them(search: Callable[..., Sweep], tmp_path: Path) -> None:
    sweep = search(f"{LR}: [0.1, 1e-5]\n", sampler="grid", trials=20, jobs=2)
    sweep.run()
    assert states(sweep) == ["COMPLETE", "COMPLETE"]
    trials = sweep.study.get_trials()
    assert {trial.params[LR] for trial in trials} == {"0.1", "1.0e-05"}
    text = write(sweep.folder, trials, sweep.space)
    table = list(csv.reader((sweep.folder / "table.csv").read_text().splitlines()))
    assert table[0] == ["rank", "trial", "figure", "steps", "state", "lr"]
    assert [row[5] for row in table[1:]] == ["0.1", "1.0e-05"]
    assert float(table[1][2]) < float(table[2][2])
    assert text.splitlines()[2].split()[-1] == "0.1"
    for trial in trials:
        run = tmp_path / "out" / "runs" / f"trial_{trial.number:04d}"
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert trial.value == min(line["loss"] for line in lines if line["split"] == "val")
        options = yaml.safe_load((run / "options.yml").read_text())
        assert options["steps"]["fit"]["optimizer_params"]["lr"] == float(trial.params[LR])
    again = search(f"{LR}: [0.1, 1e-5]\n", sampler="grid", trials=20)
    again.run()
    assert states(again) == ["COMPLETE", "COMPLETE"]


def test_the_values_of_a_trial_follow_from_seed_and_number(search: Callable[..., Sweep]) -> None:
    space = f"{LR}: {{low: 1e-4, high: 1e-1, log: true}}\ntrain.warmup_iter: {{low: 0, high: 1000}}\n"
    values = [search(space)._ask().params for _ in range(3)]  # each by a search of its own, as after a kill
    assert len({str(value) for value in values}) == 3
    assert all(1e-4 <= value[LR] <= 1e-1 and isinstance(value["train.warmup_iter"], int) for value in values)
    assert states(search(space)) == ["RUNNING"] * 3
    shutil.rmtree(search(space).folder)
    together = search(space)
    assert [together._ask().params for _ in range(3)] == values


def test_another_search_in_the_same_folder_is_refused(search: Callable[..., Sweep]) -> None:
    search(f"{LR}: [0.1]\n")
    with pytest.raises(ValueError, match="holds a search with another space: undo that, or choose another --out"):
        search(f"{LR}: [0.2]\n")
    with pytest.raises(ValueError, match="another seed"):
        search(f"{LR}: [0.1]\n", seed=3)


def test_a_trial_that_was_cut_off_is_continued(search: Callable[..., Sweep], tmp_path: Path) -> None:
    options = {"trials": 1, "overrides": ["logger.save_checkpoint_freq=1"]}
    sweep = search(f"{LR}: [0.1, 0.01]\n", **options)
    trial = sweep._ask()
    left = sweep._start(trial)
    assert isinstance(left.process, Forked)
    while not left.reported and left.process.poll() is None:
        sweep._ended(left)
    left.process.send_signal(signal.SIGKILL)
    left.process.wait()
    again = search(f"{LR}: [0.1, 0.01]\n", **options)
    assert again._last_reported(again._unfinished()[0]) == left.reported > 0
    again.run()  # Optuna warns of a step that is reported twice, and warnings are errors here
    assert states(again) == ["COMPLETE"]
    assert again.study.get_trials()[0].params == trial.params
    assert list(again.study.get_trials()[0].intermediate_values) == list(range(1, 10))
    metrics = tmp_path / "out" / "runs" / "trial_0000" / "metrics.jsonl"
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [line["step"] for line in lines if line["split"] == "val"] == list(range(1, 10))


def test_a_run_that_outlived_its_search_is_taken_over(search: Callable[..., Sweep]) -> None:
    said: list[str] = []
    sweep = search(f"{LR}: [0.1]\n", trials=1, start=start_run)
    left = sweep._start(sweep._ask())
    again = search(f"{LR}: [0.1]\n", trials=1, say=said.append)
    _, adopted = again._adopt(again._unfinished()[0])
    assert isinstance(adopted, Running)
    assert adopted.pid == left.pid
    assert said == ["trial_0000: is still running"]
    assert isinstance(left.process, subprocess.Popen)
    left.process.wait()
    again._stop(adopted)  # too late, which is no error
    again.run()
    assert states(again) == ["COMPLETE"]


def test_the_number_of_steps_may_be_searched_over(search: Callable[..., Sweep]) -> None:
    sweep = search("train.niter: [3, 12]\n", sampler="grid")
    sweep.run()
    assert states(sweep) == ["COMPLETE", "COMPLETE"]
    assert [max(trial.intermediate_values) for trial in sweep.study.get_trials()] == [3, 12]


def test_halving_is_not_of_runs_that_have_different_rungs(search: Callable[..., Sweep], tmp_path: Path) -> None:
    space = f"{LR}: [0.1, 0.01]\ntrain.niter: [9, 18]\ntrain.val_freq: [1, 3]\n"
    with pytest.raises(OptionError) as raised:
        search(space, sampler="halving")
    rule = "--sampler halving compares runs at the same steps, so that it cannot vary here: use random or grid"
    assert str(raised.value).splitlines() == [
        f"{tmp_path / 'space.yml'}:{line}:1: {key}: {rule}" for line, key in ((2, "train.niter"), (3, "train.val_freq"))
    ]
    assert not (tmp_path / "out").exists()


def test_halving_stops_the_worse_ones_early(search: Callable[..., Sweep]) -> None:
    overrides = ["train.niter=450", "train.val_freq=null"]
    sweep = search(f"{LR}: [0.05, 1e-7]\n", sampler="halving", overrides=overrides)
    assert sweep.rung == 50
    assert sweep.overrides[-1] == "train.val_freq=50"
    for rate in ("0.05", "1.0e-07"):
        sweep.study.enqueue_trial({LR: rate})
    sweep.run()
    assert states(sweep) == ["COMPLETE", "PRUNED"]
    table = rows(sweep.study.get_trials(), sweep.space)
    assert [row[4] for row in table[1:]] == ["done", "stopped"]
    assert 50 <= int(table[2][3]) < 450


def test_halving_compares_at_equal_steps_however_late_it_looks(
    search: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = search(f"{LR}: [0.05]\n", sampler="halving", overrides=["train.niter=9", "train.val_freq=1"])
    trial = sweep.study.ask()
    lines = [{"step": step, "loss": 10.0 - step} for step in (1, 2, 3, 4)]
    monkeypatch.setattr(sweep, "validations", lambda trial: lines)
    assert not sweep._ended(Running(trial, 0, SimpleNamespace(poll=lambda: None)))  # type: ignore[arg-type]
    found = sweep.study.get_trials()[0].system_attrs
    assert (found["completed_rung_0"], found["completed_rung_1"]) == (9.0, 7.0)


def test_a_trial_that_fails_says_why(search: Callable[..., Sweep]) -> None:
    said: list[str] = []
    sweep = search("networks.net.kwargs.hidden: [-1]\n", sampler="grid", say=said.append)
    sweep.run()
    assert states(sweep) == ["FAIL"]
    assert "negative dimension" in sweep.study.get_trials()[0].user_attrs["why"]
    assert "failed: " in said[-1]
    assert table_text(rows(sweep.study.get_trials(), sweep.space)).splitlines()[-1].split()[-2:] == ["failed", "-1"]


def test_a_run_that_ends_without_a_figure_says_so(search: Callable[..., Sweep]) -> None:
    sweep = search(f"{LR}: [1e30]\n", sampler="grid", overrides=["train.val_freq=9"])
    sweep.run()
    assert states(sweep) == ["FAIL"]
    assert sweep.study.get_trials()[0].user_attrs["why"].startswith("it ended without a validation whose figure is a")


def test_the_picture_and_the_table_have_a_line_for_each_trial(search: Callable[..., Sweep]) -> None:
    import optuna

    sweep = search(f"{LR}: {{low: 1e-3, high: 1e-1, log: true}}\ntrain.warmup_iter: [0, 5]\n")
    kinds = {dimension.key: dimension.distribution() for dimension in sweep.space}
    for value, rate in ((2.0, 0.001), (1.0, 0.1), (3.0, 0.01)):
        params = {LR: rate, "train.warmup_iter": "5"}
        made = optuna.trial.create_trial(
            value=value, params=params, distributions=kinds, intermediate_values={9: value}
        )
        sweep.study.add_trial(made)
    trials = sweep.study.get_trials()
    assert [row[1:4] for row in rows(trials, sweep.space)[1:]] == [
        ["1", "1.0000", "9"], ["0", "2.0000", "9"], ["2", "3.0000", "9"],
    ]  # fmt: skip
    assert [trial.number for trial in ranked(trials)] == [1, 0, 2]
    image = parallel_coordinates(trials, sweep.space)
    assert image.dtype == np.uint8
    best = (image == np.array([30, 90, 220])).all(-1).sum()
    worst = (image == np.array([230, 50, 50])).all(-1).sum()
    assert best > worst > 100  # the best line is the thickest


def test_the_command(
    toy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "Sweep", functools.partial(Sweep, start=Forked))
    experiment = toy.write({"train.niter": 2, "datasets.val": {"batch_size": 8}})
    space = tmp_path / "space.yml"
    space.write_text(f"{LR}: [0.1]\n")
    arguments = [str(experiment), "--space", str(space), "--trials", "1", "--out", str(tmp_path / "out")]
    assert command.main([*arguments, "train.niter=3"]) == 0
    out = capsys.readouterr().out
    assert "trial_0000: " in out
    assert "rank  trial  figure  steps  state  lr" in out
    assert (tmp_path / "out" / "parallel.png").read_bytes().startswith(b"\x89PNG")
    assert command.main([*arguments, "train.niter=4"]) == 2
    assert "holds a search with another overrides" in capsys.readouterr().err
    space.write_text("steps.fit.optimizer_params.lrr: [0.1]\n")
    assert command.main(arguments) == 2
    assert f"{space}:1:1: steps.fit.optimizer_params.lrr=0.1: unknown key 'lrr'" in capsys.readouterr().err


def test_an_interrupt_saves_the_runs(
    toy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = toy.write({"train.niter": 100_000, "train.val_freq": 50_000, "datasets.val": {"batch_size": 8}})
    space = tmp_path / "space.yml"
    space.write_text(f"{LR}: [0.1]\n")
    run = tmp_path / "out" / "runs" / "trial_0000"

    def start(arguments: list[str], log: Any, environment: dict[str, str]) -> Forked:
        process = Forked(arguments, log, environment)
        Thread(target=interrupt, args=[process]).start()
        return process

    def interrupt(process: Forked) -> None:
        while process.poll() is None and not (run / "metrics.jsonl").is_file():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(command, "Sweep", functools.partial(Sweep, start=start))
    assert (
        command.main([str(experiment), "--space", str(space), "--trials", "1", "--out", str(tmp_path / "out")]) == 130
    )
    assert "the same command continues" in capsys.readouterr().err
    assert "saved at step" in (run / "log.txt").read_text()
