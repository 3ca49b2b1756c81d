"""What failed: servers, with the log lines that say why, and requests by kind."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from harness.report.blocks import Block, Cell, Head, Log, Part, Section, Table, Text
from harness.report.contents import Contents
from harness.units import plural, whole

MAX_LINES = 40  # of a log
MAX_DETAILS = 5  # of failed requests, per kind
MAX_DETAIL_LETTERS = 400


def failures(contents: Contents) -> Section | None:
    blocks = (*_servers(contents), *_requests(contents))
    if not blocks:
        return None
    return Section(id="failures", title="Failures", blocks=blocks)


def _servers(contents: Contents) -> Iterator[Block]:
    """Each failure once, with the runs that it cost."""
    cost: dict[tuple[str, str], list[str]] = defaultdict(list)
    evidence: dict[tuple[str, str], list[str]] = {}
    for run in contents.saved:
        if not run.ok:
            _note(run.record["failure"], evidence)
            key = _key(run.record["failure"])
            cost[key].append(contents.label(str(run.record["id"])))
    for name, launch in contents.launches.items():
        if failure := launch.get("failure"):
            _note(failure, evidence)
            if not contents.saved:  # the runs are only in the table
                cost[_key(failure)] += _failed_of(contents, name)
    for key, lines in evidence.items():
        kind, message = key
        runs = cost[key]
        told = f"It cost {_runs(runs)}." if runs else "It cost no run."
        blocks: list[Block] = [Text(text=message, tone="bad"), Text(text=told, tone="muted")]
        if lines:
            blocks.append(Log(text="\n".join(lines[-MAX_LINES:])))
        yield Part(title=kind.replace("_", " "), blocks=tuple(blocks))
    yield from _untold(contents, {kind for kind, _ in evidence})


def _failed_of(contents: Contents, launch: str) -> list[str]:
    """Labels of a launch's failed runs."""
    runs = contents.runs
    failed = runs[(runs["launch"] == launch) & (runs["status"] != "ok")]
    return [contents.label(str(run)) for run in failed["run"]]


def _untold(contents: Contents, told: set[str]) -> Iterator[Block]:
    """Failures that only the table records."""
    failed = contents.runs[contents.runs["status"] != "ok"]
    for kind, runs in failed.groupby("failure"):
        if str(kind) not in told:
            labels = [contents.label(str(run)) for run in runs["run"]]
            words = f"It cost {_runs(labels)}. The log is not beside this report."
            yield Part(title=str(kind).replace("_", " "), blocks=(Text(text=words),))


def _key(failure: Mapping[str, Any]) -> tuple[str, str]:
    return str(failure["kind"]), str(failure["message"])


def _note(failure: Mapping[str, Any], evidence: dict[tuple[str, str], list[str]]) -> None:
    lines = [str(line) for line in failure.get("evidence") or ()]
    evidence[_key(failure)] = max(evidence.get(_key(failure), []), lines, key=len)


def _runs(labels: list[str]) -> str:
    counted = [
        f"{label} ({number} runs)" if number > 1 else label
        for label, number in Counter(labels).items()
    ]
    return f"{plural(len(labels), 'run')}: {'; '.join(counted)}"


def _requests(contents: Contents) -> Iterator[Block]:
    """Runs in which requests failed, with details from the server or the connection."""
    if "requests_failed" not in contents.runs:
        return
    failed = contents.runs[contents.runs["requests_failed"].fillna(0) > 0]
    if failed.empty:
        return
    heads = (
        Head(title="point", is_text=True),
        Head(title="run", is_text=True),
        Head(title="failed"),
        Head(title="of"),
        Head(title="how", is_text=True),
    )
    rows = tuple(
        (
            Cell(text=contents.label(row["run"])),
            Cell(text=str(row["run"]), is_code=True),
            Cell(text=whole(row["requests_failed"]), value=row["requests_failed"], tone="bad"),
            Cell(text=whole(row["requests_failed"] + row["requests_ok"])),
            Cell(text=str(row.get("failure_kinds") or "")),
        )
        for row in failed.to_dict("records")
    )
    blocks: list[Block] = [Table(heads=heads, rows=rows)]
    for kind, details in _details(contents, set(failed["run"])).items():
        told = [f"{number}×  {detail}" for detail, number in details.most_common(MAX_DETAILS)]
        blocks += [
            Text(text=f"{kind}, as the server or the connection told it:"),
            Log(text="\n".join(told)),
        ]
    yield Part(title="Requests that failed", blocks=tuple(blocks))


def _details(contents: Contents, runs: set[str]) -> dict[str, "Counter[str]"]:
    """The details of failed requests in these runs, counted by kind of failure."""
    import pyarrow.parquet as pq

    said: dict[str, Counter[str]] = defaultdict(Counter)
    for run in contents.saved:
        path = run.folder / "requests.parquet"
        if run.record["id"] in runs and path.is_file():
            failed = pq.read_table(
                path, columns=["failure", "detail"], filters=[("status", "=", "failed")]
            )
            for row in (
                failed.group_by(["failure", "detail"]).aggregate([([], "count_all")]).to_pylist()
            ):
                if row["detail"]:
                    said[row["failure"]][row["detail"][:MAX_DETAIL_LETTERS]] += row["count_all"]
    return said
