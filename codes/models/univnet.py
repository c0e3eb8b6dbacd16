"""UnivNet's generator (Jang et al. 2021), the vocoder of Tortoise: mel spectrograms and noise to sound.

The network is that of the package transformers; the names of published weights (`vocoder.pth`, whose tensors lie under
model_g) are translated, and the two parts of weight norm multiplied.
"""

import re

import torch
from torch import Tensor

from codes.models.network import Network
from codes.models.transformers_weights import require_transformers

NOISE_CHANNELS = 64
NAMES = (  # published, and transformers'
    (r"^res_stack\.", "resblocks."),
    (r"\.input_conv\.0\.", ".input_conv."),
    (r"\.residual_convs\.(\d+)\.1\.", r".resblocks.\1.conv1."),
    (r"\.residual_convs\.(\d+)\.3\.", r".resblocks.\1.conv2."),
    (r"\.convt_pre\.1\.", ".convt_pre."),
    (r"\.conv_blocks\.(\d+)\.1\.", r".resblocks.\1.conv."),
    (r"^conv_post\.1\.", "conv_post."),
)


class Univnet(Network):
    """Log-mel spectrogram of magnitudes (B, bands, F) -> sound (B, 1, F * product of strides) in [-1, 1].

    Args:
        bands: of the mel spectrogram
        channels: width
        strides: of the transposed convolutions
        dilations: of the convolutions after each of them
        slope: of leaky ReLU below zero
    """

    def __init__(
        self, *, bands: int = 100, channels: int = 32, strides: list[int] | None = None,
        dilations: list[int] | None = None, slope: float = 0.2,
    ) -> None:  # fmt: skip
        super().__init__()
        strides, dilations = strides or [8, 8, 4], dilations or [1, 3, 9, 27]
        if min(bands, channels, *strides, *dilations) < 1:
            found = f"{bands}, {channels}, {strides}, {dilations}"
            raise ValueError(f"bands, channels, strides and dilations must be 1 or more, got {found}")
        transformers = require_transformers("univnet")
        self.model = transformers.UnivNetModel(
            transformers.UnivNetConfig(
                num_mel_bins=bands, model_hidden_channels=channels, model_in_channels=NOISE_CHANNELS,
                resblock_kernel_sizes=[3] * len(strides), resblock_stride_sizes=strides,
                resblock_dilation_sizes=[dilations] * len(strides), leaky_relu_slope=slope,
            )
        )  # fmt: skip

    def forward(self, mel: Tensor, noise: Tensor | None = None) -> Tensor:
        """mel: (B, bands, F); noise: (B, 64, F), drawn where it is not given -> (B, 1, T)."""
        if noise is None:
            noise = torch.randn(len(mel), NOISE_CHANNELS, mel.shape[2], device=mel.device)
        return self.model(mel.transpose(1, 2), noise.transpose(1, 2)).waveforms[:, None]

    def released_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Published files hold other names, and weights as a length and a direction."""
        return {name if name.startswith("model.") else f"model.{name}": v for name, v in plain_weights(weights).items()}


def plain_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Published weights under transformers' names, weight norm's parts multiplied; transformers' own as they are."""
    plain = {}
    for name, value in weights.items():
        if name.endswith(".weight_v") and f"{name[:-1]}g" in weights:
            length = weights[f"{name[:-1]}g"]
            name, value = name.removesuffix("_v"), value * (length / value.norm(dim=(1, 2), keepdim=True))
        elif name.endswith(".weight_g") and f"{name[:-1]}v" in weights:
            continue
        for published, own in NAMES:
            name = re.sub(published, own, name)
        plain[name] = value
    return plain


def univnet_options(weights: dict[str, Tensor]) -> dict[str, int | list[int]]:
    """The sizes that weights have; dilations are powers of 3, as in all published networks.

    Raises:
        ValueError: these are no weights of a UnivNet.
    """
    plain = {name.removeprefix("model."): value for name, value in plain_weights(weights).items()}
    try:
        stages = 1 + max(int(name.split(".")[1]) for name in plain if name.startswith("resblocks."))
        bands = plain["resblocks.0.kernel_predictor.input_conv.weight"].shape[1]
        strides = [plain[f"resblocks.{stage}.convt_pre.weight"].shape[2] // 2 for stage in range(stages)]
        layers = sum(bool(re.fullmatch(r"resblocks\.0\.resblocks\.\d+\.conv\.weight", name)) for name in plain)
        channels = plain["conv_pre.weight"].shape[0]
    except (KeyError, ValueError, IndexError) as error:
        raise ValueError(f"these are no weights of a UnivNet: {type(error).__name__}: {error}") from error
    return {"bands": bands, "channels": channels, "strides": strides, "dilations": [3**n for n in range(layers)]}
