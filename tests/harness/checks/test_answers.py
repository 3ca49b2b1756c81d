import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.checks.accuracy import delta
from harness.checks.answers import Answer, columns, key_of, passes
from tests.harness.checks.builders import Server


def test_answers_come_back_from_parquet_as_they_were(tmp_path):
    server = Server()
    asked = (server.answers(), server.answers(0.2))
    for name, table in columns(asked).items():
        pq.write_table(pa.table(table), tmp_path / f"{name}.parquet")
    tables = {}
    for path in tmp_path.glob("*.parquet"):
        table = pq.read_table(path)
        tables[path.stem] = {name: table[name].to_numpy() for name in table.column_names}
    for before, after in zip(asked, passes(tables), strict=True):
        for one, other in zip(before, after, strict=True):
            for name in Answer.__slots__:
                np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert delta(*passes(tables), seed=3) == delta(*asked, seed=3)


def test_positions_are_counted_from_the_token_that_they_tell_of():
    tables = columns((Server(prompts=2, positions=3, continued=2).answers(),))
    assert tables["scored"]["position"].tolist() == [1, 2, 3] * 2, "nothing predicts token 0"
    assert tables["continued"]["position"].tolist() == [0, 1] * 2
    assert tables["scored"]["repeat"].tolist() == [1] * 6


def test_arrays_that_do_not_fit_are_refused():
    good = Server().answers()[0]
    fields = {name: getattr(good, name) for name in Answer.__slots__}
    with pytest.raises(ValueError, match="do not fit each other"):
        Answer(**fields | {"logprobs": good.logprobs[1:]})


def test_a_prompt_is_known_by_its_tokens_alone():
    assert key_of([1, 2, 3]) == key_of((1, 2, 3)) != key_of([1, 23])
    assert 0 <= key_of([1, 2, 3]) < 2**63
