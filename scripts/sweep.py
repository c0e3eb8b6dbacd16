"""Search for hyper-parameters of an experiment: runs of train.py with keys set otherwise, ranked.

    python scripts/sweep.py experiments/stereo_lm.yml --space space.yml --trials 20
    python scripts/sweep.py experiments/stereo_lm.yml --space space.yml --trials 27 --sampler halving --jobs 2

The space is a YAML file: `steps.lm.optimizer_params.lr: {low: 1e-4, high: 1e-2, log: true}` is a range,
`networks.lm.kwargs.layers: [1, 2, 4]` a choice. Further arguments key=value are for every run. Killed, the same command
goes on; with a larger --trials it adds some. Everything goes to --out: study.db (Optuna's), runs/, table.csv and
parallel.png. Exit status: 0; 1 where no trial succeeded; 2 where something is wrong; 130 where it was interrupted.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.trainer import sweep_report
from codes.trainer.sweep import Sweep
from codes.trainer.sweep_space import read_space
from codes.yaml_source import OptionError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = _parser()
    options = parser.parse_intermixed_args(arguments)
    if options.trials < 1 or options.jobs < 1:
        parser.error(f"--trials and --jobs must be 1 or more, got {options.trials} and {options.jobs}")
    folder = options.out or Path("runs") / "sweeps" / options.experiment.stem
    try:
        space = read_space(options.space, options.experiment, options.overrides)
        search = Sweep(
            options.experiment, space, folder, sampler=options.sampler, trials=options.trials, jobs=options.jobs,
            seed=options.seed, overrides=options.overrides, say=lambda text: print(text, flush=True),
        )  # fmt: skip
        search.run()
    except OptionError as error:
        print(error, file=sys.stderr)
        return 2
    except (ValueError, ImportError, OSError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped, with every run saved; the same command continues", file=sys.stderr)
        return 130
    trials = search.study.get_trials(deepcopy=False)
    print(sweep_report.write(folder, trials, space))
    print(", ".join(str(folder / name) for name in ("table.csv", "parallel.png") if (folder / name).is_file()))
    return 0 if any(trial.state.name == "COMPLETE" for trial in trials) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sweep.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("experiment", type=Path, metavar="FILE", help="the experiment")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="values for every run")
    parser.add_argument("--space", type=Path, required=True, metavar="FILE", help="what is searched over")
    parser.add_argument("--trials", type=int, default=20, help="how many, earlier ones included (default: %(default)s)")
    parser.add_argument("--sampler", choices=("grid", "random", "halving"), default="random",
                        help="halving: random, and the worse two thirds are stopped early, twice")  # fmt: skip
    parser.add_argument("--jobs", type=int, default=1, help="runs at once (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where it goes (default: runs/sweeps/EXPERIMENT)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
