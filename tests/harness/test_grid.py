from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UserError
from harness.grid import copied, expand, joined_axes, merge, put

GROUPS: dict[str, Any] = {
    "engine": {"max_num_seqs": None, "extra": {}},
    "load": {"arrival": "closed", "concurrency": 8, "prompts": {"kind": "unique"}},
}
TREES = st.recursive(
    st.none() | st.integers(),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
).filter(lambda tree: isinstance(tree, dict))


def grids(cases: Any = None, chosen: Any = None, pinned: Any = None, **changes: Any) -> Any:
    groups = copied(GROUPS)
    merge(groups, changes)
    return expand(groups, cases or {}, chosen, pinned or {})


def refused(*arguments: Any, **named: Any) -> str:
    with pytest.raises(UserError) as caught:
        grids(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@given(
    engine=st.lists(st.integers(), min_size=1, max_size=4),
    first=st.lists(st.integers(), min_size=1, max_size=4),
    second=st.lists(st.integers(), min_size=1, max_size=4),
)
def test_a_grid_is_the_product_of_its_axes_the_last_varying_fastest(engine, first, second) -> None:
    load = {"input_tokens": first, "output_tokens": second}
    (grid,) = grids(engine={"max_num_seqs": engine}, load=load)
    assert [point["max_num_seqs"] for point in grid.engines] == engine
    pairs = [(point["input_tokens"], point["output_tokens"]) for point in grid.loads]
    assert pairs == [(one, two) for one in first for two in second]


@given(base=TREES, over=TREES)
def test_what_is_laid_over_wins_and_leaves_what_it_came_from_alone(base, over) -> None:
    tree, before = copied(base), copied(over)
    merge(tree, over)
    assert over == before
    merge(tree, over)
    again = copied(tree)
    merge(again, over)
    assert again == tree
    assert set(tree) == set(base) | set(over)
    put(tree, ["a", "b", "c"], 1)
    assert over == before, "a change of the merged tree is none of its parts"


def test_a_sweep_without_cases_is_one_grid_without_a_name() -> None:
    (grid,) = grids(load={"concurrency": [1, 2]})
    assert grid.case == ""
    assert joined_axes([grid]) == {"load.concurrency": [1, 2]}


def test_each_case_is_the_whole_tree_with_some_settings_changed() -> None:
    one, two = grids({"one": {}, "two": {"engine": {"max_num_seqs": [4, 8]}}})
    assert (one.case, len(one.engines)) == ("one", 1)
    assert [point["max_num_seqs"] for point in two.engines] == [4, 8]
    assert one.loads == two.loads
    assert joined_axes([one, two]) == {
        "case": ["one", "two"],
        "engine.max_num_seqs": [4, 8],
    }


def test_an_axis_of_several_cases_has_every_value_once_and_engine_axes_come_first() -> None:
    cases = {
        "a": {"load": {"concurrency": [1, 2]}},
        "b": {"load": {"concurrency": [2, 4]}, "engine": {"max_num_seqs": [3, 4]}},
    }
    axes = joined_axes(grids(cases))
    assert list(axes) == ["case", "engine.max_num_seqs", "load.concurrency"]
    assert axes["load.concurrency"] == [1, 2, 4]


def test_cases_do_not_see_each_others_changes() -> None:
    cases = {
        "a": {"load": {"prompts": {"kind": "shared_prefix", "groups": 8}}},
        "b": {"load": {"prompts": {"kind": "unique"}}},
    }
    one, two = grids(cases)
    assert one.loads[0]["prompts"] == {"kind": "shared_prefix", "groups": 8}
    assert two.loads[0]["prompts"] == {"kind": "unique"}


def test_a_flags_own_json_is_no_axis() -> None:
    extra = {"hf_overrides": {"sizes": [1, 2]}, "flag": [1, 2]}
    (grid,) = grids(engine={"extra": extra})
    assert grid.axes == {"engine.extra.flag": [1, 2]}
    assert grid.engines[1]["extra"] == {"hf_overrides": {"sizes": [1, 2]}, "flag": 2}


@pytest.mark.parametrize(
    ("chosen", "names"), [(None, ["a", "b"]), (["b"], ["b"]), ([], ["a", "b"])]
)
def test_the_cases_that_are_wanted_are_those_that_are_named(chosen, names) -> None:
    assert [grid.case for grid in grids({"a": {}, "b": {}}, chosen)] == names


def test_a_case_that_a_kind_of_machine_took_out_is_not_there() -> None:
    assert [grid.case for grid in grids({"a": {}, "b": None})] == ["a"]
    assert "no case 'b'" in refused({"a": {}, "b": None}, ["b"])
    assert "none of this sweep's cases is left" in refused({"a": None})


@pytest.mark.parametrize(
    ("cases", "chosen", "says"),
    [
        ({"closed": {}}, ["close"], "Did you mean 'closed'? There are: closed."),
        ({}, ["closed"], "there is no case 'closed'. There are none."),
        ({"a": {"checks": {}}}, None, "case 'a' holds 'checks': a case changes engine and load"),
        ({"a": {"load": {"concurrency": []}}}, None, "load.concurrency: an axis needs at least"),
        ({"a": [1]}, None, "case 'a' is not of the form"),
        ({"a": {"load": 3}}, None, "case 'a' is not of the form"),
        ({True: {}}, None, "the name True is no text: quote it"),
        ({8: {}, "a": {}}, ["b"], "the name 8 is no text: quote it"),
    ],
)
def test_a_case_that_cannot_be_is_refused_in_one_sentence(cases, chosen, says) -> None:
    assert says in refused(cases, chosen)


def test_the_command_line_has_the_last_word_on_a_setting_of_a_case() -> None:
    cases = {"a": {"load": {"concurrency": [1, 2], "prompts": {"kind": "x", "groups": 3}}}}
    pinned = {"load.concurrency": 5, "load.prompts.groups": 9}
    (grid,) = grids(cases, None, pinned, load={"concurrency": 5, "prompts": {"groups": 9}})
    assert grid.axes == {}
    assert grid.loads[0]["concurrency"] == 5
    assert grid.loads[0]["prompts"] == {"kind": "x", "groups": 9}


def test_null_on_the_command_line_is_a_word_too() -> None:
    cases = {"a": {"engine": {"max_num_seqs": [1, 2]}}}
    (grid,) = grids(cases, None, {"engine.max_num_seqs": None})
    assert grid.axes == {}
    assert grid.engines[0]["max_num_seqs"] is None


def test_a_case_does_without_what_it_sets_to_null_whatever_the_command_line_says() -> None:
    cases = {"closed": {}, "open": {"load": {"concurrency": None}}}
    closed, opened = grids(cases, None, {"load.concurrency": 5}, load={"concurrency": 5})
    assert closed.loads[0]["concurrency"] == 5
    assert opened.loads[0]["concurrency"] is None


def test_a_setting_of_the_command_line_that_no_case_takes_is_refused() -> None:
    cases = {"closed": {}, "open": {"load": {"concurrency": None, "prompts": None}}}
    says = refused(cases, ["open"], {"load.concurrency": 5})
    assert says == "load.concurrency has no effect: the case sets it to null (open)."
    assert "no effect" in refused(cases, ["open"], {"load.prompts.groups": 5})
    cases = {"a": {"engine": None}, "b": {"engine": None}}
    assert len(grids(cases, None, {"engine.max_num_seqs": 5})) == 2, "null of a group is no change"
