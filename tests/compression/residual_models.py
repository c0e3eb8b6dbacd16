"""A small residual model for tests: random weights, two cascades."""

import numpy as np

from codes.adaptive.cascade_options import AdaptiveOptions, CascadeOptions
from codes.compression.residual_model import ResidualModel

OPTIONS = AdaptiveOptions(
    cascades=[
        CascadeOptions(own_taps=16, other_taps=8, forgetting=0.99, interval=4, filter_taps=[], filter_rates=[]),
        CascadeOptions(own_taps=12, other_taps=6, filter_taps=[32, 16], filter_rates=[0.01, 0.02]),
    ],
    own_history=4,
    other_history=2,
)
HIDDEN, MIXTURES = 7, 3


def random_tensors(seed: int = 0, hidden: int = HIDDEN, mixtures: int = MIXTURES) -> dict[str, np.ndarray]:
    """The state_dict of a `residual_lm` for OPTIONS."""
    rng = np.random.default_rng(seed)
    features, offsets = OPTIONS.num_features, OPTIONS.num_offsets
    bias = np.zeros((mixtures, 3 + offsets), np.float32)
    bias[:, 1] = np.linspace(-2, 1, mixtures)
    shapes = {
        "gru.weight_ih_l0": (3 * hidden, features),
        "gru.bias_ih_l0": (3 * hidden,),
        "gru.weight_hh_l0": (3 * hidden, hidden),
        "gru.bias_hh_l0": (3 * hidden,),
        "output.weight": (mixtures * (3 + offsets), hidden + features),
    }
    made = {name: rng.normal(scale=0.1, size=shape).astype(np.float32) for name, shape in shapes.items()}
    return {**made, "output.bias": bias.ravel()}


def small_model(seed: int = 0) -> ResidualModel:
    """A model that codes, if not well."""
    return ResidualModel(random_tensors(seed), OPTIONS, MIXTURES)


def music(channels: int, frames: int, bits: int, seed: int = 0) -> np.ndarray:
    """(C, T) int32: decaying tones and noise, the channels alike."""
    rng = np.random.default_rng(seed)
    t = np.arange(frames)
    tone = sum(np.sin(t * f + f) * np.exp(-(t % 3000) / 2000) for f in (0.031, 0.118, 0.27))
    sound = tone * 0.25 + rng.normal(scale=0.01, size=(channels, frames))
    return np.clip(np.rint(sound * 2 ** (bits - 1)), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1).astype(np.int32)
