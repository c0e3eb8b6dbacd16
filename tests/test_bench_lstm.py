"""The measurement of the LSTM runs, compares equal things and prints its table."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_it_prints_a_table() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "bench_lstm.py"), "--steps", "5", "--batch", "2", "--dim", "8"]
    done = subprocess.run([*command, "--rounds", "2"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, *rows = done.stdout.splitlines()
    assert "5 steps, batch 2" in first
    assert float(first.rpartition(" ")[2]) < 1e-5
    assert [row.split()[0] for row in rows] == ["fused", "stepwise", "fused,"]
    assert all(" ms   x " in row for row in rows)
