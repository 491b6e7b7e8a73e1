"""Tables of patches: a row a patch, in Parquet, beside the patches they tell of.

``{dataset}_patches.parquet`` holds all that is known of a dataset's patches once they are cut. The name of a patch on
disk is its key; rows are in the order of names. pandas, polars and DuckDB read it.
"""

from __future__ import annotations

import bisect
import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from emcurate.errors import InputError
from emcurate.images.resampling import Resampled
from emcurate.patches.columns import as_column, as_floats, as_scalar, in_one
from emcurate.patches.measures import BLUR, MEASURES, SATURATED
from emcurate.patches.parquet import open_parquet

TABLE_SUFFIX = "_patches.parquet"


# What `emcurate.patches.measures` tells; null in tables, or rows of them, of versions that did not measure. By their
# blur patches are sorted, so that it is kept to the last bit.
MEASURE_COLUMNS = {name: pa.float64() if name == BLUR else pa.float32() for name in MEASURES}


# `shard` is the file name of the tar that holds a patch, `offset` where in it the patch's own bytes (its TIFF) begin,
# not the tar's header before them: so any program can read a patch there. Both are null for a patch that is a file of
# its own, or was only hashed.
COLUMNS: dict[str, pa.DataType] = {
    "patch": pa.string(),
    "dataset": pa.string(),
    "kind": pa.string(),
    "plane": pa.int8(),
    "index": pa.int32(),
    "y": pa.int32(),
    "x": pa.int32(),
    "height": pa.int32(),
    "width": pa.int32(),
    "pixel_size_y_nm": pa.float64(),
    "pixel_size_x_nm": pa.float64(),
    "step_nm": pa.float64(),
    "source": pa.string(),
    "source_fingerprint": pa.string(),
    "lo": pa.float64(),
    "hi": pa.float64(),
    "hash": pa.binary(),
    **MEASURE_COLUMNS,
    "shard": pa.string(),
    "offset": pa.int64(),
}


SCHEMA = pa.schema(list(COLUMNS.items()))


# Those that are a patch's own, and not its section's.
OWN_COLUMNS = ("patch", "y", "x", "height", "width", "hash", *MEASURES, "shard", "offset")


# Of these, those that every patch has.
NEVER_NULL = ("patch", "y", "x", "height", "width", "hash")


# Those that a table of any version has.
KNOWN_TO_ALL = tuple(name for name in COLUMNS if name not in MEASURES)


# In tables whose patches were hashed in all orientations: the hashes of the others, one after another.
TURNED = "hash_turned"


# Names of the settings in a table's own metadata, by which hashes can be read back.
HASH_SIZE_KEY, HASH_KIND_KEY, CROP_SIZE_KEY = b"emcurate.hash_size", b"emcurate.hash", b"emcurate.crop_size"


# In the metadata of a table whose patches have been resampled: `emcurate.images.resampling.Resampled`.
RESAMPLED_KEY = b"emcurate.resampled"


# In the metadata of a table of patches of a region of a volume: see `Origin.region_of`.
REGION_KEY = b"emcurate.region_of"


def read_metadata(path: Path) -> dict[bytes, bytes]:
    """Return what stands in a table's metadata.

    Raises
    ------
    InputError
        If the file is no table of patches.
    """
    with _open_table(path, []) as parquet:
        return dict(parquet.schema_arrow.metadata)


