"""docs/wsl-format.md is enough for residual blocks: a decoder written from that page alone gives the same samples.

Nothing of the project is used to decode here. It is plain Python over NumPy, slow, and fuses and reorders nothing: what
is compiled for this machine, with its vectors and fused operations at hand, must compute the same to the last bit.
"""

import math
import struct
import zlib
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from codes.adaptive.cascade_options import AdaptiveOptions
from codes.compression.residual_codec import ResidualCodec
from codes.compression.residual_model import SHIPPED, load_residual_model
from tests.compression.residual_models import MIXTURES, OPTIONS, music, random_tensors, small_model

LN_2 = 0.6931471805599453
TOP = (-2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08, 1.48572235717979e-05,
       6.37261928875436e-04, 4.89352455891786e-03)  # fmt: skip
BOTTOM = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)


def exp(x: float) -> float:
    x = min(max(x, -700.0), 700.0)
    n = math.floor(x * 1.4426950408889634 + 0.5)
    r = x - n * 0.693147180369123816490
    r = r - n * 1.90821492927058770002e-10
    low = 1 + r * (1 + r * (1 / 2 + r * (1 / 6 + r * (1 / 24))))
    high = 1 / 120 + r * (1 / 720 + r * (1 / 5040 + r * (1 / 40320)))
    rest = 1 / 362880 + r * (1 / 3628800 + r * (1 / 39916800))
    q = r * r
    q2 = q * q
    return math.ldexp(low + r * q2 * (high + q2 * rest), n)


def log2(x: float) -> float:
    f, e = math.frexp(x)
    c = 0.7071067811865476
    z = (f - c) / (f + c)
    s = z * z
    return e - 0.5 + 2.885390081777927 * z * (1 + s * (1 / 3 + s * (1 / 5 + s * (1 / 7 + s * (1 / 9 + s / 11)))))


def tanh(x: float) -> float:
    x = min(max(x, -7.9), 7.9)
    top, bottom = 0.0, 0.0
    for coefficient in TOP:
        top = top * (x * x) + coefficient
    for coefficient in BOTTOM:
        bottom = bottom * (x * x) + coefficient
    return x * top / bottom


def squash(a: float) -> float:
    return a / (1 + abs(a) / 2)


TABLE = [0.0] * 1793
for index in range(897):
    tail = exp(-index / 32)
    TABLE[896 + index], TABLE[896 - index] = 1 / (1 + tail), tail / (1 + tail)
TABLE[0], TABLE[1792] = 0.0, 1.0


def logistic(z: float) -> float:
    place = (z + 28) * 32
    if place <= 0:
        return 0.0
    if place >= 1792:
        return 1.0
    i = math.floor(place)
    return TABLE[i] + (place - i) * (TABLE[i + 1] - TABLE[i])


def dot(a: np.ndarray, b: np.ndarray) -> Any:
    p = a * b
    n = len(p)
    while n > 4:
        h = n // 2
        p[:h] += p[n - h : n]
        n -= h
    return in_turn(p[:n])


def in_turn(terms: Any) -> Any:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


class LeastSquares:
    def __init__(self, size: int, decay: float, ridge: float) -> None:
        self.c, self.b, self.w = np.zeros((size, size)), np.zeros(size), np.zeros(size)
        self.decay, self.ridge, self.loudness = decay, ridge, 0.0
        self.kept: list[tuple[np.ndarray, float, float]] = []

    def absorb_and_solve(self) -> None:
        self.c *= self.decay
        self.b *= self.decay
        for x, target, weight in self.kept:
            self.c += (x * weight)[:, None] * x[None, :]
            self.b += (weight * target) * x
        self.kept = []
        size = len(self.b)
        u = np.triu(self.c)
        for i in range(size):
            u[i, i] += self.ridge
            least = 1e-10 * u[i, i]
            for k in range(i):
                u[i, i:] -= u[k, i] * u[k, i:]
            if not u[i, i] > least:
                return
            u[i, i:] *= 1 / np.sqrt(u[i, i])
        b, s = self.b.copy(), np.zeros(size)
        for k in range(size):
            s[k] = b[k] / u[k, k]
            b[k + 1 :] -= u[k, k + 1 :] * s[k]
        for k in range(size - 1, -1, -1):
            products = u[k, k + 1 :] * self.w[k + 1 :]
            rest = len(products) % 4
            t = [in_turn([0.0, *products[:rest], *products[rest::4]])]
            t += [in_turn([0.0, *products[rest + place :: 4]]) for place in (1, 2, 3)]
            self.w[k] = (s[k] - ((t[0] + t[1]) + (t[2] + t[3]))) / u[k, k]


