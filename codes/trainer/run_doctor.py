"""`--doctor`: will this experiment run here, and what would make it run better.

Versions, the pair of torch and torchaudio, the GPU, memory and cores, the disk, the data, and two real training steps
with a checkpoint, in a folder that is deleted again. Every finding that wants something done says what.
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from codes import registry
from codes.entries import Experiment
from codes.experiment import load_experiment
from codes.trainer.environment import ROOT, memory_gib, package_version, usable_cores
from codes.trainer.progress import duration
from codes.yaml_source import OptionError

OLDEST_PYTHON = (3, 11)
_SIGNS = {"fine": "ok  ", "advice": "note", "wrong": "BAD "}


@dataclass(frozen=True)
class Finding:
    """What was looked at: whether it is fine, the text, and what to do."""

    state: Literal["fine", "advice", "wrong"]
    text: str
    advice: str = ""

    def lines(self) -> list[str]:
        """As it is printed."""
        return [f"{_SIGNS[self.state]}  {self.text}", *([f"      -> {self.advice}"] if self.advice else [])]


def examine(file: Path, overrides: list[str], say: Callable[[str], None] = print) -> bool:
    """Look at everything and say it, line by line as it is found.

    Args:
        file: the experiment.
        overrides: as on the command line.
        say: takes a line.

    Returns:
        whether nothing is wrong.
    """
    healthy = True
    for finding in _findings(file, overrides):
        healthy &= finding.state != "wrong"
        for line in finding.lines():
            say(line)
    say("this experiment runs here" if healthy else "this experiment does not run here yet: see the lines with BAD")
    return healthy


def _findings(file: Path, overrides: list[str]) -> Iterator[Finding]:
    yield from versions()
    yield torch_pair(package_version("torch"), package_version("torchaudio"))
    try:
        experiment = load_experiment(file, overrides)
    except OptionError as error:
        yield Finding("wrong", f"the experiment: {error}", "mend these lines; --list NAME explains options")
        return
    yield gpu(experiment)
    yield machine(experiment)
    yield from disk(experiment)
    yield from _trained(file, overrides)


def versions(requirements: Path = ROOT / "requirements.txt") -> Iterator[Finding]:
    """Python, and the installed packages beside those that are pinned."""
    python = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < OLDEST_PYTHON:
        yield Finding("wrong", f"Python {python}", f"install Python {'.'.join(map(str, OLDEST_PYTHON))} or newer")
    else:
        yield Finding("fine", f"Python {python}")
    lines = [line.partition("#")[0].strip() for line in requirements.read_text(encoding="utf-8").splitlines()]
    pins = [line.split("==") for line in lines if "==" in line]
    found = {name: (pin.strip(), package_version(name)) for name, pin in pins}
    missing = [name for name, (_, installed) in found.items() if installed is None]
    others = [f"{name} {installed} (pinned: {pin})" for name, (pin, installed) in found.items()
              if installed is not None and installed.split("+")[0] != pin]  # fmt: skip
    install = f"{Path(sys.executable).name} -m pip install -r {requirements.name}"
    if missing:
        yield Finding("wrong", f"not installed: {', '.join(missing)}", install)
    if others:
        yield Finding("advice", f"other versions than the tested ones: {', '.join(others)}", install)
    if not missing and not others:
        yield Finding("fine", f"{len(found)} packages, as pinned in {requirements.name}")


def torch_pair(torch_version: str | None, torchaudio_version: str | None) -> Finding:
    """Whether torch and torchaudio belong together: their first two numbers are the same."""
    text = f"torch {torch_version}, torchaudio {torchaudio_version}"
    if torchaudio_version is None or torch_version is None:
        return Finding("advice", text, "datasets and losses that need torchaudio will ask for it")
    if torch_version.split(".")[:2] != torchaudio_version.split(".")[:2]:
        pin = torch_version.split("+")[0]
        return Finding(
            "wrong", f"{text}: they are no pair", f"pip install torchaudio=={pin}, of the same index as torch"
        )
    return Finding("fine", f"{text}: a pair")


def gpu(experiment: Experiment) -> Finding:
    """What it computes on, and whether that is what was meant."""
    options = experiment.options
    wanted = options.gpu_ids
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        if not wanted:
            return Finding("advice", f"the CPU (gpu_ids: []), beside {', '.join(names)}", "gpu_ids: [0] uses the GPU")
        if max(wanted) >= len(names):
            return Finding("wrong", f"gpu_ids: {wanted}, this machine has {len(names)} (from 0)", "name one of these")
        if options.bf16 and not torch.cuda.is_bf16_supported():
            return Finding("advice", f"{names[wanted[0]]} has no bfloat16 of its own", "fp16: true")
        half = "" if options.bf16 or options.fp16 else "bf16: true is usually faster here, at the same loss"
        return Finding("advice" if half else "fine", f"GPU {wanted}: {names[wanted[0]]}", half)
    if shutil.which("nvidia-smi"):
        build = torch.version.cuda
        advice = (
            "install a torch build with CUDA" if build is None else f"the driver is too old for CUDA {build}: renew it"
        )
        return Finding("advice", "the CPU, although there is an NVIDIA driver", advice)
    return Finding("fine", "the CPU: torch finds no GPU" + (", gpu_ids is passed over" if wanted else ""))


def machine(experiment: Experiment) -> Finding:
    """Cores and memory."""
    cores, memory = usable_cores(), memory_gib()
    workers = experiment.datasets["train"].flags.n_workers
    text = f"{cores} cores" + (f", {memory:.1f} GiB of memory" if memory else "") + f", n_workers {workers}"
    if workers > cores:
        return Finding(
            "advice", text, f"more workers than cores take turns: datasets.train.n_workers={max(0, cores - 1)}"
        )
    return Finding("fine", text)


def disk(experiment: Experiment) -> Iterator[Finding]:
    """Room and permission where the run goes."""
    root = experiment.options.path.root
    parent = existing_parent(root)
    try:
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        yield Finding("wrong", f"{parent} cannot be written: {error}", "path.root=FOLDER puts runs elsewhere")
        return
    free = shutil.disk_usage(parent).free / 2**30
    state = "fine" if free >= 1 else "advice"
    yield Finding(
        state, f"{root}: {free:.1f} GiB free", "" if free >= 1 else "make room, or path.root=FOLDER elsewhere"
    )


def existing_parent(path: Path) -> Path:
    """The nearest folder above a path that exists."""
    return next(parent for parent in [path, *path.resolve().parents] if parent.is_dir())


def _trained(file: Path, overrides: list[str]) -> Iterator[Finding]:
    """Two steps and a checkpoint of the real thing, in a folder that goes away."""
    parent = existing_parent(load_experiment(file, overrides).options.path.root)
    try:
        with tempfile.TemporaryDirectory(dir=parent, prefix=".doctor_") as root:
            yield from _steps(load_experiment(file, [*overrides, f"path.root={root}", "use_tb_logger=false"]))
    except OptionError as error:
        yield Finding("wrong", f"the experiment: {error}", "mend these lines; --check shows every key with its shape")
    except Exception as error:  # whatever a user's data or plug-in raises belongs into the report
        notes = "".join(f"\n      {note}" for note in getattr(error, "__notes__", []))
        advice = "--check shows how far a batch comes; codes.data.audio.doctor looks through a folder of audio"
        yield Finding("wrong", f"a step failed: {registry.reason(error)}{notes}", advice)


def _steps(experiment: Experiment) -> Iterator[Finding]:
    from codes.trainer.evaluation import dataset_lines
    from codes.trainer.extensible_trainer import ExtensibleTrainer

    trainer = ExtensibleTrainer(experiment)
    for line in dataset_lines(trainer.parts):
        yield Finding("fine", f"data: {line}")
    try:
        trainer.parts.train_loader.seek(0)
        trainer.train_step()  # pays for what is done once
        started = time.perf_counter()
        trainer.train_step()
        figures = trainer.averages.figures(trainer.step)
        seconds = time.perf_counter() - started
        updaters = [updater for group in trainer.parts.updaters.values() for updater in group]
        norms = [updater.read_norms() for updater in updaters]
        saved = trainer.save()
    finally:
        trainer.parts.train_loader.close()
        trainer.metrics.close()
    if "loss" not in figures or any(updater.skipped for updater in updaters):
        shown = ", ".join(str(norm) for norm in norms)
        text = f"a step is not finite: loss {figures.get('loss')}, gradients {shown}"
        yield Finding("wrong", text, "--check names the first value that is not")
        return
    left = experiment.options.train.niter
    text = (
        f"a step: loss {figures['loss']:.4f}, {seconds:.2f} s, so about {duration(seconds * left)} for {left:,} steps"
    )
    yield Finding("fine", text)
    size = sum(path.stat().st_size for path in saved.iterdir())
    kept = experiment.options.logger.num_checkpoints + 2  # and the best, and the one being written
    free = shutil.disk_usage(saved).free
    state = "fine" if size * kept < free else "wrong"
    text = f"a checkpoint: {size / 2**20:.1f} MiB, up to {kept} at once: {size * kept / 2**30:.2f} GiB"
    yield Finding(state, text, "" if state == "fine" else "logger.num_checkpoints=1, or path.root=FOLDER elsewhere")
