from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.study import SavedRun, Study
from harness.tables import write_tables
from harness.timeline import STEP_S, held, held_back, timeline
from harness.timeline_plot import draw_timeline, draw_timelines
from tests.harness.builders import WINDOW, fill, plan, record, requests, study

OPENED_AT_S = WINDOW.opened_at_s


def saved(out: Path, **samples: Any) -> SavedRun:
    """One run of 15 s, of which the last 10 are its window."""
    made = plan("load.concurrency=2")
    kept = study(out, made)
    folder = kept.new_launch("x")
    kept.save_launch(folder, {})
    (run,) = made.runs
    load = requests(100, 0.05, 0.01)
    kept.save_run(run.id, record(made, run, folder), **(load | samples))
    return next(kept.runs())


def gpu(at_s: list[float], **columns: Any) -> dict[str, Any]:
    names = "sm_activity_frac tensor_activity_frac dram_bandwidth_frac utilization_frac"
    names += " power_instant_w sm_clock_hz throttle_reasons gpu"
    given = {name: columns.get(name, 0) for name in names.split()}
    told = {name: np.broadcast_to(value, len(at_s)) for name, value in given.items()}
    whole = {name: told[name].astype(np.int64) for name in ("gpu", "throttle_reasons")}
    return (
        {name: np.asarray(v, float) for name, v in told.items()} | whole | {"at_s": np.array(at_s)}
    )


def at(series: dict[str, Any], name: str, t_s: float) -> float:
    """The value of a series `t_s` after the window opened."""
    return float(series[name][np.searchsorted(series["t_s"], t_s + STEP_S / 2) - 1])


def test_all_series_share_one_grid_that_holds_the_window(tmp_path: Path) -> None:
    series = timeline(saved(tmp_path))
    assert {len(values) for values in series.values()} == {150}
    assert series["t_s"][0] == pytest.approx(-5.0)
    assert np.diff(series["t_s"]) == pytest.approx(STEP_S)
    assert 0.0 in series["t_s"]
    assert set(series["window_s"]) == {10.0}


def test_tokens_on_the_grid_are_those_that_came(tmp_path: Path) -> None:
    series = timeline(saved(tmp_path))
    assert series["output_tok_per_s"].sum() * STEP_S == pytest.approx(102 * 4)
    assert at(series, "output_tok_per_s", 3.0) == pytest.approx(40, abs=41)


def test_a_request_is_in_flight_from_its_write_to_its_end(tmp_path: Path) -> None:
    samples = requests(1, 1.0, 0.1)
    samples["requests"]["sent_at_s"][:2] = np.nan  # those before the window never went out
    series = timeline(saved(tmp_path, **samples))
    assert at(series, "requests_in_flight", -2.0) == 0
    assert at(series, "requests_in_flight", 0.5) == 1
    assert at(series, "requests_in_flight", 2.0) == 0


def test_power_is_the_sum_over_gpus_and_the_clock_is_the_slowest(tmp_path: Path) -> None:
    times = [OPENED_AT_S + t for t in (0.0, 0.0, 1.0, 1.0)]
    taken = gpu(
        times,
        gpu=[0, 1, 0, 1],
        power_instant_w=[300, 400, 500, 600],
        sm_clock_hz=[1.9e9, 1.8e9, 1.5e9, 1.8e9],
        throttle_reasons=[0, 0, 4, 0],
    )
    series = timeline(saved(tmp_path, gpu=taken))
    assert at(series, "power_instant_w", 0.5) == 700
    assert at(series, "power_instant_w", 1.5) == 1100
    assert at(series, "sm_clock_hz", 1.5) == 1.5e9
    assert [at(series, "throttled", t) for t in (0.5, 1.5)] == [0, 1]
    assert np.isnan(at(series, "power_instant_w", -1.0)), "nothing was sampled yet"
    assert np.isnan(at(series, "power_instant_w", 4.0)), "the last sample is too old"


