"""Where long recordings of speech are cut: at pauses, and where there is none for too long, at the quietest place.

The level of each hundredth of a second is compared with the recording's own: what lies in the lower third between its
quiet (5 % of the frames) and its loud frames (95 %) is a pause, if it lasts long enough. So the same options fit a
studio and a street; digital silence does not count as the recording's quiet.
"""

from dataclasses import dataclass

import numpy as np

FRAMES_A_SECOND = 100
LEAST_DB = -100.0  # of a frame; 0 dB is full scale
_SILENT_DB = -85.0  # and below: digital silence, whatever the recording
_PAUSE_SHARE = 0.35  # of the way from quiet to loud
_LEAST_SPAN_DB = 6.0  # from quiet to loud; less, and nothing can be told apart
_SMOOTH_FRAMES = 5
_CUT_FRAMES = 15  # over which the quietest place is looked for


@dataclass(frozen=True, kw_only=True)
class SplitOptions:
    """How recordings are cut.

    Args:
        min_seconds: shortest piece.
        max_seconds: longest piece, margins included.
        min_pause_seconds: shorter pauses belong to the speech.
        join_pause_seconds: pieces are joined up to max_seconds where no longer pause lies between them.
        margin_seconds: silence that is kept before and after a piece.

    Raises:
        ValueError: the lengths contradict each other.
    """

    min_seconds: float = 1.0
    max_seconds: float = 11.6
    min_pause_seconds: float = 0.3
    join_pause_seconds: float = 0.8
    margin_seconds: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.min_seconds <= self.max_seconds / 2:
            raise ValueError(f"min_seconds is {self.min_seconds}, allowed are above 0 to {self.max_seconds / 2}")
        if min(self.min_pause_seconds, self.join_pause_seconds, self.margin_seconds) < 0:
            raise ValueError("min_pause_seconds, join_pause_seconds and margin_seconds must be 0 or more")
        if 2 * self.margin_seconds >= self.max_seconds - self.min_seconds:
            raise ValueError(f"margin_seconds is {self.margin_seconds}: two leave nothing of {self.max_seconds}")


