"""Vocoders from the files that their makers published: HiFi-GAN, UnivNet or Vocos, told apart by the weights' names.

Each wants the mel spectrogram that it was trained on; what a DVAE gives is converted (`codes.speech_mel.convert_mel`).
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional

from codes.models.hifi_gan import HifiGan
from codes.models.univnet import Univnet, univnet_options
from codes.models.vocos import Vocos
from codes.speech_mel import MelSettings, convert_mel
from codes.weights import CheckpointError, fit_weights, load_weights, without_prefixes

SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")
HIFI_GAN_NAMES = ("g_", "generator")  # of files without a suffix
LAYOUTS = (
    "HiFi-GAN: config.json and g_... or generator_...; UnivNet: Tortoise's vocoder.pth, or transformers' "
    "model.safetensors; Vocos: config.yaml and pytorch_model.bin"
)


@dataclass(frozen=True)
class Vocoder:
    """A network that makes sound of mel spectrograms.

    Args:
        name: of its kind.
        network: mel (B, bands, F) -> (B, 1, T).
        settings: of the mel spectrograms that it was trained on.
        end_frames: silent frames that are put after a mel spectrogram, whose sound is cut off again.
    """

    name: str
    network: nn.Module
    settings: MelSettings
    end_frames: int = 0

    @torch.inference_mode()
    def sound(self, mel: Tensor, source: MelSettings, seed: int = 0) -> Tensor:
        """Sound of a mel spectrogram, converted where the vocoder's is another.

        Args:
            mel: (bands, F) logarithms, not divided by norms.
            source: as it was made.
            seed: of the noise that UnivNet begins with.

        Returns:
            (T,) float32 in [-1, 1] at the vocoder's rate.

        Raises:
            ValueError: the mel spectrogram has other bands than `source` says.
        """
        if mel.dim() != 2 or len(mel) != source.bands:
            raise ValueError(f"{self.name} expected a mel spectrogram ({source.bands}, F), got {tuple(mel.shape)}")
        wanted = convert_mel(mel.float(), source, self.settings)
        filled = functional.pad(wanted, (0, self.end_frames), value=math.log(self.settings.least))
        devices = [mel.device] if mel.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            wav = self.network(filled[None])[0, 0]
        return wav[: len(wav) - self.end_frames * self.settings.hop].clamp(-1, 1)


def open_vocoder(path: Path, device: torch.device | None = None) -> Vocoder:
    """A published vocoder, ready to make sound.

    Args:
        path: its folder, or its file of weights.
        device: to compute on.

    Raises:
        CheckpointError: there are no weights, they are of no vocoder known here, or do not fit their config.
        ValueError: its config cannot be read, or is of a kind that mel spectrograms do not fit.
    """
    file = _weights_file(path)
    weights = dict(without_prefixes(load_weights(file)))
    if any(".kernel_predictor." in name for name in weights):
        vocoder = _univnet(weights, file)
    elif "head.out.weight" in weights:
        vocoder = _vocos(file.with_name("config.yaml"))
    elif "conv_pre.bias" in weights and "ups.0.bias" in weights:
        vocoder = _hifi_gan(file.with_name("config.json"))
    else:
        raise CheckpointError(f"{file} holds no vocoder that is known here ({LAYOUTS})")
    fit_weights(vocoder.network, vocoder.name, weights, file, strict=True)
    vocoder.network.eval().requires_grad_(False).to(device or "cpu")
    return vocoder


def _weights_file(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise CheckpointError(f"vocoder {path} does not exist ({LAYOUTS})")
    files = [file for file in sorted(path.iterdir()) if file.name.startswith(HIFI_GAN_NAMES) or file.suffix in SUFFIXES]
    if len(files) != 1:
        shown = ", ".join(file.name for file in files) or "none"
        raise CheckpointError(f"{path} must hold one file of weights ({LAYOUTS}), it holds {shown}: name the file")
    return files[0]


def _univnet(weights: dict[str, Tensor], file: Path) -> Vocoder:
    """Its file says nothing of the mel spectrogram: that of Tortoise's is taken, if the sizes are."""
    options: dict[str, Any] = univnet_options(weights)
    hop = math.prod(options["strides"])
    if (options["bands"], hop) != (100, 256):
        raise CheckpointError(
            f"{file} is a UnivNet of {options['bands']} bands and {hop} samples a frame: what mel spectrogram it takes "
            "is known only of those of Tortoise's kind, 100 bands and 256 samples at 24 kHz"
        )
    settings = MelSettings(sample_rate_hz=24000, bands=100, highest_hz=12000, magnitude=True, slaney_scale=True)
    return Vocoder("univnet", Univnet(**options), settings, end_frames=10)


def _hifi_gan(config: Path) -> Vocoder:
    """Raises ValueError: config.json cannot be read, lacks a key, or contradicts itself."""
    keys = ("upsample_rates", "upsample_kernel_sizes", "upsample_initial_channel", "resblock_kernel_sizes")
    try:
        found = json.loads(config.read_text(encoding="utf-8"))
        options = {key: found[key] for key in (*keys, "resblock_dilation_sizes")}
        options |= {"bands": found["num_mels"], "resblock": int(found["resblock"])}
        rate, window, hop = (int(found[key]) for key in ("sampling_rate", "n_fft", "hop_size"))
        if found.get("win_size", window) != window or math.prod(found["upsample_rates"]) != hop:
            raise ValueError("win_size must be n_fft, and the product of upsample_rates hop_size")
        settings = MelSettings(
            sample_rate_hz=rate, window=window, hop=hop, bands=found["num_mels"], lowest_hz=float(found["fmin"] or 0),
            highest_hz=float(found["fmax"] or rate / 2), magnitude=True, slaney_scale=True,
        )  # fmt: skip
        return Vocoder("hifi_gan", HifiGan(**options), settings)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{config} is no config.json of HiFi-GAN: {type(error).__name__}: {error}") from error


def _vocos(config: Path) -> Vocoder:
    """Raises ValueError: config.yaml cannot be read, lacks a key, or is of another kind of Vocos."""
    try:
        found = yaml.safe_load(config.read_text(encoding="utf-8"))
        parts = {
            name: found[name]["class_path"].rsplit(".", 1)[-1] for name in ("feature_extractor", "backbone", "head")
        }
        wanted = {"feature_extractor": "MelSpectrogramFeatures", "backbone": "VocosBackbone", "head": "ISTFTHead"}
        if parts != wanted:
            raise ValueError(f"a Vocos of mel spectrograms has {wanted}, this one {parts}")
        features, backbone, head = (found[name].get("init_args") or {} for name in wanted)
        mel = {"sample_rate": 24000, "n_fft": 1024, "hop_length": 256, "n_mels": 100} | features
        if mel["n_mels"] != backbone["input_channels"] or mel["hop_length"] != head["hop_length"]:
            raise ValueError("n_mels must be input_channels, and both hop_length the same")
        network = Vocos(
            bands=backbone["input_channels"], dim=backbone["dim"], intermediate_dim=backbone["intermediate_dim"],
            num_layers=backbone["num_layers"], window=head["n_fft"], hop=head["hop_length"],
            padding=head.get("padding", "same"),
        )  # fmt: skip
        settings = MelSettings(
            sample_rate_hz=mel["sample_rate"], window=mel["n_fft"], hop=mel["hop_length"], bands=mel["n_mels"],
            highest_hz=mel["sample_rate"] / 2, magnitude=True, equal_area=False, least=1e-7,
        )  # fmt: skip
        return Vocoder("vocos", network, settings)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ValueError(f"{config} is no config.yaml of Vocos: {type(error).__name__}: {error}") from error
