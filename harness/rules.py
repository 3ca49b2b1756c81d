"""Rules over several settings of a configuration, and about the machine: one sentence each."""

import resource
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

from harness.checks.config import AccuracyCheck
from harness.checks.interview import prompts_of
from harness.checks.offline import has_lengths
from harness.columns import COLUMNS
from harness.engines.config import ExternalEngine
from harness.errors import UserError
from harness.overrides import did_you_mean
from loadgen.config import Load, Slo
from loadgen.lengths import longest_tokens
from loadgen.prompts import check_files

if TYPE_CHECKING:
    from harness.config import Config


def check(config: "Config", settings: Sequence[str], cases: Sequence[str]) -> None:
    """Raises UserError for the first rule that the configuration breaks.

    `settings` are the names of all that can be set, `cases` those of all that the sweep knows.
    """
    _check_files(config)
    _check_lengths(config)
    _check_connections(config)
    _check_reach(config)
    _check_rates(config)
    _check_interpreter(config)
    _check_profile(config)
    _check_checks(config)
    _check_columns(config, settings)
    _check_plots(config, cases)


def _check_lengths(config: "Config") -> None:
    """A prompt and its output must fit the longest sequence that the server will take."""
    for engine, load in (
        pair for case in config.cases for pair in product(case.engines, case.loads)
    ):
        limit = getattr(engine, "max_model_len", None)
        limit = limit or (
            config.model.shape.max_position_embeddings if config.model.shape else None
        )
        if load.arrival == "trace" or load.prompts.kind == "dataset":
            continue  # the server will say which requests are too long for it
        turns = load.conversation.turns if load.conversation else 1
        longest = turns * (longest_tokens(load.input_tokens) + longest_tokens(load.output_tokens))
        if limit is not None and longest > limit:
            times = f"load.conversation.turns={turns} times " if turns > 1 else ""
            raise UserError(
                f"{times}load.input_tokens + load.output_tokens can reach {longest}, over the"
                f" {limit} tokens of engine.max_model_len: lower them or raise it."
            )


def _check_files(config: "Config") -> None:
    """Lengths, conversations and traces are there, and can be read."""
    for load in config.loads:
        try:
            check_files(load)
        except (OSError, ValueError) as error:
            raise UserError(f"load.{error}") from None


def _check_reach(config: "Config") -> None:
    """The client can speak to an external server, and has what it must tell it."""
    for engine in config.engines:
        if isinstance(engine, ExternalEngine):
            try:
                config.options.client.transport_for(engine.url)
                engine.headers()
            except ValueError as error:
                raise UserError(str(error)) from None


def _check_connections(config: "Config") -> None:
    """A stream is a connection, and a connection is an open file of the load generator."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(load.concurrency or 0 for load in config.loads)
    if most != resource.RLIM_INFINITY and wanted + 100 > most:
        raise UserError(
            f"load.concurrency={wanted} needs as many open files, and a process may have {most}"
            " here: raise the hard limit (ulimit -Hn) or lower it."
        )


def _check_profile(config: "Config") -> None:
    """Only a server that we start can be put under a profiler, and only vLLM knows how."""
    if (kind := config.profile.kind) != "none" and config.choice.kind != "vllm":
        raise UserError(f"profile={kind} needs engine=vllm: {config.choice.kind} has no profiler.")


def _check_rates(config: "Config") -> None:
    """A rate is asked for in one way."""
    if any(load.rate_rps is not None and load.rate_frac is not None for load in config.loads):
        raise UserError(
            "load.rate_rps and load.rate_frac both say how fast requests come: set one to null."
        )
    for load in config.loads:
        if load.search is not None:
            _check_search(load, config.options.slo)


def _check_search(load: Load, slo: Slo) -> None:
    """There is something to search for, and limits that can be broken."""
    for name in ("rate_rps", "concurrency"):
        if getattr(load, name) is not None:
            raise UserError(
                f"load.search looks for what load.{name}={getattr(load, name):g} says: set one to"
                " null."
            )
    if not slo.is_set:
        raise UserError(
            "load.search looks for the largest load that keeps the limits of slo, and there is"
            " none: set slo.ttft_s, slo.tpot_s or slo.e2e_s."
        )
    if not load.stream and slo.e2e_s is None:
        raise UserError(
            "load.stream=false has no TTFT and no TPOT to keep a limit: set slo.e2e_s, or stream."
        )


def _check_interpreter(config: "Config") -> None:
    """One vLLM serves a study: its version is in every id."""
    if len({getattr(engine, "python", None) for engine in config.engines}) > 1:
        raise UserError("engine.python names one interpreter: it cannot differ between cases.")


def _check_checks(config: "Config") -> None:
    """What looks into the engine needs one that is real, and that we start."""
    checks, kind = config.options.checks, config.choice.kind
    if checks.offline is not None and kind != "vllm":
        raise UserError(
            f"checks.offline needs engine=vllm: {kind} has no offline mode; set it to null."
        )
    if checks.offline is not None and not any(map(has_lengths, config.loads)):
        raise UserError(
            "checks.offline needs a load of unique prompts with lengths of its own (no trace, no"
            " conversation, load.ignore_eos=true): set it to null."
        )
    if checks.accuracy is not None:
        _check_accuracy(config, checks.accuracy)


def _check_accuracy(config: "Config", asked: AccuracyCheck) -> None:
    """There is something to ask, and somebody to answer."""
    if config.choice.kind == "sim":
        raise UserError("checks.accuracy needs a model that computes: set it to null.")
    if config.model.path is not None:
        prompts_of(asked, config.model.path)


def _check_columns(config: "Config", settings: Sequence[str]) -> None:
    """What tables and plots are to show is measured, or an axis, or one where it is not pinned."""
    names = (name for name in settings if name.startswith(("engine.", "load.")))
    known = [*(column.name for column in COLUMNS), *map(leaf, config.axes), *map(leaf, names)]
    named = {"columns": config.options.columns}
    named |= {f"plots.{name}": list(plot.columns()) for name, plot in config.options.plots.items()}
    for where, columns in named.items():
        for column in columns:
            if column not in known:
                raise UserError(
                    f"{where}: there is no column '{column}'.{did_you_mean(column, known)}"
                    " All columns: python -m harness --help columns"
                )


def _check_plots(config: "Config", cases: Sequence[str]) -> None:
    """The cases that a plot is of are there, if not on every kind of machine."""
    for name, plot in config.options.plots.items():
        for case in plot.cases or ():
            if case not in cases:
                raise UserError(
                    f"plots.{name}.cases: there is no case '{case}'.{did_you_mean(case, cases)}"
                )


def leaf(name: str) -> str:
    """The last part of a dotted name."""
    return name.rpartition(".")[2]