def round_as_tables(measures: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return measures with the digits that tables keep: a limit divides patches alike wherever they are known from."""
    kinds = [MEASURE_COLUMNS[name].to_pandas_dtype() for name in MEASURES]
    return np.stack(
        [column.astype(kind).astype(np.float64) for column, kind in zip(measures.T, kinds, strict=True)], axis=1
    )


def is_measured(path: Path) -> bool:
    """Return whether a table has the measures of all its patches, as its own account of its columns tells.

    Raises
    ------
    InputError
        If the file is no table of patches.
    """
    with _open_table(path, []) as parquet:
        if SATURATED not in parquet.schema_arrow.names:
            return False
        column = parquet.metadata.schema.names.index(SATURATED)
        told = [parquet.metadata.row_group(group).column(column) for group in range(parquet.num_row_groups)]
        return all(each.is_stats_set and each.statistics.null_count == 0 for each in told)


def read_schema(path: Path) -> pa.Schema:
    """Return the columns of a table; raises `InputError` if the file is none."""
    with _open_table(path, []) as parquet:
        return parquet.schema_arrow


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table, or some of its columns, whole; without measures if these are of a version that had none.

    Raises
    ------
    InputError
        If the file is no table of patches.
    """
    if columns is not None:
        return pa.concat_tables(read_row_groups(path, columns)).combine_chunks()
    whole = pa.concat_tables(read_row_groups(path, KNOWN_TO_ALL, also=MEASURES)).combine_chunks()
    return whole.select([name for name in COLUMNS if name in whole.column_names])


def read_row_groups(
    path: Path,
    columns: Sequence[str],
    may_hold: Callable[[str, str], bool] | None = None,
    also: Sequence[str] = (),
    by: str = "shard",
    check: Callable[[Path, pq.ParquetFile], None] | None = None,
) -> Iterator[pa.Table]:
    """Yield a table, or some of its columns, piece by piece; a table without rows once, empty.

    `may_hold` chooses among the pieces by the first and the last name that they have in the column `by`; `also` are
    columns that a table need not have. `check` is called with the open table before any of it is read.

    Raises
    ------
    InputError
        If the file is no table of patches.
    """
    with _open_table(path, columns) as parquet:
        if check is not None:
            check(path, parquet)
        there = parquet.schema_arrow.names  # which is made anew whenever it is asked for
        columns = [*columns, *(name for name in also if name in there)]
        for group in range(parquet.num_row_groups):
            if may_hold is not None and not _may_hold(parquet, group, by, may_hold):
                continue
            # Where rows are few, threads take longer to start than they save.
            table = parquet.read_row_group(group, columns=list(columns), use_threads=False)
            lacking = [name for name in NEVER_NULL if name in columns and table[name].null_count]
            if lacking:
                found = f"rows without {'a name' if lacking[0] == 'patch' else ', '.join(lacking)}"
                raise InputError(path, "a table of patches", found, "run raw/crop_patches.py again")
            yield table
        if not parquet.num_row_groups:
            yield parquet.schema_arrow.empty_table().select(list(columns))


@contextlib.contextmanager
def _open_table(path: Path, columns: Sequence[str]) -> Iterator[pq.ParquetFile]:
    """Give an open table that has these columns; what is none, or damaged, raises `InputError`."""
    advice = "run raw/crop_patches.py again"
    try:
        with open_parquet(path) as parquet:
            schema = parquet.schema_arrow
            wrong = [name for name in columns if name not in schema.names]
            if wrong or not (schema.metadata or {}).get(HASH_SIZE_KEY, b"").isdigit():
                found = f"a Parquet file without {', '.join(wrong) or 'the size of hashes'}"
                raise InputError(path, "a table of patches", found, advice)
            yield parquet
    except FileNotFoundError:
        raise InputError(path, "a table of patches", "no such file", "run raw/crop_patches.py") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        found = f"a damaged or other file ({str(error).splitlines()[0]})"
        raise InputError(path, "a table of patches", found, advice) from None


def _may_hold(parquet: pq.ParquetFile, group: int, by: str, may_hold: Callable[[str, str], bool]) -> bool:
    column = parquet.schema_arrow.get_field_index(by)
    statistics = parquet.metadata.row_group(group).column(column).statistics
    if statistics is None:
        return True
    return bool(statistics.has_min_max) and may_hold(statistics.min, statistics.max)


def refuse_other_dataset(path: Path, parquet: pq.ParquetFile) -> None:
    """Raise `InputError` if a table is another dataset's than its name says, as after two were exchanged."""
    column, name = parquet.schema_arrow.get_field_index("dataset"), path.name.removesuffix(TABLE_SUFFIX)
    for group in range(parquet.num_row_groups if column >= 0 else 0):
        statistics = parquet.metadata.row_group(group).column(column).statistics
        if statistics is not None and statistics.has_min_max and {statistics.min, statistics.max} != {name}:
            found = f"those of {statistics.min if statistics.min != name else statistics.max}"
            raise InputError(path, f"the patches of {name}", found, "run raw/crop_patches.py again")


def read_shard_places(path: Path, shard: str) -> tuple[list[str], list[int]]:
    """Return the patches that a table says a shard holds, and their offsets.

    Raises
    ------
    InputError
        If the file is no table of patches.
    """
    names: list[str] = []
    offsets: list[int] = []
    # Only the row groups that may have any: a shard's patches are found in a few milliseconds, however large the table.
    for table in read_row_groups(path, ["patch", "shard", "offset"], lambda low, high: low <= shard <= high):
        held = table.filter(pc.and_(pc.equal(table["shard"], as_scalar(shard)), pc.is_valid(table["offset"])))
        names += held["patch"].to_pylist()
        offsets += held["offset"].to_pylist()
    return names, offsets


def read_rows(path: Path, patches: Collection[str]) -> list[dict[str, Any]]:
    """Return the rows of a few patches, each as a dictionary; where they were `resampled`, that says how.

    Raises
    ------
    InputError
        If the file is no table of patches.
    """
    names = sorted(patches)
    wanted = as_column(names, pa.string())
    rows: list[dict[str, Any]] = []

    def may_hold(first: str, last: str) -> bool:
        return bisect.bisect_left(names, first) < bisect.bisect_right(names, last)

    # Only the pieces that may have any: a patch is found as soon in a table of millions as in one of thousands.
    for table in read_row_groups(path, KNOWN_TO_ALL, may_hold, MEASURES, by="patch"):
        resampled = read_resampled(path, table.schema.metadata)
        said = {} if resampled is None else {"resampled": resampled}
        rows += [row | said for row in table.filter(pc.is_in(table["patch"], wanted)).to_pylist()]
    return rows


def read_resampled(path: Path, metadata: Mapping[bytes, bytes]) -> Resampled | None:
    """Return how the sections of a table's patches were resampled, by its metadata; raises `InputError`."""
    if RESAMPLED_KEY not in metadata:
        return None
    try:
        return msgspec.json.decode(metadata[RESAMPLED_KEY], type=Resampled)
    except msgspec.DecodeError:
        found = f"{metadata[RESAMPLED_KEY][:80]!r} as {RESAMPLED_KEY.decode()}"
        raise InputError(path, "a table of patches", found, "run raw/crop_patches.py again") from None


def hash_size_of(table: pa.Table) -> int:
    """Return the side of a table's hashes, in bits."""
    return int(table.schema.metadata[HASH_SIZE_KEY])


def hashes_of(table: pa.Table, name: str = "hash", count: int = 1) -> npt.NDArray[np.uint8]:
    """Return the packed hashes of a table: (n, bytes) uint8; of a column in which `count` stand one after another."""
    column = in_one(table[name])
    width = count * ((hash_size_of(table) ** 2 + 7) // 8)
    offsets = np.frombuffer(column.buffers()[1], np.int32, len(column) + 1, 4 * column.offset)
    if len(column) and not (np.diff(offsets) == width).all():
        raise ValueError(f"hashes of other sizes than {width} bytes")
    data = np.frombuffer(column.buffers()[2] or b"", np.uint8)
    return data[offsets[0] : offsets[0] + len(column) * width].reshape(len(column), width)


def measures_of(table: pa.Table) -> npt.NDArray[np.float64] | None:
    """Return the measures of a table's patches, (n, 5) float64, NaN where not known; None of one that has none."""
    if not set(MEASURES) <= set(table.column_names):
        return None
    return np.stack([as_floats(in_one(table[name])) for name in MEASURES], axis=1)
