import json
import signal
import socket

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.harness.sim.process import SimProcess, write_model


@pytest.fixture(scope="module")
def sim(tmp_path_factory):
    with SimProcess(write_model(tmp_path_factory.mktemp("tiny"))) as process:
        yield process


def metrics(sim) -> dict[str, float]:
    """Sums over labels."""
    values: dict[str, float] = {}
    for family in text_string_to_metric_families(sim.fetch("/metrics")[1]):
        for sample in family.samples:
            values[sample.name] = values.get(sample.name, 0.0) + sample.value
    return values


def texts(events: list) -> list[str]:
    return [c["text"] for event in events[:-1] for c in event["choices"]]


def test_a_stream_has_a_chunk_a_token_then_usage_then_done(sim):
    options = {"include_usage": True}
    *chunks, usage, done = sim.stream(prompt=[1, 2, 3], max_tokens=4, stream_options=options)
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * 3 + ["length"]
    assert all(set(c) == {"id", "object", "created", "model", "choices"} for c in chunks)
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    assert done == "[DONE]"


def test_a_chat_stream_begins_with_the_role_and_counts_words(sim):
    role, first, second, usage, done = sim.stream(
        "/v1/chat/completions",
        messages=[{"role": "user", "content": "t1 t2 t3"}],
        max_completion_tokens=2,
        stream_options={"include_usage": True},
    )
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert first["choices"][0]["delta"]["content"].startswith(" t")
    assert second["choices"][0]["finish_reason"] == "length"
    assert usage["usage"]["prompt_tokens"] == 3
    assert done == "[DONE]"


@pytest.mark.parametrize("prompt", [[5, 6, 7], [[5, 6, 7]], "t5 t6 t7", ["t5 t6 t7"]])
def test_every_form_of_a_prompt_is_counted(sim, prompt):
    status, text = sim.fetch("/v1/completions", {"model": "m", "prompt": prompt, "max_tokens": 2})
    reply = json.loads(text)
    assert status == 200
    assert reply["usage"]["prompt_tokens"] == 3
    assert len(reply["choices"][0]["text"].split()) == 2


def test_the_same_prompt_gives_the_same_text_and_another_gives_another(sim):
    same = [texts(sim.stream(prompt=[9, 9], max_tokens=5)) for _ in range(2)]
    other = texts(sim.stream(prompt=[9, 8], max_tokens=5))
    assert same[0] == same[1] != other


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{not json", 400, "Expecting"),
        ([1], 400, "dictionary"),
        ({"model": "other", "prompt": [1]}, 404, "The model `other` does not exist."),
        ({"model": "m", "prompt": [1] * 2000, "max_tokens": 49}, 400, "maximum context length"),
        ({"model": "m", "prompt": [1] * 2048}, 400, "maximum context length is 2048"),
        ({"model": "m", "prompt": [1], "max_tokens": 0}, 400, "max_tokens"),
        ({"model": "m", "prompt": []}, 400, "empty"),
        ({"model": "m", "prompt": [[1], [2]]}, 400, "one to a request"),
    ],
)
def test_a_bad_request_is_refused_in_vllms_form(sim, body, status, message):
    got, text = sim.fetch("/v1/completions", body)
    error = json.loads(text)["error"]
    assert got == error["code"] == status
    assert message in error["message"]


def test_the_small_endpoints_answer(sim):
    assert sim.fetch("/health") == (200, "")
    assert json.loads(sim.fetch("/v1/models")[1])["data"][0]["max_model_len"] == 2048
    assert "simulator" in sim.fetch("/version")[1]
    for path in ("/start_profile", "/stop_profile", "/reset_prefix_cache"):
        assert sim.fetch(path, b"")[0] == 200


def test_metrics_count_what_was_served(sim):
    before = metrics(sim)
    sim.stream(prompt=list(range(40)), max_tokens=5)
    after = metrics(sim)
    grown = {
        name: after[f"{name}"] - before[f"{name}"]
        for name in (
            "vllm:prompt_tokens_total",
            "vllm:generation_tokens_total",
            "vllm:prefix_cache_queries_total",
            "vllm:request_success_total",
            "vllm:time_to_first_token_seconds_count",
            "vllm:inter_token_latency_seconds_count",
            "vllm:e2e_request_latency_seconds_count",
            "vllm:request_queue_time_seconds_count",
            "vllm:request_prefill_time_seconds_count",
            "vllm:request_decode_time_seconds_count",
        )
    }
    assert list(grown.values()) == [40, 5, 40, 1, 1, 4, 1, 1, 1, 1]
    assert after["sim:steps_total"] > before["sim:steps_total"]
    assert after["vllm:num_requests_running"] == 0


