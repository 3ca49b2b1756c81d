"""Checks each engine setting once, apart from its runs, and saves the results in the study.

A check that fails is recorded with its reason, like a run. Checks that need a server come after its
runs, because a prompt that is too long may kill it.
"""

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.checks import longest_context, offline, task_accuracy
from harness.checks.answers import Columns, columns
from harness.checks.interview import NoAnswerError, ask, prompts_of
from harness.config import Config
from harness.engines import vllm
from harness.engines.config import ExternalEngine, VllmEngine
from harness.engines.failure import EngineFailed, Failure, FailureKind
from harness.engines.replicas import AnyServer
from harness.identity import setting_of
from harness.measurement import target_of
from harness.model import materialise
from harness.plan import Launch
from harness.study import Study
from harness.units import whole
from loadgen.config import Load

ON_SERVER = ("accuracy", "task_accuracy", "longest_context")
NO_LENGTHS = Failure(
    kind=FailureKind.BAD_ARGUMENT,
    message="no load of this engine setting has lengths that vLLM could be given without a server",
    evidence=(),
)
Note = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checker:
    """The checks that a study's configuration asks for."""

    config: Config
    study: Study
    models: Path
    note: Note
    # Each is tried once per command: with retry=true, a failed one would be due again forever.
    _tried: set[tuple[str, str]] = field(default_factory=set)

    def due(self, launch: Launch) -> list[str]:
        """The checks still missing for this launch's engine setting."""
        options = self.config.options
        return [
            name
            for name in options.checks.names
            if (launch.setting, name) not in self._tried
            and not self.study.has_check(launch.setting, name, retry=options.retry)
        ]

    def on_server(self, launch: Launch, server: AnyServer) -> bool:
        """Do the checks due on a server that has done its runs; False if it did not survive."""
        for name in self.due(launch):
            if name not in ON_SERVER:
                continue
            self._tried.add((launch.setting, name))
            server.settle()
            match name:
                case "accuracy":
                    self._accuracy(launch, server)
                case "task_accuracy":
                    self._task_accuracy(launch, server)
                case "longest_context":
                    self._longest_context(launch, server)
            if server.failure() is not None:
                return False
        return True

    def without_server(self, launch: Launch) -> None:
        """Do the checks due that need the GPUs to themselves."""
        if "offline" in self.due(launch):
            self._tried.add((launch.setting, "offline"))
            self._offline(launch)

    def fail(self, launch: Launch, failure: Failure) -> None:
        """Record all due checks as failed, because the server did not start."""
        for name in self.due(launch):
            self._failed(launch, name, failure)

    def _accuracy(self, launch: Launch, server: AnyServer) -> None:
        settings = self.config.options.checks.accuracy
        assert settings is not None
        if self.config.model.path is None:  # random weights have no accuracy to lose
            self._save(launch, "accuracy", {"cases": launch.cases, "weights": "random"}, "random")
            return
        prompts = prompts_of(settings, self.config.model.path)
        try:
            headers = launch.engine.headers()
            passes = ask(server.urls[0], server.model, prompts, settings, headers=headers)
        except NoAnswerError as error:
            failure = Failure(kind=FailureKind.NO_ANSWER, message=str(error), evidence=())
            self._failed(launch, "accuracy", server.failure() or failure)
            return
        found = {"cases": launch.cases, "prompts": len(prompts)}
        told = f"{len(prompts)} prompts, asked {len(passes)} times each"
        self._save(launch, "accuracy", found, told, **columns(passes))

    def _task_accuracy(self, launch: Launch, server: AnyServer) -> None:
        settings, model = self.config.options.checks.task_accuracy, self.config.model
        assert settings is not None
        if model.path is None:  # random weights cannot solve tasks
            self._save(launch, "task_accuracy", {"weights": "random"}, "random")
            return
        endpoint = task_accuracy.Endpoint(
            url=server.urls[0],
            model=server.model,
            tokenizer=model.path,
            max_model_len=server.facts.max_model_len,
            headers=launch.engine.headers(),
        )
        folder = self.study.folder / "checks" / launch.setting / "task_accuracy"
        try:
            scores = task_accuracy.measure(settings, endpoint, folder)
        except task_accuracy.NoScoreError as error:
            failure = Failure(
                kind=FailureKind.NO_ANSWER, message=str(error), evidence=error.evidence
            )
            self._failed(launch, "task_accuracy", server.failure() or failure)
            return
        told = ", ".join(score.text for score in scores)
        found = {"scores": [asdict(score) for score in scores]}
        self._save(launch, "task_accuracy", found, told)

    def _longest_context(self, launch: Launch, server: AnyServer) -> None:
        settings = self.config.options.checks.longest_context
        assert settings is not None
        engine = launch.engine
        target = target_of(server, engine, self.config.model)
        death: Failure | None = None

        def ask(tokens: int) -> longest_context.Try:
            nonlocal death
            answer = longest_context.ask(target, tokens, settings.timeout_s)
            # a dead engine takes a while to exit, so ask for a token rather than look at it
            if answer.fate == "failed" and not isinstance(engine, ExternalEngine):
                death = server.failure(token_within_s=server.first_token_timeout_s)
            return answer if death is None else replace(answer, fate="died", why=death.message)

        found = longest_context.find(ask, settings.start_tokens, server.facts.max_model_len)
        if found.tokens is None and death is not None:
            self._failed(launch, "longest_context", death)
            return
        served = "none" if found.tokens is None else f"{whole(found.tokens)} tokens"
        self._save(launch, "longest_context", asdict(found), f"{served}; {found.limit}")

    def _offline(self, launch: Launch) -> None:
        settings, engine = self.config.options.checks.offline, launch.engine
        assert settings is not None
        assert isinstance(engine, VllmEngine)
        if (why := offline.obstacle(engine)) is not None:
            failure = Failure(kind=FailureKind.NOT_POSSIBLE, message=why, evidence=())
            self._failed(launch, "offline", failure)
            return
        # the server's limits: offline, vLLM's own defaults for the size of a step are different
        facts = self.study.facts(launch.id)
        alike = replace(
            engine,
            max_num_seqs=engine.max_num_seqs or facts.get("max_num_seqs"),
            max_num_batched_tokens=engine.max_num_batched_tokens
            or facts.get("max_num_batched_tokens"),
        )
        served = materialise(self.config.model, self.models)
        arguments = [
            *vllm.model_arguments(self.config.model, served),
            *vllm.flags(vllm.serving(alike)),
        ]
        load, on_cpu = self._offline_load(launch), self.config.choice.place == "cpu"
        if load is None:
            self._failed(launch, "offline", NO_LENGTHS)
            return
        folder = self.study.folder / "checks" / launch.setting / "offline"
        try:
            measured = offline.measure(
                engine.python or sys.executable,
                ["--model", served, *arguments],
                vllm.environment(engine, offline=Path(served).is_dir(), on_cpu=on_cpu),
                offline.lengths(load, settings.prompts, self.config.options.seed),
                self.config.model.vocab_size(),
                folder,
                settings.timeout_s,
            )
        except EngineFailed as error:
            self._failed(launch, "offline", error.failure)
            return
        told = f"{whole(measured.output_tok_per_s)} tok/s"
        of = {"load": asdict(load)}
        self._save(launch, "offline", asdict(measured) | of, told)

    def _offline_load(self, launch: Launch) -> Load | None:
        """The setting's first load whose lengths can be drawn without a server."""
        loads = (
            Load(**run.record["load"])
            for run in self.study.runs()
            if setting_of(run.record["launch"]) == launch.setting
        )
        return next(filter(offline.has_lengths, loads), None)

    def _save(
        self, launch: Launch, name: str, found: dict[str, Any], brief: str, **samples: Columns
    ) -> None:
        self.study.save_check(launch.setting, name, {"status": "ok", **found}, **samples)
        self.note(f"{name} of {launch.label}: {brief}")

    def _failed(self, launch: Launch, name: str, failure: Failure) -> None:
        told = {"status": "failed", "failure": asdict(failure)}
        self.study.save_check(launch.setting, name, told)
        self.note(f"{name} of {launch.label} FAILED ({failure.kind}): {failure.message}")
