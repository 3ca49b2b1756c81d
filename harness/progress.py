"""Progress of a sweep for people: two bars on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Iterable
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from harness.plan import Launch, Run
from harness.terminal import Terminal
from harness.units import milliseconds, whole
from loadgen.records import Progress as LoadProgress

WIDE = 80  # columns; on fewer, the bars give way to the text
ROOMY = 100  # columns; on fewer, the elapsed time gives way to the remaining time


class Display(Protocol):
    """What the runner reports about its work."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
    def launching(self, launch: Launch) -> None: ...
    def phase(self, name: str) -> None: ...
    def running(self, launch: Launch, run: Run) -> None: ...
    def live(self, now: LoadProgress) -> None: ...
    def finished(self, text: str) -> None: ...
    def note(self, text: str) -> None: ...
    def tell(self, text: str) -> None: ...


def display(
    total_runs: int, done_runs: int, noted: set[str] | None = None, what: str = "sweep"
) -> Display:
    """The display that suits stdout.

    `noted` holds the notes of earlier displays of the same command, which are not repeated; this
    display adds its own. `what` names the work whose progress is shown.
    """
    noted = set() if noted is None else noted
    console = Terminal()
    if console.is_terminal and not console.is_dumb_terminal:
        return Bars(console, total_runs, done_runs, noted, what)
    return Lines(total_runs, done_runs, noted)


class Lines:
    """One line for each event: logs, CI, pipes."""

    def __init__(self, total_runs: int, done_runs: int, noted: set[str]) -> None:
        self._total, self._done = total_runs, done_runs
        self._noted = noted

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout.flush()

    def launching(self, launch: Launch) -> None:
        """A server is being started."""
        print(f"launch {launch.id}: {launch.label}", flush=True)

    def phase(self, name: str) -> None:
        """A phase of the start-up began."""

    def running(self, launch: Launch, run: Run) -> None:
        """A run begins."""
        told = _within(launch, run)  # the launch has a line of its own
        print(f"  run {self._done + 1}/{self._total}{told and f': {told}'}", flush=True)

    def live(self, now: LoadProgress) -> None:
        """The load as it is now."""

    def finished(self, text: str) -> None:
        """A run ended."""
        self._done += 1
        print(f"    {text}", flush=True)

    def note(self, text: str) -> None:
        """Something to know, said once."""
        if text not in self._noted:
            self._noted.add(text)
            print(f"note: {text}", flush=True)

    def tell(self, text: str) -> None:
        """A line on the result so far."""
        print(text, flush=True)


class _Rows(Progress):
    """Rows that leave room for "^C" at the right edge.

    A terminal writes ^C at the cursor. If that wrapped to another line, the last rows drawn would
    not overwrite those before.
    """

    def __init__(self, *columns: ProgressColumn, console: Console) -> None:
        self._screen = console  # set first, because super().__init__ already asks for rows
        # Drawn on request only, at most four times per second: no thread of ours beside the load.
        super().__init__(*columns, console=console, auto_refresh=False, expand=True)

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        """The rows as a table, narrower than the screen."""
        table = super().make_tasks_table(tasks)
        table.width = max(1, self._screen.width - len("^C") - 1)
        return table


class _TimeLeft(TimeRemainingColumn):
    """The remaining time, labelled, because the elapsed time looks the same."""

    def render(self, task: Task) -> Text:
        """The text, e.g. "0:01:07 left"."""
        return super().render(task).append(" left")


class Bars:
    """One bar for the whole sweep, one for the current run or start."""

    def __init__(
        self,
        console: Console,
        total_runs: int,
        done_runs: int,
        noted: set[str],
        what: str = "sweep",
    ) -> None:
        self._noted = noted
        self._total, self._done = total_runs, done_runs
        bar = BarColumn(bar_width=None, table_column=Column(ratio=2))
        is_wide = console.width >= WIDE
        self._progress = _Rows(
            TextColumn("{task.description}", table_column=Column(ratio=3, no_wrap=True)),
            *([bar] if is_wide else []),
            TextColumn("{task.fields[live]}", table_column=Column(no_wrap=True)),
            *([TimeElapsedColumn()] if console.width >= ROOMY else []),
            _TimeLeft() if is_wide else TimeRemainingColumn(),
            console=console,
        )
        count = f"{done_runs}/{total_runs} runs"
        self._whole = self._progress.add_task(
            what, total=total_runs, completed=done_runs, live=count
        )
        self._now = self._progress.add_task("", total=None, live="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.update(self._now, visible=False)
        self._progress.refresh()
        self._progress.stop()

    def launching(self, launch: Launch) -> None:
        """A server is being started."""
        self._progress.reset(self._now, total=None, description=f"start {launch.label}", live="")
        self._progress.refresh()

    def phase(self, name: str) -> None:
        """A phase of the start-up began."""
        self._progress.update(self._now, live=name, refresh=True)

    def running(self, launch: Launch, run: Run) -> None:
        """A run begins."""
        self._title = "  ".join(filter(None, [launch.label, _within(launch, run)]))
        self._progress.reset(self._now, total=None, description=self._title, live="")
        self._progress.refresh()

    def live(self, now: LoadProgress) -> None:
        """The load as it is now."""
        ttft = "–" if now.ttft_p50_s is None else f"{milliseconds(now.ttft_p50_s)} ms"
        live = f"{now.phase}  {whole(now.output_tok_per_s)} tok/s  TTFT {ttft}  {now.failed} failed"
        self._progress.update(
            self._now, total=now.planned_s, completed=now.elapsed_s, live=live, refresh=True
        )

    def finished(self, text: str) -> None:
        """A run ended."""
        self._done += 1
        self._progress.console.print(f"{self._title}: {text}", markup=False)
        count = f"{self._done}/{self._total} runs"
        self._progress.update(self._whole, completed=self._done, live=count, refresh=True)

    def note(self, text: str) -> None:
        """Something to know, said once."""
        if text not in self._noted:
            self._noted.add(text)
            self._progress.console.print(f"note: {text}", markup=False)

    def tell(self, text: str) -> None:
        """A line on the result so far."""
        self._progress.console.print(text, markup=False)


def _within(launch: Launch, run: Run) -> str:
    """What distinguishes a run from the others of its launch, and the launch from its repeats."""
    nth_run = 1 if run.load.search else run.repeat  # a probe's label has its number
    repeat = f"launch {launch.repeat} run {nth_run}" if launch.repeat + nth_run > 2 else ""
    return "  ".join(filter(None, [run.label, repeat]))
