"""`python -m harness compare`: command-line words in, comparison and exit code out."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from harness.errors import UserError
from harness.guard.comparison import compare, hold
from harness.guard.config import Guard, read_guard
from harness.guard.evidence import read_evidence
from harness.guard.junit import junit
from harness.guard.likeness import ALLOWABLE, NEVER
from harness.guard.outcome import Comparison
from harness.guard.policy import read_policy
from harness.guard.summary import paragraph
from harness.overrides import did_you_mean

USAGE = "compare BASELINE CANDIDATE, or compare STUDY policy=NAME"
FILES: dict[str, Callable[[Comparison], str]] = {
    "json": Comparison.to_json,
    "junit": junit,
    "markdown": paragraph,
}
ASKED = ("metrics", "allow", "guard", *FILES)
NAMES = (*ASKED, "policy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """How a comparison is to be judged, and which files it is to be written to."""

    guard: Guard
    allow: tuple[str, ...]
    files: dict[str, Path]  # format (json, junit, markdown) -> file

    @classmethod
    def of(
        cls,
        said: Mapping[str, str],
        changes: Mapping[str, Any] | None = None,
        extra_conf_dir: Path | None = None,
    ) -> Self:
        """From the command line; `changes` are settings of the guard. Raises UserError."""
        files = {name: Path(said[name]) for name in FILES if name in said}
        for name, path in files.items():
            if not path.resolve().parent.is_dir():
                raise UserError(f"{name}={path}: there is no such folder.")
            if path.is_dir():
                raise UserError(f"{name}={path}: that is a folder, expected a file's name.")
        guard = read_guard(said.get("guard", "default"), changes, extra_conf_dir)
        return cls(guard=_asked(guard, said), allow=allowed(said), files=files)

    def conclude(self, found: Comparison) -> int:
        """Write and print the comparison; returns the exit code."""
        from harness.guard.screen import print_comparison
        from harness.terminal import Terminal

        print_comparison(Terminal(), found)
        for name, path in self.files.items():
            try:
                path.write_text(FILES[name](found))
            except OSError as error:
                raise UserError(f"{name}={path} cannot be written: {error.strerror}.") from None
        return found.verdict.exit_code


def run(words: Sequence[str], extra_conf_dir: Path | None = None) -> int:
    """Carry out the verb; returns the exit code. Raises UserError."""
    folders, said = parted(words, verb="compare", names=NAMES, usage=USAGE)
    asked = Asked.of(said, extra_conf_dir=extra_conf_dir)
    guard, allow = asked.guard, asked.allow
    policy = read_policy(said["policy"], extra_conf_dir) if "policy" in said else None
    match [read_evidence(Path(folder)) for folder in folders]:
        case [baseline, candidate]:
            found = compare(baseline, candidate, guard, allow=allow, policy=policy)
        case [study] if policy:
            found = hold(study, policy, guard, name=said["policy"], allow=allow)
        case _:
            raise UserError(f"compare takes two studies, or one and a policy: {USAGE}.")
    return asked.conclude(found)


def parted(
    words: Sequence[str], *, verb: str, names: Collection[str], usage: str
) -> tuple[list[str], dict[str, str]]:
    """A verb's folders, and its options by name. `--allow X` is the same as allow=X.

    Raises UserError for an option that is not among `names`, or has no value.
    """
    folders: list[str] = []
    said: dict[str, str] = {}
    left = list(words)
    while left:
        word = left.pop(0)
        name, equals, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and not equals:
            value = left.pop(0) if left else ""
        elif not equals or Path(word).exists():
            folders.append(word)
            continue
        if name not in names:
            raise UserError(f"{verb} has no '{name}'.{did_you_mean(name, names)} {usage}.")
        if not value:
            raise UserError(f"{verb}: {name} needs a value.")
        said[name] = f"{said[name]},{value}" if name == "allow" and name in said else value
    return folders, said


def _asked(guard: Guard, said: Mapping[str, str]) -> Guard:
    """The guard with the metrics that are asked for. Raises UserError."""
    metrics = _listed(said, "metrics")
    for metric in metrics:
        if metric not in (known := guard.thresholds_frac):
            hint = did_you_mean(metric, known)
            raise UserError(
                f"metrics={metric}: the guard has no threshold for it.{hint}"
                f" There are: {', '.join(known)}."
            )
    return replace(guard, metrics=metrics) if metrics else guard


def allowed(said: Mapping[str, str]) -> tuple[str, ...]:
    """The differences that `allow=` lets through, by name. Raises UserError."""
    allow = _listed(said, "allow")
    for what in allow:
        if what in NEVER:
            raise UserError(f"allow={what}: without it there is nothing to compare.")
        if what not in ALLOWABLE:
            hint = did_you_mean(what, ALLOWABLE)
            known = ", ".join(ALLOWABLE)
            raise UserError(f"allow={what}: there is no such difference.{hint} There are: {known}.")
    return tuple(allow)


def _listed(said: Mapping[str, str], name: str) -> list[str]:
    parts = said.get(name, "").strip("[]").replace(" ", "").split(",")
    return list(dict.fromkeys(part for part in parts if part))  # named twice is judged once
