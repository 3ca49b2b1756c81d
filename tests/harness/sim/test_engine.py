import pytest

from harness.sim.engine import CATCH_UP_S
from harness.sim.roofline import Work, captured_tokens
from tests.harness.sim.virtual import VirtualTime, roofline


def value(time: VirtualTime, name: str) -> float:
    page = time.engine.metrics.page(running=0, waiting=0, kv_cache_usage_frac=0).decode()
    lines = [line for line in page.splitlines() if line.startswith(name + "{")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def token_times(late_s: float, num_tokens: int = 50) -> tuple[VirtualTime, list[float]]:
    time = VirtualTime()
    at_s: list[float] = []
    time.engine.submit([1], num_tokens, lambda *_: at_s.append(time.now_s))
    time.run_until(10.0, late_s=late_s)
    return time, at_s


def test_a_late_timer_does_not_make_steps_drift():
    _, exact = token_times(late_s=0.0)
    time, late = token_times(late_s=CATCH_UP_S / 10)
    assert len(late) == 50
    assert late[-1] - exact[-1] < CATCH_UP_S
    assert value(time, "sim:step_lag_seconds_total") == 0


def test_what_cannot_be_caught_up_is_counted_as_lag():
    _, exact = token_times(late_s=0.0)
    time, late = token_times(late_s=4 * CATCH_UP_S)
    lag_s = value(time, "sim:step_lag_seconds_total")
    assert lag_s == pytest.approx(late[-1] - exact[-1], abs=5 * CATCH_UP_S)
    assert lag_s > 10 * CATCH_UP_S


def test_chunks_carry_every_nth_token_the_first_and_the_last():
    time = VirtualTime()
    chunks = []
    time.engine.submit([1], 8, lambda n, last: chunks.append((n, last)), stream_interval=3)
    time.run_until(1.0)
    assert chunks == [(1, False), (3, False), (3, False), (1, True)]


def test_an_aborted_request_gets_no_more_tokens_and_frees_its_blocks():
    time = VirtualTime()
    chunks = []
    job = time.engine.submit([1] * 40, 1000, lambda *chunk: chunks.append(chunk))
    time.run_until(0.1)
    time.engine.abort(job)
    num_before = len(chunks)
    time.run_until(0.2)
    assert 0 < len(chunks) == num_before
    assert time.engine.scheduler.pool.num_used == 0
    assert value(time, "vllm:request_success_total") == 1


def test_steps_take_longer_with_more_work_and_without_graphs_or_overlap():
    decode = Work(tokens=8, sequences=8, context_tokens=8_000, attention_pairs=8_000)
    longer = Work(tokens=8, sequences=8, context_tokens=8_000_000, attention_pairs=8_000_000)
    prefill = Work(tokens=8192, sequences=8, context_tokens=8192, attention_pairs=4_000_000)
    plain = roofline().step_s(decode)
    assert plain < roofline().step_s(longer)
    assert plain < roofline().step_s(prefill)
    assert plain < roofline(graph_tokens=0).step_s(decode)
    assert plain < roofline(async_scheduling=False).step_s(decode)
    assert roofline(tensor_parallel_size=2).step_s(prefill) < roofline(
        tensor_parallel_size=1
    ).step_s(prefill)


def test_step_time_is_the_roofline_by_hand():
    it = roofline(tensor_parallel_size=1)
    work = Work(tokens=8192, sequences=1, context_tokens=8192, attention_pairs=8192 * 8193 // 2)
    layers = 28 * (1536 * 128 * (2 * 12 + 2 * 2) + 3 * 1536 * 8960)
    attention_flops = 4 * work.attention_pairs * 12 * 128 * 28
    flops = 2 * 8192 * layers + 2 * 151936 * 1536 + attention_flops
    assert it.step_s(work) == pytest.approx(flops / (989e12 * 0.5) + 28 * 38e-6)


def test_a_small_step_is_bound_by_the_cpu_which_launches_kernels_outside_graphs():
    it = roofline()
    inside, outside = (
        it.step_s(Work(tokens=n, sequences=2, context_tokens=n, attention_pairs=n))
        for n in (512, 513)
    )
    assert outside == pytest.approx(1.9e-3 + 2 * 12.2e-6 + 28 * 285e-6)
    assert inside == pytest.approx(1.9e-3 + 2 * 12.2e-6 + 28 * 125e-6)
    assert captured_tokens(16) == 32
    assert captured_tokens(1024) == 512


def test_outputs_that_come_faster_than_the_api_server_works_are_merged_into_chunks():
    time = VirtualTime()
    time.engine.api_server.chunk_s = 0.01
    chunks: list[int] = []
    time.engine.submit([1], 50, lambda n, _: chunks.append(n))
    time.run_until(10.0)
    assert sum(chunks) == 50
    assert len(chunks) < 25


def test_a_slower_cpu_makes_a_step_longer_that_the_cpu_bounds_and_no_other():
    bound_by_cpu = Work(tokens=600, sequences=500, context_tokens=600, attention_pairs=600)
    bound_by_gpu = Work(tokens=8192, sequences=1, context_tokens=8192, attention_pairs=10**8)
    slow = roofline(cpu_slowdown=2.0)
    assert slow.step_s(bound_by_cpu) > 1.7 * roofline().step_s(bound_by_cpu)
    assert slow.step_s(bound_by_gpu) == roofline().step_s(bound_by_gpu)


def test_a_token_computed_but_not_delivered_dies_with_its_request():
    time = VirtualTime()
    chunks = []
    job = time.engine.submit([1], 1, lambda *chunk: chunks.append(chunk))
    while not job.request.finished:
        time.run_until(time.due_at_s)
    assert chunks == []  # the step has ended, the API server is at work
    time.engine.abort(job)
    time.run_until(1.0)
    assert chunks == []
    assert value(time, "vllm:generation_tokens_total") == 0
