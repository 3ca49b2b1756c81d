import asyncio
import socket

import pytest

from loadgen.client import Sender, make_transport, overdue
from loadgen.config import Client
from loadgen.records import read
from tests.loadgen.conftest import well

BODY = b'{"max_tokens": 4, "prompt": [1, 2, 3]}'


@pytest.fixture(params=["direct", "aiohttp"])
def transport(request):
    return request.param


async def send(target, exchange, load, transport):
    chosen = make_transport(Client(transport=transport), target, load.endpoint)
    async with Sender(chosen, load, 7, list(target.headers.values())) as sender:
        await sender.send(exchange, BODY)
    return exchange


@pytest.fixture
def ask(start_server, exchange, closed, transport):
    """Send one request to a scripted server and read the row it leaves."""

    def ask(script, *, streamed=True, headers=None, **load):
        target = start_server(script).target(headers=headers or {})
        sent = exchange(streamed=streamed)
        asyncio.run(send(target, sent, closed(**load), transport))
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


async def hangs_before_the_reply(wire):
    await wire.hang()


async def streams_without_end(wire):
    await wire.head()
    while True:
        await wire.token()
        await asyncio.sleep(0.001)


async def floods(wire):
    await wire.head()
    while True:
        await wire.token("x" * 10_000)


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


async def sends_too_little(wire):
    await wire.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ndata: ")
    wire.writer.close()


async def is_overloaded(wire):
    await wire.raw(b"HTTP/1.1 429 X\r\nRetry-After: 9\r\nContent-Length: 9\r\n\r\nslow down")


async def is_not_ready(wire):
    await wire.raw(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")


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
        (sends_too_little, "disconnected", "", 0),
        (is_overloaded, "http_error", "slow down", 0),
        (is_not_ready, "http_error", "", 0),
    ],
)
def test_a_request_that_goes_wrong_is_a_row_with_its_kind(ask, script, failure, detail, num_chunks):
    row, at_s = ask(script)
    assert (row.status, row.failure) == ("failed", failure)
    assert detail in row.detail
    assert row.detail
    assert row.num_chunks == len(at_s) == num_chunks


@pytest.mark.parametrize(
    ("script", "limit", "failure", "num_chunks"),
    [
        (hangs, "request_timeout_s", "timeout", 1),
        (hangs, "stall_timeout_s", "stall", 1),
        (hangs_before_the_reply, "ttft_timeout_s", "ttft_timeout", 0),
        (streams_without_end, "request_timeout_s", "timeout", None),
    ],
)
def test_nothing_hangs_past_its_limit(ask, script, limit, failure, num_chunks):
    row, at_s = ask(script, **{limit: 0.3})
    assert (row.status, row.failure) == ("failed", failure)
    assert "0.3 s" in row.detail
    assert num_chunks is None or len(at_s) == num_chunks


def test_a_stream_that_is_alive_does_not_stall_however_long_it_is(ask):
    async def script(wire):
        await well(wire, pause_s=0.2)

    row, _ = ask(script, stall_timeout_s=0.7, ttft_timeout_s=0.7)
    assert row.status == "ok"
    assert row.ended_at_s - row.sent_at_s > 0.7


def test_a_reply_that_would_fill_the_memory_is_given_up(ask, monkeypatch):
    for module in ("direct", "via_aiohttp"):
        monkeypatch.setattr(f"loadgen.{module}.MAX_REPLY_BYTES", 2**20)
    row, _ = ask(floods)
    assert (row.status, row.failure) == ("failed", "oversized")


def test_a_server_that_is_not_there_is_a_connect_failure(start_server, exchange, closed, transport):
    with socket.socket() as taken:  # bound but not listening: refused
        taken.bind(("127.0.0.1", 0))
        target = start_server().target(url=f"http://127.0.0.1:{taken.getsockname()[1]}")
        row, _ = read(asyncio.run(send(target, exchange(), closed(), transport)))
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


