"""Download BirdVox, birds by night (CC BY 4.0): BirdVox-DCASE-20k, or units of BirdVox-full-night.

python scripts/prepare_birdvox.py DIR                           20,000 recordings of ten seconds, 15.4 GB
python scripts/prepare_birdvox.py DIR --parts unit01 unit02     ten hours each, as FLAC with the times of calls
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.data.download import Remote
from codes.data.prepare import Download, Preparation, main

UNITS = ("01", "02", "03", "05", "07", "10")
FULL_NIGHT = "https://zenodo.org/records/1205569/files/BirdVox-full-night"


def _unit(number: str, name: str) -> Download:
    """A file of BirdVox-full-night."""
    return Download(
        part=f"unit{number}",
        remote=Remote(url=f"{FULL_NIGHT}_{name}"),
        into="BirdVox-full-night",
        gives=f"BirdVox-full-night/BirdVox-full-night_{name}",
    )


PREPARATION = Preparation(
    name="BirdVox",
    script="birdvox",
    licence="CC BY 4.0",
    downloads=(
        Download(
            part="20k",
            remote=Remote(url="https://zenodo.org/records/1208080/files/BirdVox-DCASE-20k.zip"),
            into="BirdVox-DCASE-20k",
            gives="BirdVox-DCASE-20k/wav",
            most_bytes=60_000_000_000,
        ),
        Download(
            part="20k",
            remote=Remote(url="https://ndownloader.figshare.com/files/10853300", name="BirdVox-DCASE-20k.csv"),
            into="BirdVox-DCASE-20k",
            gives="BirdVox-DCASE-20k/BirdVox-DCASE-20k.csv",
        ),
        *(_unit(number, f"csv-annotations_unit{number}.csv") for number in UNITS),
        *(_unit(number, f"flac-audio_unit{number}.flac") for number in UNITS),
    ),
    default=("20k",),
)

if __name__ == "__main__":
    sys.exit(main(PREPARATION))
