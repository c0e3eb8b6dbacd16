"""Chunks of stereo audio as exact integers, from any folder of audio files.

    python -m codes.data.audio.stereo_chunk --path DIR [--chunk-frames N ...]

prints what it finds there, a table of items and its speed, and writes a preview picture.
"""

from codes.data.audio.chunk_dataset import ChunkDataset


class StereoChunkDataset(ChunkDataset):
    """Chunks of stereo PCM, with the frames before each as context.

    Training items are chunks that start anywhere, every start in every file being equally likely; the validation items
    are all whole chunks of the validation side, one after the other. ``wav`` is (2, context_frames + chunk_frames).
    """

    num_channels = 2


if __name__ == "__main__":
    from codes.data.audio import preview

    preview.main("stereo_chunk")
