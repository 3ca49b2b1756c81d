from harness.rows import load_id

LOAD = {"arrival": "poisson", "input_tokens": 5, "rate_rps": 3.0, "concurrency": None}


def test_a_load_has_one_name_at_every_engine_setting() -> None:
    share = LOAD | {"rate_frac": 0.5}
    assert load_id(share) == load_id(share | {"rate_rps": 9.0}), "its rate is found at each"
    assert load_id(share) != load_id(share | {"rate_frac": 0.9})
    assert load_id(LOAD) != load_id(LOAD | {"rate_rps": 9.0})
    intensity = ("concurrency", "rate_rps", "rate_frac")
    assert load_id(LOAD, intensity) == load_id(LOAD | {"rate_rps": 9.0}, intensity)
    assert load_id(LOAD, intensity) != load_id(LOAD | {"input_tokens": 9}, intensity)
