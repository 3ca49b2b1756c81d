from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from harness.artefacts import tabulate
from harness.config import compose
from harness.engines.failure import Failure, FailureKind
from harness.guard.evidence import read_evidence
from harness.instrument import Instrument
from harness.overrides import parse
from harness.plan import Launch, Plan, Run, make_plan
from harness.progress import Lines
from harness.reading import read_study
from harness.report.contents import read
from harness.report.results import in_short
from harness.runner import Runner, wanted
from harness.steering import Decision, Following, Judge, Send, Skip, never
from harness.study import Study
from harness.tables import runs_table
from loadgen.config import Load
from loadgen.records import Progress
from tests.harness.builders import about, fill, plan, record, study
from tests.harness.whole_tool import QUICK

FAULT = Failure(kind=FailureKind.NO_CAPACITY, message="made up", evidence=())


@dataclass
class Scripted:
    """Answers for each load's concurrency, and what watches all runs."""

    answers: dict[int, Load | Skip | Failure]
    judge: Judge = never

    def __call__(self, _: Launch, run: Run) -> Decision:
        assert run.load.concurrency is not None
        answer = self.answers.get(run.load.concurrency, run.load)
        return Send(load=answer, judge=self.judge) if isinstance(answer, Load) else answer


@dataclass(frozen=True)
class Bench:
    """A plan on the simulator, and its study."""

    plan: Plan
    study: Study
    runner: Callable[[Scripted], Runner]

    def work(self, steering: Scripted, *, retry: bool = False) -> None:
        self.runner(steering).work(wanted(self.plan, self.study, retry=retry))

    def statuses(self) -> list[str | None]:
        return [self.study.status(run.id) for run in self.plan.runs]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    config = compose(parse(["sweep=single", *QUICK, "load.concurrency=1,2,3"]))
    made = make_plan(config, ())
    kept = Study.open(tmp_path, made, about(made, simulated=True), fresh=False)

    def runner(steering: Scripted) -> Runner:
        return Runner(
            config=config,
            study=kept,
            gpus=(),
            instrument=Instrument.none(),
            display=Lines(len(made.runs), 0, noted=set()),
            models=tmp_path / ".models",
            salt=0,
            steering=steering,
        )

    return Bench(plan=made, study=kept, runner=runner)


def test_what_is_not_needed_is_skipped_and_what_cannot_be_failed(bench: Bench) -> None:
    bench.work(Scripted({2: Skip(reason="one was enough"), 3: FAULT}))
    assert bench.statuses() == ["ok", "skipped", "failed"]
    assert list(bench.study.skipped().values()) == ["one was enough"]
    assert wanted(bench.plan, bench.study, retry=False) == []


def test_the_load_is_the_steerings(bench: Bench) -> None:
    other = replace(bench.plan.runs[0].load, concurrency=4)
    bench.work(Scripted({1: other, 2: Skip(reason="-"), 3: Skip(reason="-")}))
    (saved,) = bench.study.runs()
    assert saved.record["load"]["concurrency"] == 4


def test_a_launch_of_which_nothing_is_needed_starts_no_server(bench: Bench) -> None:
    bench.work(Scripted(dict.fromkeys((1, 2, 3), Skip(reason="known before"))))
    assert bench.statuses() == ["skipped"] * 3
    assert not list((bench.study.folder / "launches").iterdir())
    assert runs_table(bench.study).empty
    assert not tabulate(bench.study)


def test_a_run_whose_answer_is_clear_ends_at_once_and_says_why(bench: Bench) -> None:
    def judge(now: Progress) -> str | None:
        return "clear" if now.phase == "window" else None

    long = replace(bench.plan.runs[0].load, duration_s=300.0)
    bench.work(Scripted({1: long, 3: Skip(reason="-")}, judge))
    stopped, second = bench.study.runs()
    assert stopped.ok
    assert not stopped.whole
    assert stopped.record["stopped"] == "clear"
    assert second.record["stopped"] == "clear"
    row = runs_table(bench.study).iloc[0]
    assert row["stopped"] == "clear"
    assert row["output_tok_per_s"] is None
    assert "stopped" in row["validity"]


def test_every_reader_of_a_study_copes_with_skipped_and_stopped_runs(bench: Bench) -> None:
    bench.work(Scripted({2: Skip(reason="one was enough")}, lambda now: now.phase))
    bench.study.add(options={}, sweep="single", command="-", environment={})
    assert tabulate(bench.study)
    assert len(read_study(bench.study.folder).points) == 2
    evidence = read_evidence(bench.study.folder)
    assert (len(evidence.runs), evidence.skipped) == (2, 1)
    contents = read(bench.study)
    assert "2 of 3 runs measured, 1 not needed" in str(in_short(contents))


def test_what_was_skipped_is_asked_again_only_where_a_failed_run_is(tmp_path: Path) -> None:
    made = plan("load.concurrency=1,2,3", "repeats.launches=2")
    kept = study(tmp_path, made)
    fill(kept, made)
    for launch in made.launches:
        run = launch.runs[2]
        kept.save_run(run.id, record(made, run, tmp_path, status="skipped", reason="-"))
    failed = made.launches[1].runs[0]
    kept.save_run(failed.id, record(made, failed, tmp_path, status="failed"))
    (left,) = wanted(made, kept, retry=True)
    assert left.id == made.launches[1].id
    assert left.runs == (failed, made.launches[1].runs[2])


def test_a_share_of_a_capacity_follows_what_the_launch_found(tmp_path: Path) -> None:
    made = plan("load.concurrency=2")
    kept = study(tmp_path, made)
    fill(kept, made)
    (launch,) = made.launches
    share = Load(arrival="poisson", rate_frac=0.5)
    run = replace(launch.runs[0], load=share)
    sent = Following(study=kept)(launch, run)
    assert isinstance(sent, Send)
    assert sent.load.rate_rps == pytest.approx(35, rel=0.01)
    unknown = Following(study=kept)(replace(launch, id="other-1"), run)
    assert isinstance(unknown, Failure)
    assert unknown.kind == FailureKind.NO_CAPACITY
