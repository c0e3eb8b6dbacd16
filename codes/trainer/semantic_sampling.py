"""Audio from what is said: semantic tokens to codes to sound, AudioLM's order (Borsos et al., 2022).

A run that says codes given semantic tokens (experiments/acoustic_gpt.yml) reads both as one sequence, of as much audio
as an item of its dataset. What is longer is made in such windows, half of each being known from the one before it. The
semantic tokens come from another run, which goes on after those of the prompt, or from a recording that says something.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from codes.models.gpt import Gpt
from codes.trainer.code_sampling import CodesWay
from codes.trainer.continuation import Continuation, Prompt, reader
from codes.trainer.export import open_run, trained_networks
from codes.trainer.injectors.semantic import JoinTokensInjector, SemanticCodesInjector

Draws = dict[str, Any]  # temperature, top_k, top_p


class SemanticWay(CodesWay):
    """From semantic tokens and codes through a network to more codes.

    Args:
        chain: the injectors from audio to the network's codes, the codec's first.
        network: a `gpt`.
        meaning: gives the semantic tokens of audio.
        join: makes one sequence of semantic tokens and codes.
        window_samples: audio of one sequence, at the run's rate.
    """

    def __init__(
        self, chain: list[Any], network: nn.Module, meaning: SemanticCodesInjector, join: JoinTokensInjector,
        window_samples: int,
    ) -> None:  # fmt: skip
        super().__init__(chain, network)
        if not isinstance(network, Gpt) or len(join.vocabularies) != 2:
            raise ValueError("codes given semantic tokens are sampled with a gpt over two kinds of tokens")
        self.meaning, self.join, self.window_samples = meaning, join, window_samples
        injector: Any = self.codec_injector
        self.window_frames = int(injector.frames_of(window_samples))
        self.frame_seconds = self.codec.hop_samples / self.codec.sample_rate_hz
        self.window_tokens = self.heard(torch.zeros(1, 1, window_samples)).shape[1]
        self.said = torch.empty(0)  # (B, M) semantic tokens of prompt and continuation

    def heard(self, wav: Tensor) -> Tensor:
        """Semantic tokens (B, M) of audio (B, 1, T), floats in [-1, 1]."""
        codes = self.meaning.forward(wav.to(next(self.network.parameters()).device))
        if not isinstance(codes, Tensor):
            raise ValueError("semantic_codes has remove_repeats: tokens that do not say for how long make no audio")
        return codes

    def token_at(self, frame: int) -> int:
        """The semantic token where a frame of codes begins."""
        network = self.meaning.network
        return round(frame * self.frame_seconds * network.sample_rate_hz / network.hop_samples)

    def tokens_for(self, frames: int) -> int:
        """Semantic tokens that so many frames of codes need."""
        return self.token_at(max(0, frames - self.window_frames)) + self.window_tokens

    def go_on(
        self, prompt: Tensor, new_frames: int, *, temperature: float, top_k: int, top_p: float,
        generator: torch.Generator, progress: Callable[[int, int], None] | None = None,
        emit: Callable[[Tensor], None] | None = None,
    ) -> Tensor:  # fmt: skip
        """As `CodesWay.go_on`, given the semantic tokens in `said`; `emit` and `progress` after each window."""
        if prompt.shape[2] < 1:
            raise ValueError("the prompt is shorter than a frame of the codec")
        draws: Draws = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "generator": generator}
        made, start, window = prompt, prompt.shape[2], self.window_frames
        total = start + new_frames
        assert self.said.shape[1] >= self.tokens_for(total)
        while (done := made.shape[2]) < total:
            first = min(done - window // 2, total - window) if done >= window else 0
            made = torch.cat([made[:, :, :first], self._window(made[:, :, first:], first, draws)], 2)[:, :, :total]
            if progress is not None:
                progress((made.shape[2] - start) * prompt.shape[1], new_frames * prompt.shape[1])
            if emit is not None and made.shape[2] < total:
                emit(made)
        return made

    def _window(self, known: Tensor, first: int, draws: Draws) -> Tensor:
        """Codes (B, K, window_frames) that begin with the known ones (B, K, n), from a frame of the recording on."""
        number = known.shape[2]
        silence = torch.nn.functional.pad(known, (0, self.window_frames - number))
        changed = silence.clone()
        changed[:, :, number:] = (silence[:, :, number:] + 1) % self.codec.codebook_size
        codes = self.tokens(silence)
        free = codes != self.tokens(changed)
        start = self.token_at(first)
        said = self.said[:, start : start + self.window_tokens].to(codes.device)
        tokens = self.join.forward(said, codes)
        tokens[:, self.window_tokens :].masked_fill_(free, -1)
        kind = self.join.vocabularies[0]
        network: Any = self.network
        return self.codes(network.generate(tokens, first_code=kind, **draws)[:, self.window_tokens :] - kind)


class SemanticRun:
    """A run that trained a language model of semantic tokens.

    Args:
        run: its folder.
        checkpoint: a checkpoint folder; None: the best of the run, or its newest.

    Raises:
        OptionError, CheckpointError: as `open_run`.
        ValueError: it has no language model of semantic tokens.
    """

    def __init__(self, run: Path, checkpoint: Path | None = None) -> None:
        self.experiment, self.checkpoint = open_run(run, checkpoint)
        networks = trained_networks(self.experiment, self.checkpoint)
        able = [name for name, module in networks.items() if hasattr(module, "generate")]
        found = None
        if len(able) == 1:
            step, called = reader(self.experiment, able[0])
            entries = [entry for entry in step.injectors if called.flags.in_[0] in entry.flags.out]
            found = entries[0].built_from.build(networks) if entries else None
        if not isinstance(found, SemanticCodesInjector):
            raise ValueError(f"--semantic-run: {run} has no network that goes on after semantic tokens")
        self.meaning, self.network = found, networks[able[0]]

    def go_on(self, known: Tensor, wanted: int, draws: Draws, seed: int) -> Tensor:
        """Semantic tokens (B, M) and those that follow them, `wanted` in all."""
        network: Any = self.network
        tokens = torch.nn.functional.pad(known[:, :wanted], (0, max(0, wanted - known.shape[1])), value=-1)
        generator = torch.Generator().manual_seed(seed)
        return network.generate(tokens.cpu(), generator=generator, **draws)


class SemanticContinuation(Continuation):
    """A `Continuation`, also of a run that says codes given semantic tokens: `says` what, then `stream`."""

    way: SemanticWay | None = None
    join: JoinTokensInjector | None = None

    def _chain(self, key: str) -> Any:
        makers = {out: entry for entry in self.step.injectors for out in entry.flags.out}
        joined = makers[key].built_from.build(self.networks) if key in makers else None
        if not isinstance(joined, JoinTokensInjector):
            return super()._chain(key)
        meaning_key, sound_key = makers[key].flags.in_[0], makers[key].flags.in_[-1]
        meaning = makers[meaning_key].built_from.build(self.networks) if meaning_key in makers else None
        if not isinstance(meaning, SemanticCodesInjector):
            raise ValueError(f"{meaning_key!r} is not made by semantic_codes: what is said is not known")
        self.join, self.meaning = joined, meaning
        return super()._chain(sound_key)

    def _connect(self, network: str | None) -> None:
        super()._connect(network)
        if self.join is None:
            return
        options = self.experiment.datasets["train"].built_from.options
        if self.meaning.audio_rate_hz is None:
            self.meaning.audio_rate_hz = self.sample_rate_hz
        self.way = SemanticWay(self.chain, self.network, self.meaning, self.join, int(options["chunk_frames"]))
        self.codes = self.way

    def says(
        self, whole: Prompt, prompt: Prompt, new_samples: int, num: int, draws: Draws, seed: int,
        semantic: SemanticRun | None,
    ) -> tuple[Prompt, str]:  # fmt: skip
        """Decide what is said.

        Args:
            whole: the recording; without a semantic run, it says how the prompt, its beginning, goes on.
            prompt: the end of it that a semantic run goes on after.
            new_samples: samples that are made.
            num: continuations.
            draws, seed: of the semantic run's tokens.
            semantic: says how it goes on.

        Returns:
            the prompt that is heard, and what is to be said of it.

        Raises:
            ValueError: the semantic run has other clusters, or the recording ends with the prompt.
        """
        way, length = self.way, prompt.pcm.shape[1]
        assert way is not None
        injector: Any = way.codec_injector
        frames = injector.frames_of(length) + injector.frames_of(new_samples)
        wanted = way.tokens_for(frames)
        if semantic is not None:
            if not torch.equal(semantic.meaning.centres.cpu(), way.meaning.centres.cpu()):
                raise ValueError("--semantic-run: it has other clusters than the run: give both the same file")
            known = way.heard(_floats(prompt, length))
            way.said = semantic.go_on(known.expand(num, -1), wanted, draws, seed)
            return prompt, f"what is said: {semantic.checkpoint}"
        if whole.pcm.shape[1] <= length:
            raise ValueError(
                f"the prompt has {length / prompt.sample_rate_hz:.2f} s, all of it heard: give --semantic-run, which "
                "says how it goes on, or a --prompt that is longer than --prompt-seconds"
            )
        samples = max(length + new_samples, way.window_samples)
        said = way.heard(_floats(whole, samples))
        said = torch.cat([said, said[:, -1:].expand(-1, max(0, wanted - said.shape[1]))], 1)
        way.said = said.expand(num, -1)
        first = Prompt(pcm=whole.pcm[:, :length], bits=whole.bits, sample_rate_hz=whole.sample_rate_hz)
        return first, "what is said: the prompt's own words, after its beginning"


def _floats(prompt: Prompt, samples: int) -> Tensor:
    """Audio (1, 1, samples) in [-1, 1], silence behind its end."""
    wav = torch.from_numpy(prompt.pcm / 2.0 ** (prompt.bits - 1)).float()[None, :, :samples]
    return torch.nn.functional.pad(wav, (0, samples - wav.shape[2]))