class Stage:
    def __init__(self, taps: int, rate: float) -> None:
        self.taps, self.rate, self.power, self.staged = taps, rate, 0.0, 0.0
        self.inputs, self.weights = np.zeros(taps, np.float32), np.zeros(taps, np.float32)

    def update(self, e: float) -> float:
        left = e - self.staged
        rate = self.rate * left / (self.power + 1 + 0.001 * self.taps)
        self.weights += (np.float32(rate) if abs(rate) > 1e-20 else np.float32(0)) * self.inputs
        newest, oldest = np.float32(e if abs(e) > 1e-10 else 0), self.inputs[-1]
        self.inputs = np.concatenate([[newest], self.inputs[:-1]])
        self.power = max(self.power + float(newest * newest) - float(oldest * oldest), 0.0)
        return left


def power(base: float, exponent: int) -> float:
    return in_turn([1.0]) if exponent == 0 else power(base, exponent - 1) * base


class Channel:
    """The state of one channel."""

    def __init__(self, options: dict[str, Any], is_alone: bool, hidden: int, mixtures: int) -> None:
        self.cascades = []
        for cascade in options["cascades"]:
            size = cascade["own_taps"] + (0 if is_alone else cascade["other_taps"])
            solver = LeastSquares(size, power(cascade["forgetting"], cascade["interval"]), cascade["ridge"])
            stages = [Stage(*pair) for pair in zip(cascade["filter_taps"], cascade["filter_rates"], strict=True)]
            self.cascades.append((cascade, solver, stages))
        count = len(self.cascades)
        self.stack = LeastSquares(2 * count, power(options["stack_forgetting"], 4), options["stack_ridge"])
        self.samples, self.residuals = [0.0] * 300, [0.0] * 300  # newest first
        self.errors, self.stack_errors = np.zeros((count, 2)), np.zeros(4)
        self.hidden = np.zeros(hidden, np.float32)
        self.bias, self.tracked, self.odds = np.zeros(mixtures), [0.0] * 5, 3.0

    def unit(self) -> float:
        return 0.5 * (self.stack_errors[1] + self.stack_errors[2]) + 0.25


