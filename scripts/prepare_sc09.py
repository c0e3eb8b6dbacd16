"""Download Speech Commands, whose digits are SC09 (CC BY 4.0, 2.4 GB).

python scripts/prepare_sc09.py DIR
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.data.download import Remote
from codes.data.prepare import Download, Preparation, main

PREPARATION = Preparation(
    name="Speech Commands 0.02",
    script="sc09",
    licence="CC BY 4.0",
    downloads=(
        Download(
            part="speech_commands_v0.02",
            remote=Remote(
                url="https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
                sha256="af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
            ),
            into="speech_commands_v0.02",
            gives="speech_commands_v0.02/zero",
            most_bytes=10_000_000_000,
        ),
    ),
)

if __name__ == "__main__":
    sys.exit(main(PREPARATION))
