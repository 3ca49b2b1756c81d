import pytest

from profiles.diff import diff, page
from profiles.findings import analyse
from tests.profiles.conftest import GEMM, NORM, Export

US = 1e-6
LATER = "nvjet_sm90_other"


def steps(num, *works, requests=4, period=100):
    """So many decode steps, each with these kernels, one after the other: (name, µs)."""
    export = Export()
    for step in range(num):
        at = step * period
        export.step(at, at + 5, (0, 0), (requests, requests))
        for index, (name, length) in enumerate(works):
            export.call(at + index, at + index + 1, id=1 + step * 10 + index)
            export.work(at + 10, at + 10 + length, name, call=1 + step * 10 + index)
            at += length
    return export


@pytest.fixture
def changed(found):
    def build(before, after):
        return diff(found(before, "before.sqlite"), found(after, "after.sqlite"))

    return build


def test_steps_are_compared_one_by_one_however_many_were_captured(changed):
    told = changed(steps(10, (GEMM, 20), (NORM, 5)), steps(30, (GEMM, 30), (NORM, 5)))
    (decode,) = told.steps
    assert (decode.before.num_steps, decode.after.num_steps) == (10, 30)
    gemm, norm = decode.classes
    assert (gemm.name, gemm.status) == ("GEMM", "grew")
    assert gemm.delta_s == pytest.approx(10 * US)
    assert gemm.change_frac == pytest.approx(1)
    assert norm.status == "same"
    assert told.notes == ()


def test_kernels_that_came_and_went_stand_in_the_order_of_the_change(changed):
    (decode,) = changed(steps(9, (GEMM, 20), (NORM, 5)), steps(9, (LATER, 30), (NORM, 4))).steps
    told = [(each.name, each.status) for each in decode.kernels]
    assert told == [(LATER, "new"), (GEMM, "gone"), (NORM, "shrank")]
    assert sum(each.change_frac for each in decode.kernels) == pytest.approx(1)
    gemm = decode.classes[0]
    assert (gemm.name, gemm.status) == ("GEMM", "grew")


def test_steps_of_other_sizes_are_noted(changed):
    told = changed(steps(9, (GEMM, 20)), steps(9, (GEMM, 30), requests=8))
    assert told.notes == ("the decode steps are not of one size: 4 and 8 requests (medians)",)


def test_few_steps_are_noted(changed):
    told = changed(steps(3, (GEMM, 20)), steps(9, (GEMM, 20)))
    assert told.notes == ("few decode steps: their means may be chance",)


def test_traces_without_steps_are_compared_by_the_second(changed):
    told = changed(Export().work(0, 50).work(50, 100, NORM), Export().work(0, 80).work(90, 100))
    (whole,) = told.steps
    assert whole.kind == "second of the trace"
    by_name = {each.name: each for each in whole.classes}
    assert by_name["GEMM"].before_s == pytest.approx(0.5)
    assert by_name["GEMM"].after_s == pytest.approx(0.9)
    assert "no engine steps" in told.notes[0]
    assert "Busy 100.0 % before and 90.0 % after" in page(told)


def test_a_trace_against_itself_changed_in_nothing(nsys_findings):
    told = diff(nsys_findings, nsys_findings)
    assert [each.kind for each in told.steps] == ["decode", "mixed", "prefill"]
    for step in told.steps:
        assert {each.status for each in step.classes + step.kernels} == {"same"}
        assert {each.change_frac for each in step.classes} == {0}
        assert step.before == step.after


def test_the_page_names_what_changed_most(changed):
    text = page(changed(steps(9, (GEMM, 20), (NORM, 5)), steps(9, (GEMM, 40), (NORM, 5))))
    assert "- A decode step takes" in text
    assert "Most of the change: GEMM +20.0 µs (100.0 %)." in text
    assert "| GEMM | grew | 20.0 µs | 40.0 µs | +20.0 µs | 100.0 % | 1 → 1 |" in text


def test_a_gpu_and_a_cpu_can_hardly_be_compared(nsys_findings, cpu_trace):
    notes = diff(analyse(cpu_trace), nsys_findings).notes
    assert any("operators on a CPU" in note for note in notes)
