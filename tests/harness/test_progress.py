import re
from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from harness.progress import WIDE, Bars, display
from loadgen.records import Progress

LAUNCH: Any = SimpleNamespace(label="sim", repeat=1)
RUN: Any = SimpleNamespace(label="concurrency=64", repeat=1, load=SimpleNamespace(search=None))


def drawn(width: int, what: str = "sweep") -> list[str]:
    """The rows of the last picture of a sweep that runs, without colours."""
    text = StringIO()
    console = Console(file=text, width=width, force_terminal=True, color_system=None)
    bars = Bars(console, total_runs=2, done_runs=0, noted=set(), what=what)
    with bars:
        bars.running(LAUNCH, RUN)
        text.truncate(text.seek(0))
        bars.live(
            Progress(
                phase="warmup",
                elapsed_s=2.0,
                planned_s=9.0,
                output_tok_per_s=1500.0,
                ttft_p50_s=0.0098,
                failed=0,
                in_flight=64,
                completed=0,
            )
        )
        rows = re.sub(r"\x1b\[[\d;?]*\w", "\r", text.getvalue())
    return [row for row in re.split(r"[\r\n]+", rows) if row]


def test_the_first_bar_says_what_it_is_the_progress_of() -> None:
    assert drawn(80, "search")[0].startswith("search")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_what_runs_and_how_it_goes_fit_the_screen_and_leave_room_for_ctrl_c(width: int) -> None:
    whole, now = drawn(width)
    assert whole.startswith("sweep")
    assert "0/2 runs" in whole
    assert now.startswith("sim")
    assert re.search(r"warmup +1,500 tok/s +TTFT 9.80 ms +0 failed", now)
    left = r"(0:00:07|-:--:--)" + (" left" if width >= WIDE else "")
    assert re.search(rf"{left}$", now.rstrip())
    assert max(map(len, (whole, now))) <= width - len("^C")


def test_what_one_display_of_a_command_noted_no_other_says_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    noted: set[str] = set()
    for look in ("first", "second"):
        with display(2, 0, noted) as show:
            show.note("no GPU was found")
            show.note(f"the {look} look")
    assert capsys.readouterr().out.splitlines() == [
        "note: no GPU was found",
        "note: the first look",
        "note: the second look",
    ]
