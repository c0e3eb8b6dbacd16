"""The model file of a `residual_lm`: its weights in safetensors, its options as JSON in the metadata.

The metadata has one key, METADATA_KEY, so that the same model is the same bytes: safetensors keeps no order of keys.
What is for people (the experiment, the command that made it) stands in the JSON under "about".
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from codes.adaptive import arithmetic
from codes.adaptive.cascade_options import AdaptiveOptions
from codes.compression.residual_network import Network, new_network

SHIPPED = Path(__file__).parent / "models" / "residual.safetensors"
METADATA_KEY = "residual_lm"  # {"mixtures": M, "adaptive": {...}, "about": {...}}


class ResidualModel:
    """A `residual_lm` ready to code.

    Args:
        tensors: its state_dict as arrays.
        adaptive: options of its adaptive prediction.
        mixtures: components of its mixture.
        digest: SHA-256 of the model file; None: of the tensors and options.

    Raises:
        ValueError: the tensors and the options do not fit.
    """

    def __init__(
        self,
        tensors: Mapping[str, np.ndarray],
        adaptive: AdaptiveOptions,
        mixtures: int,
        digest: bytes | None = None,
    ) -> None:
        self.network = new_network(tensors, mixtures)
        self.adaptive, self.mixtures = adaptive, mixtures
        features = len(self.network.input_rows)
        offsets = len(self.network.output_bias) // mixtures - 3
        if (features, offsets) != (adaptive.num_features, adaptive.num_offsets):
            raise ValueError(
                f"the model takes {features} features and {offsets} predictions, its adaptive prediction gives "
                f"{adaptive.num_features} and {adaptive.num_offsets}"
            )
        self.digest = digest or self._digest_of(tensors)
        self.table = arithmetic.logistic_table()

    def _digest_of(self, tensors: Mapping[str, np.ndarray]) -> bytes:
        digest = hashlib.sha256(json.dumps([self.mixtures, self.adaptive.as_dict()]).encode())
        for name in sorted(tensors):
            digest.update(name.encode() + np.ascontiguousarray(tensors[name], "<f4").tobytes())
        return digest.digest()

    def fresh_network(self) -> Network:
        """The network with a hidden state of zeros and room of its own."""
        network = self.network
        return network._replace(
            hidden=np.zeros_like(network.hidden),
            gates=np.zeros_like(network.gates),
            outputs=np.zeros_like(network.outputs),
            bias=np.zeros_like(network.bias),
            tracked=np.zeros_like(network.tracked),
            odds=network.odds.copy(),
            masses=np.zeros_like(network.masses),
            weights=np.zeros_like(network.weights),
            means=np.zeros_like(network.means),
            inverses=np.zeros_like(network.inverses),
        )


def load_residual_model(data: bytes | Path = SHIPPED) -> ResidualModel:
    """The model of a safetensors file or of its bytes.

    Raises:
        ValueError: it is not a `residual_lm`.
        OSError: the file cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    data = data if isinstance(data, bytes) else data.read_bytes()
    try:
        tensors = load(data)
        length = struct.unpack_from("<Q", data)[0]
        header = json.loads(data[8 : 8 + length])
    except (SafetensorError, struct.error, ValueError) as error:
        raise ValueError(f"the model is not a safetensors file: {error}") from error
    described = header.get("__metadata__", {}).get(METADATA_KEY)
    if described is None:
        raise ValueError(f"the model's metadata has no {METADATA_KEY!r}: it was not exported from a residual_lm")
    options = json.loads(described)
    adaptive = AdaptiveOptions.from_dict(options["adaptive"])
    return ResidualModel(tensors, adaptive, options["mixtures"], hashlib.sha256(data).digest())


def residual_model_bytes(
    tensors: Mapping[str, np.ndarray], adaptive: AdaptiveOptions, mixtures: int, about: Mapping[str, str]
) -> bytes:
    """The file that `load_residual_model` reads: the same bytes whenever it is made of the same.

    Args:
        tensors: the network's state_dict.
        about: what people are told of it.

    Raises:
        ValueError: tensors and options do not fit.
    """
    from safetensors.numpy import save

    ResidualModel(tensors, adaptive, mixtures)
    options = json.dumps({"mixtures": mixtures, "adaptive": adaptive.as_dict(), "about": dict(about)}, sort_keys=True)
    arrays = {name: np.ascontiguousarray(array, np.float32) for name, array in sorted(tensors.items())}
    return save(arrays, metadata={METADATA_KEY: options})
