from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from harness.capacity.probe import Probe, ProbeJudge, looked_at
from harness.capacity.share import Verdict
from loadgen.config import Load, Search, Slo
from loadgen.records import Progress
from tests.harness.builders import WINDOW, requests

SLO = Slo(ttft_s=0.1)
LOAD = Load(arrival="poisson", rate_rps=70.0, search=Search(), duration_s=10.0)


def now(elapsed_s: float, **changes: Any) -> Progress:
    told = {
        "phase": "window",
        "elapsed_s": elapsed_s,
        "planned_s": 15.0,
        "output_tok_per_s": 100.0,
        "ttft_p50_s": 0.1,
        "in_flight": 10,
        "completed": int(70 * elapsed_s),
        "failed": 0,
        "out_of_limits": 0,
    }
    return Progress(**(told | changes))


def probe(num: int = 700, ttft_s: float = 0.05, **changes: Any) -> Probe:
    columns = requests(num, ttft_s, 0.01)["requests"]
    return looked_at(columns, replace(WINDOW, **changes), LOAD, SLO)


def test_requests_in_the_limits_meet_them_and_others_miss_them() -> None:
    assert probe().verdict(0.9) == Verdict.MET
    late = probe(ttft_s=0.2)
    assert late.verdict(0.9) == Verdict.MISSED
    assert late.worst == "ttft_s"
    assert late.times_s["ttft_s"] == pytest.approx(0.2)


def test_a_miss_of_our_own_making_is_none() -> None:
    def seen(ttft_s: float, **more: Any) -> Verdict:
        columns = requests(700, ttft_s, 0.01)["requests"]
        return looked_at(columns, WINDOW, LOAD, SLO, doubts=("client_busy",), **more).verdict(0.9)

    assert seen(0.05) == Verdict.MET, "a slow client makes latencies longer, not shorter"
    assert seen(0.2) == Verdict.UNRESOLVED
    assert seen(0.2, stopped="missed: …") == Verdict.UNRESOLVED
    assert seen(0.05, stopped="over-saturated: …") == Verdict.UNRESOLVED


def test_a_failed_request_kept_nothing() -> None:
    columns = requests(700, 0.05, 0.01)["requests"]
    columns["status"] = np.array(["failed"] * len(columns["status"]), dtype=object)
    failed = looked_at(columns, WINDOW, LOAD, SLO)
    assert failed.kept_frac == 0.0
    assert failed.verdict(0.9) == Verdict.MISSED
    assert failed.worst == "failures"


def test_requests_in_flight_that_grow_miss_limits_that_nothing_has_broken_yet() -> None:
    """70 requests a second come, and 35 a second end."""
    columns = requests(700, 0.05, 0.01)["requests"]
    since_s = columns["sent_at_s"] - 105.0
    columns["ended_at_s"] = 105.0 + np.maximum(0, since_s) * 2
    earlier = {**columns, "sent_at_s": columns["sent_at_s"] - 50.0}  # as many as are in flight
    earlier["ended_at_s"] = earlier["sent_at_s"] + 0.1
    both = {name: np.concatenate([earlier[name], columns[name]]) for name in columns}
    both["due_at_s"] = both["sent_at_s"]
    found = looked_at(both, WINDOW, LOAD, Slo(ttft_s=60.0))
    assert found.backlog is not None
    assert found.backlog.growth_rps == pytest.approx(35, rel=0.1)
    assert found.kept_frac == 1.0
    assert found.verdict(0.9) == Verdict.MISSED


def test_a_stopped_probe_has_the_share_that_it_could_at_most_have_had() -> None:
    columns = requests(300, 0.2, 0.01)["requests"]
    window = replace(WINDOW, closed_at_s=float("nan"), ended_at_s=109.0)
    stopped = looked_at(columns, window, LOAD, SLO, stopped="missed: …")
    assert stopped.answer.share.frac == pytest.approx(1 - 300 / 700)
    assert not stopped.answer.is_out
    assert stopped.kept_frac is None
    assert stopped.verdict(0.9) == Verdict.MISSED
    over = looked_at(columns, window, LOAD, SLO, stopped="over-saturated: …")
    assert over.answer.is_out
    assert over.answer.share.count == 0


