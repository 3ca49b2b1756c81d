"""The API server's turns, without an engine: which come, in which order, how long they take."""

import pytest

from harness.sim.api_server import REQUEST_TURNS, ROTATION, SLICE_STREAMS, ApiServer, Job, Turn
from harness.sim.scheduler import Request


def server(api_server_count: int = 1) -> ApiServer:
    return ApiServer(slice_s=1e-3, chunk_s=1e-5, request_s=8e-3, api_server_count=api_server_count)


def jobs(number: int) -> list[Job]:
    return [
        Job(
            request=Request(prompt=[1], max_tokens=9),
            on_tokens=lambda *_: None,
            stream_interval=1,
            arrived_at_s=0.0,
        )
        for _ in range(number)
    ]


def turns(api_server: ApiServer) -> list[Turn]:
    """All that come until nothing waits."""
    done: list[Turn] = []
    api_server.begin_turn(0.0)
    while api_server.turn is not None:
        done.append(api_server.turn)
        api_server.begin_turn(api_server.turn.ends_at_s)
    return done


def test_what_waits_of_small_steps_is_one_turn_and_one_chunk_a_stream():
    api_server, streams = server(), jobs(3)
    for last in (False, False, True):
        api_server.take_outputs([(job, 1, last) for job in streams])
    (turn,) = turns(api_server)
    assert turn.chunks == [(job, 3, True) for job in streams]
    assert turn.ends_at_s == pytest.approx(3 * 1e-3 + 3 * 1e-5)


def test_a_step_of_more_streams_than_a_slice_takes_several_turns_and_is_not_merged():
    api_server, streams = server(), jobs(2 * SLICE_STREAMS)
    for _ in range(2):
        api_server.take_outputs([(job, 1, False) for job in streams])
    first, *_ = done = turns(api_server)
    assert [job for job, _, _ in first.chunks] == streams[:SLICE_STREAMS]
    assert sum(number for turn in done for _, number, _ in turn.chunks) == 2 * len(streams)
    assert len(done) == 3  # the second half of one step goes with the first half of the next


def test_a_request_has_a_turn_between_two_of_outputs():
    api_server = server()
    api_server.take_request(jobs(1)[0])
    for _ in range(3):
        api_server.take_outputs([(job, 1, False) for job in jobs(2 * SLICE_STREAMS)])
    had_chunks = [bool(turn.chunks) for turn in turns(api_server)]
    assert had_chunks[:6] == [True, False] * 3


def test_requests_of_a_rotation_are_ready_together_and_those_behind_it_wait():
    api_server, waiting = server(), jobs(ROTATION + 1)
    for job in waiting:
        api_server.take_request(job)
    ready = [turn.request for turn in turns(api_server)]
    assert ready[: ROTATION * (REQUEST_TURNS - 1)] == [None] * ROTATION * (REQUEST_TURNS - 1)
    assert [job for job in ready if job is not None] == waiting
    assert len(ready) == (ROTATION + 1) * REQUEST_TURNS


def test_four_servers_are_one_that_is_four_times_as_fast():
    streams = jobs(SLICE_STREAMS)
    one, four = server(), server(4)
    for api_server in (one, four):
        api_server.take_request(jobs(1)[0])
    assert turns(one)[-1].ends_at_s == pytest.approx(4 * turns(four)[-1].ends_at_s)
    four.take_outputs([(job, 1, False) for job in 4 * streams])
    assert len(turns(four)) == 1
