import json
from pathlib import Path

import pytest

from harness.cli import run
from harness.export import VLLM_BENCH, export
from tests.harness.builders import fill, plan, study


def test_what_is_missing_is_written_and_what_is_there_is_kept_as_the_help_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = plan("load.concurrency=2,4")
    kept = study(tmp_path, made)
    fill(kept, made, num=10)
    export(kept)
    lost, there = sorted(kept.folder.glob(f"runs/*/{VLLM_BENCH}"))
    assert json.loads(lost.read_text())["completed"] == 10
    lost.unlink()
    there.write_text("mine")
    export(kept)
    assert lost.is_file()
    assert there.read_text() == "mine"
    assert run(["--help", "table"]) == 0
    assert "one that is there is kept" in " ".join(capsys.readouterr().out.split())
