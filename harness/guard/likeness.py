"""What must be equal before numbers may be compared, and what may differ. Pure.

A difference of the first kind is a refusal: the numbers would be right but the conclusion wrong. It
can be allowed by name (`allow=driver_version`), and the comparison then says so. A difference of
the second kind (an engine setting, a version of vLLM) is a change: it may be what is being judged.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness.guard.evidence import Evidence, Measured
from harness.guard.outcome import Change, Refusal
from harness.guard.pairing import Matching, Pair, Point, by_setting, varying
from harness.validity import FATAL

NEVER = ("raw_samples", "simulated", "points")  # cannot be allowed: nothing could be compared

# The parts of the environment that determine how fast the same server is.
LIKE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "gpus": lambda found: [_kind_of(gpu) for gpu in found["gpus"]],
    "gpu_cards": lambda found: sorted(gpu["uuid"] for gpu in found["gpus"]),
    "driver_version": lambda found: found["driver_version"],
    "host": lambda found: {
        name: found["host"].get(name) for name in ("cpu_model", "num_cpus_usable", "cgroup_cpus")
    },
}
NONE, UNSET = "none", "default"  # something absent; a setting left to the server
NO_SAMPLES = "none: an aggregate cannot be judged"
SAME = ("measurement_version", "model")  # keys of study.json
OPTIONS = ("seed", "client")  # keys of its options
ALLOWABLE = (*SAME, *OPTIONS, "environment", *LIKE, "imitated_gpu", "prompts", *FATAL)


@dataclass(frozen=True, slots=True)
class Difference:
    """A named value that differs between the sides; `absent` is the text shown for None."""

    what: str
    baseline: Any
    candidate: Any
    absent: str = NONE


def refusals(
    baseline: Evidence, candidate: Evidence, matching: Matching, allow: Collection[str]
) -> tuple[Refusal, ...]:
    """Every difference that keeps the two from being compared, allowed or not."""
    found = [*_worthless(baseline, candidate), *_of_studies(baseline.about, candidate.about)]
    if baseline.runs and candidate.runs:
        found += _imitated(baseline, candidate)
        found += _points(baseline, candidate, matching)
        found += _prompts(matching)
        found += _void(matching.pairs)
    return _named(found, allow)


def refusals_of_one(
    evidence: Evidence, points: Iterable[Pair], allow: Collection[str]
) -> tuple[Refusal, ...]:
    """What keeps one study from being judged against a policy."""
    if not _has_samples(evidence):
        return _named([Difference("raw_samples", "", NO_SAMPLES)], allow)
    return _named(_void(points), allow)


def changes(baseline: Evidence, candidate: Evidence, matching: Matching) -> tuple[Change, ...]:
    """Differences that may be what the comparison is about: settings, versions, variables."""
    found = []
    if baseline.runs and candidate.runs:  # without runs, the engine's settings are unknown
        engines = [side.runs[0].engine for side in (baseline, candidate)]
        left_out = {*matching.swept, "gpu"}  # a simulator's GPU is not a setting: see _imitated
        names = [name for name in varying(engines) if name not in left_out]
        found += [_entry(f"engine.{name}", name, engines, UNSET) for name in names]
    monitors = [side.about.get("monitor") for side in (baseline, candidate)]
    if monitors[0] != monitors[1]:
        found.append(_differing("monitor", *monitors, absent=UNSET))
    versions = [_versions(side) for side in (baseline, candidate)]
    if baseline.good and candidate.good and versions[0] != versions[1]:
        found.append(Difference("vllm_version", *versions))
    for part in ("packages", "variables"):
        sides = [(s.about.get("environment") or {}).get(part) or {} for s in (baseline, candidate)]
        found += [_entry(name, name, sides) for name in sorted(varying(sides)) if name != "vllm"]
    return tuple(
        Change(
            what=one.what,
            baseline=_text(one.baseline, one.absent),
            candidate=_text(one.candidate, one.absent),
        )
        for one in found
    )


def environment_differences(
    mine: dict[str, Any] | None, theirs: dict[str, Any] | None
) -> Iterator[Difference]:
    """Differences between two machines' snapshots that make their speeds incomparable."""
    if mine is None or theirs is None:
        words = ("recorded" if found else "not recorded" for found in (mine, theirs))
        yield Difference("environment", *words)
        return
    for what, part in LIKE.items():
        if part(mine) != part(theirs):
            yield _differing(what, part(mine), part(theirs))
            if what == "gpus":  # another kind of GPU implies all the rest
                return


def _worthless(baseline: Evidence, candidate: Evidence) -> Iterator[Difference]:
    match _has_samples(baseline), _has_samples(candidate):
        case False, False:
            yield Difference("raw_samples", NONE, NO_SAMPLES)
        case False, True:
            yield Difference("raw_samples", NO_SAMPLES, "there")
        case True, False:
            yield Difference("raw_samples", "there", NO_SAMPLES)
    if baseline.simulated != candidate.simulated:
        words = ("simulated" if s.simulated else "measured" for s in (baseline, candidate))
        yield Difference("simulated", *words)


def _has_samples(evidence: Evidence) -> bool:
    """Whether there are runs, all good ones with raw samples: aggregates do not show noise."""
    return bool(evidence.runs) and all(run.has_samples for run in evidence.good)


