"""Two stretches of audio that follow each other, of random lengths: the task of "Deep LoFi Beats".

    python -m codes.data.audio.prev_next --path DIR [--prev-frames '[2000, 8000]' --next-frames '[1000, 4000]' ...]

experiments/prev_next.yml trains a language model on it. Items of one batch must have one shape: prev ends at the border
and has zeros before it, next begins there and has zeros after it, and their lengths stand beside them.
"""

from typing import Any

import numpy as np

from codes.data.audio.channel_layout import ChannelChoice
from codes.data.audio.chunk_dataset import WindowDataset


class PrevNextDataset(WindowDataset):
    """A stretch of random length and the stretch of random length that follows it.

    Args:
        prev_frames: shortest and longest length of prev, in frames; one number for a fixed length.
        next_frames: shortest and longest length of next, in frames; one number for a fixed length.
        channels: "each": every channel of every file by itself; "mono": the mean of all channels; "exact": mono files
            only; {select: [i]} takes one channel; {aggregate: [[weights]]} mixes them.
    """

    num_channels = 1
    provides = {
        **WindowDataset.provides,
        "wav": "prev and next around the border, (1, longest prev + longest next), int16 for bits <= 16, else int32",
        "prev": "(1, longest prev), zeros before it begins",
        "next": "(1, longest next), zeros after it ends",
        "prev_length": "frames of prev, int",
        "next_length": "frames of next, int",
        "next_mask": "(longest next) bool, true within next",
    }

    def __init__(
        self,
        *,
        prev_frames: tuple[int, int] | int = (1024, 4096),
        next_frames: tuple[int, int] | int = (512, 2048),
        channels: ChannelChoice = "each",
        **audio: Any,
    ) -> None:
        self._prev = _range("prev_frames", prev_frames)
        self._next = _range("next_frames", next_frames)
        self.prev_frames, self.next_frames = self._prev[1], self._next[1]  # of what is given
        self.chunk_frames = self.prev_frames + self.next_frames
        super().__init__(channels=channels, **audio)

    def finish(self, item: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Draws the lengths, and silences what lies outside."""
        prev_length, next_length = (int(rng.integers(low, high + 1)) for low, high in (self._prev, self._next))
        border = self._prev[1]
        wav = item["wav"]
        wav[:, : border - prev_length] = 0
        wav[:, border + next_length :] = 0
        return {
            **item,
            "prev": wav[:, :border],
            "next": wav[:, border:],
            "prev_length": prev_length,
            "next_length": next_length,
            "next_mask": np.arange(self._next[1]) < next_length,
        }


def _range(name: str, value: tuple[int, int] | int) -> tuple[int, int]:
    low, high = (value, value) if isinstance(value, int) else value
    if not 1 <= low <= high:
        raise ValueError(f"{name} must be one length or [shortest, longest] of 1 or more, got [{low}, {high}]")
    return low, high


if __name__ == "__main__":
    from codes.data.audio import preview

    preview.main("prev_next")
