"""The profiles of a sweep: the points that `profile.points` selects, after the measured runs."""

from dataclasses import dataclass

import pandas as pd

from harness.plan import Plan
from harness.profiling.capture import Equipment
from harness.profiling.choice import choose
from harness.profiling.profile import folder_of, is_done, make
from harness.profiling.subject import Subject
from harness.reading import label_of
from harness.runner import Runner


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiler:
    """Profiles those points of a study that its configuration selects, unless done already."""

    runner: Runner
    plan: Plan

    def work(self, points: pd.DataFrame) -> None:
        """Capture and explain one point after another."""
        config, study, display = self.runner.config, self.runner.study, self.runner.display
        equipment = Equipment(
            profile=config.profile,
            instrument=self.runner.instrument,
            models=self.runner.models,
            phase=display.phase,
        )
        saved = {run.record["id"]: run for run in study.runs()}
        launches = {run.id: launch for launch in self.plan.launches for run in launch.runs}
        for run in choose(points, self.plan.axes, config.profile.points):
            folder = folder_of(study, run, config.profile.kind)
            if is_done(folder, retry=config.options.retry):
                continue
            launch, label = launches[run], label_of(study.about, points, run)
            display.launching(launch)
            subject = Subject.of(
                saved[run],
                config.model,
                launch.engine,  # with the secrets of its environment, which are not stored
                self.runner.gpus,
                f"{self.plan.sweep}: {config.model.name}, {label}",
            )
            display.note(f"{label}: {make(subject, study, run, equipment)}")
