"""Audio during a run from networks that go on after audio and complete no codes: a GAN's generator, LSTMs of floats.

Networks of codes fill in free tokens (`sampling.py`). These have `carry_on` instead, as scripts/sample.py calls it, and
are heard the same way here: excerpts of the validation set up to the prompt's end, then what the network makes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from codes.entries import Experiment
from codes.options import SampleOptions
from codes.trainer.build import Parts
from codes.trainer.continuation import Continuation, Prompt
from codes.trainer.item_sampling import Sound
from codes.yaml_source import OptionError


def only_goes_on(network: Any) -> bool:
    """Whether a network has `carry_on` and no codes that `generate` could complete."""
    of_floats = getattr(getattr(network, "output", None), "is_float", False)
    return hasattr(network, "carry_on") and (of_floats or not hasattr(network, "generate"))


class ContinuedSamples:
    """Makes audio with one network of an experiment.

    Args:
        experiment: the experiment; `samples.network` names the network.
        parts: built from it.
        choose: gives so many excerpts of the validation set, (C, prompt_frames + new_frames) each, or none.

    Raises:
        OptionError: the way from audio to the network and back is not known.
    """

    def __init__(self, experiment: Experiment, parts: Parts, choose: Callable[[int], list[Any]]) -> None:
        assert experiment.options.samples is not None
        self.options: SampleOptions = experiment.options.samples
        self.mark, self.parts, self.choose = experiment.networks[self.options.network].mark, parts, choose
        networks: dict[str, nn.Module] = dict(parts.networks)
        try:
            self.way = Continuation.of(experiment, networks, parts.device, self.options.network)
        except ValueError as error:
            raise OptionError([(self.mark, f"samples: {error}")]) from error
        per, frames = self.way.frames_per_value, self.options.prompt_frames
        self.silence = -frames % per if frames else per  # before the prompt, so that it is whole values

    def rehearse(self) -> bool:
        """Make a frame, so that what cannot be sampled is known before anything is trained.

        Returns:
            whether there is audio that is long enough for samples.

        Raises:
            OptionError: it cannot be sampled, with what the injectors or the network say.
        """
        training = {name: module.training for name, module in self.parts.networks.items()}
        try:
            return bool(self.hear(1, 1))
        except (ValueError, RuntimeError, TypeError, NotImplementedError) as error:
            raise OptionError([(self.mark, f"samples: {' '.join(str(error).split())}")]) from error
        finally:
            for name, module in self.parts.networks.items():
                module.train(training[name])

    def hear(self, num: int | None = None, new_frames: int | None = None) -> list[dict[str, Sound]]:
        """So many samples of so many frames (None: as the options say): `model`, and `real` beside it, by name."""
        for module in self.parts.networks.values():
            module.eval()
        options, sounds = self.options, []
        for number, excerpt in enumerate(self.choose(num or options.num)):
            bits, rate, before = excerpt.bits, excerpt.sample_rate_hz, excerpt.pcm[:, : options.prompt_frames]
            whole = np.pad(before, ((0, 0), (self.silence, 0)))
            prompt, _ = self.way.fit(Prompt(pcm=whole, bits=bits, sample_rate_hz=rate))
            made = self.way.make(
                prompt, new_frames or options.new_frames, 1, temperature=options.temperature,
                seed=options.seed + number, style_at=[], fade=0,
            )  # fmt: skip
            model = np.concatenate([(before / 2.0 ** (bits - 1)).astype(np.float32), made[0]], 1)
            sounds.append({
                "model": Sound(torch.from_numpy(model), bits, rate),
                "real": Sound(torch.from_numpy(excerpt.pcm), bits, rate),
            })  # fmt: skip
        return sounds
