"""The layout of the project, as rules that an import or a file can break."""

import ast
from pathlib import Path

import pytest

from tests.conftest import ALONE

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "harness": {"loadgen", "monitors", "profiles"},
    "loadgen": set(),
    "monitors": set(),
    "profiles": set(),
}
NEVER = {"torch", "vllm"}  # vLLM is a subprocess
PROBES = ROOT / "harness/hardware/probes"  # programs for the interpreter that has PyTorch
HARNESS_ONLY = {"hydra", "omegaconf", "pandas", "matplotlib", "rich", "pyarrow"}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """The top-level names that a file imports anywhere."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_downwards(package: str) -> None:
    forbidden = set(MAY_IMPORT) - MAY_IMPORT[package] - {package}
    for path in modules(package):
        assert not imported(path) & forbidden, path


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_nothing_imports_torch_or_vllm(package: str) -> None:
    for path in modules(package):
        is_theirs = path.parent == PROBES or "scripts" in path.parts
        assert is_theirs or not imported(path) & NEVER, path


def test_programs_of_the_servers_interpreter_need_nothing_of_ours() -> None:
    for path in modules("harness/scripts"):
        assert not imported(path) & {*MAY_IMPORT, "pydantic"}, path


@pytest.mark.parametrize("package", ["loadgen", "monitors", "profiles"])
def test_lower_packages_need_nothing_of_the_application(package: str) -> None:
    for path in modules(package):
        assert not imported(path) & HARNESS_ONLY, path


def test_only_one_module_knows_each_outside_library() -> None:
    owners = {"aiohttp": {"loadgen/via_aiohttp.py"}, "pynvml": {"monitors/nvml.py"}}
    for library, files in owners.items():
        users = {
            str(path.relative_to(ROOT))
            for package in MAY_IMPORT
            for path in modules(package)
            if library in imported(path) and "sim/" not in str(path)
        }
        assert users <= files


def test_every_package_init_is_empty_but_the_librarys() -> None:
    for package in MAY_IMPORT:
        for path in (ROOT / package).rglob("__init__.py"):
            assert not path.read_text() or path.parent.name == "loadgen", path


def test_conf_holds_yaml_only() -> None:
    assert {path.suffix for path in (ROOT / "conf").rglob("*") if path.is_file()} == {".yaml"}


@pytest.mark.parametrize("name", ALONE)
def test_what_runs_alone_is_there(name: str) -> None:
    assert (ROOT / "tests" / name).is_file()