def test_chat_goes_to_its_own_path_and_counts_reasoning(start_server, exchange, closed, transport):
    async def script(wire):
        await wire.head()
        for delta in ({"role": "assistant"}, {"reasoning_content": "hm"}, {"content": "a"}):
            await wire.event({"choices": [{"delta": delta, "finish_reason": None}]})
        await wire.event({"choices": [{"delta": {}, "finish_reason": "stop"}]})
        await wire.usage(3, 2)
        await wire.end()

    server = start_server(script)
    sending = send(server.target(), exchange(), closed(endpoint="chat"), transport)
    row, at_s = read(asyncio.run(sending))
    assert server.requests[0]["path"] == "/v1/chat/completions"
    assert (row.status, len(at_s)) == ("ok", 2)


def test_connections_are_used_again(start_server, exchange, closed, transport):
    server = start_server()

    async def two():
        chosen = make_transport(Client(transport=transport), server.target(), "completions")
        async with Sender(chosen, closed(), 7, []) as sender:
            for number in range(2):
                await sender.send(exchange(request=number), BODY)

    asyncio.run(two())
    assert (len(server.requests), server.num_connections) == (2, 1)
    assert [request["x-request-id"] for request in server.requests] == ["7-0", "7-1"]


def test_a_request_that_is_cancelled_keeps_what_had_come_and_is_cut(
    start_server, exchange, closed, transport
):
    sent = exchange()

    async def cancel_after_a_chunk():
        target = start_server(hangs).target()
        chosen = make_transport(Client(transport=transport), target, "completions")
        async with Sender(chosen, closed(), 7, []) as sender:
            sending = asyncio.create_task(sender.send(sent, BODY))
            while not sender.num_reads() or not sender.in_flight:
                await asyncio.sleep(0.001)
            while len(sent.read_at_s) < 2 and not any(b"t1" in p for p in sent.pieces):
                await asyncio.sleep(0.001)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    asyncio.run(cancel_after_a_chunk())
    row, at_s = read(sent)
    assert (row.status, row.failure, len(at_s)) == ("cut", "", 1)
    assert row.ended_at_s >= at_s[0]


