"""Why a server did not start, died or hung: a kind, a sentence, and the log lines that show it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class FailureKind(StrEnum):
    """What went wrong, as finely as a sweep needs to distinguish it."""

    BAD_ARGUMENT = "bad_argument"
    MODEL_NOT_FOUND = "model_not_found"
    OUT_OF_MEMORY = "out_of_memory"
    KV_CACHE_TOO_SMALL = "kv_cache_too_small"
    MISSING_PACKAGE = "missing_package"
    PORT_TAKEN = "port_taken"
    DIED_AT_START = "died_at_start"
    START_TIMEOUT = "start_timeout"
    DIED_UNDER_LOAD = "died_under_load"
    HANGS = "hangs"
    NO_ANSWER = "no_answer"  # to a check
    NO_CAPACITY = "no_capacity"  # for a load that is a share of it
    NOT_POSSIBLE = "not_possible"  # this machine lacks what it needs: nothing was started
    HARNESS = "harness"  # not the server's fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """`message` says what happened and what to try; `evidence` holds the log lines that show it."""

    kind: FailureKind
    message: str
    evidence: tuple[str, ...]


class EngineFailed(Exception):  # noqa: N818
    """A server cannot be used; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__("\n".join([failure.message, *(f"    {x}" for x in failure.evidence)]))
        self.failure = failure


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cause:
    kind: FailureKind
    pattern: re.Pattern[str]  # matched against one line without its prefix
    message: str  # may contain {why}: what the pattern's groups matched

    @classmethod
    def of(cls, kind: FailureKind, pattern: str, message: str) -> "_Cause":
        return cls(kind=kind, pattern=re.compile(pattern), message=message)


_K = FailureKind

# The first entry that matches any line is the cause: they are in order of how much they explain,
# not of the log. Texts are those of vLLM 0.25.1 and 0.32.0, transformers 4.57 and 5.19, PyTorch
# 2.11 and 2.13, and argparse.
_CAUSES = (
    _Cause.of(
        _K.PORT_TAKEN,
        r"\[Errno 98\]|EADDRINUSE|[Aa]ddress already in use",
        "the port is taken: leave engine.port unset to get a free one",
    ),
    _Cause.of(
        _K.BAD_ARGUMENT,
        r"error: (?P<why>unrecognized arguments: .+|argument .+|the following arguments .+|"
        r"ambiguous option: .+)",
        "vLLM refused its command line: {why}; names and values are those of `vllm serve --help`",
    ),
    _Cause.of(
        _K.MODEL_NOT_FOUND,
        r"Repo id must be in the form|Invalid repository ID or local directory|"
        r"RepositoryNotFoundError|LocalEntryNotFoundError|GatedRepoError|RevisionNotFoundError|"
        r"is not a local folder and is not a valid model identifier|"
        r"does not appear to have a file named config\.json|Can't load the configuration of",
        "the model was not found: check model.path; a hub id must be downloaded, or HF_HUB_OFFLINE"
        " be unset",
    ),
    _Cause.of(
        _K.KV_CACHE_TOO_SMALL,
        r"No available memory for the cache blocks|KV cache is needed, which is larger than|"
        r"larger than the maximum number of tokens that can be stored in KV cache",
        "the KV cache does not hold one request of full length: lower engine.max_model_len, or"
        " raise engine.gpu_memory_utilization (on a CPU: engine.env.VLLM_CPU_KVCACHE_SPACE)",
    ),
    _Cause.of(
        _K.OUT_OF_MEMORY,
        r"Free memory on device .* is less than desired|Available memory on node .* is less than",
        "less memory is free than vLLM was told to take: stop what else uses it, or lower"
        " engine.gpu_memory_utilization (on a CPU: engine.env.VLLM_CPU_KVCACHE_SPACE)",
    ),
    _Cause.of(
        _K.OUT_OF_MEMORY,
        r"CUDA out of memory|OutOfMemoryError|CUDA error: out of memory|ALLOC_FAILED|"
        r"DefaultCPUAllocator: can't allocate memory|std::bad_alloc|^MemoryError",
        "memory ran out: lower engine.gpu_memory_utilization, engine.max_num_seqs or"
        " engine.max_num_batched_tokens, or spread the model over more GPUs",
    ),
    _Cause.of(
        _K.MISSING_PACKAGE,
        r"^ModuleNotFoundError: No module named '(?P<why>[\w.]+)'|"
        r"PackageNotFoundError: No package metadata was found for (?P<package>\S+)",
        "vLLM needs the Python package {why}, which its interpreter lacks: install it there, or"
        " turn off what needs it",
    ),
    _Cause.of(
        _K.MISSING_PACKAGE,
        r"^ImportError: (?P<why>.+)",
        "vLLM could not import what it needs ({why}): its packages do not fit each other",
    ),
    _Cause.of(
        _K.BAD_ARGUMENT,
        r"^(?:Value error, (?P<why>.+?)|(?P<what>Input should be .+?))(?: \[type=.*)?$|"
        r"^ValueError: (?P<plain>User-specified .+|.+ must be (?:greater|less|divisible) .+)$",
        "vLLM refused a setting: {why}",
    ),
    _Cause.of(
        _K.BAD_ARGUMENT, r"(?P<why>\d+ validation errors? for \w+)", "vLLM refused a setting: {why}"
    ),
)

