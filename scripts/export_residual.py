"""Write the model of a run of a `residual_lm` as the file that `compress.py` takes as --model.

    python scripts/export_residual.py runs/NAME FILE.safetensors [--command "..."]

Exit status: 0; 2 for wrong use or a run that gives no model.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.trainer.residual_run import residual_model_file
from codes.yaml_source import OptionError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="export_residual.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's folder")
    parser.add_argument("out", type=Path, metavar="FILE", help="the model file (.safetensors)")
    parser.add_argument("--command", default="", help="how the run was made, kept in the file for people")
    options = parser.parse_args(arguments)
    try:
        data = residual_model_file(options.run, {"command": options.command} if options.command else None)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_bytes(data)
    except (ValueError, OSError, OptionError) as error:
        print(f"export_residual.py: {error}", file=sys.stderr)
        return 2
    print(f"{options.out}: {len(data):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
