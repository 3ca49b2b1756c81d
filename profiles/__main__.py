"""Print the findings of a trace, or what changed since an earlier one.

python -m profiles trace.nsys-rep
python -m profiles trace.sqlite.xz --against earlier.sqlite.xz --json changed.json
python -m profiles folder-of-torch-traces

TRACE is an export or report of Nsight Systems (.sqlite, .nsys-rep, .qdstrm), a
PyTorch trace (.json, or a folder with one per rank), any of these files with
.xz or .gz, findings written by --json, or a capture folder of the harness
(runs/ID/profile/KIND).
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from profiles.diff import diff
from profiles.diff import page as diff_page
from profiles.errors import BadTrace, ProfileError
from profiles.findings import Findings, analyse, from_json
from profiles.page import page
from profiles.source import read

FINDINGS = "findings.json"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m profiles",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("trace", type=Path, metavar="TRACE")
    parser.add_argument(
        "--against", type=Path, metavar="EARLIER", help="print what changed since that trace"
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help=f"write all numbers there; to read them back, name it *{FINDINGS}",
    )
    args = parser.parse_args(arguments)
    try:
        text, told = _told(args.trace, args.against)
        if args.json is not None:
            args.json.write_text(told + "\n")
    except (ProfileError, OSError) as error:
        print(f"profiles: {error}", file=sys.stderr)
        return 2
    print(text)
    return 0


def _told(trace: Path, against: Path | None) -> tuple[str, str]:
    """The page, and the JSON."""
    findings = findings_at(trace)
    if against is None:
        return page(findings), findings.as_json()
    earlier = findings_at(against)
    if earlier.source == findings.source:  # a study's captures all have the same name
        earlier = replace(earlier, source=str(against))
        findings = replace(findings, source=str(trace))
    changed = diff(earlier, findings)
    return diff_page(changed), json.dumps(changed.as_dict(), indent=1)


def findings_at(path: Path) -> Findings:
    """The findings of a trace, or those in a file or a capture's folder. Raises ProfileError."""
    if (path / FINDINGS).is_file():
        path /= FINDINGS
    if not path.name.endswith(FINDINGS):
        return analyse(read(path))
    try:
        return from_json(path.read_text())
    except (OSError, ValueError) as error:
        words = str(error).splitlines()[0]
        raise BadTrace(f"{path}: no findings that can be read ({words})") from None


if __name__ == "__main__":
    sys.exit(main())
