"""A program that takes lm_eval's place: it writes what its name says."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.checks import task_accuracy
from harness.checks.columns import columns_of
from harness.checks.config import TaskAccuracyCheck
from harness.checks.task_accuracy import Endpoint, NoScoreError, Score, mean, measure, scores
from harness.config import compose
from harness.errors import UserError
from harness.overrides import parse

# As lm_eval 0.4.13 writes it, shortened.
ADDING = {"alias": "adding", "name": "adding", "acc,none": 0.75, "acc_stderr,none": 0.05}
RESULTS = {
    "results": {
        "adding": ADDING,
        "sums": {"exact_match,strict": 0.5, "exact_match_stderr,strict": "N/A", "alias": "sums"},
        "words": {"word_perplexity,none": 12.5, "alias": "words"},
    },
    "n-samples": {"adding": {"original": 100, "effective": 80}},
}
FAKE = """
import json, os, sys, time
from pathlib import Path
habit = os.environ["HABIT"]
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
print("told", json.dumps(words), os.environ.get("OPENAI_API_KEY"))
if habit == "hangs":
    time.sleep(1000)
if habit == "fails":
    raise SystemExit("KeyError: 'no such task'")
if habit == "scores":
    folder = Path(words["--output_path"]) / "m"
    folder.mkdir()
    (folder / "results_2026-11-21T10-00-00.json").write_text(os.environ["RESULTS"])
"""
ENDPOINT = Endpoint(url="http://fake", model="m", tokenizer="/models/m", max_model_len=512)


@pytest.fixture
def lm_eval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where everything lies."""
    for name in task_accuracy.NEEDED:
        (tmp_path / "site" / name).mkdir(parents=True)
        (tmp_path / "site" / name / "__init__.py").touch()
    (tmp_path / "site/lm_eval/__main__.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("HABIT", "scores")
    monkeypatch.setenv("RESULTS", json.dumps(RESULTS))
    monkeypatch.setattr(task_accuracy, "STOP_S", 0.5)
    return tmp_path


def check(*tasks: str, **settings: Any) -> TaskAccuracyCheck:
    return TaskAccuracyCheck(tasks=list(tasks), **settings)


def log(folder: Path) -> str:
    return (folder / "lm_eval.log").read_text()


def test_the_scores_are_those_that_lm_eval_wrote(lm_eval: Path) -> None:
    first, second = measure(check("adding", "sums", limit=80), ENDPOINT, lm_eval / "out")
    assert first == Score(task="adding", metric="acc,none", frac=0.75, stderr_frac=0.05, samples=80)
    assert (second.metric, second.frac, second.stderr_frac) == ("exact_match,strict", 0.5, None)
    assert first.text == "adding 75.0 ± 5.0 % (acc,none, 80 questions)"


def test_it_is_told_the_end_point_and_a_key_in_its_environment_only(lm_eval: Path) -> None:
    endpoint = Endpoint(
        url="http://fake", model="m", tokenizer="t", max_model_len=None,
        headers={"Authorization": "Bearer secret"},
    )  # fmt: skip
    measure(check("adding", num_fewshot=2, include_path="/tasks"), endpoint, lm_eval / "out")
    told = json.loads(log(lm_eval / "out").partition("told ")[2].rpartition("}")[0] + "}")
    assert told["--model_args"].startswith("base_url=http://fake/v1/completions,model=m,")
    assert "max_length" not in told["--model_args"]
    assert (told["--num_fewshot"], told["--include_path"]) == ("2", "/tasks")
    assert "--limit" not in told
    assert "secret" not in json.dumps(told)
    assert "secret" in log(lm_eval / "out")


@pytest.mark.parametrize(
    ("habit", "said"),
    [
        ("fails", "ended with exit code 1: KeyError: 'no such task'"),
        ("silent", "wrote nothing: told"),
    ],
)
def test_a_failure_has_its_last_words(
    lm_eval: Path, monkeypatch: pytest.MonkeyPatch, habit: str, said: str
) -> None:
    measure(check("adding"), ENDPOINT, lm_eval / "out")
    monkeypatch.setenv("HABIT", habit)
    with pytest.raises(NoScoreError, match=said) as caught:
        measure(check("adding"), ENDPOINT, lm_eval / "out")
    assert caught.value.evidence[-1].startswith("KeyError" if habit == "fails" else "told")


def test_one_that_does_not_end_is_ended(lm_eval: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HABIT", "hangs")
    with pytest.raises(NoScoreError, match=r"within 1 s: lower checks\.task_accuracy\.limit"):
        measure(check("adding", timeout_s=1.0), ENDPOINT, lm_eval / "out")


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("other", "no score of 'other', it has: adding, sums, words"),
        ("words", "'words' reports neither of acc, exact_match: word_perplexity,none"),
    ],
)
def test_a_task_without_a_share_of_right_answers_is_none(task: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        scores(RESULTS, [task])


def test_the_mean_is_over_tasks_and_its_error_is_that_of_independent_ones() -> None:
    def score(frac: float, stderr_frac: float | None) -> Score:
        return Score(task="t", metric="acc", frac=frac, stderr_frac=stderr_frac, samples=9)

    assert mean([score(0.5, 0.03), score(0.7, 0.04)]) == pytest.approx((0.6, 0.025))
    assert mean([score(0.5, 0.03), score(0.7, None)])[1] is None


def test_it_stands_in_the_rows_and_random_weights_have_none() -> None:
    told = [
        {"task": "a", "metric": "acc,none", "frac": 0.5, "stderr_frac": 0.1, "samples": 4},
        {"task": "b", "metric": "acc,none", "frac": 1.0, "stderr_frac": 0.0, "samples": 4},
    ]
    row = columns_of({"task_accuracy": {"status": "ok", "scores": told}}, {})
    assert (row["task_accuracy_frac"], row["task_accuracy_stderr_frac"]) == (0.75, 0.05)
    assert row["task_accuracy_tasks"].startswith("a 50.0 ± 10.0 % (acc,none, 4 questions), b 100")
    row = columns_of({"task_accuracy": {"status": "ok", "weights": "random"}}, {})
    assert row["task_accuracy_frac"] is None
    assert row["task_accuracy_tasks"] == "random weights"


EXTERNAL = ("engine=external", "engine.url=http://h")


def composed(*words: str, engine: tuple[str, ...] = EXTERNAL) -> None:
    compose(parse(["sweep=single", "checks.task_accuracy.tasks=a", *engine, *words]))


@pytest.mark.usefixtures("lm_eval")
def test_what_it_needs_is_looked_for_in_its_interpreter_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    python = f"checks.task_accuracy.python={sys.executable}"
    composed("model=org/model", python)
    monkeypatch.setattr(task_accuracy, "NEEDED", ("lm_eval", "no_such_package"))
    with pytest.raises(UserError, match=r"needs no_such_package, which .* has not: pip install"):
        composed("model=org/model", python)
    with pytest.raises(UserError, match=r"python=/none: cannot be run"):
        composed("model=org/model", "checks.task_accuracy.python=/none")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name it by model=FOLDER"),
        (("model=a/b", "checks.task_accuracy.include_path=/none"), "there is no such folder"),
        (("model=a/b", "checks.task_accuracy.limit=0"), "limit"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_sentence(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        composed(*words)


def test_a_simulator_knows_nothing() -> None:
    with pytest.raises(UserError, match="needs a model that computes"):
        composed(engine=("engine=sim",))
