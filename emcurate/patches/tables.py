"""Tables of patches: a row a patch, in Parquet, beside the patches they tell of.

``{dataset}_patches.parquet`` holds all that is known of a dataset's patches once they are cut. The name of a patch on
disk is its key; rows are in the order of names. pandas, polars and DuckDB read it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from emcurate import naming
from emcurate.errors import InputError
from emcurate.files import atomic_path
from emcurate.patches.hashing import WORD_BITS, BoolArray, WordArray, count_words
from emcurate.patches.names import join_names

TABLE_SUFFIX = "_patches.parquet"

# Kinds of datasets, as their names in the table.
KINDS = (IMAGE, VOLUME, VIDEO) = ("2d", "volume", "video")

# Where a shard's member lies is None for a patch that is a file of its own, or was only hashed.
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
    "shard": pa.string(),
    "offset": pa.int64(),
}
SCHEMA = pa.schema(list(COLUMNS.items()))

# Names of the settings in a table's own metadata, by which hashes can be read back.
HASH_SIZE_KEY, HASH_KIND_KEY, CROP_SIZE_KEY = b"emcurate.hash_size", b"emcurate.hash", b"emcurate.crop_size"

# Rows of which what was needed to read them is left to Arrow, for those to be read next.
ROWS_KEPT = 100_000


@dataclass(frozen=True)
class Origin:
    """Where a section's pixels came from, and how they became grey; None where that is not known.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    source, fingerprint : str
        The image, volume or video, and what changes when it does.
    voxel_size_nm : (z, y, x), optional
        Of a volume, or (1 slice, y, x) of an image.
    limits : (lo, hi), optional
        The values that became 0 and 255.
    """

    kind: str
    source: str | None = None
    fingerprint: str | None = None
    voxel_size_nm: tuple[float | None, float | None, float | None] | None = None
    limits: tuple[float, float] | None = None


@dataclass(frozen=True)
class Cut:
    """The patches of one section.

    Attributes
    ----------
    section : naming.Section
    places : (n, 4) int32
        Row, column, height and width of each in the section, in pixels.
    hashes : (n, bytes) uint8
        Packed bits, row by row.
    shard : str, optional
        The shard that holds them, if any does; `offsets` are their members' places in it, in bytes.
    """

    section: naming.Section
    places: npt.NDArray[np.int32]
    hashes: npt.NDArray[np.uint8]
    shard: str | None = None
    offsets: npt.NDArray[np.int64] | None = None


def pack_bits(hashes: BoolArray) -> npt.NDArray[np.uint8]:
    """Pack (n, side, side) boolean hashes into (n, bytes) uint8, as the table keeps them."""
    return np.packbits(hashes.reshape(len(hashes), -1), axis=1)


def unpack_bits(packed: npt.NDArray[np.uint8], side: int) -> BoolArray:
    """Return packed hashes as (n, side, side) bool, the inverse of `pack_bits`."""
    bits = np.unpackbits(packed, axis=1, count=side * side)
    return bits.reshape(len(packed), side, side).astype(np.bool_)


def build_table(cuts: Sequence[Cut], origins: Mapping[str, Origin], settings: Mapping[str, Any]) -> pa.Table:
    """Return the rows of some sections' patches, in the order of the patches' names.

    Parameters
    ----------
    cuts : sequence of Cut
    origins : mapping of str to Origin
        By the section's name.
    settings : mapping
        `crop_size`, `hash_size` and `hash`, kept in the table's metadata.
    """
    counts = [len(cut.places) for cut in cuts]
    of_section = pa.array(np.repeat(np.arange(len(cuts), dtype=np.int32), counts))
    places = np.concatenate([cut.places for cut in cuts]) if cuts else np.zeros((0, 4), np.int32)
    y, x, height, width = (pa.array(np.ascontiguousarray(column)) for column in places.T)
    offsets = [np.full(n, -1) if cut.offsets is None else cut.offsets for cut, n in zip(cuts, counts, strict=True)]
    at = np.concatenate(offsets) if offsets else np.zeros(0, np.int64)
    stems = pa.array([cut.section.stem for cut in cuts], pa.string()).take(of_section)
    columns = {
        "patch": pc.binary_join_element_wise(stems, y.cast(pa.string()), x.cast(pa.string()), "_"),
        "y": y,
        "x": x,
        "height": height,
        "width": width,
        "hash": _binary(b"".join(cut.hashes.tobytes() for cut in cuts), len(places)),
        "shard": pa.array([cut.shard for cut in cuts], pa.string()).take(of_section),
        "offset": pa.array(at, COLUMNS["offset"], mask=at < 0),
        **_columns_of_sections([cut.section for cut in cuts], origins, of_section),
    }
    return sort_by_name(pa.table(columns, schema=SCHEMA.with_metadata(_as_metadata(settings))))


def _columns_of_sections(
    sections: Sequence[naming.Section], origins: Mapping[str, Origin], of_section: pa.Array
) -> dict[str, pa.Array]:
    """Return the columns that tell of a patch's section: `of_section` are the sections' positions, row by row."""
    found = [origins[section.stem] for section in sections]
    places = [section if isinstance(section, naming.VolumeSection) else None for section in sections]
    sizes = [_sizes_of(origin, place) for origin, place in zip(found, places, strict=True)]
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
    return {name: pa.array(column, COLUMNS[name]).take(of_section) for name, column in values.items()}


def sort_by_name(table: pa.Table) -> pa.Table:
    """Return a table's rows in the order of the patches' names, which is that of the code points of their letters."""
    # Arrow compares UTF-8 bytes, which order as code points do.
    return table.sort_by("patch")


def join_tables(tables: Iterable[pa.Table]) -> pa.Table:
    """Return the rows of several tables of one dataset, in the order of names."""
    tables = list(tables)
    return tables[0] if len(tables) == 1 else sort_by_name(pa.concat_tables(tables).combine_chunks())


def section_names(table: pa.Table) -> set[str]:
    """Return the names of the sections that a table has patches of."""
    return set(pc.unique(_sections_of(table)).to_pylist())


def keep_sections(table: pa.Table, sections: Sequence[naming.Section], origins: Mapping[str, Origin]) -> pa.Table:
    """Return the rows of a table that are patches of some sections, with what is now known of where these came from."""
    names = pa.array([section.stem for section in sections], pa.string())
    of_section = pc.index_in(_sections_of(table), names)
    kept = pc.is_valid(of_section)
    table, of_section = table.filter(kept), of_section.filter(kept).combine_chunks()
    for name, column in _columns_of_sections(sections, origins, of_section).items():
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table


def _sections_of(table: pa.Table) -> pa.ChunkedArray:
    return pc.replace_substring_regex(table["patch"], r"_\d+_\d+$", "")


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table atomically; the same rows give the same bytes."""
    # By way of files that are open: Arrow takes names in UTF-8 only.
    with atomic_path(path) as partial, open(partial, "wb") as file:
        pq.write_table(table, file, compression="zstd")


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table, or some of its columns.

    Raises
    ------
    InputError
        If the file is no table of patches.
    """
    with _open_table(path, columns or tuple(COLUMNS)) as (file, _):
        return file.read(columns=None if columns is None else list(columns))


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
    """

    names: pa.LargeStringArray
    words: WordArray
    side: int


