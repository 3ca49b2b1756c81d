"""Help, made from the configuration folder and the schema, so that it cannot be out of date."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.errors import UserError

VERBS = {
    "compare": "regression verdict: compare BASELINE CANDIDATE, or compare STUDY policy=NAME",
    "report": "a study on one page: report STUDY [against=BASELINE [profile=nsys]]",
    "table": "rebuild a study's table and plots: table STUDY",
    "validate": "what this hardware can do, and whether that has changed: --help validate",
}

_HELP = """\
vLLM serving benchmark and tuning harness.

  python -m harness sweep=NAME [setting=value ...]     measure
  python -m harness sweep=NAME ... against=BASELINE    measure both until there is a verdict
  python -m harness tune=NAME [setting=value ...]      find the best settings, and prove the gain
  python -m harness VERB ...                           one of the verbs below

Sweeps
{sweeps}

Tunings
{tunings}

Verbs
{verbs}

Examples
  python -m harness sweep=batching
  python -m harness sweep=batching engine.max_num_seqs=128,256 load.concurrency=64
  python -m harness sweep=batching plan=true

One value pins a setting; several (a,b,c) make it an axis. engine= is auto, vllm, sim or external.
The same command resumes a study that was interrupted.
Exit code 0: all is done; 1: something failed or is damaged; 2: nothing was started; verbs have
their own.

  --help sweep=NAME  a sweep's own file, with comments; also: tune=NAME
  --help settings    every setting, with its meaning and default
  --help columns     every column of a table
  --help validity    every validity code: the reasons not to believe a number
  --help compare     the options of a verb; also: report, table, tune, validate
  --config-dir DIR   a folder like conf/, with your own sweeps, models, loads, policies
  --version\
"""

_COMPARE = """\
  python -m harness compare BASELINE CANDIDATE [name=value ...]    judge a study against another
  python -m harness compare STUDY policy=NAME [name=value ...]     judge it against fixed limits
  python -m harness sweep=NAME ... against=BASELINE [name=value ...]
                     measure both anew, interleaved, until the verdict is settled; BASELINE is a
                     study's folder, or `defaults`: the same command without its engine settings

  metrics=a,b,...    columns to compare, instead of those in the guard file
  allow=what,...     differences and fatal codes to accept, by the names that the refusal gives
  policy=NAME        limits, from conf/policy/ or a file; also with a baseline; not with against=
  guard=NAME         thresholds, metrics and confidence, from conf/guard/ or a file [default]
  guard.SETTING=...  with against= only: guard.max_launches=N is the budget, in launches per
                     side; the first verdict comes after guard.first_look=N of them
  json=FILE          write all findings, for programs
  junit=FILE         write a test case for each metric at each point, for CI systems
  markdown=FILE      write a paragraph for a pull request

Exit code 0: pass; 1: regressed, or a limit is broken; 2: inconclusive, refused, or bad input.
The unit of evidence is the launch: measure with repeats.launches=5 or more, or let against= decide
how many are needed (docs/verdict.md).\
"""


_REPORT = """\
  python -m harness report STUDY [name=value ...]    write report.html and report.md into the study

  against=BASELINE   start with the verdict, and the evidence for each point that regressed
  allow=what,...     as for compare
  comparison=FILE    a verdict that compare json=FILE wrote, instead of against=
  profile=KIND       capture missing traces of both sides at points that regressed: nsys, or torch,
                     which also works on a CPU; only on the machine that was measured
  profile.points=N   how many points to capture, worst first; each costs two server starts [2]
  profile.seconds=S  seconds of the steady window to capture [1.5]

Traces are kept with the runs of each study; a failed one is reported with its reason, and retried.
A run with damaged samples is named and left out; against= refuses it.
Exit code 0: the report is written; 2: bad input, or another environment: nothing was started.\
"""

_TABLE = """\
  python -m harness table STUDY    rebuild table.md, .csv, .parquet and plots/

