from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.config import Config, compose
from harness.errors import UserError
from harness.overrides import parse
from harness.plan import Plan, make_plan
from monitors.nvml import Gpu

SIM = ["engine=sim", "sweep=single", "model=tiny", "load.concurrency=2"]


def config(*words: str) -> Config:
    return compose(parse([*SIM, *words]))


def gpu(uuid: str) -> Gpu:
    return Gpu(
        index=0,
        uuid=uuid,
        name="NVIDIA H200",
        memory_total_bytes=1,
        power_limit_w=None,
        sm_clock_max_hz=None,
        memory_clock_max_hz=None,
        ecc=None,
    )


def plan(*words: str, gpus: tuple[str, ...] = ()) -> Plan:
    return make_plan(config(*words), [gpu(uuid) for uuid in gpus])


def test_engine_axes_are_outside_and_load_axes_inside() -> None:
    made = plan("engine.max_num_seqs=4,8", "load.concurrency=1,2,3")
    assert [len(launch.runs) for launch in made.launches] == [3, 3]
    assert [launch.label for launch in made.launches] == ["max_num_seqs=4", "max_num_seqs=8"]
    assert [run.label for run in made.launches[0].runs][:2] == ["concurrency=1", "concurrency=2"]


def test_labels_say_values_as_tables_do() -> None:
    words = ("load=poisson", "load.concurrency=null", "load.rate_rps=2.0,2.5")
    made = plan("engine.enable_prefix_caching=true,false", *words)
    assert [launch.label for launch in made.launches] == [
        "enable_prefix_caching=true",
        "enable_prefix_caching=false",
    ]
    assert [run.label for run in made.launches[0].runs] == ["rate_rps=2", "rate_rps=2.5"]


def test_every_round_of_launches_holds_every_engine_setting() -> None:
    made = plan("engine.max_num_seqs=4,8", "repeats.launches=2")
    assert [(x.engine.max_num_seqs, x.repeat) for x in made.launches] == [
        (4, 1),
        (8, 1),
        (4, 2),
        (8, 2),
    ]


def test_repeats_of_a_point_share_its_id_and_differ_in_their_own() -> None:
    made = plan("repeats.launches=2", "repeats.runs=3")
    assert len({run.point for run in made.runs}) == 1
    assert len({run.id for run in made.runs}) == len(made.runs) == 6


def test_prompts_differ_inside_a_launch_and_are_paired_between_engine_settings() -> None:
    made = plan("engine.max_num_seqs=4,8", "load.concurrency=1,2", "repeats.runs=2")
    first, second = ([run.seed for run in launch.runs] for launch in made.launches)
    assert len(set(first)) == len(first)
    assert first == second


@pytest.mark.parametrize(
    "word",
    ["engine.max_num_seqs=9", "engine.gpu=a100", "load.duration_s=7", "model=qwen2.5-7b"],
)
def test_what_changes_a_measurement_changes_the_id(word: str) -> None:
    assert plan().runs[0].point != plan(word).runs[0].point
    assert plan().id != plan(word).id


