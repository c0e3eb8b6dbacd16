"""Chunks of one channel: each channel of each file by itself, one of them, or their mean.

    python -m codes.data.audio.mono_chunk --path DIR [--channels mono ...]

The task is mono autoregression: experiments/mono_lm.yml.
"""

from typing import Any

from codes.data.audio.channel_layout import ChannelChoice
from codes.data.audio.chunk_dataset import ChunkDataset


class MonoChunkDataset(ChunkDataset):
    """Chunks of mono PCM, with the frames before each as context: ``wav`` is (1, context_frames + chunk_frames).

    Args:
        channels: "each": every channel of every file by itself; "mono": the mean of all channels; "exact": mono files
            only; {select: [i]} takes one channel; {aggregate: [[weights]]} mixes them.
    """

    num_channels = 1

    def __init__(self, *, channels: ChannelChoice = "each", **audio: Any) -> None:
        super().__init__(channels=channels, **audio)


if __name__ == "__main__":
    from codes.data.audio import preview

    preview.main("mono_chunk")
