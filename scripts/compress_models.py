"""Find the models that `compress.py` codes with, and make codecs of them.

A model file is safetensors with a key of ours in its metadata. A coded file names the one that it needs by its SHA-256;
it is looked for among the files and folders that the user names, in the run's folder, among the models that the project
brings along, and in the user's cache, where every model that was coded with is kept.
"""

import hashlib
import json
import os
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.compression.codec import BlockCodec, ModelError
from codes.compression.container import MODEL_HASH_BYTES, CodecEntry
from codes.data.audio.demo_corpus import cache_root

SHIPPED = Path(__file__).resolve().parents[1] / "codes" / "compression" / "models"
_RUN_MODELS = "models"  # folder of a run
_MOST_METADATA_BYTES = 1 << 24


def kept_models() -> Path:
    """The folder where models that were coded with are kept."""
    return cache_root() / "models"


def model_codec(data: bytes, name: str = "the model") -> BlockCodec:
    """The codec of a model file.

    Raises:
        ModelError: it is no model file, or one of another version.
    """
    builder = next((build for key, build in _BUILDERS.items() if key in _metadata(data)), None)
    if builder is None:
        raise ModelError(f"{name} is no model file: its metadata has none of the keys {', '.join(_BUILDERS)}")
    try:
        return builder(data)
    except ModelError:
        raise
    except ValueError as error:
        raise ModelError(f"{name}: {error}") from error


def run_model(run: Path) -> bytes:
    """The model file of a run's best checkpoint.

    Raises:
        ModelError: the folder holds no run, or none that codes audio.
    """
    problems: dict[str, None] = {}  # each once, in order
    for make in _MAKERS:
        try:
            return make(run)
        except (ValueError, OSError) as error:
            problems[str(error)] = None
    raise ModelError(f"{run} gives no model: " + "; ".join(problems))


def shipped_models() -> list[bytes]:
    """The model files that come with the project."""
    return [path.read_bytes() for path in sorted(SHIPPED.glob("*.safetensors"))]


def keep_model(data: bytes, run: Path | None = None) -> list[Path]:
    """Keep a model in the user's cache and in its run, so that files coded with it can be decoded.

    Returns:
        Where it is kept; nowhere, if it ships with the project.
    """
    if any(data == shipped for shipped in shipped_models()):
        return []
    folders = [kept_models()] + ([run / _RUN_MODELS] if run is not None else [])
    kept = [folder / f"{hashlib.sha256(data).hexdigest()}.safetensors" for folder in folders]
    for path in kept:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = path.with_suffix(f".{os.getpid()}.tmp")
            aside.write_bytes(data)
            os.replace(aside, path)
    return kept


class ModelSearch:
    """Gives the codec that a coded file's header asks for.

    Args:
        places: files and folders to look in first.
        runs: folders of runs, whose best checkpoints may be what is asked for.

    Attributes:
        used: where the models were found that were asked for, for people.
    """

    def __init__(self, places: Sequence[Path] = (), runs: Sequence[Path] = ()) -> None:
        self._places, self._runs = places, runs
        self.used: list[str] = []

    def __call__(self, entry: CodecEntry, embedded: bytes) -> BlockCodec:
        """The codec; see `container_reader.Resolve`.

        Raises:
            ModelError: the model is nowhere.
        """
        if not any(entry.model_hash):
            raise ModelError(f"needs the codec {entry.name!r} without a model, which there is not")
        wanted = entry.model_hash.hex()
        if embedded and _hash(embedded) == wanted:
            return self._found("the embedded model", embedded)
        for name, data in self._candidates(wanted):
            if _hash(data) == wanted:
                return self._found(name, data)
        looked = [str(place) for place in (*self._places, *self._runs, SHIPPED, kept_models())]
        raise ModelError(
            f"needs the model {wanted}, which is not embedded and not in {', '.join(looked)}: give its file or its "
            "folder with --model, or its run with --run"
        )

    def _found(self, name: str, data: bytes) -> BlockCodec:
        named = [str(path) for path in (*self._places, *self._runs)]
        is_other = bool(named) and not any(name.startswith(path) for path in named)
        self.used.append(f"{name}, not {' or '.join(named)}" if is_other else name)
        return model_codec(data, name)

    def _candidates(self, wanted: str) -> Iterator[tuple[str, bytes]]:
        """Names and bytes of model files, the likely ones first."""
        kept = kept_models().glob(f"{wanted}*.safetensors")
        for path in (*_model_files(self._places), *kept, *_model_files([SHIPPED])):
            yield str(path), path.read_bytes()
        yield from ((str(path), path.read_bytes()) for path in _model_files([run / _RUN_MODELS for run in self._runs]))
        yield from ((str(run), run_model(run)) for run in self._runs)


def _hash(data: bytes) -> str:
    """As much of the hash of a model file as a coded file names it by, in hexadecimal."""
    return hashlib.sha256(data).digest()[:MODEL_HASH_BYTES].hex()


def _model_files(places: Sequence[Path]) -> Iterator[Path]:
    """The model files among files and in folders, told by their metadata."""
    for place in places:
        for path in [place] if place.is_file() else sorted(place.rglob("*.safetensors")):
            with open(path, "rb") as file:
                head = file.read(8)
                size = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
                if size <= _MOST_METADATA_BYTES and _BUILDERS.keys() & _metadata(head + file.read(size)).keys():
                    yield path


def _metadata(data: bytes) -> dict[str, str]:
    """What a safetensors file says of itself; nothing where it is none."""
    if len(data) < 8 or (size := struct.unpack_from("<Q", data)[0]) > _MOST_METADATA_BYTES:
        return {}
    try:
        metadata = json.loads(data[8 : 8 + size])["__metadata__"]
    except (ValueError, KeyError, TypeError):
        return {}
    return metadata if isinstance(metadata, dict) else {}


def _token_codec(data: bytes) -> BlockCodec:
    from codes.trainer.token_model import token_codec

    return token_codec(data)


def _residual_codec(data: bytes) -> BlockCodec:
    from codes.compression.residual_codec import ResidualCodec, load_residual_model

    return ResidualCodec(load_residual_model(data))


def _residual_file(run: Path) -> bytes:
    from codes.trainer.residual_run import residual_model_file

    return residual_model_file(run)


def _token_file(run: Path) -> bytes:
    from codes.trainer.token_model import token_model_file

    return token_model_file(run)


_BUILDERS: dict[str, Callable[[bytes], BlockCodec]] = {
    "waveschool_tokens": _token_codec,
    "residual_lm": _residual_codec,
}
_MAKERS: tuple[Callable[[Path], bytes], ...] = (_residual_file, _token_file)
