"""The numbers of a run: pure functions of its tables.

Symbols: t_s due, t_0 sent, t_1 and t_n first and last content chunk, n output tokens by the
server's count, k content chunks. The sample is

- closed loop: the requests whose last chunk came inside the window. Load is stationary there, so
  completions are an unbiased sample, and nothing waits for the slowest;
- open loop: the requests that were due inside the window, whenever they ended. For those still
  running at the end of the drain, a latency that is not known yet counts as +inf. A percentile may
  then be inf, meaning "longer than the run lasted".

Failed requests are in no latency's sample; they are counted separately. None means undefined.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from loadgen.config import Load, Slo
from loadgen.records import Columns, Status, Window

# Of a stream in a closed loop's window, two in each half: streams go in step and make waves, one a
# reply, and of fewer waves the rate is that of where the window fell.
MIN_REPLIES = 4
BLOCK = 2**20  # chunks that are looked at at once: there may be a hundred million

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
# A run's chunks: as a whole, or read part by part whenever this is called. Parts stand in the order
# of their requests, and the chunks of one request in that of time.
Chunks = Columns | Callable[[], Iterable[Columns]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One run in numbers; the names are the columns of the table."""

    requests_ok: int
    requests_failed: int  # of the whole run, warm-up included: a flaw wherever it shows
    requests_cut: int
    failed_frac: float | None  # failed / (ok + failed), of the sample
    window_s: float | None
    warmup_s: float | None  # from the start to the window, as it was
    first_generation_done: bool | None  # closed: each stream had one reply before the window
    requests_per_s: float | None  # completions in the window / window
    output_tok_per_s: float | None  # tokens that came in the window / window
    chunks_per_s: float | None  # content chunks that came in the window / window
    total_tok_per_s: float | None  # plus the prompts whose first token came in the window
    drift_frac: float | None  # tokens in the window's second half / first half − 1
    output_tok_per_s_run: float | None  # from start to end, ramp and drain included
    ttft_mean_s: float | None  # t_1 − t_0
    ttft_p50_s: float | None
    ttft_p90_s: float | None
    ttft_p99_s: float | None
    ttft_sched_p50_s: float | None  # t_1 − t_s: what a user waits
    ttft_sched_p99_s: float | None
    tpot_mean_s: float | None  # (t_n − t_1) / (n − 1), undefined for n ≤ 1
    tpot_p50_s: float | None
    tpot_p90_s: float | None
    tpot_p99_s: float | None
    itl_p50_s: float | None  # gaps between content chunks, pooled
    itl_p99_s: float | None
    e2e_p50_s: float | None  # t_n − t_0
    e2e_p99_s: float | None
    tokens_per_chunk: float | None  # Σn / Σk: if above 1, a gap spans several tokens
    send_lag_p99_s: float | None  # t_0 − t_s of what was due in the window: the client's own delay
    input_tokens_mean: float | None
    output_tokens_mean: float | None
    lengths_off_frac: float | None  # share of requests whose lengths are not as asked for
    cached_tokens_frac: float | None  # input tokens from the prefix cache / input tokens


