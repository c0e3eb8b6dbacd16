"""Codes of mel spectrograms and latents of Tortoise's GPT, by trained networks that are not trained here."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from codes.other_config import network_of
from codes.trainer.injector import Injector
from codes.trainer.injectors.crops import KeyRead
from codes.trainer.injectors.speech import TorchMelSpectrogramInjector
from codes.weights import weights_sha256


class DiscreteTokenInjector(Injector):
    """Codes of mel spectrograms by a trained `lucidrains_dvae`. mel: (B, bands, F) -> (B, N) int64.

    Args:
        dvae_config: the YAML of another experiment, which holds the DVAE under `networks` and its weights under
            path.pretrain_model_NAME, or which was trained (then its run's best weights are taken).
        dvae_name: the DVAE's name in that YAML.
        dvae_path: weights, or the folder of a run, in place of what that YAML says.
        dvae: a network of this experiment, in place of dvae_config.
    """

    def __init__(
        self, *, dvae_config: Path | None = None, dvae_name: str = "dvae", dvae_path: Path | None = None,
        dvae: nn.Module | None = None,
    ) -> None:  # fmt: skip
        if (dvae is None) == (dvae_config is None):
            raise ValueError("dvae_config must name the YAML of a trained DVAE, or dvae a network of this experiment")
        self.dvae: Any = _to_codes(network_of(dvae_config, dvae_name, dvae_path) if dvae_config else dvae)
        self.borrowed = weights_sha256(self.dvae) if dvae_config else None  # the trainer holds later runs to it

    @torch.no_grad()
    def forward(self, mel: Tensor) -> Tensor:
        """mel: (B, bands, F) -> codes: (B, N)."""
        return self.dvae.to(mel.device).get_codebook_indices(mel)

    def inverse(self, codes: Tensor) -> Tensor:
        """codes: (B, N) -> mel: (B, bands, F)."""
        return self.dvae.to(codes.device).decode(codes)


def _to_codes(network: nn.Module | None) -> nn.Module:
    if not hasattr(network, "get_codebook_indices"):
        raise ValueError(f"dvae must be a lucidrains_dvae, {type(network).__name__} makes no codes of mels")
    assert network is not None
    return network


class GptVoiceLatentInjector(Injector):
    """From sound and text to the latents of a trained `unified_voice2`, in one go.

    wav (B, 1, T), conditioning (B, n, 1, S), text (B, L), text_lengths (B,), wav_lengths (B,) -> (B, N, model_dim).
    It stands for torch_mel_spectrogram of both, discrete_token and the GPT.

    Args:
        gpt_config: the YAML of the experiment that trained the GPT.
        gpt_name: the GPT's name in it.
        gpt_path: its weights, or the folder of its run; null: as that YAML says.
        dvae_config: the YAML of the DVAE, as in discrete_token.
        dvae_name: its name in it.
        dvae_path: its weights, or the folder of its run; null: as that YAML says.
        mel_norm_file: what each band of the mels is divided by; null: 1.
        conditioning_length: samples to which conditioning clips are cut, or filled up with silence.
        input_bits: bits of an integer sample. None: those of the dataset.
        conditioning_clip: key of the conditioning clips; this and the next three in place of keys under `in`.
        text: key of the text's tokens.
        text_lengths: key of their numbers.
        input_lengths: key of the sound's samples.
    """

    def __init__(
        self, *, gpt_config: Path, gpt_name: str = "gpt", gpt_path: Path | None = None, dvae_config: Path,
        dvae_name: str = "dvae", dvae_path: Path | None = None, mel_norm_file: Path | None = None,
        conditioning_length: int = 132_300, input_bits: int | None = None, conditioning_clip: KeyRead = None,
        text: KeyRead = None, text_lengths: KeyRead = None, input_lengths: KeyRead = None,
    ) -> None:  # fmt: skip
        self.mel = TorchMelSpectrogramInjector(mel_norm_file=mel_norm_file, input_bits=input_bits)
        self.codes = DiscreteTokenInjector(dvae_config=dvae_config, dvae_name=dvae_name, dvae_path=dvae_path)
        self.gpt: Any = network_of(gpt_config, gpt_name, gpt_path)
        if not hasattr(self.gpt, "latents"):
            raise ValueError(f"gpt_config: {gpt_name} must be a unified_voice2, got {type(self.gpt).__name__}")
        self.conditioning_length, self.input_bits = conditioning_length, input_bits

    @torch.no_grad()
    def forward(
        self, wav: Tensor, conditioning: Tensor, text: Tensor, text_lengths: Tensor, wav_lengths: Tensor
    ) -> Tensor:
        """The latents of the codes of each item: (B, N, model_dim)."""
        self.mel.input_bits = self.input_bits
        missing = self.conditioning_length - conditioning.shape[-1]
        clips = nn.functional.pad(conditioning, (0, missing))  # a negative one cuts
        voice = torch.stack([self.mel(clip) for clip in clips.unbind(1)], 1)
        codes = self.codes(self.mel(wav))
        return self.gpt.to(wav.device).latents(voice, text, text_lengths, codes, wav_lengths)
