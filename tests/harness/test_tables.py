import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.columns import COLUMNS
from harness.config import compose
from harness.overrides import parse
from harness.plan import Plan
from harness.plots import draw
from harness.study import Study
from harness.tables import extremes, markdown, points_table, runs_table, write_tables
from tests.harness.builders import fill, plan, record, requests, study, void
from tests.harness.models import TINY

GRID = ("engine.max_num_seqs=4,8", "load.concurrency=2")


def filled(out: Path, *words: str, simulated: bool = False) -> tuple[Study, Plan]:
    made = plan(*words)
    kept = study(out, made, simulated=simulated)
    fill(kept, made)
    return kept, made


def test_a_row_holds_the_formulas_results(tmp_path: Path) -> None:
    kept, _ = filled(tmp_path, "load.concurrency=2")
    (row,) = runs_table(kept).to_dict("records")
    assert row["ttft_p50_s"] == pytest.approx(0.05)
    assert row["tpot_p99_s"] == pytest.approx(0.01)
    assert row["e2e_p50_s"] == pytest.approx(0.08)
    assert row["requests_ok"] == 700
    assert row["output_tok_per_s"] == pytest.approx(700 * 4 / 10)
    assert row["warmup_s"] == pytest.approx(5.0)
    assert row["startup_s"] == pytest.approx(19.0)
    assert row["max_num_batched_tokens"] == 8192, "what the server says it took"
    assert row["validity"] == ""


def test_a_row_of_a_known_gpu_and_model_says_how_near_it_came_to_the_ceiling(
    tmp_path: Path,
) -> None:
    made = plan("load.concurrency=2")
    kept = study(tmp_path, made)
    fill(kept, made)
    (run,) = made.runs
    saved = next(kept.runs())
    kept.save_launch(kept.folder / "launches" / saved.record["launch"], {"gpus": "2x NVIDIA H200"})
    kept.add(model=asdict(TINY))
    at_s = np.arange(100.0, 115.01, 0.25)
    gpu = {"at_s": at_s, "gpu": np.zeros(len(at_s), int), "power_instant_w": at_s * 0 + 400}
    gpu |= {"throttle_reasons": np.zeros(len(at_s), int), "sm_activity_frac": at_s * 0 + 0.5}
    gpu |= dict.fromkeys(("utilization_frac", "memory_used_bytes", "sm_clock_hz"), at_s * 0 + 1)
    gpu |= {"temperature_c": at_s * 0, "energy_j": (at_s - 100) * 400}
    server = {"at_s": at_s, "steps_total": (at_s - 100) * 100}
    kept.save_run(run.id, saved.record, **requests(700, 0.05, 0.01), gpu=gpu, server=server)
    (row,) = runs_table(kept).to_dict("records")
    assert row["sm_activity_frac"] == 0.5
    assert row["gpu_energy_j"] == pytest.approx(4000)
    assert row["j_per_output_token"] == pytest.approx(4000 / (700 * 4))
    assert row["server_steps_per_s"] == pytest.approx(100)
    assert row["ceiling"] == "datasheet"
    assert 0 < row["mfu_frac"] < row["mbu_frac"] < 1


def test_gain_is_against_the_row_before(tmp_path: Path) -> None:
    kept, made = filled(tmp_path, *GRID)
    points = points_table(runs_table(kept), made.axes)
    assert points["max_num_seqs"].tolist() == [4, 8]
    assert pd.isna(points["gain_frac"][0])
    assert points["gain_frac"][1] == pytest.approx(1.0)


def test_gain_is_not_told_between_rows_that_differ_in_two_axes(tmp_path: Path) -> None:
    kept, made = filled(tmp_path, "engine.max_num_seqs=4,8", "load.concurrency=2,4")
    gains = points_table(runs_table(kept), made.axes)["gain_frac"].tolist()
    assert [pd.isna(gain) for gain in gains] == [True, False, True, False]


@pytest.mark.parametrize("launches", [1, 2])
def test_a_study_of_failures_only_has_a_table(tmp_path: Path, launches: int) -> None:
    made = plan(*GRID, f"repeats.launches={launches}")
    kept = study(tmp_path, made)
    folder = kept.new_launch("x")
    kept.save_launch(folder, {})
    for run in made.runs:
        failure = {"kind": "hangs", "message": "", "evidence": []}
        kept.save_run(run.id, record(made, run, folder, status="failed", failure=failure))
    tables = write_tables(kept)
    assert tables is not None
    points = tables.points
    assert markdown(points, kept.about).count("| hangs |") == 2


