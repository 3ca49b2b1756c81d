"""A sweep of cases with shares, limits and a check, on the simulator, as typed."""

import json

import pytest

from tests.harness.whole_tool import QUICK, Tool, table

SWEEP = """\
# @package _global_
# Cases: a closed loop, an open loop at shares of its capacity, and a smaller batch.
load: {concurrency: 2}
slo: {ttft_s: 5.0, tpot_s: 1.0}
cases:
  closed: {load: {concurrency: [1, 4]}}
  open: {load: {arrival: poisson, concurrency: null, rate_frac: [0.4, 0.8], drain_s: 5}}
  small: {engine: {max_num_seqs: 2}, load: {concurrency: 4}}
checks: {longest_context: {start_tokens: 300, timeout_s: 60}}
columns: [output_tok_per_s, speedup, knee, goodput_rps, slo_met_frac, longest_context_tokens]
plots:
  scaling: {x: concurrency, y: [output_tok_per_s], by: case, log_x: true}
  open_loop: {x: rate_frac, y: [ttft_sched_p50_s], cases: [open]}
"""


@pytest.fixture
def cases(tool: Tool) -> list[str]:
    """The words of a sweep of cases of one's own."""
    (tool.folder / "mine" / "sweep").mkdir(parents=True)
    (tool.folder / "mine" / "sweep" / "cases.yaml").write_text(SWEEP)
    return ["--config-dir", "mine", "sweep=cases", *QUICK]


def test_cases_shares_of_a_capacity_limits_and_a_check_are_one_sweep(
    tool: Tool, cases: list[str]
) -> None:
    done = tool(*cases)
    assert done.returncode == 0, done.stdout + done.stderr
    study = tool.study("cases")
    runs = table(study)
    assert runs["case"].tolist() == ["closed"] * 2 + ["open"] * 2 + ["small"]
    assert len(list(study.glob("launches/*"))) == 2, "closed and open share a server"
    assert runs["launch"].nunique() == 2
    shares = runs[runs["case"] == "open"]
    capacity = shares["rate_rps"] / shares["rate_frac"]
    most_rps = runs[runs["case"] == "closed"]["requests_per_s"].max()
    assert capacity.tolist() == pytest.approx([most_rps] * 2)
    assert (runs["slo_met_frac"] == 1.0).all()
    assert (runs["goodput_rps"] > 0).all()
    assert runs["longest_context_tokens"].tolist() == [2048] * 5
    assert runs["longest_context_limit"].unique().tolist() == ["max_model_len=2048"]
    assert {path.stem for path in study.glob("plots/*") if "timeline" not in path.stem} == {
        "scaling",
        "open_loop",
        "cases",
    }
    head = (study / "table.md").read_text().splitlines()[2]
    assert "| goodput req/s | SLO met % | longest context tokens | validity |" in head

    files = {
        p: p.stat().st_mtime_ns
        for kind in ("runs", "checks")
        for p in study.glob(f"{kind}/*/*.json")
    }
    again = tool(*cases)
    assert again.returncode == 0, again.stderr
    assert "all runs are done; fresh=true measures again" in again.stdout
    assert len(list(study.glob("launches/*"))) == 2, "no server was started"
    assert {path: path.stat().st_mtime_ns for path in files} == files

    (first, *_) = study.glob("checks/*/longest_context.json")
    first.unlink()  # as if it had been cut off before
    third = tool(*cases)
    assert third.returncode == 0, third.stderr
    assert "all runs are done, checks of 1 engine setting to do" in third.stdout
    assert first.is_file()
    assert {path: path.stat().st_mtime_ns for path in files if path != first} == {
        path: at for path, at in files.items() if path != first
    }
    assert not tool.wait_until_gone()


def test_a_run_and_a_check_that_failed_are_done_again_only_when_asked_for(
    tool: Tool, cases: list[str]
) -> None:
    words = [*cases, "case=small", "load.concurrency=2", "engine.extra.fault=oom_at_start"]
    first = tool(*words)
    assert first.returncode == 1, first.stderr
    assert "FAILED (out_of_memory)" in first.stdout
    assert "1 run and 1 check failed; retry=true tries again" in first.stdout
    study = tool.study("cases")
    (kept,) = study.glob("checks/*/longest_context.json")
    at_ns = kept.stat().st_mtime_ns
    assert json.loads(kept.read_text())["failure"]["kind"] == "out_of_memory"

    again = tool(*words)
    assert again.returncode == 1
    assert len(list(study.glob("launches/*"))) == 1
    assert kept.stat().st_mtime_ns == at_ns

    retried = tool(*words, "retry=true")
    assert retried.returncode == 1
    assert len(list(study.glob("launches/*"))) == 2, "one more try, and no more"
    assert kept.stat().st_mtime_ns > at_ns


def test_a_server_that_a_check_kills_costs_no_run(tool: Tool, cases: list[str]) -> None:
    words = [*cases, "case=closed,small", "load.concurrency=2"]
    done = tool(*words, "engine.extra.fault='die_over_prompt_of=700'")
    assert done.returncode == 0, done.stdout + done.stderr
    study = tool.study("cases")
    runs = table(study)
    assert runs["status"].tolist() == ["ok"] * 2
    assert runs["longest_context_tokens"].tolist() == [600, 600], "what was served before"
    assert runs["longest_context_limit"].str.startswith("the server died while it served").all()
    assert len(list(study.glob("launches/*"))) == 2, "nothing is left to do that needs a server"
    lives = [json.loads(path.read_text()) for path in study.glob("launches/*/launch.json")]
    assert [life["failure"]["kind"] for life in lives] == ["died_under_load"] * 2
    assert not tool.wait_until_gone()


def test_a_closed_loop_that_failed_leaves_its_open_loops_without_a_rate(
    tool: Tool, cases: list[str]
) -> None:
    fault = "engine.extra.fault='die_after_tokens=40'"
    done = tool(
        *cases, "case=closed,open", "load.concurrency=4", fault, "checks.longest_context=null"
    )
    assert done.returncode == 1, done.stderr
    runs = table(tool.study("cases"))
    assert runs["failure"].tolist() == ["died_under_load", "no_capacity", "no_capacity"]
    assert runs["rate_rps"].isna().all()
    assert "no closed-loop run of this launch ended well" in done.stdout


def test_cases_are_repeated_and_shuffled(tool: Tool, cases: list[str]) -> None:
    words = ["repeats.launches=2", "order=shuffled", "checks.longest_context=null"]
    done = tool(*cases, *words, "case=closed,open", "load.concurrency=2")
    assert done.returncode == 0, done.stdout + done.stderr
    runs = table(tool.study("cases"))
    assert runs["case"].tolist() == ["closed"] * 2 + ["open"] * 4
    shares = runs[runs["case"] == "open"]
    capacity = (shares["rate_rps"] / shares["rate_frac"]).groupby(shares["launch"]).nunique()
    assert capacity.tolist() == [1, 1], "each launch finds its own"
