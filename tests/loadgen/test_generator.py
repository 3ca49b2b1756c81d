"""The generator as a whole: a worker process against a scripted server."""

import os
import select
import signal
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

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
    summary = summarise(requests, chunks, window=window, load=load)
    assert summary.first_generation_done
    assert summary.lengths_off_frac == 0
    assert summary.output_tok_per_s == pytest.approx(4 * summary.requests_per_s, rel=0.2)


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
    pid = generator.pid
    result = generator.run(closed(), start_server(refuses).target(), seed=1)
    assert set(result.requests["failure"]) <= {"http_error", ""}
    assert "http_error" in result.requests["failure"]
    good = generator.run(closed(), start_server().target(), seed=2)
    assert "ok" in good.requests["status"]
    assert generator.pid == pid


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


def test_leaving_the_with_block_ends_the_worker_even_in_a_run(start_server, closed):
    pids = []

    def leave_in_the_middle(target):
        with Generator() as generator:
            pids.append(generator.pid)
            generator.run(closed(duration_s=600.0), target, seed=1, on_progress=interrupted)

    def interrupted(_progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leave_in_the_middle(start_server(hangs).target())
    with pytest.raises(ProcessLookupError):  # ended and reaped
        os.kill(pids[0], 0)


def test_a_worker_that_does_not_listen_is_ended_too():
    with Generator() as generator:
        pid = generator.pid
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
            os.kill(generator.pid, signal.SIGINT)
            once.set()

    result = generator.run(
        closed(duration_s=1.0), start_server().target(), seed=1, on_progress=interrupt
    )
    assert once.is_set()
    assert result.window.closed_at_s - result.window.opened_at_s >= 1.0  # it went its whole length


def test_a_worker_that_dies_is_an_error_that_says_so(start_server, closed):
    def kill(_progress):
        os.kill(generator.pid, signal.SIGKILL)

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
                print(generator.pid, flush=True)
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
