import csv
import io
import os

import numpy as np
import pytest

from emcurate import contents
from emcurate.errors import InputError


@pytest.mark.parametrize("array", [np.array(["a", "öß"]), np.zeros(0, "<U3"), np.arange(1000), np.zeros(10**6, bool)])
def test_the_head_of_an_npy_file_is_numpys(array):
    assert contents.npy_header(array.dtype, len(array)) + array.tobytes() == contents.npy_bytes(array)


def test_npy_with_objects_is_never_unpickled(tmp_path):
    path = tmp_path / "a.npy"

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    np.save(path, np.array([Trap()], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="only pickle can read"):
        contents.read_npy(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"text"])
def test_damaged_npy(tmp_path, content):
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.npy"):
        contents.read_npy(path)


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("=1+1", "'=1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("+cmd|x", "'+cmd|x"),
        ("-rf", "'-rf"),
        ("\t=1", "'\t=1"),
        ("-0.5", "-0.5"),
        ("+1e-3", "+1e-3"),
        ("a=b", "a=b"),
        ("", ""),
        (-3, "-3"),
    ],
)
def test_a_text_that_a_spreadsheet_would_run_is_marked_as_text(cell, written):
    rows = list(csv.reader(io.StringIO(contents.csv_bytes(["name", cell], [[cell, 1]]).decode(), newline="")))
    assert rows == [["name", written], [written, "1"]]
    # Written once more, it stays as it is.
    assert contents.csv_bytes([written], []) == contents.csv_bytes([cell], [])
