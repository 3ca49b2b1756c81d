import json
import math
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.engines.failure import FailureKind
from harness.errors import UserError
from harness.tune import search as module
from harness.tune.answer import Outcome as Conclusion
from harness.tune.conclusion import _outcome
from harness.tune.search import Search
from harness.tune.strategy import Strategy
from harness.tune.trial import Outcome, chosen, setting_text
from tests.harness.tune.spaces import objective, space_of

WIDE = {
    "max_num_seqs": [16, 32, 64, 128, 256],
    "stream_interval": [2, 4, 8],
    "enforce_eager": [True],
}


def unforeseen(rows):
    """No forecast, whatever the defaults measured."""


def rate_of(setting):
    """Best at 64 sequences and an interval of 8."""
    values = dict(setting)
    seqs, interval = values["max_num_seqs"] or 512, values["stream_interval"] or 1
    rate = 1000 * math.exp(-(math.log(seqs / 64) ** 2) / 4) * interval**0.2
    return rate * (0.8 if values["enforce_eager"] else 1.0)


def measured(setting, noise=1.0):
    return Outcome.measured([{"output_tok_per_s": rate_of(setting) * noise, "tpot_p99_s": 0.01}])


def run(search, num, answer=measured):
    for _ in range(num):
        if (trial := search.ask()) is None:
            break
        search.tell(trial, answer(trial.setting))
    return [trial.setting for trial in search.trials]


@pytest.fixture
def space():
    return space_of(WIDE)


def test_the_first_trial_is_that_of_the_defaults(space, tmp_path):
    assert Search(space, objective(), unforeseen, tmp_path / "j").ask().setting == space.default


def test_a_search_finds_the_best_of_48_settings_in_a_dozen_launches(space, tmp_path):
    search = Search(space, objective(), unforeseen, tmp_path / "j")
    run(search, 12)
    assert setting_text(chosen(search.best.setting)) == "max_num_seqs=64 stream_interval=8"
    assert search.best.score == pytest.approx(rate_of(search.best.setting) / rate_of(space.default))


def test_a_prior_that_is_right_is_tried_at_once_and_one_that_is_wrong_is_outweighed(
    space, tmp_path
):
    right = {s: [{"output_tok_per_s": rate_of(s)}] for s in space.settings()}
    search = Search(space, objective(), lambda _: right, tmp_path / "right")
    run(search, 2)
    assert setting_text(chosen(search.best.setting)) == "max_num_seqs=64 stream_interval=8"
    wrong = {s: [{"output_tok_per_s": 1 / rate_of(s)}] for s in space.settings()}
    search = Search(space, objective(), lambda _: wrong, tmp_path / "wrong")
    run(search, 24)
    assert rate_of(search.best.setting) > 0.9 * max(map(rate_of, space.settings()))


def test_a_forecast_is_made_anew_for_what_the_defaults_measured(space, tmp_path):
    """And a search that goes on has the same one, because the journal has the same rows."""
    asked, best = [], space.settings()[7]

    def forecast_for(rows):
        asked.append([row["output_tok_per_s"] for row in rows])
        of_best = 900.0 if rows else 1.0
        return {
            setting: [{"output_tok_per_s": of_best if setting == best else 100.0}]
            for setting in space.settings()
        }

    search = Search(space, objective(), forecast_for, tmp_path / "j")
    run(search, 1)
    assert asked == [[], [rate_of(space.default)]]
    assert search.measured == ({"output_tok_per_s": rate_of(space.default), "tpot_p99_s": 0.01},)
    again = Search(space, objective(), forecast_for, tmp_path / "j")
    assert asked[2:] == asked[1:2]
    assert again.forecast == search.forecast
    assert again.ask().setting == best


def test_what_the_prior_says_does_not_fit_is_not_tried(space, tmp_path):
    prior = {
        s: [{"output_tok_per_s": 1.0}] if dict(s)["max_num_seqs"] != 64 else None
        for s in space.settings()
    }
    tried = run(Search(space, objective(), lambda _: prior, tmp_path / "j"), 48)
    assert tried
    assert all(dict(setting)["max_num_seqs"] != 64 for setting in tried)


