"""From a run of a `residual_lm` to the model file that codes audio.

    data = residual_model_file(Path("runs/residual_lm"))        # the best checkpoint, as one safetensors file

The file holds the weights and, in its metadata, what a decoder must know, the options of the adaptive prediction. Coded
files name it by its hash, so nothing else is in it that differs between a run and its exported copy; a file that is to
be published may say besides how it was made.
"""

from pathlib import Path

import numpy as np

from codes.adaptive.cascade_options import AdaptiveOptions
from codes.compression.residual_model import residual_model_bytes
from codes.entries import Experiment
from codes.experiment import load_experiment
from codes.run_files import network_weights
from codes.trainer.checkpoint import CheckpointError, load_weights, step_of
from codes.trainer.run_folder import choose_checkpoint

SOURCES = ("residual_chunk", "linear_prediction")  # the dataset and the injector that predict


def residual_model_file(run: Path, command: str = "") -> bytes:
    """The model file of a run's best checkpoint: the same bytes whenever it is made.

    Args:
        run: folder of the run.
        command: how it was made, kept in the file for people together with the experiment as it ran.

    Raises:
        ValueError: the run has no `residual_lm`, or no whole checkpoint.
    """
    options = run / "options.yml"
    if not options.is_file():
        raise ValueError(f"{run} is no folder of a run: it has no options.yml")
    experiment = load_experiment(options)
    networks = {name: entry.built_from for name, entry in experiment.networks.items()}
    found = [name for name, component in networks.items() if component.type == "residual_lm"]
    if len(found) != 1:
        raise ValueError(f"{run}: expected one network residual_lm, found {', '.join(found) or 'none'}")
    adaptive = _adaptive(experiment)
    mixtures = networks[found[0]].build().mixtures
    try:
        checkpoint = choose_checkpoint(run)
        weights = load_weights(network_weights(checkpoint, found[0]))
    except CheckpointError as error:
        raise ValueError(str(error)) from error
    tensors: dict[str, np.ndarray] = {name: tensor.float().numpy() for name, tensor in weights.items()}
    about = {"step": str(step_of(checkpoint))}
    if command:
        about |= {"command": command, "experiment": options.read_text(encoding="utf-8")}
    return residual_model_bytes(tensors, adaptive, mixtures, about)


def _adaptive(experiment: Experiment) -> AdaptiveOptions:
    """The adaptive prediction that the network was trained on."""
    components = [entry.built_from for entry in experiment.datasets.values()]
    components += [entry.built_from for step in experiment.steps for entry in step.injectors]
    for component in components:
        if component.type in SOURCES:
            return component.options.get("adaptive") or AdaptiveOptions()
    raise ValueError(f"a residual_lm needs the dataset {SOURCES[0]} or the injector {SOURCES[1]}: there is neither")
