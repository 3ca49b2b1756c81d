"""How far the simulator is from what was measured: every point of the reference results.

Plays each point of `results/reference/2xh200` in virtual time and prints Markdown: measured,
simulated, error. Points marked with a star were looked at when the constants were chosen; the last
lines sum up these and the others apart. No GPU, two minutes.

    python benchmarks/simulator_error.py
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.harness.sim.virtual import Clients, VirtualTime  # noqa: E402

REFERENCE = ROOT / "results/reference/2xh200"
STUDIES = ("baseline", "frontend", "batching", "batching_traced", "perf_story", "parallel")
# What a case sets beside the columns of the table.
SETTINGS = {
    "api_servers_4": {"api_server_count": 4},
    "both": {"api_server_count": 4},
    "seqs_512": {"api_server_count": 4},
    "graphs": {"api_server_count": 4, "graph_tokens": 8192},
    "graphs_seqs_512": {"api_server_count": 4, "graph_tokens": 8192},
    "eager": {"graph_tokens": 0},
    "no_async_scheduling": {"async_scheduling": False},
    "tp1": {"tensor_parallel_size": 1},
}
NAMES = ("output tok/s", "TTFT p50, ms", "TPOT p50, ms")
SCALES = (1.0, 1e3, 1e3)
KEYS = ["case", "concurrency", "rate_frac", "rate_rps", "max_num_seqs", "max_num_batched_tokens"]
MEASURED = ["output_tok_per_s", "ttft_p50_s", "tpot_p50_s"]
WINDOW_S = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    study: str
    case: str
    concurrency: int | None
    rate_frac: float | None
    rate_rps: float | None
    max_num_seqs: int
    max_num_batched_tokens: int
    warmup_s: float
    measured: tuple[float, ...]
    """Of NAMES: the median of all runs of this point."""

    @property
    def load(self) -> str:
        return f"{self.concurrency} streams" if self.concurrency else f"rate {self.rate_frac:.0%}"

    @property
    def fitted(self) -> bool:
        """Its trace, its times or its CPU shares were used, or variants were compared on it.

        `frontend`'s defaults are a point of `baseline` once more.
        """
        if self.study == "batching_traced":
            return self.max_num_seqs in (16, 256)
        return self.study == "baseline" or (self.study == "frontend" and self.case != "both")


def read_points(study: str) -> Iterator[Point]:
    table = pd.read_parquet(REFERENCE / study / "table.parquet")
    table = table[table["output_tok_per_s"].notna()].reindex(columns=[*KEYS, *MEASURED, "warmup_s"])
    table["case"] = table["case"].astype(object).fillna("")
    numbers = [name for name in table.columns if name != "case"]
    table[numbers] = table[numbers].astype(float)
    rows = table.groupby(KEYS, dropna=False, sort=False).median().reset_index()
    for row in rows.to_dict("records"):
        yield Point(
            study=study,
            case=row["case"],
            concurrency=None if pd.isna(row["concurrency"]) else int(row["concurrency"]),
            rate_frac=row["rate_frac"],
            rate_rps=None if pd.isna(row["rate_rps"]) else row["rate_rps"],
            max_num_seqs=int(row["max_num_seqs"]),
            max_num_batched_tokens=int(row["max_num_batched_tokens"]),
            warmup_s=row["warmup_s"],
            measured=tuple(row[name] for name in MEASURED),
        )


def simulate(point: Point) -> tuple[float, ...]:
    clients = Clients(
        time=VirtualTime(
            max_num_seqs=point.max_num_seqs,
            max_num_batched_tokens=point.max_num_batched_tokens,
            **SETTINGS.get(point.case, {}),
        ),
        warmup_s=point.warmup_s,
        window_s=WINDOW_S,
        concurrency=point.concurrency,
        rate_rps=point.rate_rps,
        output_tokens=(128, 128) if point.study == "batching" else (64, 192),
        stream_interval=8 if point.case in ("stream_interval_8", "both") else 1,
    ).run()
    return clients.output_tok_per_s, clients.ttft_s, clients.tpot_s


def main() -> None:
    print("| study | case | load | max seqs |", " | ".join(f"{n} | error %" for n in NAMES), "|")
    print("| :--- | :--- | :--- | ---: |" + " ---: | ---: |" * len(NAMES))
    errors: dict[bool, list[tuple[float, ...]]] = {True: [], False: []}
    for study in STUDIES:
        for point in read_points(study):
            simulated = simulate(point)
            pairs = list(zip(point.measured, simulated, strict=True))
            errors[point.fitted].append(tuple(ours / theirs - 1 for theirs, ours in pairs))
            cells = [
                f"{theirs * scale:,.3g} / {ours * scale:,.3g} | {100 * (ours / theirs - 1):+.0f}"
                if theirs * scale < 100
                else f"{theirs * scale:,.0f} / {ours * scale:,.0f} "
                f"| {100 * (ours / theirs - 1):+.0f}"
                for (theirs, ours), scale in zip(pairs, SCALES, strict=True)
            ]
            star = " *" if point.fitted else ""
            print(
                f"| {study}{star} | {point.case} | {point.load} | {point.max_num_seqs} |",
                " | ".join(cells),
                "|",
                flush=True,
            )
    for fitted, title in ((True, "points used for the fit"), (False, "other points")):
        print(f"\n{len(errors[fitted])} {title}, |error| median and worst:")
        for name, column in zip(NAMES, zip(*errors[fitted], strict=True), strict=True):
            absolute = [abs(error) for error in column]
            print(f"- {name}: {median(absolute):.0%}, {max(absolute):.0%}")


if __name__ == "__main__":
    main()