kinds = st.sampled_from([FailureKind.OUT_OF_MEMORY, FailureKind.BAD_ARGUMENT])


@settings(max_examples=15)
@given(st.integers(0, 2**32), st.dictionaries(st.integers(1, 20), kinds, max_size=4))
def test_no_setting_is_tried_twice_nor_one_that_is_not_allowed(seed, failures):
    space = space_of(WIDE, forbidden=[{"max_num_seqs": "> 128", "enforce_eager": True}])
    goal, draws = objective(constraints="tpot_p99_s < 1 x defaults"), random.Random(seed)
    strategy, trials = Strategy(space, goal, None, seed), []
    defaults = measured(space.default)
    while len(trials) < 20:
        setting = space.default if not trials else strategy.propose(trials).setting
        if setting is None:
            break
        outcome = defaults if not trials else measured(setting, draws.lognormvariate(0, 0.03))
        if (kind := failures.get(len(trials))) is not None:
            outcome = Outcome.failed(kind)
        trials.append(goal.judge(len(trials), setting, outcome, defaults))
    tried = [trial.setting for trial in trials]
    assert len(set(tried)) == len(tried)
    assert set(tried) <= set(space.settings())


def test_the_same_seed_tries_the_same(space, tmp_path):
    one = run(Search(space, objective(), unforeseen, tmp_path / "a", seed=3), 9)
    two = run(Search(space, objective(), unforeseen, tmp_path / "b", seed=3), 9)
    assert one == two


def test_a_search_that_was_cut_off_goes_on_as_if_it_had_not_been(space, tmp_path):
    whole = run(Search(space, objective(), unforeseen, tmp_path / "whole"), 9)
    path = tmp_path / "parts"
    for _ in range(9):
        lost = Search(space, objective(), unforeseen, path).ask()  # and never told
        search = Search(space, objective(), unforeseen, path)
        assert search.ask() == lost
        search.tell(lost, measured(lost.setting))
    assert [trial.setting for trial in search.trials] == whole


def test_a_search_goes_on_from_wherever_its_journal_was_torn(space, tmp_path):
    path = tmp_path / "journal"
    whole = run(Search(space, objective(), unforeseen, path), 3)
    written = path.read_bytes()
    for end in random.Random(0).sample(range(1, len(written)), 25):
        torn = tmp_path / f"torn-{end}"
        torn.write_bytes(written[:end])
        torn.with_name(f"{torn.name}.lock").symlink_to(torn)
        assert run(Search(space, objective(), unforeseen, torn), 3)[:3] == whole


KILLED = """
import os, sys
from pathlib import Path
from tests.harness.tune.test_search import WIDE, Search, measured, objective, space_of, unforeseen
search = Search(space_of(WIDE), objective(), unforeseen, Path(sys.argv[1]))
for _ in range(4):
    trial = search.ask()
    if trial.number == 3:
        os.kill(os.getpid(), 9)
    search.tell(trial, measured(trial.setting))
"""


def test_a_search_outlives_sigkill(space, tmp_path):
    whole = run(Search(space, objective(), unforeseen, tmp_path / "whole"), 6)
    root = Path(__file__).resolve().parents[3]
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed")]
    assert subprocess.run(command, cwd=root, check=False).returncode == -9
    search = Search(space, objective(), unforeseen, tmp_path / "killed")
    assert [trial.state for trial in search.trials] == ["ok", "ok", "ok", "running"]
    run(search, 3)
    assert [trial.setting for trial in search.trials] == whole


def test_told_what_is_told_is_kept_as_json(space, tmp_path):
    import numpy as np

    search = Search(space, objective(), unforeseen, tmp_path / "j")
    row = {"output_tok_per_s": np.float64(5), "num_gpus": np.int64(2), "ttft_p50_s": math.nan}
    search.tell(search.ask(), Outcome.measured([row]))
    kept = Search(space, objective(), unforeseen, tmp_path / "j").trials[0]
    assert kept.outcome.rows == ({"output_tok_per_s": 5.0, "num_gpus": 2, "ttft_p50_s": None},)
    assert all(json.loads(line) for line in (tmp_path / "j").read_text().splitlines())


