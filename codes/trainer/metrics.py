"""Figures of a run: averages over losses' sums and counts, and where they are written.

``metrics.jsonl`` is the truth: one object a line with ``step``, ``split`` and figures by name. When a run continues
from a checkpoint, lines after it are dropped and come again, so that the file equals that of an uninterrupted run.
TensorBoard gets the same figures.
"""

import contextlib
import json
import math
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codes.trainer.checkpoint import write_atomically, writing
from codes.trainer.losses import Figure
from codes.trainer.step import BoundLoss, Tally

WALL_CLOCK = ("seconds", "tokens_per_second", "data_wait_share", "memory_bytes", "mfu")  # differ from run to run


class Average:
    """Mean of one loss over the last `window` steps (all, if None), kept on the device until it is read.

    Args:
        loss: the loss, which says whether it measures bits.
        window: number of steps that count.
    """

    def __init__(self, loss: BoundLoss, window: int | None) -> None:
        self.loss, self.window = loss, window
        self._sums: deque[Tensor] = deque(maxlen=window)
        self._counts: deque[Tensor | float] = deque(maxlen=window)

    def add(self, total: Tensor, count: Tensor | float) -> None:
        """Take in one step's or one batch's sum and count."""
        self._sums.append(total)
        self._counts.append(count)

    def read(self) -> tuple[float, float]:
        """Sum and count over the window, in float64. The one place that waits.

        Steps of training whose loss was not finite took no part in it and are left out here as well; without a window
        (validation) the sum is then not finite either.
        """
        if not self._sums:
            return 0.0, 0.0
        sums, counts = _stacked(self._sums), _stacked(self._counts)
        taken = torch.isfinite(sums)
        if self.window is None or not taken.any():
            taken = torch.ones_like(taken)
        return float(sums[taken].sum()), float(counts[taken].sum())

    def state_dict(self) -> dict[str, Any]:
        """What the window holds."""
        return {"sums": list(self._sums), "counts": list(self._counts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the window."""
        self._sums.extend(state["sums"])
        self._counts.extend(state["counts"])


class FigureSum:
    """A figure summed over the batches of a validation, kept on the device until it is read.

    Args:
        first: that of the first batch.
    """

    def __init__(self, first: Figure) -> None:
        self.kind = first.kind
        self.total = first.total.double()
        self.count: Tensor | float = torch.as_tensor(first.count).double()

    def add(self, figure: Figure) -> None:
        """Take in another batch's; histograms may differ in length."""
        self.total = _sum_of(self.total, figure.total.double())
        self.count = self.count + figure.count

    def so_far(self) -> Figure:
        """What it holds, on the CPU."""
        return Figure(self.total.cpu(), torch.as_tensor(self.count).cpu(), self.kind)  # type: ignore[arg-type]

    def read(self) -> float | list[float | None] | None:
        """The figure, or a list of a curve's points; None where nothing counted."""
        total = self.total.cpu()
        if self.kind == "entropy":
            share = total[total > 0] / total.sum()
            return float(-(share * share.log2()).sum()) if len(share) else None
        if self.kind == "frechet":
            return _frechet_distance(*total.chunk(2))
        if self.kind != "mean":
            return _of_histograms(self.kind, total)
        values = (total / torch.as_tensor(self.count).cpu()).tolist()
        points = [value if math.isfinite(value) else None for value in values] if isinstance(values, list) else values
        return points if isinstance(points, list) or math.isfinite(points) else None


def _of_histograms(kind: str, total: Tensor) -> float | list[float | None]:
    """Perplexity or use of a histogram, or of each of its rows."""
    share = total / total.sum(-1, keepdim=True).clamp(min=1)
    found = torch.special.entr(share).sum(-1).exp() if kind == "perplexity" else (total > 0).double().mean(-1)
    return found.tolist()


def _frechet_distance(*moments: Tensor) -> float | None:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of two sets; None where one has fewer than two vectors.

    The eigenvalues of C1 C2 are those of the symmetric C1^(1/2) C2 C1^(1/2): not negative but for rounding.
    """
    means, covariances = [], []
    for values in moments:
        number, dim = float(values[0]), math.isqrt(len(values) - 1)  # 1 + D + D^2 numbers
        if number < 2:
            return None
        mean = values[1 : 1 + dim] / number
        means.append(mean)
        products = values[1 + dim :].view(dim, dim)
        covariances.append((products - number * torch.outer(mean, mean)) / (number - 1))
    values, vectors = torch.linalg.eigh(covariances[0])
    root = vectors @ (values.clamp(min=0).sqrt()[:, None] * vectors.t())
    shared = torch.linalg.eigvalsh(root @ covariances[1] @ root).clamp(min=0).sqrt().sum()
    apart = (means[0] - means[1]).square().sum()
    return float(apart + covariances[0].trace() + covariances[1].trace() - 2 * shared)


def _sum_of(one: Tensor, other: Tensor) -> Tensor:
    """The sum of two numbers or vectors, the shorter one filled up with zeros."""
    if one.shape == other.shape:
        return one + other
    longest = max(len(one), len(other))
    return sum(torch.nn.functional.pad(value, (0, longest - len(value))) for value in (one, other))  # type: ignore


def _stacked(values: Iterable[Tensor | float]) -> Tensor:
    """Numbers and scalar tensors of any device as one float64 tensor on the CPU, in one transfer where they agree."""
    tensors = [torch.as_tensor(value) for value in values]
    return torch.stack([tensor.to(tensors[-1].device) for tensor in tensors]).double().cpu()


class Averages:
    """The averages of all losses of an experiment.

    Args:
        losses: by step name; figures are named by the loss, with the step before it where two steps share a name.
        windows: steps that count, by step name; None for all.
    """

    def __init__(self, losses: Mapping[str, list[BoundLoss]], windows: Mapping[str, int] | None = None) -> None:
        names = [loss.name for group in losses.values() for loss in group]
        self._averages: dict[tuple[str, str], Average] = {}
        self._titles: dict[tuple[str, str], str] = {}
        self._figures: dict[tuple[str, str, str], FigureSum] = {}
        for step, group in losses.items():
            for loss in group:
                self._averages[step, loss.name] = Average(loss, windows[step] if windows else None)
                self._titles[step, loss.name] = loss.name if names.count(loss.name) == 1 else f"{step}.{loss.name}"

    @property
    def titles(self) -> list[str]:
        """The names of the losses' figures."""
        return list(self._titles.values())

    def add(self, step: str, tally: Tally) -> None:
        """Take in what a step returned."""
        for name, parts in tally.items():
            if len(parts) == 1:
                self._averages[step, name].add(*parts[0])
                continue
            total = torch.stack([part[0] for part in parts]).sum()
            self._averages[step, name].add(total, sum(part[1] for part in parts))

    def merge(self, gather: Callable[[Any], list[Any]]) -> None:
        """Take in what other processes measured in the same validation; `gather` gives everybody's value to all."""
        sums = {key: average.read() for key, average in self._averages.items()}
        everybodys = gather((sums, {key: figure.so_far() for key, figure in self._figures.items()}))
        self._averages = {key: Average(average.loss, average.window) for key, average in self._averages.items()}
        self._figures = {}
        for measured, figures in everybodys:
            for key, (total, count) in measured.items():
                self._averages[key].add(torch.tensor(total, dtype=torch.float64), count)
            for (step, loss, name), figure in figures.items():
                self.add_figures(step, {loss: {name: figure}})

    def add_figures(self, step: str, figures: Mapping[str, Mapping[str, Figure]]) -> None:
        """Take in what a step's losses report beside themselves, by loss."""
        for loss, named in figures.items():
            for name, figure in named.items():
                if (step, loss, name) in self._figures:
                    self._figures[step, loss, name].add(figure)
                else:
                    self._figures[step, loss, name] = FigureSum(figure)

    def reported(self) -> tuple[dict[str, float], dict[str, list[float | None]]]:
        """What the losses report beside themselves, as LOSS.FIGURE: numbers, and curves."""
        read = {f"{self._titles.get(key[:2], key[1])}.{key[2]}": figure.read() for key, figure in self._figures.items()}
        numbers = {name: value for name, value in read.items() if isinstance(value, float)}
        return numbers, {name: value for name, value in read.items() if isinstance(value, list)}

    def figures(self, step: int) -> dict[str, float]:
        """Mean of every loss by name, their weighted sum as `loss`, and bits per sample over all that measure bits.

        What is not finite is left out, and so are losses of training that have ended.
        """
        found: dict[str, float] = {}
        loss = nats = samples = 0.0
        for key, average in self._averages.items():
            total, count = average.read()
            flags = average.loss.flags
            if count == 0 or (average.window is not None and flags.before is not None and step > flags.before):
                continue
            found[self._titles[key]] = total / count
            loss += flags.weight_at(step) * total / count
            if average.loss.loss.measures_bits:
                nats += total
                samples += count / average.loss.loss.tokens_per_sample
        if not found:
            return {}
        found = {"loss": loss, **found}
        if samples:
            found["bits_per_sample"] = nats / math.log(2) / samples
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def tokens_per_step(self) -> float:
        """Mean count of the first loss that measures bits (else of the first) over the window: what a step works on."""
        ordered = sorted(self._averages.values(), key=lambda average: not average.loss.loss.measures_bits)
        if not ordered:
            return 0.0
        steps = len(ordered[0].state_dict()["counts"])
        return ordered[0].read()[1] / steps if steps else 0.0

    def state_dict(self) -> dict[str, Any]:
        """The windows of all losses."""
        return {"/".join(key): average.state_dict() for key, average in self._averages.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the windows."""
        for key, average in self._averages.items():
            average.load_state_dict(state["/".join(key)])


class MetricsFile:
    """metrics.jsonl and TensorBoard of a run, continued from a step.

    Args:
        folder: the run's folder.
        step: lines of later steps are dropped.
        use_tensorboard: also write TensorBoard files.
    """

    def __init__(self, folder: Path, step: int, use_tensorboard: bool) -> None:
        self.path = folder / "metrics.jsonl"
        self._tensorboard_folder = folder / "tb" if use_tensorboard else None
        self.wandb: Any = None  # what takes the same figures, sounds and pictures: a WandbLog
        self._purge_step = step + 1
        self._tensorboard: Any = None
        if self.path.exists():
            kept = [json.dumps(line) + "\n" for line in read_metrics(self.path) if line["step"] <= step]
            write_atomically(self.path, "".join(kept))
        for later in (folder / "tb" / "curves").glob("*/step_*"):
            if int(later.name.removeprefix("step_")) > step:
                shutil.rmtree(later, ignore_errors=True)

    @property
    def tensorboard(self) -> Any:
        """The TensorBoard writer, made at its first use; None where it is switched off."""
        if self._tensorboard is None and self._tensorboard_folder is not None:
            from torch.utils.tensorboard import SummaryWriter

            again = self._tensorboard_folder.exists()
            purge_step = self._purge_step if again else None
            self._tensorboard = SummaryWriter(str(self._tensorboard_folder), purge_step=purge_step)
        return self._tensorboard

    def write(
        self, step: int, split: str, figures: Mapping[str, float | int | None],
        curves: Mapping[str, list[float | None]] | None = None,
    ) -> None:  # fmt: skip
        """Append one line and the same figures to TensorBoard; what is not finite is null, as JSON has no NaN.

        Curves are lists in the line. In TensorBoard those of each step are a run of their own, with the point's number
        in place of the step, so that they lie over each other in one picture.

        Raises:
            CheckpointError: the line could not be written (disk full).
        """
        figures = {name: value if value is None or math.isfinite(value) else None for name, value in figures.items()}
        line = {"step": step, "split": split, **figures, **(curves or {})}
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        for name, value in figures.items():
            if self.tensorboard is not None and value is not None:
                self.tensorboard.add_scalar(f"{split}/{name}", value, step)
        if self.wandb is not None:
            self.wandb.figures(step, split, figures)
        if curves and self._tensorboard_folder is not None:
            self._draw(self._tensorboard_folder / "curves" / split / f"step_{step:08d}", curves)

    def _draw(self, folder: Path, curves: Mapping[str, list[float | None]]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        shutil.rmtree(folder, ignore_errors=True)  # of the same step before a kill
        with SummaryWriter(str(folder)) as writer:
            for name, values in curves.items():
                for point, value in enumerate(values):
                    if value is not None:
                        writer.add_scalar(f"curves/{name}", value, point)

    def flush(self) -> None:
        """Put everything on the disk."""
        if self._tensorboard is not None:
            self._tensorboard.flush()
        if self.path.exists():
            with self.path.open("a") as file:
                os.fsync(file.fileno())

    def close(self) -> None:
        """Let go of TensorBoard's file; nothing new can be said where the disk refuses what is left."""
        if self._tensorboard is not None:
            with contextlib.suppress(OSError):
                self._tensorboard.close()
        if self.wandb is not None:
            self.wandb.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl up to the first that is none: a kill or a crash may have left a broken tail."""
    lines = []
    for text in path.read_bytes().split(b"\n"):
        try:
            line = json.loads(text)
        except ValueError:  # cut off, or not even UTF-8
            break
        if not isinstance(line, dict) or "step" not in line:
            break
        lines.append(line)
    return lines