def test_what_is_a_mean_since_the_sample_before_is_put_before_its_sample(tmp_path: Path) -> None:
    taken = gpu([OPENED_AT_S, OPENED_AT_S + 1.0], sm_activity_frac=[0.2, 0.8])
    series = timeline(saved(tmp_path, gpu=taken))
    assert at(series, "sm_activity_frac", 0.5) == 0.8


def test_unknown_throttle_reasons_are_no_throttling(tmp_path: Path) -> None:
    taken = gpu([OPENED_AT_S], throttle_reasons=[1 << 62])
    assert np.isnan(timeline(saved(tmp_path, gpu=taken))["throttled"]).all()


def test_the_busiest_process_of_a_role_is_shown(tmp_path: Path) -> None:
    host = {
        "at_s": np.array([OPENED_AT_S] * 2 + [OPENED_AT_S + 1] * 3),
        "pid": np.array([1, 2, 1, 2, 3]),
        "role": np.array(["api_server", "api_server", "api_server", "api_server", "worker"]),
        "cpu_frac": np.array([np.nan, np.nan, 0.4, 0.9, 1.0]),
        "rss_bytes": np.zeros(5),
    }
    series = timeline(saved(tmp_path, host=host))
    assert at(series, "api_server_cpu_frac", 0.5) == 0.9
    assert at(series, "worker_cpu_frac", 0.5) == 1.0
    assert np.isnan(series["engine_core_cpu_frac"]).all()


@given(
    gaps=st.lists(st.floats(0.01, 5.0), min_size=1, max_size=20),
    places=st.lists(st.floats(-5, 60), min_size=1, max_size=30),
)
def test_a_held_value_is_one_that_was_sampled_on_that_side(
    gaps: list[float], places: list[float]
) -> None:
    sampled = np.cumsum(gaps)
    grid = np.sort(np.array(places))
    for hold, sign in ((held, 1), (held_back, -1)):
        values = hold(sampled, sampled, grid)  # each sample's value is its own time
        known = ~np.isnan(values)
        age = sign * (grid - values)[known]
        assert (age >= 0).all()
        assert (age <= 2.0).all()
        assert np.isin(values[known], sampled).all()


def test_nothing_sampled_is_nothing_held() -> None:
    none = np.zeros(0)
    assert np.isnan(held(none, none, np.arange(3.0))).all()
    assert np.isnan(held_back(none, none, np.arange(3.0))).all()


@pytest.mark.parametrize("with_gpu", [False, True])
def test_a_picture_is_drawn_of_what_there_is(tmp_path: Path, with_gpu: bool) -> None:
    taken = gpu([OPENED_AT_S, OPENED_AT_S + 1.0], throttle_reasons=[4, 0], power_instant_w=300)
    run = saved(tmp_path, **({"gpu": taken} if with_gpu else {}))
    path = draw_timeline(timeline(run), "SIMULATED: a title\nrun x", tmp_path / "x.png")
    assert path.read_bytes().startswith(b"\x89PNG")


def drawn(kept: Study) -> list[Path]:
    tables = write_tables(kept)
    assert tables is not None
    points = tables.points
    return draw_timelines(kept, points, kept.folder / "plots")


def test_every_good_run_has_a_picture_that_is_drawn_once(tmp_path: Path) -> None:
    made = plan("engine.max_num_seqs=4,8")
    kept = study(tmp_path, made)
    fill(kept, made, num=20)
    paths = drawn(kept)
    assert [path.name for path in paths] == [f"timeline-{run.id}.png" for run in made.runs]
    written_ns = [path.stat().st_mtime_ns for path in paths]
    assert [path.stat().st_mtime_ns for path in drawn(kept)] == written_ns


def test_a_large_study_has_no_timelines(tmp_path: Path) -> None:
    made = plan("load.concurrency=range(1,22)")
    kept = study(tmp_path, made)
    fill(kept, made, num=3)
    assert drawn(kept) == []
