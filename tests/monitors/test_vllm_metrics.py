from math import isnan
from urllib.error import HTTPError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitors.vllm_metrics import (
    METRICS,
    TTFT_BUCKET,
    TTFT_BUCKETS,
    VllmMetrics,
    parse,
    together,
)


def test_a_real_page_has_every_metric(vllm_page):
    values = parse(vllm_page)
    assert not any(isnan(value) for value in values.values())
    gauges_and_counters = list(values)[len(TTFT_BUCKETS) :][:8]
    assert {name: values[name] for name in gauges_and_counters} == {
        "requests_running": 0,
        "requests_waiting": 0,
        "kv_cache_usage_frac": 0,
        "preemptions_total": 0,
        "prompt_tokens_total": 184,
        "generation_tokens_total": 22400,
        "prefix_cache_queries_total": 184,
        "prefix_cache_hits_total": 0,
    }


def test_a_real_pages_histograms_are_read(vllm_page):
    values = parse(vllm_page)
    assert values["steps_total"] == 3098
    assert values["ttft_total"] == values["queue_total"] == values["decode_total"] == 175
    assert values["ttft_sum_s"] == pytest.approx(118.636, abs=1e-3)
    assert values["ttft_le_0.1_total"] == 24
    assert values["ttft_le_2.5_total"] == 175


def test_buckets_of_engines_are_added_up_and_unknown_ones_left_out():
    page = "\n".join(
        f'{TTFT_BUCKET}{{engine="{engine}",le="{le}"}} {count}'
        for engine, count in enumerate([3, 4])
        for le in ("0.1", "0.123", "+Inf")
    )
    values = parse(f"vllm:num_requests_running 1\n{page}\n")
    assert values["ttft_le_0.1_total"] == 7
    assert isnan(values["ttft_le_0.25_total"])


def test_engines_are_added_up_but_the_fullest_kv_cache_counts():
    page = "\n".join(
        f'{metric}{{engine="{engine}",model_name="a {{b}} c"}} {value}'
        for metric in METRICS.values()
        for engine, value in enumerate([0.25, 0.5])
    )
    values = parse(page)
    assert values.pop("kv_cache_usage_frac") == 0.5
    assert {values[name] for name in METRICS if name in values} == {0.75}


def test_a_metric_that_the_page_lacks_is_nan():
    values = parse("vllm:num_requests_running 3\n")
    assert values["requests_running"] == 3
    assert isnan(values["kv_cache_usage_frac"])
    assert isnan(values["preemptions_total"])


@given(st.text())
def test_a_page_without_vllms_metrics_is_refused(page):
    with pytest.raises(ValueError, match="none of vLLM's metrics"):
        parse(page)


def test_a_scrape_is_one_row_in_the_order_of_the_columns(serve_page, vllm_page):
    source = VllmMetrics([serve_page(vllm_page.encode())], 0.5)
    (row,) = source.sample(edge=False)
    values = dict(zip(source.columns, row, strict=True))
    assert values["at_s"] > 0
    assert values["generation_tokens_total"] == 22400


def test_a_server_error_is_raised_to_the_recorder(serve_page):
    source = VllmMetrics([serve_page(b"no", 503)], 0.5)
    with pytest.raises(HTTPError, match="503") as caught:
        list(source.sample(edge=False))
    caught.value.close()


def test_the_environments_proxy_is_not_asked(serve_page, vllm_page, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    assert list(VllmMetrics([serve_page(vllm_page.encode())], 0.5).sample(edge=False))


def test_pages_of_replicas_are_read_as_one_page_with_all_their_engines(serve_page):
    engine = (
        'vllm:num_requests_running{{engine="{}"}} {}\nvllm:kv_cache_usage_perc{{engine="{}"}} {}\n'
    )
    first, second = engine.format(0, 3, 0, 0.25), engine.format(0, 4, 0, 0.75)
    source = VllmMetrics([serve_page(first.encode()), serve_page(second.encode())], 0.5)
    (row,) = source.sample(edge=False)
    values = dict(zip(source.columns, row, strict=True))
    both = parse(engine.format(0, 3, 0, 0.25) + engine.format(1, 4, 1, 0.75))
    assert (values["requests_running"], values["kv_cache_usage_frac"]) == (7, 0.75)
    assert {n for n, v in both.items() if not isnan(v)} == {n for n in both if values[n] == both[n]}


def test_what_one_replica_does_not_say_is_not_known_of_them_all():
    first = parse("vllm:num_requests_running 3\nvllm:kv_cache_usage_perc 0.5\n")
    second = parse("vllm:num_requests_running 4\n")
    values = together([first, second])
    assert values["requests_running"] == 7
    assert isnan(values["kv_cache_usage_frac"])
    assert isnan(together([second, first])["kv_cache_usage_frac"])


def test_a_sample_without_one_of_the_replicas_is_none(serve_page, vllm_page):
    source = VllmMetrics([serve_page(vllm_page.encode()), serve_page(b"no", 503)], 0.5)
    with pytest.raises(HTTPError, match="503") as caught:
        list(source.sample(edge=False))
    caught.value.close()
