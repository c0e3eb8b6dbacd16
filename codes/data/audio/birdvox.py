"""BirdVox: nocturnal flight calls of birds, recorded by six units near Ithaca, New York, in one night of 2015.

    python -m codes.data.audio.birdvox --path DIR [--chunk-frames N ...]

To be had at https://zenodo.org/records/1205569 (BirdVox-full-night: CC BY 4.0; six FLAC files, 62 hours, 24,000 Hz,
mono, with the times of 35,402 calls) or https://zenodo.org/records/1208080 (BirdVox-DCASE-20k, cut from it: CC BY 4.0;
15.4 GB packed; 20,000 WAV files of ten seconds, resampled to 44,100 Hz, mono).
``python scripts/prepare_birdvox.py DIR`` downloads them. The layouts are::

    BirdVox-full-night_flac-audio_unit01.flac  and  BirdVox-full-night_csv-annotations_unit01.csv   Time (s),...
    wav/NAME.wav  and, where there is one, a table *.csv                       itemid,datasetid,hasbird
"""

import bisect
import csv
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from codes.data.audio.channel_layout import ChannelChoice
from codes.data.audio.listing.index_entry import IndexEntry
from codes.data.audio.published_layout import Corpus, PublishedDataset
from codes.data.audio.recordings import Segment

_UNIT_AUDIO = re.compile(r"BirdVox-full-night_(?:flac|wav)-audio_unit(\d+)\.(?:flac|wav)")
_UNIT_TIMES = re.compile(r"BirdVox-full-night_csv-annotations_unit(\d+)\.csv")
UNKNOWN = -1
BIRDVOX = Corpus(
    name="BirdVox",
    home="https://zenodo.org/records/1205569 (full night) and https://zenodo.org/records/1208080 (20k)",
    layout="BirdVox-full-night_flac-audio_unitNN.flac, or wav/*.wav of BirdVox-DCASE-20k",
    get="python scripts/prepare_birdvox.py DIR downloads the 20k (CC BY 4.0, 15.4 GB), or the units that are named",
)


class BirdvoxDataset(PublishedDataset):
    """Chunks of BirdVox (https://zenodo.org/records/1205569): birds by night, 24,000 or (20k) 44,100 Hz, mono.

    Both publications are read. There is no official split; with split: folder a folder is a unit of the full night.

    Args:
        channels: "each": every channel of every file by itself; "mono": the mean of all channels; "exact": mono files
            only; {select: [i]} takes one channel; {aggregate: [[weights]]} mixes them.
    """

    corpus = BIRDVOX
    num_channels = 1
    provides = {
        **PublishedDataset.provides,
        "label": "1: a bird calls in the chunk (20k: in the file); 0: none; -1: not known; int",
        "unit": "number of the recording unit, -1 where it is not known, int",
    }

    def __init__(self, *, channels: ChannelChoice = "each", **audio: Any) -> None:
        self._calls: dict[int, list[float]] = {}  # unit -> times of calls in seconds, sorted
        self._has_bird: dict[str, int] = {}  # name of a file -> 0 or 1
        super().__init__(channels=channels, **audio)

    def folders(self, root: Path) -> list[Path]:
        """The folder of the units, or wav/; the annotations beside it are read."""
        if (root / "BirdVox-full-night").is_dir() and (root / "BirdVox-DCASE-20k").is_dir():
            raise self.corpus.error(root, "found both BirdVox-full-night/ and BirdVox-DCASE-20k/: name one of the two")
        for folder in (root, root / "BirdVox-full-night", root / "BirdVox-DCASE-20k"):
            names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
            if any(_UNIT_AUDIO.fullmatch(name) for name in names):
                units = {name: match for name in names if (match := _UNIT_TIMES.fullmatch(name))}
                self._calls = {int(match.group(1)): _read_times(folder / name) for name, match in units.items()}
                return [folder]
            if (folder / "wav").is_dir():
                for name in sorted(names):
                    if name.lower().endswith(".csv"):
                        self._has_bird.update(_read_labels(folder / name))
                return [folder / "wav"]
        raise self.corpus.error(root)

    def take(self, file: IndexEntry) -> IndexEntry | str:
        """The units' recordings, each in a folder of its own for the split; the 20k's as they are."""
        match = _UNIT_AUDIO.fullmatch(file.path.name)
        if match:
            return replace(file, relative=f"unit{match.group(1)}/{file.path.name}")
        return file if file.path.parent.name == "wav" else "that is no unit's recording"

    def facts(self, file: IndexEntry) -> dict[str, Any]:
        """The unit, and the label of a file of the 20k."""
        match = _UNIT_AUDIO.fullmatch(file.path.name)
        unit = int(match.group(1)) if match else UNKNOWN
        return {"label": self._has_bird.get(file.path.stem, UNKNOWN), "unit": unit}

    def chunk(self, segment: Segment, start_frame: int) -> dict[str, Any]:
        """The chunk, labelled by the times of calls where there are any."""
        item = super().chunk(segment, start_frame)
        calls = self._calls.get(item["unit"])
        if calls is None:
            return item
        start_s = start_frame / segment.recording.sample_rate_hz
        end_s = start_s + self.chunk_frames / segment.recording.sample_rate_hz
        return {**item, "label": int(bisect.bisect_left(calls, end_s) > bisect.bisect_left(calls, start_s))}

    def remarks(self, files: list[IndexEntry]) -> list[str]:
        """How many files have no annotation."""
        facts = [self.facts(file) for file in files]
        unlabelled = sum(fact["label"] == UNKNOWN and fact["unit"] not in self._calls for fact in facts)
        return [f"no annotation, so label is -1: {unlabelled} files"] if unlabelled else []


def _rows(path: Path) -> Iterator[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from csv.DictReader(file)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BIRDVOX.error(path.parent, f"{path} cannot be read: {error}") from error


def _read_times(path: Path) -> list[float]:
    """Times of calls in seconds, sorted: the column whose name begins with Time."""
    times = []
    for number, row in enumerate(_rows(path), start=2):
        cells = [cell for name, cell in row.items() if name and name.strip().lower().startswith("time")]
        try:
            times.append(float(cells[0]))
        except (IndexError, ValueError, TypeError) as error:
            raise BIRDVOX.error(path.parent, f"{path}:{number} has no number in a column Time (s)") from error
    return sorted(times)


def _read_labels(path: Path) -> dict[str, int]:
    """Name of each file -> whether there is a bird in it: the columns itemid and hasbird."""
    labels = {}
    for number, row in enumerate(_rows(path), start=2):
        name, label = row.get("itemid"), row.get("hasbird")
        if not name or label not in ("0", "1"):
            raise BIRDVOX.error(path.parent, f"{path}:{number} has no itemid, or a hasbird that is neither 0 nor 1")
        labels[name.removesuffix(".wav")] = int(label)
    return labels


if __name__ == "__main__":
    from codes.data.audio import preview

    preview.main("birdvox")
