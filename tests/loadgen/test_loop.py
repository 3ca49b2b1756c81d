import asyncio
import itertools
from time import perf_counter

import pytest

from loadgen import loop
from loadgen.loop import BACK_OFF_S, Larder, Reader, Run, Share, sleep_until
from loadgen.prompts import Prompts
from loadgen.records import FailureKind, Target

TARGET = Target(url="http://h", model="m", vocab_size=512)


def drive(load, send, seed=1, size=8, share=None):
    """Drive `send` with a load, to the end; what the parent would decide is decided at once."""

    async def main():
        share_ = share or Share()
        prompts = Prompts(load=load, target=TARGET, seed=seed)
        opening = asyncio.get_running_loop().create_future()

        def reached():
            if load.is_open:
                driving.cancel()
            else:
                open_window()

        def open_window():
            if not opening.done():
                opening.set_result(max(perf_counter(), run.started_at_s + load.warmup_s))

        run = Run(
            load=load, seed=seed, send=send, prompts=prompts,
            larder=Larder(prompts, size, share_), started_at_s=perf_counter(),
            opening=opening, reached=reached, share=share_,
        )  # fmt: skip
        driving = asyncio.create_task(loop.drive(run))
        limit_s = load.planned_s + load.drain_s if load.is_open else load.warmup_max_s
        limit = driving.cancel if load.is_open else open_window
        asyncio.get_running_loop().call_later(limit_s, limit)
        await asyncio.wait([driving], timeout=60)
        if not driving.cancelled():
            driving.result()
        return run

    return asyncio.run(main())


def replying(seconds):
    async def send(exchange, _body):
        exchange.sent_at_s = perf_counter()
        try:
            await asyncio.sleep(seconds)
            exchange.http_status, exchange.pieces = 200, [b"data: {}"]
        except asyncio.CancelledError:
            exchange.cut = True
            raise
        finally:
            exchange.ended_at_s = perf_counter()

    return send


def test_the_open_loop_sends_on_time_while_no_reply_has_come_back(poisson):
    sent = 0
    many_sent = asyncio.Event()

    async def send(exchange, _body):
        nonlocal sent
        exchange.sent_at_s = perf_counter()
        assert exchange.sent_at_s >= exchange.due_at_s
        sent += 1
        if sent == 15:
            many_sent.set()
        await many_sent.wait()  # a closed loop would hang here

    run = drive(poisson(rate_rps=40.0, duration_s=1.0), send)
    assert len(run.exchanges) >= 15
    assert [e.request for e in run.exchanges] == list(range(len(run.exchanges)))


def test_each_arrival_is_awaited_at_its_absolute_due_time(poisson, monkeypatch):
    asked = []

    async def sleep(at_s):
        asked.append(at_s)
        await sleep_until(at_s)

    monkeypatch.setattr("loadgen.loop.sleep_until", sleep)
    run = drive(poisson(), replying(0.001))
    assert len(run.exchanges) > 5
    assert {e.due_at_s for e in run.exchanges} <= set(asked)


def test_arrivals_are_those_of_the_seed_whatever_the_server_does(poisson):
    def offsets(run):
        return [e.due_at_s - run.started_at_s for e in run.exchanges]

    fast = offsets(drive(poisson(), replying(0.001)))
    slow = offsets(drive(poisson(), replying(0.3)))
    assert len(slow) >= len(fast) > 5
    assert slow[: len(fast)] == pytest.approx(fast)


def test_load_goes_on_until_all_that_was_due_in_the_window_has_ended(poisson):
    run = drive(poisson(), replying(0.4))
    inside = [e for e in run.exchanges if run.opens_at_s <= e.due_at_s < run.closes_at_s]
    after = [e for e in run.exchanges if e.due_at_s >= run.closes_at_s]
    assert inside
    assert not any(e.cut for e in inside)
    assert any(e.cut for e in after)


def test_the_drain_has_an_end(poisson):
    run = drive(poisson(drain_s=0.2), replying(60))
    assert run.exchanges
    assert all(e.cut for e in run.exchanges)


