"""Figures: weighed by counts, in bits where they are bits, strict JSON, and validation that disturbs nothing."""

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from codes.trainer.metrics import MetricsFile, read_metrics

L2 = {"type": "pix", "criterion": "l2", "real": "y", "fake": "fake"}
VAL = {"datasets.val": {"num_items": 10, "batch_size": 4}}


# --- averages


def test_training_loss_is_weighed_by_what_was_counted(toy: Any, lines: Any) -> None:
    """Over the window, sum by sum and count by count, and not a mean of means."""
    trainer = toy.trainer({
        "steps.fit.losses.error": L2 | {"mask": "mask"}, "steps.fit.optimizer_params.lr": 1e-30,
        "logger.print_freq": 3, "train.niter": 3, "datasets.train.batch_size": 3,
    })  # fmt: skip
    network = trainer.parts.networks["net"]
    total = count = 0.0
    means = []
    for number in range(3):
        batch = trainer.parts.train_loader.batch(number)
        error = ((network(batch["x"]) - batch["y"]).square() * batch["mask"]).detach().sum()
        total, count = total + float(error), count + float(batch["mask"].sum())
        means.append(float(error / batch["mask"].sum()))
    trainer.train()
    (line,) = lines(trainer.folder.path)
    assert line["error"] == pytest.approx(total / count, rel=1e-5)
    assert line["error"] != pytest.approx(sum(means) / 3, rel=1e-4)


@pytest.mark.parametrize("window", [1, 2, 50])
def test_loss_log_buffer(toy: Any, lines: Any, window: int) -> None:
    trainer = toy.train({"steps.fit.loss_log_buffer": window, "steps.fit.optimizer_params.lr": 1e-30})
    single = [line["error"] for line in lines(trainer.folder.path)] if window == 1 else None
    if single is None:
        alone = toy.train({"steps.fit.loss_log_buffer": 1, "steps.fit.optimizer_params.lr": 1e-30}, fresh=True)
        single = [line["error"] for line in lines(alone.folder.path)]
        trainer = toy.train({"steps.fit.loss_log_buffer": window, "steps.fit.optimizer_params.lr": 1e-30}, fresh=True)
    found = [line["error"] for line in lines(trainer.folder.path)]
    expected = [sum(single[max(0, n + 1 - window) : n + 1]) / min(window, n + 1) for n in range(len(single))]
    assert found == pytest.approx(expected, rel=1e-5)


def test_loss_is_the_weighted_sum(toy: Any, lines: Any) -> None:
    losses = {"a": L2 | {"weight": 0.25}, "b": {"type": "pix", "real": "y", "fake": "fake", "weight": 3.0}}
    trainer = toy.train({"steps.fit.losses": losses, "train.niter": 2})
    for line in lines(trainer.folder.path):
        assert line["loss"] == pytest.approx(0.25 * line["a"] + 3 * line["b"])


def test_a_loss_that_has_ended_is_not_in_the_figures_for_ever(toy: Any, lines: Any) -> None:
    losses = {"error": L2, "early": L2 | {"before": 2, "weight": 1000.0}}
    trainer = toy.train({"steps.fit.losses": losses, "steps.fit.loss_log_buffer": 2, "train.niter": 6})
    last = lines(trainer.folder.path)[-1]
    assert "early" not in last
    assert last["loss"] == pytest.approx(last["error"])


def test_equal_names_are_told_apart(toy: Any, lines: Any) -> None:
    again = {
        "training": "net",
        "injectors": {"predict": {"type": "generator", "generator": "net", "in": "x", "out": "fake2"}},
        "losses": {"error": L2 | {"fake": "fake2"}},
    }
    line = lines(toy.train({"steps.again": again, "train.niter": 1}).folder.path)[0]
    assert {"fit.error", "again.error"} <= line.keys()
    assert "error" not in line


# --- bits

UNIFORM: dict[str, Any] = {
    "networks.net": {"which_model": "toy_uniform"},
    "steps.fit.injectors": {"predict": {"type": "generator", "generator": "net", "in": "ids", "out": "logits"}},
    "steps.fit.losses": {"nats": {"type": "cross_entropy", "logits": "logits", "labels": "ids"}},
    "train.niter": 2,
    "train.val_freq": 1,
}


@pytest.mark.parametrize(("vocabulary", "tokens", "bits"), [(65_536, 1, 16), (256, 1, 8), (256, 2, 16), (256, 3, 24)])
def test_a_uniform_model_reports_exactly_its_bits(
    toy: Any, lines: Any, vocabulary: int, tokens: int, bits: int
) -> None:
    data = {"mode": "toy_tokens", "vocabulary": vocabulary, "length": 6, "batch_size": 4}
    trainer = toy.train(UNIFORM | {
        "datasets": {"train": data, "val": {"batch_size": 3}},
        "networks.net.kwargs": {"vocabulary": vocabulary},
        "steps.fit.losses.nats.tokens_per_sample": tokens,
    })  # fmt: skip
    found = lines(trainer.folder.path)
    assert {line["split"] for line in found} == {"train", "val"}
    for line in found:
        assert line["bits_per_sample"] == pytest.approx(bits, abs=1e-5)
        assert line["loss"] == pytest.approx(math.log(vocabulary), abs=1e-5)


