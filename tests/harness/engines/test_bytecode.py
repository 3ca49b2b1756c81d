from pathlib import Path

from harness.engines.bytecode import recompiled

SET = {"PYTHONDONTWRITEBYTECODE": "1"}


def test_a_package_without_bytecode_that_may_keep_none_is_compiled_at_each_start(
    tmp_path: Path,
) -> None:
    told = recompiled(tmp_path, SET)
    assert told is not None
    assert told.startswith("PYTHONDONTWRITEBYTECODE is set and vLLM has no bytecode")
    assert f"`python -m compileall -q {tmp_path}`" in told


def test_with_bytecode_or_where_it_is_kept_there_is_nothing_to_tell(tmp_path: Path) -> None:
    assert recompiled(tmp_path, {}) is None
    assert recompiled(tmp_path, {"PYTHONDONTWRITEBYTECODE": ""}) is None, "as Python reads it"
    assert recompiled(None, SET) is None
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "__init__.cpython-312.pyc").touch()
    assert recompiled(tmp_path, SET) is None
