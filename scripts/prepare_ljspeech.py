"""Download LJ Speech: one English reader, 24 hours (public domain, 2.6 GB).

python scripts/prepare_ljspeech.py DIR
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.data.download import Remote
from codes.data.prepare import Download, Preparation, main

PREPARATION = Preparation(
    name="LJ Speech",
    script="ljspeech",
    licence="public domain",
    downloads=(
        Download(
            part="LJSpeech-1.1",
            remote=Remote(
                url="https://data.keithito.com/data/speech/LJSpeech-1.1.tar.bz2",
                sha256="be1a30453f28eb8dd26af4101ae40cbf2c50413b1bb21936cbcdc6fae3de8aa5",
            ),
            gives="LJSpeech-1.1",
            most_bytes=8_000_000_000,
        ),
    ),
)

if __name__ == "__main__":
    sys.exit(main(PREPARATION))
