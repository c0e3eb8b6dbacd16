"""Adaptive prediction, a sample at a time: `predict` the next sample of a channel, then `update` with its value.

Samples are told in the order of an interleaved file (frame 0: channel 0, channel 1; frame 1: ...). Channel 0 is
predicted from the past of both, channel 1 also from the newest sample of channel 0. All kernels repeat bit for bit.
Rings hold the newest first, so that a filter reads a stretch of memory: they are written at ``place - 1``, where
`place` falls by one each frame and starts anew with a copy of the youngest when it gets to 0.
"""

from typing import NamedTuple

import numpy as np

from codes.adaptive import arithmetic, least_squares
from codes.adaptive.cascade_options import AdaptiveOptions
from codes.adaptive.compiled import compile_module

RING_FRAMES = 4096  # between two copies
STACK_INTERVAL = 4
NUM_DECAYS = 2  # time constants of each cascade's running error
STACK_DECAYS = 4  # and of the stack's
KERNELS = ("predict", "unit_of", "adapt_filter", "turn", "update")


class State(NamedTuple):
    """All that prediction carries along; K cascades, C channels, N regressors, S stages, Q = 2 K."""

    # options
    own_taps: np.ndarray  # (K,) int64
    other_taps: np.ndarray  # (K,) int64, zeros for a single channel
    interval: np.ndarray  # (K,) int64
    decay: np.ndarray  # (K,) float64, over an interval
    ridge: np.ndarray  # (K,) float64
    filter_taps: np.ndarray  # (K, S) int64, 0 for none
    filter_rates: np.ndarray  # (K, S) float64
    stack_options: np.ndarray  # (2,) float64: decay over STACK_INTERVAL, ridge
    # where we are
    place: np.ndarray  # (1,) int64
    frame: np.ndarray  # (1,) int64
    # samples and least squares
    samples: np.ndarray  # (C, ring) float64
    covariance: np.ndarray  # (C, K, N, N) float64
    correlation: np.ndarray  # (C, K, N)
    coefficients: np.ndarray  # (C, K, N)
    inputs: np.ndarray  # (C, K, 64, N), since the last solution
    targets: np.ndarray  # (C, K, 64)
    weights: np.ndarray  # (C, K, 64)
    loudness: np.ndarray  # (C, K + 1), running error that the weights follow; the stack's is the last
    # LMS filters
    filter_ring: np.ndarray  # (C, K, S, ring) float32
    filter_weights: np.ndarray  # (C, K, S, taps) float32
    filter_power: np.ndarray  # (C, K, S) float64
    # stack
    stack_covariance: np.ndarray  # (C, Q, Q)
    stack_correlation: np.ndarray  # (C, Q)
    stack_coefficients: np.ndarray  # (C, Q)
    stack_inputs: np.ndarray  # (C, STACK_INTERVAL, Q)
    stack_targets: np.ndarray  # (C, STACK_INTERVAL)
    stack_weights: np.ndarray  # (C, STACK_INTERVAL)
    # what was predicted of the sample at hand
    linear: np.ndarray  # (K,) by least squares alone
    staged: np.ndarray  # (K, S) by each stage
    whole: np.ndarray  # (K + 2,) by each cascade, by their mean, by the stack
    # running errors and residuals
    errors: np.ndarray  # (C, K, NUM_DECAYS)
    stack_errors: np.ndarray  # (C, STACK_DECAYS)
    residuals: np.ndarray  # (C, ring) float64, of the stack
    # room to work in
    upper: np.ndarray  # (N, N)
    scratch: np.ndarray  # (N,)
    scratch32: np.ndarray  # (taps,) float32


