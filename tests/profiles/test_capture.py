import sys

import pytest

from profiles import capture
from profiles.capture import Nsys
from profiles.errors import CaptureFailed, CaptureFailure
from profiles.source import read
from tests.profiles.conftest import Export

VERSION = 'echo "NVIDIA Nsight Systems version 2025.3.1.90-253135822126v0"'


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put scripts on a PATH that has nothing else; returns their folder."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def write(name="nsys", script=VERSION, under=folder):
        under.mkdir(parents=True, exist_ok=True)
        path = under / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return write


def failure(function, *arguments):
    with pytest.raises(CaptureFailed) as failed:
        function(*arguments)
    assert "\n" not in str(failed.value)
    return failed.value


def test_the_command_that_captured_both_ranks(tmp_path):
    nsys = Nsys(path=tmp_path / "nsys", version=(2025, 3, 1))
    assert nsys.prefix(tmp_path / "point.nsys-rep") == [
        f"{tmp_path}/nsys",
        "profile",
        "--sample=none",
        "--cpuctxsw=none",
        "--trace=cuda,nvtx",
        "--capture-range=cudaProfilerApi",
        "--capture-range-end=stop",
        "--kill=sigterm",
        "--cuda-graph-trace=node",
        "--force-overwrite=true",
        f"--output={tmp_path}/point",
    ]
    assert capture.NSYS_ENV == {"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}


def test_vllm_is_told_which_profiler_to_obey(tmp_path):
    assert capture.profiler_config("nsys", tmp_path) == {"profiler": "cuda"}
    told = capture.profiler_config("torch", tmp_path)
    assert told["profiler"] == "torch"
    assert told["torch_profiler_dir"] == str(tmp_path)
    assert told["torch_profiler_with_stack"] is False


def test_nsys_is_found_on_the_path_with_its_version(install, tmp_path):
    path = install()
    assert capture.find_nsys(tmp_path) == Nsys(path=path, version=(2025, 3, 1))


def test_without_nsys_on_the_path_the_newest_installed_is_taken(install, tmp_path):
    for version in ("2024.1.1", "2025.3.1"):
        folder = tmp_path / "opt/nvidia/nsight-systems" / version / "bin"
        install(script=f"echo NVIDIA Nsight Systems version {version}", under=folder)
    assert capture.find_nsys(tmp_path).version == (2025, 3, 1)


def test_a_broken_nsys_does_not_hide_one_that_works(install, tmp_path):
    for version, script in (("2024.1.1", "echo version 2024.1.1"), ("2025.3.1", "exit 3")):
        folder = tmp_path / "opt/nvidia/nsight-systems" / version / "bin"
        path = install(script=script, under=folder)
    assert capture.find_nsys(tmp_path).version == (2024, 1, 1)
    (tmp_path / "opt/nvidia/nsight-systems/2024.1.1/bin/nsys").unlink()
    assert str(path) in str(failure(capture.find_nsys, tmp_path))


def test_no_nsys_is_told_apart_from_one_that_is_too_old(install, tmp_path):
    assert failure(capture.find_nsys, tmp_path).kind == CaptureFailure.ABSENT
    install(script="echo NVIDIA Nsight Systems version 2021.2.4.12")
    told = failure(capture.find_nsys, tmp_path)
    assert told.kind == CaptureFailure.TOO_OLD
    assert "is version 2021.2.4, expected 2023.1 or later" in str(told)


@pytest.mark.parametrize("script", ["exit 3", "echo hello"])
def test_an_nsys_that_cannot_tell_its_version_is_no_nsys(install, tmp_path, script):
    install(script=script)
    assert failure(capture.find_nsys, tmp_path).kind == CaptureFailure.OTHER


@pytest.mark.parametrize(
    ("log", "kind"),
    [
        ("x\nCUPTI_ERROR_INSUFFICIENT_PRIVILEGES\ny", CaptureFailure.NO_PERMISSION),
        ("ERR_NVGPUCTRPERM: see the page", CaptureFailure.NO_PERMISSION),
        ("unrecognised option '--cuda-graph-trace=node'", CaptureFailure.TOO_OLD),
        ("Application ran. Nothing was captured.", CaptureFailure.EMPTY),
    ],
)
def test_a_capture_without_a_report_is_explained_by_its_log(tmp_path, log, kind):
    assert failure(capture.report_of, tmp_path / "point", log).kind == kind
    assert failure(capture.traces_of, tmp_path, log).kind == kind


def test_a_report_that_is_there_is_the_report(tmp_path):
    (tmp_path / "point.nsys-rep").write_bytes(b"report")
    assert capture.report_of(tmp_path / "point", "") == tmp_path / "point.nsys-rep"


def test_torch_traces_are_the_folder_that_holds_them(tmp_path):
    (tmp_path / "rank0.pt.trace.json.gz").write_bytes(b"")
    assert capture.traces_of(tmp_path, "") == tmp_path


def test_a_qdstrm_is_imported_with_what_lies_near_nsys(install, tmp_path):
    (tmp_path / "point.qdstrm").write_text("raw")
    assert failure(capture.report_of, tmp_path / "point", "").kind == CaptureFailure.NOT_IMPORTED
    host = tmp_path / "opt/nvidia/nsight-compute/2025.3.1/host"
    nsys = install(under=host / "target-linux-x64")
    importer = install(
        "QdstrmImporter",
        '[ "$1" = -i ] && [ "$3" = -o ] && echo "$LD_LIBRARY_PATH $2" >"$4"',
        host / "linux-desktop-glibc_2_11_3-x64",
    )
    (tmp_path / "bin/nsys").symlink_to(nsys)
    report = capture.report_of(tmp_path / "point", "")
    assert report.read_text().split() == [str(importer.parent), f"{tmp_path}/point.qdstrm"]


def test_an_importer_that_fails_is_quoted(install, tmp_path):
    install("QdstrmImporter", "echo this file is broken >&2; exit 1")
    (tmp_path / "point.qdstrm").write_text("raw")
    told = failure(capture.report_of, tmp_path / "point", "")
    assert told.kind == CaptureFailure.NOT_IMPORTED
    assert str(told).endswith("ends with 1: this file is broken")


def test_a_report_is_exported_and_read_with_this_machines_nsys(install, tmp_path):
    made = Export().work(0, 5).write(tmp_path / "made.sqlite")
    copy = f"{sys.executable} -c 'import shutil, sys; shutil.copy(*sys.argv[1:])'"
    export = f'{copy} {made} "${{4#--output=}}"'
    install(script=f'case "$1" in\n--version) {VERSION} ;;\nexport) {export} ;;\nesac')
    (tmp_path / "point.nsys-rep").write_bytes(b"report")
    trace = read(tmp_path / "point.nsys-rep")
    assert trace.source == "point.nsys-rep"
    assert len(trace.devices[0].activities) == 1
    assert not (tmp_path / "point.sqlite").exists()  # nothing is left beside somebody's report


@pytest.mark.usefixtures("install")
def test_a_report_without_nsys_cannot_be_read(tmp_path):
    (tmp_path / "point.nsys-rep").write_bytes(b"report")
    assert failure(read, tmp_path / "point.nsys-rep").kind in (
        CaptureFailure.ABSENT,
        CaptureFailure.OTHER,
    )


def test_a_server_that_refuses_is_told_with_its_answer():
    told = capture.refused("/start_profile", 404)
    assert told.kind == CaptureFailure.REFUSED
    assert "answers 404" in str(told)
    assert "--profiler-config" in str(told)
    assert "does not answer" in str(capture.refused("/stop_profile", None))
