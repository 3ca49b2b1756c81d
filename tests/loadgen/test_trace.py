import json
from pathlib import Path

import pytest

from loadgen import trace

DATA = Path(__file__).parent / "data"


@pytest.fixture
def read(tmp_path):
    """Read a trace that holds these lines."""

    def read(*lines):
        path = tmp_path / "trace"
        path.write_text("".join(f"{line}\n" for line in lines))
        return trace.read(str(path))

    return read


def test_mooncake_times_are_milliseconds_from_the_first_request_on():
    entries = trace.read(str(DATA / "mooncake.jsonl"))
    assert [entry.offset_s for entry in entries] == [0.0, 0.0, 2.0, 3.5]
    assert entries[3] == trace.Entry(
        offset_s=3.5, input_tokens=1300, output_tokens=11, hash_ids=(0, 1, 4)
    )


def test_requests_that_failed_in_burstgpt_are_left_out():
    entries = trace.read(str(DATA / "burstgpt.csv"))
    assert [entry.offset_s for entry in entries] == [0.0, 40.0, 113.0]
    assert [entry.input_tokens for entry in entries] == [472, 1087, 417]
    assert [entry.output_tokens for entry in entries] == [18, 230, 276]
    assert not any(entry.hash_ids for entry in entries)


def test_the_third_release_of_burstgpt_has_sessions_and_fractions():
    entries = trace.read(str(DATA / "burstgpt_sessions.csv"))
    assert [(entry.offset_s, entry.input_tokens) for entry in entries] == [(0.0, 906), (51.5, 36)]


def test_plain_names_are_read_from_a_table_and_from_lines(read):
    row = {"timestamp_s": 2.5, "input_tokens": 7, "output_tokens": 3}
    table = read(",".join(row), ",".join(map(str, row.values())))
    assert table == read(json.dumps(row))
    assert table == (trace.Entry(offset_s=0.0, input_tokens=7, output_tokens=3),)


def test_a_file_that_has_changed_is_read_again(tmp_path):
    path = tmp_path / "trace.csv"
    for rows in (1, 2):
        path.write_text("timestamp_s,input_tokens,output_tokens\n" + "0,1,1\n" * rows)
        assert len(trace.read(str(path))) == rows


MOONCAKE = '{"timestamp": 0, "input_length": 9, "output_length": 9%s}'


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([MOONCAKE % "", "{"], r"trace:2: not JSON .*, expected an object"),
        (["{}", MOONCAKE % ""], r"trace:1: found nothing, expected timestamp, input_length"),
        (["[1, 2]"], r"trace:1: '\[1, 2\]', expected a JSON object"),
        ([MOONCAKE % "", ('{"timestamp": 0, "input_length": -9, "output_length": 9}')],
         r"trace:2: input_length is -9, expected a whole number of tokens"),
        (['{"timestamp": null, "input_length": 9, "output_length": 9}'],
         r"trace:1: timestamp is None, expected a number"),
        ([MOONCAKE % ', "hash_ids": {"a": 1}'], r"trace:1: hash_ids is .*, expected a list"),
        ([MOONCAKE % ', "hash_ids": ["a"]'], r"trace:1: hash_ids is .*, expected a list"),
        ([MOONCAKE % ', "hash_ids": [1, 2]'], r"trace:1: 2 hash_ids for 9 input .* at most 1"),
        (["Timestamp,Model", "1,GPT-4"], r"trace:1: found Timestamp, Model, expected"),
        (["timestamp_s,input_tokens,output_tokens", "0,1,1", "1,2.5,1"],
         r"trace:3: input_tokens is '2.5', expected a whole number"),
        (["timestamp_s,input_tokens,output_tokens", "0,1,1", "1,2"],
         r"trace:3: output_tokens is None, expected a number"),
        (["timestamp_s,input_tokens,output_tokens", "inf,1,1"], r"timestamp_s is 'inf', expected"),
        (["timestamp_s,input_tokens,output_tokens", "0,1,0"], r"trace: no request in it"),
        ([], r"trace: no request in it, expected one a line"),
    ],
)  # fmt: skip
def test_a_malformed_trace_is_refused_with_its_line(read, lines, message):
    with pytest.raises(ValueError, match=message):
        read(*lines)
