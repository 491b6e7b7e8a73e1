"""Arrow columns without pandas, compared with what Arrow itself makes with it."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emcurate.patches.columns import as_numbers, as_scalar, count_rows, in_one

texts = st.lists(st.one_of(st.none(), st.sampled_from(["", "a", "b", "mito", "é"])), max_size=30)


@given(texts, st.randoms(use_true_random=False))
def test_rows_are_counted_as_arrow_groups_them(names, random):
    numbers = [random.choice([None, 0.0, 2.5, -1.0]) for _ in names]
    rows = pa.table({"name": pa.array(names, pa.string()), "number": pa.array(numbers, pa.float64())})
    grouped = rows.group_by(["name", "number"]).aggregate([([], "count_all")]).to_pydict()
    expected = dict(zip(zip(grouped["name"], grouped["number"], strict=True), grouped["count_all"], strict=True))
    found = list(count_rows(rows, ["name", "number"]))
    assert dict(found) == expected and len(found) == len(expected)
    firsts = [next(at for at, row in enumerate(zip(names, numbers, strict=True)) if row == key) for key, _ in found]
    assert firsts == sorted(firsts)


@pytest.mark.parametrize("value", ["", "é", 0, -(2**40), 0.25, True, False, None])
def test_a_scalar_is_the_one_that_arrow_makes(value):
    assert as_scalar(value).equals(pa.scalar(value))


@given(st.lists(st.lists(st.booleans(), max_size=20), max_size=4), st.integers(0, 7))
def test_booleans_are_bytes_from_any_place_on(pieces, start):
    column = pa.chunked_array(pieces, pa.bool_()).slice(start)
    expected = [value for piece in pieces for value in piece][start:]
    found = as_numbers(column)
    assert found.dtype == np.bool_ and found.tolist() == expected
    assert as_numbers(in_one(column)).tolist() == expected


def test_a_column_without_pieces_is_empty_and_of_its_type():
    column = pa.chunked_array([], pa.string())
    assert in_one(column).type == pa.string() and len(in_one(column)) == 0
    assert len(pc.unique(in_one(column))) == 0
