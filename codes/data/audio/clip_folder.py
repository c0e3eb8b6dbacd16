"""The corpora of SampleRNN and SaShiMi: a folder of numbered clips of one length.

Two layouts: clips beside each other, which in the order of their numbers are 88 % training, 6 % validation and 6 % test
(SaShiMi's, of "It's Raw! Audio Generation with State-Space Models", 2022); or the folders train/, valid/ and test/,
into which ``python scripts/prepare_beethoven.py`` turns the arrays of SampleRNN (2017).
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from codes.data.audio.channel_layout import ChannelChoice
from codes.data.audio.listing.index_entry import IndexEntry
from codes.data.audio.published_layout import OfficialSplitDataset
from codes.data.audio.splits import Sides

TRAIN_SHARE, TRAIN_AND_VAL_SHARE = 0.88, 0.94
_PARTS = ("train", "valid", "test")
_AUDIO = (".wav", ".flac")


class ClipFolderDataset(OfficialSplitDataset, abstract=True):
    """Numbered clips.

    Args:
        subset: "train": the official training and validation clips; "test": the official test clips, which are all for
            phase val.
        channels: "each": every channel of every file by itself; "mono": the mean of all channels; "exact": mono files
            only; {select: [i]} takes one channel; {aggregate: [[weights]]} mixes them.
    """

    num_channels = 1
    folder_names: ClassVar[tuple[str, ...]]

    def __init__(
        self, *, subset: Literal["train", "test"] = "train", channels: ChannelChoice = "each", **audio: Any
    ) -> None:
        self._subset = subset
        self._divided = False
        self._sides: dict[str, str] = {}  # of clips beside each other: path -> train, valid or test
        super().__init__(channels=channels, **audio)

    def folders(self, root: Path) -> list[Path]:
        """The folder of the clips, or those of the parts."""
        for folder in (root, *(root / name for name in self.folder_names)):
            if all((folder / part).is_dir() for part in _PARTS):
                self._divided = True
                return [folder / part for part in (_PARTS[:2] if self._subset == "train" else _PARTS[2:])]
            clips = _clips(folder)
            if clips:
                self._sides = _divide(clips)
                return [folder]
        arrays = sorted(root.glob("*.npy")) if root.is_dir() else []
        if arrays:
            raise self.corpus.error(
                root,
                f"found arrays ({', '.join(path.name for path in arrays)}): "
                "python scripts/prepare_beethoven.py DIR --arrays FOLDER makes WAV files of them",
            )
        raise self.corpus.error(root)

    def take(self, file: IndexEntry) -> IndexEntry | str:
        """The clips of the subset."""
        if self._divided:
            return replace(file, relative=f"{file.path.parent.name}/{file.path.name}")
        part = self._sides.get(str(file.path))
        if part is None:
            return "that is not a clip beside the others"
        if (part == "test") != (self._subset == "test"):
            return f"of another subset than {self._subset}"
        return file

    def official_sides(self, files: list[IndexEntry]) -> Sides:
        """By number, or by folder; the test clips all validate."""
        if self._subset == "test":
            return [], files
        part = {file.path: self._sides.get(str(file.path), file.path.parent.name) for file in files}
        return (
            [file for file in files if part[file.path] == "train"],
            [file for file in files if part[file.path] == "valid"],
        )


def _clips(folder: Path) -> list[Path]:
    """The clips in a folder, in the order of their numbers."""
    if not folder.is_dir():
        return []
    clips = [path for path in folder.iterdir() if path.suffix.lower() in _AUDIO and not path.name.startswith(".")]
    return sorted(clips, key=lambda path: _natural(path.name))


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts 2 before 10."""
    return [(int(digits), "") if digits else (-1, text) for digits, text in re.findall(r"(\d+)|(\D+)", name)]


def _divide(clips: list[Path]) -> dict[str, str]:
    """Path of each clip -> train, valid or test."""
    first_val, first_test = int(TRAIN_SHARE * len(clips)), int(TRAIN_AND_VAL_SHARE * len(clips))
    return {
        str(path): "train" if number < first_val else "valid" if number < first_test else "test"
        for number, path in enumerate(clips)
    }
