"""`speech_features`: what a model of speech hears in each frame: HuBERT, wav2vec 2.0, WavLM at a layer, or cepstra.

k-means of such features gives semantic tokens (`semantic_codes`; scripts/fit_kmeans.py), and the first codebook of a
codec can be taught to tell them (`distilled_dim` of `rvq_codec`). Cepstra need no weights: they are what HuBERT's own
first iteration was taught with (Hsu et al., 2021, section 3.3).
"""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from codes import mel
from codes.models.network import Network
from codes.models.transformers_weights import load_pretrained, one_line, require_transformers
from codes.weights import weights_sha256

CLASSES = {"hubert": "HubertModel", "wav2vec2": "Wav2Vec2Model", "wavlm": "WavLMModel"}
HOW_TO_GET = (
    "get weights where there is a network (hf download facebook/hubert-base-ls960 --local-dir DIR; also "
    "facebook/wav2vec2-base, microsoft/wavlm-base-plus) and give model: DIR, or take features: mfcc, which need none"
)
CEPSTRA = 39  # 13 and their first and second slopes


class SpeechFeatures(Network):
    """Features of speech: wav (B, 1, T) float -> (B, F, D) float32. Set `trainable: false` beside `kwargs`.

    A checkpoint of a run that uses it holds a hash of the model's weights in their place: they are read from `model`
    again, and must be the same.

    Args:
        features: model: a layer of a pretrained one; mfcc: 13 cepstra and their slopes, 100 times a second.
        model: its folder, as transformers saves it, or its name on the hub.
        layer: which layer's output, counted from 1; 0: what goes into the first.
        sample_rate_hz: for mfcc; a model has its own.
    """

    def __init__(
        self, *, features: Literal["model", "mfcc"] = "model", model: str | None = None, layer: int = 9,
        sample_rate_hz: int = 16_000,
    ) -> None:  # fmt: skip
        super().__init__()
        self.features, self.source, self.layer = features, model, layer
        self.sample_rate_hz, self.dim, self.hop_samples = sample_rate_hz, CEPSTRA, mel.mfcc_hop(sample_rate_hz)
        self._normalize, self._model, self.weights_hash = False, None, ""
        if features == "mfcc":
            if model is not None:
                raise ValueError("model is given, but features: mfcc need none: take one of them away")
            if sample_rate_hz < 1000:
                raise ValueError(f"sample_rate_hz is {sample_rate_hz}: cepstra need 1000 or more")
            return
        if model is None:
            raise ValueError(f"model is missing: {HOW_TO_GET}")
        self._load(model, layer)

    def _load(self, source: str, layer: int) -> None:
        transformers = require_transformers("speech_features")
        try:
            family = transformers.AutoConfig.from_pretrained(source).model_type
            preparation = transformers.AutoFeatureExtractor.from_pretrained(source)
        except (OSError, ValueError, KeyError) as error:
            what = "lacks config.json or preprocessor_config.json" if Path(source).is_dir() else "is not there"
            raise ValueError(f"model is {source}: it {what} ({one_line(error)}); {HOW_TO_GET}") from error
        if family not in CLASSES:
            raise ValueError(f"model is {source}, of type {family!r}: wanted is one of {', '.join(CLASSES)}")
        found = load_pretrained(source, family, CLASSES[family]).eval().requires_grad_(False)
        if not 0 <= layer <= len(found.encoder.layers):
            raise ValueError(f"layer is {layer}: {source} has layers 1 to {len(found.encoder.layers)}, and 0")
        found.encoder.layers = found.encoder.layers[: max(layer, 1)]  # later ones would be computed for nothing
        self._model, self.weights_hash = found, weights_sha256(found)
        self._normalize, self.sample_rate_hz = bool(preparation.do_normalize), int(preparation.sampling_rate)
        self.dim = int(found.config.hidden_size)
        self.hop_samples = 1
        for stride in found.config.conv_stride:
            self.hop_samples *= int(stride)

    @property
    def described(self) -> dict[str, str]:
        """What a k-means that was fitted to these features must be used with."""
        what = {"features": self.features, "sample_rate_hz": str(self.sample_rate_hz)}
        if self.features == "model":
            what |= {"layer": str(self.layer), "weights_sha256": self.weights_hash}
        return what

    @torch.no_grad()
    def forward(self, wav: Tensor) -> Tensor:
        """wav: (B, 1, T) or (B, T) float in [-1, 1] at sample_rate_hz -> (B, F, D) float32; no gradient flows.

        Raises:
            ValueError: another shape, integers, or too short for a frame.
        """
        if wav.dim() not in (2, 3) or (wav.dim() == 3 and wav.shape[1] != 1) or not wav.is_floating_point():
            raise ValueError(
                f"expected float audio (B, 1, T) at {self.sample_rate_hz} Hz, got {wav.dtype} {tuple(wav.shape)}"
            )
        flat = wav.reshape(len(wav), wav.shape[-1])
        with torch.autocast(wav.device.type, enabled=False):
            if self._model is None:
                return mel.mfcc(flat.float(), self.sample_rate_hz)
            return self._of_model(flat.float())

    def _of_model(self, flat: Tensor) -> Tensor:
        model: Any = self._model
        if int(model._get_feat_extract_output_lengths(flat.shape[1])) < 1:
            raise ValueError(f"the audio has {flat.shape[1]} samples: too few for a frame of {self.source}")
        if self._normalize:
            centred = flat - flat.mean(1, keepdim=True)
            flat = centred / (centred.square().mean(1, keepdim=True) + 1e-7).sqrt()
        kept: list[Tensor] = []
        layer = model.encoder.layers[max(self.layer, 1) - 1]
        if self.layer:
            hook = layer.register_forward_hook(lambda module, given, made: kept.append(_first(made)))
        else:
            hook = layer.register_forward_pre_hook(lambda module, given: kept.append(_first(given)))
        try:
            model(flat)
        finally:
            hook.remove()
        return kept[0].float()

    def train(self, mode: bool = True) -> "SpeechFeatures":
        """Always in evaluation mode."""
        return super().train(False)

    def state_dict(self, *args: Any, **options: Any) -> dict[str, Any]:
        """The hash of the weights, (64,) uint8; nothing for cepstra."""
        return {"weights_sha256": torch.tensor(list(self.weights_hash.encode()), dtype=torch.uint8)}

    def load_state_dict(self, state_dict: Any, *args: Any, **options: Any) -> None:
        """Hold the model to the hash of the weights that it had.

        Raises:
            ValueError: the weights at `model` are others now.
        """
        if state_dict["weights_sha256"].cpu().tolist() != list(self.weights_hash.encode()):
            raise ValueError("the weights at `model` are not those that the checkpoint was made with: give the same")


def _first(value: Any) -> Tensor:
    return value[0] if isinstance(value, tuple) else value
