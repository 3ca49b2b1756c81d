"""What a tuning tried and found, in words for people. Pure."""

from dataclasses import replace

from harness.columns import metric
from harness.guard import summary as guard
from harness.guard.outcome import Verdict
from harness.guard.summary import number
from harness.tune.finding import Finding
from harness.tune.proof import Proof
from harness.tune.trial import Trial, chosen, setting_text
from harness.units import percent


def gain_text(gain: Finding) -> str:
    """Output tok/s +81.2 % [73.0 to 88.4]."""
    title, _ = metric(gain.metric)
    if gain.ratio is None:
        return f"{title}: {gain.reason}"
    return f"{number(gain.ratio)} % {title} [{interval_text(gain)}]"


def price_text(proof: Proof) -> str:
    """What is worse for it: each regression that is not a goal's, by the guard, all together."""
    goals = {gain.metric for gain in proof.gains}
    worse = [one for one in proof.comparison.of(Verdict.REGRESSED) if one.metric not in goals]
    if len({str(one.point) for one in proof.comparison.points}) == 1:  # which, goes without saying
        worse = [replace(one, point={}) for one in worse]
    return "; ".join(map(guard.told, worse))


def interval_text(found: Finding) -> str:
    """+73.0 to +88.4 %."""
    if found.low is None or found.high is None:
        return "no interval"
    return f"{number(found.low)} to {number(found.high)} %"


def constraint_text(found: Finding) -> str:
    """tpot_p99_s < 0.03: kept, 22.9 ms of 30.0 (22.1 to 23.8)."""
    _, form = metric(found.metric)
    if found.after is None or found.before is None:
        return f"{found.what}: {found.word} ({found.reason})"
    text = f"{found.what}: {found.word}, {form(found.after)} of {form(found.before)}"
    if found.low is None or found.high is None:
        return text
    return f"{text} [{form(found.low * found.before)} to {form(found.high * found.before)}]"


def came_of(trial: Trial) -> str:
    """A trial in a line."""
    text = setting_text(chosen(trial.setting))
    match trial.state:
        case "failed":
            return f"{text}: failed ({trial.failure})"
        case "screened":
            return f"{text}: a clear loser"
    score = "not measured" if trial.score is None else score_text(trial.score)
    doubts = f" ({' '.join(codes)})" if (codes := trial.fatal_codes) else ""
    return f"{text}: {score}{doubts}" + "".join(f", breaks {one}" for one in trial.violations)


def score_text(score: float) -> str:
    """A score as a change of the defaults: +81.2 %."""
    return f"{'+' if score >= 1 else '−'}{percent(abs(score - 1))} %"
