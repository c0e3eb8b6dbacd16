"""EnCodec's own checkpoint files (encodec_24khz-*.th, encodec_48khz-*.th) as models of transformers.

The files hold nothing but tensors, so the sizes of the network follow from their names and shapes: a convolution that
halves time by r has a kernel of 2 r, normalisation over time stands where the model is the stereo one. Only what no
tensor tells (sample rate, padding, loudness) is known from the two published models.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codes.models.transformers_codecs import EncodecModelCodec
from codes.models.transformers_weights import require_transformers

RENAMED = (  # of encodec -> of transformers
    (r"\.model\.", ".layers."),
    (r"\.(conv|convtr)\.\1\.", ".conv."),
    (r"\.(conv|convtr)\.norm\.", ".norm."),
    (r"\.vq\.layers\.(\d+)\._codebook\.", r".layers.\1.codebook."),
    (r"\.weight_g$", ".parametrizations.weight.original0"),
    (r"\.weight_v$", ".parametrizations.weight.original1"),
)
DERIVED = (".stride", ".kernel_size", ".padding_total")  # what transformers keeps beside the weights


def load_encodec_checkpoint(path: Path) -> EncodecModelCodec:
    """The codec of a checkpoint file of the package encodec.

    Raises:
        ValueError: the file cannot be read, or is of another architecture; messages begin with `path`.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch's unpickler stumbles over
        raise ValueError(f"path is {path}: it cannot be read as a checkpoint of encodec: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"path is {path}: it holds no state dict of tensors")
    weights = {renamed(name): value for name, value in found.items()}
    transformers = require_transformers("pretrained_codec")
    try:
        model = transformers.EncodecModel(transformers.EncodecConfig(**_sizes(weights)))
    except KeyError as error:
        raise ValueError(f"path is {path}: it is no checkpoint of encodec: it lacks {error.args[0]}") from error
    own = model.state_dict()
    derived = {name: value for name, value in own.items() if name.endswith(DERIVED)}
    unlike = sorted(name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape)
    faults = sorted(own.keys() ^ (weights.keys() | derived.keys())) + unlike
    if faults:
        raise ValueError(
            f"path is {path}: {len(faults)} tensors do not fit EnCodec, {', '.join(faults[:3])} among them"
        )
    model.load_state_dict(derived | weights)
    return EncodecModelCodec(model)


def renamed(name: str) -> str:
    """The name of a tensor in transformers."""
    for pattern, replacement in RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def _sizes(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The configuration that the tensors' shapes tell."""
    stereo = "encoder.layers.0.norm.weight" in weights
    kernel = "conv.weight" if stereo else "conv.parametrizations.weight.original1"
    first = weights[f"encoder.layers.0.{kernel}"]
    ratios, number = [], 3  # one convolution; then a residual block, an activation, a strided one for each ratio
    while (strided := weights.get(f"encoder.layers.{number}.{kernel}")) is not None and strided.shape[-1] % 2 == 0:
        ratios.insert(0, strided.shape[-1] // 2)
        number += 3
    lstm = f"encoder.layers.{number - 2}.lstm.weight_ih_l"
    layers = sum(name.startswith(lstm) for name in weights)
    codebooks = sum(name.endswith(".codebook.embed") for name in weights)
    embed = weights["quantizer.layers.0.codebook.embed"]
    rate = 48_000 if stereo else 24_000
    kbps = codebooks * math.ceil(rate / math.prod(ratios)) * math.ceil(math.log2(embed.shape[0])) / 1000
    published = {"audio_channels": 2, "use_causal_conv": False, "norm_type": "time_group_norm", "normalize": True}
    return {
        "sampling_rate": rate, "num_filters": first.shape[0], "kernel_size": first.shape[-1],
        "upsampling_ratios": ratios, "num_lstm_layers": layers,
        "codebook_size": embed.shape[0], "hidden_size": embed.shape[1],
        "target_bandwidths": [kbps + 1e-6], **(published if stereo else {}),
    }  # fmt: skip
