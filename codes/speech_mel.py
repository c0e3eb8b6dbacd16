"""The mel spectrogram of Tacotron's descendants: what DL-Art-School's DVAE and Tortoise's GPT are trained on.

Powers on HTK's mel scale under triangles of equal area (slaney's norm), clamped and logged; usually each band is
divided by its mean over a corpus, which ``python scripts/mel_norms.py`` measures. `griffin_lim` makes sound of it.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

LEAST_POWER = 1e-5  # of a band, before the logarithm


@dataclass(frozen=True, kw_only=True)
class MelSettings:
    """How sound becomes a mel spectrogram; the defaults are DL-Art-School's.

    Args:
        sample_rate_hz: of the sound.
        window: samples of a frame.
        hop: samples between two frames.
        bands: mel bands.
        lowest_hz, highest_hz: where the bands begin and end.
        magnitude: bands hold magnitudes, as HiFi-GAN's do, instead of powers.
    """

    sample_rate_hz: int = 22050
    window: int = 1024
    hop: int = 256
    bands: int = 80
    lowest_hz: float = 0.0
    highest_hz: float = 8000.0
    magnitude: bool = False

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
        mel = (_filters(settings, wav.device) @ power).clamp(min=LEAST_POWER).log()
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
    return melscale_fbanks(bins, *bounds, settings.bands, settings.sample_rate_hz, norm="slaney").t()


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
        raise ValueError(f"mel_norm_file {path} cannot be read: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(found, Tensor) or not found.is_floating_point():
        raise ValueError(f"mel_norm_file {path} must hold one tensor of floats, got {type(found).__name__}")
    if tuple(found.shape) != (bands,):
        raise ValueError(f"mel_norm_file {path} holds {tuple(found.shape)} numbers, the spectrogram has {bands} bands")
    if not bool((found.isfinite() & (found != 0)).all()):
        raise ValueError(f"mel_norm_file {path} holds a zero or what is not finite: a band cannot be divided by that")
    return found.float()


def griffin_lim(mel: Tensor, settings: MelSettings, iterations: int = 60, seed: int = 0) -> Tensor:
    """Sound whose spectrogram is near (Griffin and Lim 1984, with the momentum of Perraudin et al. 2013).

    Bands are spread over their frequencies by the pseudo-inverse of the triangles.

    Args:
        mel: (bands, F) logarithms, not divided by norms.
        settings: as it was made.
        iterations: more sound better, up to a point.
        seed: of the phases that it begins with.

    Returns:
        (T,) float32, T = (F - 1) * hop.
    """
    from torchaudio.functional import griffinlim

    power = (torch.linalg.pinv(_filters(settings, mel.device).double()) @ mel.double().exp()).clamp(min=0).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return griffinlim(
            power, _hann(settings.window, mel.device), settings.window, settings.hop, settings.window,
            power=1.0 if settings.magnitude else 2.0, n_iter=iterations, momentum=0.99, length=None, rand_init=True,
        )  # fmt: skip
