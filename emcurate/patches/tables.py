"""Tables of patches: a row a patch, in Parquet, beside the patches they tell of.

``{dataset}_patches.parquet`` holds all that is known of a dataset's patches once they are cut. The name of a patch on
disk is its key; rows are in the order of names. pandas, polars and DuckDB read it.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from emcurate import naming
from emcurate.errors import InputError
from emcurate.images.origins import Origin
from emcurate.images.resampling import Resampled
from emcurate.patches.columns import as_column, as_numbers, as_scalar, in_one
from emcurate.patches.hashing import WORD_BITS, BoolArray, WordArray, count_words
from emcurate.patches.measures import BLUR, MEASURES, SATURATED
from emcurate.patches.names import as_names, join_names, take_names
from emcurate.patches.orientations import ORIENTATIONS
from emcurate.patches.parquet import open_parquet, write_parquet
from emcurate.writing import atomic_path

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

SEPARATOR = as_column(["_"], pa.string())[0]  # between what a patch's name is made of

# Those that are a patch's own, and not its section's.
OWN_COLUMNS = ("patch", "y", "x", "height", "width", "hash", *MEASURES, "shard", "offset")

# Of these, those that every patch has.
NEVER_NULL = ("patch", "y", "x", "height", "width", "hash")

# Those that a table of any version has.
KNOWN_TO_ALL = tuple(name for name in COLUMNS if name not in MEASURES)

# In tables whose patches were hashed in all orientations: the hashes of the others, one after another.
TURNED = "hash_turned"

# Rows after which a row group ends: what is held at once when tables are written and read piece by piece.
ROWS_AT_ONCE = 1 << 17

# Names of the settings in a table's own metadata, by which hashes can be read back.
HASH_SIZE_KEY, HASH_KIND_KEY, CROP_SIZE_KEY = b"emcurate.hash_size", b"emcurate.hash", b"emcurate.crop_size"

# In the metadata of a table whose patches have been resampled: `emcurate.images.resampling.Resampled`.
RESAMPLED_KEY = b"emcurate.resampled"

# In the metadata of a table of patches of a region of a volume: see `Origin.region_of`.
REGION_KEY = b"emcurate.region_of"

# Rows of which what was needed to read them is left to Arrow, for those to be read next.
ROWS_KEPT = 100_000


@dataclass(frozen=True)
class Cut:
    """The patches of one section.

    Attributes
    ----------
    section : naming.Section
    places : (n, 4) int32
        Row, column, height and width of each in the section, in pixels.
    hashes : (n, bytes) uint8
        Packed bits, row by row; where all orientations were hashed, those of each after another.
    shard : str, optional
        The shard that holds them, if any does; `offsets` are their members' places in it, in bytes.
    measures : (n, 5) float64, optional
        As `emcurate.patches.measures.measure_places` returns them; NaN where not known.
    """

    section: naming.Section
    places: npt.NDArray[np.int32]
    hashes: npt.NDArray[np.uint8]
    shard: str | None = None
    offsets: npt.NDArray[np.int64] | None = None
    measures: npt.NDArray[np.float64] | None = None

    def is_measured(self) -> bool:
        """Return whether the measures of all patches are known, but for those that cannot be."""
        return self.measures is not None and not np.isnan(self.measures[:, 0]).any()


def pack_bits(hashes: BoolArray) -> npt.NDArray[np.uint8]:
    """Pack (n, side, side) boolean hashes into (n, bytes) uint8, as the table keeps them."""
    return np.packbits(hashes.reshape(len(hashes), math.prod(hashes.shape[1:])), axis=1)


def unpack_bits(packed: npt.NDArray[np.uint8], side: int) -> BoolArray:
    """Return packed hashes as (n, side, side) bool, the inverse of `pack_bits`."""
    bits = np.unpackbits(packed, axis=1, count=side * side)
    return bits.reshape(len(packed), side, side).astype(np.bool_)


def write_cuts(
    path: Path,
    cuts: Iterable[Cut],
    origins: Callable[[str], Origin] | None,
    settings: Mapping[str, Any],
    more: Mapping[bytes, bytes] | None = None,
) -> int:
    """Write the table of some sections' patches atomically, and return how many they are.

    The same patches give the same bytes. Of tables of any size only `ROWS_AT_ONCE` rows and a section are in memory.

    Parameters
    ----------
    path : Path
    cuts : iterable of Cut
        Of one dataset; those of a volume in the order of their names.
    origins : callable, optional
        Gives where a section comes from by its name; without it, the columns that tell so are left out.
    settings : mapping
        `crop_size`, `hash_size` and `hash`, kept in the table's metadata; `orientations` where all were hashed.
    more : mapping of bytes to bytes, optional
        What else to keep there.
    """
    columns = SCHEMA if origins is not None else pa.schema([SCHEMA.field(name) for name in OWN_COLUMNS])
    if settings.get("orientations"):
        columns = columns.append(pa.field(TURNED, pa.binary()))
    cuts = iter(cuts)
    first = next(cuts, None)
    cuts = itertools.chain([] if first is None else [first], cuts)
    said: dict[bytes, bytes] = {}
    if origins is not None and first is not None:
        origin = origins(first.section.stem)
        if origin.resampled is not None:
            said[RESAMPLED_KEY] = msgspec.json.encode(origin.resampled)
        if origin.region_of is not None:
            said[REGION_KEY] = msgspec.json.encode(origin.region_of)
    schema = columns.with_metadata(_as_metadata(settings) | said | dict(more or {}))
    rows = 0
    # By way of a file that is open: Arrow takes names in UTF-8 only.
    with atomic_path(path) as partial, write_parquet(partial, schema) as writer:
        for some in _in_groups(cuts):
            table = _build_rows(some, origins, schema)
            writer.write_table(table, row_group_size=max(1, len(table)))
            rows += len(table)
    return rows


def _in_groups(cuts: Iterable[Cut]) -> Iterator[list[Cut]]:
    """Yield sections together that make a row group, in which rows are sorted by name."""
    some: list[Cut] = []
    rows = 0
    for cut in cuts:
        # Names of 2D images may begin alike, so that their patches mix: these are sorted together.
        if rows >= ROWS_AT_ONCE and isinstance(cut.section, naming.VolumeSection):
            yield some
            some, rows = [], 0
        some.append(cut)
        rows += len(cut.places)
    yield some


def _build_rows(cuts: Sequence[Cut], origins: Callable[[str], Origin] | None, schema: pa.Schema) -> pa.Table:
    """Return the rows of some sections' patches, in the order of the patches' names."""
    counts = [len(cut.places) for cut in cuts]
    numbers = np.repeat(np.arange(len(cuts), dtype=np.int32), counts)
    of_section = as_column(numbers, pa.int32())
    places = np.concatenate([cut.places for cut in cuts]) if cuts else np.zeros((0, 4), np.int32)
    y, x, height, width = (as_column(column, pa.int32()) for column in places.T)
    offsets = [np.full(n, -1) if cut.offsets is None else cut.offsets for cut, n in zip(cuts, counts, strict=True)]
    at = np.concatenate(offsets) if offsets else np.zeros(0, np.int64)
    stems = as_column([cut.section.stem for cut in cuts], pa.string()).take(of_section)
    shards = as_column([cut.shard for cut in cuts], pa.string())
    own_bytes = (int(schema.metadata[HASH_SIZE_KEY]) ** 2 + 7) // 8
    columns = {
        "patch": pc.binary_join_element_wise(stems, y.cast(pa.string()), x.cast(pa.string()), SEPARATOR),
        "y": y,
        "x": x,
        "height": height,
        "width": width,
        "hash": _binary(b"".join(cut.hashes[:, :own_bytes].tobytes() for cut in cuts), len(places)),
        TURNED: _binary(b"".join(cut.hashes[:, own_bytes:].tobytes() for cut in cuts), len(places)),
        **_columns_of_measures(np.concatenate([_measures_of(cut) for cut in cuts]) if cuts else _unmeasured(0)),
        "shard": shards.take(as_column(numbers, pa.int32(), at < 0)),
        "offset": as_column(at, COLUMNS["offset"], at < 0),
    }
    if origins is not None:
        columns |= _columns_of_sections([cut.section for cut in cuts], origins, of_section)
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema).sort_by("patch")


def read_metadata(path: Path) -> dict[bytes, bytes]:
    """Return what stands in a table's metadata.

    Raises
    ------
    InputError
        If the file is no table of patches.
    """
    with _open_table(path, []) as parquet:
        return dict(parquet.schema_arrow.metadata)


def read_schema(path: Path) -> pa.Schema:
    """Return the columns of a table; raises `InputError` if the file is none."""
    with _open_table(path, []) as parquet:
        return parquet.schema_arrow


def read_cuts(
    path: Path, wanted: Callable[[str], bool] = lambda stem: True
) -> tuple[dict[str, Cut], dict[bytes, bytes]]:
    """Return the patches of a table by the names of their sections, and the table's metadata.

    `wanted` chooses among the sections by name.

    Raises
    ------
    InputError
        If the file is no table of patches.
    """
    found: dict[str, list[Cut]] = defaultdict(list)
    metadata: dict[bytes, bytes] = {}
    own = [name for name in OWN_COLUMNS if name not in MEASURES]
    for table in read_row_groups(path, own, also=[*MEASURES, TURNED]):
        metadata = dict(table.schema.metadata)
        if not len(table):
            continue
        of_section = in_one(pc.replace_substring_regex(table["patch"], r"_\d+_\d+$", "")).dictionary_encode()
        numbers = as_numbers(of_section.indices)
        places = np.stack([as_numbers(table[name]) for name in ("y", "x", "height", "width")], axis=1)
        offsets = as_numbers(pc.coalesce(table["offset"], as_column(np.full(len(table), -1), pa.int64())))
        hashes, measures = hashes_of(table), measures_of(table)
        if TURNED in table.column_names:
            hashes = np.concatenate([hashes, hashes_of(table, TURNED, ORIENTATIONS - 1)], axis=1)
        # Stable, so that a section's patches stay in the order of their names.
        order = np.argsort(numbers, kind="stable")
        starts = np.searchsorted(numbers[order], np.arange(len(of_section.dictionary)))
        for stem, rows in zip(of_section.dictionary.to_pylist(), np.split(order, starts[1:]), strict=True):
            if not wanted(stem):
                continue
            in_shard = rows[offsets[rows] >= 0]
            shard = table["shard"][int(in_shard[0])].as_py() if len(in_shard) else None
            at = offsets[rows] if shard else None
            told = None if measures is None else measures[rows]
            cut = Cut(naming.parse_section(stem), places[rows], hashes[rows], shard, at, told)
            found[stem].append(cut)
    return {stem: join_cuts(cuts) for stem, cuts in found.items()}, metadata


def join_cuts(cuts: Sequence[Cut]) -> Cut:
    """Return the patches of one section that stood in several places."""
    if len(cuts) == 1:
        return cuts[0]
    shard = next((cut.shard for cut in cuts if cut.shard), None)
    offsets = [np.full(len(cut.places), -1) if cut.offsets is None else cut.offsets for cut in cuts]
    return Cut(
        cuts[0].section,
        np.concatenate([cut.places for cut in cuts]),
        np.concatenate([cut.hashes for cut in cuts]),
        shard,
        np.concatenate(offsets) if shard else None,
        np.concatenate([_measures_of(cut) for cut in cuts]),
    )


def place_in_shard(cut: Cut, stored: Cut | None) -> Cut:
    """Return the patches of a section, of which those that are `stored` in a shard have their place there."""
    if stored is None or stored.offsets is None:
        return replace(cut, shard=None, offsets=None)
    at = {(int(y), int(x)): int(offset) for (y, x, _, _), offset in zip(stored.places, stored.offsets, strict=True)}
    offsets = np.array([at.get((int(y), int(x)), -1) for y, x, _, _ in cut.places], np.int64)
    return replace(cut, shard=stored.shard, offsets=offsets)


def _columns_of_sections(
    sections: Sequence[naming.Section], origins: Callable[[str], Origin], of_section: pa.Array
) -> dict[str, pa.Array]:
    """Return the columns that tell of a patch's section: `of_section` are the sections' positions, row by row."""
    found = [origins(section.stem) for section in sections]
    places = [section if isinstance(section, naming.VolumeSection) else None for section in sections]
    sizes = [origin.sizes(section) for origin, section in zip(found, sections, strict=True)]
    values: dict[str, Sequence[Any]] = {
        "dataset": [section.dataset for section in sections],
        "kind": [origin.kind for origin in found],
        "plane": [place and place.plane for place in places],
        "index": [place and place.index for place in places],
        "pixel_size_y_nm": [size[0] for size in sizes],
        "pixel_size_x_nm": [size[1] for size in sizes],
        "step_nm": [size[2] for size in sizes],
        "source": [origin.source for origin in found],
        "source_fingerprint": [origin.fingerprint for origin in found],
        "lo": [origin.limits and origin.limits[0] for origin in found],
        "hi": [origin.limits and origin.limits[1] for origin in found],
    }
    return {name: as_column(column, COLUMNS[name]).take(of_section) for name, column in values.items()}


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


@dataclass(frozen=True)
class PatchHashes:
    """The names and hashes of a table's patches.

    Attributes
    ----------
    names : LargeStringArray of n
    words : (n, words) uint64
        As `emcurate.patches.hashing.pack_hashes` packs them.
    side : int
        Of a hash, in bits.
    shards : Shards, optional
        Where any patch lies in one.
    saturated : (n,) float64, optional
        The share of wholly black or white pixels in each, where that is known of all.
    turned : (n, 8, words) uint64, optional
        The hashes of all orientations, where they were asked for and the table has them.
    """

    names: pa.LargeStringArray
    words: WordArray
    side: int
    shards: Shards | None = None
    saturated: npt.NDArray[np.float64] | None = None
    turned: WordArray | None = None


class Shards:
    """In which shard each of many patches lies.

    Attributes
    ----------
    prefixes : list of str
        Of the patches' paths: that of a file of its own, which is empty, and each shard with a slash.
    """

    def __init__(self) -> None:
        self.prefixes = [""]
        self._found: list[npt.NDArray[np.int32]] = []

    def add(self, column: pa.ChunkedArray) -> None:
        """Take in the shards of more patches, null for files."""
        for chunk in column.chunks:
            if chunk.null_count == len(chunk):
                self._found.append(np.zeros(len(chunk), np.int32))
                continue
            encoded = chunk.dictionary_encode()
            known = {prefix: number for number, prefix in enumerate(self.prefixes)}
            for name in encoded.dictionary.to_pylist():
                known.setdefault(f"{name}/", len(known))
            self.prefixes = list(known)
            numbers = np.array([known[f"{name}/"] for name in encoded.dictionary.to_pylist()] + [0], np.int32)
            places = pc.coalesce(encoded.indices, as_scalar(len(numbers) - 1, pa.int32()))
            self._found.append(numbers[as_numbers(places)])

    def take(self, places: npt.NDArray[np.int64]) -> Shards:
        """Return this of the patches at some places only."""
        some = Shards()
        some.prefixes, some._found = self.prefixes, [np.concatenate(self._found)[places]]
        return some

    def put_before(self, names: pa.LargeStringArray, places: npt.NDArray[np.int64]) -> pa.LargeStringArray:
        """Return the names of the patches at some places, each with its shard before it."""
        if len(self._found) > 1:
            self._found = [np.concatenate(self._found)]
        prefixes = take_names(as_names(self.prefixes), self._found[0][places].astype(np.int64))
        return pc.binary_join_element_wise(prefixes, names, as_names([""])[0])


def read_hashes(path: Path, with_turned: bool = False) -> PatchHashes:
    """Read the names and hashes of a table, a group of its rows at a time, so that little else is in memory.

    `with_turned` asks for those of all orientations too.

    Raises
    ------
    InputError
        If the file is no table of patches, or its hashes have not the size it says.
    """
    names, words, turned, saturated, shards = [], [], [], [], Shards()
    side = 0
    also = ["shard", SATURATED, *([TURNED] if with_turned else [])]
    for rows in read_row_groups(path, ["patch", "hash"], also=also, check=refuse_other_dataset):
        side = hash_size_of(rows)
        if "shard" in rows.column_names:
            shards.add(rows["shard"])
        if SATURATED in rows.column_names:
            saturated.append(_as_floats(in_one(rows[SATURATED])))
        names.append(rows["patch"])
        words += [_words_of(chunk, side, path) for chunk in rows["hash"].chunks]
        if TURNED in rows.column_names:
            turned += [_words_of(chunk, side, path, ORIENTATIONS - 1) for chunk in rows[TURNED].chunks]
    words = words or [np.zeros((0, count_words(side)), np.uint64)]
    in_shards = shards if len(shards.prefixes) > 1 else None
    known = np.concatenate(saturated) if len(saturated) == len(names) else np.full(1, np.nan)
    upright = words[0] if len(words) == 1 else np.concatenate(words)
    of_all = None
    if turned:
        others = np.concatenate(turned).reshape(len(upright), ORIENTATIONS - 1, -1)
        of_all = np.concatenate([upright[:, None], others], axis=1)
    read = PatchHashes(join_names(names), upright, side, in_shards, None if np.isnan(known).any() else known, of_all)
    if len(read.names) > ROWS_KEPT:
        del names, rows
        # Arrow keeps what it has freed, which of many rows is as much again as is used.
        pa.default_memory_pool().release_unused()
    return read


def _words_of(column: pa.Array, side: int, path: Path, each: int = 1) -> WordArray:
    """Return hashes packed into bytes, so many in each row, as words, (rows * each, words), padded with zeros."""
    count, width = len(column) * each, (side * side + 7) // 8
    _, offsets, data = column.cast(pa.large_binary()).buffers()
    starts = np.frombuffer(offsets or bytes(8), np.int64, len(column) + 1, 8 * column.offset)
    if column.null_count or not (np.diff(starts) == width * each).all():
        found = f"hashes of other sizes than {width * each} bytes"
        raise InputError(path, f"hashes of side {side}", found, "run raw/crop_patches.py again")
    padded = np.zeros((count, WORD_BITS // 8 * count_words(side)), np.uint8)
    padded[:, :width] = np.frombuffer(data or b"", np.uint8)[starts[0] : starts[-1]].reshape(count, width)
    return padded.view(np.uint64)


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
    return np.stack([_as_floats(in_one(table[name])) for name in MEASURES], axis=1)


def _as_floats(column: pa.Array) -> npt.NDArray[np.float64]:
    """Return a column of numbers as float64; NaN where null."""
    return as_numbers(pc.coalesce(column.cast(pa.float64()), as_scalar(float("nan"))))


def _measures_of(cut: Cut) -> npt.NDArray[np.float64]:
    return _unmeasured(len(cut.places)) if cut.measures is None else cut.measures


def _unmeasured(count: int) -> npt.NDArray[np.float64]:
    return np.full((count, len(MEASURES)), np.nan)


def _columns_of_measures(found: npt.NDArray[np.float64]) -> dict[str, pa.Array]:
    """Return measures, (n, 5), as columns; null where not known."""
    columns = zip(MEASURES, found.T, strict=True)
    return {name: as_column(column, MEASURE_COLUMNS[name], np.isnan(column)) for name, column in columns}


def _binary(data: bytes, count: int) -> pa.Array:
    width = len(data) // count if count else 0
    offsets = np.arange(count + 1, dtype=np.int32) * width
    return pa.Array.from_buffers(pa.binary(), count, [None, pa.py_buffer(offsets), pa.py_buffer(data)])


def _as_metadata(settings: Mapping[str, Any]) -> dict[bytes, bytes]:
    return {
        HASH_SIZE_KEY: str(settings["hash_size"]).encode(),
        HASH_KIND_KEY: str(settings["hash"]).encode(),
        CROP_SIZE_KEY: str(settings["crop_size"]).encode(),
    }
