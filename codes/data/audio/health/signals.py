"""What is measured of a signal that comes block by block: level, clipping, silence, equal channels, real depth.

Every class here takes (C, n) integers with ``add`` and keeps bounded or nearly bounded state: ten means and a hundred
flags for each second.
"""

import hashlib
from itertools import combinations

import numpy as np

_SLOTS = 1 << 16
FEW_VALUES = 1024
FEWEST_VALUES = 16  # of fewer, nothing can be said
_WHITE_STEPS = 100.0  # channels quieter than this power, in squared steps, are too quiet to be compared
FULL_SCALE_SHARE = 0.98  # a peak from here on is at full scale
CLIPPED_RUN = 3  # samples


class Clipping:
    """Runs of `CLIPPED_RUN` samples or more at the file's own highest or lowest value, entered by a step.

    A wave that is cut off reaches the limit steeply. The top of a slow wave that only touches it is a parabola: where n
    samples share its highest value, the sample before them lies no more than 2 steps lower (0.5 (1 + 2 / n)^2 steps,
    rounded), so a run counts only where that sample lies lower.
    """

    def __init__(self, num_channels: int) -> None:
        self._tail = np.zeros((num_channels, 1), np.int32)
        self._peaks = np.zeros((num_channels, 2), np.int64)
        self._runs = np.zeros((num_channels, 2), np.int64)
        self._triples = np.zeros((num_channels, 2), np.int64)

    def add(self, block: np.ndarray, step: int) -> None:
        """Take the next block; ``step`` is the least distance between values so far."""
        joined = np.concatenate([self._tail, block], axis=1)
        highest, lowest = block.max(axis=1), block.min(axis=1)
        for channel, row in enumerate(joined):
            self._add(channel, 0, row, int(highest[channel]), step)
            self._add(channel, 1, row, -int(lowest[channel]), step)
        self._tail = joined[:, -3:]

    def _add(self, channel: int, side: int, row: np.ndarray, extreme: int, step: int) -> None:
        if extreme > self._peaks[channel, side]:
            self._peaks[channel, side] = extreme
            self._runs[channel, side] = self._triples[channel, side] = 0
        elif extreme < self._peaks[channel, side] or extreme <= 0:
            return
        at_peak = row == (extreme if side == 0 else -extreme)
        triples = np.flatnonzero(at_peak[1:-2] & at_peak[2:-1] & at_peak[3:]) + 1
        self._triples[channel, side] += len(triples)
        before = row[triples - 1].astype(np.int64) * (1 if side == 0 else -1)
        self._runs[channel, side] += np.count_nonzero(before < extreme - 2 * step)

    def totals(self, bits: int) -> tuple[int, int]:
        """Runs, and samples in them, of those channels and sides whose peak is at full scale."""
        counted = (self._peaks >= FULL_SCALE_SHARE * 2.0 ** (bits - 1)) & (self._runs > 0)
        runs = int(self._runs[counted].sum())
        return runs, int(self._triples[counted].sum()) + (CLIPPED_RUN - 1) * runs


