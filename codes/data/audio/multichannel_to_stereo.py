"""Recordings of several channels, and the stereo that is made of them.

    python -m codes.data.audio.multichannel_to_stereo --path DIR [--source-channels 6 ...]

experiments/multichannel_to_stereo.yml trains a language model of the stereo given all channels.
"""

from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np

from codes.data.audio.channel_layout import ChannelMix, mix, stereo_downmix
from codes.data.audio.chunk_dataset import ChunkDataset
from codes.registry import Range


class MultichannelToStereoDataset(ChunkDataset):
    """Chunks of multichannel audio and of its stereo mix: ``multichannel`` (C, T) and ``wav`` (2, T).

    Args:
        source_channels: channels that the files have.
        weights: two lists with a weight for each channel: how the stereo is made; null: the downmix of ITU-R BS.775 for
            up to six channels (L R C LFE Ls Rs), scaled so that it cannot clip.
    """

    provides = {
        **ChunkDataset.provides,
        "wav": "the stereo mix, (2, context_frames + chunk_frames), int16 for bits <= 16, else int32",
        "multichannel": "(source_channels, context_frames + chunk_frames), same dtype",
    }

    def __init__(
        self,
        *,
        source_channels: Annotated[int, Range(least=1)] = 6,
        weights: list[list[float]] | None = None,
        **audio: Any,
    ) -> None:
        self.num_channels = source_channels
        self._weights = np.array(stereo_downmix(source_channels) if weights is None else _checked(weights))
        if self._weights.shape != (2, source_channels):
            raise ValueError(
                f"weights must be two lists of {source_channels} numbers (source_channels), got {self._weights.shape}"
            )
        super().__init__(**audio)

    def finish(self, item: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Adds the stereo mix."""
        return {**item, "multichannel": item["wav"], "wav": mix(item["wav"], self._weights, self.bits)}

    def scored_audio(self, most_frames: int | None = None) -> Iterator[tuple[str, np.ndarray, int, int]]:
        """The stereo mix of the whole chunks of each segment: what is predicted."""
        for path, pcm, bits, rate in super().scored_audio(most_frames):
            yield path, mix(pcm, self._weights, self.bits), bits, rate


def _checked(weights: list[list[float]]) -> list[list[float]]:
    """Weights that cannot clip."""
    try:
        ChannelMix(aggregate=weights)
    except ValueError as error:
        raise ValueError(str(error).replace("aggregate", "weights")) from error
    return weights


if __name__ == "__main__":
    from codes.data.audio import preview

    preview.main("multichannel_to_stereo")
