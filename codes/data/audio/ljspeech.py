"""LJ Speech: one English reader, 24 hours of short sentences.

    python -m codes.data.audio.ljspeech --path DIR [--chunk-frames N ...]

To be had at https://keithito.com/LJ-Speech-Dataset/ (public domain; 2.6 GB packed; 13,100 recordings of 1 to 10
seconds, 22,050 Hz, 16 bits, mono); ``python scripts/prepare_ljspeech.py DIR`` downloads it. The layout is::

    LJSpeech-1.1/metadata.csv          LJ001-0001|the text as printed|the text as read
    LJSpeech-1.1/wavs/LJ001-0001.wav
"""

from pathlib import Path
from typing import Any

from codes.data.audio.channel_layout import ChannelChoice
from codes.data.audio.listing.index_entry import IndexEntry
from codes.data.audio.published_layout import Corpus, PublishedDataset

LJSPEECH = Corpus(
    name="LJ Speech",
    home="https://keithito.com/LJ-Speech-Dataset/",
    layout="metadata.csv and wavs/*.wav (in LJSpeech-1.1/)",
    get="python scripts/prepare_ljspeech.py DIR downloads it (public domain, 2.6 GB)",
)


class LjspeechDataset(PublishedDataset):
    """Chunks of LJ Speech (https://keithito.com/LJ-Speech-Dataset/): one English reader, 22,050 Hz, 16 bits, mono.

    ``text`` is the transcript of the whole recording that a chunk comes from, as read. The corpus has no official
    split; files are divided as the options say.

    Args:
        channels: "each": every channel of every file by itself; "mono": the mean of all channels; "exact": mono files
            only; {select: [i]} takes one channel; {aggregate: [[weights]]} mixes them.
    """

    corpus = LJSPEECH
    num_channels = 1
    provides = {**PublishedDataset.provides, "text": "the transcript of the whole recording, str"}

    def __init__(self, *, channels: ChannelChoice = "each", **audio: Any) -> None:
        self._texts: dict[str, str] = {}
        super().__init__(channels=channels, **audio)

    def folders(self, root: Path) -> list[Path]:
        """wavs/, once metadata.csv is read."""
        folder = self.corpus.root(root, ["LJSpeech-1.1"], ["metadata.csv"])
        self._texts = _read_metadata(folder / "metadata.csv")
        if not (folder / "wavs").is_dir():
            raise self.corpus.error(folder)
        return [folder / "wavs"]

    def facts(self, file: IndexEntry) -> dict[str, Any]:
        """The transcript."""
        return {"text": self._texts.get(file.path.stem, "")}

    def remarks(self, files: list[IndexEntry]) -> list[str]:
        """Recordings without a transcript, and transcripts without a recording."""
        there = {file.path.stem for file in files}
        notes = []
        if there - self._texts.keys():
            notes.append(f"no transcript in metadata.csv, so text is empty: {len(there - self._texts.keys())} files")
        if self._texts.keys() - there:
            notes.append(f"named in metadata.csv but not there: {len(self._texts.keys() - there)} files")
        return notes


def _read_metadata(path: Path) -> dict[str, str]:
    """Name of each recording -> its text as read."""
    texts = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LJSPEECH.error(path.parent, f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        fields = line.split("|")
        if len(fields) != 3:
            raise LJSPEECH.error(path.parent, f"{path}:{number} has {len(fields)} fields between |, not 3")
        texts[fields[0]] = fields[2]
    return texts


if __name__ == "__main__":
    from codes.data.audio import preview

    preview.main("ljspeech")
