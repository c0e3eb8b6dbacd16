"""Long audio through a codec in blocks: as many frames as in one piece, in memory for one block.

Each block is coded with audio before and after it, whose frames are dropped again. A codec of convolutions alone gives
the very codes of the whole, where that context covers what its convolutions see; one with an LSTM or attention gives
nearly the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from codes.models.audio_codec import AudioCodec


@dataclass(frozen=True)
class Block:
    """Frames of a recording: those that a codec is given, and those of its output that are kept.

    Args:
        start, end: the frames that it is given.
        first, last: the frames that are kept, counted in the recording.
    """

    start: int
    end: int
    first: int
    last: int

    @property
    def kept(self) -> slice:
        """The kept frames within those that it was given."""
        return slice(self.first - self.start, self.last - self.start)


def blocks_of(num_frames: int, block_frames: int, before_frames: int, after_frames: int) -> Iterator[Block]:
    """Blocks of one length that together keep every frame once; a short recording is one block of its own.

    Raises:
        ValueError: nothing would be kept of a block.
    """
    if block_frames < 1 or before_frames < 0 or after_frames < 0:
        raise ValueError("a block has 1 frame or more, and what is before and after it 0 or more")
    whole = before_frames + block_frames + after_frames
    first = 0
    while first < num_frames:
        start = max(0, min(first - before_frames, num_frames - whole))
        end = min(start + whole, num_frames)
        last = num_frames if end == num_frames else end - after_frames
        yield Block(start, end, first, last)
        first = last


@torch.no_grad()
def decode_in_blocks(
    codec: AudioCodec, codes: Tensor, *, block_frames: int = 500, before_frames: int = 50, after_frames: int = 25
) -> Iterator[Tensor]:
    """codes (B, K, F) -> parts of the audio, (B, C, n * hop) float each, one after the other."""
    hop = codec.hop_samples
    for block in blocks_of(codes.shape[2], block_frames, before_frames, after_frames):
        wav = codec.decode(codes[:, :, block.start : block.end])
        yield wav[:, :, block.kept.start * hop : block.kept.stop * hop]
