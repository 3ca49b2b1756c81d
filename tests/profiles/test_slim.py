import lzma
import sqlite3
from dataclasses import replace

import pytest

from profiles.errors import BadTrace
from profiles.findings import analyse
from profiles.slim import slim
from profiles.source import read
from tests.profiles.conftest import GEMM


def test_a_slim_copy_says_the_same_and_nothing_of_the_machine(export, tmp_path):
    export.call(0, 2, id=1).work(2, 5, call=1).copy(5, 6).graph(6, 8).step(0, 4, (1, 8), (0, 0))
    export.named(0, 4, "a range that somebody else named")
    export.text("HF_TOKEN=secret")
    whole = export.write(tmp_path / "whole.sqlite")
    with sqlite3.connect(whole) as connection:
        connection.execute("CREATE TABLE TARGET_INFO_SYSTEM_ENV (value)")
        connection.execute("INSERT INTO TARGET_INFO_SYSTEM_ENV VALUES ('KEY=secret')")
    connection.close()
    slim(whole, tmp_path / "slim.sqlite.xz")
    found = [analyse(read(path)) for path in (whole, tmp_path / "slim.sqlite.xz")]
    assert replace(found[0], source="") == replace(found[1], source="")
    assert found[1].devices[0].kernels[0].name == GEMM

    plain = lzma.decompress((tmp_path / "slim.sqlite.xz").read_bytes())
    assert b"secret" not in plain
    assert b"somebody else" not in plain


def test_what_is_no_export_is_refused_and_leaves_nothing(tmp_path):
    junk = tmp_path / "junk.sqlite"
    junk.write_bytes(b"x" * 4096)
    with pytest.raises(BadTrace, match="no SQLite export"):
        slim(junk, tmp_path / "slim.sqlite.xz")
    assert [path.name for path in tmp_path.iterdir()] == ["junk.sqlite"]