def test_another_content_of_a_trace_is_another_measurement(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    words = ["engine=sim", "sweep=single", "model=tiny", "load=trace", f"load.trace.path={trace}"]

    def planned(output_tokens: int) -> Plan:
        entry = '{"timestamp": %d, "input_length": 20, "output_length": %d}\n'
        lines = [entry % (at_ms, output_tokens) for at_ms in range(0, 100_000, 1000)]
        trace.write_text("".join(lines))
        return make_plan(compose(parse(words)), ())

    assert planned(5).id == planned(5).id != planned(6).id


def test_other_gpus_make_other_ids() -> None:
    assert plan(gpus=("GPU-a",)).id != plan(gpus=("GPU-b",)).id


@pytest.mark.parametrize("word", ["seed=5", "monitor=none", "order=shuffled"])
def test_what_changes_what_is_stored_makes_another_study(word: str) -> None:
    assert plan().id != plan(word).id


@pytest.mark.parametrize(
    "word", ["engine.max_num_seqs=4,4", "engine.start_timeout_s=9,8", "load.concurrency=1,1"]
)
def test_a_point_is_not_measured_twice_under_one_name(word: str) -> None:
    with pytest.raises(UserError, match="are the same"):
        plan(word)


def test_a_launch_that_cannot_be_is_marked_and_takes_no_time() -> None:
    good, bad = plan("engine.tensor_parallel_size=1,3").launches
    assert good.obstacle is None
    assert bad.obstacle is not None
    assert "tensor_parallel_size=3: the heads of tiny" in bad.obstacle
    assert (
        plan("engine.tensor_parallel_size=1,3").span_s()
        == plan("engine.tensor_parallel_size=1").span_s()
    )


def test_obstacles_are_told_of_a_plan_that_is_nothing_else() -> None:
    assert plan("engine.tensor_parallel_size=1,3").obstacles() == []
    three, five = plan("engine.tensor_parallel_size=3,5", "repeats.launches=2").obstacles()
    assert "size=3" in three
    assert "size=5" in five


def test_an_obstacle_is_no_part_of_an_id() -> None:
    made = plan("engine.tensor_parallel_size=3")
    assert made.id == make_plan(config("engine.tensor_parallel_size=3"), [], frozenset()).id


def test_replicas_share_the_gpus() -> None:
    (launch,) = plan("engine.replicas=2").launches
    assert launch.engine.tensor_parallel_size == 1
    assert (launch.ranks, launch.gpus) == (2, "2x h200 (simulated)")


def test_each_launch_tells_what_serves() -> None:
    made = plan("engine.gpu=h200,a100", "engine.tensor_parallel_size=1")
    assert [launch.gpus for launch in made.launches] == [
        "1x h200 (simulated)",
        "1x a100 (simulated)",
    ]


@pytest.mark.parametrize("word", ["engine.start_timeout_s=9", "out=/tmp/x", "plan=true"])
def test_what_changes_no_measurement_keeps_the_id(word: str) -> None:
    assert plan().id == plan(word).id


def test_the_tensor_parallel_size_is_decided_in_the_plan() -> None:
    assert plan().launches[0].engine.tensor_parallel_size == 2
    assert plan("engine.tensor_parallel_size=1").launches[0].engine.tensor_parallel_size == 1


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32))
def test_shuffling_changes_the_order_only(seed: int) -> None:
    words = ["engine.max_num_seqs=1,2,3,4,5", "load.concurrency=1,2,3", f"seed={seed}"]
    listed, shuffled = plan(*words), plan(*words, "order=shuffled")
    assert sorted(run.id for run in listed.runs) == sorted(run.id for run in shuffled.runs)
    assert [x.id for x in plan(*words, "order=shuffled").launches] == [
        x.id for x in shuffled.launches
    ]


def test_the_estimate_grows_with_the_grid() -> None:
    small, large = plan().span_s(), plan("engine.max_num_seqs=1,2,3").span_s()
    assert small[0] <= small[1]
    assert large[0] > 2.9 * small[0]


def cases(folder: Path, text: str, *words: str) -> Plan:
    """The plan of a sweep with these cases."""
    (folder / "sweep").mkdir(exist_ok=True)
    head = "# @package _global_\n# Mine.\nload: {concurrency: 2}\n"
    (folder / "sweep" / "mine.yaml").write_text(head + text)
    return make_plan(compose(parse(["engine=sim", "model=tiny", "sweep=mine", *words]), folder), ())


SHARED = """
cases:
  closed: {load: {concurrency: [1, 2]}}
  small: {engine: {max_num_seqs: 4}, load: {concurrency: [1, 2]}}
  open: {load: {arrival: poisson, concurrency: null, rate_frac: [0.5, 0.9]}}
"""


