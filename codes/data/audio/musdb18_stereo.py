"""MUSDB18 in stereo: mixtures, stems, or several stems at once; see `codes.data.audio.musdb18`.

python -m codes.data.audio.musdb18_stereo --path DIR [--stems '[drums, bass]' --subset test ...]
"""

from codes.data.audio.musdb18 import Musdb18Dataset


class Musdb18StereoDataset(Musdb18Dataset):
    """Stereo chunks of MUSDB18 (https://sigsep.github.io/datasets/musdb.html): songs, 44,100 Hz, 16 bits.

    ``wav`` is (2 * stems, context_frames + chunk_frames). Both MUSDB18-HQ (WAV) and MUSDB18 (STEM MP4) are read.
    """

    num_channels = 2


if __name__ == "__main__":
    from codes.data.audio import preview

    preview.main("musdb18_stereo")
