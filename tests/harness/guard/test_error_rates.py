"""The benchmark of the verdict, in small: that it runs, and that the rates are not far off."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_error_rates_can_be_measured_again() -> None:
    command = [sys.executable, "benchmarks/verdict_errors.py", "--comparisons", "100"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| normal")]
    assert len(rows) == 2, "one after the other, and interleaved"
    for cell in (cell for row in rows for cell in row[1:]):
        assert float(cell.partition("%")[0]) <= 5, rows