All of it comes from the raw samples of the study's runs, which never change. Columns and plots are
those that the sweep's last command asked for; plots that are no longer asked for are removed.
Runs with damaged files are named and left out. A run that lacks its vllm_bench.json gets it; one
that is there is kept, because it would be the same. Exit code 0: written; 2: there are no samples.\
"""

_TUNE = """\
  python -m harness tune=NAME [setting=value ...]    search, prove, answer; or resume that
  python -m harness tune=NAME plan=true              show the space, launches and minutes

{settings}

engine.NAME=VALUE pins a setting for all trials and the defaults. tune.space.NAME=[1,2] changes an
axis, null removes it. Budgets cover search and proof together.

Exit code 0: a gain is proven, or the defaults are best; 1: neither; 2: bad input, or limits that
even one request at a time misses. docs/tune.md describes the method.\
"""

_VALIDITY = """\
{codes}

A fatal code voids its row: it has no gain, speed-up, efficiency or knee, it is no headline of a
report, notebooks leave it out, and compare refuses it. The row of several runs leaves out the void
ones, unless all are, and has in parentheses what voids them.\
"""

_VALIDATE = """\
  python -m harness validate [setting=value ...]    measure this machine's hardware, and judge it

{settings}

Exit code 0: nothing failed; 1: something did, or drift=A,B cannot be compared; 2: there is no GPU
to judge, or bad input. docs/validate.md says what each probe measures.\
"""


def help_text(topic: str | None, extra_conf_dir: Path | None = None) -> str:
    """The short help, or that of a topic. Raises UserError for a topic that is not there."""
    topics = {
        "settings": _settings,
        "columns": _columns,
        "validity": _validity,
        "compare": lambda: _COMPARE,
        "report": lambda: _REPORT,
        "table": lambda: _TABLE,
        "tune": _tune,
        "validate": _validate,
    }
    group, _, name = (topic or "").partition("=")
    if group in ("sweep", "tune") and name:
        return _file(group, name, extra_conf_dir)
    if topic is None:
        return _HELP.format(
            sweeps=_listed(_choices("sweep", extra_conf_dir)),
            tunings=_listed(_choices("tune", extra_conf_dir)),
            verbs=_listed(VERBS.items()),
        )
    if topic not in topics:
        raise UserError(
            f"there is no help on '{topic}'; there is on: {', '.join(topics)}, and on each sweep"
            " and tuning: --help sweep=NAME, --help tune=NAME."
        )
    return topics[topic]()


def _file(group: str, name: str, extra_conf_dir: Path | None) -> str:
    """A sweep or a tuning by its own file: its comments say what it is about."""
    from harness.conf_files import conf_dirs, options
    from harness.overrides import not_there

    files = options(group, conf_dirs(extra_conf_dir))
    if name not in files:
        raise not_there(group, name, files)
    lines = files[name].read_text(errors="replace").splitlines()
    return "\n".join([f"{files[name]}", "", *(x for x in lines if not x.startswith("# @package"))])


def _choices(group: str, extra_conf_dir: Path | None) -> Iterator[tuple[str, str]]:
    from harness.conf_files import conf_dirs, describe, options

    for name, path in options(group, conf_dirs(extra_conf_dir)).items():
        yield name, describe(path)


def _settings() -> str:
    from harness.settings import documented_settings

    return _listed(documented_settings())


def _tune() -> str:
    from harness.settings import documented_settings

    told = (pair for pair in documented_settings() if pair[0].startswith("tune."))
    return _TUNE.format(settings=_listed(told))


def _columns() -> str:
    from harness.columns import COLUMNS

    return _listed((column.name, column.meaning) for column in COLUMNS)


def _validity() -> str:
    from harness.validity import CODES

    told = ((n, c.meaning + (" [fatal]" if c.fatal else "")) for n, c in CODES.items())
    return _VALIDITY.format(codes=_listed(told))


def _validate() -> str:
    from harness.hardware.options import documented

    return _VALIDATE.format(settings=_listed(documented()))


def _listed(items: Any) -> str:
    pairs = list(items)
    width = max((len(name) for name, _ in pairs), default=0)
    return "\n".join(f"  {name:<{width}}  {text}" for name, text in pairs)
