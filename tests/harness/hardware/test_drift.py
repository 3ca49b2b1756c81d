import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.hardware.drift import Grade, differences, worst
from tests.harness.hardware.builders import card_of, document, environment, measurement


def changed(**paths):
    """The document with some entries of its environment replaced: a__0__b=value."""
    told = document([])
    for path, value in paths.items():
        *parents, last = path.split("__")
        node = told["environment"]
        for name in parents:
            node = node[int(name) if name.isdecimal() else name]
        node[last] = value
    return told


def test_two_alike_do_not_differ():
    assert differences(document(card_of(0)), document(card_of(0))) == []
    assert worst([]) is None


@pytest.mark.parametrize(
    ("change", "name", "grade"),
    [
        ({"gpus__0__name": "NVIDIA H100"}, "gpus.0.name", Grade.NOT_COMPARABLE),
        ({"gpus__1__uuid": "GPU-cc"}, "gpus.1.uuid", Grade.COULD_MATTER),
        ({"gpus__0__power_limit_w": 600.0}, "gpus.0.power_limit_w", Grade.COULD_MATTER),
        ({"boards__0__nvlink_links": 9}, "boards.0.nvlink_links", Grade.COULD_MATTER),
        ({"boards__0__temperature_c": 40}, "boards.0.temperature_c", Grade.HARMLESS),
        ({"driver_version": "590"}, "driver_version", Grade.COULD_MATTER),
        ({"packages__torch": "2.12"}, "packages.torch", Grade.COULD_MATTER),
        ({"packages__vllm": "0.25"}, "packages.vllm", Grade.COULD_MATTER),
        ({"variables__NCCL_DEBUG": "INFO"}, "variables.NCCL_DEBUG", Grade.COULD_MATTER),
        ({"git_commit": "b" * 40}, "git_commit", Grade.HARMLESS),
        ({"host__memory_bytes": 2**37}, "host.memory_bytes", Grade.HARMLESS),
    ],
)
def test_each_difference_has_its_grade(change, name, grade):
    (found,) = differences(document([]), changed(**change))
    assert (found.name, found.grade) == (name, grade)


def test_fewer_cards_are_not_comparable_and_said_once():
    fewer = document([])
    del fewer["environment"]["gpus"][1], fewer["environment"]["boards"][1]
    found = differences(document([]), fewer)
    assert [one.name for one in found] == ["gpus.count", "boards.count"]
    assert worst(found) is Grade.NOT_COMPARABLE


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"gpus__0__power_limit_w": 600.0}, ("700 W", "600 W")),
        ({"gpus__0__memory_total_bytes": 2**36}, ("140.4 GiB", "64.0 GiB")),
        ({"gpus__0__memory_total_bytes": 150_754_820_097}, ("150754820096", "150754820097")),
        ({"boards__0__nvlink_links": 9}, ("18", "9")),
        ({"boards__0__temperature_c": 40}, ("30 °C", "40 °C")),
        ({"gpus__0__power_limit_w": None}, ("700 W", "–")),
    ],
)
def test_differences_are_told_in_units_for_people_unless_they_would_hide_them(change, told):
    (found,) = differences(document([]), changed(**change))
    assert (found.before, found.now) == told


def test_a_measured_difference_is_told_as_on_the_card():
    before = document([measurement("memory.copy", unit="B/s", value=4.3e12)])
    (found,) = differences(before, document([measurement("memory.copy", unit="B/s", value=2e12)]))
    assert (found.before, found.now) == ("4,300 GB/s", "2,000 GB/s (-53.5%)")


def test_idling_is_no_difference_but_a_brake_is():
    assert not differences(document([]), changed(boards__0__throttle_reasons=[]))
    (found,) = differences(document([]), changed(boards__0__throttle_reasons=["hw_slowdown"]))
    assert (found.before, found.now) == ("none", "hw_slowdown")


def test_an_older_study_without_the_new_parts_differs_in_what_both_know_only():
    older = document([])
    for part in ("boards", "host"):
        del older["environment"][part]
    del older["measurements"]
    assert differences(older, document(card_of(0))) == []


def test_a_measured_value_that_moved_by_more_than_its_spread_could_matter():
    before = document([measurement(value=100.0, spread_frac=0.01)])
    (found,) = differences(before, document([measurement(value=90.0, spread_frac=0.01)]))
    assert found.grade is Grade.COULD_MATTER
    assert "-10.0%" in found.now
    assert not differences(before, document([measurement(value=99.0, spread_frac=0.01)]))
    assert not differences(before, document([measurement(value=90.0, spread_frac=0.2)]))
    assert not differences(before, document([measurement(value=None, reason="died")]))


def test_the_worst_comes_first():
    now = changed(git_commit="b", driver_version="590", gpus__0__name="NVIDIA H100")
    grades = [one.grade for one in differences(document([]), now)]
    assert grades == sorted(grades, reverse=True)
    assert str(grades[0]) == "not comparable"


@given(st.sampled_from(["driver_version", "git_commit"]), st.text(min_size=1), st.text(min_size=1))
def test_a_difference_is_seen_from_both_sides(name, one, other):
    first, second = (document([], environment=environment(**{name: v})) for v in (one, other))
    ways = differences(first, second), differences(copy.deepcopy(second), first)
    assert [d.name for d in ways[0]] == [d.name for d in ways[1]]
    assert bool(ways[0]) == (one != other)