@pytest.mark.parametrize(
    ("words", "column", "values"),
    [
        (("load.rate_rps=1.5,2.0,2.5", "load=poisson"), "rate_rps", [1.5, 2.0, 2.5]),
        (("engine.enforce_eager=true,false",), "enforce_eager", ["true", "false"]),
        (("engine.block_size=null,16",), "block_size", [None, 16]),
        (("engine.extra.x=auto,1",), "x", ["auto", "1"]),
        (("load.warmup_s=2,4",), "load.warmup_s", [2, 4]),
        (
            ("load.input_tokens={dist:uniform,min:1,max:8}", "load.input_tokens.max=8,4"),
            "max",
            [8, 4],
        ),
    ],
)
def test_an_axis_of_any_kind_has_its_column_and_its_plots(
    tmp_path: Path, words: tuple[str, ...], column: str, values: list[object]
) -> None:
    kept, _ = filled(tmp_path, *words)
    runs = runs_table(kept)
    assert [None if pd.isna(value) else value for value in runs[column]] == values
    tables = write_tables(kept)
    assert tables is not None
    points = tables.points
    assert len(draw(points, kept.about, kept.folder / "plots")) == 2


def test_axes_of_the_same_name_keep_apart(tmp_path: Path) -> None:
    kept, _ = filled(
        tmp_path,
        "load.input_tokens={dist:uniform,min:1,max:8}",
        "load.output_tokens={dist:uniform,min:1,max:8}",
        "load.input_tokens.max=8,4",
        "load.output_tokens.max=2,3",
    )
    runs = runs_table(kept)
    assert runs["load.input_tokens.max"].tolist() == [8, 8, 4, 4]
    assert runs["load.output_tokens.max"].tolist() == [2, 3, 2, 3]


def test_a_run_in_which_nothing_came_back_has_a_row(tmp_path: Path) -> None:
    made = plan("load.concurrency=2")
    kept = study(tmp_path, made)
    fill(kept, made)
    (run,) = made.runs
    saved = next(kept.runs())
    samples = requests(3, 0.05, 0.01)
    samples["requests"] |= {"status": np.array(["failed"] * 5), "num_chunks": np.zeros(5, int)}
    samples["chunks"] = {"request": np.zeros(0, int), "at_s": np.zeros(0)}
    kept.save_run(run.id, saved.record, **samples)
    (row,) = runs_table(kept).to_dict("records")
    assert row["requests_failed"] == 5
    assert row["validity"].split()[:2] == ["failures", "no_samples"]


def test_rows_follow_the_grid_whatever_the_order_of_the_runs(tmp_path: Path) -> None:
    kept, _ = filled(tmp_path, "engine.max_num_seqs=16,4,8", "order=shuffled", "seed=3")
    assert runs_table(kept)["max_num_seqs"].tolist() == [16, 4, 8]


def test_repeats_become_one_row_with_their_spread(tmp_path: Path) -> None:
    kept, made = filled(tmp_path, "load.concurrency=2", "repeats.launches=3")
    (row,) = points_table(runs_table(kept), made.axes).to_dict("records")
    assert (row["runs_ok"], row["runs_all"]) == (3, 3)
    assert row["output_tok_per_s"] == pytest.approx(1400 * 4 / 10), "the median"
    assert row["spread_frac"] == pytest.approx(1.0)


def test_a_row_is_made_without_its_void_runs_and_names_what_voids_them(tmp_path: Path) -> None:
    kept, made = filled(tmp_path, *GRID, "repeats.launches=3")
    busy = made.runs[0].id
    void(kept, busy)
    runs = runs_table(kept)
    first, second = points_table(runs, made.axes).to_dict("records")
    rates = runs[(runs["point"] == first["point"]) & (runs["run"] != busy)]["output_tok_per_s"]
    assert len(rates) == 2
    assert first["output_tok_per_s"] == rates.median()
    assert first["run"] != busy
    assert first["validity"] == "(client_busy)"
    assert (first["runs_ok"], second["runs_ok"]) == (2, 3)
    assert not pd.isna(second["speedup"]), "the row itself is not void"
    least, greatest = extremes(runs)
    ends = [each["output_tok_per_s"][first["point"]] for each in (least, greatest)]
    assert ends == [rates.min(), rates.max()]


