"""Rules over several settings of a configuration, and about the machine: one sentence each."""

import resource
from dataclasses import fields
from itertools import product
from typing import TYPE_CHECKING

from harness.checks.interview import prompts_of
from harness.columns import COLUMNS
from harness.engines.config import ExternalEngine
from harness.errors import UserError
from harness.overrides import did_you_mean
from loadgen.config import Load
from loadgen.lengths import longest_tokens
from loadgen.prompts import check_files

if TYPE_CHECKING:
    from harness.config import Case, Config


def check(config: "Config") -> None:
    """Raises UserError for the first rule that the configuration breaks."""
    _check_files(config)
    _check_lengths(config)
    _check_connections(config)
    _check_reach(config)
    _check_shares(config)
    _check_profile(config)
    _check_checks(config)
    _check_columns(config)


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


def _check_shares(config: "Config") -> None:
    """A share of the capacity needs closed-loop runs on the same server, which find it."""
    finding = [e for case in config.cases if _has_closed(case) for e in case.engines]
    for case in config.cases:
        lost = [engine for engine in case.engines if engine not in finding]
        if lost and any(load.rate_frac for load in case.loads):
            where = f"case '{case.name}'" if case.name else f"sweep={config.sweep}"
            raise UserError(
                f"load.rate_frac ({where}) is a share of the capacity that closed-loop runs"
                f" on the same server find, and there are none for {len(lost)} of its engine"
                " settings: add a case with arrival: closed, or set load.rate_rps."
            )


def _has_closed(case: "Case") -> bool:
    return any(load.arrival == "closed" for load in case.loads)


def _check_checks(config: "Config") -> None:
    """What looks into the engine needs one that is real, and that we start."""
    checks, kind = config.options.checks, config.choice.kind
    if checks.offline is not None and kind != "vllm":
        raise UserError(
            f"checks.offline needs engine=vllm: {kind} has no offline mode; set it to null."
        )
    if checks.accuracy is None:
        return
    if kind == "sim":
        raise UserError("checks.accuracy needs a model that computes: set it to null.")
    cases = [case.name for case in config.cases]
    if not set(checks.accuracy.reference) & set(cases):
        raise UserError(
            f"checks.accuracy.reference={','.join(checks.accuracy.reference)}: none of them is"
            " among the cases that are measured, so there is nothing to compare with: name one of"
            f" {', '.join(filter(None, cases)) or 'a sweep with cases'}, or set"
            " checks.accuracy=null."
        )
    if config.model.path is not None:
        prompts_of(checks.accuracy, config.model.path)


def _check_columns(config: "Config") -> None:
    """What tables and plots are to show is measured."""
    settings = [field.name for part in (Load, type(config.engines[0])) for field in fields(part)]
    known = [*(column.name for column in COLUMNS), *map(leaf, config.axes), *settings]
    named = {"columns": config.options.columns}
    named |= {f"plots.{name}": list(plot.columns()) for name, plot in config.options.plots.items()}
    for where, columns in named.items():
        for column in columns:
            if column not in known:
                raise UserError(
                    f"{where}: there is no column '{column}'.{did_you_mean(column, known)}"
                    " All columns: python -m harness --help columns"
                )


def leaf(name: str) -> str:
    """The last part of a dotted name."""
    return name.rpartition(".")[2]