def summarise(requests: Columns, chunks: Chunks, *, window: Window, load: Load) -> Summary:
    """The numbers of one run. Of its chunks no more is held than their gaps: 8 bytes each."""
    ok = requests["status"] == Status.OK
    failed = requests["status"] == Status.FAILED
    cut = requests["status"] == Status.CUT
    due_inside = inside(requests["due_at_s"], window)
    mine = counted(requests, window, load)
    sample, timed = ok & mine, mine & ~failed
    streamed = timed & load.stream  # a whole reply has no first token

    window_s = window.closed_at_s - window.opened_at_s
    itl_p50_s, itl_p99_s = quantiles(itl_s(requests, chunks, sample), (0.5, 0.99), in_place=True)
    came = output(requests, chunks, window)
    silent_at_s = np.where(ok, requests["ended_at_s"], np.nan)  # no text, or not streamed
    answered_at_s = np.where(requests["num_chunks"] > 0, requests["first_at_s"], silent_at_s)
    prompts_inside = input_tokens(requests)[inside(answered_at_s, window)].sum()
    ttft, ttft_sched = ttft_s(requests)[streamed], ttft_sched_s(requests)[streamed]
    tpot, e2e = tpot_s(requests)[streamed], e2e_s(requests)[timed]
    failed_of_sample = int((failed & mine).sum())
    return Summary(
        requests_ok=int(sample.sum()),
        requests_failed=int(failed.sum()),
        requests_cut=int((cut & due_inside if load.is_open else cut).sum()),
        failed_frac=_ratio(failed_of_sample, failed_of_sample + int(sample.sum())),
        window_s=_defined(window_s),
        warmup_s=_defined(window.opened_at_s - window.started_at_s),
        first_generation_done=first_generation_done(requests, window, load),
        requests_per_s=requests_per_s(requests, window),
        output_tok_per_s=_ratio(came.tokens_inside, window_s),
        chunks_per_s=_ratio(came.chunks_inside, window_s),
        total_tok_per_s=_ratio(came.tokens_inside + prompts_inside, window_s),
        drift_frac=came.drift_frac,
        output_tok_per_s_run=_ratio(came.tokens, window.ended_at_s - window.started_at_s),
        ttft_mean_s=mean(ttft),
        ttft_p50_s=quantile(ttft, 0.5),
        ttft_p90_s=quantile(ttft, 0.9),
        ttft_p99_s=quantile(ttft, 0.99),
        ttft_sched_p50_s=quantile(ttft_sched, 0.5),
        ttft_sched_p99_s=quantile(ttft_sched, 0.99),
        tpot_mean_s=mean(tpot),
        tpot_p50_s=quantile(tpot, 0.5),
        tpot_p90_s=quantile(tpot, 0.9),
        tpot_p99_s=quantile(tpot, 0.99),
        itl_p50_s=itl_p50_s,
        itl_p99_s=itl_p99_s,
        e2e_p50_s=quantile(e2e, 0.5),
        e2e_p99_s=quantile(e2e, 0.99),
        tokens_per_chunk=tokens_per_chunk(requests, sample),
        send_lag_p99_s=send_lag_p99_s(requests, window),
        input_tokens_mean=mean(requests["input_tokens"][sample]),
        output_tokens_mean=mean(requests["output_tokens"][sample]),
        lengths_off_frac=_share(lengths_off(requests, load)[sample]),
        cached_tokens_frac=cached_tokens_frac(requests, sample),
    )


def send_lag_p99_s(requests: Columns, window: Window) -> float | None:
    """How late what was due in the window was written, or in as much of it as a run reached."""
    due_at_s = requests["due_at_s"]
    is_mine = (due_at_s >= window.opened_at_s) & ~(due_at_s >= window.closed_at_s)
    return quantile((requests["sent_at_s"] - due_at_s)[is_mine], 0.99)


