from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.relations import KNEE_FRAC, related


def point(**changes: Any) -> dict[str, Any]:
    return {
        "case": None,
        "setting": "s",
        "load": f"l{changes.get('concurrency', 1)}",
        "load_kind": "k",
        "arrival": "closed",
        "concurrency": 1,
        "num_gpus": 1,
        "output_tok_per_s": 100.0,
        "validity": "few_samples",
    } | changes


def table(*rows: dict[str, Any], axes: tuple[str, ...] = ("concurrency",)) -> pd.DataFrame:
    return related(pd.DataFrame([point(**row) for row in rows]), axes)


def told(column: "pd.Series[Any]") -> list[Any]:
    return [None if pd.isna(value) else pytest.approx(value) for value in column]


def test_gain_is_over_the_row_before() -> None:
    rates = [
        {"concurrency": n, "output_tok_per_s": rate} for n, rate in ((1, 10), (2, 15), (4, 12))
    ]
    assert told(table(*rates)["gain_frac"]) == [None, 0.5, -0.2]


def test_gain_is_not_told_between_rows_that_differ_in_two_axes() -> None:
    rows = [{"max_num_seqs": a, "concurrency": b} for a in (4, None) for b in (1, 2)]
    gains = table(*rows, axes=("max_num_seqs", "concurrency"))["gain_frac"]
    assert told(gains) == [None, 0, None, 0], "what is left to the server is a value of the axis"


def test_gain_is_told_inside_a_case_along_the_axis_that_varies_there() -> None:
    rows: list[dict[str, Any]] = [{"case": "defaults"}]
    rows += [{"case": "a", "x": n, "output_tok_per_s": n} for n in (10, 20)]
    rows += [{"case": "b", "y": n, "output_tok_per_s": n} for n in (10, 15)]
    assert told(table(*rows, axes=("case", "x", "y"))["gain_frac"]) == [None, None, 1.0, None, 0.5]


def test_speedup_is_against_the_first_engine_setting_at_the_same_load() -> None:
    rows = [
        {"setting": s, "load": load, "num_gpus": gpus, "output_tok_per_s": rate}
        for s, gpus, rates in (("one", 1, (10, 20)), ("two", 2, (15, 40)))
        for load, rate in zip("ab", rates, strict=True)
    ]
    made = table(*rows)
    assert told(made["speedup"]) == [1, 1, 1.5, 2]
    assert told(made["gpu_efficiency_frac"]) == [1, 1, 0.75, 1]


def test_a_reference_that_failed_is_none() -> None:
    rows = [{"output_tok_per_s": None}, {"setting": "two"}, {"setting": "three"}]
    made = table(*rows, axes=("setting",))
    assert told(made["speedup"]) == [None] * 3
    assert told(made["gain_frac"]) == [None, None, 0]


VOID = {"validity": "few_samples client_busy"}
NUMBERS = (
    *("gain_frac", "speedup", "gpu_efficiency_frac", "concurrency_efficiency_frac"),
    "online_frac",
)


def test_a_void_point_is_related_to_nothing() -> None:
    rows = [{"concurrency": n, "offline_output_tok_per_s": 200.0} for n in (1, 2, 4)]
    made = table(rows[0], rows[1] | VOID, rows[2])
    assert [told(made[name])[1] for name in NUMBERS] == [None] * len(NUMBERS)
    assert told(made["speedup"]) == [1, None, 1]
    assert told(made["gain_frac"]) == [None, None, None], "nor is the next one to it"
    assert made["output_tok_per_s"].tolist() == [100.0] * 3, "what it measured is told all the same"


def test_a_reference_that_is_void_is_none() -> None:
    rows = [VOID | {"setting": "one"}, {"setting": "two"}, {"setting": "three"}]
    made = table(*rows, axes=("setting",))
    assert told(made["speedup"]) == [None] * 3
    assert told(made["gpu_efficiency_frac"]) == [None] * 3
    assert told(made["gain_frac"]) == [None, None, 0]
    each = table(VOID | {"concurrency": 1}, {"concurrency": 2}, {"concurrency": 4})
    assert told(each["concurrency_efficiency_frac"]) == [None] * 3


def test_what_voids_runs_that_a_row_leaves_out_does_not_void_the_row() -> None:
    made = table({}, {"setting": "two", "validity": "few_samples (client_busy)"})
    assert told(made["speedup"]) == [1, 1]


@pytest.mark.parametrize(
    ("void", "knee"), [((), 8), ((1,), 8), ((8,), 4), ((4, 8), 2), ((2, 4, 8), None)]
)
def test_a_void_point_is_no_knee_and_sets_no_best(void: tuple[int, ...], knee: int | None) -> None:
    rates = {1: 40, 2: 78, 3: 80, 4: 95, 8: 120}
    rows = [
        {"concurrency": n, "output_tok_per_s": rate} | (VOID if n in void else {})
        for n, rate in rates.items()
    ]
    made = table(*rows)
    assert made["concurrency"][made["knee"]].tolist() == ([] if knee is None else [knee])