def test_headers_go_with_every_request_and_are_in_no_record(ask):
    async def script(wire):
        assert wire.request["authorization"] == "bearer sk-secret"
        body = b'{"error": "bad key sk-secret"}'
        await wire.raw(b"HTTP/1.1 401 X\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    row, _ = ask(script, headers={"Authorization": "Bearer sk-secret"})
    assert row.failure == "http_error"
    assert "bad key" in row.detail
    assert "sk-secret" not in row.detail


def test_a_reply_that_is_not_streamed_has_an_end_and_no_first_token(ask):
    row, at_s = ask(replies_whole, streamed=False)
    assert (row.status, row.num_chunks, len(at_s)) == ("ok", 0, 0)
    assert (row.input_tokens, row.output_tokens, row.finish_reason) == (3, 4, "length")
    assert row.first_at_s != row.first_at_s
    assert row.sent_at_s < row.last_at_s <= row.ended_at_s


async def replies_whole(wire):
    body = (
        b'{"choices": [{"text": "a b c d", "finish_reason": "length"}],'
        b' "usage": {"prompt_tokens": 3, "completion_tokens": 4}}'
    )
    await wire.raw(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


STREAM = (
    'data: {"choices": [{"text": "é日", "finish_reason": null}]}\n\n'
    'data: {"choices": [{"text": "b", "finish_reason": "length"}]}\n\n'
    'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}\n\n'
    "data: [DONE]\n\n"
).encode()


def chunked(body, size):
    parts = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@pytest.mark.parametrize("cut", [1, 2, 3, 5, 7, 11, 64])
@pytest.mark.parametrize("chunk", [1, 3, 50, 10_000])
def test_a_reply_is_the_same_however_its_bytes_are_cut(ask, cut, chunk):
    """Inside a character, a line, a chunk's length, the end of the body: anywhere."""
    reply = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(STREAM, chunk)

    async def script(wire):
        for start in range(0, len(reply), cut):
            await wire.raw(reply[start : start + cut])
            await asyncio.sleep(0)

    row, at_s = ask(script)
    assert (row.status, row.detail, row.num_chunks) == ("ok", "", 2)
    assert list(at_s) == sorted(at_s)
    assert row.output_tokens == 2


def test_ten_tokens_in_one_chunk_are_ten_chunks_with_one_stamp(ask):
    token = b'data: {"choices": [{"text": "a", "finish_reason": null}]}\n\n'

    async def script(wire):
        await wire.head()
        await wire.data(token * 10)
        await wire.token(finish_reason="stop")
        await wire.usage(3, 11)
        await wire.end()

    row, at_s = ask(script)
    assert (row.status, row.num_chunks) == ("ok", 11)
    assert len(set(at_s[:10])) == 1


@pytest.mark.parametrize("ending", [b"\r\n", b"\n"])
def test_lines_may_end_in_either_way(ask, ending):
    async def script(wire):
        await wire.head()
        await wire.data(STREAM.replace(b"\n", ending))
        await wire.raw(b"0\r\n\r\n")

    assert ask(script)[0].status == "ok"


def test_a_reply_without_a_length_ends_with_its_connection(ask):
    async def script(wire):
        await wire.raw(b"HTTP/1.0 200 OK\r\n\r\n" + STREAM)
        wire.writer.close()

    assert ask(script)[0].status == "ok"


def test_trailers_and_notices_are_no_part_of_a_reply(ask):
    async def script(wire):
        await wire.raw(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
        await wire.head()
        await wire.data(STREAM)
        await wire.raw(b"0\r\nX-Checksum: 1\r\n\r\n")

    row, _ = ask(script)
    assert (row.status, row.http_status) == ("ok", 200)


def test_a_connection_that_says_close_is_not_used_again(start_server, exchange, closed, transport):
    async def script(wire):
        await wire.raw(
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        await wire.data(STREAM)
        await wire.raw(b"0\r\n\r\n")

    server = start_server(script)

    async def two():
        chosen = make_transport(Client(transport=transport), server.target(), "completions")
        sent = [exchange(request=number) for number in range(2)]
        async with Sender(chosen, closed(), 7, []) as sender:
            for each in sent:
                await sender.send(each, BODY)
        return [read(each)[0].status for each in sent]

    assert asyncio.run(two()) == ["ok", "ok"]
    assert server.num_connections == 2


def test_limits_count_from_when_a_request_was_due_while_it_has_no_connection(exchange, closed):
    load = closed(request_timeout_s=10.0, ttft_timeout_s=5.0, stall_timeout_s=1.0)
    assert overdue(exchange(due_at_s=100.0), load, 104.0) is None
    assert overdue(exchange(due_at_s=100.0), load, 106.0)[0] == "ttft_timeout"
    assert overdue(exchange(due_at_s=100.0, sent_at_s=103.0), load, 106.0) is None
    begun = exchange(due_at_s=100.0, sent_at_s=100.0, read_at_s=[103.0, 104.5])
    assert overdue(begun, load, 105.4) is None
    assert overdue(begun, load, 105.6)[0] == "stall"
    assert overdue(begun, load, 111.0)[0] == "timeout"


def test_warm_connections_are_open_before_they_are_needed(start_server, exchange, closed):
    server = start_server()

    async def main():
        chosen = make_transport(Client(transport="direct"), server.target(), "completions")
        async with Sender(chosen, closed(), 7, []) as sender:
            await chosen.warm(3)
            sent = [exchange(request=number) for number in range(3)]
            await asyncio.gather(*(sender.send(each, BODY) for each in sent))
        return [read(each)[0].status for each in sent]

    assert asyncio.run(main()) == ["ok"] * 3
    assert server.num_connections == 3


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as listener:
            listener.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_a_server_may_have_an_address_of_ipv6(start_server, exchange, closed, transport):
    server = start_server(well, host="::1")
    sent = exchange()
    asyncio.run(send(server.target(), sent, closed(), transport))
    assert read(sent)[0].status == "ok"
    assert server.requests[0]["host"] == f"[::1]:{server.port}"
