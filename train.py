"""Train the experiment of a YAML file.

python train.py -opt experiments/stereo_lm.yml                       train, or continue where it stopped
python train.py -opt experiments/stereo_lm.yml train.niter=100       with one key set otherwise
python train.py -opt experiments/stereo_lm.yml --check               check everything, one real batch included
python train.py --list injectors                                     what the YAML can name, with options
"""

import argparse
import sys
from pathlib import Path


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-opt", type=Path, metavar="FILE", help="the experiment")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="values that replace the file's")
    parser.add_argument("--check", action="store_true", help="check the experiment and push one batch through it")
    parser.add_argument("--devices", type=int, metavar="N", help="with --check: what each of so many GPUs would hold")
    parser.add_argument("--gpu", metavar="NAME", help="with --check: how long that GPU would take (h200, a100, ...)")
    parser.add_argument("--doctor", action="store_true", help="look at versions, GPU, disk, data, and try two steps")
    parser.add_argument("--fresh", action="store_true", help="move an existing run aside and start anew")
    parser.add_argument("--replay", type=Path, metavar="CHECKPOINT", help="trace the batch after this checkpoint")
    parser.add_argument("--schema", type=Path, metavar="FILE", help="write a JSON Schema of the YAML for editors")
    parser.add_argument(
        "--list", nargs="?", const="", metavar="WHAT", help="injectors, losses, datasets, networks or a name"
    )
    arguments = parser.parse_intermixed_args()
    if arguments.opt is None and (arguments.doctor or (arguments.schema is None and arguments.list is None)):
        parser.error("give an experiment: -opt experiments/stereo_lm.yml")
    return arguments


def main() -> int:
    """Run one command; 0 when it did what was asked, 2 when the experiment is wrong, 1 when the run failed."""
    arguments = parse_arguments()
    try:
        from codes.trainer import commands
        from codes.trainer.distributed import leave

        return leave(commands.run(arguments))
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