def test_the_limit_that_is_named_is_one_that_whole_requests_broke() -> None:
    """All of them waited too long; the stop cut off most, whose TPOT nobody knows."""
    columns = requests(300, 0.2, 0.01)["requests"]
    num = len(columns["status"])
    columns["status"] = np.array(["ok"] * 50 + ["cut"] * (num - 50), dtype=object)
    window = replace(WINDOW, closed_at_s=float("nan"), ended_at_s=109.0)
    both = Slo(ttft_s=0.1, tpot_s=0.05)
    stopped = looked_at(columns, window, LOAD, both, stopped="missed: …")
    assert stopped.worst == "ttft_s"
    assert stopped.broken["tpot_s"] == 0
    assert stopped.answer.share.frac == pytest.approx(1 - 300 / 700), (
        "each had its first token late"
    )
    only_tpot = looked_at(columns, window, LOAD, Slo(tpot_s=0.05), stopped="missed: …")
    assert only_tpot.answer.share.frac == 1.0, "what was cut off might have kept it"
    columns["first_at_s"] = np.where(columns["status"] == "cut", np.nan, columns["first_at_s"])
    columns["ended_at_s"] = columns["sent_at_s"] + np.linspace(0.0, 0.4, num)
    waited = looked_at(columns, window, LOAD, SLO, stopped="missed: …")
    assert 0.6 < waited.answer.share.frac < 0.75, "some had waited too long when they were cut off"


def test_one_request_alone_tells_its_times_though_the_stop_cuts_off_the_next() -> None:
    columns = requests(8, 0.2, 0.01)["requests"]
    for name, value in (("status", "cut"), ("first_at_s", np.nan), ("last_at_s", np.nan)):
        columns[name] = columns[name].astype(object if name == "status" else float)
        columns[name][-1] = value
    alone = Load(arrival="closed", concurrency=1, duration_s=10.0)
    window = replace(WINDOW, closed_at_s=float("nan"), ended_at_s=109.0)
    found = looked_at(columns, window, alone, replace(SLO, share_frac=0.9), stopped="missed: …")
    assert found.times_s["ttft_s"] == pytest.approx(0.2)
    assert found.requests == 8


def test_the_judge_ends_what_cannot_be_kept_any_more() -> None:
    judge = ProbeJudge(load=LOAD, share_frac=0.9)
    assert judge(now(6.0, out_of_limits=70)) is None  # just what may be
    assert judge(now(7.0, out_of_limits=300)) == (
        "missed: 300 of about 700 requests are out of limits already, and 70 may be"
    )


def test_the_judge_ends_an_over_saturated_run_and_no_other() -> None:
    growing, steady = (ProbeJudge(load=LOAD, share_frac=0.9) for _ in range(2))
    for at_s in np.arange(5.0, 10.0, 0.25):
        told = growing(now(at_s, in_flight=10 + int(30 * (at_s - 5)), completed=int(40 * at_s)))
        assert steady(now(at_s)) is None
        if told:
            break
    assert told is not None
    assert told.startswith("over-saturated: ")
    assert at_s < 9


@pytest.mark.parametrize("phase", ["warmup", "drain"])
def test_the_judge_looks_at_the_window_alone(phase: str) -> None:
    judge = ProbeJudge(load=LOAD, share_frac=0.9)
    assert judge(now(6.0, phase=phase, out_of_limits=700)) is None


def test_a_closed_loop_is_judged_by_its_pace() -> None:
    closed = Load(arrival="closed", concurrency=8, duration_s=10.0, search=Search())
    judge = ProbeJudge(load=closed, share_frac=0.9)
    assert judge(now(5.0, out_of_limits=40)) is None  # how many there will be is not known yet
    assert judge(now(9.0, out_of_limits=280)) is not None


def test_a_load_alone_asks_for_the_same_one_at_a_time() -> None:
    gamma = Load(arrival="gamma", burstiness=0.5, search=Search(), warmup_s=60.0)
    alone = gamma.alone()
    assert (alone.arrival, alone.concurrency, alone.rate_rps) == ("closed", 1, None)
    assert alone.asks_like(gamma)
    assert asdict(alone)["search"] == asdict(gamma)["search"]
