"""Whole blocks coded sample by sample: predict, describe, mix, code, update; compiled, and in the decoder the same."""

import numpy as np

from codes.adaptive import cascade, features
from codes.adaptive.cascade import State
from codes.adaptive.compiled import compile_module
from codes.compression import entropy_mixture, entropy_range, residual_network
from codes.compression.residual_network import Network


def forecast(
    state: State, network: Network, channel: int, own: int, other: int, described: np.ndarray, offsets: np.ndarray
) -> float:
    """The mixture of the next sample, in the network's arrays; returns its anchor."""
    cascade.predict(state, channel)
    unit = features.describe(state, channel, own, other, described, offsets)
    residual_network.step(network, channel, described)
    residual_network.mix(network, channel, described, offsets, unit)
    return state.whole[len(state.own_taps) + 1]


def bounded(anchor: float, lowest: int, count: int) -> float:
    """The anchor within the range of the numbers; their lowest where it is not a number."""
    if not anchor > lowest:
        return float(lowest)
    return min(anchor, float(lowest + count - 1))


def encode_block(
    state: State, network: Network, table: np.ndarray, own: int, other: int, pcm: np.ndarray, numbers: np.ndarray,
    lowest: np.ndarray, counts: np.ndarray, values: np.ndarray, starts: np.ndarray, words: np.ndarray,
    bits: np.ndarray,
) -> int:  # fmt: skip
    """Encode pcm (C, T) int64, whose samples are `numbers` (C, T); returns the words written.

    Args:
        lowest, counts: (C,) smallest value and count of numbers of each channel.
        values, starts: sample values by number where some never occur; channel c has values[starts[c]:starts[c + 1]].
        words: (4 C T + 8,) uint32.
        bits: (C,) float64, set to what each channel took.
    """
    coder = entropy_range.new_coder()
    described = np.zeros(len(network.input_rows), np.float32)
    offsets = np.zeros(len(state.own_taps), np.float32)
    mixture = (network.weights, network.means, network.inverses, table)
    for frame in range(pcm.shape[1]):
        for channel in range(pcm.shape[0]):
            anchor = forecast(state, network, channel, own, other, described, offsets)
            low, count = lowest[channel], counts[channel]
            used = values[starts[channel] : starts[channel + 1]]
            anchor = bounded(anchor, low, count if len(used) == 0 else used[-1] - low + 1)
            number = numbers[channel, frame]
            bits[channel] += entropy_mixture.put_number(coder, words, number, count, anchor, low, used, mixture)
            residual_network.learn(network, table, channel, pcm[channel, frame] - anchor)
            cascade.update(state, channel, float(pcm[channel, frame]))
    return entropy_range.finish(coder, words)


def decode_block(
    state: State, network: Network, table: np.ndarray, own: int, other: int, pcm: np.ndarray, lowest: np.ndarray,
    counts: np.ndarray, values: np.ndarray, starts: np.ndarray, words: np.ndarray,
) -> bool:  # fmt: skip
    """Decode into pcm (C, T) int64; see `encode_block`. False where the words are no code of a block."""
    coder = entropy_range.new_coder()
    entropy_range.start(coder, words)
    described = np.zeros(len(network.input_rows), np.float32)
    offsets = np.zeros(len(state.own_taps), np.float32)
    mixture = (network.weights, network.means, network.inverses, table)
    for frame in range(pcm.shape[1]):
        for channel in range(pcm.shape[0]):
            anchor = forecast(state, network, channel, own, other, described, offsets)
            low, count = lowest[channel], counts[channel]
            used = values[starts[channel] : starts[channel + 1]]
            anchor = bounded(anchor, low, count if len(used) == 0 else used[-1] - low + 1)
            number = entropy_mixture.take_number(coder, words, count, anchor, low, used, mixture)
            if number < 0:
                return False
            value = low + number if len(used) == 0 else used[number]
            pcm[channel, frame] = value
            residual_network.learn(network, table, channel, value - anchor)
            cascade.update(state, channel, float(value))
    return True


def build() -> None:
    """Compile the kernels of this module and those that they call."""
    features.build()
    entropy_mixture.build()
    residual_network.build()
    compile_module(__name__, ("forecast", "bounded", "encode_block", "decode_block"))
