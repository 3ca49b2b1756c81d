from pathlib import Path

import matplotlib.image
import pytest

from harness.strip_plot import COLOURS, draw_strip
from profiles.kernels import KernelClass
from profiles.strip import Piece, Row, Strip

RED, BLUE, BLACK = (0xD5, 0x5E, 0x00), (0x00, 0x72, 0xB2), (0x1A, 0x1A, 0x1A)


def row(label: str = "GPU 0") -> Row:
    return Row(
        label=label,
        busy_frac=0.75,
        by_class={
            "GEMM": (Piece(start_s=0.0, length_s=0.025),),
            "communication": (Piece(start_s=0.025, length_s=0.0125),),
        },
        class_frac={"GEMM": 0.5, "communication": 0.25},
        gaps=(Piece(start_s=0.0375, length_s=0.0125),),
    )


def pixels(path: Path, colour: tuple[int, int, int]) -> int:
    """How many are of a colour."""
    picture = (matplotlib.image.imread(path)[..., :3] * 255).round().astype(int)
    return int((picture == colour).all(axis=-1).sum())


def test_every_class_has_a_colour_of_its_own() -> None:
    assert set(COLOURS) == set(KernelClass)
    assert len(set(COLOURS.values())) == len(COLOURS)


def test_a_class_has_the_area_of_its_time_and_gaps_are_drawn(tmp_path: Path) -> None:
    told = Strip(start_s=1.0, length_s=0.05, rows=(row(),))
    path = draw_strip(told, "a trace", tmp_path / "strip.png")
    gemm, communication = pixels(path, BLUE), pixels(path, RED)
    assert gemm / communication == pytest.approx(2, rel=0.05)
    assert pixels(path, BLACK) > communication / 10


def test_each_device_has_a_strip_of_its_own(tmp_path: Path) -> None:
    one = Strip(start_s=0.0, length_s=0.05, rows=(row(),))
    two = Strip(start_s=0.0, length_s=0.05, rows=(row(), row("GPU 1")))
    areas = [pixels(draw_strip(s, "t", tmp_path / "s.png"), BLUE) for s in (one, two)]
    assert areas[1] > 1.5 * areas[0]


def test_a_trace_of_nothing_but_gaps_is_drawn(tmp_path: Path) -> None:
    empty = Row(label="GPU 0", busy_frac=0.0, by_class={}, class_frac={}, gaps=())
    told = Strip(start_s=0.0, length_s=1e-6, rows=(empty,))
    assert draw_strip(told, "", tmp_path / "strip.png").stat().st_size > 0
