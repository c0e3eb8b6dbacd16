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


class Network(NamedTuple):
    """Weights and room to work in; F features, H hidden, M components, K offsets, P = M (3 + K)."""

    input_rows: np.ndarray  # (F, 3 H) float32
    input_bias: np.ndarray  # (3 H,) float32
    hidden_rows: np.ndarray  # (H, 3 H) float32
    hidden_bias: np.ndarray  # (3 H,) float32
    output_rows: np.ndarray  # (H + F, P) float32
    output_bias: np.ndarray  # (P,) float32
    hidden: np.ndarray  # (2, H) float32, of each channel
    gates: np.ndarray  # (2, 3 H) float32
    outputs: np.ndarray  # (P,) float32
    weights: np.ndarray  # (M,) float64, of the mixture
    means: np.ndarray  # (M,) float64, relative to the stack's prediction, in steps
    inverses: np.ndarray  # (M,) float64, 1 / scale


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
        weights=np.zeros(mixtures),
        means=np.zeros(mixtures),
        inverses=np.zeros(mixtures),
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
        reset = 0.5 + 0.5 * tanh(0.5 * (float(seen[i]) + float(kept[i])))
        seen[2 * size + i] = float(seen[2 * size + i]) + reset * float(kept[2 * size + i])
    for i in range(size):
        keep = 0.5 + 0.5 * tanh(0.5 * (float(seen[size + i]) + float(kept[size + i])))
        new = tanh(float(seen[2 * size + i]))
        value = new + keep * (float(hidden[i]) - new)
        hidden[i] = value if abs(value) > 1e-20 else 0.0  # nothing denormal, which is slow


def mix(network: Network, channel: int, features: np.ndarray, offsets: np.ndarray, unit: float) -> None:
    """Fill the mixture's weights, means and inverse scales from the hidden state of a channel."""
    outputs, hidden = network.outputs, network.hidden[channel]
    outputs[:] = network.output_bias
    add_rows(outputs, hidden, network.output_rows, 0)
    add_rows(outputs, features, network.output_rows, len(hidden))
    count = len(network.weights)
    span = len(outputs) // count
    highest = outputs[0]
    for m in range(1, count):
        highest = max(highest, outputs[m * span])
    total = 0.0
    for m in range(count):
        base = m * span
        weight = arithmetic.exact_exp(float(outputs[base]) - float(highest))
        network.weights[m] = weight
        total = total + weight
        log_scale = min(max(float(outputs[base + 1]), -MAX_LOG_SCALE), MAX_LOG_SCALE)
        network.inverses[m] = 1.0 / max(unit * arithmetic.exact_exp(log_scale), MIN_SCALE)
        mean = float(outputs[base + 2])
        for k in range(span - 3):
            mean = mean + float(outputs[base + 3 + k]) * float(offsets[k])
        network.means[m] = mean * unit
    for m in range(count):
        network.weights[m] = network.weights[m] / total


def build() -> None:
    """Compile the kernels of this module and those that they call."""
    arithmetic.build()
    compile_module(__name__, ("add_rows", "tanh", "step", "mix"))