def test_a_failure_of_the_machine_is_tried_once_more(tmp_path):
    space = space_of({"max_num_seqs": [64]})
    search = Search(space, objective(), unforeseen, tmp_path / "j")
    search.tell(search.ask(), measured({**dict.fromkeys(WIDE)}))
    for _ in range(2):
        search.tell(search.ask(), Outcome.failed(FailureKind.PORT_TAKEN))
    assert search.ask() is None
    assert "every setting" in search.reason


def test_defaults_that_do_not_start_end_the_search_with_a_reason(space, tmp_path):
    search = Search(space, objective(), unforeseen, tmp_path / "j")
    search.tell(search.ask(), Outcome.failed(FailureKind.OUT_OF_MEMORY))
    assert search.ask() is None
    assert "the defaults do not start here (out_of_memory)" in search.reason


def test_defaults_that_the_machine_failed_are_tried_once_more(space, tmp_path):
    search = Search(space, objective(), unforeseen, tmp_path / "j")
    search.tell(search.ask(), Outcome.failed(FailureKind.PORT_TAKEN))
    again = search.ask()
    assert again.setting == space.default
    search.tell(again, measured(again.setting))
    assert search.defaults.number == 1
    assert search.ask().setting != space.default


@pytest.mark.parametrize(
    ("limit_s", "why"),
    [
        (1, "nothing but the defaults was tried: spent"),
        (0.001, "of 2 trials none keeps all constraints"),
    ],
)
def test_an_answer_is_by_the_defaults_that_were_measured(space, tmp_path, limit_s, why):
    search = Search(
        space, objective(constraints=f"tpot_p99_s < {limit_s}"), unforeseen, tmp_path / "j"
    )
    search.tell(search.ask(), Outcome.failed(FailureKind.PORT_TAKEN))
    search.tell(search.ask(), measured(space.default))
    assert _outcome(search, None, {"searched": {"why": "spent"}}) == (Conclusion.NOTHING, why)


def test_defaults_without_the_goal_end_the_search_with_a_reason(space, tmp_path):
    search = Search(space, objective(minimise="j_per_output_token"), unforeseen, tmp_path / "j")
    search.tell(search.ask(), measured(space.default))
    assert search.ask() is None
    assert "gave no j_per_output_token" in search.reason


def test_a_failure_makes_settings_like_it_less_likely():
    space = space_of({"gpu_memory_utilization": [0.95], "max_num_seqs": [64, 128, 256, 512]})
    strategy, trials = Strategy(space, objective(), None, 0), []
    fails = next(
        s for s in space.settings() if setting_text(chosen(s)).endswith("0.95 max_num_seqs=256")
    )
    defaults = Outcome.measured([{"output_tok_per_s": 1.0}])
    for setting, outcome in ((space.default, defaults), (fails, Outcome.failed("out_of_memory"))):
        trials.append(objective().judge(len(trials), setting, outcome, defaults))
    texts = [setting_text(chosen(setting)) for setting in space.settings()]
    starts = dict(zip(texts, strategy._starts(trials), strict=True))
    near, far = starts["gpu_memory_utilization=0.95 max_num_seqs=512"], starts["max_num_seqs=64"]
    assert near < far
    assert min(starts.values()) > 0


def test_a_constraint_keeps_the_best_within_it(space, tmp_path):
    def answer(setting):
        seqs = dict(setting)["max_num_seqs"] or 512
        return Outcome.measured([{"output_tok_per_s": float(seqs), "tpot_p99_s": seqs / 1000}])

    goal = objective(constraints="tpot_p99_s < 0.1")
    search = Search(space, goal, unforeseen, tmp_path / "j")
    run(search, 14, answer)
    assert dict(search.best.setting)["max_num_seqs"] == 64
    assert search.trials[0].violations == ("tpot_p99_s < 0.1: tpot_p99_s is 0.512",)


