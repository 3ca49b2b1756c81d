"""`python -m harness`: see harness/cli.py."""

import sys

from harness.cli import run


def main() -> int:
    """Run the command line of this process; returns the exit code."""
    return run(sys.argv[1:])


if __name__ == "__main__":
    raise SystemExit(main())
