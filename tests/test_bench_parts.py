"""The parts of the benchmark say what to run instead of them."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


@pytest.mark.parametrize("name", ["bench_data.py", "bench_rounds.py"])
def test_a_part_run_directly_names_the_whole(name: str) -> None:
    done = subprocess.run([sys.executable, str(SCRIPTS / name)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"{name} is a part of bench.py: run python scripts/bench.py data\n"