def test_masked_tokens_are_not_in_the_bits(toy: Any, lines: Any) -> None:
    """Half of the labels are ignored: still exactly 8 bits, and not 4."""
    trainer = toy.train(UNIFORM | {
        "datasets": {"train": {"mode": "toy_tokens", "vocabulary": 256, "batch_size": 4}},
        "networks.net.kwargs": {"vocabulary": 256},
        "steps.fit.losses.nats.ignore_index": 7,
        "steps.fit.injectors.fix": {"type": "toy_ignore_half", "in": "ids", "out": "labels"},
        "steps.fit.losses.nats.labels": "labels",
    })  # fmt: skip
    assert all(line["bits_per_sample"] == pytest.approx(8, abs=1e-5) for line in lines(trainer.folder.path))


def test_every_val_line_has_bits(toy: Any, lines: Any) -> None:
    data = {"mode": "toy_tokens", "vocabulary": 16, "batch_size": 4}
    trainer = toy.train(UNIFORM | {"datasets": {"train": data, "val": {}}, "networks.net.kwargs": {"vocabulary": 16}})
    found = [line for line in lines(trainer.folder.path) if line["split"] == "val"]
    assert len(found) == 2
    assert all("bits_per_sample" in line for line in found)
    assert trainer.best is not None
    assert trainer.best["value"] == pytest.approx(4, abs=1e-5)


# --- files


def test_not_a_number_is_never_written_as_such(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path, 0, use_tensorboard=False)
    metrics.write(1, "train", {"loss": float("nan"), "high": float("inf"), "low": float("-inf"), "good": 1.5})
    metrics.close()
    (text,) = metrics.path.read_text().splitlines()
    line = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert line == {"step": 1, "split": "train", "loss": None, "high": None, "low": None, "good": 1.5}


def test_lines_after_the_step_are_dropped_and_a_cut_one_too(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path, 0, use_tensorboard=False)
    for step in (1, 2, 3):
        metrics.write(step, "train", {"loss": 0.1 * step})
    with metrics.path.open("a") as file:
        file.write('{"step": 2, "spl')
    before = metrics.path.read_text().splitlines()
    MetricsFile(tmp_path, 2, use_tensorboard=False)
    assert metrics.path.read_text().splitlines() == before[:2]
    assert metrics.path.read_text().endswith("\n")
    MetricsFile(tmp_path, 0, use_tensorboard=False)
    assert metrics.path.read_text() == ""


@pytest.mark.parametrize("tail", [b"\x00\x00\x00", b"\xff\xfe", b"7", b'"x"', b"null", b"{}", b"[1]"])
def test_a_tail_that_a_crash_left(tmp_path: Path, tail: bytes) -> None:
    """Zeros, broken UTF-8, or JSON that is no line of ours."""
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "split": "train"}\n' + tail)
    assert read_metrics(path) == [{"step": 1, "split": "train"}]
    MetricsFile(tmp_path, 1, use_tensorboard=False)
    assert path.read_text() == '{"step": 1, "split": "train"}\n'


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    found: dict[str, dict[int, float]] = {}
    for tag in events.Tags()["scalars"]:
        values = [(event.step, event.value) for event in events.Scalars(tag)]
        assert len({step for step, _ in values}) == len(values), f"{tag} has a step twice"
        found[tag] = dict(values)
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("saved_at", [2, 100])
def test_tensorboard_says_the_same(toy: Any, lines: Any, saved_at: int) -> None:
    """Also after a kill: steps that came again, from a checkpoint or from the start, are there once."""
    changes = VAL | {"use_tb_logger": True, "train.val_freq": 3, "logger.save_checkpoint_freq": saved_at}
    killed, killed_at = toy.trainer(changes), time.time()
    for _ in range(4 if saved_at == 100 else 3):
        killed.train_step()
        killed._log()
        if killed.step == saved_at:
            killed.save()
    killed.metrics.close()
    while int(time.time()) == int(killed_at):  # TensorBoard orders files by the second in their names
        time.sleep(0.02)
    trainer = toy.train(changes)
    found = scalars(trainer.folder.path / "tb")
    for line in lines(trainer.folder.path):
        for name in line.keys() - {"step", "split"}:
            assert found[f"{line['split']}/{name}"][line["step"]] == pytest.approx(line[name], rel=1e-5)
    assert set(found["train/loss"]) == set(range(1, 7))


# --- validation


