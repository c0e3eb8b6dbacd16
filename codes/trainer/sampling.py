"""Audio from a model: the prompt goes forward through the step's injectors, the model continues, the inverses go back.

The chain is read from the YAML: from the key that the sampled network reads, back through the injectors that made it,
to a key of the dataset. Which tokens the model may choose follows from the chain as well: those that change when the
audio to be predicted changes. So a prompt and a given channel need no rule for each kind of code. Where the chain
branches (`concatenate`, a network with two inputs), `item_sampling.py` does the same with whole items of the dataset.
"""

import functools
import io
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from codes.convert import NetworkName
from codes.data.dataset import Dataset
from codes.entries import Experiment
from codes.options import SampleOptions
from codes.trainer.build import Parts
from codes.trainer.code_sampling import CodesSampler
from codes.trainer.continued_samples import ContinuedSamples, only_goes_on
from codes.trainer.injector import Injector
from codes.trainer.injectors.codes import CodecInjector
from codes.trainer.item_sampling import AUDIO_KEY, ItemSampler, completed_inputs
from codes.trainer.step import BoundInjector, Step
from codes.yaml_source import OptionError

ProgressCall = Callable[[int, int], None]


@dataclass(frozen=True)
class Excerpt:
    """Real audio to start from: pcm (C, T) integers of `bits` bits, right-justified."""

    name: str
    pcm: np.ndarray
    bits: int
    sample_rate_hz: int


