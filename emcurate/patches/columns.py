"""Arrow columns made of Python's and numpy's values; `pyarrow.array` would load pandas first, a third of a second."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


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


def as_scalar(value: str | float | bool | None, kind: pa.DataType | None = None) -> pa.Scalar:
    """Return a value as an Arrow scalar, of a type of its own: a string, int64, double, bool or null.

    Whatever `pyarrow.compute` is given beside columns goes through this, since Python's own values load pandas too.

    >>> as_scalar("a").as_py(), as_scalar(2).as_py(), as_scalar(None, pa.string()).as_py()
    ('a', 2, None)
    """
    if kind is None:
        kinds = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
        kind = kinds.get(type(value), pa.null())
    if value is None:
        return pa.nulls(1, kind)[0]
    if kind == pa.bool_():
        return as_column([int(value)], pa.int8()).cast(kind)[0]
    return as_column([value], kind)[0]


def as_numbers(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[Any]:
    """Return a column of numbers or booleans, none of them null, as a numpy array."""
    if isinstance(column, pa.ChunkedArray):
        parts = [as_numbers(chunk) for chunk in column.chunks]
        return np.concatenate(parts) if parts else np.zeros(0, column.type.to_pandas_dtype())
    if pa.types.is_boolean(column.type):  # eight to a byte there
        return as_numbers(column.cast(pa.uint8())).view(np.bool_)
    if column.null_count:
        raise ValueError("a column with nulls")
    dtype = np.dtype(column.type.to_pandas_dtype())
    data = column.buffers()[1]
    return np.frombuffer(data or b"", dtype, len(column) if data else 0, column.offset * dtype.itemsize if data else 0)


def in_one(column: pa.ChunkedArray) -> pa.Array:
    """Return a column that may be in several pieces, or in none, as one array."""
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.nulls(0, column.type)


def count_rows(rows: pa.Table, by: Sequence[str]) -> Iterator[tuple[tuple[Any, ...], int]]:
    """Yield the values that some columns have together, null being None, and how many rows have them.

    In the order of their first rows. `Table.group_by` does the same, and loads pandas and more.

    >>> rows = pa.table({"a": as_column(["x", None, "x"], pa.string()), "b": as_column([1, 2, 1], pa.int8())})
    >>> list(count_rows(rows, ["a", "b"]))
    [(('x', 1), 2), ((None, 2), 1)]
    """
    columns = [in_one(rows[name]).dictionary_encode() for name in by]
    together = np.zeros(len(rows), np.int64)
    for column in columns:
        nothing = len(column.dictionary)
        codes = as_numbers(pc.coalesce(column.indices, as_scalar(nothing, pa.int32())))
        # Numbered anew after each column, so that they stay below the number of rows.
        together = np.unique(together * (nothing + 1) + codes, return_inverse=True)[1].reshape(-1)
    _, firsts, counts = np.unique(together, return_index=True, return_counts=True)
    for place in np.argsort(firsts):
        first = int(firsts[place])
        yield tuple(column[first].as_py() for column in columns), int(counts[place])


def as_floats(column: pa.Array) -> npt.NDArray[np.float64]:
    """Return a column of numbers as float64; NaN where null."""
    return as_numbers(pc.coalesce(column.cast(pa.float64()), as_scalar(float("nan"))))
