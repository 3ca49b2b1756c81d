import asyncio
import socket

import pytest

from loadgen.client import Client
from loadgen.records import read

BODY = b'{"max_tokens": 4, "prompt": [1, 2, 3]}'


async def send(target, exchange, endpoint="completions", timeout_s=30.0):
    async with Client(target, endpoint, timeout_s) as client:
        await client.send(exchange, BODY)
    return exchange


@pytest.fixture
def ask(start_server, exchange):
    """Send one request to a scripted server and read the row it leaves."""

    def ask(script, **options):
        sent = asyncio.run(send(start_server(script).target(), exchange(), **options))
        assert sent.due_at_s < sent.sent_at_s <= sent.ended_at_s
        return read(sent)

    return ask


async def refuses(wire):
    await wire.head(400)
    await wire.data(b'{"error": "prompt too long"}')
    await wire.raw(b"0\r\n\r\n")


async def dies_before_the_reply(wire):
    await wire.reset()


async def dies_inside_a_chunk(wire):
    await wire.head()
    await wire.token()
    await wire.raw(b"ff\r\ndata: half of")
    await wire.reset()


async def hangs_up_without_an_end(wire):
    await wire.head()
    await wire.token()
    wire.writer.close()


async def hangs(wire):
    await wire.head()
    await wire.token()
    await wire.hang()


async def says_error_first(wire):
    await wire.head()
    await wire.event({"error": {"message": "EngineCore encountered an issue", "code": 500}})
    await wire.end()


async def says_error_and_dies(wire):
    await wire.head()
    await wire.token()
    await wire.event({"error": {"message": "EngineCore encountered an issue", "code": 500}})
    await wire.reset()


async def aborts(wire):
    await wire.head()
    await wire.token(finish_reason="abort")
    await wire.usage(3, 1)
    await wire.end()


async def forgets_the_finish_reason(wire):
    await wire.head()
    await wire.token()
    await wire.usage(3, 1)
    await wire.end()


async def forgets_the_usage(wire):
    await wire.head()
    await wire.token(finish_reason="length")
    await wire.end()


async def speaks_broken_json(wire):
    await wire.head()
    await wire.data(b"data: {oops\n\n")
    await wire.end()


async def speaks_no_http(wire):
    await wire.raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")


@pytest.mark.parametrize(
    ("script", "failure", "detail", "num_chunks"),
    [
        (refuses, "http_error", "prompt too long", 0),
        (dies_before_the_reply, "disconnected", "", 0),
        (dies_inside_a_chunk, "disconnected", "", 1),
        (hangs_up_without_an_end, "disconnected", "", 1),
        (says_error_first, "error_chunk", "EngineCore", 0),
        (says_error_and_dies, "error_chunk", "EngineCore", 1),
        (aborts, "error_chunk", "finish_reason: abort", 1),
        (forgets_the_finish_reason, "truncated", "without finish_reason", 1),
        (forgets_the_usage, "no_usage", "without usage", 1),
        (speaks_broken_json, "garbled", "{oops", 0),
        (speaks_no_http, "garbled", "", 0),
    ],
)
def test_a_request_that_goes_wrong_is_a_row_with_its_kind(ask, script, failure, detail, num_chunks):
    row, at_s = ask(script)
    assert (row.status, row.failure) == ("failed", failure)
    assert detail in row.detail
    assert row.detail
    assert row.num_chunks == len(at_s) == num_chunks


def test_a_reply_that_takes_too_long_is_a_timeout(ask):
    row, at_s = ask(hangs, timeout_s=0.3)
    assert (row.status, row.failure) == ("failed", "timeout")
    assert len(at_s) == 1


def test_a_server_that_is_not_there_is_a_connect_failure(start_server, exchange):
    with socket.socket() as taken:  # bound but not listening: refused
        taken.bind(("127.0.0.1", 0))
        target = start_server().target(url=f"http://127.0.0.1:{taken.getsockname()[1]}")
        row, _ = read(asyncio.run(send(target, exchange())))
    assert (row.status, row.failure) == ("failed", "connect")


def test_a_good_reply_is_ok_and_stamped_chunk_by_chunk(ask):
    async def script(wire):
        await wire.head()
        await wire.token("")  # empty text opens no clock
        await wire.token("é")
        await asyncio.sleep(0.1)
        await wire.token("b", finish_reason="length")
        await wire.usage(3, 2, prompt_tokens_details={"cached_tokens": 1})
        await wire.end()

    row, (first_at_s, last_at_s) = ask(script)
    assert (row.status, row.failure, row.detail) == ("ok", "", "")
    assert (row.input_tokens, row.output_tokens, row.cached_tokens) == (3, 2, 1)
    assert (row.http_status, row.finish_reason, row.num_chunks) == (200, "length", 2)
    assert (row.first_at_s, row.last_at_s) == (first_at_s, last_at_s)
    assert row.sent_at_s < first_at_s < last_at_s <= row.ended_at_s
    assert last_at_s - first_at_s > 0.09


def test_chunks_that_arrive_in_one_read_have_one_stamp(ask):
    async def script(wire):
        await wire.head()
        token = b'data: {"choices": [{"text": "a", "finish_reason": null}]}\n\n'
        await wire.data(token * 3)
        await wire.end()

    _, at_s = ask(script)
    assert len(at_s) == 3
    assert len(set(at_s)) == 1


def test_chat_goes_to_its_own_path_and_counts_reasoning(start_server, exchange):
    async def script(wire):
        await wire.head()
        for delta in ({"role": "assistant"}, {"reasoning_content": "hm"}, {"content": "a"}):
            await wire.event({"choices": [{"delta": delta, "finish_reason": None}]})
        await wire.event({"choices": [{"delta": {}, "finish_reason": "stop"}]})
        await wire.usage(3, 2)
        await wire.end()

    server = start_server(script)
    row, at_s = read(asyncio.run(send(server.target(), exchange(), endpoint="chat")))
    assert server.requests[0]["path"] == "/v1/chat/completions"
    assert (row.status, len(at_s)) == ("ok", 2)


def test_connections_are_used_again(start_server, exchange):
    server = start_server()

    async def two():
        async with Client(server.target(), "completions", 30.0) as client:
            for _ in range(2):
                await client.send(exchange(), BODY)

    asyncio.run(two())
    assert (len(server.requests), server.num_connections) == (2, 1)


def test_a_request_that_is_cancelled_keeps_what_had_come_and_is_cut(start_server, exchange):
    sent = exchange()

    async def cancel_after_a_chunk():
        async with Client(start_server(hangs).target(), "completions", 30.0) as client:
            sending = asyncio.create_task(client.send(sent, BODY))
            while not sent.pieces:
                await asyncio.sleep(0.001)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    asyncio.run(cancel_after_a_chunk())
    row, at_s = read(sent)
    assert (row.status, row.failure, len(at_s)) == ("cut", "", 1)
    assert row.ended_at_s >= at_s[0]
