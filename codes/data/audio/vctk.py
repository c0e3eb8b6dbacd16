"""VCTK: some 110 English speakers with various accents, about 400 sentences each.

    python -m codes.data.audio.vctk --path DIR [--microphone mic2 ...]

To be had at https://datashare.ed.ac.uk/handle/10283/3443 (version 0.92; CC BY 4.0; 11.7 GB packed; FLAC, 48,000 Hz, 16
bits, mono, two microphones); ``python scripts/prepare_vctk.py DIR`` downloads it. The layouts are::

    wav48_silence_trimmed/p225/p225_001_mic1.flac  and  txt/p225/p225_001.txt    version 0.92
    wav48/p225/p225_001.wav                        and  txt/p225/p225_001.txt    version 0.80
"""

from pathlib import Path
from typing import Any, Literal

from codes.data.audio.channel_layout import ChannelChoice
from codes.data.audio.listing.index_entry import IndexEntry
from codes.data.audio.published_layout import Corpus, PublishedDataset
from codes.data.audio.splits import SplitKind

_AUDIO_FOLDERS = ("wav48_silence_trimmed", "wav48")
VCTK = Corpus(
    name="VCTK",
    home="https://datashare.ed.ac.uk/handle/10283/3443",
    layout="wav48_silence_trimmed/SPEAKER/*_mic1.flac or wav48/SPEAKER/*.wav, and txt/",
    get="python scripts/prepare_vctk.py DIR downloads it (CC BY 4.0, 11.7 GB)",
)


class VctkDataset(PublishedDataset):
    """Chunks of VCTK (https://datashare.ed.ac.uk/handle/10283/3443): English speakers, 48,000 Hz, 16 bits, mono.

    ``text`` is the sentence of the whole recording that a chunk comes from; speaker p315's were lost, and are empty.
    The corpus has no official split: by default speakers are kept apart.

    Args:
        microphone: which recording of each sentence of version 0.92: "mic1" (omni-directional), "mic2" or "both"; of
            version 0.80 there is one only, which is taken.
        split: how train and val are divided: by "folder", which is a speaker, by "file", by "list" or by "interval" (a
            stretch of each file is kept for validation).
        channels: "each": every channel of every file by itself; "mono": the mean of all channels; "exact": mono files
            only; {select: [i]} takes one channel; {aggregate: [[weights]]} mixes them.
    """

    corpus = VCTK
    num_channels = 1
    provides = {
        **PublishedDataset.provides,
        "text": "the sentence of the whole recording, str",
        "speaker": "the speaker's name, such as p225, str",
    }

    def __init__(
        self,
        *,
        microphone: Literal["mic1", "mic2", "both"] = "mic1",
        split: SplitKind = "folder",
        channels: ChannelChoice = "each",
        **audio: Any,
    ) -> None:
        if microphone == "both" and split == "file":
            raise ValueError(
                "microphone: both does not go with split: file, which would train on one recording of a sentence and "
                "validate on the other: choose split: folder"
            )
        self._microphone = microphone
        self._text_folder = Path()
        super().__init__(split=split, channels=channels, **audio)

    def folders(self, root: Path) -> list[Path]:
        """wav48_silence_trimmed/ or wav48/."""
        folder = self.corpus.root(root, ["VCTK-Corpus-0.92", "VCTK-Corpus"], _AUDIO_FOLDERS)
        self._text_folder = folder / "txt"
        if not self._text_folder.is_dir():
            raise self.corpus.error(folder)
        return [next(folder / name for name in _AUDIO_FOLDERS if (folder / name).is_dir())]

    def take(self, file: IndexEntry) -> IndexEntry | str:
        """The files of the microphone that is wanted."""
        microphone = file.path.stem.rpartition("_")[2]
        if self._microphone != "both" and microphone.startswith("mic") and microphone != self._microphone:
            return f"of another microphone than {self._microphone}"
        return file

    def facts(self, file: IndexEntry) -> dict[str, Any]:
        """Sentence and speaker."""
        text = self._text_of(file)
        return {
            "text": text.read_text(encoding="utf-8").strip() if text.is_file() else "",
            "speaker": file.path.parent.name,
        }

    def _text_of(self, file: IndexEntry) -> Path:
        """txt/p225/p225_001.txt of p225/p225_001_mic1.flac."""
        return self._text_folder / file.path.parent.name / f"{'_'.join(file.path.stem.split('_')[:2])}.txt"

    def remarks(self, files: list[IndexEntry]) -> list[str]:
        """Speakers whose sentences are not there."""
        speakers = {file.path.parent.name for file in files}
        silent = sorted(speaker for speaker in speakers if not (self._text_folder / speaker).is_dir())
        return [f"no text, so text is empty: speakers {', '.join(silent)}"] if silent else []


if __name__ == "__main__":
    from codes.data.audio import preview

    preview.main("vctk")
