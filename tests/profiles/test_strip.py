import pytest

from profiles.strip import strip
from tests.profiles.conftest import GEMM, NORM

US = 1e-6


def test_the_fixtures_busiest_50_ms_are_full_of_both_ranks_work(nsys_trace):
    told = strip(nsys_trace)
    assert told.length_s == 0.050
    assert [row.label for row in told.rows] == ["GPU 0", "GPU 1"]
    for row in told.rows:
        assert row.busy_frac > 0.9
        assert {"GEMM", "communication", "attention"} <= set(row.by_class)
        assert sum(map(len, row.by_class.values())) < 4000
        pieces = [piece for each in row.by_class.values() for piece in each]
        assert min(piece.start_s for piece in pieces) >= 0
        assert max(piece.start_s + piece.length_s for piece in pieces) <= 0.050 + 1e-4


def test_the_window_is_where_most_runs_and_shows_its_gaps(export, traced):
    export.work(0, 10).work(1000, 1040, GEMM).work(1060, 1100, NORM)
    told = strip(traced(export), window_s=100 * US)
    assert told.start_s == pytest.approx(1000 * US, abs=1 * US)
    (row,) = told.rows
    assert row.busy_frac == pytest.approx(0.8, abs=0.01)
    (gap,) = [gap for gap in row.gaps if gap.length_s > 2 * US]
    assert gap.length_s == pytest.approx(20 * US)
    assert set(row.by_class) == {"GEMM", "norm, activation, elementwise"}


def test_a_trace_shorter_than_the_window_is_shown_whole(export, traced):
    told = strip(traced(export.work(5, 10).work(12, 15)))
    assert (told.start_s, told.length_s) == (pytest.approx(5 * US), pytest.approx(10 * US))


def test_a_classes_share_is_of_what_ran_not_of_what_is_drawn(export, traced):
    for start in range(0, 100, 10):
        export.work(start, start + 1, GEMM)
    (row,) = strip(traced(export.work(99, 100, NORM)), window_s=100 * US).rows
    assert row.class_frac["GEMM"] == pytest.approx(0.10, abs=0.005)


def test_a_trace_of_an_instant_has_a_strip(export, traced):
    (row,) = strip(traced(export.work(5, 5))).rows
    assert row.busy_frac == 0.0