# "(Worker_TP0 pid=1182) ERROR 11-21 01:35:43 [multiproc_executor.py:898] …", each part optional
_PREFIX = re.compile(
    r"^(?:\([^)]*pid=\d+\) )?(?:(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL)"
    r"(?: \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\]|:)? ?)?"
)
_QUIET = ("DEBUG", "INFO", "WARNING")  # warnings quote errors that did not happen
_EXCEPTION = re.compile(
    r"^(?:[\w.]+\.)?\w*(?:Error|Exception|Interrupt)(?:: .*)?$|died unexpectedly"
)
_AFTERMATH = re.compile(r"Engine core initialization failed|See (?:root cause|stack trace)")
_NOISE = re.compile(r"^nanobind:|^ - (?:leaked|\.\.\. skipped)|leaked .* objects to clean up|^$")
_TAIL, _EVIDENCE, _LINE_CHARS, _WHY_CHARS = 20, 5, 400, 200
_SIGKILL = -9


def classify(log_text: str, exit_code: int | None, *, served: bool = False) -> Failure:
    """Why a server exited; `served` says that it had been up.

    The whole log is searched: in a tensor parallel server a worker prints the cause, about a
    hundred lines before the last one.
    """
    lines = list(_telling(log_text))
    evidence: tuple[str, ...]
    for cause in _CAUSES:
        if served and cause.kind is not FailureKind.OUT_OF_MEMORY:
            continue  # after the start, such lines do not explain its death
        matches = [(raw, m) for raw, text in lines if (m := cause.pattern.search(text))]
        if matches:
            groups = {k: v for k, v in matches[0][1].groupdict().items() if v}
            why = shortened(" ".join(groups.values()), _WHY_CHARS)
            evidence = _distinct([raw for raw, _ in matches])
            return Failure(
                kind=cause.kind,
                message=cause.message.format(why=why),
                evidence=(*evidence, *tail(log_text)),
            )
    exceptions = [raw for raw, text in lines if _EXCEPTION.search(text)]
    first_hand = [raw for raw in exceptions if not _AFTERMATH.search(raw)]
    evidence = _distinct(first_hand or exceptions)
    kind = FailureKind.DIED_UNDER_LOAD if served else FailureKind.DIED_AT_START
    what = f"the server {'died while it served' if served else 'died at its start'}"
    message = f"{what} ({_ended(exit_code)}): the cause is in server.log"
    if evidence:
        message = f"{what} ({_ended(exit_code)}): {shortened(_strip(evidence[0]), _WHY_CHARS)}"
    elif exit_code == _SIGKILL:
        kind = kind if served else FailureKind.OUT_OF_MEMORY
        message = f"{what}, killed from outside: most often by the kernel, because memory ran out"
    return Failure(kind=kind, message=message, evidence=(*evidence, *tail(log_text)))


def shortened(text: str, chars: int) -> str:
    """The text, cut off after a whole word, with an ellipsis, if it is longer than `chars`."""
    if len(text) <= chars:
        return text
    return f"{text[: chars - 1].rpartition(' ')[0] or text[: chars - 1]}…"


def tail(log_text: str) -> tuple[str, ...]:
    """The last lines of a log, without noise."""
    told = [line for line in log_text.splitlines() if not _NOISE.search(line)]
    return tuple(line[:_LINE_CHARS] for line in told[-_TAIL:])


def _telling(log_text: str) -> Iterator[tuple[str, str]]:
    """Each line that may name a cause: in full, and without its prefix."""
    for line in log_text.splitlines():
        prefix = _PREFIX.match(line)
        if prefix is None or prefix["level"] not in _QUIET:
            yield line, _strip(line)


def _strip(line: str) -> str:
    return _PREFIX.sub("", line, count=1).strip()


def _distinct(lines: list[str]) -> tuple[str, ...]:
    """Each text once: every process of the server prints the same, with its own prefix."""
    first = {_strip(line): line[:_LINE_CHARS] for line in reversed(lines)}
    return tuple(reversed(first.values()))[:_EVIDENCE]


def _ended(exit_code: int | None) -> str:
    if exit_code is None:
        return "exit code unknown"
    return f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