def new_state(options: AdaptiveOptions, num_channels: int) -> State:
    """The state before the first frame of one or two channels.

    Raises:
        ValueError: another number of channels.
    """
    if num_channels not in (1, 2):
        raise ValueError(f"adaptive prediction takes 1 or 2 channels at a time, got {num_channels}")
    cascades = options.all_cascades
    count, stages = len(cascades), max(len(cascade.filter_taps) for cascade in cascades)
    other = [cascade.other_taps if num_channels == 2 else 0 for cascade in cascades]
    size = max(max(cascade.own_taps + taps for cascade, taps in zip(cascades, other, strict=True)), 2 * count)
    taps = np.zeros((count, max(stages, 1)), np.int64)
    rates = np.zeros((count, max(stages, 1)))
    for index, cascade in enumerate(cascades):
        taps[index, : len(cascade.filter_taps)] = cascade.filter_taps
        rates[index, : len(cascade.filter_rates)] = cascade.filter_rates
    longest = int(max(taps.max(), size, 64)) + 8
    channels, ring, stack = num_channels, RING_FRAMES + longest, 2 * count
    return State(
        own_taps=np.array([cascade.own_taps for cascade in cascades]),
        other_taps=np.array(other),
        interval=np.array([cascade.interval for cascade in cascades]),
        decay=np.array([_power(cascade.forgetting, cascade.interval) for cascade in cascades]),
        ridge=np.array([cascade.ridge for cascade in cascades]),
        filter_taps=taps,
        filter_rates=rates,
        stack_options=np.array([_power(options.stack_forgetting, STACK_INTERVAL), options.stack_ridge]),
        place=np.array([RING_FRAMES]),
        frame=np.zeros(1, np.int64),
        samples=np.zeros((channels, ring)),
        covariance=np.zeros((channels, count, size, size)),
        correlation=np.zeros((channels, count, size)),
        coefficients=np.zeros((channels, count, size)),
        inputs=np.zeros((channels, count, 64, size)),
        targets=np.zeros((channels, count, 64)),
        weights=np.zeros((channels, count, 64)),
        loudness=np.zeros((channels, count + 1)),
        filter_ring=np.zeros((channels, *taps.shape, ring), np.float32),
        filter_weights=np.zeros((channels, *taps.shape, longest), np.float32),
        filter_power=np.zeros((channels, *taps.shape)),
        stack_covariance=np.zeros((channels, stack, stack)),
        stack_correlation=np.zeros((channels, stack)),
        stack_coefficients=np.zeros((channels, stack)),
        stack_inputs=np.zeros((channels, STACK_INTERVAL, stack)),
        stack_targets=np.zeros((channels, STACK_INTERVAL)),
        stack_weights=np.zeros((channels, STACK_INTERVAL)),
        linear=np.zeros(count),
        staged=np.zeros(taps.shape),
        whole=np.zeros(count + 2),
        errors=np.zeros((channels, count, NUM_DECAYS)),
        stack_errors=np.zeros((channels, STACK_DECAYS)),
        residuals=np.zeros((channels, ring)),
        upper=np.zeros((size, size)),
        scratch=np.zeros(size),
        scratch32=np.zeros(longest, np.float32),
    )


def _power(base: float, exponent: int) -> float:
    """By multiplication alone, which is rounded the same everywhere."""
    result = 1.0
    for _ in range(exponent):
        result *= base
    return result


def predict(state: State, channel: int) -> None:
    """Predict the next sample of a channel: `linear`, `staged` and `whole` of the state."""
    place, count, num_stages = state.place[0], len(state.own_taps), state.filter_taps.shape[1]
    own_samples, other_samples = state.samples[channel], state.samples[state.samples.shape[0] - 1 - channel]
    start = place - channel  # channel 1 knows the newest of channel 0
    mean = 0.0
    for cascade in range(count):
        own, other = state.own_taps[cascade], state.other_taps[cascade]
        x = state.inputs[channel, cascade, state.frame[0] % state.interval[cascade]]
        for i in range(own):
            x[i] = own_samples[place + i]
        for i in range(other):
            x[own + i] = other_samples[start + i]
        total = least_squares.dot(x, state.coefficients[channel, cascade], own + other, state.scratch)
        state.linear[cascade] = total
        for stage in range(num_stages):
            taps = state.filter_taps[cascade, stage]
            if taps > 0:
                seen = state.filter_ring[channel, cascade, stage, place:]
                weights = state.filter_weights[channel, cascade, stage]
                state.staged[cascade, stage] = least_squares.dot(seen, weights, taps, state.scratch32)
                total = total + state.staged[cascade, stage]
        state.whole[cascade] = total
        mean = mean + total
    mean = mean / count
    inputs = state.stack_inputs[channel, state.frame[0] % STACK_INTERVAL]
    for cascade in range(count):
        inputs[cascade] = state.whole[cascade] - mean
        inputs[count + cascade] = state.linear[cascade] - mean
    state.whole[count] = mean
    state.whole[count + 1] = mean + least_squares.dot(
        inputs, state.stack_coefficients[channel], 2 * count, state.scratch
    )


def unit_of(stack_errors: np.ndarray) -> float:
    """The size of errors to be expected: a mean of running absolute errors of the stack, those of one channel."""
    return 0.5 * (stack_errors[1] + stack_errors[2]) + 0.25


