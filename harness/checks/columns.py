"""The columns that an engine setting's checks add to its rows."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from harness.checks.accuracy import Accuracy, UnpairedError, delta
from harness.checks.answers import Answers, passes
from harness.checks.task_accuracy import Score, mean
from harness.study import Study

SEED = 0  # of the bootstrap: the same answers give the same intervals
RANDOM_WEIGHTS = "random weights"
# What a load must share with the one used offline for the two throughputs to be comparable.
OFFLINE_ALIKE = ("input_tokens", "output_tokens", "prompts", "conversation", "ignore_eos")

NOTHING: dict[str, Any] = {
    "longest_context_tokens": None,
    "longest_context_s": None,
    "longest_context_limit": None,
    "offline_output_tok_per_s": None,
    **dict.fromkeys(Accuracy.__dataclass_fields__),
    "accuracy_reference": None,
    "task_accuracy_frac": None,
    "task_accuracy_stderr_frac": None,
    "task_accuracy_tasks": None,
}


def check_columns(study: Study, about: Mapping[str, Any]) -> "Checked":
    """The results of all checks of a study, read once."""
    found = {setting: study.checks(setting) for setting in study.checked()}
    asked = ((about.get("options") or {}).get("checks") or {}).get("accuracy")
    if asked is not None and about["model"].get("shape"):
        accuracy = {setting: {"accuracy_reference": RANDOM_WEIGHTS} for setting in found}
    else:
        accuracy = _accuracy(study, found, asked or {})
    return Checked(found=found, accuracy=accuracy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The results of a study's checks, by engine setting."""

    found: Mapping[str, Mapping[str, Any]]
    accuracy: Mapping[str, Mapping[str, Any]]

    def columns(self, setting: str, load: Mapping[str, Any]) -> dict[str, Any]:
        """The columns for a row with this engine setting and load."""
        return columns_of(self.found.get(setting, {}), load) | dict(self.accuracy.get(setting, {}))


def columns_of(
    found: Mapping[str, Mapping[str, Any] | None], load: Mapping[str, Any]
) -> dict[str, Any]:
    """The columns from `found`, which has each check's record by its name.

    A failed check gives nothing. `load` is the row's: offline throughput is given only to rows with
    the same lengths.
    """
    row = dict(NOTHING)
    if context := _ok(found.get("longest_context")):
        row["longest_context_tokens"] = context["tokens"]
        row["longest_context_s"] = context["took_s"]
        row["longest_context_limit"] = context["limit"]
    if task := _ok(found.get("task_accuracy")):
        row |= _task_accuracy(task)
    if (offline := _ok(found.get("offline"))) and _is_alike(offline["load"], load):
        row["offline_output_tok_per_s"] = offline["output_tok_per_s"]
    return row


def _task_accuracy(record: Mapping[str, Any]) -> dict[str, Any]:
    if record.get("weights") == "random":
        return {"task_accuracy_tasks": RANDOM_WEIGHTS}
    scores = [Score(**told) for told in record["scores"]]
    frac, stderr_frac = mean(scores)
    return {
        "task_accuracy_frac": frac,
        "task_accuracy_stderr_frac": stderr_frac,
        "task_accuracy_tasks": ", ".join(score.text for score in scores),
    }


def _accuracy(
    study: Study, found: Mapping[str, Mapping[str, Any]], asked: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Each setting compared with the first of the named references that has answers.

    The reference is compared with its own second pass, which gives the floor below which a
    difference means nothing.
    """
    records = {s: record for s, checks in found.items() if (record := _ok(checks.get("accuracy")))}
    reference = next(
        (
            (name, setting)
            for name in asked.get("reference", [])
            for setting, record in records.items()
            if name in record["cases"]
        ),
        None,
    )
    if reference is None:
        return {setting: {"accuracy_reference": "none was answered"} for setting in records}
    name, home = reference
    first, *again = _answers(study, home)
    rows = {}
    for setting in records:
        is_itself = setting == home
        answers = (again or [first])[0] if is_itself else _answers(study, setting)[0]
        try:
            measured = asdict(delta(first, answers, SEED))
        except UnpairedError as error:
            rows[setting] = {"accuracy_reference": f"{name}: {error}"}
            continue
        told = f"{name}, asked again" if is_itself else name
        rows[setting] = {**measured, "accuracy_reference": told}
    return rows


def _answers(study: Study, setting: str) -> tuple[Answers, ...]:
    names = ("scored", "continued")
    return passes({name: study.check_samples(setting, f"accuracy_{name}") for name in names})


def _is_alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    is_trace = "trace" in (one["arrival"], other["arrival"])
    return not is_trace and all(one.get(name) == other.get(name) for name in OFFLINE_ALIKE)


def _ok(record: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return record if record is not None and record["status"] == "ok" else None
