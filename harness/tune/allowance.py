"""What a budget allows: how many launches the search may take, and what the proof keeps. Pure.

The proof comes first: `launches` of either side are kept for it from the beginning, and for the
ablation of as many settings as leave the search at least half of the whole. What the search does
not use, the ablation may.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import UserError
from harness.tune.config import Tune

SIDES = 2  # of a proof without ablation
LEAST_TRIALS = 2  # the defaults, and anything else


def launches_for(proof_launches: int, ablated: int) -> int:
    """A budget that is sure to hold the ablation of so many settings."""
    return 2 * proof_launches * (SIDES + ablated)


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """Of search and proof together. `launch_s` is what a launch should take before any was seen."""

    launches: int
    budget_s: float | None
    proof_launches: int  # of each side
    ablated: int  # settings whose ablation is kept room for
    launch_s: float

    @classmethod
    def of(cls, tune: Tune, *, names: int, launch_s: float) -> "Allowance":
        """For a space of so many names. Raises UserError where the minutes cannot do."""
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
        """Launches that are kept for the proof."""
        return self.proof_launches * (SIDES + self.ablated)

    @property
    def search_launches(self) -> int:
        """Launches that the search may take."""
        return self.launches - self.reserved

    def stop(
        self,
        spent: int,
        spent_s: float,
        seen_s: Sequence[float],
        proof_s: Sequence[float] | None = None,
    ) -> str | None:
        """Why there is to be no further trial; None where one more is allowed.

        `spent`: launches so far, those of earlier proofs too; `seen_s`: how long they took;
        `proof_s`: and would have taken in the proof, if that is known. Where time is short, the
        ablation goes first.
        """
        if spent >= self.search_launches:
            return f"{spent} launches are spent, {self.reserved} are kept for the proof"
        if self.budget_s is None:
            return None
        each_s = self._each_s(seen_s if proof_s is None else proof_s)
        needed_s = self._each_s(seen_s) + SIDES * self.proof_launches * each_s
        if spent_s + needed_s > self.budget_s:
            return "the minutes that are left are kept for the proof"
        return None

    def ablations(self, spent: int, spent_s: float, seen_s: Sequence[float]) -> int:
        """How many settings can be left out once, with what is left after so many launches. What
        was never launched has yet to be compiled: each is given as long as a trial.
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
        """What a launch is given: the longest so far, but for the first, which compiles."""
        return max(seen_s[1:] or seen_s, default=self.launch_s)

    def _check_minutes(self) -> None:
        least_s = self.launch_s * (LEAST_TRIALS + SIDES * self.proof_launches)
        if self.budget_s is not None and self.budget_s < least_s:
            raise UserError(
                f"tune.budget.minutes={self.budget_s / 60:g} is too small: the defaults, one trial"
                f" and {self.proof_launches} launches of each side for the proof take"
                f" {least_s / 60:.1f} at least."
            )
