import json
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from loadgen.reply import Usage
from loadgen.reply import parse_stream as parse


def line(**event):
    return b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n"


def text(text, finish_reason=None):
    return line(choices=[{"text": text, "finish_reason": finish_reason}])


def delta(**delta):
    return line(choices=[{"delta": delta, "finish_reason": None}])


USAGE = line(choices=[], usage={"prompt_tokens": 7, "completion_tokens": 3})
DONE = b"data: [DONE]\n\n"

EVENTS = st.sampled_from(
    [
        text("é日本"), text("a"), text(""), text("b", "length"), delta(content="ß"),
        delta(role="assistant", content=""), delta(reasoning_content="hm"), USAGE, DONE,
        b": keep-alive\n\n", b"event: x\r\ndata: {}\r\n\r\n", line(error={"message": "no ✗"}),
        b"data: {not json\n\n",
    ]
)  # fmt: skip


@given(events=st.lists(EVENTS), cuts=st.lists(st.integers(0, 2000)), tail=st.integers(0, 200))
@example(events=[text("é日本")], cuts=list(range(200)), tail=0)
def test_a_reply_does_not_depend_on_where_its_bytes_were_cut(events, cuts, tail):
    whole = b"".join(events)
    body = whole[: len(whole) - tail] if tail < len(whole) else whole
    edges = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    pieces = [body[a:b] for a, b in pairwise(edges)]
    bytewise = parse([body[i : i + 1] for i in range(len(body))])
    reply = parse(pieces)
    # A chunk is there when its last byte is: the same byte, whatever piece it came in.
    ends = [edges[piece] <= at < edges[piece + 1] for piece, at in
            zip(reply.content_pieces, bytewise.content_pieces, strict=True)]  # fmt: skip
    assert all(ends)
    bytewise.content_pieces = reply.content_pieces
    assert reply == bytewise


def test_a_completion_is_read_whole():
    reply = parse([text("a") + text("b"), text("c", "length"), USAGE + DONE])
    assert reply.content_pieces == [0, 0, 1]
    assert reply.finish_reason == "length"
    assert reply.usage == Usage(input_tokens=7, output_tokens=3, cached_tokens=None)
    assert (reply.error, reply.garbled) == (None, None)


@pytest.mark.parametrize(
    ("event", "has_content"),
    [
        (text("x"), True),
        (text(""), False),
        (text("", "stop"), False),
        (delta(content="x"), True),
        (delta(role="assistant", content=""), False),
        (delta(reasoning="x"), True),
        (delta(reasoning_content="x"), True),
        (delta(tool_calls=[{"index": 0}]), True),
        (delta(content=None), False),
        (USAGE, False),
        (DONE, False),
        (b": ping\n\n", False),
    ],
)
def test_only_text_reasoning_and_tool_calls_are_content(event, has_content):
    assert parse([event]).content_pieces == ([0] if has_content else [])


@pytest.mark.parametrize("position", [0, 1, 2])
def test_an_error_chunk_counts_wherever_it_comes(position):
    events = [text("a"), text("b", "stop") + USAGE, DONE]
    events.insert(position, line(error={"message": "EngineCore died", "code": 500}))
    assert "EngineCore died" in parse(events).error


def test_the_first_error_is_the_one_that_is_kept():
    assert "one" in parse([line(error="one"), line(error="two")]).error
    assert "old" in parse([line(object="error", message="old style")]).error


def test_cached_tokens_are_none_unless_the_server_says_them():
    counts = {"prompt_tokens": 7, "completion_tokens": 3}
    said = line(usage=counts | {"prompt_tokens_details": {"cached_tokens": 0}})
    silent = line(usage=counts | {"prompt_tokens_details": None})
    assert parse([said]).usage.cached_tokens == 0
    assert parse([silent]).usage.cached_tokens is None


@pytest.mark.parametrize(
    "event", [b"data: {oops\n\n", b"data: [1]\n\n", b"data: \xff\n\n", b'data: {"usage":{"x":1}}\n']
)
def test_a_line_that_makes_no_sense_is_kept_as_garbled(event):
    assert parse([event]).garbled is not None


def test_an_unfinished_last_line_is_no_damage_and_counts_if_it_is_whole():
    assert parse([text("a") + b'data: {"choi']).garbled is None
    assert parse([text("a") + text("b").rstrip()]).content_pieces == [0, 0]
