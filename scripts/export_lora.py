"""Merge the LoRA adapters of a run into the weights of its network.

    python scripts/export_lora.py --run runs/NAME --out FILE.safetensors [--network NAME] [--checkpoint DIR] [--ema]

What is written loads into the same network without `lora`: `path: {pretrain_model_NETWORK: FILE.safetensors}`. A
network that can be saved for transformers (t5) is also written to a folder with --hub DIR. Exit status: 0; 2 for wrong
use or a run that cannot be read.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.experiment import load_experiment
from codes.trainer import checkpoint as checkpoints
from codes.trainer.lora import export
from codes.yaml_source import OptionError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="export_lora.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="the run's folder")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the merged weights (.safetensors)")
    parser.add_argument("--network", metavar="NAME", help="which network (default: the one that has lora)")
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help="which checkpoint (default: the newest)")
    parser.add_argument("--ema", action="store_true", help="the moving average of the weights")
    parser.add_argument("--hub", type=Path, metavar="DIR", help="also a folder that transformers can load")
    options = parser.parse_args(arguments)
    try:
        experiment = load_experiment(options.run / "options.yml")
        found = checkpoints.list_checkpoints(options.run / "checkpoints")
        if options.checkpoint is None and not found:
            raise ValueError(f"{options.run} holds no checkpoint")
        checkpoint = options.checkpoint or found[-1]
        for line in export(experiment, checkpoint, options.out, options.network, options.ema, options.hub):
            print(line)
    except (OptionError, ValueError, OSError, checkpoints.CheckpointError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
