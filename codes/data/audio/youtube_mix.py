"""YouTubeMix: four hours of solo piano in clips of one minute.

    python -m codes.data.audio.youtube_mix --path DIR [--chunk-frames N ...]

The benchmark of SampleRNN's and SaShiMi's authors. To be had at https://huggingface.co/datasets/krandiash/youtubemix
(cut from one video: its rights are its owner's, nobody gives a licence; 241 WAV files of a minute, 16,000 Hz, 16 bits,
mono); ``python scripts/prepare_youtube_mix.py`` says what to do. The layout is a folder of them, numbered.
"""

from codes.data.audio.clip_folder import ClipFolderDataset
from codes.data.audio.published_layout import Corpus

YOUTUBE_MIX = Corpus(
    name="YouTubeMix",
    home="https://huggingface.co/datasets/krandiash/youtubemix",
    layout="numbered clips *.wav (or train/, valid/ and test/ with clips)",
    get="python scripts/prepare_youtube_mix.py says what to do (no licence is given)",
)


class YoutubeMixDataset(ClipFolderDataset):
    """Chunks of YouTubeMix (https://huggingface.co/datasets/krandiash/youtubemix): piano, 16,000 Hz, 16 bits, mono.

    Officially, in the order of the numbers, 88 % of the clips train, 6 % validate and 6 % are the test subset.
    """

    corpus = YOUTUBE_MIX
    folder_names = ("youtube_mix", "youtubemix")


if __name__ == "__main__":
    from codes.data.audio import preview

    preview.main("youtube_mix")
