from harness.hardware.families import FAMILIES, Cards, left_out, stages

OPTIONS = {"seconds": 60.0}
TWO = Cards(indices=(2, 3), uuids=("GPU-c", "GPU-d"))


def test_all_cards_measure_at_once_and_never_two_families():
    planned = stages(list(FAMILIES), TWO, OPTIONS, "python")
    for stage in planned:
        assert len({probe.family for probe in stage}) == 1
        seen = [uuid for probe in stage for uuid in probe.uuids]
        assert sorted(seen) == ["GPU-c", "GPU-d"]
    assert [stage[0].family for stage in planned][-1] == "steady", "its heat is in what follows"


def test_what_needs_all_cards_is_one_process():
    (stage,) = stages(["nccl"], TWO, OPTIONS, None)
    assert [probe.gpus for probe in stage] == [(2, 3)]


def test_one_process_only_takes_the_cpu():
    (stage,) = stages(["kernels"], TWO, OPTIONS, None)
    assert [probe.options["compare_cpu"] for probe in stage] == [True, False]


def test_the_steady_state_may_take_as_long_as_it_is_told():
    (short,), (long,) = (stages(["steady"], TWO, {"seconds": s}, None) for s in (1.0, 600.0))
    assert long[0].limit_s - short[0].limit_s == 599.0


def test_what_this_machine_cannot_run_is_left_out_with_its_reason():
    assert set(left_out(list(FAMILIES), 2)) == set()
    assert set(left_out(list(FAMILIES), 1)) == {"p2p", "nccl", "scaling"}
    assert {f for f in FAMILIES if f not in left_out(list(FAMILIES), 0)} == {"host", "client"}
    assert left_out(["gemm"], 2)["nccl"] == "not asked for"
