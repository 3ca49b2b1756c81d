import asyncio
from collections import Counter

import pytest

from loadgen.config import Client
from loadgen.generator import Generator
from loadgen.loop import Share
from loadgen.records import Target
from loadgen.spread import Spread


class FakeTransport:
    """Remembers what it was asked for."""

    def __init__(self):
        self.warmed, self.closed = 0, False

    async def warm(self, connections):
        self.warmed += connections

    async def close(self):
        self.closed = True


@pytest.fixture
def servers(start_server):
    return [start_server(), start_server()]


def target_of(servers, **changes):
    more = tuple(server.target().url for server in servers[1:])
    return servers[0].target(more_urls=more, **changes)


def served_by(servers):
    """The number of each request, by the server that got it."""
    return [{int(r["x-request-id"].split("-")[1]) for r in server.requests} for server in servers]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_streams_stay_at_one_server_whichever_worker_has_them(servers, closed, workers):
    with Generator(Client(workers=workers)) as generator:
        requests = generator.run(closed(concurrency=6), target_of(servers), seed=1).requests
    assert [server.most_in_flight for server in servers] == [3, 3]
    for place, numbers in enumerate(served_by(servers)):
        sent_there = [number in numbers for number in requests["request"]]
        assert set(requests["stream"][sent_there]) == {s for s in range(6) if s % 2 == place}


def test_arrivals_of_an_open_loop_go_round(generator, servers, poisson):
    generator.run(poisson(), target_of(servers), seed=1)
    even, odd = served_by(servers)
    assert len(even) > 5
    assert {number % 2 for number in even} == {0}
    assert {number % 2 for number in odd} == {1}


@pytest.mark.parametrize("arrival", ["closed", "open"])
def test_a_conversation_stays_where_it_began(generator, servers, closed, poisson, arrival):
    talk = {"endpoint": "chat", "conversation": {"turns": 3, "think_s": 0.01}, "duration_s": 1.0}
    load = closed(concurrency=4, **talk) if arrival == "closed" else poisson(**talk)
    requests = generator.run(load, target_of(servers), seed=1).requests
    conversation = dict(zip(requests["request"], requests["conversation"], strict=True))
    first, second = ({conversation[n] for n in numbers} for numbers in served_by(servers))
    assert max(requests["turn"]) == 3
    assert first
    assert second
    assert not first & second


@pytest.mark.parametrize(
    ("share", "wanted"),
    [(Share(0, 1), [3, 2]), (Share(0, 2), [5, 0]), (Share(1, 2), [0, 5]), (Share(2, 3), [3, 2])],
)
def test_a_worker_opens_connections_where_its_streams_go(share, wanted):
    transports = [FakeTransport(), FakeTransport()]
    asyncio.run(Spread(transports, share).warm(5))
    assert [transport.warmed for transport in transports] == wanted


def test_all_servers_are_let_go():
    transports = [FakeTransport(), FakeTransport(), FakeTransport()]
    asyncio.run(Spread(transports, Share()).close())
    assert all(transport.closed for transport in transports)


def test_when_one_server_refuses_only_its_streams_fail(generator, start_server, closed):
    async def refuses(wire):
        await wire.raw(b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n")

    target = target_of([start_server(), start_server(refuses)])
    requests = generator.run(closed(concurrency=4), target, seed=1).requests
    failed = Counter(requests["stream"][requests["status"] == "failed"])
    assert set(failed) == {1, 3}
    assert set(requests["stream"][requests["status"] == "ok"]) == {0, 2}


def test_every_url_of_a_target_is_checked():
    with pytest.raises(ValueError, match="must start with http"):
        Target(url="http://a", model="m", vocab_size=512, more_urls=("b",))
    assert Target(url="http://a", model="m", vocab_size=512).urls == ("http://a",)
