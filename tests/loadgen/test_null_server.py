import json
import os
import signal
import socket
import urllib.request
from urllib.parse import urlsplit

import numpy as np
import pytest

from loadgen.null_process import num_asked, num_ids
from loadgen.null_server import NullServer, NullServerError
from loadgen.records import Target

FIRST_S, EACH_S = 0.02, 0.005


@pytest.fixture(scope="module")
def server():
    with NullServer(FIRST_S, EACH_S) as server:
        yield server


def target(server):
    return Target(url=server.url, model=server.model, vocab_size=512)


def connect(server):
    address = urlsplit(server.url)
    return socket.create_connection((address.hostname, address.port), timeout=30)


def request(number, body):
    head = f"POST /v1/completions HTTP/1.1\r\nX-Request-Id: 9-{number}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def read_reply(connection):
    reply = b""
    while not reply.endswith(b"\r\n0\r\n\r\n"):
        data = connection.recv(65536)
        assert data
        reply += data
    return reply


def body(num_ids=3, num_tokens=2):
    return json.dumps({"model": "m", "prompt": list(range(num_ids)), "max_tokens": num_tokens})


@pytest.mark.parametrize("endpoint", ["completions", "chat"])
def test_a_reply_is_a_healthy_stream_as_long_as_asked(server, generator, closed, endpoint):
    result = generator.run(closed(endpoint=endpoint), target(server), seed=1)
    requests = result.requests
    ok = requests["status"] == "ok"
    assert ok.sum() > 2
    assert set(requests["status"]) <= {"ok", "cut"}
    assert set(requests["output_tokens"][ok]) == {4.0}
    assert set(requests["num_chunks"][ok]) == {4}
    assert set(requests["finish_reason"][ok]) == {"length"}
    if endpoint == "completions":
        assert set(requests["input_tokens"][ok]) == {20.0}


def test_the_log_has_each_request_by_its_number_between_the_clients_stamps(
    server, generator, closed
):
    server.log()
    requests = generator.run(closed(), target(server), seed=2).requests
    log = server.log()
    ok = np.flatnonzero(requests["status"] == "ok")
    _, theirs, mine = np.intersect1d(log.request, requests["request"][ok], return_indices=True)
    assert len(mine) == len(ok) > 2
    rows = ok[mine]
    assert (requests["sent_at_s"][rows] <= log.arrived_at_s[theirs]).all()
    assert (log.first_at_s[theirs] <= requests["first_at_s"][rows]).all()
    assert (log.last_at_s[theirs] <= requests["last_at_s"][rows]).all()
    assert (log.num_tokens[theirs] == 4).all()


def test_no_token_is_early_and_how_late_each_was_is_logged(server):
    server.log()
    with connect(server) as connection:
        connection.sendall(request(7, body(num_tokens=5)))
        read_reply(connection)
    log = server.log()
    assert log.request.tolist() == [7]
    assert log.num_tokens.tolist() == [5]
    due_at_s = log.arrived_at_s[0] + FIRST_S + EACH_S * np.arange(5)
    assert log.written_at_s - due_at_s == pytest.approx(log.late_s, abs=1e-6)
    assert (log.late_s >= 0).all()
    assert log.first_at_s[0] == log.written_at_s[0]
    assert log.last_at_s[0] == log.written_at_s[-1]


def test_a_request_has_arrived_with_its_last_byte(server):
    server.log()
    whole = request(8, body(num_ids=100_000))
    with connect(server) as first, connect(server) as second:
        first.sendall(whole[:-1])
        second.sendall(request(9, body()))
        read_reply(second)
        first.sendall(whole[-1:])
        reply = read_reply(first)
    assert b'"prompt_tokens":100000' in reply
    log = server.log()
    assert log.request.tolist() == [9, 8]
    assert log.last_at_s[0] < log.arrived_at_s[1]


def test_a_connection_serves_one_request_after_the_other(server):
    server.log()
    with connect(server) as connection:
        for number in range(3):
            connection.sendall(request(number, body()))
            read_reply(connection)
    assert server.log().request.tolist() == [0, 1, 2]


def test_a_client_that_hangs_up_leaves_a_row_without_an_end(server):
    server.log()
    with connect(server) as connection:
        connection.sendall(request(5, body(num_tokens=1_000_000)))
        while b"data:" not in connection.recv(65536):
            pass
    log = server.log()
    assert log.request.tolist() == [5]
    assert np.isnan(log.last_at_s[0])
    assert log.num_tokens[0] >= 1


def test_the_pace_can_change_between_loads(server):
    server.pace(first_s=0.3, each_s=EACH_S)
    with connect(server) as connection:
        connection.sendall(request(1, body()))
        read_reply(connection)
    log = server.log()
    server.pace(FIRST_S, EACH_S)
    assert (log.first_at_s - log.arrived_at_s >= 0.3).all()
    assert server.log().request.tolist() == []


def test_several_processes_share_one_port_and_one_log():
    with NullServer(FIRST_S, EACH_S, processes=2) as server:
        assert len(set(server.pids)) == 2
        connections = [connect(server) for _ in range(20)]
        for number, connection in enumerate(connections):
            connection.sendall(request(number, body()))
        for connection in connections:
            read_reply(connection)
            connection.close()
        log = server.log()
    assert sorted(log.request) == list(range(20))
    assert len(log.written_at_s) == 40
    assert (np.diff(log.written_at_s) >= 0).all()
    assert (np.diff(log.arrived_at_s) >= 0).all()


def test_it_looks_like_a_server(server):
    for path in ("/health", "/v1/models"):
        with urllib.request.urlopen(server.url + path, timeout=30) as reply:
            assert reply.status == 200
            models = json.load(reply)
    assert models["data"][0]["id"] == server.model


def test_a_server_that_has_died_says_so():
    with NullServer() as server:
        os.kill(server.pids[0], signal.SIGKILL)
        with pytest.raises(NullServerError, match="died"):
            server.log()


@pytest.mark.parametrize(
    ("text", "num"),
    [
        ('{"prompt":[1,2,3],"stop":[4,5]}', 3),
        ('{"prompt": [7]}', 1),
        ('{"prompt":"a few words, here"}', 4),
        ('{"messages":[{"content":"a b"}]}', 2),
    ],
)
def test_prompt_ids_are_counted(text, num):
    assert num_ids(bytearray(text.encode()), 0) == num


@pytest.mark.parametrize(
    ("text", "num"),
    [
        ('{"max_tokens":12}', 12),
        ('{"max_tokens": 0}', 1),
        ('{"max_completion_tokens": 5}', 5),
        ('{"max_tokens":null,"max_completion_tokens":6}', 6),
        ("{}", 16),
    ],
)
def test_the_length_asked_is_found(text, num):
    assert num_asked(bytearray(text.encode()), 0) == num
