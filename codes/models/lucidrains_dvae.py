"""`lucidrains_dvae`: mel spectrograms to a short sequence of codes and back; the tokenizer of Tortoise's GPT.

Names and shapes of the weights are those of DL-Art-School's network, so released files load. What is new is in
`codes/models/ema_codebook.py`: its codebook begins at the data and revives codes that died, so it does not collapse.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from codes.models.ema_codebook import EmaCodebook
from codes.models.network import Network


class LucidrainsDvae(Network):
    """Discrete auto-encoder of mel spectrograms: mel (B, channels, T) -> reconstruction loss, commitment loss, mel.

    The encoder is num_layers strided convolutions whose width doubles each time, num_resnet_blocks residual blocks and
    a 1x1 convolution to codebook_dim; the decoder mirrors it. T need be no multiple of stride^num_layers: what is
    decoded beyond it is cut off. An even kernel_size would leave the last frames out: zeros are appended for it.

    Args:
        positional_dims: 1: sequences (DL-Art-School's 2, pictures, is not offered)
        num_tokens: codes
        codebook_dim: width of a code's vector
        num_layers: strided convolutions; each shortens by `stride`
        num_resnet_blocks: residual blocks at the narrow end
        hidden_dim: width after the first convolution
        channels: mel bands
        stride: of each convolution
        kernel_size: of each strided convolution
        use_transposed_convs: decode by transposed convolutions; false: repeat each frame `stride` times, then convolve
        encoder_norm: group normalisation after each strided convolution
        activation: non-linearity
        smooth_l1_loss: reconstruction loss that is linear for large errors; false: squared
        straight_through: accepted for DLAS's sake; gradients always pass straight through the codes
        normalization: [means, deviations], one for each band or one for all, that mels are normalised by
        record_codes: accepted for DLAS's sake; usage and perplexity are always recorded
        use_lr_quantizer: false: codes are learned by moving averages (another quantiser of DLAS's is not offered)
        decay: of the codes' moving averages
        restart_below: codes used less than this share of the mean begin anew at a vector of the batch; 0: never
    """

    def __init__(
        self, *, positional_dims: Literal[1] = 1, num_tokens: int = 512, codebook_dim: int = 512, num_layers: int = 3,
        num_resnet_blocks: int = 0, hidden_dim: int = 64, channels: int = 80, stride: int = 2, kernel_size: int = 4,
        use_transposed_convs: bool = True, encoder_norm: bool = False, activation: Literal["relu", "silu"] = "relu",
        smooth_l1_loss: bool = False, straight_through: bool = False,
        normalization: tuple[list[float], list[float]] | None = None, record_codes: bool = False,
        use_lr_quantizer: Literal[False] = False, decay: float = 0.99, restart_below: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        sizes = {"num_tokens": num_tokens, "codebook_dim": codebook_dim, "num_layers": num_layers}
        for name, size in {**sizes, "hidden_dim": hidden_dim, "channels": channels, "stride": stride}.items():
            if size < 1:
                raise ValueError(f"{name} is {size}: it must be 1 or more")
        self.num_tokens, self.channels, self.smooth_l1_loss = num_tokens, channels, smooth_l1_loss
        self.padded_to = stride**num_layers if kernel_size % 2 == 0 else 1  # odd ones reach the last frame anyway
        means, deviations = _checked_normalization(normalization, channels) or ([0.0], [1.0])
        self.means: Tensor
        self.deviations: Tensor
        self.register_buffer("means", torch.tensor(means)[:, None], persistent=False)
        self.register_buffer("deviations", torch.tensor(deviations)[:, None], persistent=False)
        make = _Layers(stride, kernel_size, activation, use_transposed_convs)
        widths = [hidden_dim * 2**level for level in range(num_layers)]
        inner = widths[-1] if num_resnet_blocks else codebook_dim
        encoder: list[nn.Module] = []
        for width_in, width in zip([channels, *widths[:-1]], widths, strict=True):
            encoder.append(make.down(width_in, width))
            encoder += [nn.GroupNorm(8, width)] if encoder_norm else []
        encoder += [make.residual(widths[-1]) for _ in range(num_resnet_blocks)]
        outward = widths[::-1]
        decoder: list[nn.Module] = [nn.Conv1d(codebook_dim, inner, 1)] if num_resnet_blocks else []
        decoder += [make.residual(inner) for _ in range(num_resnet_blocks)]
        decoder += [make.up(*pair) for pair in zip([inner, *outward[:-1]], outward, strict=True)]
        self.encoder = nn.Sequential(*encoder, nn.Conv1d(widths[-1], codebook_dim, 1))
        self.decoder = nn.Sequential(*decoder, nn.Conv1d(widths[0], channels, 1))
        self.codebook = EmaCodebook(codebook_dim, num_tokens, decay, restart_below)

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode, quantise, decode.

        Args:
            mel: (B, channels, T) float.

        Returns:
            the reconstruction loss (B, channels, T), the commitment loss (a number), the decoded mel (B, channels, T).

        Raises:
            ValueError: the shape is another, or the values are integers.
        """
        mel = self._normalised(mel)
        vectors, _, commitment = self.codebook(self._encoded(mel))
        made = self._decoded(vectors)[..., : mel.shape[-1]]
        distance = functional.smooth_l1_loss if self.smooth_l1_loss else functional.mse_loss
        return distance(made.float(), mel.float(), reduction="none"), commitment, made

    @torch.no_grad()
    def get_codebook_indices(self, mel: Tensor) -> Tensor:
        """Codes of a mel spectrogram: (B, channels, T) -> (B, N) int64, N = T / stride^num_layers rounded up.

        They are those of float32 whatever the precision of the run that asks for them.
        """
        with torch.autocast(mel.device.type, enabled=False):
            return self.codebook.nearest(self._encoded(self._normalised(mel)))

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (B, N) -> mel (B, channels, N * stride^num_layers), in the units that forward() got.

        Raises:
            ValueError: no integers (B, N).
        """
        if codes.dim() != 2 or codes.is_floating_point():
            raise ValueError(f"lucidrains_dvae expected integer codes (B, N), got {codes.dtype} {tuple(codes.shape)}")
        return self._decoded(self.codebook.vectors(codes)) * self.deviations + self.means

    def figures(self) -> dict[str, Tensor]:
        """Perplexity of the codes, as a number and as a share of all of them, and the share that is in use."""
        return self.codebook.figures()

    def released_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """A file of DL-Art-School's lacks what usage is counted in."""
        return {"codebook.usage": torch.zeros_like(self.codebook.usage)} | weights

    def _normalised(self, mel: Tensor) -> Tensor:
        if mel.dim() != 3 or mel.shape[1] != self.channels or not mel.is_floating_point():
            raise ValueError(
                f"lucidrains_dvae expected a float mel spectrogram (B, {self.channels}, T), "
                f"got {mel.dtype} {tuple(mel.shape)}"
            )
        return (mel - self.means) / self.deviations

    def _encoded(self, mel: Tensor) -> Tensor:
        """(B, channels, T) -> (B, N, codebook_dim)."""
        return self.encoder(functional.pad(mel, (0, -mel.shape[-1] % self.padded_to))).transpose(1, 2)

    def _decoded(self, vectors: Tensor) -> Tensor:
        """(B, N, codebook_dim) -> (B, channels, T), one block after the other."""
        return self.decoder(vectors.transpose(1, 2))


def _checked_normalization(
    normalization: tuple[list[float], list[float]] | None, channels: int
) -> tuple[list[float], list[float]] | None:
    for part in normalization or ():
        if len(part) not in (1, channels):
            raise ValueError(f"normalization needs one number or {channels}, one for each band, got {len(part)}")
    if normalization is not None and min(normalization[1]) <= 0:
        raise ValueError("normalization: deviations must be above 0")
    return normalization


class _Layers:
    """Makes the blocks of one network; the nesting gives the weights their released names."""

    def __init__(self, stride: int, kernel_size: int, activation: str, transposed: bool) -> None:
        self.stride, self.kernel_size, self.padding = stride, kernel_size, (kernel_size - 1) // 2
        self.activation = {"relu": nn.ReLU, "silu": nn.SiLU}[activation]
        self.transposed = transposed

    def down(self, width_in: int, width: int) -> nn.Module:
        """(B, C, T) -> (B, C', T / stride)."""
        convolution = nn.Conv1d(width_in, width, self.kernel_size, self.stride, self.padding)
        return nn.Sequential(convolution, self.activation())

    def up(self, width_in: int, width: int) -> nn.Module:
        """(B, C, T) -> (B, C', T * stride)."""
        if self.transposed:
            convolution: nn.Module = nn.ConvTranspose1d(width_in, width, self.kernel_size, self.stride, self.padding)
        else:
            convolution = RepeatedConvolution(width_in, width, self.kernel_size, self.stride, self.padding)
        return nn.Sequential(convolution, self.activation())

    def residual(self, width: int) -> nn.Module:
        """(B, C, T) -> (B, C, T)."""
        return ResidualBlock(width, self.activation)


class ResidualBlock(nn.Module):
    """x plus three convolutions of it: (B, C, T) -> (B, C, T)."""

    def __init__(self, width: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv1d(width, width, 3, padding=1), activation(), nn.Conv1d(width, width, 3, padding=1), activation(),
            nn.Conv1d(width, width, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, T) -> (B, C, T)."""
        return x + self.net(x)


class RepeatedConvolution(nn.Module):
    """Each frame repeated, then a convolution: (B, C, T) -> (B, C', T * repeats)."""

    def __init__(self, width_in: int, width: int, kernel_size: int, repeats: int, padding: int) -> None:
        super().__init__()
        self.repeats = repeats
        self.conv = nn.Conv1d(width_in, width, kernel_size, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, T) -> (B, C', T * repeats)."""
        return self.conv(x.repeat_interleave(self.repeats, dim=-1))
