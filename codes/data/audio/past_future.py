"""The past of a channel and its future, adjacent in time: a task of sequence to sequence, or of one sequence.

    python -m codes.data.audio.past_future --path DIR [--past-frames N --future-frames N ...]

experiments/past_future.yml trains a language model that is judged on the future alone.
"""

from typing import Any

import numpy as np

from codes.data.audio.channel_layout import ChannelChoice
from codes.data.audio.chunk_dataset import WindowDataset


class PastFutureDataset(WindowDataset):
    """A stretch of audio in two parts, past and future, within each channel by itself.

    Futures are chosen as `mono_chunk` chooses its chunks; before the start of a file the past is zeros.

    Args:
        past_frames: length of the past in frames.
        future_frames: length of the future in frames.
        channels: "each": every channel of every file by itself; "mono": the mean of all channels; "exact": mono files
            only; {select: [i]} takes one channel; {aggregate: [[weights]]} mixes them.
    """

    num_channels = 1
    provides = {
        **WindowDataset.provides,
        "wav": "past and future, (1, past_frames + future_frames), int16 for bits <= 16, else int32",
        "past": "(1, past_frames), the same integers",
        "future": "(1, future_frames), the same integers",
        "start_frame": "the frame of the file at which the future starts, int",
    }

    def __init__(
        self, *, past_frames: int = 4096, future_frames: int = 1024, channels: ChannelChoice = "each", **audio: Any
    ) -> None:
        if past_frames < 1 or future_frames < 1:
            raise ValueError(f"past_frames and future_frames must be 1 or more, got {past_frames} and {future_frames}")
        self.chunk_frames, self.context_frames = future_frames, past_frames
        self.prev_frames, self.next_frames = past_frames, future_frames  # as networks that continue call them
        super().__init__(channels=channels, **audio)

    def finish(self, item: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Adds the two parts."""
        border = self.context_frames
        return {**item, "past": item["wav"][:, :border], "future": item["wav"][:, border:]}


if __name__ == "__main__":
    from codes.data.audio import preview

    preview.main("past_future")