def adapt_filter(
    ring: np.ndarray, weights: np.ndarray, place: int, taps: int, rate: float, power: float, error: float,
) -> float:  # fmt: skip
    """Tell an LMS stage what the one before left; returns the power of its inputs.

    Args:
        ring: its inputs, the newest at ``place``; ``error`` is written before it.
        weights: changed.
        rate: the step, not yet relative to the power, times what this stage leaves of ``error``.
        power: of the inputs.
    """
    seen = ring[place:]
    rate = rate / (power + 1.0 + 0.001 * taps)
    step = np.float32(rate) if abs(rate) > 1e-20 else np.float32(0.0)  # nothing denormal, which is slow
    for i in range(taps):
        weights[i] = weights[i] + step * seen[i]
    ring[place - 1] = error if abs(error) > 1e-10 else 0.0
    newest, oldest = ring[place - 1], ring[place - 1 + taps]  # their squares are float32
    return max(power + newest * newest - oldest * oldest, 0.0)


def update(state: State, channel: int, value: float) -> None:
    """Tell the state the sample that `predict` predicted; after the last channel the next frame begins."""
    place, frame, count = state.place[0], state.frame[0], len(state.own_taps)
    state.samples[channel, place - 1] = value
    for cascade in range(count):
        error = value - state.linear[cascade]
        loudness = 0.6 * state.loudness[channel, cascade] + 0.4 * abs(error)
        state.loudness[channel, cascade] = loudness
        interval, index = state.interval[cascade], frame % state.interval[cascade]
        state.targets[channel, cascade, index] = value
        state.weights[channel, cascade, index] = 1.0 / (loudness + 2.0)
        if index == interval - 1:
            size = state.own_taps[cascade] + state.other_taps[cascade]
            least_squares.absorb_and_solve(
                state.covariance[channel, cascade], state.correlation[channel, cascade],
                state.inputs[channel, cascade], state.targets[channel, cascade], state.weights[channel, cascade],
                state.coefficients[channel, cascade], state.upper, state.scratch, size, interval,
                state.decay[cascade], state.ridge[cascade],
            )  # fmt: skip
        rings, filters = state.filter_ring[channel, cascade], state.filter_weights[channel, cascade]
        powers, taps = state.filter_power[channel, cascade], state.filter_taps[cascade]
        for stage in range(len(taps)):
            if taps[stage] > 0:
                left = error - state.staged[cascade, stage]
                rate = state.filter_rates[cascade, stage] * left
                powers[stage] = adapt_filter(
                    rings[stage], filters[stage], place, taps[stage], rate, powers[stage], error
                )
                error = left
        errors, error = state.errors[channel, cascade], abs(value - state.whole[cascade])
        errors[0] += (error - errors[0]) * 0.0625
        errors[1] += (error - errors[1]) * 0.0078125
    residual = value - state.whole[count + 1]
    error = abs(residual)
    loudness = 0.6 * state.loudness[channel, count] + 0.4 * error
    state.loudness[channel, count] = loudness
    index = frame % STACK_INTERVAL
    state.stack_targets[channel, index] = value - state.whole[count]
    state.stack_weights[channel, index] = 1.0 / (loudness + 0.5)
    if index == STACK_INTERVAL - 1:
        least_squares.absorb_and_solve(
            state.stack_covariance[channel], state.stack_correlation[channel], state.stack_inputs[channel],
            state.stack_targets[channel], state.stack_weights[channel], state.stack_coefficients[channel],
            state.upper, state.scratch, 2 * count, STACK_INTERVAL, state.stack_options[0], state.stack_options[1],
        )  # fmt: skip
    state.residuals[channel, place - 1] = residual
    rate = 0.25
    for i in range(STACK_DECAYS):
        state.stack_errors[channel, i] += (error - state.stack_errors[channel, i]) * rate
        rate = rate * 0.25
    if channel == state.samples.shape[0] - 1:
        state.frame[0] += 1
        state.place[0] -= 1
        if state.place[0] == 0:
            turn(state)


def turn(state: State) -> None:
    """At the end of the rings copy the youngest to their other end."""
    state.place[0] = RING_FRAMES
    kept = state.samples.shape[1] - RING_FRAMES
    for channel in range(state.samples.shape[0]):
        for i in range(kept):
            state.samples[channel, RING_FRAMES + i] = state.samples[channel, i]
            state.residuals[channel, RING_FRAMES + i] = state.residuals[channel, i]
        for cascade in range(state.filter_taps.shape[0]):
            for stage in range(state.filter_taps.shape[1]):
                ring = state.filter_ring[channel, cascade, stage]
                for i in range(kept):
                    ring[RING_FRAMES + i] = ring[i]


def build() -> None:
    """Compile the kernels of this module and those that they call."""
    arithmetic.build()
    least_squares.build()
    compile_module(__name__, KERNELS)
