"""How a launch is named in capacity.md."""

from pathlib import Path
from typing import Any

import pytest

from harness.capacity.page import _label
from harness.study import SavedRun

SEQS = {"case": ["full"], "engine.max_num_seqs": [None, 64]}


def label(axes: dict[str, list[Any]], max_num_seqs: int | None) -> str:
    record = {
        "case": "full",
        "engine": {"kind": "sim", "max_num_seqs": max_num_seqs},
        "load": {"concurrency": None},
    }
    return _label(SavedRun(record=record, launch={}, folder=Path()), {"axes": axes})


@pytest.mark.parametrize(
    ("axes", "max_num_seqs", "told"),
    [
        (SEQS, 64, "max_num_seqs=64"),
        (SEQS, None, "defaults"),
        ({"case": ["full"]}, None, "full"),
    ],
)
def test_a_launch_is_known_by_what_was_varied_else_by_its_case(
    axes: dict[str, list[Any]], max_num_seqs: int | None, told: str
) -> None:
    assert label(axes, max_num_seqs) == told
