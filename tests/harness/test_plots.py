"""What is drawn of a study, and that a file appears for it. A warning would fail these tests."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from harness import plots
from harness.plots import draw

CLOSED = [
    {
        "case": "closed",
        "arrival": "closed",
        "concurrency": float(n),
        "rate_frac": None,
        "output_tok_per_s": 100.0 * n,
        "tpot_p50_s": 0.01 * n,
        "tpot_p99_s": 0.02 * n,
        "preemptions": 0.0,
        "kv_cache_usage_peak_frac": None,
        "longest_context_limit": "max_model_len=64",
        "dtype": dtype,
        "gain_frac": -0.1 * n,
    }
    for dtype in ("auto", "fp8")
    for n in (1, 4, 16)
]
OPEN = [
    CLOSED[0] | {"case": "open", "arrival": "poisson", "concurrency": None, "rate_frac": share}
    for share in (0.5, 0.9)
]
AXES = {
    "case": ["closed", "open"],
    "engine.dtype": ["auto", "fp8"],
    "load.concurrency": [1, 4, 16],
    "load.rate_frac": [0.5, 0.9],
}


def about(axes: dict[str, list[Any]] = AXES, **plots: Any) -> dict[str, Any]:
    return {
        "sweep": "baseline",
        "engine": "vLLM 0.25.1 on 2x NVIDIA H200",
        "model": {"name": "tiny"},
        "load": "closed loop and Poisson arrivals, 64 tokens in",
        "simulated": False,
        "axes": axes,
        "options": {"plots": plots, "columns": []},
    }


def points(*rows: dict[str, Any]) -> pd.DataFrame:
    known = {"status": "ok", "failure": None, "simulated": False, "validity": ""}
    return pd.DataFrame([known | row for row in rows])


@pytest.fixture
def drawn(tmp_path: Path) -> Any:
    """Names of the files that are drawn of some points, each a picture."""

    def draw_them(*rows: dict[str, Any], axes: Any = AXES, **plots: Any) -> list[str]:
        folder = tmp_path / f"plots{len(list(tmp_path.iterdir()))}"
        paths = draw(points(*rows), about(axes, **plots), folder)
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
        assert sorted(paths) == sorted(folder.glob("*"))
        return [path.stem for path in paths]

    return draw_them


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """What is looked at before it is saved stays open, and pyplot warns of many."""
    yield
    plt.close("all")


SCALING = {"x": "concurrency", "y": ["output_tok_per_s", "tpot_p50_s"], "by": "dtype"}


def test_a_sweep_of_cases_has_bars_and_what_it_asks_for(drawn) -> None:
    assert drawn(*CLOSED, *OPEN, scaling=SCALING) == ["scaling", "cases"]
    assert drawn(*CLOSED, *OPEN, scaling=SCALING, cases_alone=SCALING | {"cases": ["closed"]})


def test_a_sweep_of_one_grid_has_the_trade_off_beside_what_it_asks_for(drawn) -> None:
    axes = {name: values for name, values in AXES.items() if name != "case"}
    assert drawn(*CLOSED, axes=axes, scaling=SCALING) == ["scaling", "throughput_latency"]


def test_a_sweep_that_asks_for_nothing_has_the_usual(drawn) -> None:
    axes = {"load.concurrency": [1, 4, 16]}
    assert drawn(*CLOSED[:3], axes=axes) == ["over_concurrency", "throughput_latency"]


@pytest.mark.parametrize(
    "change",
    [
        {"log_x": True, "log_y": True},
        {"log_y": True, "y": ["preemptions"]},  # all zero
        {"log_x": True, "x": "preemptions", "y": ["output_tok_per_s"]},
        {"y": ["gain_frac"]},  # all negative
        {"x": "dtype"},  # text
        {"x": "case", "by": None},
        {"by": "engine.dtype"},  # an axis by its whole name
        {"by": "no_such_column"},
        {"x": "output_tok_per_s", "y": ["tpot_p99_s"], "by": "case"},
    ],
)
def test_a_plot_is_drawn_whatever_its_scales_and_columns(drawn, change: dict[str, Any]) -> None:
    assert "mine" in drawn(*CLOSED, *OPEN, mine=SCALING | change)


@pytest.mark.parametrize(
    "change",
    [
        {"x": "hit_frac"},
        {"y": ["no_such_column"]},
        {"y": ["kv_cache_usage_peak_frac"]},
        {"y": ["longest_context_limit"]},
        {"cases": ["no_such_case"]},
        {"x": "rate_frac", "cases": ["closed"]},
    ],
)
def test_a_plot_of_what_is_not_there_is_left_out(drawn, change: dict[str, Any]) -> None:
    assert drawn(*CLOSED, *OPEN, mine=SCALING | change) == ["cases"]


def test_what_is_not_there_costs_its_own_panel_only(drawn) -> None:
    some = SCALING | {"y": ["longest_context_limit", "kv_cache_usage_peak_frac", "tpot_p50_s"]}
    assert "mine" in drawn(*CLOSED, mine=some)


def test_what_took_longer_than_the_run_is_not_drawn_and_breaks_nothing(drawn) -> None:
    late = [row | {"tpot_p99_s": np.inf} for row in CLOSED]
    assert "mine" in drawn(*CLOSED, *late, mine=SCALING | {"y": ["tpot_p99_s"]})
    assert drawn(*late, mine=SCALING | {"y": ["tpot_p99_s"]}) == ["cases"]


def test_replies_that_are_not_streamed_have_plots_without_their_times(drawn) -> None:
    whole = [row | {"tpot_p50_s": None, "tpot_p99_s": None} for row in CLOSED]
    assert drawn(*whole, mine=SCALING) == ["mine", "cases"]
    axes = {"engine.dtype": ["auto", "fp8"], "load.concurrency": [1, 4, 16]}
    assert drawn(*whole, axes=axes)[0] == "over_dtype"


def test_a_point_that_failed_is_not_drawn(drawn) -> None:
    failed = CLOSED[0] | {"status": "failed", "failure": "hangs", "output_tok_per_s": None}
    assert drawn(failed, CLOSED[1], mine=SCALING) == []
    assert drawn(failed, *CLOSED[1:3], mine=SCALING) == ["mine", "cases"]


def test_a_study_from_before_plots_could_be_asked_for_has_the_usual(tmp_path: Path) -> None:
    told = about({"load.concurrency": [1, 4, 16]})
    del told["options"]
    paths = draw(points(*CLOSED[:3]), told, tmp_path / "plots")
    assert [path.stem for path in paths] == ["over_concurrency", "throughput_latency"]


@pytest.mark.parametrize(
    ("change", "labels"),
    [
        ({"by": None}, ["dtype=auto", "dtype=fp8"]),
        ({}, ["dtype=auto", "dtype=fp8"]),
        ({"x": "output_tok_per_s", "by": None}, []),
        ({"x": "output_tok_per_s", "by": "case"}, ["case=closed"]),
    ],
)
def test_along_an_axis_each_setting_of_the_others_is_a_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, change: dict[str, Any], labels: list[str]
) -> None:
    told: dict[str, list[str]] = {}

    def save(figure: Any, path: Path) -> Path:
        told[path.stem] = figure.axes[0].get_legend_handles_labels()[1]
        return path

    monkeypatch.setattr("harness.plots._save", save)
    plots = {"mine": SCALING | change | {"cases": ["closed"]}}
    draw(points(*CLOSED, *OPEN), about(**plots), tmp_path / "plots")
    assert told["mine"] == labels


@pytest.mark.parametrize("num_rows", [1, 5])
def test_the_title_lies_on_no_panel(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, num_rows: int
) -> None:
    overlaps: list[bool] = []

    def save(figure: Any, path: Path) -> Path:
        figure.tight_layout()
        figure.draw_without_rendering()
        title = figure._suptitle.get_window_extent()
        overlaps.append(title.y0 < figure.axes[0].get_window_extent().y1)
        return path

    monkeypatch.setattr("harness.plots._save", save)
    names = ("output_tok_per_s", "tpot_p50_s", "tpot_p99_s", "preemptions", "gain_frac")
    draw(points(*CLOSED), about(mine=SCALING | {"y": list(names[:num_rows])}), tmp_path / "plots")
    assert overlaps
    assert not any(overlaps)


def test_nothing_lies_on_a_bar_and_labels_say_what_they_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    figures: dict[str, Any] = {}

    def save(figure: Any, path: Path) -> Path:
        figures[path.stem] = figure
        return path

    monkeypatch.setattr("harness.plots._save", save)
    draw(points(*CLOSED, *OPEN), about(), tmp_path / "plots")
    left, right = figures["cases"].axes
    assert left.get_legend() is None
    assert right.get_legend() is None
    assert "p99" in right.get_xlabel()
    assert left.get_title(loc="left") == "labels: case, dtype, concurrency, rate_frac"


def test_a_case_of_one_point_is_labelled_by_its_name_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    figures: dict[str, Any] = {}
    monkeypatch.setattr(plots, "_save", lambda figure, path: figures.update({path.stem: figure}))
    draw(points(CLOSED[0], OPEN[0]), about(), tmp_path)
    left, _ = figures["cases"].axes
    assert left.get_title(loc="left") == "labels: case"
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["closed", "open"]


def test_a_mark_is_hollow_and_a_bar_hatched_where_a_fatal_code_stands_against_its_row(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    figures: list[Any] = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: figures.append(figure) or path)
    rows = [row | {"validity": "throttled"} for row in CLOSED]
    rows[1] = rows[1] | {"validity": "throttled client_busy"}
    asked = {"x": "concurrency", "y": ["output_tok_per_s"], "by": "dtype", "cases": ["closed"]}
    draw(points(*rows, *OPEN), about(rate=asked), tmp_path)
    line, bars = figures
    (hollow,) = [drawn for drawn in line.axes[0].lines if drawn.get_markerfacecolor() == "white"]
    assert list(hollow.get_xdata()) == [4.0]
    assert [bar.get_hatch() for bar in bars.axes[0].patches].count("///") == 1
    assert line.get_suptitle().endswith("\nhollow: void, see validity")
    assert bars.get_suptitle().endswith("\nhatched: void, see validity")


def thin_lines(panel: Any) -> list[Any]:
    """Where the lines through marks and bars end."""
    pieces = [piece for lines in panel.collections for piece in lines.get_segments()]
    pieces = [piece for piece in pieces if len(piece) and np.isfinite(piece).all()]
    return [piece.tolist() for piece in pieces if not np.array_equal(*piece)]


def test_several_runs_of_a_point_are_a_thin_line_from_the_least_to_the_greatest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    figures: list[Any] = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: figures.append(figure) or path)
    rows = [row | {"point": str(number)} for number, row in enumerate(CLOSED[:3])]
    rates = {"0": [100.0], "1": [360.0, 400.0, 520.0], "2": [1600.0]}
    runs = [row | {"output_tok_per_s": rate} for row in rows for rate in rates[row["point"]]]
    runs.append(rows[0] | {"status": "failed", "output_tok_per_s": 1.0})
    asked = {"x": "concurrency", "y": ["output_tok_per_s"]}
    draw(points(*rows), about(rate=asked), tmp_path, points(*runs))
    line, bars = figures
    assert thin_lines(line.axes[0]) == [[[4.0, 360.0], [4.0, 520.0]]]
    assert thin_lines(bars.axes[0]) == [[[360.0, 1.0], [520.0, 1.0]]]
    for drawn in figures:
        assert drawn.get_suptitle().endswith("from the least to the greatest of a point's runs")


def test_points_that_were_measured_once_have_no_such_lines(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    figures: list[Any] = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: figures.append(figure) or path)
    rows = [row | {"point": str(number)} for number, row in enumerate(CLOSED[:3])]
    draw(points(*rows), about(), tmp_path, points(*rows))
    assert "thin lines" not in figures[0].get_suptitle()
    assert not any(map(thin_lines, figures[0].axes))


def test_a_study_in_which_every_run_failed_has_no_plots(tmp_path: Path) -> None:
    failed = {"status": "failed", "failure": "hangs", "output_tok_per_s": None, "point": "a"}
    rows = points(CLOSED[0] | failed, CLOSED[1] | failed)
    assert draw(rows.head(1), about(), tmp_path, rows) == []
