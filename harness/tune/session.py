"""What search and proof share in one command: the load generator and the budget.

study.json keeps what a resumed command must know: the time spent (`spent_s`), how long each launch
took (`seen_s`) and would have taken in the proof (`proof_s`), the budget with which the search
ended and why (`searched`), and which winner and settings the proof covers (`proof`).
"""

from dataclasses import dataclass, field
from pathlib import Path

from harness.instrument import Instrument
from harness.study import Study
from harness.sweep import Sweep
from harness.tune.proof import SWEEP
from harness.tune.search import Search


@dataclass(slots=True, kw_only=True)
class Session:
    """One command's share of a tuning."""

    sweep: Sweep  # provides the instrument
    study: Study
    search: Search
    noted: set[str] = field(default_factory=set, init=False)  # shared by the displays of both parts
    _instrument: Instrument | None = field(default=None, init=False)

    def instrument(self) -> Instrument:
        """The load generator of the whole command, calibrated before its first launch."""
        if self._instrument is None:
            self._instrument = self.sweep.instrument(self.study)
        return self._instrument

    @property
    def spent_s(self) -> float:
        """How long all launches took together."""
        return float(self.study.about.get("spent_s", 0.0))

    @property
    def seen_s(self) -> list[float]:
        """How long each complete launch took, i.e. each that measured everything."""
        return list(self.study.about.get("seen_s", ()))

    @property
    def proof_s(self) -> list[float]:
        """How long each of the complete launches would have taken in the proof."""
        return list(self.study.about.get("proof_s", self.seen_s))

    def spend(self, seconds: float, *, is_whole: bool, spared_s: float = 0.0) -> None:
        """Account for a launch.

        `is_whole` says whether it measured everything, `spared_s` how much of its time a launch of
        the proof would not need.
        """
        seen_s, proof_s = self.seen_s, self.proof_s
        if is_whole:
            seen_s, proof_s = [*seen_s, seconds], [*proof_s, seconds - spared_s]
        self.study.add(spent_s=self.spent_s + seconds, seen_s=seen_s, proof_s=proof_s)

    def launches(self, but: Path | None = None) -> int:
        """Number of launches so far, of the search and of all proofs except the one in `but`."""
        proofs = proof_launches(self.study)
        return len(self.search.trials) + sum(path.parents[1] != but for path in proofs)


def proof_launches(study: Study) -> list[Path]:
    """The folders of the launches of all proofs of a tuning."""
    return list(study.folder.glob(f"{SWEEP}/*/launches/*"))
