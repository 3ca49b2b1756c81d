from harness.tune.trial import chosen, setting_text


def test_a_setting_is_told_by_what_it_does_not_leave_to_vllm() -> None:
    setting = (("enforce_eager", True), ("max_num_seqs", None), ("gpu_memory_utilization", 0.95))
    assert setting_text(chosen(setting)) == "enforce_eager=true gpu_memory_utilization=0.95"


def test_what_leaves_everything_to_vllm_are_the_defaults() -> None:
    assert setting_text(chosen((("max_num_seqs", None),))) == "defaults"
    assert setting_text(None) == "defaults"
