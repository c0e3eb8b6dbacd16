"""What the measurements share: several things in turns, round after round, and the quartiles of their ratios.

The clock of a shared machine wanders by more than what is to be found out. So those that are compared take turns within
a round, ratios are taken round by round, and the first is run again at the end of each round: the ratio of those two
(A/A) says what a difference must exceed to be one.
"""

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

AGAIN = " (A/A)"  # after the name of the first: its second run in the round


def _nothing() -> None:
    """For runs that need no preparation."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is timed: ``go`` returns how many pieces it made; ``prepare`` and ``finish`` are not timed."""

    go: Callable[[], int]
    prepare: Callable[[], object] = _nothing
    finish: Callable[[], object] = _nothing

    def seconds_a_piece(self) -> float:
        """Run it once."""
        self.prepare()
        started = time.perf_counter()
        pieces = self.go()
        taken = time.perf_counter() - started
        self.finish()
        return taken / pieces


def in_turns(runs: Mapping[str, Run], rounds: int) -> dict[str, list[float]]:
    """Seconds a piece of each run, round by round, after one round that does not count.

    The order turns about from round to round, but for the first run, which starts each round and ends it.
    """
    first, *others = runs
    seconds: dict[str, list[float]] = {name: [] for name in [first, *others, first + AGAIN]}
    for number in range(-1, rounds):
        turned = others if number % 2 else others[::-1]
        for name in [first, *turned, first + AGAIN]:
            taken = runs[name.removesuffix(AGAIN)].seconds_a_piece()
            if number >= 0:
                seconds[name].append(taken)
    return seconds


def quartiles(values: list[float]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    if len(values) == 1:
        return values * 3
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return [low, middle, high]


def resident_bytes(which: str) -> int:
    """Memory of this process as Linux counts it: VmRSS now, VmHWM at most."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith(which)))


if __name__ == "__main__":
    print("bench_rounds.py is a part of bench.py: run python scripts/bench.py data", file=sys.stderr)
    sys.exit(2)
