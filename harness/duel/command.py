"""`python -m harness sweep=NAME ... against=BASELINE`: command-line words in, a duel out."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.checks.config import Checks
from harness.config import Config, compose
from harness.duel.baseline import baseline_of
from harness.duel.blocks import looks, schedule
from harness.duel.duel import Duel
from harness.errors import UserError
from harness.guard.command import ASKED, Asked
from harness.overrides import Words, parse
from harness.sweep import Sweep


def prepare(words: Sequence[str], command: Sequence[str], extra_conf_dir: Path | None) -> Duel:
    """Make the duel, after every check that needs no launch. Raises UserError."""
    said, settings = _parted(words)
    if not (against := said.pop("against")):
        raise UserError("against= needs a study's folder, or 'defaults'.")
    changes = {
        name.removeprefix("guard."): value
        for name, value in settings.settings.items()
        if name.startswith("guard.")
    }
    asked = Asked.of(said, changes, extra_conf_dir)
    kept = {n: v for n, v in settings.settings.items() if not n.startswith("guard.")}
    _check_words(kept)
    kept["repeats.launches"] = asked.guard.max_launches
    mine = replace(settings, settings=kept)
    candidate = _without_extras(compose(mine, extra_conf_dir))
    baseline = _without_extras(
        baseline_of(against, mine, candidate, allow=asked.allow, extra_conf_dir=extra_conf_dir)
    )
    sides = [Sweep.prepare(config, command) for config in (baseline, candidate)]
    when = looks(asked.guard.first_look, asked.guard.max_launches)
    planned = schedule(sides[0].plan, sides[1].plan, when)
    return Duel(
        baseline=replace(sides[0], plan=planned.baseline),
        candidate=replace(sides[1], plan=planned.candidate),
        schedule=planned,
        looks=when,
        asked=asked,
        against=against,
    )


def _parted(words: Sequence[str]) -> tuple[dict[str, str], Words]:
    """Splits the words into those for the comparison and those for the sweep."""
    said: dict[str, str] = {}
    left = []
    for word in words:
        name, equals, value = word.partition("=")
        if equals and name in ("against", *ASKED):
            if not value and name != "against":
                raise UserError(f"{name}= needs a value.")
            said[name] = f"{said[name]},{value}" if name == "allow" and name in said else value
        else:
            left.append(word)
    return said, parse(left)


def _check_words(settings: dict[str, object]) -> None:
    """Refuse settings that have no meaning where launches are added until settled."""
    for name in settings:
        if name in ("repeats", "repeats.launches"):
            raise UserError(
                f"{name} has no effect with against=: launches are added until the verdict is"
                " settled, up to guard.max_launches."
            )
        if name.partition(".")[0] == "checks":
            raise UserError(f"{name} has no effect with against=: a sweep of its own does checks.")


def _without_extras(config: Config) -> Config:
    """The configuration without checks; a profile is refused. Both need a sweep of their own."""
    if config.profile.kind != "none":
        raise UserError(
            f"profile={config.profile.kind} has no effect with against=: afterwards"
            f" `report CANDIDATE against=BASELINE profile={config.profile.kind}` captures what has"
            " regressed."
        )
    return replace(config, options=replace(config.options, checks=Checks()))
