"""The page as a reader gets it."""

import base64
import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from harness.cli import run
from harness.errors import UserError
from harness.hardware.card import make_card
from harness.hardware.limits import read_products
from harness.report import comparison
from harness.report.contents import read
from harness.report.report import write_report
from harness.report.verdict import point_label
from harness.study import Study
from harness.tables import SIMULATED
from harness.validity import CODES
from tests.harness.builders import void
from tests.harness.hardware import builders as validations
from tests.harness.report.studies import (
    PIXEL,
    REFERENCE,
    Page,
    captured,
    failed,
    finished,
    without_samples,
)
from tests.harness.report.studies import comparison as compared

HOSTILE = (
    '</pre><script src="http://evil.example/x.js">alert(1)</script><img src=x onerror=alert(1)>'
)
H200 = read_products()["NVIDIA H200"]
ALWAYS = ["short", "box", "run", "table", "plots", "timelines", "validity"]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with tables and plots, and without the samples that they were made of."""
    kept = finished(tmp_path_factory.mktemp("template"))
    write_report(kept)
    without_samples(kept)
    return kept.folder


@pytest.fixture
def stored(template: Path, tmp_path: Path) -> Study:
    """One of its own for a test: its report is made in no time."""
    shutil.copytree(template, tmp_path / "stored")
    return Study(tmp_path / "stored")


def report(kept: Study, told: dict[str, object] | None = None) -> Page:
    read = comparison.from_json(json.dumps(told)) if told else None
    return Page(write_report(kept, read).read_text())


def assert_self_contained(page: Page) -> None:
    loaded = [attrs["src"] for tag, attrs in page.tags if "src" in attrs]
    assert all(url.startswith("data:image/png;base64,") for url in loaded)
    names = {tag for tag, _ in page.tags}
    assert not names & {"link", "iframe", "object", "embed", "base", "form"}
    assert [attrs for tag, attrs in page.tags if tag == "script"] == [{}]
    assert not any(name.startswith("on") or name == "style" for _, at in page.tags for name in at)
    css = "".join(text for tag, text in page.text if tag == "style")
    assert "url(" not in css
    assert "@import" not in css
    (policy,) = [at["content"] for at in page.of("meta") if "http-equiv" in at]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy


def test_a_study_ends_in_a_page_that_asks_for_nothing_and_its_twin(tmp_path: Path) -> None:
    kept = finished(tmp_path)
    page = report(kept)
    assert_self_contained(page)
    assert page.sections == ALWAYS
    titles = [attrs["href"] for attrs in page.of("a") if attrs["href"].startswith("#")]
    assert titles == [f"#{name}" for name in ALWAYS]
    twin = (kept.folder / "report.md").read_text()
    assert re.findall(r"^## (.+)$", twin, re.MULTILINE) == page.words("h2")
    pictures = re.findall(r"!\[.*?\]\((.+?)\)", twin)
    assert len(pictures) == len(page.of("img")) == 4
    assert all((kept.folder / path).is_file() for path in pictures)


def test_the_table_is_that_of_table_md(tmp_path: Path) -> None:
    kept = finished(tmp_path)
    report(kept)
    head, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (kept.folder / "table.md").read_text().splitlines()
        if line.startswith("|")
    ]
    html = (kept.folder / "report.html").read_text()
    table = Page(html[html.index('<section id="table">') : html.index('<section id="plots">')])
    assert [cell.replace("_ ", "_") for cell in table.words("th")][-1] == head[-1]
    shown = iter(table.words("td"))
    for row in rows:
        assert [next(shown) for _ in row[:-1]] == row[:-1]
    values = [float(at["data-value"]) for at in table.of("td") if "data-value" in at]
    assert 1.0 in values, "a number is sorted by what it is"
    assert {code for row in rows for code in row[-1].split()} == set(table.words("span"))


def test_a_damaged_run_is_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = finished(tmp_path)
    first, *rest = [saved.folder for saved in kept.runs()]
    (first / "requests.parquet").write_bytes(b"PAR1 cut off")
    assert run(["report", str(kept.folder)]) == 0
    told = f"run {first.name} is damaged ("
    assert f"note: {told}" in capsys.readouterr().out
    assert told in (kept.folder / "report.md").read_text()
    assert list(read(kept).runs["run"]) == [folder.name for folder in rest]


def test_repeats_are_those_that_were_made_where_a_verdict_ended_them(stored: Study) -> None:
    repeats = {"launches": 12, "runs": 1}
    stored.add(options={"repeats": repeats})
    assert "12 × 1 (launches × runs in each)" in report(stored).words("dd")
    stored.add(looks=2)
    assert "1 × 1 (launches × runs in each), of at most 12 launches" in report(stored).words("dd")


def test_every_table_scrolls_inside_its_own_container(stored: Study) -> None:
    html = write_report(stored).read_text()
    tables = re.findall(r"<table\b", html)
    assert tables
    assert len(re.findall(r'<div class="wide" tabindex="0"><table class="data">', html)) == len(
        tables
    )
    assert re.search(r"\.wide \{\s*overflow-x: auto; max-width: 100%", html)


def test_codes_that_occur_are_explained_and_no_others(stored: Study) -> None:
    words = " ".join(report(stored).words())
    assert {code for code in CODES if CODES[code].meaning in words} == {"not_steady"}


def in_short(kept: Study) -> str:
    html = write_report(kept).read_text()
    return " ".join(
        Page(html[html.index('<section id="short">') : html.index('"box"')]).words("li")
    )


def test_the_headline_is_the_best_point_that_is_not_void(tmp_path: Path) -> None:
    kept = finished(tmp_path, "engine.max_num_seqs=4,8,16", "load.concurrency=2")
    runs = kept.about["runs"]
    assert "The most output: 840 tok/s at max_num_seqs=16, TTFT p50" in in_short(kept)
    void(kept, runs[-1])
    told = in_short(kept)
    assert "The most output, void points left out: 560 tok/s at max_num_seqs=8," in told
    assert "Not to be used for a comparison, where marked: client_busy." in told
    void(kept, *runs)
    told = in_short(kept)
    assert "most output" not in told
    assert "No point can be compared with another: all that were measured are void." in told


def test_codes_of_runs_that_a_row_leaves_out_are_told_apart(tmp_path: Path) -> None:
    kept = finished(tmp_path, "load.concurrency=2", "repeats.launches=2")
    void(kept, kept.about["runs"][0])
    words = report(kept).words()
    assert any(
        w.endswith("Codes in parentheses are of runs that the row leaves out.") for w in words
    )
    place = words.index("of runs that the row leaves out: " + CODES["client_busy"].meaning)
    assert words[place + 1] == "refused", "compare leaves out none"
    assert "The most output: 560 tok/s," in in_short(kept)
    assert "Not to be used" not in in_short(kept)


def test_what_was_simulated_says_so_first(tmp_path: Path) -> None:
    kept = finished(tmp_path, simulated=True)
    page = report(kept)
    assert page.words("title")[0].startswith("SIMULATED: ")
    assert page.words()[0] == SIMULATED
    assert (kept.folder / "report.md").read_text().startswith(f"**{SIMULATED}**")


def test_what_was_measured_is_not_called_simulated(stored: Study) -> None:
    assert "SIMULATED" not in " ".join(report(stored).words("title", "p"))


def test_a_comparison_with_a_simulated_study_says_so_first(stored: Study) -> None:
    kept = stored
    told = compared(kept.folder, kept.folder, kept.about["runs"])
    told["baseline"]["simulated"] = True
    assert report(kept, told).words()[0] == SIMULATED


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    kept = failed(tmp_path, HOSTILE, ["INFO fine", f"ERROR {HOSTILE} ```", "````"], HOSTILE)
    kept.add(model={"name": HOSTILE}, environment={"variables": {"VLLM_X": HOSTILE}})
    page = report(kept)
    assert_self_contained(page)
    told = " ".join(page.words("pre"))
    assert f"ERROR {HOSTILE}" in told
    assert f"3× {HOSTILE}" in told
    twin = (kept.folder / "report.md").read_text()
    fenced = re.findall(r"^(`{3,})text\n(.*?)\n\1$", twin, re.MULTILINE | re.DOTALL)
    assert any("````" in log and fence == "`````" for fence, log in fenced)
    outside = re.sub(r"^(`{3,})text\n.*?\n\1$", "", twin, flags=re.MULTILINE | re.DOTALL)
    assert not re.search(r"(?<!\\)<", outside)


def test_failures_are_told_with_the_lines_that_say_why(tmp_path: Path) -> None:
    kept = failed(tmp_path, "the server died", ["Traceback", "ValueError: no"], "engine is gone")
    page = report(kept)
    assert "failures" in page.sections
    assert "Traceback ValueError: no" in page.words("pre")
    assert "It cost 1 run: concurrency=1." in page.words("p")
    assert "3× engine is gone" in page.words("pre")
    without_samples(kept)
    later = report(kept)
    assert "died under load" in later.words("h3")


def test_without_samples_the_stored_table_is_shown_and_said_to_be(tmp_path: Path) -> None:
    kept = finished(tmp_path)
    before = report(kept)
    without_samples(kept)
    (kept.folder / "table.parquet").unlink()  # the CSV is enough
    after = report(kept)
    assert before.words("td") == after.words("td")
    note = "The raw samples are not there"
    assert any(line.startswith(note) for line in after.words("li"))
    assert not any(line.startswith(note) for line in before.words("li"))


def test_a_study_without_anything_is_refused(tmp_path: Path) -> None:
    kept = finished(tmp_path)
    shutil.rmtree(kept.folder / "runs")
    with pytest.raises(UserError, match="neither samples of a run nor a table"):
        write_report(kept)


def test_profiles_are_shown_with_findings_strip_and_what_opens_them(stored: Study) -> None:
    kept = stored
    first, second = kept.about["runs"]
    captured(kept, first)
    captured(kept, second, status="failed", failure="absent", reason="no <nsys> here")
    page = report(kept)
    assert_self_contained(page)
    assert page.sections == [*ALWAYS, "profiles"]
    words = page.words()
    assert any(line.startswith("GPU 0 (NVIDIA H200) is busy 73.1 %") for line in words)
    assert "Not captured (absent): no <nsys> here" in words
    assert any("16.4 % slower than measured" in line for line in words)
    link = f"runs/{first}/profile/nsys/trace.nsys-rep"
    assert link in [attrs["href"] for attrs in page.of("a")]
    assert f"nsys-ui {link}" in page.words("code")
    twin = (kept.folder / "report.md").read_text()
    assert f"](runs/{first}/profile/nsys/strip.png)" in twin


def test_captured_points_are_set_against_each_other(stored: Study) -> None:
    kept = stored
    for each in kept.about["runs"]:
        captured(kept, each)
    page = report(kept)
    assert "From concurrency=1 to concurrency=2" in page.words("h3")
    assert "A decode step takes 5.26 ms instead of 5.26 ms" in " ".join(page.words("li"))


def test_findings_of_another_version_are_shown_as_they_were_written(stored: Study) -> None:
    kept = stored
    run_id = kept.about["runs"][0]
    captured(kept, run_id)
    folder = kept.folder / "runs" / run_id / "profile" / "nsys"
    (folder / "findings.json").write_text('{"version": 0}')
    (folder / "findings.md").write_text("# Profile\n\n- It <b>waits</b> | much.\n\n## Devices\n")
    page = report(kept)
    assert "It <b>waits</b> | much." in page.words("li")
    assert "Devices" in page.words("h4")


def on_gpus(kept: Study) -> Study:
    """The study as if it had been made on the two cards of the validations below."""
    kept.add(environment=validations.environment(), begun_utc="2026-11-21 12:00:00")
    return kept


def test_the_last_validation_of_the_gpus_is_shown_with_its_verdict_and_its_date(
    stored: Study,
) -> None:
    kept = on_gpus(stored)
    wrong = validations.measurement("gemm.bf16.8192", value=1.0, gpus=(0,))
    rows = make_card([wrong, *validations.card_of(1)], {0: H200, 1: H200})
    told = {"rows": [asdict(row) for row in rows.rows], "verdict": rows.verdict}
    before = {"begun_utc": "2000-01-01 10:00:00"} | told
    validations.save(kept.folder.parents[0], "older", [], begun_utc="1999-01-01 10:00:00")
    validations.save(kept.folder.parents[0], "last", [], **before)
    page = report(kept)
    assert "Hardware validation" in page.words("h3")
    said = " ".join(page.words("p"))
    assert "FAIL: last, made on 2000-01-01 10:00:00 UTC, the last validation of these GPUs" in said
    assert "gemm.bf16.max" in page.words("td")
    assert any(w.startswith("FAIL gemm.bf16.8192 (GPU 0): ") for w in page.words("li"))


def test_a_validation_that_was_sent_with_the_study_comes_first(stored: Study) -> None:
    kept = on_gpus(stored)
    told = validations.document([], begun_utc="2000-01-02 10:00:00")
    (kept.folder / "validation.json").write_text(json.dumps(told))
    validations.save(kept.folder.parents[0], "last", [], begun_utc="2000-01-01 10:00:00")
    assert "made on 2000-01-02 10:00:00 UTC" in " ".join(report(kept).words("p"))


def test_gpus_that_were_not_validated_are_said_to_be_so_and_a_simulator_has_none(
    stored: Study,
) -> None:
    assert "were not validated" not in " ".join(report(stored).words("p"))
    assert "were not validated" in " ".join(report(on_gpus(stored)).words("p"))
    stored.add(simulated=True)
    assert "were not validated" not in " ".join(report(stored).words("p"))


def test_a_verdict_stands_on_top_and_what_is_open_at_the_end(stored: Study) -> None:
    kept = stored
    told = compared(kept.folder, kept.folder, kept.about["runs"])
    page = report(kept, told)
    assert_self_contained(page)
    assert page.sections == ["verdict", *ALWAYS[1:], "evidence", "settling"]
    assert page.words("strong")[0] == "Regressed"
    assert "1 of 2 points regressed." in page.words("p")
    assert "driver" in page.words("td")
    verdicts = [w for w in page.words("td") if w in ("regressed", "inconclusive", "unchanged")]
    assert verdicts == ["regressed", "inconclusive", "unchanged"]
    assert f"{COMMAND_WITH_9} against={kept.folder}" in page.words("pre")
    assert len(page.of("svg")) == 3


COMMAND_WITH_9 = "python -m harness sweep=single load.concurrency=1,2 repeats.launches=9"


def test_a_policys_verdict_needs_no_second_study(stored: Study) -> None:
    told = compared(Path("limits.yaml"), stored.folder, stored.about["runs"])
    told["baseline"]["launches"] = 0
    told["changes"] = [{"what": "engine.dtype", "baseline": "auto", "candidate": "float16"}]
    told["notes"] = ["concurrency=64 was not measured"]
    for each in told["points"]:
        each |= {"limit": "≥ 120", "baseline_runs": []}
    page = report(stored, told)
    assert "≥ 120" in page.words("td")
    assert "engine.dtype" in page.words("td")
    assert "concurrency=64 was not measured" in page.words("li")
    assert not any("study is not here" in line for line in page.words("p"))
    assert COMMAND_WITH_9 in page.words("pre")


def test_regressed_points_without_traces_are_told_with_the_command_that_captures_them(
    tmp_path: Path, stored: Study
) -> None:
    baseline, candidate = stored, Study(tmp_path / "candidate")
    shutil.copytree(baseline.folder, candidate.folder)
    told = compared(baseline.folder, candidate.folder, candidate.about["runs"])
    page = report(candidate, told)
    assert any(line.startswith("1 point lacks a trace.") for line in page.words("p"))
    command = f"python -m harness report {candidate.folder} against={baseline.folder} profile=torch"
    assert command in page.words("pre")
    captured(baseline, baseline.about["runs"][0])
    captured(candidate, candidate.about["runs"][0])
    page = report(candidate, told)
    assert not any("lacks a trace" in line for line in page.words("p"))


def test_a_regressed_point_whose_baseline_is_gone_shows_the_candidate_alone(
    tmp_path: Path, stored: Study
) -> None:
    kept = stored
    page = report(kept, compared(tmp_path / "gone", kept.folder, kept.about["runs"]))
    assert "The baseline's study is not here: only the candidate is shown." in page.words("p")
    assert any(line.endswith("comparison=FILE.json profile=torch") for line in page.words("pre"))


def test_a_capture_that_failed_is_told_with_its_reason(stored: Study) -> None:
    kept = stored
    captured(kept, kept.about["runs"][0], status="failed", failure="absent", reason="no nsys here")
    page = report(kept, compared(Path("gone"), kept.folder, kept.about["runs"]))
    assert page.words().count("Not captured (absent): no nsys here") == 1
    assert any("lacks a trace" in line for line in page.words("p"))


def test_a_regressed_point_shows_both_traces_and_what_changed(
    tmp_path: Path, stored: Study
) -> None:
    baseline, candidate = stored, Study(tmp_path / "candidate")
    shutil.copytree(baseline.folder, candidate.folder)
    runs = candidate.about["runs"]
    for kept in (baseline, candidate):
        captured(kept, runs[0])
    page = report(candidate, compared(baseline.folder, candidate.folder, runs))
    assert "profiles" not in page.sections, "each is shown once"
    titles = page.words("h4")
    assert "baseline: concurrency=1, nsys" in titles
    assert "candidate: concurrency=1, nsys" in titles
    assert "From baseline to candidate" in titles
    links = [attrs["href"] for attrs in page.of("a")]
    assert any(link.startswith("../") and link.endswith("trace.nsys-rep") for link in links)


def test_profiles_of_one_kind_are_set_against_each_other(tmp_path: Path, stored: Study) -> None:
    baseline, candidate = stored, Study(tmp_path / "candidate")
    shutil.copytree(baseline.folder, candidate.folder)
    run_id = candidate.about["runs"][0]
    captured(baseline, run_id, kind="torch")
    captured(candidate, run_id)
    captured(candidate, run_id, kind="torch")
    page = report(candidate, compared(baseline.folder, candidate.folder, candidate.about["runs"]))
    titles = page.words("h4")
    assert "baseline: concurrency=1, torch" in titles
    assert "candidate: concurrency=1, torch" in titles
    assert "concurrency=1, nsys" in page.words("h3"), "the other one is not lost"


def test_a_baseline_that_was_never_tabulated_is_read_from_its_samples(tmp_path: Path) -> None:
    baseline, candidate = finished(tmp_path / "a"), finished(tmp_path / "b")
    captured(baseline, baseline.about["runs"][0])
    told = compared(baseline.folder, candidate.folder, candidate.about["runs"])
    assert "baseline: concurrency=1, nsys" in report(candidate, told).words("h4")


@pytest.mark.parametrize(
    "reference",
    [path.parent.relative_to(REFERENCE) for path in sorted(REFERENCE.glob("**/study.json"))],
    ids=str,
)
def test_every_reference_study_can_be_reported_as_cloned(reference: Path, tmp_path: Path) -> None:
    shutil.copytree(REFERENCE / reference, tmp_path / "study")
    study = Study(tmp_path / "study")
    page = report(study)
    assert_self_contained(page)
    on_top = "tuned" if "tune" in study.about else "short"
    assert {on_top, "box", "run", "table"} <= set(page.sections)


def test_the_verb_names_the_page_and_refuses_what_it_cannot_read(
    tmp_path: Path, stored: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = stored
    assert run(["report", str(kept.folder)]) == 0
    assert capsys.readouterr().out == f"report: {kept.folder}/report.html\n"
    for words, says in (
        ([], "report takes one study's folder"),
        ([str(tmp_path / "no")], "is not a study"),
        ([str(kept.folder), f"comparison={tmp_path}/no.json"], "cannot be read"),
        ([str(kept.folder), f"comparison={kept.folder}/study.json"], "is no comparison"),
        ([str(kept.folder), f"against={kept.folder}", "allow=driver_vesion"], "'driver_version'"),
        ([str(kept.folder), f"against={kept.folder}", "allow=points"], "nothing to compare"),
    ):
        assert run(["report", *words]) == 2
        assert says in capsys.readouterr().err


def test_a_comparison_of_other_studies_is_refused_in_one_sentence(
    tmp_path: Path, stored: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "told.json"
    for baseline, mine, says in (
        (tmp_path / "a", tmp_path / "b", f"is about {tmp_path}/b against {tmp_path}/a, not about"),
        (stored.folder, tmp_path / "b", f"judges {tmp_path}/b by this study: report {tmp_path}/b."),
        (tmp_path / "a", stored.folder, ""),
        (tmp_path / "a", Path("moved") / stored.folder.name, ""),
    ):
        file.write_text(json.dumps(compared(baseline, mine, stored.about["runs"])))
        assert run(["report", str(stored.folder), f"comparison={file}"]) == (2 if says else 0)
        told = capsys.readouterr().err
        assert says in told
        assert len(told.splitlines()) == bool(says)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{}", "is no comparison: 'verdict' is missing."),
        ("{", "is no comparison: it is no JSON (EOF"),
        ("[]", "is no comparison: it must be names with"),
    ],
)
def test_what_is_no_comparison_is_told_by_file_and_key(
    tmp_path: Path, text: str, says: str
) -> None:
    (tmp_path / "told.json").write_text(text)
    with pytest.raises(UserError) as told:
        comparison.read(tmp_path / "told.json")
    assert f"told.json: {says}" in str(told.value)
    assert "pydantic" not in str(told.value)


def test_an_axis_that_does_not_apply_to_a_point_is_no_part_of_its_label(stored: Study) -> None:
    contents = read(stored)
    first, second = contents.about["runs"]
    contents.about["axes"]["load.rate_frac"] = [0.8, 0.9]
    contents.runs["rate_frac"] = [0.9, None]
    contents.runs["concurrency"] = [None, 2.0]
    assert contents.label(first) == "rate_frac=0.9"
    assert contents.label(second) == "concurrency=2"
    contents.runs["rate_frac"] = None
    assert contents.label(first) == "concurrency=default, rate_frac=default"
    assert point_label({"case": "open", "load.concurrency": None}) == "case=open"


def test_a_picture_is_embedded_whole(stored: Study) -> None:
    kept = stored
    captured(kept, kept.about["runs"][0])
    sources = [attrs["src"].partition(",")[2] for attrs in report(kept).of("img")]
    assert PIXEL in [base64.b64decode(source) for source in sources]


def test_a_server_that_did_not_start_resolved_nothing(stored: Study) -> None:
    for name, dtype in (("a", "bfloat16"), ("b", "float16"), ("c", None)):
        facts = {"facts": {"resolved": {"dtype": dtype}}} if dtype else {}
        stored.save_launch(stored.new_launch(name), {"label": name, **facts})
    write_report(stored)
    twin = (stored.folder / "report.md").read_text()
    [told] = [line for line in twin.splitlines() if "bfloat16, float16" in line]
    assert "default" not in told