def test_a_row_whose_every_run_is_void_has_their_numbers_and_no_relation(tmp_path: Path) -> None:
    kept, made = filled(tmp_path, *GRID, "repeats.launches=2")
    void(kept, *(run.id for run in made.runs if run.point == made.runs[0].point))
    first, second = points_table(runs_table(kept), made.axes).to_dict("records")
    assert first["validity"] == "client_busy"
    assert first["runs_ok"] == 2
    assert first["output_tok_per_s"] > 0
    assert pd.isna(
        [each[name] for each in (first, second) for name in ("speedup", "gain_frac")]
    ).all()


def test_a_launch_that_died_does_not_void_the_row_of_the_others(tmp_path: Path) -> None:
    kept, made = filled(tmp_path, *GRID, "repeats.launches=2")
    died = made.runs[0]
    folder = next((kept.folder / "launches").iterdir())
    failure = {"kind": "hangs", "message": "", "evidence": []}
    kept.save_run(died.id, record(made, died, folder, status="failed", failure=failure))
    first, second = points_table(runs_table(kept), made.axes).to_dict("records")
    assert first["validity"] == "(died)"
    assert (first["speedup"], second["runs_ok"]) == (1, 2)


def test_the_row_of_a_search_leaves_out_a_void_result_and_tells_of_no_step(tmp_path: Path) -> None:
    kept, made = filled(tmp_path, "load.concurrency=2", "repeats.launches=2", "repeats.runs=2")
    runs = runs_table(kept)
    busy, stopped = "client_busy", "stopped"
    runs["validity"] = [busy, stopped, "", stopped]
    runs["at_capacity"] = [True, False] * 2
    (row,) = points_table(runs, made.axes).to_dict("records")
    assert row["run"] == runs["run"][2]
    assert row["validity"] == "(client_busy)"
    runs["validity"] = [busy, stopped] * 2
    (row,) = points_table(runs, made.axes).to_dict("records")
    assert (row["runs_ok"], row["validity"]) == (2, "client_busy")


def test_a_failed_run_shows_its_kind_and_no_numbers(tmp_path: Path) -> None:
    kept, made = filled(tmp_path, *GRID)
    first = made.runs[0]
    folder = next((kept.folder / "launches").iterdir())
    failure = {"kind": "out_of_memory", "message": "", "evidence": []}
    kept.save_run(first.id, record(made, first, folder, status="failed", failure=failure))
    text = markdown(points_table(runs_table(kept), made.axes), kept.about)
    (row,) = [line for line in text.splitlines() if "out_of_memory" in line]
    assert row.startswith("| 4 | 8,192 | 2 | out_of_memory | – | – |")
    assert "died" in row


def test_the_markdown_table_says_what_is_simulated(tmp_path: Path) -> None:
    kept, made = filled(tmp_path, *GRID, simulated=True)
    points = points_table(runs_table(kept), made.axes)
    assert markdown(points, kept.about).startswith("**SIMULATED: no hardware was measured.**")


def test_the_markdown_table_is_as_it_was(tmp_path: Path) -> None:
    kept, made = filled(tmp_path, *GRID)
    text = markdown(points_table(runs_table(kept), made.axes), kept.about)
    golden = Path(__file__).with_name("data") / "table.md"
    assert text == golden.read_text()


def test_people_are_not_shown_columns_that_are_empty_in_every_row(tmp_path: Path) -> None:
    kept, made = filled(tmp_path, "engine.max_num_seqs=4,8", "load.concurrency=1")
    points = points_table(runs_table(kept), made.axes)
    kept.add(options={"columns": ["output_tok_per_s", "gain_frac", "gpu_power_w"]})
    head = "| max_num_seqs | output tok/s | gain % | validity |"
    assert markdown(points, kept.about).splitlines()[2] == head, "gain is in one of two rows"
    assert markdown(points[:1], kept.about).splitlines()[2] == head.replace(" gain % |", "")
    assert points["gpu_power_w"].isna().all(), "programs have it all the same"


