"""From the channels of a file to those of a dataset: as they are, chosen, mixed down or doubled; integers all the way.

A dataset that needs two channels meets mono, stereo, 5.1 and stems. What becomes of each is said by its option
``channels``; a file that the option does not fit is refused or left out with its name, never bent to fit.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from codes.data.audio.reader import AudioInfo

# Stereo downmix of ITU-R BS.775-3, table 2 (surrounds and centre at -3 dB, no low-frequency channel), by number of
# channels, in the order of WAVE_FORMAT_EXTENSIBLE: L R C LFE Ls Rs; four channels are L R Ls Rs.
_HALF_POWER = 0.5**0.5
_DOWNMIX_LEFT = {
    1: [1.0],
    2: [1.0, 0.0],
    3: [1.0, 0.0, _HALF_POWER],
    4: [1.0, 0.0, _HALF_POWER, 0.0],
    5: [1.0, 0.0, _HALF_POWER, _HALF_POWER, 0.0],
    6: [1.0, 0.0, _HALF_POWER, 0.0, _HALF_POWER, 0.0],
}
_DOWNMIX_RIGHT = {
    1: [1.0],
    2: [0.0, 1.0],
    3: [0.0, 1.0, _HALF_POWER],
    4: [0.0, 1.0, 0.0, _HALF_POWER],
    5: [0.0, 1.0, _HALF_POWER, 0.0, _HALF_POWER],
    6: [0.0, 1.0, _HALF_POWER, 0.0, 0.0, _HALF_POWER],
}


@dataclass(frozen=True, kw_only=True)
class ChannelMix:
    """Some channels of a file, or mixtures of them. Give one of the two.

    Args:
        select: numbers of the channels that are taken, counted from 0, in that order
        aggregate: one list of weights for each channel that is made, with a weight for each channel of the file; the
            absolute weights of a list must not add up to more than 1, so that nothing can clip
    """

    select: list[int] | None = None
    aggregate: list[list[float]] | None = None

    def __post_init__(self) -> None:
        if (self.select is None) == (self.aggregate is None):
            raise ValueError("select or aggregate must be given, one of them")
        if self.select is not None and (not self.select or min(self.select) < 0):
            raise ValueError(f"select must name channels by numbers from 0, got {self.select}")
        if self.aggregate is not None:
            _check_weights(self.aggregate)


def _check_weights(rows: list[list[float]]) -> None:
    if not rows or len({len(row) for row in rows}) > 1 or not rows[0]:
        raise ValueError("aggregate must hold lists of one length, a weight for each channel of the file")
    for number, row in enumerate(rows):
        total = sum(abs(weight) for weight in row)
        if not total <= 1.0 + 1e-9:
            raise ValueError(
                f"aggregate: the weights of channel {number} add up to {total:g}, allowed is 1: it would clip"
            )


ChannelChoice = Literal["exact", "mono", "duplicate", "each"] | ChannelMix


class ChannelLayout:
    """What a dataset does with the channels of its files.

    Args:
        choice: "exact": files must have as many channels as are wanted; "mono": the mean of all channels; "duplicate":
            mono becomes as many equal channels as are wanted, others as for exact; "each": every channel of every file
            by itself; or a `ChannelMix`.
        num_channels: how many channels are wanted; None: as many as a file has.

    Raises:
        ValueError: the choice cannot give that number of channels.
    """

    def __init__(self, choice: ChannelChoice, num_channels: int | None) -> None:
        self.choice = choice
        self._takes_all = choice == "exact"
        self.num_channels = num_channels
        gives = self._gives()
        if gives is not None and num_channels is not None and gives != num_channels:
            raise ValueError(
                f"channels gives {gives} channel{'s' if gives > 1 else ''}, and the dataset needs {num_channels}"
            )

    def _gives(self) -> int | None:
        """The number of channels that the choice makes of any file, where it does not depend on the file."""
        if isinstance(self.choice, ChannelMix):
            return len(self.choice.select or self.choice.aggregate or [])
        return 1 if self.choice in ("mono", "each") else None

    def misfit(self, info: AudioInfo) -> str | None:
        """Why a file does not fit, in words that follow its name; None where it does."""
        there = f"has {info.num_channels} channel{'s' if info.num_channels > 1 else ''}"
        if isinstance(self.choice, ChannelMix):
            if self.choice.select is not None and max(self.choice.select) >= info.num_channels:
                return f"{there}, and channels.select names number {max(self.choice.select)} (counted from 0)"
            if self.choice.aggregate is not None and len(self.choice.aggregate[0]) != info.num_channels:
                return f"{there}, and channels.aggregate weighs {len(self.choice.aggregate[0])}"
            return None
        if self.choice in ("mono", "each") or self.num_channels in (None, info.num_channels):
            return None
        if self.choice == "duplicate" and info.num_channels == 1:
            return None
        return f"{there}, and {self.num_channels} {'are' if self.num_channels != 1 else 'is'} needed"

    def channels_of(self, info: AudioInfo) -> list[int | None]:
        """One entry for each time that a file is taken: the channel it is taken for, or None for all at once."""
        return list(range(info.num_channels)) if self.choice == "each" else [None]

    def apply(self, pcm: np.ndarray, bits: int, channel: int | None = None) -> np.ndarray:
        """(C, T) integers of a file to (num_channels, T), same dtype and depth.

        Args:
            pcm: of a file that fits.
            bits: its depth.
            channel: the one that is taken, for "each".
        """
        if channel is not None:
            return pcm[channel : channel + 1]
        if self._takes_all:
            return pcm
        if isinstance(self.choice, ChannelMix):
            if self.choice.select is not None:
                return pcm[self.choice.select]
            return mix(pcm, np.array(self.choice.aggregate), bits)
        if self.choice == "mono" and len(pcm) > 1:
            return mean(pcm)
        if self.choice == "duplicate" and len(pcm) == 1 and self.num_channels:
            return np.repeat(pcm, self.num_channels, axis=0)
        return pcm


def mean(pcm: np.ndarray) -> np.ndarray:
    """The mean of all channels, (C, T) integers to (1, T), same dtype; rounded to the nearest, halves up."""
    total = pcm.sum(axis=0, dtype=np.int64, keepdims=True)
    return ((2 * total + len(pcm)) // (2 * len(pcm))).astype(pcm.dtype)


def mix(pcm: np.ndarray, weights: np.ndarray, bits: int) -> np.ndarray:
    """Integers (C, T) of ``bits`` bits mixed by weights (K, C) to integers (K, T), same dtype and depth.

    Rounded to the nearest. Channels are added one after the other, never by a library's product of matrices, whose
    order of adding depends on the length: a chunk is the slice of the whole. Where each row's absolute weights add up
    to 1 or less, only -2^(bits-1) turned over leaves the range, by one, and is held at its end.
    """
    mixed = np.zeros((len(weights), pcm.shape[1]))
    for channel, samples in enumerate(pcm.astype(np.float64)):
        mixed += weights[:, channel : channel + 1] * samples
    limit = 2.0 ** (bits - 1)
    return np.clip(np.rint(mixed), -limit, limit - 1).astype(pcm.dtype)


def stereo_downmix(num_channels: int) -> list[list[float]]:
    """Weights (2, num_channels) of the stereo downmix of ITU-R BS.775, scaled so that nothing can clip.

    Raises:
        ValueError: there is no such downmix for that number of channels.
    """
    if num_channels not in _DOWNMIX_LEFT:
        raise ValueError(
            f"there is no standard downmix of {num_channels} channels to stereo (there is one for 1 to 6): "
            "give the weights"
        )
    scale = 1.0 / sum(_DOWNMIX_LEFT[num_channels])
    return [[scale * weight for weight in table[num_channels]] for table in (_DOWNMIX_LEFT, _DOWNMIX_RIGHT)]
