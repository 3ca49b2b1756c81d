"""Searches as they lie on disk."""

import re
from dataclasses import asdict, replace
from math import inf
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from harness.artefacts import tabulate
from harness.capacity import curves
from harness.capacity.found import Capacity, capacities, capacity_of
from harness.capacity.page import TABLE, _label, write_capacity
from harness.capacity.probe import Probe
from harness.capacity.search import Alone, Answer, Done, Question
from harness.capacity.share import Share
from harness.capacity.text import floor
from harness.errors import UserError
from harness.guard.evidence import read_evidence
from harness.guard.pairing import match
from harness.plan import Launch, Plan
from harness.report.contents import read
from harness.report.results import capacity as capacity_section
from harness.steering import Following, Send, Skip
from harness.study import Study
from harness.tables import points_table, runs_table, write_tables
from loadgen.config import Load, Search, Slo
from tests.harness.builders import about, plan, record, requests

WORDS = [
    "load.arrival=poisson",
    "load.concurrency=null",
    "load.search.probes=8",
    "slo.ttft_s=0.1",
    "slo.share_frac=0.9",
]
TRUTH_RPS = 70.0


def search(
    kept: Study,
    made: Plan,
    launch: Launch,
    truth_rps: float,
    *,
    floor_s: float,
    slow_above_rps: float = inf,
) -> None:
    """Work a launch off: requests are late above this rate, and one alone takes `floor_s`.

    Above `slow_above_rps` they are, too, and the client is slow.
    """
    folder = kept.new_launch(launch.id)
    kept.save_launch(folder, {"gpus": "CPU", "facts": {}, "startup_s": {}})
    for run in launch.runs:
        decision = Following(study=kept)(launch, run)
        if isinstance(decision, Skip):
            told = record(made, run, folder, status="skipped", reason=decision.reason)
            kept.save_run(run.id, told)
            continue
        assert isinstance(decision, Send)
        rate_rps = decision.load.rate_rps
        is_slow = rate_rps is not None and rate_rps > slow_above_rps
        late = is_slow or (rate_rps is not None and rate_rps > truth_rps)
        ttft_s = 0.2 if late else 0.05 if rate_rps else floor_s
        columns = requests(max(1, int((rate_rps or 20) * 10)), ttft_s, 0.001)
        told = {"load": asdict(decision.load), "load_asked": asdict(run.load)}
        if is_slow:
            told["client"] = {"cpu_frac": 0.2, "loop_lag_p99_s": 0.5}
        kept.save_run(run.id, record(made, run, folder, **told), **columns)


@pytest.fixture
def made() -> Plan:
    return plan(*WORDS, "repeats.launches=2", "engine.max_num_seqs=8")


def study_of(out: Path, made: Plan) -> Study:
    slo = {"ttft_s": 0.1, "share_frac": 0.9}
    told = about(made) | {"options": {"slo": slo, "plots": {}, "columns": []}, "command": "-"}
    return Study.open(out, made, told | {"environment": {}, "monitor": {}}, fresh=False)


@pytest.fixture
def kept(tmp_path: Path, made: Plan) -> Study:
    """Two launches, of which the second can take a little more."""
    kept = study_of(tmp_path, made)
    for number, launch in enumerate(made.launches):
        search(kept, made, launch, TRUTH_RPS + 8 * number, floor_s=0.05)
    return kept


def test_a_search_has_a_slot_for_each_probe(made: Plan) -> None:
    assert [len(launch.runs) for launch in made.launches] == [8, 8]
    assert made.launches[0].runs[2].label == "probe 3 of 8"
    assert len({run.seed for run in made.runs}) == 16


def test_limits_belong_to_the_identity_of_a_study_that_searches() -> None:
    assert plan(*WORDS).id != plan(*WORDS[:-2], "slo.ttft_s=0.2").id
    assert plan("slo.ttft_s=0.1").id == plan("slo.ttft_s=0.2").id


def test_each_launch_finds_its_own(kept: Study) -> None:
    first, second = capacities(kept)
    assert first.value is not None
    assert second.value is not None
    assert 0.9 * TRUTH_RPS < first.value <= TRUTH_RPS < second.value <= TRUTH_RPS + 8
    assert first.breaks_first == "ttft_s"
    assert [found.launch for found in capacities(kept, second.launch)] == [second.launch]
    assert first.probes[0].rate is None


