"""A run as `vllm bench serve --save-detailed` would have written it, for tools that read that file.

Keys and units are those of vLLM 0.33: milliseconds in the aggregates, seconds in the lists. Its
plots group and scale by flat keys, so what a sweep varies goes into `metadata`.

The sample is that of loadgen/metrics.py (closed loop: what ended inside the window; open loop: what
was due inside it), plus its failed requests. These are in the lists the way vLLM has them: ttft 0,
latency 0, no gaps, no output, and their error. The latencies are therefore those of our table. The
differences:

- `duration` is the window, and throughputs count the sample's whole requests over it. Our table
  counts the tokens that arrived inside the window, whichever request they belong to.
- A request that an open loop's drain did not wait for has failed here ("cut"). In our percentiles
  it counts as +inf, which JSON cannot express.
- vLLM's completions client counts a chunk without text as a token. We do not.
- As in vLLM, `max_output_tokens_per_s` counts chunks, and `max_concurrent_requests` counts every
  request that was in flight during any part of a second.
- vLLM's ramp is linear over the requests, ours over time.

Undefined aggregates are left out (those of no values, rates over a window that was never reached);
inside the lists, undefined is null. There are no generated texts: they are not kept.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from loadgen.config import Load
from loadgen.metrics import Floats, counted, e2e_s, input_tokens, mean, quantile, tpot_s, ttft_s
from loadgen.records import Columns, Status, Window

PERCENTILES = (50, 90, 99)
DECIMALS = 9  # of a second: the clock's resolution


def vllm_bench_json(
    requests: Columns,
    chunks: Columns,
    *,
    window: Window,
    load: Load,
    model: str,
    metadata: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The object for `json.dump(…, allow_nan=False)`; `metadata` is merged into it, flat.

    Where keys clash, `metadata` replaces those of `_setup`, and all others win over it.
    """
    rows = counted(requests, window, load)
    sample = {name: column[rows] for name, column in requests.items()}
    gaps_s = _gaps_s(sample, chunks)
    return {
        **_setup(sample, window, load, model),
        **(metadata or {}),
        **_traffic(load),
        **_totals(sample, window.closed_at_s - window.opened_at_s),
        **_lists(sample, gaps_s),
        **_peaks(sample, chunks),
        **_latencies_ms(sample, gaps_s),
    }


def _setup(sample: Columns, window: Window, load: Load, model: str) -> dict[str, Any]:
    backend = "openai-chat" if load.endpoint == "chat" else "openai"
    date = datetime.fromtimestamp(window.clock_utc_ns / 1e9, UTC)
    return {
        "date": date.strftime("%Y%m%d-%H%M%S"),
        "endpoint_type": backend,
        "backend": backend,
        "label": None,
        "model_id": model,
        "tokenizer_id": None,
        "num_prompts": len(sample["request"]),
    }


def _traffic(load: Load) -> dict[str, Any]:
    """The load by vLLM's flags. A constant rate is burstiness inf, which JSON needs as text."""
    has_rate = load.arrival in ("constant", "poisson", "gamma")
    traffic: dict[str, Any] = {
        "request_rate": load.rate_rps if has_rate else "inf",
        "burstiness": "inf" if load.arrival == "constant" else load.burstiness or 1.0,
        "max_concurrency": load.concurrency,
    }
    if load.arrival == "ramp":
        traffic |= {
            "ramp_up_strategy": "linear",
            "ramp_up_start_rps": load.rate_rps,
            "ramp_up_end_rps": load.rate_end_rps,
        }
    return traffic


def _totals(sample: Columns, duration_s: float) -> dict[str, Any]:
    ok = sample["status"] == Status.OK
    total_in, total_out = (
        int(input_tokens(sample)[ok].sum()),
        int(sample["output_tokens"][ok].sum()),
    )
    completed = int(ok.sum())
    rates = {
        "duration": duration_s,
        "request_throughput": completed / duration_s,
        "output_throughput": total_out / duration_s,
        "total_token_throughput": (total_in + total_out) / duration_s,
    }
    return {
        "completed": completed,
        "failed": len(ok) - completed,
        "total_input_tokens": total_in,
        "total_output_tokens": total_out,
        "request_goodput": None,
        "rtfx": 0.0,  # only audio has one
        **{name: rate for name, rate in rates.items() if not np.isnan(rate)},
    }