class Sampler:
    """Makes audio with one network of an experiment.

    Args:
        experiment: the experiment; `samples.network` names the network.
        steps: its built steps.
        network: the network; it must have ``generate(ids, temperature=, top_k=, top_p=, generator=, progress=)``.

    Raises:
        OptionError: the network cannot generate, nothing reads it, or the way back to audio is not known.
    """

    def __init__(self, experiment: Experiment, steps: list[Step], network: nn.Module) -> None:
        assert experiment.options.samples is not None
        self.options: SampleOptions = experiment.options.samples
        step, reader = next(_readers(experiment, steps))
        self.mark = reader.mark
        self.network: Any = network
        if not hasattr(network, "generate"):
            raise OptionError([(reader.mark, f"samples: network {self.options.network} has no generate()")])
        self.chain = self._chain(step, reader.flags.in_[0])
        self.most_frames = 16 * (self.options.prompt_frames + self.options.new_frames)  # of a file, to choose from
        source = self.chain[0].flags.in_[0] if self.chain else reader.flags.in_[0]
        if source != AUDIO_KEY:
            message = f"samples: the way back from {reader.flags.in_[0]!r} ends at {source!r}, not at {AUDIO_KEY!r}"
            raise OptionError([(reader.mark, message)])

    def _chain(self, step: Step, key: str) -> list[BoundInjector]:
        """The injectors that lead from a dataset's key to `key`, first one first."""
        chain: list[BoundInjector] = []
        makers = {out: made for made in step.injectors if not made.flags.train for out in made.flags.out}
        while key in makers:
            injector = makers[key]
            if len(injector.flags.in_) != 1 or len(injector.flags.out) != 1:
                message = f"samples: cannot go back through {injector.name}, which does not map one key to one key"
                raise OptionError([(injector.mark, message)])
            if type(injector.injector).inverse is Injector.inverse:
                message = f"samples: injector {injector.name} has no inverse(): give it one, or take `samples` away"
                raise OptionError([(injector.mark, message)])
            chain.insert(0, injector)
            key = injector.flags.in_[0]
        return chain

    def encode(self, pcm: Tensor) -> Tensor:
        """Integer PCM (B, C, T) to the network's tokens (B, N)."""
        for bound in self.chain:
            bound.injector.reseed(self.options.seed)
            pcm = bound.injector.forward(pcm)
        return pcm

    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N) back to what the first injector takes: (B, C, T) integers, or floats in [-1, 1)."""
        for bound in reversed(self.chain):
            tokens = bound.injector.inverse(tokens)
        return tokens

    def rehearse(self, files: Any) -> bool:
        """Make two frames, so that what cannot be sampled is known before anything is trained.

        Args:
            files: as `scored_audio` gives them.

        Returns:
            whether there is audio that is long enough for samples.

        Raises:
            OptionError: the chain or the network cannot do it, with what they say.
        """
        chosen = self.excerpts(files)
        if not chosen:
            return False
        training = self.network.training
        device = next(self.network.parameters()).device
        pcm = torch.from_numpy(chosen[0].pcm[None, :, : self.options.prompt_frames + 2].copy()).to(device)
        try:
            self.network.eval()
            made = self.generate(pcm)
        except (ValueError, RuntimeError, TypeError, NotImplementedError) as error:
            raise OptionError([(self.mark, f"samples: {' '.join(str(error).split())}")]) from error
        finally:
            self.network.train(training)
        if made.shape != pcm.shape:
            shapes = f"{tuple(made.shape)} instead of {tuple(pcm.shape)}"
            raise OptionError([(self.mark, f"samples: the way back gives audio of shape {shapes}")])
        return True

    def output_bits(self, input_bits: int) -> int:
        """Bit depth of the integers that `decode` gives, for audio of `input_bits` bits."""
        return int(getattr(self.chain[0].injector, "bits", input_bits)) if self.chain else input_bits

    def excerpts(self, files: Any) -> list[Excerpt]:
        """Real audio to begin with, from files as `scored_audio` gives them; none where none is long enough.

        Raises:
            OptionError: the audio does not have the given channel.
        """
        options = self.options
        chosen = excerpts(files, options.num, options.prompt_frames + options.new_frames)
        given, num_channels = options.given_channel, chosen[0].pcm.shape[0] if chosen else 0
        if chosen and given is not None and not 0 <= given < num_channels:
            message = f"samples.given_channel is {given}: the audio has {num_channels} channels, counted from 0"
            raise OptionError([(self.mark, message)])
        return chosen

    def generate(self, pcm: Tensor, progress: ProgressCall | None = None) -> Tensor:
        """Continue audio.

        Args:
            pcm: (B, C, T) integers on the network's device; the first `prompt_frames` frames, and the given channel
                throughout, are kept, the rest is replaced.
            progress: called with (tokens done, tokens in all) now and then.

        Returns:
            (B, C, T), as `decode` gives it.
        """
        options = self.options
        changed = pcm.clone()
        channels = [c for c in range(pcm.shape[1]) if c != options.given_channel]
        changed[:, channels, options.prompt_frames :] = ~pcm[:, channels, options.prompt_frames :]
        tokens = self.encode(pcm)
        tokens = torch.where(tokens == self.encode(changed), tokens, -1)
        generator = torch.Generator(pcm.device).manual_seed(options.seed)
        made = self.network.generate(
            tokens, temperature=options.temperature, top_k=options.top_k, top_p=options.top_p,
            generator=generator, progress=progress,
        )  # fmt: skip
        return self.decode(made)


AnySampler = Sampler | ItemSampler | ContinuedSamples | CodesSampler


def make_sampler(experiment: Experiment, parts: Parts) -> AnySampler | None:
    """The sampler of an experiment, tried out; None where it makes no samples.

    Raises:
        OptionError: it cannot be sampled.
    """
    options = experiment.options.samples
    if options is None:
        return None
    network, frames = parts.networks[options.network], options.prompt_frames + options.new_frames
    branched = _branched(experiment, parts.steps, network)
    coded = _coded(experiment, parts.steps)
    sampler: AnySampler
    with parts.precision.autocast():
        if coded is not None:
            chosen = functools.partial(_excerpts, parts, frames)
            sampler = CodesSampler(experiment, parts, [bound.injector for bound in coded], coded[-1].mark, chosen)
            heard = sampler.rehearse()
        elif only_goes_on(network):
            sampler = ContinuedSamples(experiment, parts, functools.partial(_excerpts, parts, frames))
            heard = sampler.rehearse()
        elif branched is not None:
            sampler = ItemSampler(experiment, parts.networks, parts.device, *branched)
            heard = sampler.rehearse()
        else:
            sampler = Sampler(experiment, parts.steps, network)
            heard = sampler.rehearse(scored_audio(parts.datasets, sampler.most_frames))
        if not heard:
            parts.notes.append(f"warning: no samples will be made: no validation file has {frames} frames")
    return sampler


def _excerpts(parts: Parts, frames: int, num: int) -> list[Excerpt]:
    return excerpts(scored_audio(parts.datasets, 16 * frames), num, frames)


def _coded(experiment: Experiment, steps: list[Step]) -> list[BoundInjector] | None:
    """The injectors from a codec to the sampled network's tokens, where there is a codec on its way."""
    for step, reader in _readers(experiment, steps):
        chain: list[BoundInjector] = []
        for made in _makers(step, list(reader.flags.in_)):
            chain.insert(0, made)
            if isinstance(made.injector, CodecInjector):
                return chain
    return None


