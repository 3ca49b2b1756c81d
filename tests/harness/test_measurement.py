from itertools import count
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import pytest

from harness import measurement
from harness.engines.failure import FailureKind
from harness.measurement import Bench, Measurement
from harness.steering import Send
from loadgen.config import Load
from loadgen.records import ClientHealth, Progress, Result
from monitors.sampler import samples
from tests.harness.builders import WINDOW

SILENT = Progress(
    phase="window",
    elapsed_s=1.0,
    planned_s=9.0,
    output_tok_per_s=0.0,
    ttft_p50_s=None,
    in_flight=1,
    completed=0,
    failed=0,
)
HEALTH = ClientHealth(
    transport="direct", workers=1, cpu_frac=0.1, loop_lag_p99_s=0.0, loop_lag_max_s=0.0
)
FIRST_TOKEN_TIMEOUT_S = 30.0
REQUEST_TIMEOUT_S = 600.0


class SilentGenerator:
    """Its requests stay in flight, and no byte comes; its clock says when it was stopped."""

    def __init__(self) -> None:
        self.now_s = self.began_at_s = perf_counter()

    def run(self, load: Load, *_: Any, on_progress: Any, should_stop: Any, **__: Any) -> Result:
        for second in count():
            self.now_s = self.began_at_s + second
            on_progress(SILENT)
            if should_stop():
                return Result(load=load, window=WINDOW, requests={}, chunks={}, client=HEALTH)
        raise AssertionError


@pytest.mark.parametrize(
    ("stream", "limit_s"), [(True, FIRST_TOKEN_TIMEOUT_S), (False, REQUEST_TIMEOUT_S)]
)
def test_a_server_hangs_after_silence_in_which_a_reply_had_to_begin(
    monkeypatch: pytest.MonkeyPatch, stream: bool, limit_s: float
) -> None:
    generator: Any = SilentGenerator()
    monkeypatch.setattr(measurement, "perf_counter", lambda: generator.now_s)
    server: Any = SimpleNamespace(
        settle=lambda: None,
        step_lag_s=lambda: None,
        failure=lambda: None,
        tail=lambda: (),
        first_token_timeout_s=FIRST_TOKEN_TIMEOUT_S,
    )
    sampler: Any = SimpleNamespace(start=lambda: None, stop=lambda: samples({}, []))
    display: Any = SimpleNamespace(live=lambda _: None)
    target: Any = None
    bench = Bench(
        server=server,
        target=target,
        generator=generator,
        sampler=sampler,
        sources=(),
        display=display,
    )
    load = Load(arrival="closed", concurrency=1, stream=stream, request_timeout_s=REQUEST_TIMEOUT_S)
    measured = bench.measure(Send(load=load), seed=1)
    assert isinstance(measured, Measurement)
    assert measured.died is not None
    assert measured.died.kind is FailureKind.HANGS
    assert generator.now_s - generator.began_at_s == pytest.approx(limit_s, abs=1.5)
