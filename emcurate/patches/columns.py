"""Arrow columns made of Python's and numpy's values; `pyarrow.array` would load pandas first, a third of a second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def as_column(
    values: Sequence[Any] | npt.NDArray[Any], kind: pa.DataType, is_null: npt.NDArray[np.bool_] | None = None
) -> pa.Array:
    """Return values as an Arrow array.

    Parameters
    ----------
    values : sequence of n
        Numbers, or strings; None is null.
    kind : pyarrow.DataType
        `pyarrow.string`, `pyarrow.large_string`, or any of numbers.
    is_null : (n,) bool, optional
        Which are null, where `values` is an array.

    >>> as_column(["a", None], pa.string()).to_pylist(), as_column([None, 2], pa.int8()).to_pylist()
    (['a', None], [None, 2])
    """
    if is_null is None:
        is_null = np.array([value is None for value in values]) if not isinstance(values, np.ndarray) else None
    validity = None
    if is_null is not None and is_null.any():
        validity = pa.py_buffer(np.packbits(~is_null, bitorder="little"))
    if kind in (pa.string(), pa.large_string()):
        encoded = [b"" if value is None else value.encode() for value in values]
        offsets = np.zeros(len(encoded) + 1, np.int32 if kind == pa.string() else np.int64)
        np.cumsum([len(text) for text in encoded], out=offsets[1:])
        buffers = [validity, pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))]
    else:
        if not isinstance(values, np.ndarray):
            values = np.array([0 if value is None else value for value in values])
        buffers = [validity, pa.py_buffer(np.ascontiguousarray(values, kind.to_pandas_dtype()))]
    return pa.Array.from_buffers(kind, len(values), buffers)


def as_numbers(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[Any]:
    """Return a column of numbers, none of them null, as a numpy array."""
    if isinstance(column, pa.ChunkedArray):
        parts = [as_numbers(chunk) for chunk in column.chunks]
        return np.concatenate(parts) if parts else np.zeros(0, column.type.to_pandas_dtype())
    if column.null_count:
        raise ValueError("a column with nulls")
    dtype = np.dtype(column.type.to_pandas_dtype())
    data = column.buffers()[1]
    return np.frombuffer(data or b"", dtype, len(column) if data else 0, column.offset * dtype.itemsize if data else 0)


def in_one(column: pa.ChunkedArray) -> pa.Array:
    """Return a column that may be in several pieces, or in none, as one array."""
    joined = column.combine_chunks()
    if not isinstance(joined, pa.ChunkedArray):
        return joined
    return pa.concat_arrays(joined.chunks) if joined.num_chunks else pa.nulls(0, joined.type)
