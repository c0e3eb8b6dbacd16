"""Audio from a model whose input is made of more than one chain: noisy and clean, given and predicted channel.

`sampling.py` starts from audio alone. Here a whole item of the dataset, with all its keys, goes forward through the
step's injectors as in validation, up to what the network reads. Which tokens the network is to choose follows as there:
those that change when the audio that is to be predicted changes. On the way back every injector is undone; what does
not depend on that audio (the noisy version, the other channel, a direction that was drawn) is taken from the item.
"""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from codes.convert import Component
from codes.data.dataset import Dataset
from codes.data.loader import collate
from codes.entries import Entry, Experiment
from codes.options import SampleOptions
from codes.randomness import ITEM_SEED
from codes.registry import options_of
from codes.trainer.state import State, move
from codes.trainer.step import BoundInjector, Step
from codes.yaml_source import OptionError

AUDIO_KEY = "wav"
LENGTHS = (("context_frames", "chunk_frames"), ("past_frames", "future_frames"))  # options: before, and to be predicted


@dataclasses.dataclass(frozen=True)
class Sound:
    """Audio to be written: wav (C, T) integers of `bits` bits, or floats in [-1, 1]."""

    wav: Tensor
    bits: int
    sample_rate_hz: int


class ItemSampler:
    """Makes audio with one network of an experiment from items of its dataset.

    Args:
        experiment: the experiment; `samples.network` names the network.
        networks: built from it.
        device: where they are.
        step: the step that calls the network.
        reader: the injector that calls it; of the inputs that generate() takes, the last is what it completes.

    Raises:
        OptionError: the network cannot generate, or what it predicts comes from no audio.
    """

    def __init__(
        self, experiment: Experiment, networks: Mapping[str, nn.Module], device: torch.device, step: Step,
        reader: BoundInjector,
    ) -> None:  # fmt: skip
        assert experiment.options.samples is not None
        self.options: SampleOptions = experiment.options.samples
        self.mark = reader.mark
        self.network: Any = networks[self.options.network]
        self.device = device
        if not hasattr(self.network, "generate"):
            raise self._problem(f"network {self.options.network} has no generate()")
        self.inputs = completed_inputs(self.network, reader)
        before = step.injectors[: step.injectors.index(reader)]
        self.chain, self.sources = needed_injectors(before, set(self.inputs))
        _, of_generated = needed_injectors(before, {self.inputs[-1]})
        entry = experiment.datasets.get("val", experiment.datasets["train"])
        provided = entry.built_from.cls.provided_keys(entry.built_from.options)
        missing = sorted(key for key in self.sources if key not in provided)
        if missing:
            raise self._problem(f"{', '.join(missing)} of another step or of training cannot be made from an item")
        if AUDIO_KEY not in of_generated and len(of_generated) != 1:
            raise self._problem(f"{self.inputs[-1]!r} comes from {', '.join(sorted(of_generated))}: which is audio?")
        self.key = AUDIO_KEY if AUDIO_KEY in of_generated else next(iter(of_generated))
        self.dataset = self._longer(entry.built_from)

    def _problem(self, message: str) -> OptionError:
        return OptionError([(self.mark, f"samples: {message}")])

    def _longer(self, component: Component) -> Dataset | None:
        """The validation set with items of prompt_frames + new_frames; None where no file is so long."""
        names, options = options_of(component.cls), self.options
        lengths = next((pair for pair in LENGTHS if set(pair) <= names.keys()), None)
        changes = (
            {} if lengths is None else dict(zip(lengths, (options.prompt_frames, options.new_frames), strict=True))
        )
        if lengths == LENGTHS[1] and not options.prompt_frames:
            raise self._problem("samples.prompt_frames is 0: what is given of past and future must be 1 or more")
        try:
            return dataclasses.replace(component, options=component.options | changes).build()
        except OptionError:
            return None

    def rehearse(self) -> bool:
        """Make one sample of a few frames, so that what cannot be sampled is known before anything is trained.

        Returns:
            whether there is audio that is long enough for samples.

        Raises:
            OptionError: it cannot be sampled, with what the injectors or the network say.
        """
        if self.dataset is None:
            return False
        training = self.network.training
        try:
            self.network.eval()
            item = self._items(1)
            frames = item[self.key].shape[-1]
            self.generate(item, most_new=max(1, min(2, frames)))
        except (ValueError, RuntimeError, TypeError, KeyError) as error:
            if isinstance(error, OptionError):
                raise
            raise self._problem(" ".join(str(error).split())) from error
        finally:
            self.network.train(training)
        return True

    def hear(self) -> list[dict[str, Sound]]:
        """Samples: `model`, `real` and what was `given`, by name."""
        if self.dataset is None:
            return []
        self.network.eval()
        item = self._items(self.options.num)
        made = self.generate(item)
        bits, depth = int(getattr(self.dataset, "bits", 16)), self._bits()
        sounds = []
        for number in range(len(made)):
            rate = int(item["sample_rate"][number])
            own = {name: Sound(item[key][number], bits, rate) for name, key in self._given(item).items()}
            model, real = self._in_place(made[number], item[self.key][number], item, number)
            sounds.append({"model": Sound(model, depth, rate), "real": Sound(real, bits, rate), **own})
        return sounds

    def _bits(self) -> int:
        """Bit depth of integers that come back: of the first injector that has one, else of the dataset."""
        found = [bound.injector.bits for bound in self.chain if hasattr(bound.injector, "bits")]  # type: ignore
        return int(found[0]) if found else int(getattr(self.dataset, "bits", 16))

    def _given(self, item: dict[str, Any]) -> dict[str, str]:
        """Other audio that the network is given, by the name of its file."""
        keys = [
            key for key in sorted(self.sources - {self.key}) if isinstance(item[key], Tensor) and item[key].ndim == 3
        ]
        return {"given" if len(keys) == 1 else f"given_{key}": key for key in keys}

    def _in_place(self, made: Tensor, real: Tensor, item: dict[str, Any], number: int) -> tuple[Tensor, Tensor]:
        """What is made, behind what comes before it where the item has both in one piece; and the real audio."""
        whole, frames = item[AUDIO_KEY][number] if AUDIO_KEY in item else real, real.shape[-1]
        if self.key == AUDIO_KEY or not whole[..., -frames:].equal(real):
            return made, real
        before = whole[..., :-frames]
        if made.is_floating_point():
            before = before / 2.0 ** (int(getattr(self.dataset, "bits", 16)) - 1)
        return torch.cat([before.to(made.dtype), made], -1), whole

    def _items(self, num: int) -> dict[str, Any]:
        """So many items, spread over the set, as a batch on the device."""
        assert self.dataset is not None
        indices = [(number + 1) * len(self.dataset) // (num + 1) for number in range(num)]
        items = [self.dataset.item(index, np.random.default_rng([self.options.seed, index])) for index in indices]
        return move(collate(items), self.device)

    def generate(self, item: dict[str, Any], most_new: int | None = None) -> Tensor:
        """Predict the audio of a batch of items anew.

        Args:
            item: the batch; the first `prompt_frames` frames of the audio and the given channel are kept.
            most_new: predict at most so many frames at the end.

        Returns:
            (B, C, T), the audio as the injectors' way back gives it.
        """
        options = self.options
        new = options.new_frames if most_new is None else min(most_new, options.new_frames)
        real = self._forward(item)
        tokens, changed = self._free(item, real, new)
        values = [real[key] for key in self.inputs[:-1]]
        made = self.network.generate(
            *values, tokens, temperature=options.temperature, top_k=options.top_k, top_p=options.top_p,
            generator=torch.Generator(self.device).manual_seed(options.seed),
        )  # fmt: skip
        return self._back(made, real, changed)

    def _forward(self, item: dict[str, Any]) -> State:
        state = State({key: value for key, value in item.items() if key in self.sources or key == ITEM_SEED})
        for bound in self.chain:
            bound.run(state, self.options.seed)
        return state

    def _free(self, item: dict[str, Any], real: State, new: int) -> tuple[Tensor, set[str]]:
        """The tokens to complete, -1 where free, and the keys that depend on the audio that is predicted.

        Where no channel is named and the network would be given what it is to predict (a direction was drawn for each
        item), the channel that leaves the given inputs as they are is found for each item.
        """
        *given, generated = self.inputs
        audio, options = item[self.key], self.options
        num_channels = audio.shape[1] if audio.ndim > 2 else 1
        if options.given_channel is not None and not 0 <= options.given_channel < num_channels:
            text = f"given_channel is {options.given_channel}: the audio has {num_channels} channels, counted from 0"
            raise OptionError([(self.mark, f"samples.{text}")])
        kept = [options.given_channel] if options.given_channel is not None else [None, *range(num_channels)]
        tokens, settled = real[generated].clone(), torch.zeros(len(audio), dtype=torch.bool, device=audio.device)
        changed: set[str] = set()
        for channel in kept:
            other = self._forward(item | {self.key: _spoilt(audio, channel, new)})
            differs = other[generated] != real[generated]
            fits = ~settled & _same_items(real, other, given) & differs.flatten(1).any(1)
            tokens = torch.where(fits[:, None] & differs, -1, tokens)
            changed |= {key for key in real if not _same(real[key], other[key])}
            settled |= fits
            if bool(settled.all()):
                return tokens, changed
        raise ValueError(f"changing {self.key!r} changes what the network is given ({', '.join(given) or generated})")

    def _back(self, made: Tensor, real: State, changed: set[str]) -> Tensor:
        """From the network's completed input back to the audio."""
        new: dict[str, Any] = {self.inputs[-1]: made}
        for bound in reversed(self.chain):
            inputs, outputs = bound.flags.in_, bound.flags.out
            if not new.keys() & set(outputs) or not changed & set(inputs):
                continue
            values = tuple(new.get(key, real[key]) for key in outputs)
            try:
                result = bound.injector.undo(tuple(real[key] for key in inputs), values)
            except NotImplementedError as error:
                message = f"samples: injector {bound.name} has no inverse(): give it one, or take `samples` away"
                raise OptionError([(bound.mark, message)]) from error
            parts = result if isinstance(result, tuple) else (result,)
            for key, value in zip(inputs, parts, strict=True):
                if key in changed:
                    new[key] = value if key not in new else torch.where(value == real[key], new[key], value)
        if self.key not in new or tuple(new[self.key].shape) != tuple(real[self.key].shape):
            shape = tuple(new[self.key].shape) if self.key in new else "nothing"
            raise ValueError(f"the way back gives {shape} for {self.key!r} of shape {tuple(real[self.key].shape)}")
        return new[self.key]


def completed_inputs(network: Any, reader: BoundInjector | Entry) -> list[str]:
    """The keys of the reader's inputs that the network's generate() takes by position, in forward()'s order."""
    if not hasattr(network, "generate"):
        return [reader.flags.in_[0]]
    parameters = inspect.signature(network.generate).parameters.values()
    return reader.flags.in_[: sum(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)]


def needed_injectors(injectors: list[BoundInjector], keys: set[str]) -> tuple[list[BoundInjector], set[str]]:
    """The injectors of validation that make these keys, in order, and the keys that none of them makes."""
    chain: list[BoundInjector] = []
    wanted = set(keys)
    for bound in reversed([bound for bound in injectors if not bound.flags.train]):
        if wanted & set(bound.flags.out):
            chain.insert(0, bound)
            wanted |= set(bound.flags.in_)
    made = {key for bound in chain for key in bound.flags.out}
    return chain, wanted - made - {ITEM_SEED}


def _spoilt(audio: Tensor, kept: int | None, new: int) -> Tensor:
    """Audio whose last frames are all others, except in a channel that is kept."""
    changed = audio.clone()
    if audio.ndim < 3:
        changed[..., -new:] = ~audio[..., -new:]
    for channel in range(audio.shape[1]) if audio.ndim > 2 else ():
        if channel != kept:
            changed[:, channel, -new:] = ~audio[:, channel, -new:]
    return changed


def _same(one: Any, other: Any) -> bool:
    return one.equal(other) if isinstance(one, Tensor) else one == other


def _same_items(one: State, other: State, keys: list[str]) -> Tensor:
    """Whether items are equal in all of these keys: (B,) bool."""
    equal: Any = True
    for key in keys:
        equal = equal & (one[key] == other[key]).flatten(1).all(1)
    return equal
