"""`pretrained_codec`: a codec with weights that exist already, as a network that is not trained.

EnCodec, DAC and Mimi of the package transformers, EnCodec's own checkpoint files, and codecs that a run of ours has
trained stand behind one interface. There is no way to get one without weights: random codes look like codes, and what
is trained on them is worth nothing.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from codes.models.audio_codec import AudioCodec
from codes.models.codec_files import DESCRIPTION, load_exported_codec, load_run_codec
from codes.models.encodec_checkpoint import load_encodec_checkpoint
from codes.models.transformers_codecs import FAMILIES, load_transformers_codec
from codes.models.transformers_weights import require_transformers
from codes.weights import weights_sha256

HOW_TO_GET = (
    "get weights where there is a network (hf download facebook/encodec_24khz --local-dir DIR; also "
    "facebook/encodec_48khz, descript/dac_24khz, kyutai/mimi) and give path: DIR, or train a codec of your own "
    "(python train.py -opt experiments/codec.yml) and give path: runs/codec"
)
WEIGHTS_HASH = "weights_sha256"


class PretrainedCodec(AudioCodec):
    """A codec whose weights come from elsewhere; set `trainable: false` beside `kwargs`.

    A checkpoint of a run that uses it holds the hash of these weights in their place, so a run continues with the same
    codec only.

    Args:
        path: a run that trained a codec, a folder that one was exported to, a folder or hub name of EnCodec, DAC or
            Mimi as transformers saves them, or a checkpoint file of encodec (.th).
        num_codebooks: codebooks that are used, the first ones; null: all, or what bandwidth_kbps says.
        bandwidth_kbps: the same in kilobits per second: EnCodec's 3.0 are 4 codebooks at 24 kHz and 2 at 48 kHz.
    """

    wraps = True  # it trains nothing itself

    def __init__(self, *, path: Path, num_codebooks: int | None = None, bandwidth_kbps: float | None = None) -> None:
        super().__init__()
        self.codec = load_codec(path).requires_grad_(False)
        self.sample_rate_hz, self.num_channels = self.codec.sample_rate_hz, self.codec.num_channels
        self.codebook_size, self.hop_samples = self.codec.codebook_size, self.codec.hop_samples
        if num_codebooks is not None and bandwidth_kbps is not None:
            raise ValueError("bandwidth_kbps and num_codebooks say the same: give one of them")
        if bandwidth_kbps is not None:
            num_codebooks = codebooks_at(self.codec, bandwidth_kbps)
        self.num_codebooks = self.codec.checked_codebooks(num_codebooks)
        self.weights_hash = weights_hash(self.codec)
        self.eval()

    def train(self, mode: bool = True) -> "PretrainedCodec":
        """Always in evaluation mode: its codes must not depend on what is trained around it."""
        return super().train(False)

    @torch.no_grad()
    def encode(self, wav: Tensor, *, num_codebooks: int | None = None) -> Tensor:
        """wav (B, C, T) float -> codes (B, K, F) int64, in float32 as a cache has them; see `AudioCodec.encode`."""
        with torch.autocast(wav.device.type, enabled=False):
            return self.codec.encode(wav, num_codebooks=self.checked_codebooks(num_codebooks))

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """codes (B, K, F) -> wav (B, C, F * hop_samples) float32; see `AudioCodec.decode`."""
        with torch.autocast(codes.device.type, enabled=False):
            return self.codec.decode(codes)

    def state_dict(self, *_: Any, **__: Any) -> dict[str, Tensor]:
        """The hash of the weights, (32,) uint8: the weights themselves have a file of their own."""
        return {WEIGHTS_HASH: torch.from_numpy(np.frombuffer(bytes.fromhex(self.weights_hash), np.uint8).copy())}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Hold the codec to the hash of the weights that it had.

        Raises:
            ValueError: the weights at `path` are others now.
        """
        if not torch.equal(torch.as_tensor(state_dict[WEIGHTS_HASH]).cpu(), self.state_dict()[WEIGHTS_HASH]):
            raise ValueError("the codec's weights are not those that the checkpoint was made with: give the same path")


def load_codec(path: Path) -> AudioCodec:
    """The codec that a path or a hub name stands for.

    Raises:
        ValueError: there is none, with what to do; messages begin with `path`.
    """
    if (path / "options.yml").is_file():
        return load_run_codec(path)
    if (path / DESCRIPTION).is_file():
        return load_exported_codec(path)
    if path.is_file():
        return load_encodec_checkpoint(path)
    name = path.as_posix()
    if not path.is_dir() and (name.count("/") != 1 or path.parent.is_dir() or name.startswith(("runs/", "."))):
        raise ValueError(f"path is {path}: there is nothing; {HOW_TO_GET}")
    return load_transformers_codec(name, _family(name))


def _family(source: str) -> str:
    """The architecture of a folder or hub name."""
    transformers = require_transformers("pretrained_codec")
    try:
        family = transformers.AutoConfig.from_pretrained(source).model_type
    except (OSError, ValueError, KeyError) as error:
        what = "holds no codec that is known here" if Path(source).is_dir() else "is neither here nor on the hub"
        raise ValueError(f"path is {source}: it {what} ({type(error).__name__}); {HOW_TO_GET}") from error
    if family not in FAMILIES:
        raise ValueError(f"path is {source}: a model of type {family!r}, wanted is one of {', '.join(FAMILIES)}")
    return family


def codebooks_at(codec: AudioCodec, bandwidth_kbps: float) -> int:
    """How many codebooks make up a bandwidth.

    Raises:
        ValueError: no whole number of them that the codec has.
    """
    each = codec.bits_per_second(1) / 1000
    count = round(bandwidth_kbps / each)
    if not 1 <= count <= codec.num_codebooks or abs(count * each - bandwidth_kbps) > 0.01 * each:
        raise ValueError(
            f"bandwidth_kbps is {bandwidth_kbps:g}: this codec has 1 to {codec.num_codebooks} codebooks of "
            f"{each:g} kbit/s each"
        )
    return count


def weights_hash(codec: AudioCodec) -> str:
    """SHA-256 in hexadecimal of all that decides the codes: the kind of codec, its sizes, its tensors."""
    sizes = (codec.sample_rate_hz, codec.num_channels, codec.num_codebooks, codec.codebook_size, codec.hop_samples)
    return weights_sha256(codec, type(codec).__name__, sizes)
