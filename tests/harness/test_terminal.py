"""Screens whose reader has left."""

import subprocess
import sys
from pathlib import Path

STUDY = Path(__file__).parents[2] / "results/reference/2xh200/regression/eager/baseline"


def test_a_reader_that_leaves_is_no_verdict() -> None:
    """Exit code 1 would say that something has regressed."""
    words = ("compare", str(STUDY), "policy=interactive")
    told = subprocess.Popen([sys.executable, "-m", "harness", *words], stdout=subprocess.PIPE)
    assert told.stdout is not None
    told.stdout.close()
    assert told.wait(timeout=120) == 141