def test_a_column_that_was_asked_for_on_the_command_line_is_shown_empty(tmp_path: Path) -> None:
    asked = compose(
        parse(["engine=sim", "model=tiny", "load.concurrency=1", "columns=gpu_power_w"])
    )
    assert asked.columns_asked == ("gpu_power_w",)
    kept, made = filled(tmp_path, "load.concurrency=1")
    kept.add(options={"columns": ["gpu_power_w"]}, columns_asked=asked.columns_asked)
    text = markdown(points_table(runs_table(kept), made.axes), kept.about)
    assert text.splitlines()[2:] == [
        "| power W | validity |",
        "| ---: | :--- |",
        "| – | not_steady |",
    ]


def test_an_axis_is_shown_where_none_of_its_values_was_measured_yet(tmp_path: Path) -> None:
    kept, made = filled(tmp_path, "engine.block_size=null,32", "load.concurrency=1")
    points = points_table(runs_table(kept), made.axes)
    assert "| block_size |" in markdown(points[:1], kept.about)


def test_an_axis_without_a_column_gets_one(tmp_path: Path) -> None:
    kept, made = filled(tmp_path, "load.output_tokens=2,4", "engine.block_size=16,32")
    runs = runs_table(kept)
    assert runs["output_tokens"].tolist() == [2, 4, 2, 4]
    assert runs["block_size"].tolist() == [16, 16, 32, 32]
    assert "| block_size |" in markdown(points_table(runs, made.axes), kept.about)


def test_tables_are_written_in_three_forms(tmp_path: Path) -> None:
    kept, _ = filled(tmp_path, *GRID)
    write_tables(kept)
    parquet = pd.read_parquet(kept.folder / "table.parquet")
    csv = pd.read_csv(kept.folder / "table.csv")
    assert list(parquet.columns) == list(csv.columns)
    assert len(parquet) == len(csv) == 2


def test_an_empty_study_has_no_table(tmp_path: Path) -> None:
    assert write_tables(study(tmp_path, plan())) is None


