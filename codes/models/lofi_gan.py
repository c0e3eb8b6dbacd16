"""The lo-fi GAN: `lofi_generator` makes the next stretch of audio from the previous one and noise, and
`lofi_discriminator` judges pairs of both.

They are trained by two steps that follow each other (experiments/lofi_gan.yml). The generator reads prev by strided
convolutions, mixes the vectors over time (a linear map, so that each moment of next may use all of prev) and adds what
it makes of the noise, then goes back up to samples. On its way up it meets, at every width, what it made of prev on its
way down, last moment first (pix2pix, Isola et al., 2017): so a tone of prev need not pass the narrowest place, and goes
on at the border. All of it happens at the level of prev, so that loud and quiet passages look alike.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from codes.models.network import Network
from codes.models.strided_autoencoder import Down, Residual, Up

NOISE_START = 0.5  # so that from the start another noise is another sound; from less it would have to grow
QUIETEST = 1e-3  # root mean square below which prev is not made louder: 60 dB below full scale


class LofiGenerator(Network):
    """Next from prev and noise: prev (B, prev_frames) float, noise (B, noise_dim) -> next (B, next_frames) in [-1, 1].

    Args:
        prev_frames: length of prev, a multiple of the product of the strides.
        next_frames: length of next, likewise.
        strides: of the convolutions.
        channels: width of the first convolution; each further one is twice as wide, up to most_channels.
        most_channels: width that no convolution exceeds.
        noise_dim: random numbers of an item.
        blocks: residual blocks at the narrowest place.
    """

    def __init__(
        self, *, prev_frames: int, next_frames: int, strides: list[int], channels: int = 32, most_channels: int = 256,
        noise_dim: int = 64, blocks: int = 3,
    ) -> None:  # fmt: skip
        super().__init__()
        total = _stride("prev_frames", prev_frames, strides)
        _stride("next_frames", next_frames, strides)
        if noise_dim < 1 or channels < 1 or most_channels < 1 or blocks < 0:
            raise ValueError("noise_dim, channels and most_channels must be 1 or more, blocks 0 or more")
        self.prev_frames, self.next_frames, self.noise_dim = prev_frames, next_frames, noise_dim
        widths = [min(channels * 2**level, most_channels) for level in range(len(strides))]
        pairs = list(zip([1, *widths[:-1]], widths, strides, strict=True))
        width, self.steps = widths[-1], next_frames // total
        self.down = nn.ModuleList([Down(*sizes) for sizes in pairs])
        self.mix = nn.Linear(prev_frames // total, self.steps)
        self.noise = nn.Linear(noise_dim, width * self.steps)
        self.blocks = nn.Sequential(*(Residual(width) for _ in range(blocks)))
        self.up = nn.ModuleList([Up(width, width_in, stride) for width_in, width, stride in reversed(pairs)])
        self.past = nn.ModuleList([nn.Conv1d(width_in, width_in, 1) for width_in, _, _ in reversed(pairs)])
        nn.init.normal_(self.noise.weight, std=NOISE_START)
        for past in self.past:
            nn.init.dirac_(past.weight)  # type: ignore[arg-type]
            nn.init.zeros_(past.bias)  # type: ignore[arg-type]

    def forward(self, prev: Tensor, noise: Tensor) -> Tensor:
        """prev: (B, prev_frames) or (B, 1, prev_frames), noise: (B, noise_dim) -> (B, next_frames).

        Raises:
            ValueError: the shapes are others.
        """
        x = prev.reshape(len(prev), 1, prev.shape[-1])
        if x.shape[-1] != self.prev_frames or noise.shape != (len(x), self.noise_dim):
            raise ValueError(
                f"expected prev (B, {self.prev_frames}) and noise (B, {self.noise_dim}), "
                f"got {tuple(prev.shape)} and {tuple(noise.shape)}"
            )
        level = x.square().mean(-1, keepdim=True).sqrt().clamp(min=QUIETEST)
        x, seen = x / level, []
        for down in self.down:
            seen.append(x)
            x = down(x)
        x = self.blocks(self.mix(x) + self.noise(noise).unflatten(1, (-1, self.steps)))
        for up, past in zip(self.up, self.past, strict=True):
            x = up(x)
            x = x + past(_backwards(seen.pop(), x.shape[-1]))
        return torch.tanh(x * level)[:, 0]

    @torch.no_grad()
    def extend(self, prev: Tensor, frames: int, noises: Tensor) -> Tensor:
        """Go on after prev, next by next, each from the last prev_frames of all before it.

        Args:
            prev: (B, P) float; silence stands before it where it is short.
            frames: how many.
            noises: (B, pieces, noise_dim), one for each next.

        Returns:
            (B, frames).
        """
        whole = functional.pad(prev, (max(self.prev_frames - prev.shape[1], 0), 0))
        start = whole.shape[1]
        for piece in range(self.pieces(frames)):
            made = self(whole[:, -self.prev_frames :], noises[:, piece])
            whole = torch.cat([whole, made], 1)
        return whole[:, start : start + frames]

    def carry_on(
        self, prev: Tensor, steps: int, *, temperature: float, seed: int, style_at: list[int], fade: int
    ) -> Tensor:
        """Go on after prev (B, P) or (B, 1, P) with one noise for all pieces, or another from ``style_at`` on.

        Args:
            steps: frames.
            temperature: factor of the noise.
            seed: of the noise.
            style_at: frames at which another noise sets in: edges of a next.
            fade: not used.

        Raises:
            ValueError: a style sets in within a next.
        """
        if any(at % self.next_frames for at in style_at):
            raise ValueError(f"--style-at: this generator makes {self.next_frames} frames at once, got {style_at}")
        flat = prev.reshape(len(prev), -1)
        generator = torch.Generator(prev.device).manual_seed(seed)
        drawn = [torch.randn(len(flat), self.noise_dim, generator=generator, device=prev.device) * temperature
                 for _ in range(len(style_at) + 1)]  # fmt: skip
        starts = [piece * self.next_frames for piece in range(self.pieces(steps))]
        noises = torch.stack([drawn[sum(at <= start for at in style_at)] for start in starts], 1)
        return self.extend(flat, steps, noises)

    def pieces(self, frames: int) -> int:
        """How many nexts make up so many frames."""
        return -(-frames // self.next_frames)


class LofiDiscriminator(Network):
    """Verdicts on pairs: prev (B, P), next (B, N) float -> (B, M), high where next seems real after prev.

    Both stand in one signal with a second channel that tells them apart, so that the border is judged as well.

    Args:
        strides: of the convolutions.
        channels: width of the first convolution; each further one is twice as wide, up to most_channels.
        most_channels: width that no convolution exceeds.
        spectral: hold the largest singular value of every layer at 1 (Miyato et al., 2018); with it R1 is not needed.
    """

    def __init__(
        self, *, strides: list[int], channels: int = 32, most_channels: int = 256, spectral: bool = False
    ) -> None:
        super().__init__()
        if not strides or min(strides) < 2:
            raise ValueError(f"strides must be whole numbers of 2 or more, got {strides}")
        if channels < 1 or most_channels < 1:
            raise ValueError(f"channels and most_channels must be 1 or more, got {channels} and {most_channels}")
        widths = [min(channels * 2**level, most_channels) for level in range(len(strides))]
        layers = [Down(*sizes) for sizes in zip([2, *widths[:-1]], widths, strides, strict=True)]
        self.layers = nn.Sequential(*layers)
        self.verdict = nn.Conv1d(widths[-1], 1, 3, padding=1)
        if spectral:
            for layer in layers:
                spectral_norm(layer.convolution)
            spectral_norm(self.verdict)

    def forward(self, prev: Tensor, next_: Tensor) -> Tensor:
        """prev: (B, P) or (B, 1, P), next: (B, N) or (B, 1, N), float -> (B, M).

        Raises:
            ValueError: they are no float audio of one channel.
        """
        parts = [value.reshape(len(value), -1) for value in (prev, next_)]
        if len(prev) != len(next_) or not all(part.is_floating_point() for part in parts):
            raise ValueError(f"expected float prev (B, P) and next (B, N), got {prev.dtype} {tuple(prev.shape)} and "
                             f"{next_.dtype} {tuple(next_.shape)}")  # fmt: skip
        place = torch.cat([torch.zeros_like(parts[0]), torch.ones_like(parts[1])], 1)
        return self.verdict(self.layers(torch.stack([torch.cat(parts, 1), place], 1)))[:, 0]


def _backwards(past: Tensor, steps: int) -> Tensor:
    """past (B, C, P) from its last moment to its first, again and again: (B, C, steps)."""
    return past.flip(-1).repeat(1, 1, -(-steps // past.shape[-1]))[..., :steps]


def _stride(name: str, frames: int, strides: list[int]) -> int:
    """The product of the strides.

    Raises:
        ValueError: they are none, or do not divide the frames.
    """
    if not strides or min(strides) < 2:
        raise ValueError(f"strides must be whole numbers of 2 or more, got {strides}")
    total = math.prod(strides)
    if frames < total or frames % total:
        raise ValueError(f"{name} is {frames}: it must be a multiple of {total}, the product of the strides")
    return total
