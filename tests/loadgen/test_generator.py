"""The generator as a whole: a worker process against a scripted server."""

import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
from time import perf_counter

import numpy as np
import psutil
import pytest

from loadgen.config import Client, Slo
from loadgen.generator import Generator, WorkerError
from loadgen.metrics import summarise


async def hangs(wire):
    await wire.head()
    await wire.token()
    await wire.hang()


async def refuses(wire):
    await wire.head(500)
    await wire.raw(b"0\r\n\r\n")


def ended_within(pid, seconds):
    """Whether a process that need not be our child ends in time."""
    handle = os.pidfd_open(pid)
    try:
        return bool(select.select([handle], [], [], seconds)[0])
    finally:
        os.close(handle)


def test_a_closed_loop_is_measured_from_warm_up_to_cut(generator, start_server, closed):
    server = start_server()
    phases = set()
    load = closed(concurrency=4, duration_s=1.0)
    result = generator.run(
        load, server.target(), seed=1, on_progress=lambda progress: phases.add(progress.phase)
    )
    window, requests, chunks = result.window, result.requests, result.chunks
    assert window.started_at_s < window.opened_at_s < window.closed_at_s <= window.ended_at_s
    assert window.closed_at_s - window.opened_at_s >= 1.0
    assert server.most_in_flight == 4
    assert (requests["request"] == np.arange(len(requests["request"]))).all()
    assert set(requests["status"]) <= {"ok", "cut"}
    assert (requests["sent_at_s"] >= requests["due_at_s"]).all()
    ok = requests["status"] == "ok"
    assert (requests["output_tokens"][ok] == 4).all()
    assert (requests["input_tokens"][ok] == 20).all()
    assert len(chunks["at_s"]) == requests["num_chunks"].sum()
    assert "window" in phases
    assert 0 < result.client.cpu_frac < 1.5
    assert (result.client.transport, result.client.workers) == ("direct", 1)
    summary = summarise(requests, chunks, window=window, load=load)
    assert summary.first_generation_done
    assert summary.lengths_off_frac == 0
    assert summary.output_tok_per_s == pytest.approx(4 * summary.requests_per_s, rel=0.2)


@pytest.fixture(scope="session")
def three_workers():
    with Generator(Client(workers=3)) as generator:
        yield generator


def test_workers_share_a_closed_loop_and_its_window(three_workers, start_server, closed):
    server = start_server()
    result = three_workers.run(closed(concurrency=4), server.target(), seed=1)
    requests = result.requests
    assert result.client.workers == 3
    assert server.most_in_flight == 4
    assert set(requests["stream"]) == {0, 1, 2, 3}
    assert (np.diff(requests["request"]) > 0).all()
    assert len(result.chunks["at_s"]) == requests["num_chunks"].sum()
    first_end_at_s = [requests["ended_at_s"][requests["stream"] == n].min() for n in range(4)]
    assert max(first_end_at_s) < result.window.opened_at_s
    prompts = [tuple(request["prompt"]) for request in server.requests]
    assert len(set(prompts)) == len(prompts)


def test_workers_share_the_arrivals_of_an_open_loop(
    generator, three_workers, start_server, poisson
):
    alone = generator.run(poisson(), start_server().target(), seed=5)
    shared = three_workers.run(poisson(), start_server().target(), seed=5)

    def due_in_the_window(result):
        due_at_s = result.requests["due_at_s"]
        inside = (due_at_s >= result.window.opened_at_s) & (due_at_s < result.window.closed_at_s)
        return due_at_s[inside] - result.window.started_at_s

    assert len(due_in_the_window(alone)) > 5
    assert due_in_the_window(shared) == pytest.approx(due_in_the_window(alone))
    assert set(shared.requests["status"]) <= {"ok", "cut"}


def test_more_workers_than_streams_do_no_harm(three_workers, start_server, closed):
    result = three_workers.run(closed(concurrency=1), start_server().target(), seed=1)
    assert "ok" in result.requests["status"]


def test_more_workers_than_cores_share_them(start_server, closed):
    core = min(os.sched_getaffinity(0))
    with Generator(Client(workers=2), cores=[core]) as generator:
        result = generator.run(closed(), start_server().target(), seed=1)
        assert [os.sched_getaffinity(pid) for pid in generator.pids] == [{core}, {core}]
    assert result.client.workers == 2


