import json
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from harness.errors import UserError
from harness.guard.outcome import Judgement, Verdict
from harness.guard.outcome import Outcome as Compared
from harness.report.blocks import Report
from harness.report.html import written as html
from harness.report.markdown import written as markdown
from harness.report.tuned import tuned
from harness.tune.answer import JSON, Answer, Outcome, Tried, read
from harness.tune.plots import _history, draw
from harness.tune.proof import Proof
from harness.tune.screen import screen
from harness.tune.summary import progress_text, so_far_text
from harness.tune.trial import Outcome as Outcomes
from harness.tune.trial import Trial
from tests.harness.tune.answers import ANSWER, GAIN, KEPT, PROOF, TRIED, tried

UNSURE: Proof = replace(PROOF, gains=(replace(GAIN, word="inconclusive", more_launches=2),))
OPEN = replace(ANSWER, outcome=Outcome.INCONCLUSIVE, reason="it is wide", proof=UNSURE)
PLOTS = ("tune_history.png", "tune_importance.png", "tune_slices.png", "tune_pareto.png")


def test_an_answer_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / JSON).write_text(ANSWER.to_json())
    assert read(tmp_path) == ANSWER


def test_what_json_has_no_number_for_is_null() -> None:
    odd = replace(ANSWER, tried=(tried(0, {}, float("inf")),))
    assert json.loads(odd.to_json())["tried"][0]["score"] is None


def test_no_answer_is_none_and_a_damaged_one_is_told(tmp_path: Path) -> None:
    assert read(tmp_path) is None
    (tmp_path / JSON).write_text('{"name": 1}')
    with pytest.raises(UserError, match=r"answer\.json is damaged"):
        read(tmp_path)


def test_what_is_told_as_the_gain_is_the_proofs_interval_and_not_the_searchs_maximum() -> None:
    assert ANSWER.headline() == (
        "api_server_count=4 stream_interval=8 gives +80.0 % output tok/s [+73.0 to +88.0 %]"
        " against the defaults."
    )
    assert "85" not in ANSWER.headline()


@pytest.mark.parametrize(
    ("outcome", "code"),
    [("proven", 0), ("defaults", 0), ("broken", 1), ("inconclusive", 1), ("nothing", 1),
     ("unfinished", 1)],
)  # fmt: skip
def test_only_what_is_settled_exits_with_0(outcome: str, code: int) -> None:
    assert replace(ANSWER, outcome=Outcome(outcome)).exit_code == code


def test_a_trade_of_two_goals_is_called_one() -> None:
    told = replace(ANSWER, reason="one goal is traded for the other").headline()
    assert told.endswith("against the defaults: one goal is traded for the other.")


def test_a_best_so_far_with_the_lower_score_is_told_with_the_reason() -> None:
    row, setting = {"output_tok_per_s": 1.0}, (("max_num_seqs", 8),)
    best, lucky = (
        Trial(number=n, setting=setting, outcome=Outcomes.measured([row]), score=score)
        for n, score in ((7, 1.013), (8, 1.016))
    )
    told = "the best so far, allowing for noise, is trial 7 with +1.3 %"
    assert progress_text(lucky, best).endswith(told)
    assert progress_text(replace(lucky, score=0.9), best).endswith("so far is trial 7 with +1.3 %")
    assert progress_text(best, best).endswith("+1.3 %; the best so far")


def test_an_interrupted_tuning_names_its_best_and_calls_it_unproven() -> None:
    row, setting = {"output_tok_per_s": 1.0}, (("max_num_seqs", 8),)
    best = Trial(number=1, setting=setting, outcome=Outcomes.measured([row]), score=1.5)
    told = so_far_text(3, best, 1)
    assert told.startswith("3 trials so far, the best is max_num_seqs=8 with +50.0 %, not proven")
    assert told.endswith("(1 launch of its proof)")
    defaults = replace(best, setting=(("max_num_seqs", None),), score=1.0)
    assert so_far_text(1, defaults, 0) == so_far_text(1, None, 0) == "1 trial so far"


def test_simulated_numbers_say_so_first() -> None:
    assert replace(ANSWER, simulated=True).headline().startswith("SIMULATED")


def test_an_inconclusive_proof_says_how_many_launches_would_settle_it() -> None:
    assert OPEN.headline() == (
        "Nothing is proven: the best candidate is api_server_count=4 stream_interval=8 with +80.0 %"
        " output tok/s [+73.0 to +88.0 %], but it is wide; the same command with"
        " tune.proof.launches=5 tune.budget.launches=26 would settle it, if noise stays as it is."
    )


