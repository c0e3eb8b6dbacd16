"""Download LibriSpeech: English audiobooks (CC BY 4.0; by default train-clean-100, 6.3 GB, and dev-clean, 0.3 GB).

python scripts/prepare_librispeech.py DIR [--parts train-clean-360 dev-clean ...]
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.data.download import Remote
from codes.data.prepare import Download, Preparation, main

SHA256 = {
    "train-clean-100": "d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2",
    "train-clean-360": "146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf",
    "train-other-500": "ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2",
    "dev-clean": "76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3",
    "dev-other": "12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365",
    "test-clean": "39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23",
    "test-other": "d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29",
}
PREPARATION = Preparation(
    name="LibriSpeech",
    script="librispeech",
    licence="CC BY 4.0",
    downloads=tuple(
        Download(
            part=part,
            remote=Remote(url=f"https://www.openslr.org/resources/12/{part}.tar.gz", sha256=sha256),
            gives=f"LibriSpeech/{part}",
            most_bytes=100_000_000_000,
        )
        for part, sha256 in SHA256.items()
    ),
    default=("train-clean-100", "dev-clean"),
)

if __name__ == "__main__":
    sys.exit(main(PREPARATION))
