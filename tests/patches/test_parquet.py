"""Parquet files of others are read as what they say they are, or not at all."""

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emcurate.errors import InputError
from emcurate.patches.features import FeatureTable, write_features
from emcurate.patches.parquet import open_parquet

NAME = "fly-LOC-0_0000-0_0"


def spoil(path):
    """Put a byte that no text has into a name, wherever that stands in a file."""
    data = path.read_bytes()
    assert NAME.encode() in data
    path.write_bytes(data.replace(NAME.encode(), NAME.encode().replace(b"-", b"\xff")))


READINGS = {
    "whole": lambda parquet: parquet.read(),
    "a column": lambda parquet: parquet.read(["patch"], use_threads=False),
    "a group": lambda parquet: parquet.read_row_group(0),
    "groups": lambda parquet: parquet.read_row_groups([0], columns=["patch"]),
    "batches": lambda parquet: list(parquet.iter_batches(1)),
}


@pytest.mark.parametrize("how", READINGS)
@pytest.mark.parametrize("size", [0, 3 << 20])
def test_a_text_that_is_none_is_refused_however_it_is_read(tmp_path, how, size):
    path = tmp_path / "table.parquet"
    filling = [os.urandom(size // 2 or 1)] * 2
    pq.write_table(pa.table({"patch": [NAME, "wing"], "filling": filling}), path, compression="none")
    with open_parquet(path) as parquet:
        READINGS[how](parquet)
    spoil(path)
    with open_parquet(path) as parquet, pytest.raises(pa.ArrowInvalid, match="UTF"):
        READINGS[how](parquet)


def test_a_damaged_name_in_a_table_of_features_is_told(tmp_path):
    path = tmp_path / "features.parquet"
    names = pa.array([NAME, "wing"])
    write_features(path, names, 4, lambda rows: np.zeros((2, 4), np.float16)[rows], {"model": "x"}, overwrite=False)
    assert len(FeatureTable(path)) == 2
    pq.write_table(pq.read_table(path), path, compression="none")  # without checksums, as of another program
    spoil(path)
    with pytest.raises(InputError, match="damaged or other file"):
        FeatureTable(path)


def test_too_little_memory_says_nothing_of_the_file(tmp_path):
    def read_with_little(parquet):
        raise pa.ArrowMemoryError("realloc of size 131072 failed")

    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"patch": [NAME]}), path)
    with pytest.raises(MemoryError) as caught, open_parquet(path) as parquet:
        read_with_little(parquet)
    assert not isinstance(caught.value, pa.ArrowException)