def _branched(experiment: Experiment, steps: list[Step], network: nn.Module) -> tuple[Step, BoundInjector] | None:
    """The step and the injector that call the sampled network, where its input is no single chain from the audio."""
    for step, reader in _readers(experiment, steps):
        keys = completed_inputs(network, reader)
        for made in _makers(step, keys):
            keys = made.flags.in_
        if keys != [AUDIO_KEY]:
            return step, next(bound for bound in step.injectors if bound.name == reader.name)
        return None
    return None


def _readers(experiment: Experiment, steps: list[Step]) -> Iterator[tuple[Step, Any]]:
    """Each step that calls the sampled network, with the injector entry that does."""
    assert experiment.options.samples is not None
    wanted = experiment.options.samples.network
    for entry, step in zip(experiment.steps, steps, strict=True):
        for injector in entry.injectors:
            values = injector.component.options.values() if injector.component else []
            if any(isinstance(value, NetworkName) and value.name == wanted for value in values):
                yield step, injector
                break


def _makers(step: Step, keys: list[str]) -> Iterator[BoundInjector]:
    """The injectors that made a key, back from it as long as each has one input and one output."""
    makers = {out: made for made in step.injectors if not made.flags.train for out in made.flags.out}
    while len(keys) == 1 and keys[0] in makers and len(makers[keys[0]].flags.out) == 1:
        yield makers[keys[0]]
        keys = makers[keys[0]].flags.in_


def scored_audio(
    datasets: Mapping[str, Dataset], most_frames: int | None = None
) -> Iterator[tuple[str, np.ndarray, int, int]]:
    """(path, pcm (C, T), bits, sample_rate_hz) of the validation audio, or of the training audio where there is none.

    Nothing, where the dataset does not offer it.
    """
    dataset = datasets.get("val", datasets["train"])
    return dataset.scored_audio(most_frames) if hasattr(dataset, "scored_audio") else iter(())  # type: ignore[attr-defined]


def excerpts(files: Any, num: int, frames: int) -> list[Excerpt]:
    """`num` excerpts of `frames` frames, from as many files as there are long enough; none where there is none.

    Args:
        files: iterator of (path, pcm (C, T), bits, sample_rate_hz), as a dataset's ``scored_audio()`` gives; it is read
            no further than needed.
    """
    long_enough = (Excerpt(str(path), pcm, bits, rate) for path, pcm, bits, rate in files if pcm.shape[1] >= frames)
    found = list(itertools.islice(long_enough, num))
    each = -(-num // len(found)) if found else 0  # excerpts of one file
    chosen = []
    for number in range(num if found else 0):
        whole = found[number % len(found)]
        start = (number // len(found) + 1) * (whole.pcm.shape[1] - frames) // (each + 1)
        part = np.ascontiguousarray(whole.pcm[:, start : start + frames])
        chosen.append(Excerpt(whole.name, part, whole.bits, whole.sample_rate_hz))
    return chosen


def to_float(wav: Tensor | np.ndarray, bits: int) -> np.ndarray:
    """Integers of `bits` bits, or floats as they are, as float32 in [-1, 1]."""
    array = (
        wav.detach().float().cpu().numpy() if isinstance(wav, Tensor) and wav.is_floating_point() else np.asarray(wav)
    )
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    return (array.astype(np.float64) / 2 ** (bits - 1)).astype(np.float32)


def write_wav(path: Path, wav: np.ndarray, bits: int, sample_rate_hz: int) -> None:
    """Write float audio (C, T) in [-1, 1] as an integer WAV of 16 bits, or 24 where the audio has more."""
    import soundfile

    subtype, depth = ("PCM_16", 16) if bits <= 16 else ("PCM_24", 24)
    scaled = np.clip(np.round(wav.astype(np.float64) * 2 ** (depth - 1)), -(2 ** (depth - 1)), 2 ** (depth - 1) - 1)
    samples = scaled.astype(np.int16) if depth == 16 else (scaled.astype(np.int32) << 8)
    buffer = io.BytesIO()  # libsndfile does not say why a file cannot be written
    soundfile.write(buffer, samples.T, sample_rate_hz, format="WAV", subtype=subtype)
    path.write_bytes(buffer.getvalue())
