"""Show what runs did on one page: curves, sounds, options, environment; several runs side by side.

    python scripts/report.py runs/NAME                              writes runs/NAME/report.html
    python scripts/report.py runs/A runs/B --out compared.html      side by side, with the differences of their options

The page is one HTML file without a network: open it from the disk, send it to a friend. Every finished run has one
already. Exit status: 0; 2 where a folder is no run or the page cannot be written.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.trainer.report.page import write_report


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="report.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="the folders of runs, 8 at most")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: report.html in the run's, or their, folder")
    parser.add_argument("--steps", type=int, default=6, help="at which sounds are shown, of each run (%(default)s)")
    parser.add_argument("--excerpts", type=int, default=4, help="that are shown, of each run (%(default)s)")
    options = parser.parse_args(arguments)
    try:
        if options.steps < 1 or options.excerpts < 0:
            raise ValueError("--steps must be 1 or more, --excerpts 0 or more")
        out = options.out or _place(options.runs) / "report.html"
        problems = write_report(options.runs, out, most_steps=options.steps, most_excerpts=options.excerpts)
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    for problem in problems:
        print(f"not shown: {problem}", file=sys.stderr)
    print(f"{out}: {out.stat().st_size / 2**20:.1f} MiB")
    return 0


def _place(runs: Sequence[Path]) -> Path:
    """The run's folder; of several, the folder that they have in common."""
    return runs[0] if len(runs) == 1 else Path(os.path.commonpath([run.resolve() for run in runs]))


if __name__ == "__main__":
    sys.exit(main())
