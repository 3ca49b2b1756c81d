import os
from dataclasses import asdict

import pytest

from harness.instrument import MAX_CHUNKS_PER_S, Instrument, client_cores, demand
from loadgen.config import Client, Load


def closed(concurrency: int) -> Load:
    return Load(arrival="closed", concurrency=concurrency)


def test_a_small_machine_pins_nothing_and_a_large_one_the_last_quarter() -> None:
    assert client_cores(range(15)) == ()
    assert client_cores(range(16)) == (12, 13, 14, 15)
    assert client_cores({*range(4, 36)}) == tuple(range(28, 36))


def test_the_largest_load_is_what_the_client_must_carry() -> None:
    assert demand([closed(1), closed(64)]) == (64, 6400.0)
    assert demand([closed(4096)]) == (4096, MAX_CHUNKS_PER_S)


def test_an_open_loop_asks_for_its_arrivals_times_their_length() -> None:
    poisson = Load(arrival="poisson", rate_rps=50.0, output_tokens=200)
    ramp = Load(arrival="ramp", rate_rps=1.0, rate_end_rps=100.0, output_tokens=10)
    assert demand([poisson]) == (100, 10_000.0)
    assert demand([ramp]) == (200, 1000.0)


def test_without_calibration_it_says_so_and_has_the_workers_that_were_asked_for() -> None:
    made = Instrument.make(Client(calibrate=False, workers=3), [closed(8)], over_tls=False)
    assert made.client.workers == 3
    assert made.calibration is None
    assert "not calibrated" in made.line()


def test_a_study_that_goes_on_keeps_its_instrument() -> None:
    begun = Instrument(
        client=Client(workers=2), cores=(30, 31), calibration={"clean_chunks_per_s": 6e4}
    )
    assert Instrument.from_study(asdict(begun)) == begun


def test_servers_are_kept_off_the_clients_cores_while_it_lasts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mine = {*range(16)}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(mine))

    def pin(_pid: int, cores: set[int]) -> None:
        mine.clear()
        mine.update(cores)

    monkeypatch.setattr(os, "sched_setaffinity", pin)
    with Instrument(client=Client(), cores=(14, 15), calibration=None).apart():
        assert mine == {*range(14)}
    assert mine == {*range(16)}


def test_a_share_of_what_closed_loops_find_asks_for_no_more_than_they_do() -> None:
    share = Load(arrival="poisson", rate_frac=0.9)
    assert demand([closed(64), share]) == demand([closed(64)])
