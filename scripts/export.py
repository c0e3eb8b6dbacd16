"""Write a trained run as a folder for others: weights, options, plug-ins, tokenizer, and a README with its figures.

    python scripts/export.py runs/NAME --out FOLDER [--checkpoint DIR]
    python scripts/export.py runs/NAME --codec FILE.safetensors [--command "how it was made"]

    networks = load_networks(Path("FOLDER"))                   # from codes.trainer.export
    python scripts/sample.py --run FOLDER ...                  # and whatever else takes a run
    hf upload USER/NAME FOLDER                                 # to a model hub (hf comes with transformers)
    python scripts/compress.py encode IN OUT.wsl --model FILE.safetensors

--codec writes the one file that compress.py takes as --model, of a `residual_lm` or a language model of tokens.

Exit status: 0; 2 where the run cannot be read or the folder not be written.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from compress_models import run_model

from codes.trainer.checkpoint import CheckpointError
from codes.trainer.export import export_run
from codes.trainer.residual_run import residual_model_file
from codes.yaml_source import OptionError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="export.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's folder")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=Path, metavar="FOLDER", help="a new folder")
    what.add_argument("--codec", type=Path, metavar="FILE", help="a model file for compress.py (.safetensors)")
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help="with --out: which one (default: the best)")
    parser.add_argument("--command", default="", help="with --codec of a residual_lm: kept in the file for people")
    options = parser.parse_args(arguments)
    if options.codec is not None and options.checkpoint is not None:
        parser.error("--checkpoint goes with --out: --codec takes the best checkpoint")
    if options.codec is None and options.command:
        parser.error("--command goes with --codec")
    try:
        if options.codec is not None:
            lines = [write_codec(options.run, options.codec, options.command)]
        else:
            lines = export_run(options.run, options.out, options.checkpoint)
        for line in lines:
            print(line)
    except (OptionError, CheckpointError, ValueError, OSError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    return 0


def write_codec(run: Path, out: Path, command: str) -> str:
    """Write the model file of a run's best checkpoint; returns what is to be said.

    Raises:
        ValueError: the run gives no model that codes audio.
    """
    data = residual_model_file(run, command) if command else run_model(run)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(data)
    return f"{out}: {len(data):,} bytes"


if __name__ == "__main__":
    sys.exit(main())
