"""The command line: words in, exit code out.

    0    everything that was asked for is done
    1    done, but runs or checks failed, or are damaged; with compare and against=: regressed;
         with tune: not proven
    2    the request cannot be carried out as written, and nothing was started; with compare and
         against=: not comparable, or inconclusive
    130  interrupted (Ctrl-C); 143 terminated; 141 output is not read: finished runs are kept

Heavy imports are inside the functions that need them, so that help appears at once.
"""

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from harness.errors import UserError
from harness.help import VERBS, help_text

if TYPE_CHECKING:
    from harness.duel.duel import Duel
    from harness.sweep import Sweep
    from harness.tune.tuning import Tuning

OURS = ("harness", "loadgen", "monitors", "profiles")


def run(argv: Sequence[str]) -> int:
    """Carry out a command line; returns the exit code."""
    try:
        return _dispatch(list(argv))
    except UserError as error:
        for line in str(error).splitlines():
            print(f"harness: {line}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", *OURS):
            raise  # a bug of ours, not a fault of the installation
        print(
            f"harness: {sys.executable} has no package '{package}': `. .venv/bin/activate` takes"
            " the Python of `make setup`, and `pip install -e .` installs into this one.",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # discards what is buffered
        return 128 + signal.SIGPIPE
    except OSError as error:
        told = str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            told = (
                f"the disk is full ({told}): make room where the results lie, and the same command"
                " continues; finished runs are kept."
            )
        print(f"harness: {told}", file=sys.stderr)
        return 2


def _dispatch(argv: list[str]) -> int:
    conf_dir = _taken(argv, "--config-dir")
    if conf_dir is not None and not (conf_dir and Path(conf_dir).is_dir()):
        raise UserError(f"--config-dir {conf_dir}: there is no such folder.")
    extra = Path(conf_dir) if conf_dir else None
    if not argv or any(word in ("-h", "--help", "help") for word in argv):
        topics = [word for word in argv if word not in ("-h", "--help", "help")]
        print(help_text(topics[0] if topics else None, extra))
        return 0
    if argv == ["--version"]:
        from harness.environment import harness_version

        print(harness_version())
        return 0
    if argv[0] in VERBS:
        return _VERBS[argv[0]](argv[1:], extra)
    _check_first(argv[0], extra)
    return _measure(argv, extra)


def _check_first(word: str, extra_conf_dir: Path | None) -> None:
    """Raises UserError for a bare word in a verb's place, with what was most likely meant."""
    if "=" in word or word.startswith(("-", "~")):
        return
    from harness.conf_files import conf_dirs, options
    from harness.overrides import nearest

    dirs = conf_dirs(extra_conf_dir)
    known = {name: name for name in VERBS}
    for group in ("tune", "sweep"):
        known |= {name: f"{group}={name}" for name in options(group, dirs)}
    hint = f" Did you mean {known[match]}?" if (match := nearest(word, known)) else ""
    raise UserError(
        f"'{word}' is no verb, nor of the form name=value.{hint} Verbs: {', '.join(VERBS)};"
        " measure with sweep=NAME, tune with tune=NAME."
    )


def _measure(words: list[str], extra_conf_dir: Path | None) -> int:
    """python -m harness sweep=NAME [setting=value ...] [against=BASELINE], or tune=NAME"""
    told = [] if extra_conf_dir is None else [f"--config-dir={extra_conf_dir}"]
    work = _prepared(words, [*told, *words], extra_conf_dir)
    if work.config.options.plan:
        print(work.plan_text())
        return 0
    with _terminable():
        return work.run()


def _prepared(
    words: list[str], command: list[str], extra_conf_dir: Path | None
) -> "Sweep | Tuning | Duel":
    """The work that was asked for, after every check that needs no launch."""
    said = {word.partition("=")[0] for word in words}
    if "against" in said and "tune" not in said:
        from harness.duel.command import prepare

        return prepare(words, command, extra_conf_dir)
    from harness.config import compose
    from harness.overrides import parse

    config = compose(parse(words), extra_conf_dir)
    if config.tune is not None:
        from harness.tune.tuning import Tuning

        return Tuning.prepare(config, command)
    from harness.sweep import Sweep

    return Sweep.prepare(config, command)


def _table(words: list[str], _extra_conf_dir: Path | None) -> int:
    """python -m harness table STUDY"""
    from harness.artefacts import tabulate
    from harness.export import export
    from harness.study import Study

    if len(words) != 1:
        raise UserError("table takes one study's folder: python -m harness table results/...")
    study = Study(Path(words[0]))
    if not tabulate(study):
        raise UserError(f"{words[0]} holds no samples of a run to make a table of.")
    export(study)
    return 0


def _compare(words: list[str], extra_conf_dir: Path | None) -> int:
    """python -m harness compare BASELINE CANDIDATE"""
    from harness.guard.command import run

    return run(words, extra_conf_dir)


def _report(words: list[str], _extra_conf_dir: Path | None) -> int:
    """python -m harness report STUDY [against=BASELINE | comparison=FILE.json] [profile=nsys]"""
    from harness.report.command import run

    with _terminable():
        return run(words)


def _validate(words: list[str], extra_conf_dir: Path | None) -> int:
    """python -m harness validate [setting=value ...]"""
    from harness.hardware.validation import validate

    with _terminable():
        return validate(words, extra_conf_dir)


_VERBS: dict[str, Callable[[list[str], Path | None], int]] = {
    "compare": _compare,
    "report": _report,
    "table": _table,
    "validate": _validate,
}


@contextmanager
def _terminable() -> Iterator[None]:
    """Make SIGTERM and SIGHUP unwind the stack as Ctrl-C does, so that servers are stopped."""
    before = {number: signal.signal(number, _exit) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _taken(argv: list[str], flag: str) -> str | None:
    """Remove `flag VALUE` or `flag=VALUE` from argv; returns the value, None if absent."""
    for index, word in enumerate(argv):
        if word == flag:
            if index + 1 == len(argv):
                raise UserError(f"{flag} needs a value.")
            del argv[index]
            return argv.pop(index)
        if word.startswith(f"{flag}="):
            return argv.pop(index).partition("=")[2]
    return None
