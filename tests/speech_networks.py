"""Small trained networks of speech in files, and a corpus like LJ Speech: what tests of speech share."""

import wave
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from codes.models.lucidrains_dvae import LucidrainsDvae
from codes.models.unified_voice import UnifiedVoice2
from codes.trainer.injectors.speech_codes import GptVoiceLatentInjector

DVAE: dict[str, Any] = {
    "positional_dims": 1, "channels": 80, "num_tokens": 48, "codebook_dim": 8, "hidden_dim": 8, "num_layers": 2,
    "num_resnet_blocks": 1, "kernel_size": 3, "use_transposed_convs": False,
}  # fmt: skip
GPT: dict[str, Any] = {
    "layers": 2, "model_dim": 32, "heads": 2, "max_text_tokens": 60, "max_mel_tokens": 60,
    "max_conditioning_inputs": 2, "mel_length_compression": 1024, "number_text_tokens": 256,
    "number_mel_codes": 50, "start_mel_token": 48, "stop_mel_token": 49, "start_text_token": 255,
}  # fmt: skip
SENTENCES = (
    "the first words of it", "a clip with other words", "and then one more", "words that nobody knows",
    "a fifth of these", "the end of all of it",
)  # fmt: skip


def write_networks(folder: Path) -> Path:
    """dvae.pth, gpt.pth and networks.yml, which names both; returns the YAML."""
    folder.mkdir(parents=True, exist_ok=True)
    dvae, gpt = LucidrainsDvae(**DVAE), UnifiedVoice2(**GPT)
    dvae.codebook.embed.mul_(0.1)
    released = {name: value for name, value in dvae.state_dict().items() if name != "codebook.usage"}
    torch.save(released, folder / "dvae.pth")
    masks = {f"gpt.h.{layer}.attn.bias": torch.ones(1, 1, 4, 4) for layer in range(2)}
    torch.save(gpt.state_dict() | masks, folder / "gpt.pth")
    config = {
        "model": "extensibletrainer",
        "networks": {
            "dvae": {"type": "generator", "which_model_G": "lucidrains_dvae", "kwargs": DVAE},
            "gpt": {"type": "generator", "which_model_G": "unified_voice2", "kwargs": GPT},
        },
        "path": {"pretrain_model_dvae": "dvae.pth", "pretrain_model_gpt": "gpt.pth", "strict_load": True},
    }
    (folder / "networks.yml").write_text(yaml.safe_dump(config))
    return folder / "networks.yml"


def voice_latent_injector(folder: Path) -> GptVoiceLatentInjector:
    """gpt_voice_latent over those networks."""
    config = write_networks(folder)
    return GptVoiceLatentInjector(gpt_config=config, dvae_config=config, conditioning_length=2048)


def write_corpus(folder: Path, seconds: float = 1.0) -> Path:
    """LJ Speech's layout with six recordings of tones at 22,050 Hz; returns metadata.csv."""
    (folder / "wavs").mkdir(parents=True, exist_ok=True)
    rows = []
    for number, sentence in enumerate(SENTENCES):
        rng = np.random.default_rng(number)
        time = np.arange(round(22050 * (seconds + 0.1 * number))) / 22050
        tone = 0.3 * np.sin(2 * np.pi * rng.uniform(100, 900) * time) + rng.normal(0, 0.02, len(time))
        with wave.open(str(folder / "wavs" / f"LJ001-000{number}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(22050)
            file.writeframes((tone * 32767).astype("<i2").tobytes())
        rows.append(f"LJ001-000{number}|{sentence}|{sentence}\n")
    (folder / "metadata.csv").write_text("".join(rows), encoding="utf-8")
    return folder / "metadata.csv"
