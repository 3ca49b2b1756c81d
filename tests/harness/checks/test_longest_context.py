import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.checks.longest_context import MOST_TOKENS, Try, ask, find
from loadgen.records import Target


class FakeServer:
    """Serves what is not over `limit` tokens, refuses what is over `max_model_len`."""

    def __init__(self, limit, max_model_len=None, fate="failed"):
        self.limit, self.max_model_len, self.fate = limit, max_model_len, fate
        self.asked = []

    def ask(self, tokens):
        assert self.fate != "died" or not self.asked or self.asked[-1].fate != "died"
        fate = "served" if tokens <= self.limit else self.fate
        if self.max_model_len and tokens > self.max_model_len:
            fate = "refused"
        self.asked.append(Try(tokens=tokens, fate=fate, took_s=tokens / 1e4, why=f"{fate} by fake"))
        return self.asked[-1]

    def search(self, start_tokens):
        return find(self.ask, start_tokens, self.max_model_len)


@given(
    limit=st.integers(1, 2_000_000),
    start_tokens=st.integers(2, 4096),
    max_model_len=st.none() | st.integers(2, 4_000_000),
    fate=st.sampled_from(["failed", "refused"]),
)
def test_any_limit_is_found_within_the_granularity(limit, start_tokens, max_model_len, fate):
    server = FakeServer(limit, max_model_len, fate)
    found = server.search(start_tokens)
    truth = min(limit, max_model_len or limit)
    assert (found.tokens or 1) <= truth <= (found.tokens or 1) + max(16, 0.01 * truth)
    assert found.tries == tuple(server.asked)
    assert len(found.tries) < 40
    if found.tokens is not None:
        assert found.took_s == found.tokens / 1e4


@given(max_model_len=st.integers(2, 10**6), start_tokens=st.integers(2, 4096))
def test_a_server_that_serves_all_that_it_lets_in_is_asked_for_one_token_more(
    max_model_len, start_tokens
):
    found = FakeServer(10**9, max_model_len).search(start_tokens)
    assert (found.tokens, found.refused_cleanly) == (max_model_len, True)
    assert found.limit == f"max_model_len={max_model_len}"
    assert [t.tokens for t in found.tries].count(max_model_len + 1) == 1


def test_a_server_that_half_serves_what_is_too_long_is_not_clean():
    def asked(tokens):
        return Try(tokens=tokens, fate="failed" if tokens > 100 else "served", took_s=0, why="500")

    assert find(asked, 50, 100).refused_cleanly is False


def test_a_server_without_a_limit_does_not_keep_the_search_for_ever():
    found = FakeServer(10**12).search(1024)
    assert found.tokens == MOST_TOKENS
    assert found.limit == f"nothing over {MOST_TOKENS} was asked"
    assert found.refused_cleanly is None


def test_the_limit_is_told_in_the_servers_own_words():
    assert FakeServer(3000, 8192).search(1024).limit == "failed by fake"


@given(limit=st.integers(1, 10**6), start_tokens=st.integers(2, 4096))
def test_a_dead_server_is_not_asked_again(limit, start_tokens):
    server = FakeServer(limit, fate="died")
    found = server.search(start_tokens)
    assert found.limit == "died by fake"
    assert found.tokens is None or limit / 2 < found.tokens <= limit
    assert [t.fate for t in found.tries].count("died") == 1
    assert found.refused_cleanly is None


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body | {"key": self.headers.get("Authorization")})
        match self.server.habit:
            case "hang":
                self.server.over.wait(60)
            case "reset":
                return
            case "good":
                self.answer(200, {"choices": [{"text": "t1"}]})
            case "error in 200":
                self.answer(200, {"error": {"message": "EngineCore\nencountered an issue"}})
            case status:
                self.answer(status, {"error": {"message": "too long"}})

    def answer(self, status, content):
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


@pytest.fixture
def serving():
    """A server with a habit; its url and the bodies that it got."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.bodies, server.over, server.daemon_threads = [], threading.Event(), True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()
    thread.join()


def asked(server, habit, timeout_s=30.0, **named):
    server.habit = habit
    url = f"http://127.0.0.1:{server.server_port}"
    return ask(Target(url=url, model="m", vocab_size=512, **named), 100, timeout_s)


@pytest.mark.parametrize(
    ("habit", "fate", "why"),
    [
        ("good", "served", ""),
        (400, "refused", 'HTTP 400: {"error": {"message": "too long"}}'),
        (500, "failed", "HTTP 500"),
        (404, "failed", "HTTP 404"),
        ("error in 200", "failed", "HTTP 200"),
        ("reset", "failed", "closed connection without response"),
    ],
)
def test_what_came_back_decides_the_fate_of_a_prompt(serving, habit, fate, why):
    answer = asked(serving, habit)
    assert (answer.tokens, answer.fate) == (100, fate)
    assert why in answer.why
    assert "\n" not in answer.why


def test_a_reply_that_does_not_come_in_time_is_a_failure(serving):
    answer = asked(serving, "hang", timeout_s=0.2)
    assert (answer.fate, answer.why) == ("failed", "no token within 0.2 s")
    assert answer.took_s >= 0.2


def test_a_server_that_is_gone_is_a_failure():
    answer = ask(Target(url="http://127.0.0.1:9", model="m", vocab_size=512), 100, 5.0)
    assert answer.fate == "failed"
    assert "refused" in answer.why


def test_prompt_and_reply_together_are_as_long_as_asked(serving):
    asked(serving, "good", headers={"Authorization": "Bearer k"})
    (body,) = serving.bodies
    assert len(body["prompt"]) + body["max_tokens"] == 100
    assert min(body["prompt"]) >= 3
    assert max(body["prompt"]) < 512
    assert body["key"] == "Bearer k"
