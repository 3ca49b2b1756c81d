"""What is due, what is kept, and what becomes of a check whose server dies."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from harness.checks import longest_context, offline
from harness.checks.checker import Checker
from harness.checks.config import AccuracyCheck, Checks, LongestContextCheck, OfflineCheck
from harness.checks.interview import NoAnswerError
from harness.checks.longest_context import Try
from harness.checks.offline import Offline
from harness.config import Config, compose
from harness.engines.config import ExternalEngine, VllmEngine
from harness.engines.facts import Facts
from harness.engines.failure import EngineFailed, Failure, FailureKind
from harness.model import Model
from harness.overrides import parse
from harness.plan import Launch, Plan, make_plan
from harness.runner import wanted
from harness.study import Study
from loadgen.records import Target
from tests.harness import builders

DEAD = Failure(kind=FailureKind.DIED_UNDER_LOAD, message="it died", evidence=("line",))
LONGEST = Checks(longest_context=LongestContextCheck(start_tokens=64))
OFFLINE = Checks(offline=OfflineCheck(prompts=8))


@dataclass
class FakeServer:
    """Serves up to `limit` tokens; what is longer kills it, or only fails."""

    limit: int = 1000
    dies: bool = False
    is_dead: bool = False
    settled: int = 0
    urls: tuple[str, ...] = ("http://fake",)
    model: str = "m"
    first_token_timeout_s: float = 1.0
    own: object = object()
    facts: Facts = field(default_factory=lambda: Facts(max_model_len=2048))

    def settle(self) -> None:
        self.settled += 1

    def failure(self, **_: Any) -> Failure | None:
        return DEAD if self.is_dead else None

    def ask(self, _target: Target, tokens: int, _timeout_s: float) -> Try:
        assert not self.is_dead, "nobody is left to ask"
        if tokens <= self.limit:
            return Try(tokens=tokens, fate="served", took_s=0.1)
        self.is_dead = self.dies
        return Try(tokens=tokens, fate="failed", took_s=0.1, why="HTTP 500")


class Bench:
    """A study of one engine setting whose runs are done, and its checker."""

    def __init__(self, out: Path, checks: Checks, *words: str, retry: bool = False) -> None:
        said = ["engine=sim", "sweep=single", "model=tiny", "load.concurrency=2", *words]
        composed = compose(parse(said))
        options = replace(composed.options, checks=checks, retry=retry)
        self.config: Config = replace(composed, options=options)
        self.plan: Plan = make_plan(composed, ())
        self.launch: Launch = self.plan.launches[0]
        self.study: Study = builders.study(out, self.plan)
        builders.fill(self.study, self.plan, num=3)
        self.notes: list[str] = []
        self.checker: Checker = self.again()

    def again(self, *, retry: bool = False) -> Checker:
        """As the next command would have it."""
        options = replace(self.config.options, retry=retry or self.config.options.retry)
        config = replace(self.config, options=options)
        models = self.study.folder / "models"
        return Checker(config=config, study=self.study, models=models, note=self.notes.append)

    def kept(self, name: str) -> dict[str, Any]:
        found = self.study.check(self.launch.setting, name)
        assert found is not None
        return found


Make = Callable[..., Bench]


@pytest.fixture
def bench(tmp_path: Path) -> Make:
    return lambda checks, *words, **named: Bench(tmp_path, checks, *words, **named)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    fake = FakeServer()
    monkeypatch.setattr(longest_context, "ask", fake.ask)
    return fake


def test_a_check_is_done_once_for_an_engine_setting(bench: Make, server: FakeServer) -> None:
    at = bench(LONGEST, "repeats.launches=2")
    first, second = at.plan.launches
    assert at.checker.due(first) == at.checker.due(second) == ["longest_context"]
    assert at.checker.on_server(first, server)
    assert at.checker.due(first) == at.checker.due(second) == at.again().due(second) == []
    assert server.settled == 1, "it is alone in the server"


def test_what_was_found_is_kept_and_told(bench: Make, server: FakeServer) -> None:
    at = bench(LONGEST)
    at.checker.on_server(at.launch, server)
    kept = at.kept("longest_context")
    assert kept["status"] == "ok"
    assert 980 <= kept["tokens"] <= 1000
    assert kept["limit"] == "HTTP 500"
    assert at.notes[0].startswith("longest_context of ")


def test_a_server_that_dies_ends_the_search_with_what_it_had_served(
    bench: Make, server: FakeServer
) -> None:
    at, server.dies = bench(LONGEST), True
    assert not at.checker.on_server(at.launch, server), "the next check needs another one"
    kept = at.kept("longest_context")
    assert (kept["status"], kept["tokens"], kept["limit"]) == ("ok", 512, "it died")
    assert at.checker.due(at.launch) == []


def test_a_server_that_dies_of_the_first_prompt_is_a_failed_check(
    bench: Make, server: FakeServer
) -> None:
    at, server.dies, server.limit = bench(LONGEST), True, 1
    at.checker.on_server(at.launch, server)
    kept = at.kept("longest_context")
    assert (kept["status"], kept["failure"]["message"]) == ("failed", "it died")
    assert "FAILED (died_under_load): it died" in at.notes[0]


def test_a_failed_check_is_due_again_only_when_that_is_asked_for(
    bench: Make, server: FakeServer
) -> None:
    at, server.dies, server.limit = bench(LONGEST), True, 1
    at.checker.on_server(at.launch, server)
    assert at.again().due(at.launch) == []
    assert at.again(retry=True).due(at.launch) == ["longest_context"]


def test_with_retry_a_check_that_fails_is_tried_once_a_command(
    bench: Make, server: FakeServer
) -> None:
    at, server.dies, server.limit = bench(LONGEST, retry=True), True, 1
    at.checker.on_server(at.launch, server)
    assert at.kept("longest_context")["status"] == "failed"
    assert at.checker.due(at.launch) == [], "or the runner would start servers for ever"


def test_a_server_that_did_not_start_fails_all_that_is_due(bench: Make) -> None:
    at = bench(Checks(longest_context=LongestContextCheck(), offline=OfflineCheck()))
    at.checker.fail(at.launch, DEAD)
    assert at.kept("longest_context")["status"] == at.kept("offline")["status"] == "failed"
    assert at.again().due(at.launch) == []


def test_a_failed_start_does_not_take_back_what_was_found(bench: Make, server: FakeServer) -> None:
    at = bench(LONGEST)
    at.checker.on_server(at.launch, server)
    at.again(retry=True).fail(at.launch, DEAD)
    assert at.kept("longest_context")["status"] == "ok"


def test_a_damaged_record_is_as_good_as_none(bench: Make, server: FakeServer) -> None:
    at = bench(LONGEST)
    at.checker.on_server(at.launch, server)
    for text in ("{", "{}"):
        (at.study.folder / f"checks/{at.launch.setting}/longest_context.json").write_text(text)
        assert at.again().due(at.launch) == ["longest_context"]


def test_what_is_left_of_a_plan_are_its_checks_too(bench: Make, server: FakeServer) -> None:
    at = bench(LONGEST, "repeats.launches=2")
    names = at.config.options.checks.names
    left = wanted(at.plan, at.study, names, retry=False)
    assert [(launch.repeat, launch.runs) for launch in left] == [(1, ())]
    at.checker.on_server(at.launch, server)
    assert wanted(at.plan, at.study, names, retry=False) == []


def test_checks_that_are_asked_for_later_are_due_in_a_finished_study(bench: Make) -> None:
    at = bench(Checks())
    assert at.checker.due(at.launch) == []
    at.config = replace(at.config, options=replace(at.config.options, checks=LONGEST))
    assert at.again().due(at.launch) == ["longest_context"]


def test_a_server_that_wants_a_key_is_told_it_by_the_accuracy_check(
    bench: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "k")
    told: list[dict[str, str]] = []

    def ask(*_: Any, headers: dict[str, str]) -> None:
        told.append(headers)
        raise NoAnswerError("heard enough")

    monkeypatch.setattr("harness.checks.checker.ask", ask)
    monkeypatch.setattr("harness.checks.checker.prompts_of", lambda *_: [(1, 2)])
    at = bench(Checks(accuracy=AccuracyCheck(reference=["x"])))
    config = replace(at.config, model=Model(name="m", path="weights"))
    checker = Checker(config=config, study=at.study, models=Path(), note=at.notes.append)
    elsewhere = ExternalEngine(url="http://fake", api_key_env="MY_KEY")
    checker.on_server(replace(at.launch, engine=elsewhere), FakeServer())
    assert told == [{"Authorization": "Bearer k"}]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What vLLM would have been told, instead of telling it."""
    calls = []

    def measure(python: str, arguments: list[str], _env: Any, work: Any, *_: Any) -> Offline:
        calls.append({"python": python, "arguments": arguments, "work": work})
        tokens = sum(output for _, output in work)
        return Offline(
            prompts=len(work), input_tokens=1, output_tokens=tokens, elapsed_s=2.0,
            output_tok_per_s=tokens / 2.0,
        )  # fmt: skip

    monkeypatch.setattr(offline, "measure", measure)
    return calls