def test_an_open_constraint_says_how_many_launches_would_settle_it() -> None:
    limit = replace(KEPT, ratio=1.1)
    told = replace(OPEN, proof=replace(PROOF, constraints=(limit,))).headline()
    assert "tune.proof.launches=5 tune.budget.launches=26 would settle it" in told


def test_where_more_launches_would_settle_nothing_what_would_is_told() -> None:
    gain = replace(GAIN, low=None, high=None, more_launches=None, remedy="longer runs do")
    told = replace(OPEN, proof=replace(PROOF, gains=(gain,))).headline()
    assert "with +80.0 % output tok/s [no interval], but" in told
    assert told.endswith("; longer runs do.")


def test_of_rows_that_prove_nothing_no_gain_is_told() -> None:
    comparison = replace(PROOF.comparison, verdict=Compared.REFUSED)
    told = replace(OPEN, proof=replace(PROOF, comparison=comparison)).headline()
    assert told.endswith(
        "the best candidate is api_server_count=4 stream_interval=8, but it is wide."
    )


def test_what_is_not_proven_is_handed_out_as_a_candidate_only(tmp_path: Path) -> None:
    told = screen(OPEN)
    assert "how to run the candidate, which is unproven:\n\n  vllm serve" in told
    report = Report(
        title="t", subtitle="s", simulated=None, sections=(tuned(OPEN, tmp_path),), made="m"
    )
    page = markdown(report, tmp_path)
    assert "### How to run the candidate, which is unproven" in page
    assert "| the candidate, unproven |" in page
    assert "the winner |" not in page


def test_the_text_holds_command_engine_container_and_reasons() -> None:
    told = screen(ANSWER)
    assert "\n  vllm serve Qwen/Qwen2.5-1.5B --tensor-parallel-size 2" in told
    assert "--config-dir results/tune-throughput/x/conf sweep=NAME engine=tuned" in told
    assert "engine.python=/opt/bin/python model=Qwen/Qwen2.5-1.5B\n" in told
    assert 'vllm/vllm-openai:v0.25.1 with the arguments ["Qwen/Qwen2.5-1.5B",' in told
    assert "stream_interval contributes +1.0 % output tok/s [−1.0 to +3.0 %]: unchanged" in told
    assert (
        "tpot_p99_s < 1.1 x defaults: open, 21.8 ms [20.6 to 23.1], and the limit is 22.9 ms"
        in told
    )
    assert "6 + 12 of 24 launches" in told


def test_on_a_terminal_sentences_are_broken_between_words_and_commands_are_not() -> None:
    whole, broken = screen(ANSWER), screen(ANSWER, 60)
    assert broken.split() == whole.split()
    sentences, commands = broken.split("\n\n", 1)
    assert max(map(len, sentences.splitlines())) <= 60
    assert commands == whole.split("\n\n", 1)[1]


def test_what_is_worse_for_the_gain_is_told_with_it(tmp_path: Path) -> None:
    worse = Judgement(
        point={"concurrency": 64},
        metric="ttft_p99_s",
        baseline=0.3,
        candidate=1.2,
        ratio=4.0,
        low=3.8,
        high=4.2,
        threshold_frac=0.1,
        verdict=Verdict.REGRESSED,
        launches=(3, 3),
        paired=True,
        more_launches=None,
        reason=None,
    )
    of_the_goal = replace(worse, metric=GAIN.metric)
    comparison = replace(PROOF.comparison, points=(of_the_goal, worse))
    costly = replace(ANSWER, proof=replace(PROOF, comparison=comparison))
    price = "t the price of TTFT p99 ms +300.0 % (+280.0 to +320.0 %)"
    assert f"\n  a{price}\n" in screen(costly)
    report = Report(
        title="t", subtitle="s", simulated=None, sections=(tuned(costly, tmp_path),), made="m"
    )
    assert f"A{price}." in html(report)
    assert "at the price of" not in screen(ANSWER)
    other = replace(worse, point={"concurrency": 1}, verdict=Verdict.UNCHANGED)
    several = replace(comparison, points=(worse, other))
    costly = replace(ANSWER, proof=replace(PROOF, comparison=several))
    assert "(+280.0 to +320.0 %) at concurrency=64\n" in screen(costly)


