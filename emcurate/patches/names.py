"""Names of very many patches as Arrow strings: their bytes in a row, so that none of them is a Python object."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from emcurate.patches.columns import as_column

StringArray = npt.NDArray[np.str_]


def as_names(names: Iterable[str]) -> pa.LargeStringArray:
    """Return names as an Arrow array."""
    return as_column(list(names), pa.large_string())


def join_names(columns: Sequence[pa.ChunkedArray]) -> pa.LargeStringArray:
    """Return the names in several columns of tables as one array, whose offsets hold more than 2 GiB."""
    chunks = [chunk.cast(pa.large_string()) for column in columns for chunk in column.chunks]
    return pa.concat_arrays(chunks) if len(chunks) > 1 else chunks[0] if chunks else as_names([])


def take_names(names: pa.LargeStringArray, places: npt.NDArray[np.int64]) -> pa.LargeStringArray:
    """Return the names at some places."""
    return names.take(as_column(places, pa.int64()))


def bytes_of(names: pa.LargeStringArray) -> memoryview:
    """Return the names one after another in UTF-8."""
    _, offsets, data = names.buffers()
    starts = np.frombuffer(offsets, np.int64, len(names) + 1, 8 * names.offset)
    return memoryview(data or b"")[starts[0] : starts[-1]]


def longest(names: pa.LargeStringArray) -> int:
    """Return how many letters, that is code points, the longest name has; 0 if there is none."""
    return int(pc.max(pc.utf8_length(names)).as_py() or 0)


def as_array(names: pa.LargeStringArray, width: int, before: str = "", after: str = "") -> StringArray:
    """Return names as numpy keeps strings, each between two texts and in room for `width` letters.

    Python has them all for a moment: its strings, unlike Arrow's, may hold bytes that are no UTF-8, as a directory's
    name may.
    """
    return np.array([f"{before}{name}{after}" for name in names.to_pylist()], f"<U{width}")
