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

import numpy as np

from codes.adaptive import arithmetic, cascade
from codes.adaptive.cascade import NUM_DECAYS, STACK_DECAYS, State
from codes.adaptive.compiled import compile_module

CLAMP_LOG = 12.0


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
    unit = cascade.unit_of(state, channel)
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
        inverse = 1.0 / cascade.unit_of(state, 1 - channel)
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
