"""Speech from text by a trained run: a voice, a text, the GPT's codes, the DVAE's mel spectrogram, sound.

Everything that lies between is read from the run's own experiment: its tokenizer, its mel spectrogram, its DVAE.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codes.data.audio.resample import read_sound
from codes.data.text.tokenizer import BpeTokenizer, CharacterTokenizer, TextTokenizer
from codes.models.unified_voice import UnifiedVoice2
from codes.models.vocoders import Vocoder
from codes.speech_mel import griffin_lim
from codes.trainer.checkpoint import load_state
from codes.trainer.export import open_run, trained_networks
from codes.trainer.injector import Injector
from codes.trainer.injectors.control import ForEachInjector
from codes.trainer.injectors.speech import MelSpectrogramInjector, TorchMelSpectrogramInjector
from codes.trainer.injectors.speech_codes import DiscreteTokenInjector
from codes.trainer.run_folder import check_borrowed
from codes.weights import CheckpointError

MelInjector = TorchMelSpectrogramInjector | MelSpectrogramInjector


class Speaker:
    """A run that trained a `unified_voice2`, ready to speak.

    Args:
        run: its folder.
        device: to compute on.

    Raises:
        CheckpointError: the run has no checkpoint, or no such network.
        OptionError: its experiment cannot be read any more.
    """

    def __init__(self, run: Path, device: torch.device | None = None) -> None:
        self.device = device or torch.device("cpu")
        experiment, checkpoint = open_run(run)
        networks = trained_networks(experiment, checkpoint)
        gpt = next((network for network in networks.values() if isinstance(network, UnifiedVoice2)), None)
        if gpt is None:
            raise CheckpointError(f"{run} has no unified_voice2 among its networks ({', '.join(networks)})")
        self.gpt = gpt.to(self.device)
        entries = {f"{step.name}.{entry.name}": entry for step in experiment.steps for entry in step.injectors}
        made = {name: entry.built_from.build(networks) for name, entry in entries.items()}
        built = [(entries[name].flags.in_, entries[name].flags.out, injector) for name, injector in made.items()]
        writers = {key: injector for _, keys, injector in built for key in keys}
        coding = next((one for one in built if isinstance(one[2], DiscreteTokenInjector)), None)
        calling = next((one for one in built if getattr(one[2], "network", None) is gpt), None)
        if coding is None or calling is None:
            raise CheckpointError(f"{run} has no discrete_token, or no call of its unified_voice2, among its injectors")
        self.codes: DiscreteTokenInjector = coding[2]
        now = {name: one.borrowed for name, one in made.items() if one is self.codes and one.borrowed}
        if (checkpoint / "state.pt").is_file():  # an exported copy has none
            check_borrowed(checkpoint, load_state(checkpoint).get("borrowed", {}), now)
        self.codes.dvae.to(self.device)
        self.mel, self.voice_mel = (_mel_of(read[0], writers) for read in (coding[0], calling[0]))
        train = experiment.datasets["train"].built_from.options
        self.tokenizer = _tokenizer(train)
        self.clip_samples = int(train.get("conditioning_length", 44_100))
        self.sample_rate_hz = self.mel.settings.sample_rate_hz

    def tokens(self, text: str) -> Tensor:
        """A text as token numbers (N,).

        Raises:
            ValueError: it has no token, characters that no token stands for, or too many tokens.
        """
        ids, unknown = self.tokenizer.examine(text)
        if unknown:
            shown = ", ".join(repr(character) for character in unknown)
            raise ValueError(f"text {text!r} has what the tokenizer does not know: {shown}")
        if not 0 < len(ids) <= self.gpt.max_text_tokens:
            raise ValueError(f"text {text!r} has {len(ids)} tokens: the network takes 1 to {self.gpt.max_text_tokens}")
        return torch.tensor(ids, device=self.device)

    def voice(self, clips: list[Path]) -> Tensor:
        """Reference recordings as mel spectrograms (1, n, 80, S), each cut or filled up as in training.

        Raises:
            ValueError: there is none.
            AudioReadError: one cannot be read.
        """
        if not clips:
            raise ValueError("a voice needs one reference recording or more")
        return torch.stack([self.voice_mel(self._clip(path)) for path in clips], 1)

    def _clip(self, path: Path) -> Tensor:
        """The middle of a recording, (1, 1, clip_samples) float at the run's rate."""
        sound = torch.from_numpy(read_sound(path, self.sample_rate_hz)).mean(0, keepdim=True)
        start = max(0, (sound.shape[1] - self.clip_samples) // 2)
        cut = sound[:, start : start + self.clip_samples]
        filled = torch.nn.functional.pad(cut, (0, self.clip_samples - cut.shape[1]))
        return filled[None].to(self.device)

    def say(self, text: str, clips: list[Path], seed: int = 0, **choice: Any) -> list[Tensor]:
        """Codes of readings of a text; `choice` as `UnifiedVoice2.generate` takes it."""
        generator = torch.Generator(self.device).manual_seed(seed)
        return self.gpt.generate(self.voice(clips), self.tokens(text), generator=generator, **choice)

    def to_mel(self, codes: Tensor) -> Tensor:
        """Codes (N,) as a log-mel spectrogram of powers (bands, F), neither divided by norms nor scaled.

        Raises:
            ValueError: there is no code, or the GPT knows codes that the DVAE does not.
        """
        if not len(codes):
            raise ValueError("the reading is empty: its first code was the stop")
        if int(codes.max()) >= self.codes.dvae.num_tokens:
            raise ValueError(f"code {int(codes.max())} is none of the DVAE's {self.codes.dvae.num_tokens}")
        return self.mel.logarithms(self.codes.inverse(codes[None])[0].float())

    def to_sound(self, codes: Tensor, vocoder: Vocoder | None = None) -> Tensor:
        """Codes (N,) as sound (T,) at the vocoder's rate; by Griffin and Lim, at the run's, where none is given."""
        mel = self.to_mel(codes)
        settings = self.mel.settings
        return vocoder.sound(mel, settings) if vocoder is not None else griffin_lim(mel.cpu(), settings)


def _mel_of(key: str, writers: dict[str, Injector]) -> MelInjector:
    """What makes the mel spectrograms under a key, of single clips where it is for_each."""
    found = writers.get(key)
    found = found.subtype if isinstance(found, ForEachInjector) else found
    if not isinstance(found, MelInjector):
        raise CheckpointError(
            f"{key!r} is no mel spectrogram that torch_mel_spectrogram or mel_spectrogram makes: the run cannot speak"
        )
    return found


def _tokenizer(options: dict[str, Any]) -> TextTokenizer:
    """As the run's dataset made it."""
    cleaner = options.get("text_cleaners", "english")
    if options.get("use_bpe_tokenizer", True):
        return BpeTokenizer(options.get("tokenizer_vocab"), cleaner)
    return CharacterTokenizer(cleaner)
