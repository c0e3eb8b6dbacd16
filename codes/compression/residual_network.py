"""The step of a `residual_lm` network: a GRU over features, then a mixture of logistics; compiled, and exact.

The same numbers as torch's GRU up to rounding, but in a fixed order of float32 sums and with a rational tanh, so that
an encoder and a decoder on any two machines agree bit for bit (see `codes.adaptive.compiled`). Weights are kept with
the inputs as rows: a step adds rows, which is vectorised without reordering a sum.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from codes.adaptive import arithmetic
from codes.adaptive.compiled import compile_module

MIN_SCALE = 0.03  # of a component, in steps of the samples
MAX_LOG_SCALE = 8.0  # of a component, relative to the unit
NUM_TRACKED = 5  # components that follow the recording by themselves
FIRST_SCALE = 0.22  # of the narrowest of them, in units; each next is 1.75 times as broad
FIRST_ODDS = 3.0  # log2 of the network's weight over theirs, before the first sample
TRACK_DECAY = 0.97  # of what these weights remember, a sample
ODDS_DECAY = 0.995
BIAS_RATE = 0.02
LEAST_MASS = 1e-7


class Network(NamedTuple):
    """Weights, what is carried along and room to work in; F features, H hidden, M components, K offsets, P = M (3 + K).

    G components more follow the recording by themselves; see `learn`.
    """

    input_rows: np.ndarray  # (F, 3 H) float32
    input_bias: np.ndarray  # (3 H,) float32
    hidden_rows: np.ndarray  # (H, 3 H) float32
    hidden_bias: np.ndarray  # (3 H,) float32
    output_rows: np.ndarray  # (H + F, P) float32
    output_bias: np.ndarray  # (P,) float32
    hidden: np.ndarray  # (2, H) float32, of each channel
    gates: np.ndarray  # (2, 3 H) float32
    outputs: np.ndarray  # (P,) float32
    bias: np.ndarray  # (2, M) float64, of each channel's logits, learned while coding
    tracked: np.ndarray  # (2, G) float64, log2 of the weights of the components that follow
    odds: np.ndarray  # (2,) float64, log2 of the network's weight over theirs
    masses: np.ndarray  # (M + G,) float64
    weights: np.ndarray  # (M + G,) float64, of the mixture
    means: np.ndarray  # (M + G,) float64, relative to the stack's prediction, in steps
    inverses: np.ndarray  # (M + G,) float64, 1 / scale


def new_network(tensors: Mapping[str, np.ndarray], mixtures: int) -> Network:
    """From the tensors of a `residual_lm`: its state_dict as float32 arrays.

    Raises:
        ValueError: a tensor is missing or of another shape.
    """
    names = ("gru.weight_ih_l0", "gru.bias_ih_l0", "gru.weight_hh_l0", "gru.bias_hh_l0", "output.weight", "output.bias")
    missing = [name for name in names if name not in tensors]
    if missing:
        raise ValueError(f"the model has no tensor {missing[0]}: it is not a residual_lm")
    arrays = [np.ascontiguousarray(tensors[name].astype(np.float32).T) for name in names]
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError("the model holds numbers that are not finite")
    features, hidden = len(arrays[0]), len(arrays[2])
    outputs = len(arrays[5])
    shapes = [
        (features, 3 * hidden), (3 * hidden,), (hidden, 3 * hidden), (3 * hidden,), (hidden + features, outputs),
        (outputs,),
    ]  # fmt: skip
    for name, array, shape in zip(names, arrays, shapes, strict=True):
        if array.shape != shape:
            raise ValueError(f"the model's {name} has shape {array.shape[::-1]}, it must have {shape[::-1]}")
    if mixtures < 1 or outputs % mixtures:
        raise ValueError(f"the model has {outputs} outputs, not a multiple of its {mixtures} mixtures")
    return Network(
        *arrays,
        hidden=np.zeros((2, hidden), np.float32),
        gates=np.zeros((2, 3 * hidden), np.float32),
        outputs=np.zeros(outputs, np.float32),
        bias=np.zeros((2, mixtures)),
        tracked=np.zeros((2, NUM_TRACKED)),
        odds=np.full(2, FIRST_ODDS),
        masses=np.zeros(mixtures + NUM_TRACKED),
        weights=np.zeros(mixtures + NUM_TRACKED),
        means=np.zeros(mixtures + NUM_TRACKED),
        inverses=np.zeros(mixtures + NUM_TRACKED),
    )


def add_rows(total: np.ndarray, inputs: np.ndarray, rows: np.ndarray, first: int) -> None:
    """total[j] += sum over i of inputs[i] rows[first + i, j], four rows at a time in their order."""
    size, whole = len(total), len(inputs) - len(inputs) % 4
    for i in range(0, whole, 4):
        x0, x1, x2, x3 = inputs[i], inputs[i + 1], inputs[i + 2], inputs[i + 3]
        r0, r1, r2, r3 = rows[first + i], rows[first + i + 1], rows[first + i + 2], rows[first + i + 3]
        for j in range(size):
            total[j] = (((total[j] + x0 * r0[j]) + x1 * r1[j]) + x2 * r2[j]) + x3 * r3[j]
    for i in range(whole, len(inputs)):
        x0, r0 = inputs[i], rows[first + i]
        for j in range(size):
            total[j] = total[j] + x0 * r0[j]


def tanh(x: float) -> float:
    """Hyperbolic tangent within 1e-6: the ratio of two polynomials that Eigen uses."""
    x = min(max(x, -7.9), 7.9)
    s = x * x
    top = -2.76076847742355e-16 * s + 2.00018790482477e-13
    top = (top * s - 8.60467152213735e-11) * s + 5.12229709037114e-08
    top = ((top * s + 1.48572235717979e-05) * s + 6.37261928875436e-04) * s + 4.89352455891786e-03
    bottom = ((1.19825839466702e-06 * s + 1.18534705686654e-04) * s + 2.26843463243900e-03) * s + 4.89352518554385e-03
    return x * top / bottom


def step(network: Network, channel: int, features: np.ndarray) -> None:
    """Advance the hidden state of a channel by features (F,) float32."""
    seen, kept = network.gates[0], network.gates[1]
    hidden = network.hidden[channel]
    size = len(hidden)
    seen[:] = network.input_bias
    kept[:] = network.hidden_bias
    add_rows(seen, features, network.input_rows, 0)
    add_rows(kept, hidden, network.hidden_rows, 0)
    for i in range(size):
        reset = 0.5 + 0.5 * tanh(0.5 * (seen[i] + kept[i]))
        seen[2 * size + i] = seen[2 * size + i] + reset * kept[2 * size + i]
    for i in range(size):
        keep = 0.5 + 0.5 * tanh(0.5 * (seen[size + i] + kept[size + i]))
        new = tanh(seen[2 * size + i])
        value = new + keep * (hidden[i] - new)
        hidden[i] = value if abs(value) > 1e-20 else 0.0  # nothing denormal, which is slow


def mix(network: Network, channel: int, features: np.ndarray, offsets: np.ndarray, unit: float) -> None:
    """Fill the mixture's weights, means and inverse scales from the hidden state of a channel."""
    outputs, hidden = network.outputs, network.hidden[channel]
    outputs[:] = network.output_bias
    add_rows(outputs, hidden, network.output_rows, 0)
    add_rows(outputs, features, network.output_rows, len(hidden))
    count = network.bias.shape[1]
    span = len(outputs) // count
    highest = outputs[0] + network.bias[channel, 0]
    for m in range(1, count):
        highest = max(highest, outputs[m * span] + network.bias[channel, m])
    total = 0.0
    for m in range(count):
        base = m * span
        weight = arithmetic.exact_exp(outputs[base] + network.bias[channel, m] - highest)
        network.weights[m] = weight
        total = total + weight
        log_scale = min(max(float(outputs[base + 1]), -MAX_LOG_SCALE), MAX_LOG_SCALE)
        network.inverses[m] = 1.0 / max(unit * arithmetic.exact_exp(log_scale), MIN_SCALE)
        mean = outputs[base + 2]  # in float32, as are its offsets
        for k in range(span - 3):
            mean = mean + outputs[base + 3 + k] * offsets[k]
        network.means[m] = mean * unit
    share = 1.0 / (1.0 + arithmetic.exact_exp(-0.6931471805599453 * network.odds[channel]))
    for m in range(count):
        network.weights[m] = network.weights[m] / total * share
    follow(network, channel, unit, 1.0 - share)


