import numpy as np

from harness.hardware.state import state
from harness.hardware.steady import sensors
from monitors.board import Pair
from monitors.nvml import UNKNOWN_REASONS


class Snapshot:
    """The parts of an Environment that are looked at."""

    def __init__(self, gpus, boards=(), pairs=()):
        self.gpus, self.boards, self.pairs = gpus, boards, pairs


def test_a_snapshot_without_cards_has_no_state():
    assert state(Snapshot(()), {}) == []


def test_pairs_and_memory_are_measurements():
    from tests.harness.test_environment import gpu

    pair = Pair(gpus=(0, 1), level="one host bridge", nvlink_links=None, p2p=True)
    found = state(Snapshot((gpu(0, "GPU-a"),), (), (pair,)), {"GPU-a": 3 * 10**9})
    told = {one.name: (one.value, one.gpus) for one in found}
    assert told["state.memory_used"] == (3e9, (0,))
    assert told["state.pair_p2p"] == (1.0, (0, 1))
    assert "state.pair_links" not in told, "unknown is not 0"


def samples(**changes):
    at_s = np.arange(0.0, 10.0, 0.5)
    return {
        "at_s": at_s,
        "gpu": np.zeros(len(at_s), dtype=np.int64),
        "sm_clock_hz": np.where(at_s < 5, 1.98e9, 1.5e9),
        "power_instant_w": np.full(len(at_s), 690.0),
        "temperature_c": np.linspace(30, 70, len(at_s)),
        "throttle_reasons": np.where(at_s < 5, 0, 4),
    } | changes


def test_the_steady_state_is_the_last_half():
    told = {m.name: m.value for m in sensors({0: {"at_s": [0.0, 10.0]}}, samples())}
    assert told["steady.sm_clock"] == 1.5e9
    assert told["steady.power_capped_frac"] == 1.0
    assert told["steady.heat_throttled_frac"] == 0.0
    assert told["steady.temperature"] == 70.0


def test_what_was_not_sampled_has_no_value():
    assert sensors({0: {"at_s": [0.0, 10.0]}}, {}) == []
    assert sensors({1: {"at_s": [0.0, 10.0]}}, samples()) == []
    unknown = samples(
        throttle_reasons=np.full(20, UNKNOWN_REASONS), sm_clock_hz=np.full(20, np.nan)
    )
    with np.errstate(all="ignore"):
        names = {m.name for m in sensors({0: {"at_s": [0.0, 10.0]}}, unknown)}
    assert not {"steady.heat_throttled_frac", "steady.sm_clock"} & names
