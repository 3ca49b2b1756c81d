"""Rules that involve several settings or the machine; a broken one is explained in a sentence.

Each private function's docstring states its rule; it raises UserError if the rule is broken.
"""

import resource
import subprocess
import sys
from collections.abc import Sequence
from itertools import chain, product
from pathlib import Path
from typing import TYPE_CHECKING

from harness.checks import offline
from harness.checks.config import AccuracyCheck, TaskAccuracyCheck
from harness.checks.interview import prompts_of
from harness.checks.task_accuracy import missing
from harness.columns import COLUMNS
from harness.engines.config import ExternalEngine, VllmEngine
from harness.environment import is_secret
from harness.errors import UserError
from harness.grid import leaves
from harness.model import config_of
from harness.overrides import did_you_mean
from harness.sim.decoder import read_decoder
from loadgen.config import Load, Slo
from loadgen.lengths import longest_tokens
from loadgen.prompts import check_files

if TYPE_CHECKING:
    from harness.config import Config


def check(config: "Config", settings: Sequence[str], cases: Sequence[str]) -> None:
    """Raises UserError for the first rule that the configuration breaks.

    `settings` are the names of all settings, `cases` those of all cases of the sweep.
    """
    _check_secrets(config)
    _check_model(config)
    _check_files(config)
    _check_lengths(config)
    _check_connections(config)
    _check_reach(config)
    _check_rates(config)
    _check_interpreter(config)
    check_profiler(config.profile.kind, config.choice.kind)
    _check_checks(config)
    _check_columns(config, settings)
    _check_plots(config, cases)


def _check_lengths(config: "Config") -> None:
    """A prompt and its output must fit into the longest sequence that the server accepts."""
    for engine, load in (
        pair for case in config.cases for pair in product(case.engines, case.loads)
    ):
        limit = getattr(engine, "max_model_len", None)
        limit = limit or (
            config.model.shape.max_position_embeddings if config.model.shape else None
        )
        if load.arrival == "trace" or load.prompts.kind == "dataset":
            continue  # the server itself rejects requests that are too long
        turns = load.conversation.turns if load.conversation else 1
        longest = turns * (longest_tokens(load.input_tokens) + longest_tokens(load.output_tokens))
        if limit is not None and longest > limit:
            times = f"load.conversation.turns={turns} times " if turns > 1 else ""
            raise UserError(
                f"{times}load.input_tokens + load.output_tokens can reach {longest}, over the"
                f" {limit} tokens of engine.max_model_len: lower them or raise it."
            )


def _check_secrets(config: "Config") -> None:
    """No axis has secrets as its values, because they label runs and are written to the study."""
    space = config.tune.space if config.tune else {}
    axes = config.axes | {
        f"engine.{name}": axis.values or [] for name, axis in space.items() if axis
    }
    for name, values in axes.items():
        for setting, _ in chain.from_iterable(leaves({name: value}) for value in values):
            if setting.startswith("engine.env.") and is_secret(setting.removeprefix("engine.env.")):
                raise UserError(
                    f"{setting} may be a secret, and the values of an axis are written to the"
                    " study: give it one value."
                )


def _check_model(config: "Config") -> None:
    """A model's config.json, if it is on this machine, can be read; the simulator needs it."""
    path, is_simulated = config.model.path, config.choice.kind == "sim"
    if path is None:
        return
    if is_simulated and not Path(path).is_dir():
        raise UserError(
            f"model={path}: the simulator downloads nothing; name a folder with the model's"
            " config.json, or a shape, e.g. model=qwen2.5-7b."
        )
    try:
        config_of(config.model)
        if is_simulated:
            read_decoder(Path(path))
    except (OSError, ValueError) as error:
        raise UserError(f"model={path}: {error}") from None


def _check_files(config: "Config") -> None:
    """Files of lengths, conversations and traces exist and can be read."""
    for load in config.loads:
        try:
            check_files(load)
        except (OSError, ValueError) as error:
            raise UserError(f"load.{error}") from None


def _check_reach(config: "Config") -> None:
    """The client has a transport for an external server, and the headers it must send."""
    for engine in config.engines:
        if isinstance(engine, ExternalEngine):
            try:
                config.options.client.transport_for(engine.url)
                engine.headers()
            except ValueError as error:
                raise UserError(str(error)) from None


