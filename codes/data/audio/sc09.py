"""SC09: the ten spoken digits of Speech Commands.

    python -m codes.data.audio.sc09 --path DIR [--chunk-frames 16000 ...]

To be had at https://www.tensorflow.org/datasets/catalog/speech_commands (Speech Commands version 0.02; CC BY 4.0; 2.4
GB packed; WAV of at most one second, 16,000 Hz, 16 bits, mono); ``python scripts/prepare_sc09.py DIR`` downloads it.
The layout, of which the other words may be missing, is::

    zero/SPEAKER_nohash_0.wav ... nine/SPEAKER_nohash_0.wav
    validation_list.txt  testing_list.txt                      one line a file: zero/SPEAKER_nohash_0.wav
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from codes.data.audio.channel_layout import ChannelChoice
from codes.data.audio.listing.index_entry import IndexEntry
from codes.data.audio.published_layout import Corpus, OfficialSplitDataset
from codes.data.audio.splits import Sides

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_LISTS = ("validation_list.txt", "testing_list.txt")
SC09 = Corpus(
    name="SC09",
    home="https://www.tensorflow.org/datasets/catalog/speech_commands",
    layout=f"the folders zero/ to nine/, {_LISTS[0]} and {_LISTS[1]}",
    get="python scripts/prepare_sc09.py DIR downloads it (CC BY 4.0, 2.4 GB)",
)


class Sc09Dataset(OfficialSplitDataset):
    """Chunks of SC09 (https://www.tensorflow.org/datasets/catalog/speech_commands): digits, 16,000 Hz, 16 bits, mono.

    Recordings last a second or less: those shorter than chunk_frames are left out and counted; 16000 takes whole ones.

    Args:
        subset: "train": the official training and validation files; "test": the official test files, which are all for
            phase val.
        channels: "each": every channel of every file by itself; "mono": the mean of all channels; "exact": mono files
            only; {select: [i]} takes one channel; {aggregate: [[weights]]} mixes them.
    """

    corpus = SC09
    num_channels = 1
    provides = {
        **OfficialSplitDataset.provides,
        "label": "the digit, 0 to 9, int",
        "speaker": "the speaker's code, str",
    }

    def __init__(
        self, *, subset: Literal["train", "test"] = "train", channels: ChannelChoice = "each", **audio: Any
    ) -> None:
        self._subset = subset
        self._validation: set[str] = set()
        self._testing: set[str] = set()
        super().__init__(channels=channels, **audio)

    def folders(self, root: Path) -> list[Path]:
        """The ten digits' folders, once the lists are read."""
        folder = self.corpus.root(root, ["sc09", "speech_commands_v0.02", "SpeechCommands"], _LISTS)
        missing = [f"{digit}/" for digit in DIGITS if not (folder / digit).is_dir()]
        missing += [name for name in _LISTS if not (folder / name).is_file()]
        if missing:
            raise self.corpus.error(folder, f"{', '.join(missing)} is not there")
        self._validation, self._testing = (_read_list(folder / name) for name in _LISTS)
        return [folder / digit for digit in DIGITS]

    def take(self, file: IndexEntry) -> IndexEntry | str:
        """The files of the subset, named as in the lists."""
        relative = f"{file.path.parent.name}/{file.path.name}"
        if (relative in self._testing) != (self._subset == "test"):
            return f"of another subset than {self._subset}"
        return replace(file, relative=relative)

    def facts(self, file: IndexEntry) -> dict[str, Any]:
        """Digit and speaker."""
        return {"label": DIGITS.index(file.path.parent.name), "speaker": file.path.stem.partition("_nohash_")[0]}

    def official_sides(self, files: list[IndexEntry]) -> Sides:
        """By validation_list.txt; the test files all validate."""
        if self._subset == "test":
            return [], files
        return (
            [file for file in files if file.relative not in self._validation],
            [file for file in files if file.relative in self._validation],
        )


def _read_list(path: Path) -> set[str]:
    try:
        return {line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()}
    except (OSError, UnicodeDecodeError) as error:
        raise SC09.error(path.parent, f"{path} cannot be read: {error}") from error


if __name__ == "__main__":
    from codes.data.audio import preview

    preview.main("sc09")