def test_when_one_of_several_workers_dies_all_end_and_the_next_run_is_clean(start_server, closed):
    with Generator(Client(workers=2)) as generator:
        first = generator.pids

        def kill(_progress):
            os.kill(generator.pids[1], signal.SIGKILL)

        with pytest.raises(WorkerError, match="exit code -9"):
            generator.run(
                closed(duration_s=600.0), start_server(hangs).target(), seed=1, on_progress=kill
            )
        assert all(ended_within(pid, 30) for pid in first if psutil.pid_exists(pid))
        assert "ok" in generator.run(closed(), start_server().target(), seed=2).requests["status"]


def test_a_conversation_is_driven_turn_by_turn(generator, start_server, closed):
    server = start_server()
    load = closed(
        concurrency=2, endpoint="chat", conversation={"turns": 3, "think_s": 0.02}, duration_s=1.0
    )
    result = generator.run(load, server.target(), seed=1)
    requests = result.requests
    assert set(requests["turn"]) == {1, 2, 3}
    later = requests["turn"] > 1
    before = np.searchsorted(requests["request"], requests["request"][later] - 1)
    assert (requests["conversation"][later] == requests["conversation"][before]).all()
    think_s = requests["due_at_s"][later] - requests["ended_at_s"][before]
    assert think_s == pytest.approx(0.02)
    last = next(r["messages"] for r in server.requests if len(r["messages"]) == 5)
    assert [message["role"] for message in last] == ["user", "assistant"] * 2 + ["user"]
    assert last[1]["content"] == "t1" * 4


