"""From a run to a folder for others, and from such a folder to networks.

    export_run(Path("runs/stereo_lm"), Path("stereo_lm"))
    networks = load_networks(Path("stereo_lm"))         # {"lm": ...}, with their weights, in evaluation mode

The folder is a run without its past: options, the weights of one checkpoint (the averaged ones where there are any),
plug-ins, tokenizer files, and a README that says what it reaches. So whatever takes a run takes it as well:
``sample.py --run``, ``compress.py --run``, ``load_networks``. It cannot be resumed; `path.pretrain_model_NETWORK` takes
its weights into a training of one's own.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from codes.entries import Experiment
from codes.experiment import load_experiment
from codes.run_files import network_weights
from codes.trainer import checkpoint as checkpoints
from codes.trainer.checkpoint import CheckpointError
from codes.trainer.lora import add_lora
from codes.trainer.model_card import model_card
from codes.trainer.report.record import read_run
from codes.trainer.run_folder import choose_checkpoint

_CARRIED = ("tokenizer", "vocab", "merges")  # options whose files belong to a model


def load_networks(folder: Path, checkpoint: Path | None = None) -> dict[str, nn.Module]:
    """The networks of a run or of an exported folder, by name, on the CPU, in evaluation mode.

    Args:
        folder: the run's.
        checkpoint: one of its checkpoints; None: the best.

    Raises:
        OptionError: its options.yml cannot be loaded.
        CheckpointError: there is no checkpoint, or it does not fit.
    """
    return trained_networks(*open_run(folder, checkpoint))


def trained_networks(experiment: Experiment, checkpoint: Path) -> dict[str, nn.Module]:
    """`load_networks` of a run that `open_run` has opened."""
    torch.manual_seed(experiment.options.train.manual_seed)
    networks: dict[str, nn.Module] = {}
    for name, entry in experiment.networks.items():
        network = entry.built_from.build()
        if entry.flags.lora is not None:
            add_lora(network, name, entry.flags.lora)
        source = weights_file(experiment, checkpoint, name)
        checkpoints.fit_weights(network, name, checkpoints.load_weights(source), source, strict=True)
        networks[name] = network.eval().requires_grad_(False)
    return networks


def open_run(folder: Path, checkpoint: Path | None = None) -> tuple[Experiment, Path]:
    """The experiment of a run or of an exported folder, and its verified checkpoint: the best where none is given.

    Raises:
        OptionError, CheckpointError: as `load_networks`.
    """
    if not (folder / "options.yml").is_file():
        raise CheckpointError(f"{folder} is no run: it has no options.yml")
    chosen = choose_checkpoint(folder, checkpoint)
    return load_experiment(folder / "options.yml"), chosen


def weights_file(experiment: Experiment, checkpoint: Path, name: str) -> Path:
    """A network's weights: averaged, trained, or the file that a frozen network comes from.

    Raises:
        CheckpointError: there are none.
    """
    file = network_weights(checkpoint, name)
    source = file if file.is_file() else experiment.options.path.pretrain_model.get(name)
    if source is None:
        raise CheckpointError(f"{checkpoint} has no weights of network {name}")
    return source


def export_run(run: Path, out: Path, checkpoint: Path | None = None) -> list[str]:
    """Write a run's networks as a folder for others.

    Args:
        run: the run's folder.
        out: the new folder.
        checkpoint: one of its checkpoints; None: the best.

    Returns:
        what was written, in lines.

    Raises:
        OptionError, CheckpointError: as `load_networks`.
        ValueError: `out` holds something already.
        OSError: it cannot be written.
    """
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty: give a new folder")
    experiment, chosen = open_run(run, checkpoint)
    networks = trained_networks(experiment, chosen)
    step = checkpoints.step_of(chosen)
    weights = {
        name: checkpoints.load_weights(weights_file(experiment, chosen, name))
        for name, network in networks.items()
        if network.state_dict()
    }
    out.mkdir(parents=True, exist_ok=True)
    checkpoints.save_checkpoint(out / "checkpoints", step, weights, {})
    values = yaml.safe_load((run / "options.yml").read_text(encoding="utf-8"))
    carried = _carry(values, experiment, out)
    (out / "options.yml").write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")
    record = read_run(run)
    judged = record if record.best is not None and int(record.best["step"]) == step else None
    (out / "README.md").write_text(model_card(read_run(out), judged, step), encoding="utf-8")
    total = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    counts = ", ".join(f"{name} {sum(p.numel() for p in net.parameters()):,}" for name, net in networks.items())
    extra = [f"with {', '.join(carried)}"] if carried else []
    return [f"{out}: step {step}, {total / 2**20:.1f} MiB; parameters: {counts}", *extra]


def _carry(values: dict[str, Any], experiment: Experiment, out: Path) -> list[str]:
    """Copy plug-ins and tokenizer files into the folder and name them there; forget where weights came from."""
    carried: list[str] = []
    for plugin in experiment.plugins:
        carried.append(_copied(plugin, out))
    values["plugins"] = list(carried)
    path = values.setdefault("path", {})
    path["root"], path["resume_state"] = "runs", None
    for key in [key for key in path if key.startswith("pretrain_model")]:
        del path[key]
    carried += _carry_files(values, out)
    return carried


def _carry_files(value: Any, out: Path) -> list[str]:
    """Copy the files that options name which belong to a model."""
    found: list[str] = []
    for key, child in list(value.items()) if isinstance(value, dict) else []:
        wanted = isinstance(child, str) and any(word in str(key) for word in _CARRIED)
        if wanted and Path(child).is_file():
            value[key] = _copied(Path(child), out)
            found.append(value[key])
        found += _carry_files(child, out)
    return found


def _copied(file: Path, out: Path) -> str:
    """Copy a file into the folder; its name there."""
    name, number = file.name, 1
    while (out / name).exists() and (out / name).read_bytes() != file.read_bytes():
        number += 1
        name = f"{file.stem}_{number}{file.suffix}"
    shutil.copyfile(file, out / name)
    return name