def on_vllm(launch: Launch, **engine: Any) -> Launch:
    return replace(launch, engine=VllmEngine(tensor_parallel_size=1, **engine))


def test_vllm_without_a_server_gets_the_loads_lengths_and_the_servers_sizes(
    bench: Make, measured: list[dict[str, Any]]
) -> None:
    at = bench(OFFLINE, "load.input_tokens=40", "load.output_tokens=6")
    at.checker.without_server(on_vllm(at.launch, enforce_eager=True))
    (call,) = measured
    assert call["python"] == sys.executable
    assert call["work"] == [(40, 6)] * 8
    text = " ".join(call["arguments"])
    assert "--enforce-eager" in text
    assert "--max-num-batched-tokens 8192" in text, "as the server said that it took"
    kept = at.kept("offline")
    assert kept["output_tok_per_s"] == 24.0
    assert kept["load"]["input_tokens"] == 40


def test_vllm_without_a_server_that_fails_is_recorded(
    bench: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise EngineFailed(DEAD)

    monkeypatch.setattr(offline, "measure", fail)
    at = bench(OFFLINE)
    at.checker.without_server(on_vllm(at.launch))
    assert at.kept("offline")["failure"]["message"] == "it died"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"data_parallel_size": 2}, '"is not supported for single-process usage and may hang"'),
        ({"replicas": 2}, "engine.replicas=2: vLLM without a server is one engine"),
    ],
)
def test_several_engines_without_a_server_are_not_possible_and_not_tried(
    bench: Make, measured: list[dict[str, Any]], settings: dict[str, Any], said: str
) -> None:
    at = bench(OFFLINE)
    at.checker.without_server(on_vllm(at.launch, **settings))
    assert measured == []
    failure = at.kept("offline")["failure"]
    assert failure["kind"] == "not_possible"
    assert said in failure["message"]


def test_requests_that_vllm_cannot_be_given_without_a_server_are_no_measure(
    bench: Make, measured: list[dict[str, Any]]
) -> None:
    at = bench(OFFLINE, "load.prompts={kind: shared_prefix, groups: 2, hit_frac: 0.5}")
    at.checker.without_server(on_vllm(at.launch))
    assert measured == []
    assert "no load of this engine setting" in at.kept("offline")["failure"]["message"]
