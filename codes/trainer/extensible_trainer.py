"""ExtensibleTrainer: one experiment from its YAML to trained weights.

The loop: take a batch, run every step that is due, and at their intervals log, validate, sample and save. Everything
that decides the next step is saved, so a run that is killed and started again goes on as if nothing had happened.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from codes.entries import Experiment
from codes.trainer import checkpoint as checkpoints
from codes.trainer import copy_baseline, wandb_log
from codes.trainer import distributed_checkpoint as shards
from codes.trainer.build import Parts, build
from codes.trainer.checkpoint import CheckpointError
from codes.trainer.distributed import Agreement, Ranks
from codes.trainer.distributed_step import is_whole
from codes.trainer.environment import record_environment
from codes.trainer.evaluation import Evaluation
from codes.trainer.metrics import Averages, MetricsFile
from codes.trainer.nonfinite import NonFiniteError, explain
from codes.trainer.progress import Progress, memory_bytes
from codes.trainer.report.page import report_line
from codes.trainer.run_folder import RunFolder, borrowed_weights, check_borrowed
from codes.trainer.sampling import make_sampler
from codes.trainer.sharded_samples import WholeCopies
from codes.trainer.signals import StopRequest
from codes.trainer.silent import SilentMetrics, silent_progress
from codes.trainer.speed import Speed, prepare
from codes.trainer.state import State, move, split_batch
from codes.trainer.step import batch_seed


class ExtensibleTrainer:
    """Builds an experiment and trains it.

    Args:
        experiment: a loaded experiment.
        fresh: move an existing run of that name aside instead of continuing it.
        ranks: the processes that train it together.

    Raises:
        OptionError: some entry of the YAML cannot be built.
        CheckpointError: the run's checkpoint cannot be continued, or its folder not be written.
    """

    def __init__(self, experiment: Experiment, fresh: bool = False, ranks: Ranks = Ranks()) -> None:  # noqa: B008
        self.experiment = experiment
        self.options = experiment.options
        self.seed = self.options.train.manual_seed
        self.ranks = ranks
        wandb_log.require_package(experiment)
        self.parts: Parts = build(experiment, ranks)
        self.device, self.precision = self.parts.device, self.parts.precision
        self.copies = None if is_whole(experiment, ranks) else WholeCopies(experiment, ranks)
        sampler = make_sampler(experiment, self.parts) if self.copies is None else self.copies.sampler
        with ranks.first_before_others():
            self.folder = RunFolder(experiment, fresh and ranks.first)
        self.step = max(0, self.options.start_step)
        self.best: dict[str, float] | None = None
        losses = {step.name: step.losses for step in self.parts.steps}
        self.averages = Averages(losses, {step.name: step.flags.loss_log_buffer for step in self.parts.steps})
        self._random: dict[str, Any] | None = None
        self._resumed = self._resume()
        self._write_once(self.folder.create)
        self._write_once(lambda: self.folder.record_data(self.parts.datasets))
        if ranks.first:
            with checkpoints.writing(self.folder.path):
                self.metrics = MetricsFile(self.folder.path, self.step, self.options.use_tb_logger)
            self.progress = Progress(self.folder.path / "log.txt", self.options.train.niter, self.averages.titles)
        else:
            self.metrics, self.progress = SilentMetrics(), silent_progress()
        self.evaluation = Evaluation(experiment, self.parts, self.folder, self.metrics, self.progress, sampler)
        self.parts.notes += prepare(experiment, self.parts)
        self._speed = Speed(self.parts, self.options)
        self._saved_step = self.step if self._resumed else -1
        self._logged_at = time.perf_counter()
        self._logged_step = self.step
        self._trained_step: str | None = None

    def train(self) -> bool:
        """Run the experiment to its last step; False where a signal stopped it before, with everything saved.

        Raises:
            NonFiniteError: too many updates in a row had gradients that were not finite.
            CheckpointError: a checkpoint could not be written.
        """
        self._announce()
        self._speed.count(self.step)
        # last of all: what was imported up to here may have drawn numbers (rich does)
        shards.begin_random(self.ranks, self._random, self.seed, self.step)
        with self._running() as stop:
            self.parts.train_loader.seek(self.step)
            self._set_mode()
            agreement = Agreement(self.ranks)
            while self.step < self.options.train.niter and not agreement.reached(stop.requested):
                self.train_step()
                self._at_intervals()
            agreement.finish()
            finished = self.step >= self.options.train.niter
            if finished:
                self._finish()
            elif self._saved_step != self.step:
                self.save()
        if not finished:
            why = stop.name or "a signal to another process"
            self.progress.line(f"{why}: saved at step {self.step}; the same command continues from there")
        return finished

    @contextlib.contextmanager
    def _running(self) -> Iterator[StopRequest]:
        with StopRequest() as stop, torch.autograd.set_detect_anomaly(self.options.anomaly_detection):
            self.progress.start(self.step)
            try:
                with checkpoints.writing(self.folder.path):
                    yield stop
                    self.metrics.flush()
            finally:
                self.progress.stop()
                self.parts.train_loader.close()
                self.metrics.close()

    def train_step(self) -> None:
        """One iteration: the next batch through every step that is due."""
        try:
            batch = self.parts.train_loader.next()
        except Exception:
            if self._saved_step != self.step and self.ranks.size == 1:  # the others know nothing of it
                self.save()
            raise
        self.step += 1
        try:
            self.run_batch(move(batch, self.device), self.step)
        except Exception as error:
            error.add_note(f"at iteration {self.step} of {self.experiment.file}")
            raise

    def run_batch(self, batch: dict[str, Any], number: int) -> None:
        """Split a batch on the device into micro-batches and train every due step on them."""
        options = self.options.train
        micro_batches = split_batch(batch, options.mega_batch_factor)
        provided = set(micro_batches[0])
        seed = batch_seed(self.seed, number)
        updated = False
        for step in self.parts.steps:
            if not step.flags.due(number) or not step.flags.met_by(micro_batches[0]):
                continue
            if self._trained_step != step.name:
                step.require_grad()
                self._trained_step = step.name
            states = [State(micro_batch) for micro_batch in micro_batches]
            tally = step.train(states, number, seed, self.precision.autocast, options)
            self.averages.add(step.name, tally)
            updated |= step.updated
            if step.kept:
                for micro_batch, state in zip(micro_batches, states, strict=True):
                    micro_batch.update(step.outputs(state, provided))
        if self.precision.scaler is not None and updated:
            self.precision.scaler.update()
        for average in self.parts.averages.values():
            average.update()

    def _set_mode(self) -> None:
        """Training mode for what is trained; networks that are not stay in evaluation mode."""
        for name, network in self.parts.networks.items():
            network.train(name in self.parts.updaters)

    def _at_intervals(self) -> None:
        options = self.options
        self.progress.advance(self.step)
        last = self.step == options.train.niter
        if self.step % options.logger.print_freq == 0 or last:
            self._log()
        elif self.step == 1:
            self.progress.line(f"the first step is made; figures follow every {options.logger.print_freq} steps")
        if self._due(options.train.val_freq) or last:
            self._validate()
        if (self._due(options.logger.save_checkpoint_freq) or last) and self._saved_step != self.step:
            self.save()
        if options.samples is not None and self._due(options.samples.every) and not last:
            self._sample()

    def _due(self, interval: int | None) -> bool:
        return interval is not None and self.step % interval == 0

    def _log(self) -> None:
        """Read the figures back from the device, once for all steps since the last time."""
        figures: dict[str, Any] = dict(self.averages.figures(self.step))
        for network, updaters in self.parts.updaters.items():
            for updater in updaters:
                title = network if len(updaters) == 1 else f"{network}.{updaters.index(updater)}"
                figures[f"grad_norm.{title}"] = updater.read_norms()
                figures[f"lr.{title}"] = updater.optimizer.param_groups[0]["lr"]
                if updater.skipped:
                    figures[f"skipped_updates.{title}"] = updater.skipped
                if updater.longest_streak >= self.options.train.max_nonfinite_steps:
                    self._stop_nonfinite(network, updater.longest_streak)
        for name, network in self.parts.networks.items():
            counted = getattr(network, "figures", dict)()
            figures |= {f"{name}.{key}": float(value) for key, value in counted.items()}
        now = time.perf_counter()
        seconds, steps = now - self._logged_at, self.step - self._logged_step
        waited, self.parts.train_loader.waited_seconds = self.parts.train_loader.waited_seconds, 0.0
        figures["tokens_per_second"] = self.averages.tokens_per_step() * steps / seconds
        figures["data_wait_share"] = waited / seconds
        if self.parts.train_loader.skipped:
            figures["skipped_reads"] = sum(self.parts.train_loader.skipped.values())
        figures["memory_bytes"] = memory_bytes(self.device)
        figures |= self._speed.figures(steps / seconds)
        self._logged_at, self._logged_step = now, self.step
        self.metrics.write(self.step, "train", figures)
        self.progress.figures(self.step, figures)

    def _stop_nonfinite(self, network: str, streak: int) -> None:
        batch = self.parts.train_loader.batch(self.step - 1)
        self.progress.stop()
        kept = self._write(self.folder.path / "nonfinite")
        found = f"the state is kept in {kept}: --replay it in one process"
        if self.ranks.size == 1:
            found = explain(self.experiment, self.parts, batch, self.step, kept)
        raise NonFiniteError(
            f"step {self.step}: the last {streak} updates of network {network} were skipped, their gradients were not "
            f"finite; the parameters are as before them\n{found}"
        )

    def _validate(self) -> None:
        """Validate; the best result so far is kept as a checkpoint."""
        if self.parts.val_loader is None:
            return
        started = time.perf_counter()
        with self._averaged():
            name, value = self.evaluation.validate(self.step)
        self._set_mode()
        self._logged_at += time.perf_counter() - started
        if name is not None and (self.best is None or value < self.best["value"]):
            self.best = {"value": value, "step": self.step}
            self.save()

    def _sample(self) -> None:
        """Make samples with the averages; training goes on in training mode."""
        started = time.perf_counter()
        whole = self.copies.loaded(self.parts.networks) if self.copies is not None else contextlib.nullcontext()
        with self._averaged(), whole:
            self._write_once(lambda: self.evaluation.sample(self.step))
        self._set_mode()
        self._logged_at += time.perf_counter() - started

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """The moving averages in place of the weights, where there are any."""
        for average in self.parts.averages.values():
            average.swap()
        try:
            yield
        finally:
            for average in self.parts.averages.values():
                average.swap()

    def save(self) -> Path:
        """Write a checkpoint of this step and thin out the older ones."""
        path = self._write(self.folder.checkpoints)
        self._saved_step = self.step
        self._write_once(self._tidy)
        return path

    def _write_once(self, action: Callable[[], object]) -> None:
        """Let the first process write into the run's folder; all processes fail where the disk refuses it."""

        def write() -> None:
            with checkpoints.writing(self.folder.path):
                action()

        self.ranks.do_once(write)

    def _tidy(self) -> None:
        """Mark the best and the final checkpoint, and thin out the others."""
        marks = {"best": self.best, "final": self.step if self.step >= self.options.train.niter else None}
        checkpoints.write_atomically(self.folder.checkpoints / "marks.json", json.dumps(marks))
        keep = {self.step} | ({int(self.best["step"])} if self.best else set())
        checkpoints.thin_out(self.folder.checkpoints, self.options.logger.num_checkpoints, keep)

    def _write(self, folder: Path) -> Path:
        self.metrics.flush()
        return shards.save(self.ranks, folder, self.step, self._weights(), self._state())

    def _weights(self) -> dict[str, Any]:
        """State dicts by file name; a frozen network that comes from a file of its own is not saved again."""
        pretrained = self.options.path.pretrain_model
        saved = {
            name: network.state_dict()
            for name, network in self.parts.networks.items()
            if self.experiment.networks[name].flags.trainable or name not in pretrained
        }
        return saved | {f"{name}_ema": average.state_dict() for name, average in self.parts.averages.items()}

    def _state(self) -> dict[str, Any]:
        scaler = self.precision.scaler
        return {
            "step": self.step,
            "experiment": self.experiment.values,
            "updaters": {name: [u.state_dict() for u in updaters] for name, updaters in self.parts.updaters.items()},
            "scaler": scaler.state_dict() if scaler else {},
            "random": shards.random_states(self.ranks),
            "averages": self.averages.state_dict(),
            "best": self.best,
            "data": self._data(),
            "borrowed": borrowed_weights(self.parts.steps),
            "skipped": shards.merged_counts(self.ranks.gather(self.parts.train_loader.skipped)),
        }

    def _resume(self) -> Path | None:
        """Continue from the run's checkpoint, where there is one, else start from pretrained weights."""
        found = self.folder.checkpoint()
        if found is None:
            return None
        checkpoints.verify(found)
        state = checkpoints.load_state(found)
        self.folder.check_unchanged(found, state["experiment"])
        self.parts.notes += self.folder.check_data(state["data"], self._data(), self.parts.datasets)
        check_borrowed(found, state.get("borrowed", {}), borrowed_weights(self.parts.steps))
        was, train = state["experiment"]["train"]["niter"], self.options.train
        if was != train.niter and train.default_lr_scheme == "CosineAnnealingLR_Restart" and not train.T_period:
            self.parts.notes.append(
                f"train.niter was {was}, is {train.niter}: the cosine is stretched to it from here on"
            )
        self._load(found, state)
        return found

    def _data(self) -> dict[str, Any]:
        """What identifies the data, as flat keys."""
        found = {name: dataset.fingerprint() for name, dataset in self.parts.datasets.items()}
        return {f"{name} {key}": value for name, marks in found.items() for key, value in marks.items()}

    def _load(self, found: Path, state: dict[str, Any]) -> None:
        for name in self._weights():
            path = found / f"{name}.safetensors"
            weights = checkpoints.load_weights(path)
            network = name.removesuffix("_ema") if name not in self.parts.networks else name
            if name in self.parts.networks:
                weights = shards.fitted(self.parts.networks[network].state_dict(), weights)
                checkpoints.fit_weights(self.parts.networks[network], network, weights, path, strict=True)
            else:
                average = self.parts.averages[network]
                average.load_state_dict(shards.fitted(average.state_dict(), weights))
        if not self.options.path.optimizer_reset:
            for name, updaters in self.parts.updaters.items():
                for number, saved in enumerate(state["updaters"][name]):
                    updater = updaters[number]
                    fitting = shards.load_updater(found, f"{name}.{number}", saved, updater.parameters)
                    updater.load_state_dict(fitting)
        if self.precision.scaler is not None and state["scaler"]:
            self.precision.scaler.load_state_dict(state["scaler"])
        self._random = state["random"]
        self.averages.load_state_dict(state["averages"])
        self.step, self.best = state["step"], state["best"]
        self.parts.train_loader.skipped = state["skipped"] if self.ranks.first else {}

    def _announce(self) -> None:
        line = self.progress.line
        dtype = str(self.precision.dtype).removeprefix("torch.")
        line(f"{self.options.name}: {self.folder.path} on {self.device}, {dtype}")
        if self.folder.moved_to is not None:
            line(f"the old run is now {self.folder.moved_to}")
        for note in self.parts.notes:
            line(note)
        if self._resumed is not None:
            line(f"continues from {self._resumed} at step {self.step} of {self.options.train.niter}")
        self._write_once(lambda: record_environment(self.folder.path, self.step))
        if self.ranks.first:
            self.metrics.wandb = wandb_log.start(self.folder.path, self.experiment, line)
        self._write_once(self.evaluation.announce)

    def _finish(self) -> None:
        """Save the final checkpoint and say how it went."""
        if self._saved_step != self.step:
            self.save()
        else:
            self._write_once(self._tidy)  # a kill may have come between the checkpoint and this
        has_samples = self.ranks.gather(self.evaluation.has_samples(self.step))[0]
        if self.options.samples is not None and not has_samples:
            self._sample()
        self.progress.stop()
        self.ranks.do_once(self._report)

    def _report(self) -> None:
        self.evaluation.summary(self.best)
        metrics = self.folder.path / "metrics.jsonl"
        for line in copy_baseline.report(self.parts, self.experiment, self.best, metrics):
            self.progress.line(line)
        self.progress.line(report_line(self.folder.path))


__all__ = ["CheckpointError", "ExtensibleTrainer", "NonFiniteError"]
