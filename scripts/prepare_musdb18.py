"""Say how to get MUSDB18, and download MUSDB18-HQ (22.7 GB) for those who have read its terms.

python scripts/prepare_musdb18.py
python scripts/prepare_musdb18.py DIR --accept-terms
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.data.download import Remote
from codes.data.prepare import Download, Preparation, main

TERMS = """MUSDB18 is for research and education only; most songs are CC BY-NC-SA, some under terms of their own.

1. Read the terms at https://sigsep.github.io/datasets/musdb.html and at https://zenodo.org/records/3338373.
2. For MUSDB18-HQ (WAV, 22.7 GB), if you accept them:
       python scripts/prepare_musdb18.py DIR --accept-terms
   Should the server ask for an account, make one there, request access, and unpack musdb18hq.zip into DIR/musdb18hq.
3. For MUSDB18 (STEM MP4, 4.7 GB), download musdb18.zip from https://zenodo.org/records/1117372 and unpack it into
   DIR/musdb18.
4. python -m codes.data.audio.musdb18_stereo --path DIR"""
PREPARATION = Preparation(
    name="MUSDB18-HQ",
    script="musdb18",
    licence="for research and education only",
    downloads=(
        Download(
            part="musdb18hq",
            remote=Remote(
                url="https://zenodo.org/records/3338373/files/musdb18hq.zip",
                sha256="baac80d0483c61d74b2e5f3be75fa557eec52898339e6aa45c1fa48833c5d21d",
            ),
            into="musdb18hq",
            gives="musdb18hq/train",
            most_bytes=80_000_000_000,
        ),
    ),
    terms=TERMS,
    dataset="musdb18_stereo",
)

if __name__ == "__main__":
    sys.exit(main(PREPARATION))
