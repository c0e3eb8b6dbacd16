"""Semantic tokens: the cluster of each frame of features of speech (HuBERT's or others'; `speech_features`).

The clusters come from scripts/fit_kmeans.py, whose file says which features they are of.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from codes import kmeans
from codes.trainer.injector import Injector
from codes.trainer.injectors.codes import real_audio
from codes.weights import unreadable

CENTRES, FEATURES = "centres", "features"  # the tensor, and what it is of (one key: safetensors shuffles several)


class SemanticCodesInjector(Injector):
    """Audio to semantic tokens. wav: (B, 1, T) integer or float -> codes: (B, F) int64, 0 .. K - 1.

    With `remove_repeats` there are two keys under `out`: the codes of each item with runs of one code cut to a single
    one, followed by zeros up to F; and a mask (B, F), true where they are codes. Tokens then say what was said, and no
    longer for how long.

    Args:
        features: name of the network under `networks` that gives the features (speech_features).
        clusters: a file of scripts/fit_kmeans.py, fitted to these features.
        remove_repeats: cut runs of one code to a single one.
        resample: audio of another rate than the features' is resampled; false: refused.
        audio_rate_hz: sample rate of the audio; null: the dataset's.
        input_bits: depth of integer samples; null: the dataset's, or that of their dtype.
    """

    def __init__(
        self, *, features: nn.Module, clusters: Path, remove_repeats: bool = False, resample: bool = False,
        audio_rate_hz: int | None = None, input_bits: int | None = None,
    ) -> None:  # fmt: skip
        if not hasattr(features, "described"):
            raise ValueError(f"features must name a network of speech_features, {type(features).__name__} is none")
        self.network: Any = features
        self.centres, described = read_clusters(clusters)
        if described != self.network.described:
            own = _shown(self.network.described)
            raise ValueError(f"clusters: {clusters} was fitted to {_shown(described)}, the features are {own}")
        self.remove_repeats, self.resample = remove_repeats, resample
        self.audio_rate_hz, self.input_bits = audio_rate_hz, input_bits
        if audio_rate_hz is not None:
            self._check_rate(audio_rate_hz)

    def meet(self, dataset: Any) -> None:
        """Hold the dataset's audio to what the features take.

        Raises:
            ValueError: another sample rate, or more than one channel.
        """
        recordings = getattr(dataset, "recordings", None)
        if self.audio_rate_hz is None and recordings:
            self._check_rate(recordings[0].sample_rate_hz)
            self.audio_rate_hz = recordings[0].sample_rate_hz
        channels = getattr(dataset, "num_channels", None)
        if channels not in (None, 1):
            raise ValueError(f"features: the audio has {channels} channels, they take 1: set channels: mono")

    def _check_rate(self, rate_hz: int) -> None:
        wanted = self.network.sample_rate_hz
        if rate_hz != wanted and not self.resample:
            raise ValueError(
                f"audio_rate_hz: the audio has {rate_hz} Hz, the features take {wanted} Hz: set sample_rate: {wanted} "
                "in the dataset, or resample: true here"
            )

    def forward(self, wav: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """wav: (B, 1, T) integer or float -> codes (B, F) int64; with remove_repeats also the mask (B, F) bool.

        Raises:
            ValueError: another shape, or a sample rate that is not known or not the features'.
        """
        if wav.dim() != 3 or wav.shape[1] != 1:
            raise ValueError(f"expected wav (B, 1, T), got {tuple(wav.shape)}")
        if self.audio_rate_hz is None:
            raise ValueError("audio_rate_hz is needed: the dataset does not say its sample rate")
        found = self.network(real_audio(wav, self.input_bits, self.audio_rate_hz, self.network.sample_rate_hz))
        self.centres = self.centres.to(found.device)
        codes = kmeans.nearest(found.flatten(0, 1), self.centres).view(found.shape[:2])
        return without_repeats(codes) if self.remove_repeats else codes

    def frames_of(self, num_samples: int) -> int:
        """Frames that so many samples of the audio make, about."""
        rate = self.audio_rate_hz or self.network.sample_rate_hz
        return -(-num_samples * self.network.sample_rate_hz // (rate * self.network.hop_samples))


class JoinTokensInjector(Injector):
    """Tokens of several kinds as one sequence, each kind with numbers of its own. values: (B, N) each -> (B, sum of N).

    A language model over it says the later kinds given all of the earlier ones: AudioLM's codes given semantic tokens.

    Args:
        vocabularies: how many different tokens each kind has, in the order of the keys under `in`.
    """

    def __init__(self, *, vocabularies: list[int]) -> None:
        if not vocabularies or min(vocabularies) < 1:
            raise ValueError(f"vocabularies must be 1 or more each, got {vocabularies}")
        self.vocabularies = vocabularies

    def forward(self, *values: Tensor) -> Tensor:
        """values: (B, N) integers each, 0 .. V - 1 -> (B, sum of N) int64; V of the earlier kinds is added.

        Raises:
            ValueError: there are not as many values as vocabularies, or they are not (B, N) integers.
        """
        if len(values) != len(self.vocabularies):
            raise ValueError(f"join_tokens has {len(self.vocabularies)} vocabularies, but `in` has {len(values)} keys")
        for value in values:
            if value.dim() != 2 or value.is_floating_point():
                raise ValueError(f"expected integer tokens (B, N), got {value.dtype} {tuple(value.shape)}")
        firsts = [sum(self.vocabularies[:kind]) for kind in range(len(values))]
        return torch.cat([value.long() + first for value, first in zip(values, firsts, strict=True)], 1)


def without_repeats(codes: Tensor) -> tuple[Tensor, Tensor]:
    """codes: (B, F) -> the same with one in place of each run, zeros behind them; and where they are codes, bool."""
    starts = torch.ones_like(codes, dtype=torch.bool)
    starts[:, 1:] = codes[:, 1:] != codes[:, :-1]
    places = starts.cumsum(1) - 1  # of the run that each code belongs to
    shorter = torch.zeros_like(codes).scatter_(1, places, codes)  # all codes of a run are alike
    return shorter, torch.arange(codes.shape[1], device=codes.device) <= places[:, -1:]


def write_clusters(path: Path, centres: Tensor, described: dict[str, str]) -> None:
    """Write centres (K, D) and what features they are of as a safetensors file."""
    from safetensors.torch import save_file

    save_file({CENTRES: centres.contiguous()}, path, metadata={FEATURES: json.dumps(described, sort_keys=True)})


def read_clusters(path: Path) -> tuple[Tensor, dict[str, str]]:
    """The centres (K, D) of a file of scripts/fit_kmeans.py, and what features they are of.

    Raises:
        ValueError: there is no such file, or it holds something else; messages begin with `clusters`.
    """
    from safetensors import SafetensorError, safe_open

    how = "python scripts/fit_kmeans.py DIR --features mfcc --clusters 100 --out FILE makes one"
    if not path.is_file():
        raise ValueError(f"clusters: {path} does not exist: {how}")
    try:
        with safe_open(str(path), "pt") as file:
            return file.get_tensor(CENTRES), json.loads((file.metadata() or {})[FEATURES])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ValueError(f"clusters: {path} holds no clusters ({error}): {how}") from error


def _shown(described: dict[str, str]) -> str:
    return ", ".join(f"{name} {value[:12]}" for name, value in described.items())


class KmeansQuantizerInjector(Injector):
    """The nearest of some centroids for each frame. values: (B, C, F) float -> codes: (B, F) int64, 0 .. K - 1.

    Args:
        centroids: a file of them, (K, C): of scripts/fit_kmeans.py, a torch file with one tensor, or DL-Art-School's,
            a pair whose second is that tensor.
    """

    def __init__(self, *, centroids: Path) -> None:
        self.centroids = read_centroids(centroids)

    def forward(self, values: Tensor) -> Tensor:
        """values: (B, C, F) -> (B, F).

        Raises:
            ValueError: the frames have another number of values than the centroids.
        """
        if values.dim() != 3 or values.shape[1] != self.centroids.shape[1]:
            raise ValueError(
                f"expected (B, {self.centroids.shape[1]}, F), as centroids has it, got {tuple(values.shape)}"
            )
        self.centroids = self.centroids.to(values.device)
        frames = values.detach().float().transpose(1, 2)
        return kmeans.nearest(frames.flatten(0, 1), self.centroids).view(frames.shape[:2])

    def inverse(self, codes: Tensor) -> Tensor:
        """codes: (B, F) -> the centroids themselves: (B, C, F)."""
        return self.centroids.to(codes.device)[codes].transpose(1, 2)


def read_centroids(path: Path) -> Tensor:
    """Centroids (K, C) float32 from a file, as `kmeans_quantizer` takes them.

    Raises:
        ValueError: the file cannot be read, or holds something else.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found: Any = load_file(path).get(CENTRES)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch's unpickler stumbles over
        raise ValueError(f"centroids {path} cannot be read: {unreadable(error)[:200]}") from error
    if isinstance(found, (tuple, list)) and len(found) == 2:
        found = found[1]
    if not isinstance(found, Tensor) or found.ndim != 2 or not found.is_floating_point():
        raise ValueError(f"centroids {path} must hold one tensor (K, C) of floats")
    if not bool(found.isfinite().all()):
        raise ValueError(f"centroids {path} holds what is not finite")
    return found.float()
