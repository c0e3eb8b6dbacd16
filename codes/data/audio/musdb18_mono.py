"""MUSDB18 in mono: mixtures, stems, or several stems at once; see `codes.data.audio.musdb18`.

python -m codes.data.audio.musdb18_mono --path DIR [--stems vocals --channels '{select: [0]}' ...]
"""

from typing import Any

from codes.data.audio.channel_layout import ChannelChoice
from codes.data.audio.musdb18 import Musdb18Dataset


class Musdb18MonoDataset(Musdb18Dataset):
    """Mono chunks of MUSDB18 (https://sigsep.github.io/datasets/musdb.html): songs, 44,100 Hz, 16 bits.

    ``wav`` is (stems, context_frames + chunk_frames). Both MUSDB18-HQ (WAV) and MUSDB18 (STEM MP4) are read.

    Args:
        channels: "mono": the mean of both channels; "each": every channel by itself; {select: [i]} takes one channel;
            {aggregate: [[weights]]} mixes them.
    """

    num_channels = 1

    def __init__(self, *, channels: ChannelChoice = "mono", **audio: Any) -> None:
        super().__init__(channels=channels, **audio)


if __name__ == "__main__":
    from codes.data.audio import preview

    preview.main("musdb18_mono")
