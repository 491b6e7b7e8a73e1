"""Arrow strings against lists of Python's."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from emcurate.patches.names import as_array, as_names, bytes_of, join_names, longest, take_names

NAMES = st.lists(st.text(st.sampled_from("aé𝄞 _/"), max_size=4), max_size=9)


@given(names=NAMES, data=st.data())
def test_names_are_what_python_has(names, data):
    found = as_names(names)
    assert found.to_pylist() == names
    assert bytes(bytes_of(found)) == "".join(names).encode()
    assert longest(found) == max(map(len, names), default=0)
    assert as_array(found, 4).tolist() == np.array(names, "<U4").tolist()
    assert as_array(found, 6, "\udce9", ">").tolist() == [f"\udce9{name}>" for name in names]
    places = data.draw(st.lists(st.integers(0, len(names) - 1), max_size=12)) if names else []
    assert take_names(found, np.array(places, np.int64)).to_pylist() == [names[i] for i in places]
    start = data.draw(st.integers(0, len(names)))
    assert bytes(bytes_of(found[start:])) == "".join(names[start:]).encode()


@given(columns=st.lists(st.lists(NAMES, max_size=3), max_size=3))
def test_columns_of_several_chunks_are_joined(columns):
    chunked = [pa.chunked_array(chunks, pa.string()) for chunks in columns]
    assert join_names(chunked).to_pylist() == [name for chunks in columns for names in chunks for name in names]


def test_pandas_is_not_loaded_for_names():
    code = (
        "import sys, numpy as np; from emcurate.patches.names import *; names = as_names(['a', 'bc']);"
        "as_array(take_names(names, np.array([1])), longest(names)); bytes_of(names);"
        "sys.exit('pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
