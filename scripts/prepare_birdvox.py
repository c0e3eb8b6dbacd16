"""Download BirdVox-DCASE-20k: birds by night, 20,000 recordings of ten seconds (CC BY 4.0, 15.4 GB), and its labels.

    python scripts/prepare_birdvox.py DIR

BirdVox-full-night (six FLAC files, 62 hours) is downloaded by hand from https://zenodo.org/records/1205569: put the
FLAC files and the CSV files of annotations into one folder.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.data.download import Remote
from codes.data.prepare import Download, Preparation, main

PREPARATION = Preparation(
    name="BirdVox-DCASE-20k",
    script="birdvox",
    licence="CC BY 4.0",
    downloads=(
        Download(
            part="audio",
            remote=Remote(url="https://zenodo.org/records/1208080/files/BirdVox-DCASE-20k.zip"),
            into="BirdVox-DCASE-20k",
            gives="BirdVox-DCASE-20k/wav",
            most_bytes=60_000_000_000,
        ),
        Download(
            part="labels",
            remote=Remote(url="https://ndownloader.figshare.com/files/10853300", name="BirdVox-DCASE-20k.csv"),
            into="BirdVox-DCASE-20k",
            gives="BirdVox-DCASE-20k/BirdVox-DCASE-20k.csv",
        ),
    ),
)

if __name__ == "__main__":
    sys.exit(main(PREPARATION))