def _of_studies(mine: dict[str, Any], theirs: dict[str, Any]) -> Iterator[Difference]:
    for what in SAME:
        if mine.get(what) != theirs.get(what):
            yield _differing(what, *_named_apart(mine.get(what), theirs.get(what)))
    options = [about.get("options") or {} for about in (mine, theirs)]
    for what in OPTIONS:
        values = [one.get(what) for one in options]
        if values[0] != values[1]:
            yield _differing(what, *values, absent=UNSET)
    yield from environment_differences(mine.get("environment"), theirs.get("environment"))


def _named_apart(mine: Any, theirs: Any) -> tuple[Any, Any]:
    """The names alone if they differ, as everything else then differs too; else both sides."""
    names = [side.get("name") if isinstance(side, dict) else None for side in (mine, theirs)]
    if None in names or names[0] == names[1]:
        return mine, theirs
    return names[0], names[1]


def _imitated(baseline: Evidence, candidate: Evidence) -> Iterator[Difference]:
    """A difference in the GPU imitated: a setting of the simulator, yet a different GPU."""
    if not (baseline.simulated and candidate.simulated):
        return
    sides = [{str(run.engine.get("gpu")) for run in s.runs} for s in (baseline, candidate)]
    if sides[0] != sides[1]:
        yield Difference("imitated_gpu", *(", ".join(sorted(gpus)) for gpus in sides))


def _points(baseline: Evidence, candidate: Evidence, matching: Matching) -> Iterator[Difference]:
    """The settings by which the studies differ, if they have no point in common."""
    if not matching.pairs:
        yield Difference("points", *apart(baseline.runs, candidate.runs, matching.swept))


def apart(
    baseline: Sequence[Point], candidate: Sequence[Point], swept: Collection[str]
) -> tuple[str, str]:
    """For sides that share no point: the settings that keep them apart, as text for each side."""
    sides = [[by_setting(point) for point in side] for side in (baseline, candidate)]
    must = [f"engine.{name}" for name in swept]
    found = []
    for name in varying(sides[0] + sides[1]):
        values = [dict.fromkeys(_text(one.get(name), UNSET) for one in side) for side in sides]
        if (name.startswith("load.") or name in must) and not values[0].keys() & values[1].keys():
            found.append([f"{name}={','.join(side)}" for side in values])
    told = zip(*found, strict=True) if found else (("another combination of settings",),) * 2
    mine, theirs = ("; ".join(side) for side in told)
    return mine, theirs


def _prompts(matching: Matching) -> Iterator[Difference]:
    """The first difference in prompts: one seed draws the same ones unless their file changed."""
    for pair in matching.pairs:
        theirs = {(run.launch_repeat, run.run_repeat): run.prompts for run in pair.candidate}
        for run in pair.baseline:
            other = theirs.get((run.launch_repeat, run.run_repeat), {})
            for number in sorted(run.prompts.keys() & other.keys()):
                if run.prompts[number] != other[number]:
                    told = (_lengths(number, side[number]) for side in (run.prompts, other))
                    yield Difference("prompts", *told)
                    return


def _void(pairs: Iterable[Pair]) -> Iterator[Difference]:
    """Fatal validity codes of the runs that would be compared."""
    sides: tuple[list[Measured], list[Measured]] = ([], [])
    for pair in pairs:
        sides[0].extend(pair.baseline)
        sides[1].extend(pair.candidate)
    for code in FATAL:
        voided = [[run.id for run in side if code in run.validity] for side in sides]
        if any(voided):
            totals = (len(side) for side in sides)
            told = (_some(ids, total) for ids, total in zip(voided, totals, strict=True))
            yield Difference(code, *told)


def _named(found: Iterable[Difference], allow: Collection[str]) -> tuple[Refusal, ...]:
    return tuple(
        Refusal(
            what=one.what,
            baseline=_text(one.baseline, one.absent),
            candidate=_text(one.candidate, one.absent),
            allowed=one.what in allow and one.what not in NEVER,
        )
        for one in found
    )


def _entry(what: str, name: str, sides: list[dict[str, Any]], absent: str = NONE) -> Difference:
    mine, theirs = (side.get(name) for side in sides)
    return Difference(what, mine, theirs, absent)


def _differing(what: str, mine: Any, theirs: Any, *, absent: str = NONE) -> Difference:
    """A difference, reduced to the entries that differ if both values are dicts."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        names = varying([mine, theirs])
        mine, theirs = ({name: side.get(name) for name in names} for side in (mine, theirs))
    return Difference(what, mine, theirs, absent)


def _versions(side: Evidence) -> str:
    found = {run.row.get("vllm_version") for run in side.good}
    return ", ".join(sorted(name for name in found if isinstance(name, str))) or NONE


def _kind_of(gpu: dict[str, Any]) -> str:
    watts = f" at {gpu['power_limit_w']:.0f} W" if gpu.get("power_limit_w") else ""
    return f"{gpu['name']}{watts}"


def _some(ids: list[str], total: int) -> str:
    if not ids:
        return "no run" if total else ""
    more = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
    return f"{len(ids)} of {total} runs: {', '.join(ids[:3])}{more}"


def _lengths(number: int, lengths: tuple[int, int]) -> str:
    return f"request {number} has {lengths[0]} tokens and asks for {lengths[1]}"


def _text(value: Any, absent: str) -> str:
    match value:
        case str():
            return value
        case None:
            return absent
        case list():
            counts = Counter(_text(one, absent) for one in value)
            return (
                ", ".join(f"{n}x {text}" if n > 1 else text for text, n in counts.items()) or NONE
            )
        case dict():
            return ", ".join(f"{name} {_text(one, absent)}" for name, one in value.items())
    return json.dumps(value, default=str)