def test_a_capacity_that_a_slow_client_set_says_so_wherever_it_stands(
    tmp_path: Path, made: Plan
) -> None:
    kept = study_of(tmp_path, made)
    for launch, slow_above_rps in zip(made.launches, (40.0, inf), strict=True):
        search(kept, made, launch, TRUTH_RPS, floor_s=0.05, slow_above_rps=slow_above_rps)
    slow, quick = capacities(kept)
    assert slow.value is not None
    assert slow.value <= 40
    assert (slow.doubts, slow.bracket.high) == (("client_busy",), None)
    assert (quick.doubts, quick.value) == ((), pytest.approx(TRUTH_RPS, rel=0.1))
    runs = runs_table(kept).set_index("run")
    assert "instrument_bound" in runs.loc[slow.best.run, "validity"]
    assert "instrument_bound" not in runs.loc[quick.best.run, "validity"]
    assert set(runs["capacity_doubts"].dropna()) == {"client_busy"}
    write_tables(kept)
    told = write_capacity(kept)
    assert told is not None
    [sentence] = [line for line in told.splitlines() if "may be larger" in line]
    assert "launch 1: at 4" in sentence
    assert "our own side was too slow (client_busy)" in sentence


def test_a_terminal_gets_the_searches_as_a_table_that_fits_it(
    kept: Study, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"FORCE_COLOR": "1", "NO_COLOR": "1", "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)
    assert tabulate(kept)
    _, told = capsys.readouterr().out.split("Capacity: the largest load")
    assert "|" not in told
    lines = re.sub(r"\x1b\[[\d;]*m", "", told).splitlines()
    assert max(map(len, lines[:-1])) <= 80, "but for the last, which names the folder"


def test_the_one_without_settings_among_those_with_some_is_the_defaults(kept: Study) -> None:
    run = next(iter(kept.runs()))
    axes = {"case": ["full"], "engine.max_num_seqs": [None, 8]}
    run.record["engine"]["max_num_seqs"] = None
    assert _label(run, {"axes": axes}) == "defaults"
    run.record["engine"]["max_num_seqs"] = 8
    assert _label(run, {"axes": axes}) == "max_num_seqs=8"
    run.record["case"] = "rate"
    assert _label(run, {"axes": {"case": ["rate", "saturated"]}}) == "rate"


def test_one_request_a_second_is_not_one_request_at_a_time() -> None:
    asked = Load(arrival="poisson", search=Search())
    alone, one_rps, two_rps = (
        Probe(
            run=name,
            answer=Answer(rate=rate, share=Share(kept=(kept,), counts=(1000.0,))),
            broken={"ttft_s": int(1000 - kept)},
            requests=1000,
        )
        for name, rate, kept in (("alone", None, 1000.0), ("one", 1.0, 990.0), ("two", 2.0, 10.0))
    )
    found = Capacity(
        launch="a-1",
        point="p",
        load=asked,
        slo=Slo(ttft_s=0.1, share_frac=0.9),
        question=Question(search=Search(), share_frac=0.9),
        probes=(alone, one_rps, two_rps),
    )
    assert found.value == 1.0
    assert found.best == one_rps


def test_what_is_decided_follows_from_what_is_saved(kept: Study, made: Plan) -> None:
    """A search that was cut off after any run goes on with the one that came next."""
    launch = made.launches[0]
    sent = [run.record["load"] for run in kept.runs()]
    first = next(iter(launch.runs))
    for number in reversed(range(4)):
        lost = kept.folder / "runs" / launch.runs[number].id
        lost.rename(lost.with_name(f"lost-{number}"))
        for later in launch.runs[4:]:
            if (folder := kept.folder / "runs" / later.id).exists():
                folder.rename(folder.with_name(f"lost-{later.id}"))
        decision = Following(study=kept)(launch, first)
        assert isinstance(decision, Send)
        assert asdict(decision.load) == sent[number]


def test_a_search_of_which_nothing_is_known_begins_where_it_is_told_to(
    tmp_path: Path, made: Plan
) -> None:
    kept, (launch, _) = study_of(tmp_path, made), made.launches
    first, second = launch.runs[:2]
    folder = kept.new_launch(launch.id)
    kept.save_launch(folder, {"gpus": "CPU", "facts": {}, "startup_s": {}})
    loads = {"load": asdict(first.load.alone()), "load_asked": asdict(first.load)}
    kept.save_run(first.id, record(made, first, folder, **loads), **requests(200, 0.05, 0.001))

    def begins_at(load: Load) -> float | None:
        decision = Following(study=kept, starts=[(load, 40.0)])(launch, second)
        assert isinstance(decision, Send)
        return decision.load.rate_rps

    assert begins_at(second.load) == 40.0
    of_another = begins_at(replace(second.load, duration_s=1.0))
    assert of_another is not None
    assert of_another < 40.0, "the rate of one request at a time"
    asked_for = replace(second.load, search=replace(second.load.search, start_rps=7.0))
    second = replace(second, load=asked_for)
    assert begins_at(asked_for) == 7.0


def test_the_state_of_a_launch_that_was_not_begun_is_its_first_step(
    tmp_path: Path, made: Plan
) -> None:
    empty, run = study_of(tmp_path / "new", made), made.runs[0]
    assert capacity_of(empty, made.launches[0].id, run.point, run.load).step == Alone()
    assert list(capacities(empty)) == []


def test_a_server_that_died_missed_the_limits_and_a_fault_of_ours_says_nothing(
    tmp_path: Path, made: Plan
) -> None:
    kept, launch = study_of(tmp_path / "new", made), made.launches[0]
    search(kept, made, replace(launch, runs=launch.runs[:2]), TRUTH_RPS, floor_s=0.05)
    run = launch.runs[2]
    for kind, counts in (("died_under_load", True), ("harness", False)):
        failed = {"status": "failed", "failure": {"kind": kind, "message": "-", "evidence": []}}
        load = asdict(run.load.at_intensity(40.0))
        told = record(made, run, kept.folder / "launches" / f"{launch.id}.1", load=load, **failed)
        kept.save_run(run.id, told)
        found = capacity_of(kept, launch.id, run.point, run.load)
        assert len(found.probes) == (3 if counts else 2)
        assert found.bracket.high == (40.0 if counts else None)


def test_a_point_is_its_run_at_the_capacity_and_the_median_of_its_launches(kept: Study) -> None:
    runs = runs_table(kept)
    assert runs["at_capacity"].sum() == 2
    assert set(runs["slo_verdict"]) <= {"met", "missed", "unresolved"}
    (row,) = points_table(runs, kept.about["axes"]).to_dict("records")
    values = [found.value for found in capacities(kept)]
    assert row["capacity_rps"] == pytest.approx(sum(v or 0 for v in values) / 2)
    assert row["rate_rps"] == row["capacity_rps"]
    assert row["slo_met_frac"] == 1.0
    assert row["runs_ok"] == 2


def test_the_table_and_the_curve_are_made_and_reported(kept: Study) -> None:
    write_tables(kept)
    text = write_capacity(kept)
    assert text is not None
    assert "90 % of the requests keep TTFT ≤ 100 ms" in text
    assert text.count("req/s") == 7
    assert "median of 2" in text
    assert "| TTFT |" in text
    assert (kept.folder / "plots" / "capacity-rate.png").stat().st_size > 1000
    assert (kept.folder / TABLE).read_text() == text
    section = capacity_section(read(kept))
    assert section is not None


def test_launches_of_one_setting_have_one_colour_and_one_label(
    kept: Study, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    found = list(capacities(kept))
    curves.draw_curves([("a", one) for one in found], runs_table(kept), "t", tmp_path / "c.png")
    (legend,) = drawn[0].legends
    assert [text.get_text() for text in legend.get_texts()] == ["a, 2 launches"]
    marks = drawn[0].axes[1].get_lines()
    assert {str(line.get_color()) for line in marks} == {"C0", "tab:red"}


def test_a_damaged_probe_is_named(kept: Study) -> None:
    run = next(iter(kept.runs()))
    (run.folder / "requests.parquet").write_bytes(b"x")
    with pytest.raises(UserError, match=f"{run.folder.name} is damaged .*: delete it"):
        runs_table(kept)


def test_limits_that_one_request_alone_misses_end_the_search_and_tell_the_floor(
    tmp_path: Path, made: Plan
) -> None:
    kept = study_of(tmp_path / "new", made)
    search(kept, made, made.launches[0], TRUTH_RPS, floor_s=0.3)
    (found,) = capacities(kept)
    assert found.is_too_much
    assert found.value is None
    assert isinstance(found.step, Done)
    reasons = set(kept.skipped().values())
    assert len(kept.skipped()) == 7
    assert reasons == {
        "one request alone misses the limits (TTFT ≤ 100 ms): 90 % of the requests that are alone"
        " on the server take at most TTFT 300 ms"
    }
    write_tables(kept)
    text = write_capacity(kept)
    assert text is not None
    assert "these limits hold at no load: 90 % of the requests that are alone" in text


def test_a_request_alone_that_was_not_answered_in_time_has_no_number(kept: Study) -> None:
    found, _ = capacities(kept)
    assert found.alone is not None
    endless = replace(found.alone, times_s={"ttft_s": inf})
    told = floor(replace(found, probes=(endless, *found.probes[1:])))
    assert told.endswith("take at most TTFT longer than the run")


def test_a_study_that_searches_nothing_has_no_such_page(tmp_path: Path) -> None:
    made = plan("load.concurrency=1,2")
    kept = study_of(tmp_path, made)
    assert write_capacity(kept) is None
    assert "capacity_rps" not in runs_table(kept)


def test_two_studies_are_compared_by_what_each_launch_found(
    kept: Study, tmp_path: Path, made: Plan
) -> None:
    other = study_of(tmp_path / "other", made)
    for launch in made.launches:
        search(other, made, launch, TRUTH_RPS / 2, floor_s=0.05)
    sides = read_evidence(kept.folder), read_evidence(other.folder)
    (pair,) = match(*sides).pairs
    assert [len(side) for side in (pair.baseline, pair.candidate)] == [2, 2]
    assert all(pd.notna(run.row["capacity_rps"]) for run in pair.runs)
