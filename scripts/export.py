"""Write a trained run as a folder for others: weights, options, plug-ins, tokenizer, and a README with its figures.

    python scripts/export.py runs/NAME --out FOLDER [--checkpoint DIR]

    networks = load_networks(Path("FOLDER"))                   # from codes.trainer.export
    python scripts/sample.py --run FOLDER ...                  # and whatever else takes a run
    hf upload USER/NAME FOLDER                                 # to a model hub (hf comes with transformers)

Exit status: 0; 2 where the run cannot be read or the folder not be written.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.trainer.checkpoint import CheckpointError
from codes.trainer.export import export_run
from codes.yaml_source import OptionError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="export.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's folder")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="a new folder")
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help="which checkpoint (default: the best)")
    options = parser.parse_args(arguments)
    try:
        for line in export_run(options.run, options.out, options.checkpoint):
            print(line)
    except (OptionError, CheckpointError, ValueError, OSError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