def _check_connections(config: "Config") -> None:
    """A process may open enough files: each stream is a connection of the load generator."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(load.concurrency or 0 for load in config.loads)
    if most != resource.RLIM_INFINITY and wanted + 100 > most:
        raise UserError(
            f"load.concurrency={wanted} needs as many open files, and a process may have {most}"
            " here: raise the hard limit (ulimit -Hn) or lower it."
        )


def check_profiler(profile: str, engine: str) -> None:
    """Raises UserError if a profiler is asked for with an engine other than vLLM.

    Only a server that we start can run under a profiler, and only vLLM supports it.
    """
    if profile != "none" and engine != "vllm":
        raise UserError(f"profile={profile} needs engine=vllm: {engine} has no profiler.")


def _check_rates(config: "Config") -> None:
    """A rate is given in only one way."""
    if any(load.rate_rps is not None and load.rate_frac is not None for load in config.loads):
        raise UserError(
            "load.rate_rps and load.rate_frac both say how fast requests come: set one to null."
        )
    for load in config.loads:
        if load.search is not None:
            _check_search(load, config.options.slo)


def _check_search(load: Load, slo: Slo) -> None:
    """A search has a free intensity to vary, and limits that can be broken."""
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
    """Only one vLLM serves a study, because its version is part of every id."""
    if len({getattr(engine, "python", None) for engine in config.engines}) > 1:
        raise UserError("engine.python names one interpreter: it cannot differ between cases.")


def _check_checks(config: "Config") -> None:
    """Each check that is asked for is possible with these engines, loads and models."""
    checks = config.options.checks
    if checks.offline is not None:
        _check_offline(config)
    if checks.accuracy is not None:
        _check_accuracy(config, checks.accuracy)
    if checks.task_accuracy is not None:
        _check_task_accuracy(config, checks.task_accuracy)


def _check_offline(config: "Config") -> None:
    """An engine can run without a server, and a load gives it work."""
    engines = [engine for engine in config.engines if isinstance(engine, VllmEngine)]
    if not engines:
        raise UserError(
            f"checks.offline needs engine=vllm: {config.choice.kind} has no offline mode; set it"
            " to null."
        )
    if all(whys := [offline.obstacle(engine) for engine in engines]):
        raise UserError(f"checks.offline: {whys[0]}; set it to null.")
    if not any(map(offline.has_lengths, config.loads)):
        raise UserError(
            "checks.offline needs a load of unique prompts with lengths of its own (no trace, no"
            " conversation, load.ignore_eos=true): set it to null."
        )


def _check_accuracy(config: "Config", asked: AccuracyCheck) -> None:
    """The model computes, and there are prompts for it."""
    if config.choice.kind == "sim":
        raise UserError("checks.accuracy needs a model that computes: set it to null.")
    if config.model.path is not None:
        prompts_of(asked, config.model.path)


def _check_task_accuracy(config: "Config", asked: TaskAccuracyCheck) -> None:
    """The model computes, its tokenizer is known, and lm_eval is installed."""
    if config.choice.kind == "sim":
        raise UserError("checks.task_accuracy needs a model that computes: set it to null.")
    if config.choice.kind == "external" and config.model.path == "external":
        raise UserError(
            "checks.task_accuracy needs the tokenizer of the model that is served: name it by"
            " model=FOLDER or its hub id."
        )
    if asked.include_path is not None and not Path(asked.include_path).is_dir():
        raise UserError(
            f"checks.task_accuracy.include_path={asked.include_path}: there is no such folder."
        )
    python = asked.python or sys.executable
    try:
        absent = missing(python)
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"checks.task_accuracy.python={python}: cannot be run ({error}).") from None
    if absent:
        raise UserError(
            f"checks.task_accuracy needs {', '.join(absent)}, which {python} has not: pip install"
            " 'lm_eval[api]' transformers there, or name the interpreter that has them by"
            " checks.task_accuracy.python=PATH."
        )


def _check_columns(config: "Config", settings: Sequence[str]) -> None:
    """Columns that tables and plots ask for are measured, or are settings of engine or load."""
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
    """The cases that a plot names exist, even if not on every kind of machine."""
    for name, plot in config.options.plots.items():
        for case in plot.cases or ():
            if case not in cases:
                raise UserError(
                    f"plots.{name}.cases: there is no case '{case}'.{did_you_mean(case, cases)}"
                )


def leaf(name: str) -> str:
    """The last part of a dotted name."""
    return name.rpartition(".")[2]
