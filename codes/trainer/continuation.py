"""A trained run goes on after a piece of audio: what scripts/sample.py does.

Networks are built from the run's options.yml and its best checkpoint, without its datasets. The way from audio to the
network's first input, and back, is that of the step that calls it: injectors of one key each that have an inverse.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from codes.entries import Experiment, StepEntry
from codes.experiment import load_experiment
from codes.trainer import checkpoint as checkpoints
from codes.trainer.checkpoint import CheckpointError
from codes.trainer.injector import Injector
from codes.trainer.lora import add_lora
from codes.trainer.precision import choose_device

AUDIO_KEYS = ("wav", "prev", "past")  # of datasets: what a network of continuation begins with


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompt:
    """Audio to go on after: pcm (C, T) integers of ``bits`` bits."""

    pcm: np.ndarray
    bits: int
    sample_rate_hz: int


class Continuation:
    """A run's network, and the way from audio to it and back.

    Args:
        run: the run's folder.
        network: its name; None: the one of `samples`, or the only one that can go on.
        checkpoint: a checkpoint folder; None: the best of the run, or its newest.

    Raises:
        OptionError: the run's options.yml cannot be loaded.
        CheckpointError: there is no checkpoint, or it does not fit.
        ValueError: no network can go on, or the way back to audio is not known.
    """

    def __init__(self, run: Path, network: str | None = None, checkpoint: Path | None = None) -> None:
        if not (run / "options.yml").is_file():
            raise CheckpointError(f"{run} is no run: it has no options.yml")
        self.experiment: Experiment = load_experiment(run / "options.yml")
        self.checkpoint = checkpoint or _best_checkpoint(run)
        checkpoints.verify(self.checkpoint)
        self.device = choose_device(self.experiment.options)
        torch.manual_seed(self.experiment.options.train.manual_seed)
        self.networks: dict[str, nn.Module] = {
            name: entry.built_from.build() for name, entry in self.experiment.networks.items()
        }
        for name, module in self.networks.items():
            lora = self.experiment.networks[name].flags.lora
            if lora is not None:
                add_lora(module, name, lora)
            self._load(name, module)
        self._connect(network)

    @classmethod
    def of(cls, experiment: Experiment, networks: dict[str, nn.Module], device: Any, network: str) -> "Continuation":
        """The same for networks that are at hand."""
        made = cls.__new__(cls)
        made.experiment, made.networks, made.device = experiment, networks, device
        made._connect(network)
        return made

    def _connect(self, network: str | None) -> None:
        self.name = self._choose(network)
        self.network: Any = self.networks[self.name]
        self.step, reader = _reader(self.experiment, self.name)
        self.chain, self.key = self._chain(reader.flags.in_[0])
        train = self.experiment.datasets["train"].built_from
        self.bits = int(train.options.get("bits") or 16)
        self.sample_rate_hz: int | None = train.options.get("sample_rate")
        self.num_channels = int(getattr(train.cls, "num_channels", 1))
        for injector in self.chain:
            if getattr(injector, "input_bits", self.bits) is None:
                injector.input_bits = self.bits  # type: ignore[attr-defined]

    def _load(self, name: str, module: nn.Module) -> None:
        """The averaged weights where there are any; a frozen network's may be in the file that it came from."""
        files = [self.checkpoint / f"{name}_ema.safetensors", self.checkpoint / f"{name}.safetensors"]
        pretrained = self.experiment.options.path.pretrain_model.get(name)
        source = next((file for file in files if file.is_file()), pretrained)
        if source is None:
            raise CheckpointError(f"{self.checkpoint} has no weights of network {name}")
        checkpoints.fit_weights(module, name, checkpoints.load_weights(source), source, strict=True)
        module.to(self.device).eval().requires_grad_(False)

    def _choose(self, wanted: str | None) -> str:
        able = [name for name, module in self.networks.items() if _can_go_on(module)]
        samples = self.experiment.options.samples
        chosen = wanted or (samples.network if samples else able[0] if len(able) == 1 else None)
        if chosen is None or chosen not in able:
            what = "several can" if wanted is None and able else f"{wanted or 'none of them'} cannot"
            raise ValueError(
                f"--network must name a network that can go on ({', '.join(able) or 'there is none'}): {what}"
            )
        return chosen

    def _chain(self, key: str) -> tuple[list[Injector], str]:
        """The injectors that lead from a dataset's audio to the key, and the audio's key."""
        makers = {out: entry for entry in self.step.injectors if not entry.flags.train for out in entry.flags.out}
        chain: list[Injector] = []
        while key in makers:
            entry = makers[key]
            injector: Injector = entry.built_from.build(self.networks)
            one_to_one = len(entry.flags.in_) == len(entry.flags.out) == 1
            if not one_to_one or type(injector).inverse is Injector.inverse:
                raise ValueError(f"cannot go back from {key!r} to audio through injector {entry.name} ({entry.mark})")
            chain.insert(0, injector)
            key = entry.flags.in_[0]
        if key not in AUDIO_KEYS:
            raise ValueError(f"the way back from the network's input ends at {key!r}: none of {', '.join(AUDIO_KEYS)}")
        return chain, key

    @property
    def frames_per_value(self) -> int:
        """Frames of audio for one of the network's values: an auto-encoder's stride, else 1."""
        strides = [int(injector.autoencoder.stride) for injector in self.chain if hasattr(injector, "autoencoder")]  # type: ignore[attr-defined]
        return strides[0] if strides else 1

    def fit(self, prompt: Prompt) -> tuple[Prompt, list[str]]:
        """The prompt at the run's rate, depth and number of channels, and what was done to it, in lines.

        Raises:
            ValueError: it has fewer channels than the run's audio, or no frame.
        """
        from codes.data.audio.reader import to_bits
        from codes.data.audio.resample import resample

        pcm, bits, rate, notes = prompt.pcm, prompt.bits, prompt.sample_rate_hz, []
        if self.num_channels == 1 and len(pcm) > 1:
            wide = pcm.astype(np.float64).mean(0, keepdims=True)
            pcm = np.round(wide).astype(pcm.dtype)
            notes.append("the prompt's channels were mixed to one")
        if len(pcm) != self.num_channels:
            raise ValueError(f"the prompt has {len(pcm)} channel(s), the run's audio {self.num_channels}")
        if bits != self.bits:
            pcm = to_bits(pcm, bits, self.bits)
            notes.append(f"the prompt was shifted from {bits} to {self.bits} bits")
        if self.sample_rate_hz not in (None, rate):
            pcm = resample(pcm, rate, self.sample_rate_hz, self.bits)
            notes.append(f"the prompt was resampled from {rate} to {self.sample_rate_hz} Hz")
            rate = self.sample_rate_hz
        kept = pcm.shape[1] // self.frames_per_value * self.frames_per_value
        if kept == 0:
            raise ValueError(f"the prompt has {pcm.shape[1]} frames: {self.frames_per_value} or more are needed")
        return Prompt(pcm=pcm[:, pcm.shape[1] - kept :], bits=self.bits, sample_rate_hz=rate), notes

    @torch.no_grad()
    def make(
        self, prompt: Prompt, frames: int, num: int, *, temperature: float, seed: int, style_at: list[int], fade: int,
    ) -> np.ndarray:  # fmt: skip
        """Continuations of a prompt that `fit` gave.

        Args:
            prompt: what to go on after.
            frames: how many are added.
            num: how many continuations, all at once.
            temperature: 0 takes the likeliest.
            seed: of the draws.
            style_at: frames after the prompt at which another style sets in.
            fade: frames of the transition.

        Returns:
            (num, C, frames) float32 in [-1, 1].
        """
        pcm = torch.from_numpy(np.ascontiguousarray(prompt.pcm)).to(self.device).expand(num, -1, -1)
        per, precision = self.frames_per_value, 2 ** (self.bits - 1)
        if not hasattr(self.network, "carry_on"):
            if style_at:
                raise ValueError(f"--style-at: network {self.name} ({type(self.network).__name__}) has no style")
            whole = self._complete(pcm, frames, temperature, seed)
        else:
            values = self._encode(pcm)
            made = self.network.carry_on(
                values, -(-frames // per), temperature=temperature, seed=seed, style_at=[at // per for at in style_at],
                fade=fade // per,
            )  # fmt: skip
            whole = self._decode(torch.cat([values, made.view(num, *_tail(values, made))], _time(values, made)))
        audio = whole.double() / (precision if self._in_steps(whole) else 1)
        start = pcm.shape[2]
        return audio[..., start : start + frames].clamp(-1, 1).float().cpu().numpy()

    def _complete(self, pcm: Tensor, frames: int, temperature: float, seed: int) -> Tensor:
        """With generate(): the tokens of the new frames are those that change with the audio there."""
        silence = torch.nn.functional.pad(pcm, (0, frames))
        changed = silence.clone()
        changed[:, :, pcm.shape[2] :] = -1 - changed[:, :, pcm.shape[2] :]
        tokens = self._encode(silence)
        tokens = torch.where(tokens == self._encode(changed), tokens, -1)
        generator = torch.Generator(self.device).manual_seed(seed)
        return self._decode(self.network.generate(tokens, temperature=temperature, generator=generator))

    def _encode(self, pcm: Tensor) -> Tensor:
        value = pcm
        for injector in self.chain:
            injector.reseed(0)
            value = injector.forward(value)
        return value

    def _decode(self, value: Tensor) -> Tensor:
        for injector in reversed(self.chain):
            value = injector.inverse(value)
        return value

    def _in_steps(self, whole: Tensor) -> bool:
        """Whether decoded audio counts in steps of the integers: it is integer, or `normalize` has undone itself."""
        from codes.trainer.injectors.signal import NormalizeInjector

        return not whole.is_floating_point() or bool(self.chain and isinstance(self.chain[0], NormalizeInjector))


def _time(values: Tensor, made: Tensor) -> int:
    """The dimension of time: last in (B, T) and (B, 1, T), of which (B, T) is made, before the last in vectors."""
    return 1 if values.dim() == made.dim() else 2


def _tail(values: Tensor, made: Tensor) -> tuple[int, ...]:
    """The shape of what was made, without its items, beside values of that kind."""
    return tuple(made.shape[1:]) if made.dim() == values.dim() else (1, made.shape[1])


def _can_go_on(module: nn.Module) -> bool:
    return hasattr(module, "carry_on") or hasattr(module, "generate")


def _reader(experiment: Experiment, name: str) -> tuple[StepEntry, Any]:
    """The step and the injector entry that call a network by its name."""
    for step in experiment.steps:
        for entry in step.injectors:
            values = entry.built_from.options.values()
            if any(getattr(value, "name", None) == name for value in values):
                return step, entry
    raise ValueError(f"no injector calls network {name}")


def _best_checkpoint(run: Path) -> Path:
    found = checkpoints.list_checkpoints(run / "checkpoints")
    if not found:
        raise CheckpointError(f"{run} has no checkpoint yet")
    marks = run / "checkpoints" / "marks.json"
    best = json.loads(marks.read_text())["best"] if marks.is_file() else None
    by_step = {checkpoints.step_of(path): path for path in found}
    return by_step.get(int(best["step"]), found[-1]) if best else found[-1]
