"""Plots of a search: history, importance, a slice along each setting, and the Pareto front."""

from collections.abc import Sequence
from itertools import accumulate
from math import exp
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.tables import SIMULATED
from harness.tune.answer import Answer, Tried, read
from harness.units import value_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PREFIX = "tune_"
SLICES_IN_ROW = 3
LEAST_FRAC = 0.1  # the least range of the score shown to either side of the defaults
LEAST_SHARE = 0.001  # of the variance; settings that explain less are left out
GOOD, BAD, SHORT = "C0", "C3", "C7"
KINDS = {  # label, colour, mark
    "kept": ("kept all constraints", GOOD, "o"),
    "broke": ("broke a constraint", BAD, "x"),
    "short": ("clear loser, short run", SHORT, "v"),
}


def draw_answer(folder: Path) -> list[Path]:
    """Draw the plots of the study whose plots folder this is; none before it has an answer."""
    answer = read(folder.parent)
    return [] if answer is None else draw(answer, folder)


def draw(answer: Answer, folder: Path) -> list[Path]:
    """Draw every plot that the answer has data for; returns the files."""
    import matplotlib as mpl

    mpl.use("agg")
    figures = {
        "history": _history(answer),
        "importance": _importance(answer),
        "slices": _slices(answer),
        "pareto": _pareto(answer),
    }
    drawn = []
    for name, figure in figures.items():
        path = folder / f"{PREFIX}{name}.png"
        if figure is None:
            path.unlink(missing_ok=True)
            continue
        folder.mkdir(exist_ok=True)
        drawn.append(_save(figure, path, below=0.35 if name == "slices" else 0.0))
    return drawn


def _scored(answer: Answer) -> list[Tried]:
    return [one for one in answer.tried if one.score is not None]


def _varied(answer: Answer) -> list[str]:
    """The settings of which more than one value was measured."""
    scored = _scored(answer)
    return [n for n in answer.names if len({one.setting.get(n) for one in scored}) > 1]


def _scores(chosen: Sequence[Tried]) -> list[float]:
    return [one.score for one in chosen if one.score is not None]


def _history(answer: Answer) -> "Figure | None":
    """Each trial's score, and the best score so far that kept all constraints."""
    from matplotlib.ticker import MaxNLocator

    scored = _scored(answer)
    if len(scored) < 2:
        return None
    figure, plot = _figure(answer, "What was tried, in order", width=8.0, height=4.2)
    for label, colour, mark, chosen in _kinds(scored):
        x = [one.number for one in chosen]
        plot.plot(x, _scores(chosen), mark, color=colour, label=label)
    for one in answer.tried:
        if one.state == "failed":
            plot.axvline(one.number, color=BAD, ls=":", lw=1)
            plot.text(one.number, 0.02, f" {one.failure}", rotation=90, fontsize=7, color=BAD,
                      va="bottom", transform=plot.get_xaxis_transform())  # fmt: skip
    good = [one.score or 0.0 if one.is_feasible else 0.0 for one in answer.tried]
    best = [value or None for value in accumulate(good, max)]
    numbers: Any = [one.number for one in answer.tried]
    steps: Any = best
    plot.step(numbers, steps, where="post", color=GOOD, alpha=0.6, label="best so far")
    _mark_proof(answer, plot)
    plot.axhline(1, color="0.6", lw=0.8)
    _dress(plot, x="trial (0 is the defaults)", y="times as good as the defaults")
    plot.xaxis.set_major_locator(MaxNLocator(integer=True))
    plot.legend(fontsize=8)
    return figure


def _mark_proof(answer: Answer, plot: "Axes") -> None:
    """Mark the winner's gain in the proof, with its interval, after the last trial."""
    if answer.proof is None or len(answer.goals) > 1:
        return
    (gain,), ((_, is_up),) = answer.proof.gains, answer.goals
    if gain.ratio is None or gain.low is None or gain.high is None:
        return
    at, *ends = (x if is_up else 1 / x for x in (gain.ratio, gain.low, gain.high))
    low, high = sorted(ends)
    label = f"proof of trial {answer.winner}, {answer.proof.confidence * 100:g} % interval"
    plot.errorbar(
        [len(answer.tried)], [at], yerr=[[at - low], [high - at]], fmt="s", color="C2", capsize=4,
        label=label,
    )  # fmt: skip
    plot.set_ylim(top=min(plot.get_ylim()[1], 1.6 * max(1.0, at, *_scores(_scored(answer)))))


def _importance(answer: Answer) -> "Figure | None":
    """The share of the score's variance that each setting explains alone.

    Where all trials had the same value of a setting, only the prior speaks of it.
    """
    from matplotlib.patches import Patch

    shares = {n: share for n, share in answer.importances.items() if share > LEAST_SHARE}
    if not shares:
        return None
    names, varied = sorted(shares, key=lambda name: shares[name]), _varied(answer)
    figure, plot = _figure(answer, "What mattered", width=8.0, height=1.6 + 0.3 * len(names))
    for name in names:
        colour = GOOD if name in varied else "none"
        plot.barh(name, 100 * shares[name], height=0.6, color=colour, edgecolor=GOOD)
    if set(names) - set(varied):
        unvaried = Patch(facecolor="none", edgecolor=GOOD, label="never varied: by the prior alone")
        plot.legend(handles=[unvaried], fontsize=8, loc="lower right")
    plot.set_xlabel("% of the variance that it explains alone, by the search's model")
    plot.set_xlim(0, max(100 * share for share in shares.values()) * 1.08)
    plot.grid(alpha=0.3, axis="x")
    return figure


