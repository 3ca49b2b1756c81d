import contextlib
import json

import psutil
import pytest

from harness.hardware.probe import Probe, ProbeProcess, environment, run_together
from harness.hardware.probes.record import Measurement, read, timing

MEASURED = json.dumps({"measurement": {"name": "gemm.a", "gpus": [0], "unit": "B/s", "value": 2.0}})
DONE = json.dumps({"about": {"done": True}})


@pytest.fixture
def run(tmp_path):
    """Runs a shell script in the place of an interpreter; gives the outcome."""

    def call(script, limit_s=30.0, *, after_its_end=False):
        python = tmp_path / "python"
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
        probe = Probe(
            family="gemm", gpus=(0,), uuids=(), options={}, limit_s=limit_s, python=str(python)
        )
        with ProbeProcess(probe, tmp_path) as process:
            if after_its_end:
                process._process.wait(30)
            (outcome,) = run_together([process])
        return outcome

    return call


def test_what_a_probe_prints_is_read_and_what_libraries_print_is_not(run):
    outcome = run(f"read go; echo NCCL INFO; echo '{MEASURED}'; echo '[1]'; echo '{DONE}'")
    assert outcome.failure is None
    assert [(m.name, m.value, m.gpus) for m in outcome.measurements] == [("gemm.a", 2.0, (0,))]


def test_it_begins_when_its_turn_has_come(run):
    outcome = run(f"read go; test \"$go\" = go && echo '{DONE}'")
    assert outcome.failure is None


def test_a_crash_costs_no_number_that_was_there(run):
    outcome = run(f"read go; echo '{MEASURED}'; echo 'CUDA error' >&2; kill -SEGV $$")
    assert outcome.failure == "it died of SIGSEGV"
    assert outcome.stderr == "CUDA error"
    assert len(outcome.measurements) == 1


def test_an_early_end_is_a_failure_also_with_exit_code_0(run):
    assert run("read go; exit 3").failure == "it ended early, exit code 3"
    assert run("exit 0").failure == "it ended early, exit code 0"
    assert run("exit 0", after_its_end=True).failure == "it ended early, exit code 0"


def test_a_hang_ends_at_its_limit_with_all_that_it_started(run, tmp_path):
    outcome = run(f"read go; sleep 600 & echo $! > {tmp_path}/child; sleep 600", limit_s=1.0)
    assert outcome.failure == "it was ended at its limit of 1 s"
    child = int((tmp_path / "child").read_text())
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(child).wait(10)  # its new parent may not have reaped it yet
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie"


def test_a_probe_sees_its_own_cards_and_the_environments_nccl():
    probe = Probe(family="gemm", gpus=(1,), uuids=("GPU-b",), options={}, limit_s=1)
    changed = environment(probe, {"NCCL_NVLS_ENABLE": "0", "CUDA_VISIBLE_DEVICES": "0,1"})
    assert changed == {"NCCL_NVLS_ENABLE": "0", "CUDA_VISIBLE_DEVICES": "GPU-b"}


def test_a_line_of_another_shape_is_nothing():
    assert read("{}") is None
    assert read("null") is None
    assert read('{"about": 1}') is None
    assert read(MEASURED) == Measurement(name="gemm.a", gpus=(0,), unit="B/s", value=2.0)


def test_a_timing_is_the_median_of_its_repeats_and_how_far_they_lie_apart():
    assert timing([4.0, 1.0, 3.0, 2.0, 5.0]) == {"time_s": 3.0, "spread_frac": 1.0, "repeats": 5}
    assert timing([1.0, 2.0])["spread_frac"] is None, "of two, quartiles are not known"


def test_the_hosts_probes_run_for_real(tmp_path):
    probe = Probe(
        family="host", gpus=(), uuids=(), options={"rehearsal": True}, limit_s=60, python=None
    )
    with ProbeProcess(probe, tmp_path) as process:
        (outcome,) = run_together([process])
    assert outcome.failure is None, outcome.stderr
    names = {m.name for m in outcome.measurements}
    assert {"host.memory.copy.one", "host.gemm.float32", "host.gemm.float64"} <= names
    assert all(m.value and m.value > 0 and not m.is_wrong for m in outcome.measurements)
