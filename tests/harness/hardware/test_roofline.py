import numpy as np

from harness.hardware.roofline import draw_roofline, draw_steady_state
from tests.harness.hardware.builders import card_of, measurement
from tests.harness.hardware.test_state import samples

KERNEL = measurement("kernels.rms_norm", time_s=1e-3, flops=1e9, moved_bytes=1e9, unit="B/s")


def test_a_card_with_a_measured_roof_is_drawn(tmp_path):
    path = tmp_path / "plots/roofline.png"
    assert draw_roofline([*card_of(0), *card_of(1), KERNEL], "two cards", path) == path
    assert path.stat().st_size > 10_000


def test_without_a_roof_nothing_is_drawn(tmp_path):
    assert draw_roofline([KERNEL], "no roof", tmp_path / "roofline.png") is None
    assert draw_roofline([], "nothing", tmp_path / "roofline.png") is None


def test_the_steady_state_is_drawn_with_and_without_samples(tmp_path):
    series = {0: {"at_s": np.arange(10.0), "flops_per_s": np.full(10, 7e14)}}
    for seen in (samples(), {}):
        path = tmp_path / "plots/steady_state.png"
        assert draw_steady_state(series, seen, "one card", path) == path
    assert draw_steady_state({}, samples(), "none", tmp_path / "none.png") is None
