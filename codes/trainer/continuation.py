"""A trained run goes on after a piece of audio: what scripts/sample.py does.

Networks are built from the run's options.yml and its best checkpoint, without its datasets. The way from audio to the
network's first input, and back, is that of the step that calls it: injectors of one key each that have an inverse.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from codes.entries import Experiment, StepEntry
from codes.trainer.code_sampling import CodesWay, Stream
from codes.trainer.export import open_run, trained_networks
from codes.trainer.injector import Injector
from codes.trainer.injectors.codes import CodecInjector
from codes.trainer.item_sampling import completed_inputs
from codes.trainer.precision import choose_device

AUDIO_KEYS = ("wav", "prev", "past")  # of datasets: what a network of continuation begins with


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompt:
    """Audio to go on after: pcm (C, T) integers of ``bits`` bits."""

    pcm: np.ndarray
    bits: int
    sample_rate_hz: int


class NoContinuationError(ValueError):
    """A network predicts one piece of audio from another, so that it cannot go on after any."""


class Continuation:
    """A run's network, and the way from audio to it and back.

    Args:
        run: the run's folder.
        network: its name; None: the one of `samples`, or the only one that can go on.
        checkpoint: a checkpoint folder; None: the best of the run, or its newest.

    Raises:
        OptionError: the run's options.yml cannot be loaded.
        CheckpointError: there is no checkpoint, or it does not fit.
        NoContinuationError: the network is given more than the audio that it goes on after.
        ValueError: no network can go on, or the way back to audio is not known.
    """

    def __init__(self, run: Path, network: str | None = None, checkpoint: Path | None = None) -> None:
        self.experiment, self.checkpoint = open_run(run, checkpoint)
        self.device = choose_device(self.experiment.options)
        self.networks = trained_networks(self.experiment, self.checkpoint)
        for module in self.networks.values():
            module.to(self.device)
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
        self.step, called = reader(self.experiment, self.name)
        if len(completed_inputs(self.network, called)) > 1:
            raise NoContinuationError(f"network {self.name} predicts one piece of audio from another")
        self.chain, self.key = self._chain(called.flags.in_[0])
        train = self.experiment.datasets["train"].built_from
        self.bits = int(train.options.get("bits") or 16)
        self.sample_rate_hz: int | None = train.options.get("sample_rate")
        self.num_channels = int(getattr(train.cls, "num_channels", 1))
        self.codes = CodesWay(self.chain, self.network) if self.chain and _is_codec(self.chain[0]) else None
        if self.codes is not None:
            self._meet_codec(self.codes.codec_injector)
        for injector in self.chain:
            if getattr(injector, "input_bits", self.bits) is None:
                injector.input_bits = self.bits  # type: ignore[attr-defined]

    def _meet_codec(self, injector: Any) -> None:
        """Take rate and channels from the codec, where it takes them as they are."""
        codec = injector.codec
        if not injector.each_channel:
            self.num_channels = codec.num_channels
        self.sample_rate_hz = getattr(injector, "audio_rate_hz", None) or self.sample_rate_hz or codec.sample_rate_hz
        if hasattr(injector, "audio_rate_hz"):
            injector.audio_rate_hz = self.sample_rate_hz

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
            if isinstance(injector, CodecInjector):
                break
        if key not in AUDIO_KEYS and not (chain and isinstance(chain[0], CodecInjector)):
            raise ValueError(f"the way back from the network's input ends at {key!r}: none of {', '.join(AUDIO_KEYS)}")
        return chain, key

    @property
    def frames_per_value(self) -> int:
        """Frames of audio for one of the network's values: an auto-encoder's stride, a codec's hop, else 1."""
        if self.codes is not None:
            codec = self.codes.codec
            return round(codec.hop_samples * (self.sample_rate_hz or codec.sample_rate_hz) / codec.sample_rate_hz)
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
    def stream(
        self, prompt: Prompt, frames: int, num: int, *, temperature: float, seed: int, top_k: int, top_p: float,
        write: Callable[[np.ndarray], None], progress: Callable[[int, int], None] | None = None,
    ) -> None:  # fmt: skip
        """Continuations of a run over codes, handed on while they are made.

        Args:
            prompt: what to go on after.
            frames: how many are added.
            num: how many continuations, all at once.
            temperature, top_k, top_p, seed: of the draws.
            write: called with (num, C, T) float32, one part after the other: first the prompt as the codec sounds.
            progress: called now and then with (tokens done, tokens in all).
        """
        way, start = self.codes, prompt.pcm.shape[1]
        assert way is not None
        wav = torch.from_numpy((prompt.pcm / 2.0 ** (prompt.bits - 1)).astype(np.float32))[None].to(self.device)
        injector: Any = way.codec_injector
        codes = injector.forward(wav) if hasattr(injector, "audio_rate_hz") else injector.to_codes(wav)
        left = start + frames

        def cut(part: Tensor) -> None:
            nonlocal left
            write(part[:, :, :left].clamp(-1, 1).float().cpu().numpy())
            left -= min(left, part.shape[2])

        heard = Stream(way, 0, cut)
        heard(codes.expand(num, -1, -1))
        made = way.go_on(
            codes.expand(num, -1, -1), injector.frames_of(frames), temperature=temperature, top_k=top_k, top_p=top_p,
            generator=torch.Generator(self.device).manual_seed(seed), progress=progress, emit=heard,
        )  # fmt: skip
        heard(made, last=True)

    @torch.no_grad()
    def make(
        self, prompt: Prompt, frames: int, num: int, *, temperature: float, seed: int, style_at: list[int], fade: int,
        top_k: int = 0, top_p: float = 1.0,
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
            top_k, top_p: keep only the likeliest codes, of networks of codes.

        Returns:
            (num, C, frames) float32 in [-1, 1].
        """
        pcm = torch.from_numpy(np.ascontiguousarray(prompt.pcm)).to(self.device).expand(num, -1, -1)
        per, precision = self.frames_per_value, 2 ** (self.bits - 1)
        if not hasattr(self.network, "carry_on"):
            if style_at:
                raise ValueError(f"--style-at: network {self.name} ({type(self.network).__name__}) has no style")
            whole = self._complete(pcm, frames, seed, {"temperature": temperature, "top_k": top_k, "top_p": top_p})
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

    def _complete(self, pcm: Tensor, frames: int, seed: int, draws: dict[str, Any]) -> Tensor:
        """With generate(): the tokens of the new frames are those that change with the audio there."""
        silence = torch.nn.functional.pad(pcm, (0, frames))
        changed = silence.clone()
        changed[:, :, pcm.shape[2] :] = -1 - changed[:, :, pcm.shape[2] :]
        tokens = self._encode(silence)
        tokens = torch.where(tokens == self._encode(changed), tokens, -1)
        generator = torch.Generator(self.device).manual_seed(seed)
        return self._decode(self.network.generate(tokens, generator=generator, **draws))

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


def _is_codec(injector: Injector) -> bool:
    return isinstance(injector, CodecInjector)


def _can_go_on(module: nn.Module) -> bool:
    return hasattr(module, "carry_on") or hasattr(module, "generate")


def reader(experiment: Experiment, name: str) -> tuple[StepEntry, Any]:
    """The step and the injector entry that call a network by its name."""
    for step in experiment.steps:
        for entry in step.injectors:
            values = entry.built_from.options.values()
            if any(getattr(value, "name", None) == name for value in values):
                return step, entry
    raise ValueError(f"no injector calls network {name}")
