"""A trained run predicts one piece of audio from another: what scripts/sample.py does with networks that continue none.

A `t5` that hears one channel, a noisy version or the past is given those of items of the run's validation set, as
during the run (`samples` in the YAML says how many real frames stand before what it predicts).
"""

import dataclasses
from pathlib import Path

import numpy as np

from codes.trainer.continuation import reader
from codes.trainer.export import open_run, trained_networks
from codes.trainer.item_sampling import ItemSampler, Sound
from codes.trainer.precision import choose_device
from codes.trainer.step import Step


class Predictions:
    """A run's network with what it predicts from.

    Args:
        run: the run's folder.
        network: its name; None: the one of `samples`.
        checkpoint: a checkpoint folder; None: the best of the run, or its newest.

    Raises:
        OptionError: the run's options.yml cannot be loaded, or items of its dataset cannot be predicted.
        CheckpointError: there is no checkpoint, or it does not fit.
        ValueError: `samples` does not name the network.
    """

    def __init__(self, run: Path, network: str | None, checkpoint: Path | None) -> None:
        self.experiment, self.checkpoint = open_run(run, checkpoint)
        samples = self.experiment.options.samples
        if samples is None or network not in (None, samples.network):
            raise ValueError(
                f"network {network or 'of this run'} predicts one piece of audio from another: "
                "its options.yml must say under `samples` how, as experiments/stereo_t5.yml does"
            )
        self.samples = samples
        self.device = choose_device(self.experiment.options)
        self.networks = trained_networks(self.experiment, self.checkpoint)
        for module in self.networks.values():
            module.to(self.device)

    def sample_rate_hz(self) -> int:
        """Of the audio that is predicted."""
        entry = self.experiment.datasets.get("val", self.experiment.datasets["train"])
        return int(entry.built_from.build().item(0, np.random.default_rng(0))["sample_rate"])

    def make(
        self, frames: int, num: int, *, temperature: float, seed: int, top_k: int, top_p: float
    ) -> list[dict[str, Sound]]:
        """So many predictions of so many frames, each with the real audio and what was given, by name.

        Raises:
            ValueError: no file is long enough.
        """
        samples = dataclasses.replace(
            self.samples, new_frames=frames, num=num, temperature=temperature, seed=seed, top_k=top_k, top_p=top_p
        )
        options = dataclasses.replace(self.experiment.options, samples=samples)
        entry, called = reader(self.experiment, samples.network)
        injectors = [found.built_from.build(self.networks) for found in entry.injectors]
        step = Step(dataclasses.replace(entry, losses=[]), injectors, [], [], self.networks, set())
        bound = next(found for found in step.injectors if found.name == called.name)
        experiment = dataclasses.replace(self.experiment, options=options)
        made = ItemSampler(experiment, self.networks, self.device, step, bound).hear()
        if not made:
            raise ValueError(f"no validation file has {samples.prompt_frames + frames} frames: take fewer --seconds")
        return made