def test_cached_prompt_tokens_are_reported(sim):
    body = {"model": "m", "prompt": list(range(300, 340)), "max_tokens": 1}
    usages = [json.loads(sim.fetch("/v1/completions", body)[1])["usage"] for _ in range(2)]
    assert "prompt_tokens_details" not in usages[0]
    assert usages[1]["prompt_tokens_details"] == {"cached_tokens": 32}


def test_a_client_that_leaves_frees_its_request(tmp_path):
    with SimProcess(write_model(tmp_path, max_position_embeddings=10**6)) as sim:
        body = {"model": "m", "prompt": [1], "max_tokens": 900_000, "stream": True}
        with sim.open("/v1/completions", body) as reply:
            reply.readline()
            assert metrics(sim)["vllm:num_requests_running"] == 1
        while metrics(sim)["vllm:num_requests_running"]:  # pytest's time limit ends this
            pass
        assert metrics(sim)["vllm:kv_cache_usage_perc"] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_code_0_even_with_an_open_stream(tmp_path, number):
    with SimProcess(write_model(tmp_path, max_position_embeddings=10**6)) as sim:
        body = {"model": "m", "prompt": [1], "max_tokens": 900_000, "stream": True}
        with sim.open("/v1/completions", body) as reply:
            reply.readline()
            sim.signal(number)
            assert sim.wait() == 0


def test_error_chunks_and_cut_streams_come_when_asked_for(tmp_path):
    with SimProcess(write_model(tmp_path), "--fault", "error_chunk_every=2") as sim:
        good, bad = (sim.stream(prompt=[1], max_tokens=2) for _ in range(2))
    assert "choices" in good[0]
    assert bad[0]["error"]["code"] == 500
    assert bad[1] == "[DONE]"


def test_a_cut_stream_has_neither_finish_reason_nor_done(tmp_path):
    with SimProcess(write_model(tmp_path), "--fault", "truncate_every=1") as sim:
        body = {"model": "m", "prompt": [1], "max_tokens": 8, "stream": True}
        payload = json.dumps(body).encode()
        host, port = sim.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as stream:
            stream.sendall(
                b"POST /v1/completions HTTP/1.1\r\nHost: sim\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(payload), payload)
            )
            reply = b"".join(iter(lambda: stream.recv(65536), b""))
    assert reply.count(b"data: {") == 3
    assert b"[DONE]" not in reply
    assert b'"length"' not in reply
    assert not reply.endswith(b"0\r\n\r\n")


def test_it_dies_after_its_tokens(tmp_path):
    with SimProcess(write_model(tmp_path), "--fault", "die_after_tokens=3") as sim:
        with (
            pytest.raises(OSError, match=r".*"),
            sim.open("/v1/completions", {"model": "m", "prompt": [1], "max_tokens": 9}) as reply,
        ):
            reply.read()
        assert sim.wait() == 1
    assert "die_after_tokens" in sim.lines[-1]


@pytest.mark.parametrize(
    ("fault", "num_tokens"), [("hang_after_tokens=3", 3), ("no_first_token", 0)]
)
def test_it_hangs_while_health_says_200(tmp_path, fault, num_tokens):
    with SimProcess(write_model(tmp_path), "--fault", fault) as sim:
        body = json.dumps({"model": "m", "prompt": [1], "max_tokens": 9, "stream": True}).encode()
        host, port = sim.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as stream:
            stream.sendall(
                b"POST /v1/completions HTTP/1.1\r\nHost: sim\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            )
            seen = b""
            while seen.count(b"data: {") < num_tokens or b"\r\n\r\n" not in seen:
                seen += stream.recv(65536)
            assert sim.fetch("/health")[0] == 200
            assert metrics(sim)["vllm:generation_tokens_total"] == num_tokens
