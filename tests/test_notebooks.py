"""The notebooks, executed on the reference results as cloned."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.conclusions.rows import NO_ANSWER
from harness.plan import Plan
from harness.study import Study
from tests.harness.builders import fill, plan, study, void

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
REFERENCE = "results/reference"
BOXES = ("2xh200", "h200")
LIMIT_S = 280.0  # for a kernel to start and work on a busy machine: 4 s are usual
pytestmark = pytest.mark.timeout(300)


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    told = json.loads(path.read_text())
    return [cell for cell in told["cells"] if cell["cell_type"] == kind]


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def printed(cell: dict[str, Any]) -> str:
    streams = (out for out in cell["outputs"] if out["output_type"] == "stream")
    return "".join("".join(out["text"]) for out in streams if out["name"] == "stdout")


def place(folder: Path, notebook: Path) -> Path:
    """A copy beside the reference results, and beside no others that this machine may have."""
    (folder / "notebooks").mkdir()
    for box in BOXES:
        (folder / REFERENCE / box).mkdir(parents=True)
        for path in (ROOT / REFERENCE / box).iterdir():
            (folder / REFERENCE / box / path.name).symlink_to(path)
    return Path(shutil.copy(notebook, folder / "notebooks"))


def executed(path: Path, home: Path) -> Path:
    """The notebook with its outputs; a cell that raises fails the test with its traceback."""
    jupyter = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "MPLCONFIGDIR")
    homes = {name: str(home / name.lower()) for name in jupyter}
    done = subprocess.run(
        [sys.executable, "-m", "jupyter", "execute", "--inplace", path.name],
        cwd=path.parent,
        env={**os.environ, **homes, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return path


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_kept_without_outputs(path: Path) -> None:
    for cell in cells(path, "code"):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_begins_with_a_question_and_ends_with_a_computed_answer(path: Path) -> None:
    every = json.loads(path.read_text())["cells"]
    assert every[0]["cell_type"] == "markdown"
    assert source(every[0]).startswith("# ")
    assert source(every[0]).splitlines()[0].endswith("?")
    assert source(every[-2]) == "## Answer"
    assert "print(" in source(every[-1])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_on_the_repository_as_cloned_and_prints_an_answer(
    path: Path, tmp_path: Path
) -> None:
    last = cells(executed(place(tmp_path, path), tmp_path), "code")[-1]
    assert printed(last).strip()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("03_precision", "Nothing is known of their accuracy."),
        ("04_kv_cache", "Nothing that was measured tells where it saturates."),
        ("05_multi_gpu", "Concurrency 32: replicas2 gives 3.00 × one GPU"),
    ],
)
def test_where_its_study_is_there_it_answers_by_that_and_says_what_was_simulated(
    name: str, says: str, tmp_path: Path
) -> None:
    sweep = {"05_multi_gpu": "parallel"}.get(name, name[3:])
    kept, _ = simulated(tmp_path, sweep)
    told = answered(tmp_path, name, {sweep: kept})
    assert says in told
    assert "SIMULATED" in told


@pytest.mark.parametrize(
    ("name", "sweeps"),
    [
        ("02_latency_vs_batch", ("baseline", "batching")),
        ("03_precision", ("precision",)),
        ("05_multi_gpu", ("parallel",)),
    ],
)
def test_of_a_study_that_is_void_it_concludes_nothing_and_says_why(
    name: str, sweeps: tuple[str, ...], tmp_path: Path
) -> None:
    made = {}
    for sweep in sweeps:
        kept, chosen = simulated(tmp_path, sweep)
        void(kept, *(run.id for run in chosen.runs))
        made[sweep] = kept
    told = answered(tmp_path, name, made)
    assert told.count(NO_ANSWER) == len(sweeps)
    assert told.count("Left out as void: ") == told.count(", by client_busy") == len(sweeps)


def simulated(folder: Path, sweep: str) -> tuple[Study, Plan]:
    """A study of a sweep, and its plan."""
    chosen = plan(f"sweep={sweep}", "model=llama-3.1-8b")
    kept = study(folder / "made", chosen, simulated=True)
    fill(kept, chosen)
    return kept, chosen


def answered(folder: Path, name: str, studies: dict[str, Study]) -> str:
    """What a notebook prints at its end where these sweeps are its only studies of their kind."""
    path = place(folder, ROOT / "notebooks" / f"{name}.ipynb")
    for sweep, kept in studies.items():
        for measured in (folder / REFERENCE).glob(f"*/{sweep}*"):
            if measured.name != "batching_traced":  # it is read for its traces
                measured.unlink()
        (folder / REFERENCE / "2xh200" / sweep).symlink_to(kept.folder)
    return printed(cells(executed(path, folder), "code")[-1])