def follow(network: Network, channel: int, unit: float, share: float) -> None:
    """Fill the mixture's last components: around the stack's prediction, of fixed scales, with weights that follow."""
    count = network.bias.shape[1]
    tracked = network.tracked[channel]
    highest, total, scale = tracked[0], 0.0, unit * FIRST_SCALE
    for g in range(1, NUM_TRACKED):
        highest = max(highest, tracked[g])
    for g in range(NUM_TRACKED):
        weight = arithmetic.exact_exp(0.6931471805599453 * (tracked[g] - highest))
        network.weights[count + g] = weight
        total = total + weight
        network.means[count + g] = 0.0
        network.inverses[count + g] = 1.0 / max(scale, MIN_SCALE)
        scale = scale * 1.75
    for g in range(NUM_TRACKED):
        network.weights[count + g] = network.weights[count + g] / total * share


def learn(network: Network, table: np.ndarray, channel: int, distance: float) -> None:
    """Tell the mixture the sample that came, less the anchor.

    The weights of the components that follow are Bayesian with a memory that fades: log2 w = decay log2 w + log2 mass.
    So are the odds between them and the network. The network's own logits get a bias that descends the code length.
    """
    count = network.bias.shape[1]
    by_network, by_tracked, net_weight, tracked_weight = 0.0, 0.0, 0.0, 0.0
    for m in range(count + NUM_TRACKED):
        upper = arithmetic.logistic(table, (distance + 0.5 - network.means[m]) * network.inverses[m])
        lower = arithmetic.logistic(table, (distance - 0.5 - network.means[m]) * network.inverses[m])
        mass = max(upper - lower, LEAST_MASS)
        network.masses[m] = mass
        if m < count:
            by_network = by_network + network.weights[m] * mass
            net_weight = net_weight + network.weights[m]
        else:
            by_tracked = by_tracked + network.weights[m] * mass
            tracked_weight = tracked_weight + network.weights[m]
    for m in range(count):
        gained = network.weights[m] * (network.masses[m] / by_network - 1.0 / net_weight)
        network.bias[channel, m] += BIAS_RATE * gained
    for g in range(NUM_TRACKED):
        tracked = TRACK_DECAY * network.tracked[channel, g]
        network.tracked[channel, g] = tracked + arithmetic.exact_log2(float(network.masses[count + g]))
    gain = arithmetic.exact_log2(by_network / net_weight) - arithmetic.exact_log2(by_tracked / tracked_weight)
    odds = FIRST_ODDS + ODDS_DECAY * (network.odds[channel] - FIRST_ODDS) + gain
    network.odds[channel] = min(max(odds, -12.0), 12.0)


def build() -> None:
    """Compile the kernels of this module and those that they call."""
    arithmetic.build()
    compile_module(__name__, ("add_rows", "tanh", "step", "follow", "mix", "learn"))