def test_a_turn_that_is_due_after_the_window_is_not_waited_for(poisson):
    talk = {"endpoint": "chat", "conversation": {"turns": 2, "think_s": 3600.0}}
    # All first turns end after the window; neither the drain nor a conversation ends in time.
    run = drive(poisson(drain_s=3600.0, **talk), replying(0.6))
    assert any(run.opens_at_s <= e.due_at_s < run.closes_at_s for e in run.exchanges)
    assert {e.turn for e in run.exchanges} == {1}


def test_an_open_loop_without_arrivals_ends(poisson):
    run = drive(poisson(rate_rps=1e-6), replying(0.001))
    assert run.exchanges == []


def test_a_closed_loop_keeps_exactly_its_streams_in_flight(closed):
    most = now = 0
    reply = replying(0.01)

    async def send(exchange, _body):
        nonlocal most, now
        now += 1
        most = max(most, now)
        try:
            await reply(exchange, _body)
        finally:
            now -= 1

    run = drive(closed(concurrency=5), send)
    assert most == 5
    assert now == run.in_flight == 0
    assert sum(e.cut for e in run.exchanges) == 5  # all streams were busy at the end
    assert {e.stream for e in run.exchanges} == set(range(5))


def test_a_stream_sends_when_its_last_reply_has_ended(closed):
    run = drive(closed(concurrency=3), replying(0.02))
    for stream in range(3):
        mine = [e for e in run.exchanges if e.stream == stream]
        assert len(mine) > 1
        for before, after in itertools.pairwise(mine):
            assert after.due_at_s == before.ended_at_s
            assert after.sent_at_s >= after.due_at_s


def test_the_window_waits_for_the_first_reply_of_every_stream(closed):
    run = drive(closed(concurrency=3, warmup_s=0.0, ramp_s=0.2), replying(0.3))
    firsts = [next(e for e in run.exchanges if e.stream == stream) for stream in range(3)]
    assert all(e.ended_at_s <= run.opens_at_s for e in firsts)
    assert run.closes_at_s - run.opens_at_s >= 0.5


def test_the_wait_for_first_replies_has_an_end(closed):
    run = drive(closed(warmup_max_s=0.3), replying(60))
    assert [e.cut for e in run.exchanges] == [True, True]
    assert run.opens_at_s - run.started_at_s >= 0.29


def test_a_dead_server_is_not_asked_without_pause(closed):
    async def send(exchange, _body):
        exchange.sent_at_s = exchange.ended_at_s = perf_counter()
        exchange.failure = FailureKind.CONNECT

    run = drive(closed(concurrency=2), send)
    took_s = run.closes_at_s - run.started_at_s
    assert 2 < len(run.exchanges) <= 2 * (took_s / BACK_OFF_S + 1)
    assert run.failed == len(run.exchanges)


def test_a_bug_in_sending_ends_the_run(closed):
    async def send(_exchange, _body):
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup):
        drive(closed(), send)


def test_what_is_sent_does_not_depend_on_how_much_was_prepared(closed):
    def bodies(size):
        sent = []
        reply = replying(0.001)

        async def send(exchange, body):
            sent.append(body)
            await reply(exchange, body)

        drive(closed(concurrency=1), send, size=size)
        return sent

    none, few = bodies(0), bodies(5)
    assert min(len(none), len(few)) > 10
    assert all(a == b for a, b in zip(none, few, strict=False))


def test_replies_that_have_ended_are_read_while_the_run_goes_on(exchange):
    async def read_all():
        reader = Reader()
        ended = [
            exchange(request=number, pieces=[b"data: [DONE]\n\n"], piece_at_s=[1.0])
            for number in range(20)
        ]
        for each in ended:
            reader.put(each)
        working = asyncio.create_task(reader.work())
        async with asyncio.timeout(10):
            while any(each.told is None for each in ended):
                await asyncio.sleep(0.001)
        working.cancel()
        return ended

    for each in asyncio.run(read_all()):
        assert each.pieces == [], "the bytes are let go"
        assert each.read()[0].failure == "truncated", "what they said is not"