def test_plots_are_drawn_of_what_was_measured(tmp_path: Path) -> None:
    kept, made = filled(tmp_path, *GRID)
    points = points_table(runs_table(kept), made.axes)
    drawn = draw(points, kept.about, kept.folder / "plots")
    assert [path.name for path in drawn] == ["over_max_num_seqs.png", "throughput_latency.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


def test_one_point_has_no_plot(tmp_path: Path) -> None:
    kept, made = filled(tmp_path, "load.concurrency=2")
    assert draw(points_table(runs_table(kept), made.axes), kept.about, tmp_path / "plots") == []


def test_every_column_has_a_meaning_and_appears_once() -> None:
    names = [column.name for column in COLUMNS]
    assert len(set(names)) == len(names)
    assert all(column.meaning for column in COLUMNS)


def test_a_study_from_before_cases_and_shares_still_has_its_table(tmp_path: Path) -> None:
    kept, _ = filled(tmp_path, *GRID)
    for path in kept.folder.glob("runs/*/run.json"):
        told = json.loads(path.read_text())
        del told["case"], told["load"]["rate_frac"]
        path.write_text(json.dumps(told))
    assert "options" not in kept.about
    tables = write_tables(kept)
    assert tables is not None
    points = tables.points
    assert points["max_num_seqs"].tolist() == [4, 8]
    assert points["gain_frac"].tolist()[1] == pytest.approx(1.0)
    assert points["speedup"].tolist() == pytest.approx([1.0, 2.0])
    assert "output tok/s" in markdown(points, kept.about)
    assert points["goodput_rps"].isna().all()


def test_limits_tell_what_was_of_use(tmp_path: Path) -> None:
    kept, _ = filled(tmp_path, "load.concurrency=2")
    kept.add(options={"slo": {"ttft_s": 0.06, "tpot_s": 0.02, "e2e_s": None}})
    (row,) = runs_table(kept).to_dict("records")
    assert row["goodput_rps"] == pytest.approx(70)
    assert row["slo_met_frac"] == 1.0
    kept.add(options={"slo": {"ttft_s": 0.04}})
    assert runs_table(kept)["slo_met_frac"].tolist() == [0.0]


def test_what_a_check_found_stands_in_the_rows_of_its_engine_setting(tmp_path: Path) -> None:
    kept, made = filled(tmp_path, "engine.max_num_seqs=4,8", "load.concurrency=2,4")
    first = made.launches[0]
    context = {"status": "ok", "tokens": 999, "took_s": 0.5, "limit": "HTTP 500"}
    load = runs_load(kept)
    kept.save_check(first.setting, "longest_context", context)
    offline = {"status": "ok", "output_tok_per_s": 560.0, "load": load}
    kept.save_check(first.setting, "offline", offline)
    points = points_table(runs_table(kept), made.axes)
    assert points["longest_context_tokens"].tolist()[:2] == [999, 999]
    assert points["longest_context_tokens"].isna().tolist() == [False, False, True, True]
    assert points["online_frac"].tolist()[:2] == pytest.approx([0.5, 0.5])
    assert points["online_frac"].isna().tolist() == [False, False, True, True]


def runs_load(kept: Study) -> dict[str, Any]:
    return dict(next(kept.runs()).record["load"])


def test_a_sweep_says_which_columns_people_are_shown(tmp_path: Path) -> None:
    kept, made = filled(tmp_path, "load.concurrency=1,2,4")
    kept.add(options={"columns": ["output_tok_per_s", "num_gpus", "knee", "speedup", "ttft_p50_s"]})
    points = points_table(runs_table(kept), made.axes)
    head, _, *rows = markdown(points, kept.about).splitlines()[2:]
    titles = "concurrency | output tok/s | num GPUs | knee | speedup | TTFT p50 ms | validity"
    assert head == f"| {titles} |"
    assert [row.split("|")[1].strip() for row in rows] == ["1", "2", "4"]
    assert rows[0].startswith("| 1 | 280 | 2 | yes | 1.00 | 50.0 |"), "the same rate at each"


def test_gain_of_cases_is_told_inside_each(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    text = "# @package _global_\n# Mine.\nload: {concurrency: 2}\ncases:\n  defaults: {}\n"
    text += "  seqs: {engine: {max_num_seqs: [4, 8]}}\n  blocks: {engine: {block_size: [16, 32]}}\n"
    (tmp_path / "sweep" / "mine.yaml").write_text(text)
    made = plan("sweep=mine", conf=tmp_path)
    kept = study(tmp_path, made)
    fill(kept, made)
    points = points_table(runs_table(kept), made.axes)
    assert points["case"].tolist() == ["defaults", "seqs", "seqs", "blocks", "blocks"]
    assert points["gain_frac"].isna().tolist() == [True, True, False, True, False]
    assert points["gain_frac"][4] == pytest.approx(5 / 4 - 1)
    text = markdown(points, kept.about)
    assert text.splitlines()[2].startswith("| case | block_size |")
    assert {path.stem for path in draw(points, kept.about, tmp_path / "plots")} == {"cases"}


def test_the_kv_cache_of_a_server_elsewhere_is_not_reckoned_from_the_gpus_here(
    tmp_path: Path,
) -> None:
    kept, _ = filled(tmp_path, "load.concurrency=2")
    kept.add(environment={"gpus": [{"uuid": "GPU-a", "memory_total_bytes": 150 * 10**9}]})
    kept.add(model=asdict(TINY))
    (path,) = kept.folder.glob("runs/*/run.json")
    told = json.loads(path.read_text())
    for kind, is_told in (("vllm", True), ("external", False), ("sim", False)):
        path.write_text(json.dumps(told | {"engine": told["engine"] | {"kind": kind}}))
        (row,) = runs_table(kept).to_dict("records")
        assert (row["kv_cache_expected_tokens"] is not None) == is_told, kind


def test_random_weights_have_no_accuracy_and_keep_what_other_checks_found(tmp_path: Path) -> None:
    kept, made = filled(tmp_path, "load.concurrency=2")
    kept.add(model=asdict(TINY), options={"checks": {"accuracy": {"reference": ["a"]}}})
    context = {"status": "ok", "tokens": 999, "took_s": 0.5, "limit": "HTTP 500"}
    kept.save_check(made.launches[0].setting, "longest_context", context)
    (row,) = runs_table(kept).to_dict("records")
    assert row["accuracy_reference"] == "random weights"
    assert row["longest_context_tokens"] == 999
