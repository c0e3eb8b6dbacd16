"""Beethoven: ten hours of piano sonatas in clips of eight seconds.

    python -m codes.data.audio.beethoven --path DIR [--chunk-frames N ...]

The benchmark of SampleRNN (2017), also used by SaShiMi. To be had at
https://huggingface.co/datasets/krandiash/beethoven (clips as WAV; the recordings come from archive.org, where they are
said to be in the public domain; 16,000 Hz, 16 bits, mono). The layout is a folder of them, numbered. SampleRNN's own
preparation ends with arrays of 16-bit floats, music_train.npy, music_valid.npy and music_test.npy, from which
``python scripts/prepare_beethoven.py DIR --arrays FOLDER`` makes train/, valid/ and test/ with WAV files.
"""

from codes.data.audio.clip_folder import ClipFolderDataset
from codes.data.audio.published_layout import Corpus

BEETHOVEN = Corpus(
    name="Beethoven",
    home="https://huggingface.co/datasets/krandiash/beethoven",
    layout="numbered clips *.wav or *.flac (or train/, valid/ and test/ with clips)",
    get="python scripts/prepare_beethoven.py says what to do",
)


class BeethovenDataset(ClipFolderDataset):
    """Chunks of the Beethoven benchmark (https://huggingface.co/datasets/krandiash/beethoven): piano, 16,000 Hz, mono.

    Officially, in the order of the numbers, 88 % of the clips train, 6 % validate and 6 % are the test subset; where
    there are the folders train/, valid/ and test/, these.
    """

    corpus = BEETHOVEN
    folder_names = ("beethoven",)


if __name__ == "__main__":
    from codes.data.audio import preview

    preview.main("beethoven")
