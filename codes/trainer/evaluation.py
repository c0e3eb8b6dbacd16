"""What a run is judged by: validation, samples, and the comparison with FLAC and with the entropy of single samples."""

import io
import json
import math
import os
import shutil
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from codes.compression import baselines
from codes.data.loader import Loader
from codes.entries import Experiment
from codes.trainer import code_baselines
from codes.trainer.build import Parts
from codes.trainer.checkpoint import write_atomically
from codes.trainer.item_sampling import ItemSampler, Sound
from codes.trainer.metrics import Averages, MetricsFile
from codes.trainer.progress import Progress
from codes.trainer.run_folder import RunFolder
from codes.trainer.sampling import AnySampler, Sampler, scored_audio, to_float, write_wav
from codes.trainer.state import State, move
from codes.trainer.step import BoundInjector
from codes.trainer.visuals import Visuals

VALIDATION_SEED = 1


class Evaluation:
    """Validates, samples and reports for one run.

    Args:
        experiment, parts, folder, metrics, progress, sampler: of the run.
    """

    def __init__(
        self, experiment: Experiment, parts: Parts, folder: RunFolder, metrics: MetricsFile, progress: Progress,
        sampler: AnySampler | None,
    ) -> None:  # fmt: skip
        self.experiment, self.parts, self.folder = experiment, parts, folder
        self.metrics, self.progress = metrics, progress
        self.baseline: baselines.Baselines | None = None
        self.code_lines: list[str] = []  # what language models of codes must beat
        self.sampler = sampler
        networks = parts.networks
        self.injectors = [BoundInjector(e, e.built_from.build(networks), "eval") for e in experiment.eval_injectors]
        self.evaluators = [(entry, entry.built_from.build(networks)) for entry in experiment.evaluators]
        rate = (
            experiment.datasets["val"].built_from.options.get("sample_rate") if "val" in experiment.datasets else None
        )
        logger = experiment.options.logger
        self.visuals = Visuals(
            folder.path / "visuals", experiment.visuals, logger.visual_debug_rate, logger.is_mel_spectrogram,
            rate or 22050, self._write,
        )  # fmt: skip

    @torch.no_grad()
    def validate(self, step: int) -> tuple[str | None, float]:
        """Measure every loss on the validation set, weighed by what it counted.

        Returns:
            the headline figure's name (eval.best_by, else bits_per_sample or the total loss; None if there are none)
            and its value.
        """
        loader, limit = self.parts.val_loader, self.experiment.options.eval.train_batches
        assert loader is not None
        for network in self.parts.networks.values():
            network.eval()
        for bound in (*self.injectors, *(injector for step in self.parts.steps for injector in step.injectors)):
            bound.injector.trained_steps = step
        figures = self._measured(step, "val", loader, self._chosen_batches(len(loader)))
        if limit:
            beside = self._measured(step, "train_eval", self.parts.train_loader, list(range(limit)))
            self.progress.line(f"training set, measured alike: {self._shown(beside)}")
        best_by = self.experiment.options.eval.best_by
        name = best_by or ("bits_per_sample" if "bits_per_sample" in figures else "loss")
        return (name, figures[name]) if name in figures else (None, math.inf)

    def _measured(self, step: int, split: str, loader: Loader, numbers: list[int]) -> dict[str, float]:
        """The figures of some batches, in evaluation mode, written under the name of their split."""
        losses = {entry.name: entry.losses for entry in self.parts.steps}
        averages = Averages(losses)
        for number in numbers:
            batch, counts = loader.share(number)
            found = self._measure(move(batch, self.parts.device), number, averages if counts else Averages(losses))
            if number == numbers[0] and split == "val" and self.visuals.due(step) and self.parts.ranks.first:
                self._show(found, step)
        if self.parts.ranks.size > 1:
            averages.merge(self.parts.ranks.gather)
        numbers_found, curves = averages.reported()
        figures = averages.figures(step) | numbers_found
        self.metrics.write(step, split, figures, curves)
        if split == "val":
            self.progress.line(f"val at step {step}: {self._shown(figures)}")
        return figures

    def _shown(self, figures: dict[str, float]) -> str:
        """Validation figures in a line, bits per sample and its rival first."""
        losses = {name: value for name, value in figures.items() if name not in ("loss", "bits_per_sample")}
        parts = [f"{name} {value:.4f}" for name, value in losses.items()]
        if "bits_per_sample" in figures:
            rival = f" (FLAC {self.baseline.flac_bits_per_sample:.3f})" if self.baseline else ""
            parts.insert(0, f"{figures['bits_per_sample']:.3f} bits/sample{rival}")
        return "  ".join(parts)

    def _chosen_batches(self, total: int) -> list[int]:
        limit = self.experiment.options.eval.max_batches
        if limit is None or limit >= total:
            return list(range(total))
        return [number * total // limit for number in range(limit)]

    def _show(self, found: dict[str, Any], step: int) -> None:
        left = self.visuals.show(found, step, self.metrics)
        if left:
            self.progress.line(f"visuals: {', '.join(left)} is neither a spectrogram nor sound (B, [C,] T)")

    def _measure(self, batch: dict[str, Any], number: int, averages: Averages) -> dict[str, Any]:
        """All losses and evaluators of a batch; returns the values that it had in the end."""
        provided, found = dict(batch), dict(batch)
        for step in (step for step in self.parts.steps if step.flags.met_by(provided)):
            state = State(provided)
            with self.parts.precision.autocast():
                step.inject(state, "val", 0, 0, (VALIDATION_SEED << 40) + number)
            averages.add(step.name, {name: [value] for name, value in step.measure(state).items()})
            averages.add_figures(step.name, step.figures(state))
            provided |= step.outputs(state, set(batch))
            found |= state
        for injector in self.injectors:
            state = State({key: value for key, value in found.items() if key not in injector.flags.out})
            with self.parts.precision.autocast():
                injector.run(state, (VALIDATION_SEED << 40) + number)
            found |= state
        for entry, evaluator in self.evaluators:
            values = {name: found[key] for name, key in entry.reads.items()}
            averages.add_figures("eval", {entry.name: evaluator.forward(**values)})
        return found

    def sample(self, step: int) -> None:
        """Let the model make audio from excerpts of the validation set; write WAV files and TensorBoard entries."""
        if self.sampler is None:
            return
        options, branched = self.sampler.options, isinstance(self.sampler, ItemSampler)
        with self.parts.precision.autocast():
            heard = self._continued(self.sampler) if isinstance(self.sampler, Sampler) else self.sampler.hear()
        if not heard:
            frames = options.prompt_frames + options.new_frames
            self.progress.line(f"no samples: no validation file has {frames} frames")
            return
        what = "prompt and continuation" if options.given_channel is None else "given and predicted channel"
        what = "prediction" if branched and options.given_channel is None else what
        self._write_samples(step, heard, what)

    def _continued(self, sampler: Sampler) -> list[dict[str, Sound]]:
        """Excerpts of the validation set as the model continues them, beside the real ones."""
        chosen = sampler.excerpts(scored_audio(self.parts.datasets, sampler.most_frames))
        if not chosen:
            return []
        sampler.network.eval()
        pcm = torch.from_numpy(np.stack([excerpt.pcm for excerpt in chosen])).to(self.parts.device)
        return [
            {
                "model": Sound(wav, sampler.output_bits(excerpt.bits), excerpt.sample_rate_hz),
                "real": Sound(torch.from_numpy(excerpt.pcm), excerpt.bits, excerpt.sample_rate_hz),
            }
            for excerpt, wav in zip(chosen, sampler.generate(pcm), strict=True)
        ]

    def _write_samples(self, step: int, heard: list[dict[str, Sound]], what: str) -> None:
        """Sounds by name, of each sample, as files that appear together."""
        folder = self._sample_folder(step)
        aside = folder.with_suffix(".tmp")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        for number, sounds in enumerate(heard):
            for name, sound in sounds.items():
                self._write(aside / f"{number}_{name}.wav", sound, step)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(aside, folder)
        self.progress.line(f"samples at step {step} ({what}, beside the real audio): {folder}")

    def _sample_folder(self, step: int) -> Path:
        return self.folder.samples / f"step_{step:08d}"

    def has_samples(self, step: int) -> bool:
        """Whether the samples of a step are there."""
        return self._sample_folder(step).is_dir()

    def _write(self, path: Path, sound: Sound, step: int) -> None:
        from codes.data.audio.picture import save_png, spectrogram_image

        wav = to_float(sound.wav.cpu(), sound.bits)
        write_wav(path, wav, sound.bits, sound.sample_rate_hz)
        picture = spectrogram_image(wav, sound.sample_rate_hz)
        save_png(path.with_suffix(".png"), picture)
        writer = self.metrics.tensorboard
        if writer is not None:
            writer.file_writer.add_summary(_audio_summary(f"samples/{path.stem}", wav, sound.sample_rate_hz), step)
            writer.add_image(f"samples/{path.stem}", picture, step, dataformats="HWC")
        if self.metrics.wandb is not None:
            self.metrics.wandb.sound(f"samples/{path.stem}", path, sound.sample_rate_hz, step)

    def compare(self) -> baselines.Baselines | None:
        """FLAC and single-sample entropy on the validation audio at the model's bit depth; measured once for a run.

        None where there is nothing to compare with: no validation set, or a model that does not code linear PCM.
        """
        val, bits, options = self.parts.datasets.get("val"), self._model_bits(), self.experiment.options.eval
        if bits is None or not options.baselines or not hasattr(val, "scored_audio"):
            return None
        if val.scored_seconds() > 60 * options.baseline_minutes:  # type: ignore[union-attr]
            self.progress.line("no comparison with FLAC: more validation audio than eval.baseline_minutes")
            return None
        path, data = self.folder.path / "baselines.json", val.fingerprint()  # type: ignore[union-attr]
        if path.is_file():
            known = json.loads(path.read_text(encoding="utf-8"))
            if known["data"] == data:
                return baselines.Baselines(**known["figures"])
        found = baselines.compare(_at_depth(scored_audio(self.parts.datasets), bits), bits)
        write_atomically(path, json.dumps({"data": data, "figures": vars(found)}))
        return found

    def _model_bits(self) -> int | None:
        """The bit depth of the first pcm_quantize, one that FLAC knows; None where there is none."""
        entries = [entry for step in self.experiment.steps for entry in step.injectors]
        found = [e.built_from.options.get("bits", 16) for e in entries if e.built_from.type == "pcm_quantize"]
        return int(found[0]) if found and found[0] in (8, 16, 24) else None

    def announce(self) -> None:
        """Say what the data and the networks are, and what is to be beaten."""
        for line in dataset_lines(self.parts):
            self.progress.line(line)
        for name, network in self.parts.networks.items():
            self.progress.line(f"network {name}: {sum(p.numel() for p in network.parameters()):,} parameters")
        self.baseline = found = self.compare()
        if found is not None:
            flac = f"{found.flac_bits_per_sample:.3f} bits/sample by {found.flac_label}"
            self.progress.line(f"to beat on the validation audio: {flac}")
        loader = self.parts.val_loader
        if loader is not None:
            codes = code_baselines.measure(self.experiment, self.parts, self._chosen_batches(len(loader)))
            self.code_lines = codes.lines() if codes else []
        for line in self.code_lines:
            self.progress.line(line)

    def summary(self, best: dict[str, float] | None) -> None:
        """The last lines of a run."""
        line = self.progress.line
        line(f"finished: {self.folder.path}")
        best_by = self.experiment.options.eval.best_by  # not in bits per sample, then
        found = self.baseline if best_by is None else None
        if best is not None and found is None:
            what = f"best validation of {best_by}" if best_by else "best validation"
            line(f"{what}: {best['value']:.4f} at step {int(best['step'])}")
        for text in self.code_lines if best is not None else ():
            line(text)
        if best is None or found is None:
            return
        model, flac = best["value"], found.flac_bits_per_sample
        part = self.experiment.options.eval.max_batches
        line(f"bits per sample on the validation audio ({found.num_samples:,} samples at {self._model_bits()} bits):")
        rows = (
            (f"model (best, at step {int(best['step'])})", model),
            (found.flac_label, flac),
            ("order-0 entropy of single samples", found.order0_bits_per_sample),
        )
        width = max(len(title) for title, _ in rows)
        for title, value in rows:
            seen = "of the part that eval.max_batches takes" if part and value is model else ""
            line(f"  {title:<{width}}  {value:7.3f}  {seen or f'{100 * value / flac:6.1f} % of FLAC'}")


def dataset_lines(parts: Parts) -> list[str]:
    """What the datasets say of themselves; what two of them share is said once."""
    lines: list[str] = []
    for name, dataset in parts.datasets.items():
        report = dataset.report() if hasattr(dataset, "report") else [f"{len(dataset)} items"]  # type: ignore[attr-defined]
        lines += [line for line in (f"{name}: {text}" for text in report) if line.partition(": ")[2] not in
                  {known.partition(": ")[2] for known in lines}]  # fmt: skip
    return lines


def _at_depth(files: Any, bits: int) -> Iterator[tuple[str, np.ndarray, int, int]]:
    """Audio files of a dataset as pcm_quantize sees them: shifted to another bit depth."""
    for path, pcm, file_bits, rate in files:
        wide = pcm.astype(np.int64)
        shifted = wide >> (file_bits - bits) if file_bits > bits else wide << (bits - file_bits)
        yield path, shifted.astype(np.int16 if bits <= 16 else np.int32), bits, rate


def _audio_summary(tag: str, wav: np.ndarray, sample_rate_hz: int) -> Any:
    """A TensorBoard audio entry that keeps the channels (the usual call mixes them to one)."""
    from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[attr-defined]

    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(wav.shape[0])
        file.setsampwidth(2)
        file.setframerate(sample_rate_hz)
        file.writeframes((np.clip(wav.T, -1, 1) * 32767).astype("<i2").tobytes())
    audio = Summary.Audio(
        sample_rate=sample_rate_hz, num_channels=wav.shape[0], length_frames=wav.shape[1],
        encoded_audio_string=buffer.getvalue(), content_type="audio/wav",
    )  # fmt: skip
    return Summary(value=[Summary.Value(tag=tag, audio=audio)])
