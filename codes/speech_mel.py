"""The mel spectrogram of Tacotron's descendants: what DL-Art-School's DVAE and Tortoise's GPT are trained on.

Powers on HTK's mel scale under triangles of equal area (slaney's norm), clamped and logged; usually each band is
divided by its mean over a corpus, which ``python scripts/mel_norms.py`` measures. `griffin_lim` makes sound of it;
`convert_mel` makes of it what a vocoder was trained on, whose settings are others.
"""

import functools
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from codes.weights import unreadable

LEAST_POWER = 1e-5  # of a band, before the logarithm
MEAN_MAGNITUDE = math.sqrt(math.pi) / 2  # of Gaussian noise's bins, beside the root of their mean power (Rayleigh)


@dataclass(frozen=True, kw_only=True)
class MelSettings:
    """How sound becomes a mel spectrogram; the defaults are DL-Art-School's.

    Args:
        sample_rate_hz: of the sound.
        window: samples of a frame.
        hop: samples between two frames.
        bands: mel bands.
        lowest_hz, highest_hz: where the bands begin and end.
        magnitude: bands hold magnitudes, as vocoders' do, instead of powers.
        slaney_scale: bands lie on slaney's mel scale, as librosa's do, instead of HTK's.
        equal_area: triangles of equal area; false: of equal height.
        least: of a band, before the logarithm.
    """

    sample_rate_hz: int = 22050
    window: int = 1024
    hop: int = 256
    bands: int = 80
    lowest_hz: float = 0.0
    highest_hz: float = 8000.0
    magnitude: bool = False
    slaney_scale: bool = False
    equal_area: bool = True
    least: float = LEAST_POWER

    def __post_init__(self) -> None:
        if min(self.sample_rate_hz, self.window, self.hop, self.bands) < 1:
            raise ValueError("sample rate, window, hop and bands of a mel spectrogram must be 1 or more")
        if not 0 <= self.lowest_hz < self.highest_hz <= self.sample_rate_hz / 2:
            raise ValueError(
                f"mel bands from {self.lowest_hz:g} to {self.highest_hz:g} Hz do not lie within 0 to "
                f"{self.sample_rate_hz / 2:g} Hz, half the sample rate"
            )


def mel_spectrogram(wav: Tensor, settings: MelSettings) -> Tensor:
    """Logarithms of the bands.

    Args:
        wav: (..., T) float in [-1, 1], T above half a window: the ends are mirrored.
        settings: of the spectrogram.

    Returns:
        (..., bands, F) float32, F = T // hop + 1; frame n is centred on sample n * hop.

    Raises:
        ValueError: the sound is too short, or integers.
    """
    if not wav.is_floating_point() or wav.shape[-1] <= settings.window // 2:
        raise ValueError(
            f"a mel spectrogram needs float sound of more than {settings.window // 2} samples, "
            f"got {wav.dtype} {tuple(wav.shape)}"
        )
    with torch.autocast(wav.device.type, enabled=False):
        flat = wav.float().reshape(-1, wav.shape[-1])
        found = torch.stft(
            flat, settings.window, settings.hop, window=_hann(settings.window, wav.device), return_complex=True
        )
        power = found.abs() if settings.magnitude else torch.view_as_real(found).square().sum(-1)
        mel = (_filters(settings, wav.device) @ power).clamp(min=settings.least).log()
    return mel.view(*wav.shape[:-1], *mel.shape[1:])


@functools.cache
def _hann(window: int, device: torch.device) -> Tensor:
    return torch.hann_window(window, device=device)


@functools.cache
def mel_filters(settings: MelSettings) -> Tensor:
    """The triangles, (bands, window / 2 + 1) float32 on the CPU; made once, as making them looks at values."""
    from torchaudio.functional import melscale_fbanks

    bins = settings.window // 2 + 1
    bounds = settings.lowest_hz, settings.highest_hz
    norm, scale = "slaney" if settings.equal_area else None, "slaney" if settings.slaney_scale else "htk"
    return melscale_fbanks(bins, *bounds, settings.bands, settings.sample_rate_hz, norm, scale).t()


@functools.cache
def _filters(settings: MelSettings, device: torch.device) -> Tensor:
    return mel_filters(settings).to(device, non_blocking=True)