@pytest.mark.parametrize(
    ("outcome", "reason", "told"),
    [
        (Outcome.BROKEN, "the winner breaks 'x < 1'", "the proof: the winner breaks 'x < 1'."),
        (Outcome.DEFAULTS, "", "stream_interval=8 gave +80.0 % output tok/s [+73.0 to +88.0 %]."),
    ],
)
def test_a_winner_that_did_not_stand_the_proof_is_not_handed_out(
    outcome: Outcome, reason: str, told: str, tmp_path: Path
) -> None:
    lost = replace(ANSWER, outcome=outcome, reason=reason)
    assert "vllm serve" not in screen(lost)
    assert "engine=tuned" not in screen(lost)
    assert lost.headline().endswith(told)
    report = Report(
        title="t", subtitle="s", simulated=None, sections=(tuned(lost, tmp_path),), made="m"
    )
    assert "the winner |" not in markdown(report, tmp_path)
    assert "vllm serve" not in markdown(report, tmp_path)


def test_the_section_has_the_answer_the_proof_and_every_trial(tmp_path: Path) -> None:
    draw(ANSWER, tmp_path / "plots")
    report = Report(
        title="t", subtitle="s", simulated=None, sections=(tuned(ANSWER, tmp_path),), made="m"
    )
    page = markdown(report, tmp_path)
    for text in ("**PROVEN.**", "vllm serve", "### Proof", "failed: out\\_of\\_memory",
                 "| 22.9 ms | 21.8 ms | 20.6 to 23.1 | open |",
                 "clear loser", "the winner", "breaks tpot\\_p99\\_s", "plots/tune_importance.png",
                 "engine.dtype=bfloat16 pins it"):  # fmt: skip
        assert text in page, text
    assert "What each setting contributes" in html(report)


def test_what_was_learnt_of_the_host_is_told_where_there_is_news(tmp_path: Path) -> None:
    told = "going by the defaults, the host's CPU takes 2.6 x as long as the prior assumed"
    known = replace(ANSWER, host=told)
    assert told in screen(known)

    def page(answer: Answer) -> str:
        sections = (tuned(answer, tmp_path),)
        report = Report(title="t", subtitle="s", simulated=None, sections=sections, made="m")
        return markdown(report, tmp_path)

    assert f"Learnt: {told}." in page(known)
    assert "Learnt" not in page(ANSWER)


def test_a_trial_with_a_fatal_code_is_to_be_doubted(tmp_path: Path) -> None:
    rows = [{"validity": "simulated sim_late"}, {"validity": "sim_late not_steady"}]
    trial = Trial(number=0, setting=(), outcome=Outcomes.measured(rows), score=1.0)
    told = replace(ANSWER, tried=(Tried.of(trial),), winner=None)
    report = Report(
        title="t", subtitle="s", simulated=None, sections=(tuned(told, tmp_path),), made="m"
    )
    assert "to be doubted: sim\\_late |" in markdown(report, tmp_path)


def test_what_there_is_to_draw_is_drawn(tmp_path: Path) -> None:
    drawn = [path.name for path in draw(ANSWER, tmp_path)]
    assert drawn == list(PLOTS[:3])
    assert draw(replace(ANSWER, tried=TRIED[:1], importances={}), tmp_path) == []
    assert list(tmp_path.iterdir()) == [], "what is not true any more is not left"


@pytest.mark.parametrize(("score", "ends"), [(1.02, (0.9, 1.1)), (0.2, (0.1, 1.1))])
def test_a_gain_of_some_percent_can_be_seen_and_noise_does_not_look_like_one(
    score: float, ends: tuple[float, float]
) -> None:
    few = replace(ANSWER, tried=(tried(0, {}, 1.0), tried(1, {"a": 1}, score)), proof=None)
    figure = _history(few)
    assert figure is not None
    low, high = figure.axes[0].get_ylim()
    plt.close(figure)
    assert ends[0] <= low < min(1.0, score)
    assert high == pytest.approx(ends[1])


def test_two_goals_have_a_front(tmp_path: Path) -> None:
    scored = tuple(
        replace(one, gains=(0.1 * one.number, -0.1 * one.number)) if one.score else one
        for one in TRIED
    )
    goals = (("output_tok_per_s_per_gpu", True), ("tpot_p50_s", False))
    both = replace(ANSWER, goals=goals, tried=scored, front=(0, 2, 5), outcome=Outcome.UNFINISHED)
    assert "\n  trial 2, api_server_count=4: " in screen(both)
    assert PLOTS[3] in [path.name for path in draw(both, tmp_path)]