def _slices(answer: Answer) -> "Figure | None":
    """The score against each setting's values, whatever the other settings were."""
    from matplotlib import pyplot as plt
    from matplotlib.lines import Line2D

    scored, names = _scored(answer), _varied(answer)
    if len(scored) < 3 or not names:
        return None
    rows = -(-len(names) // SLICES_IN_ROW)
    columns = min(SLICES_IN_ROW, len(names))
    size = (max(5.0, 3.4 * columns), 2.6 * rows + 1.4)
    figure, panels = plt.subplots(rows, columns, figsize=size, sharey=True, squeeze=False)
    figure.suptitle(_title(answer, "Along each setting"), fontsize=10)
    flat = list(panels.flat)
    for plot, name in zip(flat, names, strict=False):
        _slice(plot, name, scored)
    for plot in flat[len(names) :]:
        plot.remove()
    for row in panels:
        row[0].set_ylabel("x defaults")
    marks = {label: Line2D([], [], ls="", color=c, marker=m) for label, c, m, _ in _kinds(scored)}
    figure.legend(marks.values(), marks.keys(), loc="lower center", ncols=3, fontsize=8)
    return figure


def _slice(plot: "Axes", name: str, scored: Sequence[Tried]) -> None:
    values = {one.setting.get(name) for one in scored}
    ticks = [None, *sorted((v for v in values if v is not None), key=_order)]
    for label, colour, mark, chosen in _kinds(scored):
        x = [ticks.index(one.setting.get(name)) for one in chosen]
        plot.plot(x, _scores(chosen), mark, color=colour, label=label, alpha=0.8)
    plot.set_xticks(range(len(ticks)), [value_text(v) for v in ticks], fontsize=8)
    plot.set_xlim(-0.5, len(ticks) - 0.5)
    plot.axhline(1, color="0.6", lw=0.8)
    plot.set_title(name, fontsize=9)
    _dress(plot)


def _order(value: Any) -> tuple[bool, Any]:
    is_text = not isinstance(value, int | float)
    return is_text, str(value) if is_text else value


def _pareto(answer: Answer) -> "Figure | None":
    """The two goals against each other, with the front."""
    scored = [one for one in _scored(answer) if len(one.gains) == 2]
    if len(answer.goals) != 2 or len(scored) < 2:
        return None
    (first, first_up), (second, second_up) = answer.goals

    def at(one: Tried) -> tuple[float, float]:
        x, y = one.gains
        return exp(x if first_up else -x), exp(y if second_up else -y)

    figure, plot = _figure(answer, "Pareto front", width=7.0, height=4.8)
    for label, colour, mark, chosen in _kinds(scored):
        places = [at(one) for one in chosen]
        plot.plot(*zip(*places, strict=True), mark, color=colour, label=label)
    front = sorted(at(one) for one in scored if one.number in answer.front)
    if front:
        plot.plot(*zip(*front, strict=True), "-", color=GOOD, alpha=0.6, label="front")
    for one in scored:
        plot.annotate(str(one.number), at(one), xytext=(5, 4), textcoords="offset points",
                      fontsize=8)  # fmt: skip
    _dress(plot, x=f"{first}, x defaults", y=f"{second}, x defaults", is_score=False)
    plot.legend(fontsize=8)
    return figure


def _kinds(scored: Sequence[Tried]) -> list[tuple[str, str, str, list[Tried]]]:
    """The trials grouped by what became of them: (label, colour, mark, trials)."""
    groups: dict[str, list[Tried]] = {kind: [] for kind in KINDS}
    for one in scored:
        kind = "short" if one.state == "screened" else "kept" if one.is_feasible else "broke"
        groups[kind].append(one)
    return [(*KINDS[kind], chosen) for kind, chosen in groups.items() if chosen]


def _title(answer: Answer, what: str) -> str:
    text = f"{what}: {answer.model}, {answer.engine}\n{answer.goals_text}"
    return f"{SIMULATED}\n{text}" if answer.simulated else text


def _figure(answer: Answer, what: str, *, width: float, height: float) -> "tuple[Figure, Axes]":
    from matplotlib import pyplot as plt

    figure, plot = plt.subplots(figsize=(width, height))
    figure.suptitle(_title(answer, what), fontsize=10)
    return figure, plot


def _dress(plot: "Axes", x: str = "", y: str = "", *, is_score: bool = True) -> None:
    if x:
        plot.set_xlabel(x)
    if y:
        plot.set_ylabel(y)
    if is_score:  # from 0, a gain of a few percent would be invisible; closer, noise looks like one
        low, high = plot.get_ylim()
        plot.set_ylim(max(0.0, min(low, 1 - LEAST_FRAC)), max(high, 1 + LEAST_FRAC))
    plot.grid(alpha=0.3)


def _save(figure: "Figure", path: Path, below: float) -> Path:
    """Save and close a figure; `below` inches are kept free at the foot for a legend."""
    from matplotlib import pyplot as plt

    figure.tight_layout(rect=(0, below / figure.get_figheight(), 1, 1))
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path
