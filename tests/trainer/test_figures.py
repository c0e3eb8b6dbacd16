"""What losses report beside themselves in validation: bits of the last part, by position and by direction, entropy."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from codes.trainer.losses import CodeLengthLoss, Figure, Loss
from codes.trainer.metrics import FigureSum, MetricsFile, read_metrics


def test_bits_of_the_last_part_by_position_and_by_direction() -> None:
    nats = torch.arange(8.0).repeat(3, 1) * math.log(2) + torch.tensor([[0.0], [0.0], [math.log(2)]])
    loss = CodeLengthLoss(last_part=0.25, curve_points=4, tokens_per_sample=2)
    found = loss.figures(nats, None, torch.tensor([0, 0, 1]), torch.tensor([[5, 5, 9, 9]]))
    read = {name: FigureSum(figure).read() for name, figure in found.items()}
    third = 2 * 1 / 3  # what the third item has more, in bits per sample over all items
    assert read["bits_last_part"] == pytest.approx(2 * 6.5 + third)
    assert read["bits_by_position"] == pytest.approx([2 * x + third for x in (0.5, 2.5, 4.5, 6.5)])
    assert read["bits_left_to_right"] == pytest.approx(2 * 3.5)
    assert read["bits_right_to_left"] == pytest.approx(2 * 4.5)
    assert read["marginal_entropy"] == pytest.approx(1)
    total, count = loss.forward(nats, None, torch.tensor([0, 0, 1]))
    assert float(total / count / math.log(2)) == pytest.approx(3.5 + 1 / 3)


def test_masked_tokens_are_in_no_figure() -> None:
    nats = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]) * math.log(2)
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])
    found = CodeLengthLoss(last_part=0.5, curve_points=2).figures(nats, mask, torch.tensor([0, 1]))
    read = {name: FigureSum(figure).read() for name, figure in found.items()}
    assert read == pytest.approx(
        {"bits_last_part": 3, "bits_by_position": pytest.approx([8 / 3, 3]), "bits_left_to_right": 2,
         "bits_right_to_left": 5}
    )  # fmt: skip


def test_channels_count_as_items_do() -> None:
    nats = torch.rand(2, 3, 10)
    one = CodeLengthLoss(last_part=0.3, curve_points=5).figures(nats)
    other = CodeLengthLoss(last_part=0.3, curve_points=5).figures(nats.flatten(0, 1))
    for name, figure in one.items():
        assert FigureSum(figure).read() == pytest.approx(FigureSum(other[name]).read())


def test_batches_add_up_and_what_never_counted_is_left_out() -> None:
    total = FigureSum(Figure(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 0.0])))
    total.add(Figure(torch.tensor([3.0, 0.0]), torch.tensor([3.0, 0.0])))
    assert total.read() == [1.0, None]
    assert FigureSum(Figure(torch.zeros(()), torch.zeros(()))).read() is None
    histogram = FigureSum(Figure(torch.tensor([1, 1]), kind="entropy"))
    histogram.add(Figure(torch.tensor([0, 0, 0, 2]), kind="entropy"))
    assert histogram.read() == pytest.approx(1.5)
    assert FigureSum(Figure(torch.zeros(4), kind="entropy")).read() is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"last_part": 0.0}, "last_part must be above 0 and at most 1, got 0.0"),
        ({"last_part": 1.5}, "last_part must be above 0 and at most 1"),
        ({"curve_points": -1}, "curve_points must be 0 or more, got -1"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CodeLengthLoss(**options)


def test_a_mask_or_a_target_of_other_samples_is_refused() -> None:
    nats = torch.ones(2, 8)
    with pytest.raises(ValueError, match=r"a mask \(2, 7\) does not fit values \(2, 8\)"):
        CodeLengthLoss()(nats, torch.ones(2, 7, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"nats \(2, 8\) do not code the samples of target \(2, 8\), 2 tokens each"):
        CodeLengthLoss(tokens_per_sample=2)(nats, target=torch.ones(2, 8))
    assert CodeLengthLoss(tokens_per_sample=2)(nats, target=torch.ones(2, 4))[1] == 16


TOKENS: dict[str, Any] = {
    "datasets": {"train": {"mode": "toy_tokens", "vocabulary": 16, "length": 12, "batch_size": 4},
                 "val": {"batch_size": 3}},
    "networks.net": {"which_model": "gpt",
                     "kwargs": {"bits": 4, "num_channels": 1, "layers": 1, "model_dim": 16, "heads": 2}},
    "steps.fit.injectors": {"predict": {"type": "generator", "generator": "net", "in": "ids", "out": "nats"}},
    "steps.fit.losses": {"code_length": {"type": "code_length", "nats": "nats", "target": "ids", "last_part": 0.5,
                                         "curve_points": 6}},
    "train.niter": 4,
    "train.val_freq": 2,
}  # fmt: skip


def test_a_run_reports_them_in_validation_alone(toy: Any, lines: Any) -> None:
    trainer = toy.train(TOKENS)
    found = lines(trainer.folder.path)
    val = [line for line in found if line["split"] == "val"]
    assert [line["step"] for line in val] == [2, 4]
    for line in val:
        curve = line["code_length.bits_by_position"]
        assert len(curve) == 6
        assert sum(curve) / 6 == pytest.approx(line["bits_per_sample"])
        assert sum(curve[3:]) / 3 == pytest.approx(line["code_length.bits_last_part"])
        assert 3.8 < line["code_length.marginal_entropy"] <= 4
    assert not any("marginal" in name for line in found if line["split"] == "train" for name in line)
    loader = trainer.parts.val_loader
    assert loader is not None
    counts = torch.bincount(torch.cat([loader.batch(n)["ids"].flatten() for n in range(len(loader))])).double()
    share = counts[counts > 0] / counts.sum()
    assert val[0]["code_length.marginal_entropy"] == pytest.approx(float(-(share * share.log2()).sum()))
    assert "code_length.bits_last_part" in (trainer.folder.path / "log.txt").read_text()


def test_figures_change_no_training(toys: Any, weights: Any, same: Any) -> None:
    plain = {"steps.fit.losses": {"code_length": {"type": "code_length", "nats": "nats"}}}
    assert same(weights(toys().train(TOKENS)), weights(toys().train(TOKENS | plain)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_curves_are_runs_of_their_own_in_tensorboard(toy: Any, lines: Any) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer = toy.train(TOKENS | {"use_tb_logger": True})
    for line in (line for line in lines(trainer.folder.path) if line["split"] == "val"):
        events = EventAccumulator(str(trainer.folder.path / "tb" / "curves" / "val" / f"step_{line['step']:08d}"))
        events.Reload()
        points = events.Scalars("curves/code_length.bits_by_position")
        assert [point.step for point in points] == list(range(6))
        assert [point.value for point in points] == pytest.approx(line["code_length.bits_by_position"], rel=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_curves_of_later_steps_are_dropped_on_resume(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path, 0, use_tensorboard=True)
    for step in (1, 2):
        metrics.write(step, "val", {"loss": 1.0}, {"a.curve": [1.0, None, 3.0]})
    metrics.close()
    assert read_metrics(metrics.path)[0]["a.curve"] == [1.0, None, 3.0]
    MetricsFile(tmp_path, 1, use_tensorboard=True)
    assert [path.name for path in (tmp_path / "tb" / "curves" / "val").iterdir()] == ["step_00000001"]
    assert [line["step"] for line in read_metrics(metrics.path)] == [1]


def test_a_figure_that_fails_says_where(toy: Any) -> None:
    losses = {"code_length": {"type": "code_length", "nats": "nats", "direction": "ids"}}
    with pytest.raises(RuntimeError, match="must match the size") as caught:
        toy.train(TOKENS | {"steps.fit.losses": losses})
    assert any("in the figures of loss code_length, step fit" in note for note in caught.value.__notes__)


def test_losses_without_figures_report_none() -> None:
    class Plain(Loss, abstract=True):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean()

    assert Plain().figures(torch.ones(2)) == {}