def requests_per_s(requests: Columns, window: Window) -> float | None:
    """Completions in the window over its length."""
    ended = (requests["status"] == Status.OK) & inside(finished_at_s(requests), window)
    return _ratio(int(ended.sum()), window.closed_at_s - window.opened_at_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Goodput:
    """The requests of a run that kept every limit; None where no limit is set."""

    goodput_rps: float | None  # of the sample, those that kept every limit / window
    slo_met_frac: float | None  # of the sample, failed ones included


def goodput(requests: Columns, *, window: Window, load: Load, slo: Slo) -> Goodput:
    """The requests of the sample that kept every limit of `slo`.

    A failed request kept none. A latency that a cut request had not shown yet counts as +inf, and
    breaks its limit. One that a reply does not have (TPOT of a single token, TTFT when not
    streamed) breaks none.
    """
    if not slo.is_set:
        return Goodput(goodput_rps=None, slo_met_frac=None)
    mine = counted(requests, window, load)
    good = int((mine & keeps(requests, load, slo)).sum())
    window_s = window.closed_at_s - window.opened_at_s
    return Goodput(goodput_rps=_ratio(good, window_s), slo_met_frac=_ratio(good, int(mine.sum())))


def keeps(requests: Columns, load: Load, slo: Slo) -> Bools:
    """Whether each request kept every limit, whenever it was due."""
    good: Bools = requests["status"] != Status.FAILED
    for broken in breaks(requests, load, slo).values():
        good = good & ~broken
    return good


def breaks(requests: Columns, load: Load, slo: Slo) -> dict[str, Bools]:
    """Whether each request broke a limit, for every limit that is set and applies to the load."""
    times = {"ttft_s": ttft_s, "tpot_s": tpot_s, "e2e_s": e2e_s}
    return {
        name: times[name](requests) > limit_s
        for name, limit_s in slo.limits.items()
        if load.stream or name == "e2e_s"
    }


def counted(requests: Columns, window: Window, load: Load) -> Bools:
    """Which requests a run's numbers are about, failed ones included."""
    at_s = requests["due_at_s"] if load.is_open else finished_at_s(requests)
    is_cut = requests["status"] == Status.CUT
    within = inside(at_s, window)
    return within if load.is_open else within & ~is_cut


def finished_at_s(requests: Columns) -> Floats:
    """t_n; the end of the reply where it showed no text, or failed."""
    shown = (requests["status"] == Status.OK) & (requests["num_chunks"] > 0)
    return np.where(shown, requests["last_at_s"], requests["ended_at_s"])


def ttft_s(requests: Columns) -> Floats:
    """t_1 − t_0; +inf for a cut request that had shown nothing yet."""
    return _or_inf(requests["first_at_s"] - requests["sent_at_s"], requests)


def ttft_sched_s(requests: Columns) -> Floats:
    """t_1 − t_s; +inf for a cut request that had shown nothing yet."""
    return _or_inf(requests["first_at_s"] - requests["due_at_s"], requests)


def e2e_s(requests: Columns) -> Floats:
    """t_n − t_0; +inf for cut requests."""
    e2e: Floats = requests["last_at_s"] - requests["sent_at_s"]
    return np.where(requests["status"] == Status.CUT, np.inf, e2e)


def reply_s(requests: Columns) -> float | None:
    """Median of t_n − t_0 over all whole replies of a run: a short window may have seen none."""
    return quantile(e2e_s(requests)[requests["status"] == Status.OK], 0.5)


def tpot_s(requests: Columns) -> Floats:
    """(t_n − t_1) / (n − 1); NaN for n ≤ 1, +inf for cut requests that would have had one."""
    gaps = np.where(requests["output_tokens"] > 1, requests["output_tokens"] - 1, np.nan)
    tpot: Floats = (requests["last_at_s"] - requests["first_at_s"]) / gaps
    unknown = (requests["status"] == Status.CUT) & (requests["output_tokens_asked"] > 1)
    return np.where(unknown, np.inf, tpot)


def itl_s(requests: Columns, chunks: Chunks, among: Bools) -> Floats:
    """t_i − t_(i−1) for the content chunks of the requests `among`, pooled: `(num_gaps,)`.

    Chunks in memory need not be sorted. Stored ones are, because sorting would be most of what a
    long run costs.
    """
    if not callable(chunks) and not _ascend(chunks["request"], chunks["at_s"]):
        order = np.lexsort((chunks["at_s"], chunks["request"]))
        chunks = {name: column[order] for name, column in chunks.items()}
    pooled, num = np.empty(int(requests["num_chunks"][among].sum())), 0
    request, at_s = np.empty(0, np.int64), np.empty(0)
    for block in _blocks(chunks):  # with the last chunk before it, from which its first gap is
        request = np.concatenate((request[-1:], block["request"]))
        at_s = np.concatenate((at_s[-1:], block["at_s"]))
        if not _ascend(request, at_s):
            raise ValueError("chunks do not stand in the order of their requests")
        is_gap = (request[1:] == request[:-1]) & among[_rows(requests["request"], request[1:])]
        gaps = np.diff(at_s)[is_gap]
        pooled[num : num + len(gaps)] = gaps
        num += len(gaps)
    return pooled[:num]


def _blocks(chunks: Chunks) -> Iterator[Columns]:
    """A run's chunks, few at a time."""
    for part in chunks() if callable(chunks) else [chunks]:
        for begin in range(0, len(part["at_s"]), BLOCK):
            yield {name: column[begin : begin + BLOCK] for name, column in part.items()}


def _ascend(request: npt.NDArray[np.int64], at_s: Floats) -> bool:
    """Whether chunks are sorted by request, and those of one request by time."""
    is_same = request[1:] == request[:-1]
    is_later = at_s[1:] >= at_s[:-1]
    return bool(((request[1:] > request[:-1]) | (is_same & is_later)).all())


def arrivals(requests: Columns, chunks: Chunks) -> Iterator[tuple[Floats, Floats]]:
    """Numbers of output tokens, and when they arrived, a block at a time.

    A request's tokens are spread evenly over its chunks, n/k each. Where n is unknown (cut or
    failed requests), a chunk is assumed to hold as many as in the ok requests of the same run. A
    reply without any text has no chunks; its tokens count at its end.
    """
    n, k = requests["output_tokens"], requests["num_chunks"]
    ok = requests["status"] == Status.OK
    typical = tokens_per_chunk(requests, ok) or 1.0
    each = np.where(ok & (k > 0), n / np.maximum(k, 1), typical)
    for block in _blocks(chunks):
        yield each[_rows(requests["request"], block["request"])], block["at_s"]
    silent = _silent(requests)
    yield n[silent], requests["ended_at_s"][silent]


def _silent(requests: Columns) -> Bools:
    """Replies that are whole, and without a chunk."""
    silent: Bools = (requests["status"] == Status.OK) & (requests["num_chunks"] == 0)
    return silent


def _rows(known: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Where each of the wanted numbers stands among the known ones, which ascend."""
    if len(known) and known[0] == 0 and known[-1] == len(known) - 1:
        return wanted  # none is missing: no search
    return np.searchsorted(known, wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What a run's server gave."""

    tokens: float  # in the whole run
    tokens_inside: float  # the window
    chunks_inside: int
    drift_frac: float | None  # tokens in the window's second half / first half − 1


def output(requests: Columns, chunks: Chunks, window: Window) -> Output:
    """Sums over `arrivals`."""
    middle_at_s = (window.opened_at_s + window.closed_at_s) / 2
    sums = np.zeros(4)
    num_inside = 0
    for tokens, at_s in arrivals(requests, chunks):
        within, early = inside(at_s, window), at_s < middle_at_s
        sums += [tokens.sum(where=w) for w in (True, within, within & early, within & ~early)]
        num_inside += int(within.sum())
    no_chunks = _silent(requests) & inside(requests["ended_at_s"], window)
    in_all, tokens_inside, first, second = map(float, sums)
    ratio = _ratio(second, first)
    return Output(
        tokens=in_all,
        tokens_inside=tokens_inside,
        chunks_inside=num_inside - int(no_chunks.sum()),
        drift_frac=None if ratio is None else ratio - 1,
    )


def failures_by_kind(requests: Columns) -> dict[str, int]:
    """How many requests failed in which way, the most frequent first; of the whole run."""
    return dict(Counter(filter(None, requests["failure"])).most_common())


def tokens_per_chunk(requests: Columns, among: Bools) -> float | None:
    """Σn / Σk over the requests `among` that showed text."""
    shown = among & (requests["num_chunks"] > 0)
    return _ratio(requests["output_tokens"][shown].sum(), requests["num_chunks"][shown].sum())


def input_tokens(requests: Columns) -> Floats:
    """The server's count; where it gave none, what was asked for."""
    counted = requests["input_tokens"]
    return np.where(np.isnan(counted), requests["input_tokens_asked"], counted)


def lengths_off(requests: Columns, load: Load) -> Bools:
    """Whether a request's lengths differ from those asked for, as far as the load fixes them.

    It does not always: a chat template adds tokens to the prompt, and without ignore_eos a reply
    may end early.
    """
    asked = requests["output_tokens_asked"]
    off: Bools = requests["output_tokens"] > asked
    if load.ignore_eos:
        off = requests["output_tokens"] != asked
    if load.endpoint == "completions":
        known = ~np.isnan(requests["input_tokens_asked"])
        off = off | (known & (requests["input_tokens"] != requests["input_tokens_asked"]))
    return off


def cached_tokens_frac(requests: Columns, among: Bools) -> float | None:
    """Σ cached / Σ input tokens of the requests for which the server reports cached tokens."""
    said = among & ~np.isnan(requests["cached_tokens"])
    return _ratio(requests["cached_tokens"][said].sum(), requests["input_tokens"][said].sum())


def first_generation_done(requests: Columns, window: Window, load: Load) -> bool | None:
    """Whether every stream had a whole request before the window; None for an open loop."""
    if load.arrival != "closed" or math.isnan(window.opened_at_s):
        return None
    before = (requests["ended_at_s"] <= window.opened_at_s) & (requests["status"] == Status.OK)
    return len(np.unique(requests["stream"][before])) == load.concurrency


def quantile(values: Floats, q: float) -> float | None:
    """Linear between order statistics at rank q·(n − 1), as numpy's; None if there are none.

    NaN (undefined) is left out. +inf is a value; numpy would make NaN of inf − inf.
    """
    return quantiles(values, (q,))[0]


def quantiles(values: Floats, qs: Sequence[float], *, in_place: bool = False) -> list[float | None]:
    """Several of them at once: `quantile` for each.

    `in_place`: all values are defined, and may be left in another order; nothing is copied.
    """
    defined = values if in_place else values[~np.isnan(values)]
    if not len(defined):
        return [None] * len(qs)
    ranks = [q * (len(defined) - 1) for q in qs]
    places = sorted({place for rank in ranks for place in (math.floor(rank), math.ceil(rank))})
    defined.partition(places)
    return [_between(defined, rank) for rank in ranks]


def _between(ranked: Floats, rank: float) -> float:
    low, high = float(ranked[math.floor(rank)]), float(ranked[math.ceil(rank)])
    if low == high:
        return low
    return min(high, low + (high - low) * (rank - math.floor(rank)))


def mean(values: Floats) -> float | None:
    """Arithmetic mean of the defined values; None if there are none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else None


def inside(at_s: Floats, window: Window) -> Bools:
    """Whether instants are in the window: opened ≤ t < closed."""
    return (at_s >= window.opened_at_s) & (at_s < window.closed_at_s)


def _or_inf(values: Floats, requests: Columns) -> Floats:
    return np.where(np.isnan(values) & (requests["status"] == Status.CUT), np.inf, values)


def _ratio(above: float, below: float) -> float | None:
    return float(above) / float(below) if below > 0 else None


def _share(flags: Bools) -> float | None:
    return float(flags.mean()) if len(flags) else None


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value
