"""Audio from language models of codes: codes of a prompt go on, and the codec makes them sound, while they are made.

Which tokens are free follows from the pattern: those that change when the codes of the new frames change. The codec
itself is left out of that, as one changed sample changes codes before it, too.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from codes.entries import Experiment
from codes.options import SampleOptions
from codes.trainer.build import Parts
from codes.trainer.injectors.code_patterns import ArrangeCodesInjector
from codes.trainer.injectors.codes import CodecInjector, EncodecCodesInjector
from codes.trainer.item_sampling import Sound
from codes.yaml_source import Mark, OptionError

BEFORE_FRAMES, AFTER_FRAMES = 50, 25  # decoded with what is new of a stream, and dropped


class CodesWay:
    """From codes through a network to more codes.

    Args:
        chain: the injectors from audio, or cached codes, to the network's tokens: the codec's, then the patterns.
        network: the network.
    """

    def __init__(self, chain: list[Any], network: nn.Module) -> None:
        assert isinstance(chain[0], CodecInjector)
        self.codec_injector, self.patterns, self.network = chain[0], chain[1:], network
        self.codec: Any = chain[0].codec

    def tokens(self, codes: Tensor) -> Tensor:
        """codes (B, K, F) -> what the network reads."""
        for pattern in self.patterns:
            codes = pattern.forward(codes)
        return codes

    def codes(self, tokens: Tensor) -> Tensor:
        """The way back: tokens -> codes (B, K, F)."""
        for pattern in reversed(self.patterns):
            tokens = pattern.inverse(tokens)
        return tokens

    def go_on(
        self, prompt: Tensor, new_frames: int, *, temperature: float, top_k: int, top_p: float,
        generator: torch.Generator, progress: Callable[[int, int], None] | None = None,
        emit: Callable[[Tensor], None] | None = None,
    ) -> Tensor:  # fmt: skip
        """Codes that follow a prompt.

        Args:
            prompt: (B, K, P) codes, P of 1 or more.
            new_frames: frames that are added.
            temperature, top_k, top_p, generator: of the draws.
            progress: called now and then with (tokens done, tokens in all).
            emit: called as often with the codes (B, K, P + n) of the frames that are complete.

        Returns:
            (B, K, P + new_frames) int64.
        """
        frames = prompt.shape[2]
        if frames < 1:
            raise ValueError("the prompt is shorter than a frame of the codec")
        silence = torch.nn.functional.pad(prompt, (0, new_frames))
        changed = silence.clone()
        changed[:, :, frames:] = (silence[:, :, frames:] + 1) % self.codec.codebook_size
        tokens = self.tokens(silence)
        tokens = torch.where(tokens == self.tokens(changed), tokens, -1)
        pattern = self.patterns[0] if len(self.patterns) == 1 else None

        def forward(made: Tensor, done: int) -> None:
            if emit is not None and isinstance(pattern, ArrangeCodesInjector):
                complete = pattern.complete_frames(done, made.shape[-1])
                if complete > frames:
                    emit(self.codes(made.clamp(min=0))[:, :, :complete])

        network: Any = self.network
        streamed: dict[str, Any] = {} if emit is None else {"emit": forward}
        made = network.generate(
            tokens, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator, progress=progress,
            **streamed,
        )  # fmt: skip
        return self.codes(made)

    def sound(self, codes: Tensor) -> Tensor:
        """codes (B, K, F) -> (B, C, T) float32."""
        return self.codec_injector.inverse(codes)


class Stream:
    """Decodes codes as they come and hands on the audio that is new, once what a codec sees after it is there.

    Args:
        way: to the codec.
        start_frame: frames that have been heard already.
        write: called with new audio, (B, C, T) float32.
    """

    def __init__(self, way: CodesWay, start_frame: int, write: Callable[[Tensor], None]) -> None:
        self.way, self.done, self.write = way, start_frame, write

    def __call__(self, codes: Tensor, last: bool = False) -> None:
        """codes (B, K, F): all that are complete so far; last: no more will come."""
        frames = codes.shape[2]
        end = frames if last else frames - AFTER_FRAMES
        if end <= self.done:
            return
        first = max(0, self.done - BEFORE_FRAMES)
        wav = self.way.sound(codes[:, :, first:])
        start, stop = (wav.shape[2] * (frame - first) // (frames - first) for frame in (self.done, end))
        self.write(wav[:, :, start:stop])
        self.done = end


class CodesSampler:
    """Makes audio during a run: prompts of the validation set, what the network makes of them, and the real audio.

    Args:
        experiment: the experiment; `samples.network` names the network.
        parts: built from it.
        chain: the injectors that lead to the network's tokens, from the codec on.
        mark: where the network is called.
        audio: gives so many excerpts of the validation audio, (C, T) integers with their depth, where it is audio.

    Raises:
        OptionError: the network cannot generate, or a prompt is shorter than a frame.
    """

    def __init__(
        self, experiment: Experiment, parts: Parts, chain: list[Any], mark: Mark, audio: Callable[[int], list[Any]]
    ) -> None:
        assert experiment.options.samples is not None
        self.options: SampleOptions = experiment.options.samples
        self.parts, self.mark, self.audio = parts, mark, audio
        self.network: Any = parts.networks[self.options.network]
        if not hasattr(self.network, "generate"):
            raise OptionError([(mark, f"samples: network {self.options.network} has no generate()")])
        self.way = CodesWay(chain, self.network)
        injector: Any = self.way.codec_injector
        self.prompt_frames = injector.frames_of(self.options.prompt_frames + 1) - 1  # whole ones
        self.new_frames = injector.frames_of(self.options.new_frames)
        if self.prompt_frames < 1:
            text = f"samples: prompt_frames is {self.options.prompt_frames}, shorter than a frame of the codec"
            raise OptionError([(mark, f"{text}, {self.way.codec.hop_samples} samples at its rate")])

    def rehearse(self) -> bool:
        """Make one frame; whether there is validation audio that is long enough.

        Raises:
            OptionError: it cannot be sampled, with what the injectors or the network say.
        """
        training = self.network.training
        try:
            self.network.eval()
            heard = self.hear(num=1, new_frames=1)
        except (ValueError, RuntimeError, TypeError) as error:
            raise OptionError([(self.mark, f"samples: {' '.join(str(error).split())}")]) from error
        finally:
            self.network.train(training)
        return bool(heard)

    def hear(self, num: int | None = None, new_frames: int | None = None) -> list[dict[str, Sound]]:
        """Samples of so many codec frames: `model`, and `real`, both as the codec sounds, by name."""
        options, wanted = self.options, self.new_frames if new_frames is None else new_frames
        self.network.eval()
        real = self._real(num or options.num)
        if real is None:
            return []
        codes = self.way.go_on(
            real[:, :, : self.prompt_frames], wanted, temperature=options.temperature, top_k=options.top_k,
            top_p=options.top_p, generator=torch.Generator(self.parts.device).manual_seed(options.seed),
        )  # fmt: skip
        rate = self._rate()
        pairs = zip(self.way.sound(codes), self.way.sound(real), strict=True)
        return [{"model": Sound(made, 16, rate), "real": Sound(whole, 16, rate)} for made, whole in pairs]

    def _rate(self) -> int:
        injector: Any = self.way.codec_injector
        return int(getattr(injector, "audio_rate_hz", None) or self.way.codec.sample_rate_hz)

    def _real(self, num: int) -> Tensor | None:
        """Codes (num, K, prompt + new frames) of the validation set; None where no stretch is so long."""
        frames = self.prompt_frames + self.new_frames
        if isinstance(self.way.codec_injector, EncodecCodesInjector):
            chosen = self.audio(num)
            if not chosen:
                return None
            pcm = torch.from_numpy(np.stack([excerpt.pcm for excerpt in chosen])).to(self.parts.device)
            return self.way.codec_injector.forward(pcm)[:, :, :frames]
        dataset: Any = self.parts.datasets.get("val", self.parts.datasets["train"])
        if not hasattr(dataset, "scored_codes"):
            return None
        stretches = [codes for _, codes in dataset.scored_codes()]
        longest = max(codes.shape[1] for codes in stretches)
        if longest <= self.prompt_frames:
            return None
        frames = min(frames, longest)
        long = [codes[:, :frames] for codes in stretches if codes.shape[1] >= frames]
        chosen = [long[number % len(long)] for number in range(num)]
        return torch.from_numpy(np.stack(chosen)).to(self.parts.device)
