"""How a budget is split: launches the search may take, and launches reserved for the proof. Pure.

The proof comes first. From the beginning, `launches` of each side are reserved for it, and launches
for the ablation of as many settings as still leave the search half of the budget. The ablation may
also use what the search leaves over.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import UserError
from harness.tune.config import Tune

SIDES = 2  # of a proof without ablation
LEAST_TRIALS = 2  # the defaults and one other


def launches_for(proof_launches: int, ablated: int) -> int:
    """The budget, in launches, that is sure to have room for the ablation of `ablated` settings."""
    return 2 * proof_launches * (SIDES + ablated)


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """The budget of search and proof. `launch_s` is the estimate until a launch was measured."""

    launches: int
    budget_s: float | None
    proof_launches: int  # of each side
    ablated: int  # settings whose ablation has reserved launches
    launch_s: float

    @classmethod
    def of(cls, tune: Tune, *, names: int, launch_s: float) -> "Allowance":
        """For a space of `names` axes. Raises UserError if the minutes are too few."""
        each, launches = tune.proof.launches, tune.budget.launches
        room = (launches // 2 - SIDES * each) // each
        minutes = tune.budget.minutes
        made = cls(
            launches=launches,
            budget_s=None if minutes is None else minutes * 60,
            proof_launches=each,
            ablated=max(0, min(names, room)) if tune.proof.ablation else 0,
            launch_s=launch_s,
        )
        made._check_minutes()
        return made

    @property
    def reserved(self) -> int:
        """Launches reserved for the proof."""
        return self.proof_launches * (SIDES + self.ablated)

    @property
    def search_launches(self) -> int:
        """Launches available to the search."""
        return self.launches - self.reserved

    def stop(
        self,
        spent: int,
        spent_s: float,
        seen_s: Sequence[float],
        proof_s: Sequence[float],
    ) -> str | None:
        """Why no further trial may start; None if one more is allowed.

        `spent` counts all launches so far, including those of earlier proofs. `seen_s` is how long
        each complete one took, `proof_s` how long it would have taken in the proof. Where time is
        short, the ablation is dropped first.
        """
        if spent >= self.search_launches:
            return f"{spent} of {self.launches} launches are spent, the rest is kept for the proof"
        if self.budget_s is None:
            return None
        needed_s = self._each_s(seen_s) + SIDES * self.proof_launches * self._each_s(proof_s)
        if spent_s + needed_s > self.budget_s:
            return "the minutes that are left are kept for the proof"
        return None

    def ablations(self, spent: int, spent_s: float, seen_s: Sequence[float]) -> int:
        """How many settings the remaining budget can ablate after `spent` launches.

        An ablated setting was never launched, so it has yet to compile: each of its launches is
        allotted the time of a trial.
        """
        each = self.proof_launches
        if not self.ablated and spent >= self.search_launches:
            return 0
        room = (self.launches - spent) // each - SIDES
        if self.budget_s is not None:
            left = int((self.budget_s - spent_s) / self._each_s(seen_s))
            room = min(room, left // each - SIDES)
        return max(0, room)

    def _each_s(self, seen_s: Sequence[float]) -> float:
        """The time allotted to a launch: the longest so far, except the first, which compiles."""
        return max(seen_s[1:] or seen_s, default=self.launch_s)

    def _check_minutes(self) -> None:
        least_s = self.launch_s * (LEAST_TRIALS + SIDES * self.proof_launches)
        if self.budget_s is not None and self.budget_s < least_s:
            raise UserError(
                f"tune.budget.minutes={self.budget_s / 60:g} is too small: the defaults, one trial"
                f" and {self.proof_launches} launches of each side for the proof take"
                f" {least_s / 60:.1f} at least."
            )
