import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UserError
from harness.tune.allowance import Allowance, launches_for
from harness.tune.config import Budget, Proof, Tune


def tune(
    launches: int, minutes: float | None = None, *, proof: int = 3, ablation: bool = True
) -> Tune:
    return Tune(
        maximise=["output_tok_per_s"],
        space={"max_num_seqs": [64]},  # type: ignore[dict-item]
        budget=Budget(launches=launches, minutes=minutes),
        proof=Proof(launches=proof, ablation=ablation),
    )


def allowed(
    launches: int, minutes: float | None = None, launch_s: float = 10.0, **more: int
) -> Allowance:
    names = more.pop("names", 5)
    return Allowance.of(tune(launches, minutes, **more), names=names, launch_s=launch_s)


@given(st.integers(8, 200), st.integers(2, 4), st.integers(1, 12))
def test_search_and_proof_never_take_more_than_the_budget(
    launches: int, proof: int, names: int
) -> None:
    if launches < 2 + 2 * proof:
        return
    made = allowed(launches, names=names, proof=proof)
    assert made.search_launches >= 2, "the defaults, and anything else"
    for trials in range(2, made.search_launches + 1):
        settings = made.ablations(trials, 0.0, ())
        assert trials + proof * (2 + settings) <= launches


def test_the_ablation_leaves_the_search_half_of_the_budget() -> None:
    assert allowed(16).reserved == 6
    assert allowed(24).reserved == 12
    assert allowed(24).search_launches == 12
    assert allowed(200).ablated == 5, "no more than there are names"


def test_a_budget_for_an_ablation_has_room_for_it() -> None:
    made = allowed(launches_for(3, 4))
    assert made.ablations(made.search_launches, 0.0, ()) >= 4


def test_what_the_search_does_not_use_the_ablation_may() -> None:
    assert allowed(16).ablations(10, 0.0, ()) == 0
    assert allowed(16).ablations(4, 0.0, ()) == 2


def test_the_search_ends_when_its_launches_are_spent() -> None:
    assert allowed(16).stop(9, 0.0, (), ()) is None
    assert "10 of 16 launches are spent" in str(allowed(16).stop(10, 0.0, (), ()))


def test_minutes_are_kept_for_the_proof_by_the_longest_launch_so_far() -> None:
    made = allowed(100, minutes=10)
    assert made.stop(3, 0.0, [60.0], [60.0]) is None
    assert made.stop(3, 200.0, [60.0], [60.0]) is not None, (
        "one more and six of the proof take 420 s"
    )
    assert made.ablations(3, 0.0, [60.0]) == 1


def test_the_first_launch_which_compiles_is_no_measure_for_the_others() -> None:
    made = allowed(100, minutes=10)
    assert made.stop(3, 200.0, [300.0, 40.0, 50.0], [300.0, 40.0, 50.0]) is None
    assert made.stop(3, 200.0, [300.0], [300.0]) is not None


def test_a_launch_of_the_proof_is_given_what_a_trial_took_without_what_it_is_spared() -> None:
    made = allowed(100, minutes=10)
    assert made.stop(3, 200.0, [80.0, 60.0], [70.0, 50.0]) is None, "one more and six take 360 s"
    assert made.stop(3, 250.0, [80.0, 60.0], [70.0, 50.0]) is not None
    assert made.stop(3, 200.0, [80.0, 60.0], [80.0, 60.0]) is not None, "420 s"
    assert made.ablations(3, 0.0, [60.0]) == 1, "what was never launched must be compiled"


def test_minutes_that_cannot_do_are_refused_before_anything_starts() -> None:
    with pytest.raises(UserError, match=r"tune.budget.minutes=1 is too small.*1\.3 at least"):
        allowed(16, minutes=1)