def read_hashes(path: Path) -> PatchHashes:
    """Read the names and hashes of a table, a group of its rows at a time, so that little else is in memory.

    Raises
    ------
    InputError
        If the file is no table of patches, or its hashes have not the size it says.
    """
    names, words = [], []
    with _open_table(path, ("patch", "hash")) as (file, metadata):
        side = int(metadata[HASH_SIZE_KEY])
        for group in range(file.num_row_groups):
            # Where rows are few, threads take longer to start than they save.
            rows = file.read_row_group(group, columns=["patch", "hash"], use_threads=False)
            if rows["patch"].null_count:
                raise InputError(path, "a table of patches", "rows without a name", "run raw/crop_patches.py again")
            names.append(rows["patch"])
            words += [_words_of(chunk, side, path) for chunk in rows["hash"].chunks]
    words = words or [np.zeros((0, count_words(side)), np.uint64)]
    read = PatchHashes(join_names(names), words[0] if len(words) == 1 else np.concatenate(words), side)
    if len(read.names) > ROWS_KEPT:
        del names, rows
        # Arrow keeps what it has freed, which of many rows is as much again as is used.
        pa.default_memory_pool().release_unused()
    return read


def _words_of(column: pa.Array, side: int, path: Path) -> WordArray:
    """Return hashes packed into bytes as words, padded with zeros."""
    count, width = len(column), (side * side + 7) // 8
    _, offsets, data = column.cast(pa.large_binary()).buffers()
    starts = np.frombuffer(offsets or bytes(8), np.int64, count + 1, 8 * column.offset)
    if column.null_count or not (np.diff(starts) == width).all():
        found = f"hashes of other sizes than {width} bytes"
        raise InputError(path, f"hashes of side {side}", found, "run raw/crop_patches.py again")
    padded = np.zeros((count, WORD_BITS // 8 * count_words(side)), np.uint8)
    padded[:, :width] = np.frombuffer(data or b"", np.uint8)[starts[0] : starts[-1]].reshape(count, width)
    return padded.view(np.uint64)


@contextlib.contextmanager
def _open_table(path: Path, columns: Iterable[str]) -> Iterator[tuple[pq.ParquetFile, dict[bytes, bytes]]]:
    """Open a table and give its metadata; what is wrong with it, or with its columns, is an `InputError`."""
    advice = "run raw/crop_patches.py again"
    try:
        with open(path, "rb") as opened:
            file = pq.ParquetFile(opened)
            schema = file.schema_arrow
            wrong = [name for name in columns if name not in schema.names]
            if wrong or HASH_SIZE_KEY not in (schema.metadata or {}):
                found = f"a Parquet file without {', '.join(wrong) or 'the size of hashes'}"
                raise InputError(path, "a table of patches", found, advice)
            yield file, schema.metadata
    except FileNotFoundError:
        raise InputError(path, "a table of patches", "no such file", "run raw/crop_patches.py") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        found = f"a damaged or other file ({str(error).splitlines()[0]})"
        raise InputError(path, "a table of patches", found, advice) from None


def _sizes_of(origin: Origin, section: naming.VolumeSection | None) -> tuple[float | None, float | None, float | None]:
    """Return the pixel size along rows and columns and the distance of neighbouring sections, in nm."""
    if origin.voxel_size_nm is None:
        return None, None, None
    z, y, x = origin.voxel_size_nm
    if section is None:
        return y, x, None
    step, rows, columns = ((z, y, x), (y, z, x), (x, z, y))[section.plane]
    return rows, columns, step


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