def test_cases_of_one_engine_setting_share_its_server(tmp_path: Path) -> None:
    made = cases(tmp_path, SHARED)
    assert [launch.label for launch in made.launches] == ["closed, open", "small"]
    first, second = made.launches
    assert [run.case for run in first.runs] == ["closed", "closed", "open", "open"]
    assert [run.label for run in first.runs] == [
        "closed  concurrency=1",
        "closed  concurrency=2",
        "open  rate_frac=0.5",
        "open  rate_frac=0.9",
    ]
    assert [run.label for run in second.runs] == ["concurrency=1", "concurrency=2"]


def test_a_point_that_two_cases_share_is_measured_once_and_belongs_to_the_first(
    tmp_path: Path,
) -> None:
    text = "cases:\n  a: {load: {concurrency: [1, 2]}}\n  b: {load: {concurrency: [2, 4]}}\n"
    made = cases(tmp_path, text)
    assert [(run.case, run.load.concurrency) for run in made.runs] == [("a", 1), ("a", 2), ("b", 4)]
    assert len({run.point for run in made.runs}) == 3
    assert made.axes == {"case": ["a", "b"], "load.concurrency": [1, 2, 4]}


def test_a_case_that_holds_nothing_of_its_own_starts_no_server(tmp_path: Path) -> None:
    made = cases(tmp_path, "cases: {a: {}, again: {}}")
    assert [run.case for run in made.runs] == ["a"]


def test_a_point_twice_in_one_case_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="are the same"):
        cases(tmp_path, "cases: {a: {load: {concurrency: [1, 1]}}}")


def test_loads_that_need_a_capacity_come_after_those_that_find_it(tmp_path: Path) -> None:
    for seed in range(5):
        made = cases(tmp_path, SHARED, "order=shuffled", f"seed={seed}", "repeats.runs=2")
        for launch in made.launches:
            shares = [run.load.rate_frac is not None for run in launch.runs]
            assert shares == sorted(shares)


def test_every_case_repeats_in_every_round_of_launches(tmp_path: Path) -> None:
    made = cases(tmp_path, SHARED, "repeats.launches=2", "order=shuffled")
    assert [launch.repeat for launch in made.launches] == [1, 1, 2, 2]
    assert len(made.runs) == 12
    assert len({run.id for run in made.runs}) == 12


def test_a_study_is_not_continued_under_other_case_names(tmp_path: Path) -> None:
    one, other = (cases(tmp_path, f"cases: {{{name}: {{}}}}") for name in ("a", "b"))
    assert one.runs[0].id == other.runs[0].id
    assert one.id != other.id


@pytest.mark.parametrize(
    "text",
    [
        "cases: {open: {load: {arrival: poisson, concurrency: null, rate_frac: 0.5}}}",
        SHARED.replace("open: {", "open: {engine: {max_num_seqs: 8}, "),
        SHARED.replace("rate_frac", "input_tokens: 64, rate_frac"),
        SHARED.replace("rate_frac", "endpoint: chat, rate_frac"),
    ],
)
def test_a_share_of_a_capacity_that_no_run_finds_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"load.rate_frac \(case 'open'\) is a share of the capac"):
        cases(tmp_path, text)


def test_a_capacity_is_found_by_the_setting_that_is_decided_in_the_plan(tmp_path: Path) -> None:
    text = SHARED.replace("open: {", "open: {engine: {tensor_parallel_size: 2}, ")
    assert len(cases(tmp_path, text).launches) == 2, "2 is what the closed case comes to"


def test_two_cases_cannot_have_one_server_run_in_two_ways(tmp_path: Path) -> None:
    text = "cases: {a: {}, b: {engine: {start_timeout_s: 9}, load: {concurrency: 4}}}"
    with pytest.raises(UserError, match="cases 'a' and 'b' share a server, and differ in how"):
        cases(tmp_path, text)
