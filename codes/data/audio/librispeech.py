"""LibriSpeech: about 1000 hours of English audiobooks by some 2,400 readers.

    python -m codes.data.audio.librispeech --path DIR [--subsets train-clean-100 dev-clean ...]

To be had at https://www.openslr.org/12 (CC BY 4.0; train-clean-100 is 6.3 GB packed; FLAC, 16,000 Hz, 16 bits, mono);
``python scripts/prepare_librispeech.py DIR`` downloads it. The layout is::

    LibriSpeech/train-clean-100/SPEAKER/CHAPTER/SPEAKER-CHAPTER-0000.flac
    LibriSpeech/train-clean-100/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt   one line a recording: its name, its text
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from codes.data.audio.channel_layout import ChannelChoice
from codes.data.audio.listing.index_entry import IndexEntry
from codes.data.audio.published_layout import Corpus, OfficialSplitDataset
from codes.data.audio.splits import Sides

SUBSETS = (
    *("train-clean-100", "train-clean-360", "train-other-500"),
    *("dev-clean", "dev-other", "test-clean", "test-other"),
)
LIBRISPEECH = Corpus(
    name="LibriSpeech",
    home="https://www.openslr.org/12",
    layout="SUBSET/SPEAKER/CHAPTER/*.flac (in LibriSpeech/), where SUBSET is train-clean-100 or another",
    get="python scripts/prepare_librispeech.py DIR downloads it (CC BY 4.0)",
)


class LibrispeechDataset(OfficialSplitDataset):
    """Chunks of LibriSpeech (https://www.openslr.org/12): English audiobooks, 16,000 Hz, 16 bits, mono.

    ``text`` is the transcript of the whole recording that a chunk comes from. Officially the train subsets train and
    the others validate; with split: folder a folder is a speaker.

    Args:
        subsets: which of the corpus's folders are taken; null: all train and dev folders that are there.
        channels: "each": every channel of every file by itself; "mono": the mean of all channels; "exact": mono files
            only; {select: [i]} takes one channel; {aggregate: [[weights]]} mixes them.
    """

    corpus = LIBRISPEECH
    num_channels = 1
    provides = {
        **OfficialSplitDataset.provides,
        "text": "the transcript of the whole recording, str",
        "speaker": "the reader's number, str",
    }

    def __init__(self, *, subsets: list[str] | None = None, channels: ChannelChoice = "each", **audio: Any) -> None:
        for subset in subsets or []:
            if subset not in SUBSETS:
                raise ValueError(f"subsets names {subset!r}, allowed are {', '.join(SUBSETS)}")
        self._subsets = subsets
        self._texts: dict[str, str] = {}
        super().__init__(channels=channels, **audio)

    def folders(self, root: Path) -> list[Path]:
        """The subsets' folders, once their transcripts are read."""
        folder = self.corpus.root(root, ["LibriSpeech"], SUBSETS)
        wanted = self._subsets or [name for name in SUBSETS if not name.startswith("test") and (folder / name).is_dir()]
        missing = [name for name in wanted if not (folder / name).is_dir()]
        if missing or not wanted:
            raise self.corpus.error(folder, f"{', '.join(missing) or 'a train or dev folder'} is not there")
        for name in wanted:
            for transcripts in sorted((folder / name).glob("*/*/*.trans.txt")):
                self._texts.update(_read_transcripts(transcripts))
        return [folder / name for name in wanted]

    def take(self, file: IndexEntry) -> IndexEntry | str:
        """SPEAKER/CHAPTER/name: the split goes by speaker, whatever the subset. Speakers are in one subset each."""
        if file.path.stem.count("-") != 2 or file.relative.count("/") != 2:
            return "that is not at SPEAKER/CHAPTER/SPEAKER-CHAPTER-NUMBER"
        return replace(file, relative="/".join(file.path.parts[-3:]))

    def facts(self, file: IndexEntry) -> dict[str, Any]:
        """Transcript and speaker."""
        return {"text": self._texts.get(file.path.stem, ""), "speaker": file.path.parts[-3]}

    def remarks(self, files: list[IndexEntry]) -> list[str]:
        """Recordings without a transcript."""
        num_untold = sum(file.path.stem not in self._texts for file in files)
        return [f"no transcript, so text is empty: {num_untold} files"] if num_untold else []

    def official_sides(self, files: list[IndexEntry]) -> Sides:
        """The train subsets, and the others."""
        train = [file for file in files if file.path.parts[-4].startswith("train")]
        return train, [file for file in files if not file.path.parts[-4].startswith("train")]


def _read_transcripts(path: Path) -> dict[str, str]:
    """Name of each recording of a chapter -> its text."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LIBRISPEECH.error(path.parent, f"{path} cannot be read: {error}") from error
    return {name: text for name, _, text in (line.partition(" ") for line in lines if line.strip())}


if __name__ == "__main__":
    from codes.data.audio import preview

    preview.main("librispeech")