def test_validation_is_weighed_and_deterministic(toy: Any) -> None:
    """Batches of 4, 4 and 2, unequal masks: the figure is that of the whole set, and the same when repeated."""
    trainer = toy.trainer(VAL | {"steps.fit.losses.error": L2 | {"mask": "mask"}})
    first = trainer.evaluation.validate(0)
    assert trainer.evaluation.validate(0) == first
    batches = [trainer.parts.val_loader.batch(n) for n in range(3)]
    batch = {key: torch.cat([b[key] for b in batches]) for key in ("x", "y", "mask")}
    error = (trainer.parts.networks["net"](batch["x"]) - batch["y"]).square() * batch["mask"]
    assert first[1] == pytest.approx(float(error.detach().sum() / batch["mask"].sum()), rel=1e-5)


@pytest.mark.parametrize("size", [1, 3, 10, 100])
def test_validation_does_not_depend_on_the_batch_size(toy: Any, size: int) -> None:
    trainer = toy.trainer({"datasets.val": {"num_items": 10, "batch_size": size}})
    one = toy.trainer({"datasets.val": {"num_items": 10, "batch_size": 5}}, fresh=True)
    assert trainer.evaluation.validate(0)[1] == pytest.approx(one.evaluation.validate(0)[1], rel=1e-5)


RANDOM = {
    "networks.net.kwargs": {"dropout": 0.5},
    "steps.fit.injectors": {
        "noise": {"type": "add_noise", "scale": 0.3, "in": "x", "out": "z"},
        "predict": {"type": "generator", "generator": "net", "in": "z", "out": "fake"},
    },
    "train.niter": 12,
}


@pytest.mark.parametrize("ema", [False, True])
def test_validation_disturbs_nothing(toys: Any, lines: Any, weights: Any, same: Any, ema: bool) -> None:
    with_val, without = toys(), toys()
    one = with_val.train(RANDOM | VAL | {"train.val_freq": 5, "train.ema_enabled": ema})
    other = without.train(RANDOM | {"train.ema_enabled": ema})
    train_lines = [line for line in lines(one.folder.path) if line["split"] == "train"]
    assert train_lines == lines(other.folder.path)
    assert same(weights(one), weights(other))


def test_validation_repeats_random_injectors(toy: Any) -> None:
    trainer = toy.trainer(RANDOM | VAL)
    assert trainer.evaluation.validate(0) == trainer.evaluation.validate(0)


def test_max_batches_are_spread(toy: Any) -> None:
    trainer = toy.trainer({"datasets.val": {"num_items": 40, "batch_size": 4}, "eval.max_batches": 3})
    assert trainer.evaluation._chosen_batches(10) == [0, 3, 6]
    assert trainer.evaluation._chosen_batches(2) == [0, 1]


@pytest.fixture
def audio(make_stereo_folder: Any) -> dict[str, Any]:
    """A small model with dropout on real files, which can be sampled."""
    data = {"mode": "stereo_chunk", "path": str(make_stereo_folder()), "batch_size": 2, "chunk_frames": 32,
            "context_frames": 32, "val_fraction": 0.3}  # fmt: skip
    size = {"bits": 8, "layers": 1, "model_dim": 16, "heads": 2, "context": 64, "dropout": 0.4}
    return {
        "plugins": [],
        "datasets": {"train": data, "val": {"batch_size": 8}},
        "networks.net": {"which_model": "gpt", "kwargs": size},
        "steps.fit.injectors": {
            "quantise": {"type": "pcm_quantize", "bits": 8, "in": "wav", "out": "codes"},
            "interleave": {"type": "interleave_channels", "in": "codes", "out": "sequence"},
            "predict": {"type": "generator", "generator": "net", "in": "sequence", "out": "nats"},
        },
        "steps.fit.losses": {"code_length": {"type": "code_length", "nats": "nats"}},
        "eval": {"max_batches": 1, "baselines": False},
        "train.niter": 6,
        "train.ema_enabled": True,
    }


SAMPLES = {"network": "net", "num": 1, "prompt_frames": 16, "new_frames": 16}


@pytest.mark.parametrize("every", [None, 2])
def test_samples_disturb_nothing(toys: Any, lines: Any, audio: dict[str, Any], every: int | None) -> None:
    """Sampling leaves dropout on and the random numbers alone: the losses are those of a run without samples."""
    one, other = toys().train(audio), toys().train(audio | {"samples": SAMPLES | {"every": every}})
    assert lines(one.folder.path) == lines(other.folder.path)
    made = sorted(path.name for path in other.folder.samples.iterdir())
    assert made == ([f"step_{step:08d}" for step in (2, 4, 6)] if every else ["step_00000006"])


def test_samples_are_made_with_the_average(toys: Any, audio: dict[str, Any]) -> None:
    """An average that stays at the initial weights makes other samples than one that follows the network at once."""
    changes = audio | {"samples": SAMPLES, "steps.fit.optimizer_params.lr": 0.1}
    made = []
    for rate in (0.0, 0.999999):
        trainer = toys().train(changes | {"train.ema_rate": rate})
        made.append((trainer.folder.samples / "step_00000006/0_model.wav").read_bytes())
    assert made[0] != made[1]
