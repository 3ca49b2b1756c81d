import math

import numpy as np
import pytest

from loadgen.records import FailureKind, read, tabulate

TOKEN = b'data: {"choices": [{"text": "a", "finish_reason": null}]}\n\n'
FINISH = b'data: {"choices": [{"text": "", "finish_reason": "length"}]}\n\n'
USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 20, "completion_tokens": 2}}\n\n'
ERROR = b'data: {"error": {"message": "no"}}\n\n'


def test_a_cut_request_whose_reply_was_whole_is_ok(exchange):
    whole = exchange(http_status=200, pieces=[TOKEN, FINISH + USAGE], piece_at_s=[1.0, 2.0])
    whole.cut = True
    assert read(whole)[0].status == "ok"


def test_a_cut_request_that_had_said_error_is_failed(exchange):
    sent = exchange(http_status=200, pieces=[TOKEN, ERROR], piece_at_s=[1.0, 2.0], cut=True)
    assert read(sent)[0].failure == "error_chunk"


def test_a_cut_request_without_a_reply_is_cut(exchange):
    row, at_s = read(exchange(cut=True))
    assert (row.status, list(at_s)) == ("cut", [])
    assert math.isnan(row.http_status)
    assert math.isnan(row.first_at_s)
    assert math.isnan(row.output_tokens)


def test_details_are_shortened(exchange):
    row, _ = read(exchange(failure=FailureKind.DISCONNECTED, detail="x" * 1000))
    assert len(row.detail) == 300


@pytest.mark.parametrize(
    ("pieces", "looks_failed"),
    [
        ([TOKEN, FINISH + USAGE], False),
        ([ERROR], True),
        ([TOKEN, ERROR], True),
        ([], True),
        ([TOKEN.replace(b'"a"', b'"\\"error\\": {"')], False),
        ([TOKEN.replace(b'"text"', b'"error": null, "text"')], False),
    ],
)
def test_the_cheap_guess_sees_errors_and_no_others(exchange, pieces, looks_failed):
    assert exchange(http_status=200, pieces=pieces).looks_failed() == looks_failed


def test_tables_keep_their_types_without_a_request():
    requests, chunks = tabulate([])
    assert requests["request"].dtype == np.int64
    assert requests["first_at_s"].dtype == np.float64
    assert requests["status"].dtype == object
    assert chunks["at_s"].dtype == np.float64


def test_a_reply_that_is_cut_off_before_its_whole_object_came_is_cut(exchange):
    part = exchange(http_status=200, streamed=False, pieces=[b'{"choi'], piece_at_s=[1.0], cut=True)
    assert read(part)[0].status == "cut"


def test_a_whole_reply_that_is_no_completion_is_garbled(exchange):
    sent = exchange(http_status=200, streamed=False, pieces=[b"oops"], piece_at_s=[1.0])
    assert read(sent)[0].failure == "garbled"
