"""Arrow strings against lists of Python's."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from emcurate.patches.list_names import patch_name
from emcurate.patches.names import as_array, as_names, bytes_of, join_names, longest, stems_of, take_names
from emcurate.patches.pathlists import write_path_list
from emcurate.patches.selection import Selection

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


PATHS = {
    "/p/fly-LOC-2d_0_0.tiff": "fly-LOC-2d_0_0",
    "/p/x.tar/fly-LOC-2d_0_0.tiff": "fly-LOC-2d_0_0",
    "fly-LOC-2d_0_0.tiff": "fly-LOC-2d_0_0",
    "/p/back\\slash-LOC-0_3_4_5.tiff": "back\\slash-LOC-0_3_4_5",
    "/p\\q/a\\b-LOC-0_3_4_5.tiff": "a\\b-LOC-0_3_4_5",
    "a\\b-LOC-0_3_4_5.tiff": "a\\b-LOC-0_3_4_5",
    "C:\\patches\\fly-LOC-2d_0_0.tiff": "fly-LOC-2d_0_0",
    "C:/patches/fly-LOC-2d_0_0.tiff": "fly-LOC-2d_0_0",
    "C:fly-LOC-2d_0_0.tiff": "C:fly-LOC-2d_0_0",
    "\\\\host\\share\\x.tar\\fly-LOC-2d_0_0.tiff": "fly-LOC-2d_0_0",
    "/p/two\nlines-LOC-2d_0_0.tiff": "two\nlines-LOC-2d_0_0",
    "/p/dots.1.5-LOC-2d_0_0.tiff": "dots.1.5-LOC-2d_0_0",
}


def test_a_backslash_divides_in_paths_of_windows_and_is_a_letter_elsewhere(tmp_path):
    paths = list(PATHS)
    assert stems_of(np.array(paths)).to_pylist() == list(PATHS.values())
    assert [patch_name(path).removesuffix(".tiff") for path in paths] == list(PATHS.values())
    write_path_list(tmp_path / "list.npz", np.array(paths))
    np.save(tmp_path / "list.npz" / "0.npy", np.array(paths))  # as Windows has them, where they are absolute
    sections = {stem.rsplit("_", 2)[0] for stem in PATHS.values()}
    assert set(Selection(tmp_path / "list.npz").sections()) == sections
