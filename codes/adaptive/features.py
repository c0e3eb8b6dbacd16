"""What a network is told of the next sample: offsets of the predictions, and features that do not depend on loudness.

Features of a sample, K cascades, all made before it is known; sizes are relative to the unit, the expected error:

    0 .. K          each cascade's prediction as an offset from the stack's
    K .. 2K         what its LMS stages took away from its least squares
    2K .. 4K        log2 of its two running errors
    4 more          log2 of the stack's four running errors
    1               log2 of the unit itself
    2               1 for the second channel of a pair; 1 for a single channel
    1               the step from the last sample to the prediction
    own_history     past residuals of the stack
    other_history   recent residuals of the channel beside, over that channel's unit; zeros for a single one
"""

from typing import NamedTuple

import numpy as np

from codes.adaptive import arithmetic, cascade
from codes.adaptive.cascade import NUM_DECAYS, STACK_DECAYS, State
from codes.adaptive.cascade_options import AdaptiveOptions
from codes.adaptive.compiled import compile_module

FEATURE_VERSION = 1  # raise it when the kernels give other numbers: caches of features are named by it
PIECE_FRAMES = 1 << 16  # that are described at once


class Described(NamedTuple):
    """What `describe_pcm` makes of a stretch of audio, sample by sample."""

    features: np.ndarray  # (C, T, F) float16
    offsets: np.ndarray  # (C, T, K) float16: predictions less the stack's, in units
    residuals: np.ndarray  # (C, T) float32: samples less the stack's predictions
    units: np.ndarray  # (C, T) float32: the size of residuals to be expected


def describe_pcm(pcm: np.ndarray, options: AdaptiveOptions) -> Described:
    """Predict and describe every sample from the ones before it.

    Args:
        pcm: (C, T) integers; more than two channels are taken in pairs, a last one by itself.
    """
    build()
    made = [_describe_pair(pcm[first : first + 2], options) for first in range(0, len(pcm), 2)]
    return Described(*(np.concatenate(arrays) for arrays in zip(*made, strict=True)))


def _describe_pair(pcm: np.ndarray, options: AdaptiveOptions) -> Described:
    channels, frames = pcm.shape
    state = cascade.new_state(options, channels)
    made = [
        np.empty((channels, 0, options.num_features), np.float16),
        np.empty((channels, 0, options.num_offsets), np.float16),
        np.empty((channels, 0), np.float32), np.empty((channels, 0), np.float32),
    ]  # fmt: skip
    parts = [made]
    for first in range(0, frames, PIECE_FRAMES):  # float32 of a long recording would not fit into memory
        piece = np.ascontiguousarray(pcm[:, first : first + PIECE_FRAMES], np.float64)
        shape = piece.shape
        features = np.zeros((*shape, options.num_features), np.float32)
        offsets = np.zeros((*shape, options.num_offsets), np.float32)
        stack, units = np.zeros(shape), np.zeros(shape)
        describe_all(state, piece, options.own_history, options.other_history, features, offsets, stack, units)
        residuals = (piece - stack).astype(np.float32)
        parts.append([features.astype(np.float16), offsets.astype(np.float16), residuals, units.astype(np.float32)])
    return Described(*(np.concatenate(arrays, 1) for arrays in zip(*parts, strict=True)))


def log_ratio(error: float, unit: float) -> float:
    """Half the log2 of error / unit, bounded."""
    value = arithmetic.exact_log2((error + 1e-3) / unit)
    return 0.5 * min(max(value, -12.0), 12.0)


def describe(state: State, channel: int, own: int, other: int, features: np.ndarray, offsets: np.ndarray) -> float:
    """Features and offsets (in units) of the sample that was just predicted; returns the unit.

    Args:
        own, other: residuals of the channel itself and of the one beside it.
        features: (F,) float32, written.
        offsets: (K,) float32, written.
    """
    count = len(state.own_taps)
    unit = cascade.unit_of(state.stack_errors[channel])
    inverse = 1.0 / unit
    stack = state.whole[count + 1]
    for k in range(count):
        offset = (state.whole[k] - stack) * inverse
        offsets[k] = min(max(offset, -64.0), 64.0)
        features[k] = arithmetic.squash(offset)
        features[count + k] = arithmetic.squash((state.whole[k] - state.linear[k]) * inverse)
        for i in range(NUM_DECAYS):
            features[2 * count + NUM_DECAYS * k + i] = log_ratio(state.errors[channel, k, i], unit)
    place = 2 * count + NUM_DECAYS * count
    for i in range(STACK_DECAYS):
        features[place + i] = log_ratio(state.stack_errors[channel, i], unit)
    place += STACK_DECAYS
    channels, newest = state.samples.shape[0], state.place[0]
    features[place] = 0.25 * arithmetic.exact_log2(unit) - 1.0
    features[place + 1] = 1.0 if channel == 1 else 0.0
    features[place + 2] = 1.0 if channels == 1 else 0.0
    features[place + 3] = arithmetic.squash((stack - state.samples[channel, newest]) * inverse * 0.25)
    place += 4
    for i in range(own):
        features[place + i] = arithmetic.squash(state.residuals[channel, newest + i] * inverse)
    place += own
    for i in range(other):
        features[place + i] = 0.0
    if channels == 2:
        inverse = 1.0 / cascade.unit_of(state.stack_errors[1 - channel])
        start = newest - channel
        for i in range(other):
            features[place + i] = arithmetic.squash(state.residuals[1 - channel, start + i] * inverse)
    return unit


def describe_all(
    state: State, pcm: np.ndarray, own: int, other: int, features: np.ndarray, offsets: np.ndarray, stack: np.ndarray,
    units: np.ndarray,
) -> None:  # fmt: skip
    """`describe` of every sample of pcm (C, T): features (C, T, F), offsets (C, T, K), stack and units (C, T)."""
    for frame in range(pcm.shape[1]):
        for channel in range(pcm.shape[0]):
            cascade.predict(state, channel)
            unit = describe(state, channel, own, other, features[channel, frame], offsets[channel, frame])
            units[channel, frame] = unit
            stack[channel, frame] = state.whole[len(state.own_taps) + 1]
            cascade.update(state, channel, pcm[channel, frame])


def build() -> None:
    """Compile the kernels of this module and those that they call."""
    cascade.build()
    compile_module(__name__, ("log_ratio", "describe", "describe_all"))