def test_replies_that_are_not_streamed_are_measured_to_their_end(generator, start_server, closed):
    async def whole(wire):
        assert wire.request["stream"] is False
        body = (
            b'{"choices": [{"text": "a", "finish_reason": "length"}],'
            b' "usage": {"prompt_tokens": 20, "completion_tokens": 4}}'
        )
        await wire.raw(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    load = closed(stream=False)
    result = generator.run(load, start_server(whole).target(), seed=1)
    summary = summarise(result.requests, result.chunks, window=result.window, load=load)
    assert summary.requests_ok > 5
    assert summary.e2e_p50_s > 0
    assert summary.ttft_p50_s is None
    assert summary.tpot_p50_s is None
    assert summary.output_tok_per_s == pytest.approx(4 * summary.requests_per_s)


def test_what_is_in_flight_at_the_end_is_cut_and_its_chunks_kept(generator, start_server, closed):
    load = closed(concurrency=3, warmup_max_s=0.3)
    result = generator.run(load, start_server(hangs).target(), seed=1)
    assert list(result.requests["status"]) == ["cut"] * 3
    assert list(result.requests["num_chunks"]) == [1] * 3
    assert sorted(result.chunks["request"]) == [0, 1, 2]
    assert np.isnan(result.requests["output_tokens"]).all()


def test_an_open_loop_is_driven_and_drained(generator, start_server, poisson):
    result = generator.run(poisson(), start_server().target(), seed=1)
    summary = summarise(result.requests, result.chunks, window=result.window, load=poisson())
    assert summary.requests_ok > 5
    assert summary.requests_cut == 0


def test_chat_is_driven_too(generator, start_server, closed):
    server = start_server()
    result = generator.run(closed(endpoint="chat"), server.target(), seed=1)
    assert "ok" in result.requests["status"]
    assert {request["path"] for request in server.requests} == {"/v1/chat/completions"}


def test_no_prompt_is_sent_twice_over_runs_of_different_seeds(generator, start_server, closed):
    server = start_server()
    for seed in (1, 2):
        generator.run(closed(), server.target(), seed=seed)
    prompts = [tuple(request["prompt"][:4]) for request in server.requests]
    assert len(set(prompts)) == len(prompts) > 10


def test_failures_are_rows_and_the_worker_lives_on(generator, start_server, closed):
    [pid] = generator.pids
    result = generator.run(closed(), start_server(refuses).target(), seed=1)
    assert set(result.requests["failure"]) <= {"http_error", ""}
    assert "http_error" in result.requests["failure"]
    good = generator.run(closed(), start_server().target(), seed=2)
    assert "ok" in good.requests["status"]
    assert generator.pids == [pid]


def test_should_stop_ends_a_run_early_with_what_it_has(generator, start_server, closed):
    server = start_server(hangs)
    load = closed(duration_s=600.0, warmup_max_s=600.0)
    result = generator.run(
        load, server.target(), seed=1, should_stop=server.asked.is_set
    )  # fmt: skip
    assert set(result.requests["status"]) == {"cut"}
    assert np.isnan(result.window.opened_at_s)
    summary = summarise(result.requests, result.chunks, window=result.window, load=load)
    assert summary.window_s is None
    assert summary.output_tok_per_s is None
    assert summary.ttft_p50_s is None


def test_a_window_that_the_worker_slept_through_is_over_all_the_same(
    generator, start_server, poisson
):
    """A worker that is starved of CPU may hear that the run is over before its own timers."""
    load = poisson(warmup_s=1.0, duration_s=0.5, drain_s=0.0)
    [pid] = generator.pids
    thawed_at_s = []

    def freeze(now):
        if not thawed_at_s:
            os.kill(pid, signal.SIGSTOP)
            thawed_at_s.append(perf_counter() - now.elapsed_s + load.planned_s + 2.0)

    def thaw():
        if thawed_at_s and perf_counter() > thawed_at_s[0]:
            os.kill(pid, signal.SIGCONT)
        return False

    result = generator.run(
        load, start_server().target(), seed=1, on_progress=freeze, should_stop=thaw
    )
    window = result.window
    assert window.closed_at_s - window.opened_at_s == pytest.approx(0.5)
    assert result.client.loop_lag_p99_s > 0.5  # a client that measured its own sleep


def test_leaving_the_with_block_ends_the_worker_even_in_a_run(start_server, closed):
    pids = []

    def leave_in_the_middle(target):
        with Generator() as generator:
            pids.extend(generator.pids)
            generator.run(closed(duration_s=600.0), target, seed=1, on_progress=interrupted)

    def interrupted(_progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leave_in_the_middle(start_server(hangs).target())
    with pytest.raises(ProcessLookupError):  # ended and reaped
        os.kill(pids[0], 0)


def test_a_worker_that_does_not_listen_is_ended_too():
    with Generator() as generator:
        [pid] = generator.pids
        os.kill(pid, signal.SIGSTOP)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_after_an_interrupted_run_the_next_one_is_clean(start_server, closed):
    def interrupted(_progress):
        raise KeyboardInterrupt

    with Generator() as generator:
        with pytest.raises(KeyboardInterrupt):
            generator.run(
                closed(duration_s=600.0), start_server(hangs).target(), seed=1,
                on_progress=interrupted,
            )  # fmt: skip
        result = generator.run(closed(), start_server().target(), seed=2)
    assert "ok" in result.requests["status"]


def test_ctrl_c_does_not_reach_the_worker(generator, start_server, closed):
    """The terminal sends SIGINT to every process of its group."""
    once = threading.Event()

    def interrupt(_progress):
        if not once.is_set():
            os.kill(generator.pids[0], signal.SIGINT)
            once.set()

    result = generator.run(
        closed(duration_s=1.0), start_server().target(), seed=1, on_progress=interrupt
    )
    assert once.is_set()
    assert result.window.closed_at_s - result.window.opened_at_s >= 1.0  # it went its whole length


def test_a_worker_that_dies_is_an_error_that_says_so(start_server, closed):
    def kill(_progress):
        os.kill(generator.pids[0], signal.SIGKILL)

    with Generator() as generator:
        target = start_server(hangs).target()
        with pytest.raises(WorkerError, match="exit code -9"):
            generator.run(closed(duration_s=600.0), target, seed=1, on_progress=kill)


def test_the_worker_dies_in_the_middle_of_a_run_when_its_parent_is_killed(start_server):
    server = start_server(hangs)
    program = f"""
        from loadgen.config import Load
        from loadgen.generator import Generator
        from loadgen.records import Target

        if __name__ == "__main__":
            target = Target(url="http://127.0.0.1:{server.port}", model="m", vocab_size=512)
            with Generator() as generator:
                print(generator.pids[0], flush=True)
                load = Load(arrival="closed", concurrency=2, duration_s=600.0)
                generator.run(load, target, seed=1)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True
    )
    with parent:
        pid = int(parent.stdout.readline())
        assert server.asked.wait(60)  # the run has begun
        assert not ended_within(pid, 0)
        parent.kill()
    assert ended_within(pid, 30)


def test_progress_counts_what_broke_a_limit_inside_the_window(generator, start_server, poisson):
    told = []
    load = poisson(warmup_s=0.5, duration_s=1.0)
    for limit_s in (30.0, 1e-6):
        generator.run(
            load,
            start_server().target(),
            seed=1,
            on_progress=told.append,
            slo=Slo(ttft_s=limit_s),
        )
        told.append(None)
    kept, broken = told[: told.index(None)], told[told.index(None) + 1 : -1]
    assert not any(now.out_of_limits for now in kept)
    assert not any(now.out_of_limits for now in broken if now.phase == "warmup")
    assert max(now.out_of_limits for now in broken) > 0
    assert all(now.out_of_limits <= now.completed for now in broken)