class FrameLevels:
    """The level of each hundredth of a second of a signal that comes block by block.

    Args:
        sample_rate_hz: of the signal, 100 or more.
        bits: of its integers.
    """

    def __init__(self, sample_rate_hz: int, bits: int) -> None:
        self._rate, self._full_scale = sample_rate_hz, 2.0 ** (bits - 1)
        self._held = np.zeros(0)
        self._first = 0  # frame of the held samples
        self._parts: list[np.ndarray] = []

    def add(self, block: np.ndarray) -> None:
        """Take the next (n,) samples."""
        held = np.concatenate([self._held, block.astype(np.float64) / self._full_scale])
        start = self._start(self._first)
        last = self._first + max(0, (len(held) * FRAMES_A_SECOND) // self._rate - 1)
        edges = np.array([self._start(frame) - start for frame in range(self._first, last + 1)])
        if len(edges) > 1:
            sums = np.add.reduceat(held[: edges[-1]] ** 2, edges[:-1])
            self._parts.append(sums / np.diff(edges))
        self._held, self._first = held[edges[-1] :], last

    def decibels(self) -> np.ndarray:
        """(frames,) levels in dB of full scale, at least `LEAST_DB`; the last frame may be shorter than the others."""
        last = [np.array([np.mean(self._held**2)])] if len(self._held) else []
        power = np.concatenate([*self._parts, *last]) if self._parts or last else np.zeros(0)
        return np.maximum(LEAST_DB, 10.0 * np.log10(np.maximum(power, 1e-20)))

    def _start(self, frame: int) -> int:
        return frame * self._rate // FRAMES_A_SECOND


def levels_of(wav: np.ndarray, sample_rate_hz: int, bits: int = 16) -> np.ndarray:
    """(frames,) levels in dB of a whole signal (n,) of integers."""
    levels = FrameLevels(sample_rate_hz, bits)
    levels.add(wav)
    return levels.decibels()


def quiet_and_loud(levels_db: np.ndarray) -> tuple[float, float]:
    """The levels that 5 % and 95 % of the frames do not exceed; digital silence is left aside."""
    heard = levels_db[levels_db > _SILENT_DB]
    if not len(heard):
        return LEAST_DB, LEAST_DB
    quiet, loud = np.percentile(heard, [5, 95])
    return float(quiet), float(loud)


def find_pieces(levels_db: np.ndarray, options: SplitOptions) -> list[tuple[int, int]]:
    """Pieces of speech as (first frame, frame after the last), in hundredths of a second, with their margins.

    Pieces shorter than ``min_seconds`` are given as well: who calls counts what he leaves out.
    """
    sounds = _sounds(levels_db, round(options.min_pause_seconds * FRAMES_A_SECOND))
    margin = round(options.margin_seconds * FRAMES_A_SECOND)
    most = int(options.max_seconds * FRAMES_A_SECOND) - 2 * margin
    least = round(options.min_seconds * FRAMES_A_SECOND)
    joined: list[tuple[int, int]] = []
    for start, end in sounds:
        for piece in _cut(levels_db, start, end, least, most):
            gap = piece[0] - joined[-1][1] if joined else 0
            near = bool(joined) and gap <= options.join_pause_seconds * FRAMES_A_SECOND
            if near and piece[0] == start and piece[1] - joined[-1][0] <= most:
                joined[-1] = joined[-1][0], piece[1]
            else:
                joined.append(piece)
    return _with_margins(joined, margin, len(levels_db))


def _sounds(levels_db: np.ndarray, pause_frames: int) -> list[tuple[int, int]]:
    """Stretches between pauses."""
    quiet, loud = quiet_and_loud(levels_db)
    threshold = quiet + _PAUSE_SHARE * (loud - quiet) if loud - quiet >= _LEAST_SPAN_DB else _SILENT_DB
    heard = np.flatnonzero(_smoothed(levels_db, _SMOOTH_FRAMES) > threshold)
    if not len(heard):
        return []
    breaks = np.flatnonzero(np.diff(heard) > max(1, pause_frames))
    starts = heard[np.concatenate([[0], breaks + 1])]
    ends = heard[np.concatenate([breaks, [len(heard) - 1]])] + 1
    return [(int(start), int(end)) for start, end in zip(starts, ends, strict=True)]


def _cut(levels_db: np.ndarray, start: int, end: int, least: int, most: int) -> list[tuple[int, int]]:
    """A stretch as pieces of at most ``most`` frames, cut where it is quietest in the second half of each."""
    pieces = []
    while end - start > most:
        first, last = start + max(least, most // 2), min(start + most, end - least)
        at = first + int(np.argmin(_smoothed(levels_db[first:last], _CUT_FRAMES)))
        pieces.append((start, at))
        start = at
    return [*pieces, (start, end)]


def _smoothed(levels_db: np.ndarray, width: int) -> np.ndarray:
    """The mean over so many frames, an odd number; the ends count on beyond the ends."""
    if not len(levels_db):
        return levels_db
    return np.convolve(np.pad(levels_db, width // 2, "edge"), np.full(width, 1 / width), "valid")


def _with_margins(pieces: list[tuple[int, int]], margin: int, num_frames: int) -> list[tuple[int, int]]:
    """Pieces with silence around them, none of it twice."""
    widened = []
    for number, (start, end) in enumerate(pieces):
        before = start if number == 0 else start - pieces[number - 1][1]
        after = num_frames - end if number == len(pieces) - 1 else pieces[number + 1][0] - end
        room = before if number == 0 else before // 2, after if number == len(pieces) - 1 else after // 2
        widened.append((start - min(margin, room[0]), end + min(margin, room[1])))
    return widened
