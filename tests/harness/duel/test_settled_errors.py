"""The benchmark of verdicts that are measured until settled, in small."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_error_rates_of_a_duel_can_be_measured_again() -> None:
    command = [sys.executable, "benchmarks/settled_errors.py", "--comparisons", "100"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()]
    [normal] = [row for row in rows if row[0].startswith("normal")]
    assert all(float(cell.partition("%")[0]) <= 5 for cell in normal[1:3]), normal
    slow, _ = [row for row in rows if row[0] == "20%"]
    assert slow[1] == "100%", "twenty times the noise"
    assert float(slow[3]) < 6, "and soon"