class Levels:
    """Sums, extremes, means of 0.1 s, and which hundredths of a second are digital silence in all channels."""

    def __init__(self, num_channels: int, frames_a_hundredth: int) -> None:
        self._hundredth = frames_a_hundredth
        self.num_frames = 0
        self.sums = np.zeros(num_channels)
        self.products = np.zeros((num_channels, num_channels))
        self.lowest = np.full(num_channels, np.iinfo(np.int64).max)
        self.highest = np.full(num_channels, np.iinfo(np.int64).min)
        self._means: list[np.ndarray] = []
        self._silent: list[np.ndarray] = []

    def add(self, block: np.ndarray) -> None:
        """Take the next block, a whole number of tenths of a second except for the last one."""
        samples = block.astype(np.float64)
        self.num_frames += block.shape[1]
        self.sums += samples.sum(axis=1)
        self.products += samples @ samples.T
        self.lowest = np.minimum(self.lowest, block.min(axis=1))
        self.highest = np.maximum(self.highest, block.max(axis=1))
        self._means.append(_windows(samples, 10 * self._hundredth).mean(axis=2))
        self._silent.append(np.asarray(np.all(_windows(block, self._hundredth) == 0, axis=(0, 2))))

    def offsets(self) -> np.ndarray:
        """(C,) the mean of each channel, 0 where it is not there throughout.

        A constant offset shows in nearly every tenth of a second. The mean of a bass note, or of a drum that leaves the
        cone on one side, does not.
        """
        means = np.concatenate(self._means, axis=1)  # (C, tenths)
        offsets = self.sums / max(1, self.num_frames)
        if means.shape[1] < 5:
            return np.zeros(len(offsets))
        there = (means * np.sign(offsets)[:, None] >= 0.5 * np.abs(offsets)[:, None]).mean(axis=1)
        return np.where(there >= 0.9, offsets, 0.0)

    def silence(self) -> tuple[float, float]:
        """The share of the time in digital silence, and the longest stretch of it in seconds."""
        silent = np.concatenate(self._silent)
        if not silent.any():
            return 0.0, 0.0
        changes = np.flatnonzero(np.diff(np.concatenate([[0], silent.astype(np.int8), [0]])))
        return float(silent.mean()), float((changes[1::2] - changes[::2]).max() / 100.0)

    def equal_up_to_gain(self, step: int) -> list[tuple[int, int, float]]:
        """Pairs of channels that are one signal at two gains, within what rounding leaves: (i, j, j's gain over i's).

        If x = round(s) and y = round(g s), then y - g x has the variance (1 + g^2) step^2 / 12; twice that is allowed.
        """
        pairs = []
        for i, j in combinations(range(len(self.sums)), 2):
            if self.products[i, i] < self.products[j, j]:
                gain, left = self._fit(j, i)
                gain = 1.0 / gain if gain else 0.0
            else:
                gain, left = self._fit(i, j)
            loud = min(self.products[i, i], self.products[j, j]) > _WHITE_STEPS * step**2 * self.num_frames
            least = min(abs(gain), 1.0 / abs(gain)) if gain else 0.0
            if loud and left <= (1.0 + least**2) * step**2 / 6.0 * self.num_frames:
                pairs.append((i, j, gain))
        return pairs

    def _fit(self, loud: int, quiet: int) -> tuple[float, float]:
        """The gain from the louder to the quieter channel, and the power that it does not explain."""
        if self.products[loud, loud] == 0.0:
            return 0.0, np.inf
        gain = self.products[loud, quiet] / self.products[loud, loud]
        return float(gain), float(self.products[quiet, quiet] - gain * self.products[loud, quiet])


def _windows(samples: np.ndarray, length: int) -> np.ndarray:
    """(C, n) as (C, windows, length); what is left over at the end stands alone only where there is no whole window."""
    length = min(length, samples.shape[1])
    count = samples.shape[1] // length
    return samples[:, : count * length].reshape(len(samples), count, length)


class Depth:
    """Which bits are ever set, how many different values there are, and whether few values lie on a coarse grid.

    The values are counted in a table of 2^16 places: exactly up to 16 bits, by a hash above, where few stay few.
    """

    num_values = 0  # different values, at most 65536

    def __init__(self) -> None:
        self._ever = 0
        self._seen = np.zeros(_SLOTS, bool)
        self._values = np.zeros(0, np.int64)

    def add(self, block: np.ndarray) -> None:
        """Take the next block."""
        self._ever |= int(np.bitwise_or.reduce(block, axis=None))
        if block.dtype == np.int16:
            places = block.view(np.uint16)
        else:
            places = (block.view(np.uint32) * np.uint32(2_654_435_769)) >> np.uint32(16)  # Knuth's multiplicative hash
        self._seen[places.ravel()] = True
        self.num_values = int(self._seen.sum())
        if self.num_values <= FEW_VALUES:
            self._values = np.union1d(self._values, block)

    @property
    def step(self) -> int:
        """2 to the number of lowest bits that are always zero; 1 for silence."""
        return self._ever & -self._ever or 1

    def grid_step(self) -> int:
        """The distance between neighbouring values, where there are few and it is the same (to 1) for most; else 0.

        8-bit sound at another gain has it. A tone whose period is a whole number of samples has few values too, but at
        all distances.
        """
        if not FEWEST_VALUES <= self.num_values <= FEW_VALUES:
            return 0
        gaps = np.diff(self._values)
        middle = int(np.median(gaps))
        return middle if np.mean(np.abs(gaps - middle) <= 1) >= 0.6 else 0


class PcmHash:
    """A hash of each channel's samples, left-justified in 32 bits: the same for any container, tags or padding bits."""

    def __init__(self, num_channels: int, bits: int) -> None:
        self._bits = bits
        self._hashes = [hashlib.sha256() for _ in range(num_channels)]

    def add(self, block: np.ndarray) -> None:
        """Take the next block."""
        full = np.ascontiguousarray(block).astype("<i4") << (32 - self._bits)
        for channel, digest in zip(full, self._hashes, strict=True):
            digest.update(channel)

    def channels(self) -> list[str]:
        """One hash a channel, in hexadecimal."""
        return [digest.hexdigest() for digest in self._hashes]