def _lists(sample: Columns, gaps_s: list[Floats]) -> dict[str, list[Any]]:
    ok = sample["status"] == Status.OK
    told = zip(sample["status"], sample["failure"], sample["detail"], strict=True)
    return {
        "input_lens": _whole(input_tokens(sample)),
        "output_lens": _whole(np.where(ok, sample["output_tokens"], 0)),
        "ttfts": _seconds(np.where(ok, ttft_s(sample), 0)),
        "itls": [_seconds(gaps) for gaps in gaps_s],
        "latencies": _seconds(np.where(ok, e2e_s(sample), 0)),
        "start_times": _seconds(sample["sent_at_s"]),
        "queue_times": _seconds(sample["sent_at_s"] - sample["due_at_s"]),
        "generated_texts": [""] * len(ok),
        "errors": [_error(*row) for row in told],
    }


def _error(status: str, failure: str, detail: str) -> str:
    if status == Status.OK:
        return ""
    return f"{failure}: {detail}" if status == Status.FAILED else "cut: the run was over"


def _gaps_s(sample: Columns, chunks: Columns) -> list[Floats]:
    """The gaps between the content chunks of each request; none for one that failed."""
    order = np.lexsort((chunks["at_s"], chunks["request"]))
    owner, at_s = chunks["request"][order], chunks["at_s"][order]
    begin = np.searchsorted(owner, sample["request"], "left")
    end = np.searchsorted(owner, sample["request"], "right")
    end = np.where(sample["status"] == Status.OK, end, begin)
    return [np.diff(at_s[first:past]) for first, past in zip(begin, end, strict=True)]


def _peaks(sample: Columns, chunks: Columns) -> dict[str, float]:
    """The most chunks and the most requests in any one second, counted from the first request."""
    ended = (sample["status"] == Status.OK) & ~np.isnan(sample["last_at_s"])
    if not ended.any():
        return {}
    origin_s = sample["sent_at_s"][ended].min()
    begin = (sample["sent_at_s"][ended] - origin_s).astype(int)
    end = (sample["last_at_s"][ended] - origin_s).astype(int)
    size = int(end.max()) + 2
    change = np.bincount(begin, minlength=size) - np.bincount(end + 1, minlength=size)
    peaks: dict[str, float] = {"max_concurrent_requests": int(change.cumsum().max())}
    mine = np.isin(chunks["request"], sample["request"][ended])
    if mine.any():
        chunks_in = np.bincount((chunks["at_s"][mine] - origin_s).astype(int))
        peaks["max_output_tokens_per_s"] = float(chunks_in.max())
    return peaks


def _latencies_ms(sample: Columns, gaps_s: list[Floats]) -> dict[str, float | None]:
    ok = sample["status"] == Status.OK
    measured_s = {
        "ttft": ttft_s(sample)[ok],
        "tpot": tpot_s(sample)[ok],
        "itl": np.concatenate([np.empty(0), *gaps_s]),
        "e2el": e2e_s(sample)[ok],
    }
    aggregates: dict[str, float | None] = {}
    for name, values_s in measured_s.items():
        values_ms = values_s[~np.isnan(values_s)] * 1e3
        if len(values_ms):
            aggregates[f"mean_{name}_ms"] = mean(values_ms)
            aggregates[f"median_{name}_ms"] = quantile(values_ms, 0.5)
            aggregates[f"std_{name}_ms"] = float(values_ms.std())
            for p in PERCENTILES:
                aggregates[f"p{p}_{name}_ms"] = quantile(values_ms, p / 100)
    return aggregates


def _seconds(values_s: Floats) -> list[float | None]:
    return [None if np.isnan(value) else value for value in values_s.round(DECIMALS).tolist()]


def _whole(values: npt.NDArray[np.float64]) -> list[int | None]:
    return [None if np.isnan(value) else int(value) for value in values]
