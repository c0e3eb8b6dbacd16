"""Random numbers that are a function of the item, not of the batch: counter-based, on any device.

Every item of a batch carries a seed, a hash of (seed of the run, epoch, index). A draw is a hash of (item seed, salt,
position): neither the batch size, nor micro-batches, nor worker processes, nor the device change what an item gets.
Nothing is kept between draws and nothing is read back from the device.

The hash is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014): position
n of the stream that starts at s is mix(s + (n + 1) GAMMA). PyTorch has no unsigned 64-bit arithmetic on all devices, so
it is done in int64, whose products and sums wrap around alike; logical shifts mask off the copies of the sign.
Integers and uniform numbers are the same bit for bit everywhere; normal numbers go through log, cos and sin, whose last
bit may differ from device to device.
"""

import functools
import math
from typing import Any

import numpy as np
import torch
from numpy.random.bit_generator import ISeedSequence
from torch import Tensor

ITEM_SEED = "item_seed"  # the key of a batch under which the loader gives the items' seeds: (B,) int64
GAMMA = 0x9E3779B97F4A7C15
FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
SHIFTS = (30, 27, 31)
WORD = 2**64


def item_seed(seed: int, epoch: int, index: int) -> int:
    """The seed of an item, 0 .. 2^63 - 1: a hash of (seed, epoch, index), each of any size."""
    return mix_number(_of_epoch(seed, epoch) ^ mix_number(index)) >> 1


@functools.lru_cache(64)
def _of_epoch(seed: int, epoch: int) -> int:
    return mix_number(mix_number(mix_number(seed)) ^ mix_number(epoch))


class _Words(ISeedSequence):
    """Hands a generator the words of its first state as they are."""

    def __init__(self, *words: int) -> None:
        self._words = np.array(words, np.uint64)

    def generate_state(self, n_words: int, dtype: Any = np.uint64) -> np.ndarray:
        """The words, of which PCG64 asks for four."""
        return self._words


def item_generator(seed: int) -> np.random.Generator:
    """What an item of that `item_seed` draws from while it is made; `numpy.random.default_rng` takes longer over it."""
    words: Any = _Words(seed, mix_number(seed), 0, 0)  # numpy's types do not know that it takes such
    return np.random.Generator(np.random.PCG64(words))


def mix_number(value: int) -> int:
    """The hash of one number: 0 .. 2^64 - 1."""
    state = (value + GAMMA) % WORD
    for shift, factor in zip(SHIFTS, FACTORS, strict=False):
        state = (state ^ state >> shift) * factor % WORD
    return state ^ state >> SHIFTS[2]


def hashes(item_seeds: Tensor, salt: int, count: int) -> Tensor:
    """item_seeds: (B,) int64 -> (B, count) int64, all 64 bits of each evenly random.

    Args:
        salt: tells the draws of an item apart, any whole number.
        count: numbers of an item; a longer row begins with the shorter one.
    """
    starts = _mix(item_seeds ^ _signed(mix_number(salt)))
    positions = torch.arange(1, count + 1, device=item_seeds.device) * _signed(GAMMA)
    return _finish(starts[:, None] + positions)


def derive(item_seeds: Tensor, salt: int, count: int) -> Tensor:
    """item_seeds: (B,) int64 -> (B, count) int64, not negative: seeds for the parts of an item."""
    return _shifted(hashes(item_seeds, salt, count), 1)


def uniform(item_seeds: Tensor, salt: int, shape: tuple[int, ...] = ()) -> Tensor:
    """item_seeds: (B,) int64 -> (B, *shape) float32, evenly from [0, 1) in steps of 2^-24."""
    bits = _shifted(hashes(item_seeds, salt, math.prod(shape)), 40)
    return (bits.float() * 2.0**-24).view(-1, *shape)


def integers(item_seeds: Tensor, salt: int, low: int, high: int, shape: tuple[int, ...] = ()) -> Tensor:
    """item_seeds: (B,) int64 -> (B, *shape) int64, evenly from low .. high - 1 (to within 2^-32).

    Raises:
        ValueError: there is no number, or there are more than 2^31.
    """
    if not 0 < high - low <= 2**31:
        raise ValueError(f"high - low must be 1 to 2^31, got {low} and {high}")
    bits = _shifted(hashes(item_seeds, salt, math.prod(shape)), 32)
    return (low + _shifted(bits * (high - low), 32)).view(-1, *shape)


def normal(item_seeds: Tensor, salt: int, shape: tuple[int, ...] = ()) -> Tensor:
    """item_seeds: (B,) int64 -> (B, *shape) float32, normal with mean 0 and standard deviation 1, within 6.7.

    Box and Muller: of one hash, 32 bits give the radius and 32 the angle of two numbers.
    """
    count = math.prod(shape)
    bits = hashes(item_seeds, salt, (count + 1) // 2)
    radius = ((_shifted(bits, 32) + 1).float() * 2.0**-32).log_().mul_(-2).sqrt_()
    angle = (bits & 0xFFFFFFFF).float().mul_(2 * math.pi * 2.0**-32)
    pairs = torch.stack([radius * angle.cos(), radius * angle.sin()], -1)
    return pairs.flatten(1)[:, :count].reshape(-1, *shape)


def _mix(state: Tensor) -> Tensor:
    """mix_number() of every element."""
    return _finish(state + _signed(GAMMA))


def _finish(state: Tensor) -> Tensor:
    """The scrambling of SplitMix64; the state is written over."""
    for shift, factor in zip(SHIFTS, FACTORS, strict=False):
        state.bitwise_xor_(_shifted(state, shift)).mul_(_signed(factor))
    return state.bitwise_xor_(_shifted(state, SHIFTS[2]))


def _shifted(state: Tensor, shift: int) -> Tensor:
    """state >> shift with zeros coming in from the left."""
    return (state >> shift).bitwise_and_((1 << (64 - shift)) - 1)


def _signed(word: int) -> int:
    """An unsigned 64-bit number as the int64 of the same bits."""
    return word - WORD if word >= WORD // 2 else word
