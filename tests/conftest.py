"""How the suite runs: `make test` runs two files at a time, and then, one test at a time, ALONE.

Anything else may have company: it waits for what it needs, and its limits say only when something
hangs. A test that reads a clock which a neighbour on the same core can disturb belongs below.
"""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

HERE = Path(__file__).parent
ALONE = {
    "harness/test_whole_capacity.py": "a capacity is searched by limits on latencies",
    "harness/tune/test_whole_tuning.py": "settings are told apart by their speed",
    "loadgen/test_calibration.py": "measures the client's own error",
    "loadgen/test_client.py": "limits of tenths of a second on one request",
    "loadgen/test_generator.py": "worker processes keep a schedule, and what they say is measured",
    "loadgen/test_loop.py": "arrivals and windows of tenths of a second",
    "loadgen/test_null_server.py": "the server that says how late a client is",
    "loadgen/test_spread.py": "worker processes share a schedule",
    "monitors/test_host.py": "shares of a core, between two readings",
    "monitors/test_recorder.py": "samples every few milliseconds, and which were missed",
    "monitors/test_sampler.py": "samples every few milliseconds, in a process of its own",
}

# How long an example takes is no property of the code on a machine that others use.
settings.register_profile(
    "shared_machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("shared_machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE) and item.path.relative_to(HERE).as_posix() in ALONE:
            item.add_marker("alone")
