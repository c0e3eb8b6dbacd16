"""Download VCTK 0.92: some 110 English speakers (CC BY 4.0, 11.7 GB).

python scripts/prepare_vctk.py DIR
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.data.download import Remote
from codes.data.prepare import Download, Preparation, main

PREPARATION = Preparation(
    name="VCTK 0.92",
    script="vctk",
    licence="CC BY 4.0",
    downloads=(
        Download(
            part="VCTK-Corpus-0.92",
            remote=Remote(
                url="https://datashare.ed.ac.uk/bitstream/handle/10283/3443/VCTK-Corpus-0.92.zip",
                sha256="f96258be9fdc2cbff6559541aae7ea4f59df3fcaf5cf963aae5ca647357e359c",
                num_bytes=11_747_302_977,
            ),
            into="VCTK-Corpus-0.92",
            gives="VCTK-Corpus-0.92/wav48_silence_trimmed",
            most_bytes=60_000_000_000,
        ),
    ),
)

if __name__ == "__main__":
    sys.exit(main(PREPARATION))
