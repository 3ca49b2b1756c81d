"""What the plan of a tuning says."""

from pathlib import Path

from tests.harness.whole_tool import Tool


def test_the_plan_says_where_searches_begin(tmp_path: Path) -> None:
    done = Tool(tmp_path)("tune=capacity", "engine=sim", "plan=true")
    assert done.returncode == 0, done.stderr
    assert "searched in 8 runs at most, from " in done.stdout
    done = Tool(tmp_path)("tune=capacity", "engine=sim", "plan=true", "load.search.start_rps=7")
    assert "searched in 8 runs at most, from 7.00 req/s" in " ".join(done.stdout.split())