def read_mel_norms(path: Path, bands: int) -> Tensor:
    """What each band is divided by: (bands,) float32, from a file that holds this one tensor.

    Args:
        path: a torch file, or safetensors with the key ``mel_norms``.
        bands: how many there must be.

    Raises:
        ValueError: the file is not there, holds something else, or is of another number of bands.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found = load_file(path).get("mel_norms")
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(
            f"mel_norm_file {path} does not exist: python scripts/mel_norms.py AUDIO --out {path.name} makes one"
        ) from None
    except Exception as error:  # whatever torch's unpickler stumbles over
        raise ValueError(f"mel_norm_file {path} cannot be read: {unreadable(error)[:200]}") from error
    if not isinstance(found, Tensor) or not found.is_floating_point():
        raise ValueError(f"mel_norm_file {path} must hold one tensor of floats, got {type(found).__name__}")
    if tuple(found.shape) != (bands,):
        raise ValueError(f"mel_norm_file {path} holds {tuple(found.shape)} numbers, the spectrogram has {bands} bands")
    if not bool((found.isfinite() & (found != 0)).all()):
        raise ValueError(f"mel_norm_file {path} holds a zero or what is not finite: a band cannot be divided by that")
    return found.float()


def spread_bands(mel: Tensor, settings: MelSettings) -> Tensor:
    """Bands spread over their frequencies, by the pseudo-inverse of the triangles.

    Args:
        mel: (bands, F) logarithms, not divided by norms.
        settings: as it was made.

    Returns:
        powers, or magnitudes where the bands are: (window / 2 + 1, F) float32, 0 or more.
    """
    inverse = torch.linalg.pinv(_filters(settings, mel.device).double())
    return (inverse @ mel.double().exp()).clamp(min=0).float()


def convert_mel(mel: Tensor, source: MelSettings, target: MelSettings) -> Tensor:
    """A mel spectrogram as another program would make it of the same sound, nearly.

    Bands are spread over their frequencies, bins and frames between those of the source are interpolated, and all is
    gathered in the bands of the target. What the source does not reach is silent. Magnitudes grow with the window, as
    those of voiced speech do; means of powers and of magnitudes go over into each other as those of noise do. Frames
    that are not centred are not imitated: the sound may come half a hop later.

    Args:
        mel: (bands, F) logarithms, not divided by norms.
        source: as it was made.
        target: as it is wanted.

    Returns:
        (target bands, F of the target) float32; `mel` itself where both settings are equal.
    """
    if source == target:
        return mel
    spectrum = spread_bands(mel, source)
    spectrum = spectrum if source.magnitude else spectrum.sqrt() * MEAN_MAGNITUDE
    spectrum = spectrum * (target.window / source.window)
    bin_ratio = target.sample_rate_hz / target.window * source.window / source.sample_rate_hz
    frame_ratio = target.hop / target.sample_rate_hz * source.sample_rate_hz / source.hop
    bins = torch.arange(target.window // 2 + 1, device=mel.device) * bin_ratio
    frames = torch.arange(int((mel.shape[1] - 1) / frame_ratio + 1e-6) + 1, device=mel.device) * frame_ratio
    found = _between(_between(spectrum, bins).t(), frames).t() * (bins <= source.window // 2)[:, None]
    bands = _filters(target, mel.device) @ (found if target.magnitude else (found / MEAN_MAGNITUDE).square())
    return bands.clamp(min=target.least).log()


def _between(values: Tensor, places: Tensor) -> Tensor:
    """Rows of values (N, C) at places (M,) that need not be whole, interpolated linearly: (M, C)."""
    below = places.long().clamp(max=len(values) - 1)
    above = (below + 1).clamp(max=len(values) - 1)
    share = (places - below).clamp(max=1)[:, None]
    return values[below] * (1 - share) + values[above] * share


def griffin_lim(mel: Tensor, settings: MelSettings, iterations: int = 60, seed: int = 0) -> Tensor:
    """Sound whose spectrogram is near (Griffin and Lim 1984, with the momentum of Perraudin et al. 2013).

    Args:
        mel: (bands, F) logarithms, not divided by norms.
        settings: as it was made.
        iterations: more sound better, up to a point.
        seed: of the phases that it begins with.

    Returns:
        (T,) float32, T = (F - 1) * hop.
    """
    from torchaudio.functional import griffinlim

    spectrum = spread_bands(mel, settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return griffinlim(
            spectrum, _hann(settings.window, mel.device), settings.window, settings.hop, settings.window,
            power=1.0 if settings.magnitude else 2.0, n_iter=iterations, momentum=0.99, length=None, rand_init=True,
        )  # fmt: skip
