"""What a tuning tried and found, as text for people. Pure."""

from dataclasses import replace

from harness.columns import metric
from harness.guard import summary as guard
from harness.guard.outcome import Verdict
from harness.guard.summary import number
from harness.tune.finding import Finding
from harness.tune.proof import Proof
from harness.tune.trial import Trial, chosen, setting_text
from harness.units import percent, plural, unit_of


def gain_text(gain: Finding) -> str:
    """A gain with its interval, e.g. "+81.2 % output tok/s [+73.0 to +88.4 %]"."""
    title, _ = metric(gain.metric)
    if gain.ratio is None:
        return f"{title}: {gain.reason}"
    return f"{number(gain.ratio)} % {title} [{interval_text(gain)}]"


def price_text(proof: Proof) -> str:
    """What got worse in exchange: the guard's regressions in columns that are not goals."""
    goals = {gain.metric for gain in proof.gains}
    worse = [one for one in proof.comparison.of(Verdict.REGRESSED) if one.metric not in goals]
    if len({str(one.point) for one in proof.comparison.points}) == 1:  # no need to name the point
        worse = [replace(one, point={}) for one in worse]
    return "; ".join(map(guard.told, worse))


def interval_text(found: Finding) -> str:
    """An interval, e.g. "+73.0 to +88.4 %"."""
    if found.low is None or found.high is None:
        return "no interval"
    return f"{number(found.low)} to {number(found.high)} %"


def constraint_text(found: Finding) -> str:
    """Like "tpot_p99_s < 1.1 x defaults: kept, 22.9 ms [22.1 to 23.8], and the limit is 30 ms"."""
    _, form = metric(found.metric)
    if found.after is None or found.before is None:
        return f"{found.what}: {found.word} ({found.reason})"
    unit = f" {unit_of(found.metric)}".rstrip()
    text = f"{found.what}: {found.word}, {form(found.after)}{unit}"
    if found.low is not None and found.high is not None:
        text += f" [{form(found.low * found.before)} to {form(found.high * found.before)}]"
    return f"{text}, and the limit is {form(found.before)}{unit}"


def came_of(trial: Trial) -> str:
    """A trial's setting and outcome in one line."""
    text = setting_text(chosen(trial.setting))
    match trial.state:
        case "failed":
            return f"{text}: failed ({trial.failure})"
        case "screened":
            return f"{text}: a clear loser"
    score = "not measured" if trial.score is None else score_text(trial.score)
    doubts = f" ({' '.join(codes)})" if (codes := trial.fatal_codes) else ""
    return f"{text}: {score}{doubts}" + "".join(f", breaks {one}" for one in trial.violations)


def progress_text(trial: Trial, best: Trial | None) -> str:
    """A trial that has just ended, and the best so far.

    The best may have the lower score of the two, because the highest measurements are partly luck
    and the simplest among equals is preferred (harness/tune/strategy.py).
    """
    if best is None or best.score is None:
        far = "none so far keeps the constraints"
    elif best.number == trial.number:
        far = "the best so far"
    else:
        is_higher = trial.is_feasible and trial.score is not None and trial.score > best.score
        despite = ", allowing for noise," if is_higher else ""
        far = f"the best so far{despite} is trial {best.number} with {score_text(best.score)}"
    return f"trial {trial.number}, {came_of(trial)}; {far}"


def so_far_text(num_trials: int, best: Trial | None, proof_launches: int) -> str:
    """What an interrupted tuning has found, and how far its proof has come."""
    text = f"{plural(num_trials, 'trial')} so far"
    if best is None or best.score is None or not chosen(best.setting):
        return text
    found = f"{setting_text(chosen(best.setting))} with {score_text(best.score)}"
    return (
        f"{text}, the best is {found}, not proven ({plural(proof_launches, 'launch')} of its proof)"
    )


def score_text(score: float) -> str:
    """A score as a change against the defaults, e.g. "+81.2 %"."""
    return f"{'+' if score >= 1 else '−'}{percent(abs(score - 1))} %"
