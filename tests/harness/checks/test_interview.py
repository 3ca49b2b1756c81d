import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from harness.checks.answers import key_of
from harness.checks.config import AccuracyCheck
from harness.checks.interview import NoAnswerError, ask, prompts_of
from harness.errors import UserError

PROMPTS = ((5, 6, 7), (1, 2, 3, 4))
CHECK = AccuracyCheck(reference=["x"], top_logprobs=2, continuation_tokens=3, repeats=2)


def entry(token):
    """As vLLM writes it: tokens 0 and 9 are always the likeliest, the prompt's own comes first."""
    own = {str(token): {"logprob": -5.0, "rank": 7, "decoded_token": "x"}}
    likely = {
        "9": {"logprob": -0.5, "rank": 1, "decoded_token": "y"},
        "0": {"logprob": -1.5, "rank": 2, "decoded_token": "z"},
    }
    return own | likely


def told(asked):
    choice = {
        "text": "",
        "token_ids": [asked["prompt"][0]] * asked["max_tokens"],
        "prompt_logprobs": [None, *(entry(token) for token in asked["prompt"][1:])],
    }
    return 200, {"choices": [choice]}


class FakeServer:
    """Answers /v1/completions with `reply(what was asked)`, a status and a body."""

    def __init__(self):
        self.reply = told
        self.asked = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fake.asked.append(asked)
                status, body = fake.reply(asked)
                payload = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def fake():
    server = FakeServer()
    yield server
    server.close()


def test_each_prompt_is_scored_and_continued_in_each_pass(fake):
    first, second = ask(fake.url, "m", PROMPTS, CHECK)
    assert [one.prompt for one in first] == [key_of(prompt) for prompt in PROMPTS]
    assert first[0].token_ids.tolist() == [6, 7]
    assert first[0].logprobs.tolist() == [-5.0, -5.0]
    assert first[0].top_ids.tolist() == [[9, 0], [9, 0]], "without the prompt's own, that is no top"
    assert first[0].top_logprobs.tolist() == [[-0.5, -1.5]] * 2
    assert second[1].continued.tolist() == [1, 1, 1]
    assert len(fake.asked) == 4


def test_it_is_asked_as_vllm_wants_it(fake):
    ask(
        fake.url,
        "m",
        PROMPTS[:1],
        AccuracyCheck(reference=["x"], top_logprobs=2, continuation_tokens=3, repeats=1),
    )
    assert fake.asked == [
        {
            "model": "m",
            "prompt": [5, 6, 7],
            "max_tokens": 3,
            "temperature": 0,
            "ignore_eos": True,
            "prompt_logprobs": 2,
            "return_token_ids": True,
        }
    ]


def test_of_equal_logprobs_the_lower_token_comes_first(fake):
    tied = {str(token): {"logprob": -1.0} for token in (12, 7, 3)}
    fake.reply = lambda _: (
        200,
        {"choices": [{"token_ids": [1] * 3, "prompt_logprobs": [None, tied]}]},
    )
    check = AccuracyCheck(reference=["x"], top_logprobs=3, continuation_tokens=3, repeats=1)
    ((one,),) = ask(fake.url, "m", [(2, 7)], check)
    assert one.top_ids.tolist() == [[3, 7, 12]]
    assert one.logprobs == np.float32(-1.0)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ((200, {"choices": [{"text": "hello"}]}), "does not tell prompt_logprobs.*hello"),
        ((400, {"error": {"message": "max allowed: 20"}}), "HTTP 400: .*max allowed: 20"),
        ((200, ["?"]), "does not tell"),
        (
            (200, {"choices": [{"token_ids": [1], "prompt_logprobs": [None, entry(6), entry(7)]}]}),
            "asked for 3 tokens after a prompt of 3, got 1",
        ),
        (
            (200, {"choices": [{"token_ids": [1] * 3, "prompt_logprobs": [None, entry(6)]}]}),
            "does not tell",
        ),
    ],
)
def test_what_a_server_says_instead_of_an_answer_is_told(fake, reply, words):
    fake.reply = lambda _: reply
    with pytest.raises(NoAnswerError, match=words):
        ask(fake.url, "m", PROMPTS[:1], CHECK)


def test_a_server_that_is_gone_is_told(fake):
    fake.close()
    with pytest.raises(NoAnswerError, match=r"no answer to a prompt of 3 tokens: .*refused"):
        ask(fake.url, "m", PROMPTS, CHECK)


def test_prompts_lie_beside_the_weights_or_where_the_user_says(tmp_path):
    (tmp_path / "heldout.json").write_text(json.dumps({"prompts": PROMPTS}))
    (tmp_path / "mine.json").write_text(json.dumps({"prompts": [[1, 2], [3, 4], [5, 6]]}))
    assert prompts_of(AccuracyCheck(reference=["x"]), str(tmp_path)) == PROMPTS
    mine = AccuracyCheck(reference=["x"], path=str(tmp_path / "mine.json"), prompts=2)
    assert prompts_of(mine, str(tmp_path)) == ((1, 2), (3, 4))


def test_a_model_without_held_out_prompts_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"there is no .*heldout\.json: name a file with"):
        prompts_of(AccuracyCheck(reference=["x"]), str(tmp_path))


@pytest.mark.parametrize(
    "content",
    [
        "not json",
        "[]",
        '{"prompts": 3}',
        '{"prompts": [[1, 2], ["a", "b"]]}',
        '{"prompts": [[1], [2]]}',
        '{"prompts": [[1, 2]]}',
        '{"prompts": [[1, 2], [1, 2]]}',
    ],
)
def test_a_file_of_something_else_is_one_sentence(tmp_path, content):
    (tmp_path / "heldout.json").write_text(content)
    with pytest.raises(UserError, match="expected"):
        prompts_of(AccuracyCheck(reference=["x"]), str(tmp_path))
