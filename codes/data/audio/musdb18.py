"""MUSDB18: 150 songs of about four minutes, each as its mixture and as its stems; what its two datasets share.

    python -m codes.data.audio.musdb18_stereo --path DIR [--stems '[drums, bass]' ...]
    python -m codes.data.audio.musdb18_mono --path DIR [--subset test ...]

To be had at https://sigsep.github.io/datasets/musdb.html (for research and education, most songs CC BY-NC-SA; 44,100
Hz, 16 bits, stereo): MUSDB18-HQ is uncompressed (22.7 GB packed), MUSDB18 is in AAC (4.7 GB packed).
``python scripts/prepare_musdb18.py DIR`` says what to do. The layouts are, for train/ (100 songs) and test/ (50)::

    train/ARTIST - SONG/mixture.wav, drums.wav, bass.wav, other.wav, vocals.wav    MUSDB18-HQ
    train/ARTIST - SONG.stem.mp4     five streams of AAC, in that order            MUSDB18
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from codes.data.audio.listing.folder import Scan
from codes.data.audio.listing.index_entry import IndexEntry
from codes.data.audio.published_layout import Corpus, OfficialSplitDataset
from codes.data.audio.reader import facts, num_streams
from codes.data.audio.recordings import Recording, Segment
from codes.data.audio.splits import Sides

Stem = Literal["mixture", "drums", "bass", "other", "vocals"]
STEMS: tuple[Stem, ...] = ("mixture", "drums", "bass", "other", "vocals")  # the streams of a STEM MP4, in their order
STEM_SUFFIX = ".stem.mp4"
VALIDATION_TRACKS = frozenset(
    (
        "ANiMAL - Rockshow",
        "Actions - One Minute Smile",
        "Alexander Ross - Goodbye Bolero",
        "Clara Berry And Wooldog - Waltz For My Victims",
        "Fergessen - Nos Palpitants",
        "James May - On The Line",
        "Johnny Lokke - Promises & Lies",
        "Leaf - Summerghost",
        "Meaxic - Take A Step",
        "Patrick Talbot - A Reason To Leave",
        "Skelpolu - Human Mistakes",
        "Traffic Experiment - Sirens",
        "Triviul - Angelsaint",
        "Young Griffo - Pennies",
    )
)  # as the corpus's own program lists them
MUSDB18 = Corpus(
    name="MUSDB18",
    home="https://sigsep.github.io/datasets/musdb.html",
    layout="train/SONG/mixture.wav or train/SONG.stem.mp4, and the same in test/",
    get="python scripts/prepare_musdb18.py DIR says what to do",
)


class Musdb18Dataset(OfficialSplitDataset, abstract=True):
    """Songs of MUSDB18.

    Args:
        stems: "mixture", "drums", "bass", "other" or "vocals", or a list of several, whose channels then follow each
            other in ``wav``.
        subset: "train": the 100 songs of train/, of which officially 14 validate; "test": the 50 of test/, which are
            all for phase val.
    """

    corpus = MUSDB18
    provides = {**OfficialSplitDataset.provides, "track": "artist and song, str"}

    def __init__(
        self, *, stems: list[Stem] | Stem = "mixture", subset: Literal["train", "test"] = "train", **audio: Any
    ) -> None:
        self.stems: list[Stem] = [stems] if isinstance(stems, str) else list(stems)
        if not self.stems or len(set(self.stems)) != len(self.stems) or set(self.stems) - set(STEMS):
            raise ValueError(f"stems is {stems}, it must be one or several different ones of {', '.join(STEMS)}")
        self._subset = subset
        self._how = audio.get("sample_rate"), audio.get("cache", "needed"), audio.get("cache_folder")
        self._others: dict[Stem, dict[str, IndexEntry]] = {stem: {} for stem in self.stems[1:]}
        self._stacked: dict[str, list[Recording]] = {}
        super().__init__(**audio)
        self.num_channels = (self.num_channels or 0) * len(self.stems)

    def folders(self, root: Path) -> list[Path]:
        """train/ or test/."""
        folder = self.corpus.root(root, ["musdb18hq", "musdb18"], [self._subset])
        folder = folder / self._subset
        if not folder.is_dir():
            raise self.corpus.error(folder)
        mixtures, stem_files = list(folder.glob("*/mixture.wav")), list(folder.glob(f"*{STEM_SUFFIX}"))
        if bool(mixtures) == bool(stem_files):
            both = "both layouts at once: give each a folder of its own" if mixtures else "neither layout"
            raise self.corpus.error(folder, f"found {both}")
        for track in sorted(path for path in folder.iterdir() if path.is_dir() and mixtures):
            missing = [f"{stem}.wav" for stem in self.stems if not (track / f"{stem}.wav").is_file()]
            if missing:
                raise self.corpus.error(track, f"{', '.join(missing)} is not in it")
        return [folder]

    def find(self, paths: Any, index: Path | None) -> Scan:
        """The songs: of several stems the first; the others are added in `_segments`."""
        found = super().find(paths, index)
        for stem, others in self._others.items():
            others.update({f.relative: replace(f, stream=STEMS.index(stem)) for f in found.files if _is_stem_mp4(f)})
        whole = [file for file in found.files if all(file.relative in others for others in self._others.values())]
        broken = [file.path.parent for file in found.files if file not in whole]  # with on_error: skip only
        left_out = {"songs with a stem that cannot be read": broken} if broken else {}
        return replace(found, files=whole, left_out={**found.left_out, **left_out})

    def take(self, file: IndexEntry) -> IndexEntry | str:
        """The first stem of each song, named by the song."""
        if _is_stem_mp4(file):
            there = num_streams(file.path)
            if there != len(STEMS):
                raise self.corpus.error(file.path, f"it has {there} audio streams, not {len(STEMS)}")
            track = file.path.name.removesuffix(STEM_SUFFIX)
            return replace(file, relative=track, stream=STEMS.index(self.stems[0]))
        track, stem = file.path.parent.name, file.path.stem
        named = replace(file, relative=track)
        if stem == self.stems[0]:
            return named
        if stem in self._others:
            self._others[stem][track] = named
            return "stems that are stacked on the first"
        return "other stems"

    def facts(self, file: IndexEntry) -> dict[str, Any]:
        """The song."""
        return {"track": file.relative}

    def official_sides(self, files: list[IndexEntry]) -> Sides:
        """The 14 songs that the corpus's own program holds out of train/; the test songs all validate."""
        if self._subset == "test":
            return [], files
        return (
            [file for file in files if file.relative not in VALIDATION_TRACKS],
            [file for file in files if file.relative in VALIDATION_TRACKS],
        )

    def read(self, segment: Segment, start_frame: int, num_frames: int) -> np.ndarray:
        """(stems * channels, num_frames) integers of ``bits`` bits."""
        first = super().read(segment, start_frame, num_frames)
        others = [
            super(Musdb18Dataset, self).read(replace(segment, recording=recording), start_frame, num_frames)
            for recording in self._stacked.get(segment.recording.file.relative, [])
        ]
        return np.concatenate([first, *others]) if others else first

    def fingerprint(self) -> dict[str, Any]:
        """That of the first stem's files, and the names of all stems."""
        return {**super().fingerprint(), "stems": list(self.stems)}

    def _segments(self) -> list[Segment]:
        """Of the songs whose stems can all be read."""
        stacked = {recording.file.relative: [] for recording in self.recordings}
        for stem, files in self._others.items():
            for recording in self._record([files[track] for track in stacked], *self._how):
                stacked[recording.file.relative].append(self._alike(stem, recording))
        self._stacked = {track: others for track, others in stacked.items() if len(others) == len(self._others)}
        self.recordings = [recording for recording in self.recordings if recording.file.relative in self._stacked]
        return super()._segments()

    def _alike(self, stem: Stem, recording: Recording) -> Recording:
        """A stem must have the length, rate, depth and channels of the first."""
        first = next(r for r in self.recordings if r.file.relative == recording.file.relative)
        if facts(first.file.info) != facts(recording.file.info):
            raise self.corpus.error(
                recording.file.path,
                f"{stem} has {facts(recording.file.info)}, but {self.stems[0]} has {facts(first.file.info)}",
            )
        return recording


def _is_stem_mp4(file: IndexEntry) -> bool:
    return file.path.name.endswith(STEM_SUFFIX)