def test_gpus_that_are_not_known_have_no_efficiency() -> None:
    made = table({"num_gpus": None}, {"num_gpus": None, "setting": "two"})
    assert told(made["gpu_efficiency_frac"]) == [None, None]
    assert told(made["speedup"]) == [1, 1]


def test_efficiency_of_a_stream_is_against_the_lowest_concurrency_however_they_are_listed() -> None:
    rows = [{"concurrency": n, "output_tok_per_s": rate} for n, rate in ((8, 40), (1, 10), (2, 20))]
    assert told(table(*rows)["concurrency_efficiency_frac"]) == [0.5, 1, 1]


def test_loads_that_differ_in_more_than_their_concurrency_are_not_compared() -> None:
    rows = [
        {"load_kind": kind, "concurrency": n, "output_tok_per_s": n * each}
        for kind, each in (("short", 10), ("long", 1))
        for n in (1, 2, 4)
    ]
    made = table(*rows, axes=("load_kind", "concurrency"))
    assert told(made["concurrency_efficiency_frac"]) == [1] * 6
    assert made["knee"].tolist() == [False, False, True] * 2


def test_an_open_loop_has_neither_efficiency_nor_knee() -> None:
    rows = [{"arrival": "poisson", "concurrency": None, "load": str(n)} for n in range(3)]
    made = table(*rows, axes=("load",))
    assert told(made["concurrency_efficiency_frac"]) == [None] * 3
    assert not made["knee"].any()


def test_two_points_have_no_knee() -> None:
    assert not table({"concurrency": 1}, {"concurrency": 2})["knee"].any()


def test_at_one_concurrency_the_knee_is_the_lowest_value_of_an_engines_axis() -> None:
    rows = [
        {"setting": str(n), "max_num_seqs": n, "output_tok_per_s": rate}
        for n, rate in ((256, 27), (64, 26), (16, 7), (None, 26))
    ]
    made = table(*rows, axes=("max_num_seqs",))
    assert made["knee"].tolist() == [False, True, False, False]


def test_each_case_and_each_value_of_an_outer_axis_has_a_knee_of_its_own() -> None:
    rows = [
        {"case": case, "outer": outer, "x": x, "setting": f"{case}{outer}{x}"}
        | {"output_tok_per_s": x if case == "rises" else 1}
        for case in ("rises", "is flat")
        for outer in ("a", "b")
        for x in (1, 2, 3)
    ]
    made = table(*rows, axes=("case", "outer", "x"))
    assert made["knee"].tolist() == [False, False, True] * 2 + [True, False, False] * 2


def test_a_point_of_a_series_of_concurrencies_is_in_no_other() -> None:
    rows = [
        {"setting": str(x), "x": x, "concurrency": c, "load": str(c), "output_tok_per_s": c * x}
        for x in (1, 2, 3)
        for c in (1, 2, 4)
    ]
    made = table(*rows, axes=("x", "concurrency"))
    assert made[made["knee"]][["x", "concurrency"]].to_numpy().tolist() == [[1, 4], [2, 4], [3, 4]]


@pytest.mark.parametrize("values", [("auto", "fp8", "int8"), (1, 2)])
def test_what_is_no_series_of_numbers_has_no_knee(values: tuple[Any, ...]) -> None:
    rows = [{"setting": str(value), "x": value} for value in values]
    assert not table(*rows, axes=("x",))["knee"].any()


@given(st.lists(st.floats(0.1, 1e6), min_size=3, max_size=9), st.randoms())
def test_the_knee_is_the_lowest_concurrency_near_the_best(rates, random) -> None:
    rows = [{"concurrency": n + 1, "output_tok_per_s": rate} for n, rate in enumerate(rates)]
    random.shuffle(rows)
    made = table(*rows)
    (knee,) = made[made["knee"]].to_dict("records")
    assert knee["output_tok_per_s"] >= KNEE_FRAC * max(rates)
    lower = made[made["concurrency"] < knee["concurrency"]]["output_tok_per_s"]
    assert (lower < KNEE_FRAC * max(rates)).all()


def test_online_is_a_share_of_what_was_reached_without_a_server() -> None:
    made = table({"offline_output_tok_per_s": 200.0}, {"offline_output_tok_per_s": None})
    assert told(made["online_frac"]) == [0.5, None]
    assert told(table({}, {})["online_frac"]) == [None, None], "nor is there a column"


def test_points_that_all_failed_are_related_to_nothing() -> None:
    made = table({"output_tok_per_s": None}, {"output_tok_per_s": None}, {"output_tok_per_s": None})
    assert all(made[name].isna().all() for name in NUMBERS)
    assert not made["knee"].any()