def test_there_is_no_best_where_nothing_keeps_the_constraints(space, tmp_path):
    search = Search(space, objective(constraints="tpot_p99_s < 0.001"), unforeseen, tmp_path / "j")
    run(search, 4)
    assert search.best is None
    assert search.pareto == []


def test_a_front_holds_what_nothing_else_beats_in_both(space, tmp_path):
    def answer(setting):
        seqs = dict(setting)["max_num_seqs"] or 512
        row = {"output_tok_per_s": 100.0 * seqs, "num_gpus": 1, "tpot_p50_s": seqs / 1e4}
        return Outcome.measured([row])

    goal = objective(maximise=["output_tok_per_s_per_gpu", "output_tok_per_s_per_user"])
    search = Search(space, goal, unforeseen, tmp_path / "j")
    run(search, 12, answer)
    assert len({dict(trial.setting)["max_num_seqs"] for trial in search.pareto}) >= 3
    assert all(trial in search.trials for trial in search.pareto)


def judged(space, rates):
    """Trials that gave these rates, by what they changed."""
    goal, named = (
        objective(),
        {setting_text(chosen(setting)): setting for setting in space.settings()},
    )
    outcomes = {text: Outcome.measured([{"output_tok_per_s": r}]) for text, r in rates.items()}
    return [
        goal.judge(number, named[text], outcome, outcomes["defaults"])
        for number, (text, outcome) in enumerate(outcomes.items())
    ]


def test_among_equals_the_best_is_the_one_that_changes_least(space):
    rates = {
        "defaults": 100.0,
        "max_num_seqs=64 stream_interval=8": 200.4,
        "max_num_seqs=64": 200.0,
        "max_num_seqs=64 stream_interval=2": 200.8,
        "max_num_seqs=16": 50.0,
    }
    best = Strategy(space, objective(), None, 0).best(judged(space, rates))
    assert setting_text(chosen(best.setting)) == "max_num_seqs=64"


def test_a_setting_that_gives_more_than_noise_is_kept(space):
    rates = {"defaults": 100.0, "max_num_seqs=64": 200.0, "max_num_seqs=16": 50.0}
    rates["max_num_seqs=64 stream_interval=8"] = 300.0
    best = Strategy(space, objective(), None, 0).best(judged(space, rates))
    assert setting_text(chosen(best.setting)) == "max_num_seqs=64 stream_interval=8"


def test_importances_say_what_mattered(space, tmp_path):
    search = Search(space, objective(), unforeseen, tmp_path / "j")
    assert search.importances() == {}
    run(search, 20)
    shares = search.importances()
    assert max(shares, key=shares.get) == "max_num_seqs"
    assert all(0 <= share <= 1 for share in shares.values())


def test_a_journal_of_another_space_or_objective_is_refused(space, tmp_path):
    run(Search(space, objective(), unforeseen, tmp_path / "j"), 1)
    with pytest.raises(UserError, match="another space"):
        Search(space_of({"max_num_seqs": [1]}), objective(), unforeseen, tmp_path / "j")
    with pytest.raises(UserError, match="another objective"):
        Search(space, objective(minimise="ttft_p99_s"), unforeseen, tmp_path / "j")


@pytest.mark.parametrize("rubbish", [b"rubbish{\n", bytes(range(128, 160)) + b"\n"])
def test_a_damaged_journal_is_refused_by_its_line_and_left_as_it_is(space, tmp_path, rubbish):
    path = tmp_path / "j"
    run(Search(space, objective(), unforeseen, path), 2)
    lines = path.read_bytes().splitlines(keepends=True)
    damaged = b"".join([*lines[:3], rubbish, *lines[4:]])
    path.write_bytes(damaged)
    with pytest.raises(UserError, match=r"j is damaged in line 4: .* fresh=true"):
        Search(space, objective(), unforeseen, path)
    assert path.read_bytes() == damaged


def test_without_optuna_it_is_said_how_to_get_it(space, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError) as caught:
        Search(space, objective(), unforeseen, tmp_path / "j")
    assert str(caught.value).endswith(f"{module.INSTALL}.")
