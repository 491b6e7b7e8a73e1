"""Names of very many patches as Arrow strings: their bytes in a row, so that none of them is a Python object."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from emcurate import naming
from emcurate.images.origins import IMAGE
from emcurate.patches.columns import as_column, as_scalar
from emcurate.patches.list_names import DIRECTORY

StringArray = npt.NDArray[np.str_]

# The last component of a path without its extension, as `pathlib.Path.stem` has it; in paths of Windows too.
_STEM = rf"(?s)^{DIRECTORY}(?P<stem>[^/]+?)(?:\.[^./]*)?$"

# A patch's place, as `emcurate.naming.parse_patch` reads it.
_PLACE = (
    rf"(?s)^(?P<dataset>.+?){naming.MARK}(?:(?P<plane>[012])_(?P<index>\d{{1,9}})|2d(?:-.+)?)"
    r"_(?P<y>\d{1,9})_(?P<x>\d{1,9})$"
)


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


def stems_of(paths: StringArray) -> pa.StringArray:
    """Return the names of patches by their paths, or those of members of shards: without directory and extension.

    Bytes that are no UTF-8, which no table holds, are spelt out.

    >>> stems_of(np.array(["/p/x.tar/fly-LOC-2d_0_0.tiff", "a.b/c.d.png"])).to_pylist()
    ['fly-LOC-2d_0_0', 'c.d']
    """
    try:
        column = as_column(paths.tolist(), pa.string())
    except UnicodeEncodeError:
        spelt = [path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") for path in paths.tolist()]
        column = as_column(spelt, pa.string())
    return pc.struct_field(pc.extract_regex(column, _STEM), "stem")


def parse_names(names: pa.StringArray) -> dict[str, pa.Array]:
    """Return what names say of patches, by column of their table: null where they do not follow the grammar.

    >>> found = parse_names(as_column(["fly-LOC-1_012_0_224", "grids-LOC-2d-a_0_0", "1"], pa.string()))
    >>> found["dataset"].to_pylist(), found["index"].to_pylist(), found["x"].to_pylist()
    (['fly', 'grids', None], [12, None, None], [224, 0, None])
    """
    parts = pc.extract_regex(names, _PLACE)
    fields = {name: pc.struct_field(parts, name) for name in ("dataset", "plane", "index", "y", "x")}
    kinds = {"plane": pa.int8(), "index": pa.int32(), "y": pa.int32(), "x": pa.int32()}
    # What did not take part in a match is empty.
    nothing = as_scalar(None, pa.string())
    texts = {name: pc.if_else(pc.equal(fields[name], as_scalar("")), nothing, fields[name]) for name in kinds}
    numbers = {name: texts[name].cast(kind) for name, kind in kinds.items()}
    # Whether what has planes is a volume or a video its name does not say.
    is_image = pc.and_(pc.is_valid(fields["dataset"]), pc.is_null(numbers["plane"]))
    return {"dataset": fields["dataset"], "kind": pc.if_else(is_image, as_scalar(IMAGE), nothing), **numbers}