class Decoder:
    """Of one payload; the methods have the names of the page."""

    def __init__(self, tensors: dict[str, np.ndarray], mixtures: int, options: dict[str, Any], channels: int) -> None:
        self.tensors, self.mixtures, self.options = tensors, mixtures, options
        hidden = tensors["gru.weight_hh_l0"].shape[1]
        self.channels = [Channel(options, channels == 1, hidden, mixtures) for _ in range(channels)]

    def predict(self, this: Channel, other: Channel | None) -> float:
        self.inputs, self.linear, self.whole = [], [], []
        for cascade, solver, stages in this.cascades:
            x = this.samples[: cascade["own_taps"]] + (other.samples[: cascade["other_taps"]] if other else [])
            self.inputs.append(np.array(x))
            total = dot(self.inputs[-1], solver.w)
            self.linear.append(total)
            for stage in stages:
                stage.staged = float(dot(stage.inputs, stage.weights))
                total = total + stage.staged
            self.whole.append(total)
        self.mean = in_turn([0.0, *self.whole]) / len(self.whole)
        self.y = np.array([value - self.mean for value in self.whole + self.linear])
        return self.mean + dot(self.y, this.stack.w)

    def describe(self, this: Channel, other: Channel | None, is_second: bool) -> np.ndarray:
        unit = this.unit()
        inverse = 1 / unit

        def ratio(e: float) -> float:
            return min(max(log2((e + 0.001) / unit), -12.0), 12.0) / 2

        o = [(whole - self.stacked) * inverse for whole in self.whole]
        self.offsets = np.array([min(max(value, -64.0), 64.0) for value in o], np.float32)
        features = [squash(value) for value in o]
        features += [squash((w - linear) * inverse) for w, linear in zip(self.whole, self.linear, strict=True)]
        features += [ratio(e) for e in this.errors.ravel()] + [ratio(e) for e in this.stack_errors]
        features += [log2(unit) / 4 - 1, float(is_second), float(other is None)]
        features += [squash((self.stacked - this.samples[0]) * inverse / 4)]
        features += [squash(r * inverse) for r in this.residuals[: self.options["own_history"]]]
        if other is None:
            return np.array(features + [0.0] * self.options["other_history"], np.float32)
        inverse = 1 / other.unit()
        return np.array(
            features + [squash(r * inverse) for r in other.residuals[: self.options["other_history"]]], np.float32
        )

    def network(self, this: Channel, x: np.ndarray) -> np.ndarray:
        tensors, h = self.tensors, this.hidden

        def summed(bias: str, weight: np.ndarray, inputs: np.ndarray) -> np.ndarray:
            total = tensors[bias].copy()
            for number, value in enumerate(inputs):
                total = total + value * weight[:, number]
            return total

        a = summed("gru.bias_ih_l0", tensors["gru.weight_ih_l0"], x)
        b = summed("gru.bias_hh_l0", tensors["gru.weight_hh_l0"], h)
        size, new = len(h), []
        for i in range(size):
            reset = 0.5 + tanh(float(a[i] + b[i]) / 2) / 2
            keep = 0.5 + tanh(float(a[size + i] + b[size + i]) / 2) / 2
            c = tanh(float(np.float32(float(a[2 * size + i]) + reset * float(b[2 * size + i]))))
            value = c + keep * (float(h[i]) - c)
            new.append(value if abs(value) > 1e-20 else 0.0)
        this.hidden = np.array(new, np.float32)
        return summed("output.bias", tensors["output.weight"], np.concatenate([this.hidden, x]))

    def mix(self, this: Channel, outputs: np.ndarray) -> None:
        unit, rows = this.unit(), outputs.reshape(self.mixtures, -1)
        logits = [float(row[0]) + bias for row, bias in zip(rows, this.bias, strict=True)]
        weights = [exp(logit - max(logits)) for logit in logits]
        share = 1 / (1 + exp(-LN_2 * this.odds))
        followers = [exp(LN_2 * (tracked - max(this.tracked))) for tracked in this.tracked]
        self.mixture = []
        for row, weight in zip(rows, weights, strict=True):
            scale = max(unit * exp(min(max(float(row[1]), -8.0), 8.0)), 0.03)
            mean = in_turn([row[2], *(w * offset for w, offset in zip(row[3:], self.offsets, strict=True))])
            self.mixture.append((weight / in_turn(weights) * share, float(mean) * unit, 1 / scale))
        scale = unit * 0.22
        for weight in followers:
            self.mixture.append((weight / in_turn(followers) * (1 - share), 0.0, 1 / max(scale, 0.03)))
            scale = scale * 1.75

    def f(self, x: float) -> float:
        return in_turn([0.0, *(weight * logistic((x - mean) * inverse) for weight, mean, inverse in self.mixture)])

    def learn(self, this: Channel, d: float) -> None:
        count = self.mixtures
        masses = [
            max(logistic((d + 0.5 - mean) * inverse) - logistic((d - 0.5 - mean) * inverse), 1e-7)
            for _, mean, inverse in self.mixture
        ]
        weights = [weight for weight, _, _ in self.mixture]
        both = [weight * mass for weight, mass in zip(weights, masses, strict=True)]
        (big_p, big_q), (p, q) = (
            [in_turn([0.0, *terms[:count]]), in_turn([0.0, *terms[count:]])] for terms in (both, weights)
        )
        for m in range(count):
            this.bias[m] += 0.02 * (weights[m] * (masses[m] / big_p - 1 / p))
        for g in range(5):
            this.tracked[g] = 0.97 * this.tracked[g] + log2(masses[count + g])
        odds = 3 + 0.995 * (this.odds - 3) + (log2(big_p / p) - log2(big_q / q))
        this.odds = min(max(odds, -12.0), 12.0)

    def update(self, this: Channel, x: float, frame: int) -> None:
        for k, (cascade, solver, stages) in enumerate(this.cascades):
            e = x - self.linear[k]
            solver.loudness = 0.6 * solver.loudness + 0.4 * abs(e)
            solver.kept.append((self.inputs[k], x, 1 / (solver.loudness + 2)))
            if (frame + 1) % cascade["interval"] == 0:
                solver.absorb_and_solve()
            for stage in stages:
                e = stage.update(e)
            error = abs(x - self.whole[k])
            this.errors[k] += (error - this.errors[k]) * np.array([1 / 16, 1 / 128])
        residual, stack = x - self.stacked, this.stack
        stack.loudness = 0.6 * stack.loudness + 0.4 * abs(residual)
        stack.kept.append((self.y, x - self.mean, 1 / (stack.loudness + 0.5)))
        if (frame + 1) % 4 == 0:
            stack.absorb_and_solve()
        this.stack_errors += (abs(residual) - this.stack_errors) * np.array([1 / 4, 1 / 16, 1 / 64, 1 / 256])
        this.samples, this.residuals = [x, *this.samples[:-1]], [residual, *this.residuals[:-1]]

    def decode(self, payload: bytes, frames: int) -> list[list[int]]:
        shift, place = payload[0], 1
        values: list[range | list[int]] = []
        for _ in self.channels:
            kind, lowest, last = struct.unpack_from("<BiI", payload, place)
            place += 9
            values.append(range(lowest, lowest + last + 1))
            if kind == 1:
                (size,) = struct.unpack_from("<I", payload, place)
                steps = struct.unpack(f"<{last + 1}H", zlib.decompress(payload[place + 4 : place + 4 + size]))
                values[-1] = [lowest + sum(steps[: n + 1]) + n for n in range(last + 1)]
                place += 4 + size
        (size,) = struct.unpack_from("<I", payload, place)
        words = struct.unpack_from(f"<{size}I", payload, place + 4)
        assert place + 4 + 4 * size == len(payload)
        coder, out = RangeDecoder(words), [[] for _ in self.channels]
        for frame in range(frames):
            for number, this in enumerate(self.channels):
                other = self.channels[1 - number] if len(self.channels) == 2 else None
                self.stacked = self.predict(this, other)
                x = self.describe(this, other, number == 1)
                self.mix(this, self.network(this, x))
                known = values[number]
                anchor = min(self.stacked, float(known[-1])) if self.stacked > known[0] else float(known[0])
                sample = known[self.number(coder, known, anchor)]
                self.learn(this, sample - anchor)
                self.update(this, float(sample), frame)
                out[number].append(sample << shift)
        return out

    def number(self, coder: "RangeDecoder", known: range | list[int], anchor: float) -> int:
        def edge(i: int) -> float:
            if i in (0, len(known)) or isinstance(known, range):
                return (
                    (known[0] + i if isinstance(known, range) else known[0] if i == 0 else known[-1] + 1) - 0.5 - anchor
                )
            return 0.5 * (known[i - 1] + known[i]) - anchor

        digits = next(d for d in range(1, 5) if (len(known) - 1) >> 8 * d == 0)
        first, end = 0, len(known)
        for to_come in range(digits - 1, -1, -1):
            step = 256**to_come
            p = -(-(end - first) // step)
            base = self.f(edge(first))
            mass = self.f(edge(end)) - base

            i = (
                coder.symbol([self.left(i, p, base, mass, edge(first + i * step)) for i in range(p + 1)])
                if p > 1
                else 0
            )
            first, end = first + i * step, min(first + (i + 1) * step, end)
        return first

    def left(self, i: int, p: int, base: float, mass: float, edge: float) -> int:
        if i in (0, p):
            return 0 if i == 0 else 1 << 24
        share = i / p if mass <= 1e-13 else (self.f(edge) - base) / mass
        return 2 * i + math.floor(min(max(share, 0.0), 1.0) * (2**24 - 2 * p))


class RangeDecoder:
    def __init__(self, words: tuple[int, ...]) -> None:
        self.words, self.lower, self.range = [*words], 0, (1 << 64) - 1
        self.point = self.next_word() << 32
        self.point |= self.next_word()

    def next_word(self) -> int:
        return self.words.pop(0) if self.words else 0

    def symbol(self, bounds: list[int]) -> int:
        scale = self.range >> 24
        wanted = ((self.point - self.lower) % (1 << 64)) // scale
        i = next(n for n, (left, right) in enumerate(pairwise(bounds)) if left <= wanted < right)
        self.lower = (self.lower + scale * bounds[i]) % (1 << 64)
        self.range = scale * (bounds[i + 1] - bounds[i])
        if self.range < 1 << 32:
            self.lower, self.range = (self.lower << 32) % (1 << 64), self.range << 32
            self.point = (self.point << 32) % (1 << 64) | self.next_word()
        return i


def small_decoder(channels: int) -> Decoder:
    return Decoder(random_tensors(), MIXTURES, OPTIONS.as_dict(), channels)


@pytest.mark.parametrize(("channels", "bits"), [(1, 16), (2, 16), (2, 24), (1, 7)])
def test_a_decoder_from_the_page_alone(channels: int, bits: int) -> None:
    pcm = music(channels, 120, bits)
    payload = ResidualCodec(small_model()).encode(pcm, bits, 44100)
    assert small_decoder(channels).decode(payload, 120) == pcm.tolist()


def test_values_that_never_occur_and_low_bits() -> None:
    pcm = np.random.default_rng(0).choice([-9000, -8000, 40, 8000, 12000], (1, 400)).astype(np.int32)
    pcm[0, ::2] += 8
    payload = ResidualCodec(small_model()).encode(pcm, 16, 44100)
    assert (payload[0], payload[1]) == (3, 1)  # three zero bits, a table
    assert small_decoder(1).decode(payload, 400) == pcm.tolist()


def test_the_model_that_ships() -> None:
    from safetensors.numpy import load_file

    model, pcm = load_residual_model(SHIPPED), music(2, 40, 16)
    options = AdaptiveOptions.as_dict(model.adaptive)
    payload = ResidualCodec(model).encode(pcm, 16, 44100)
    assert Decoder(load_file(SHIPPED), model.mixtures, options, 2).decode(payload, 40) == pcm.tolist()
