"""Sections' patches as tables of patches hold them: written from what was cut, and read back section by section."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from emcurate import naming
from emcurate.images.origins import Origin
from emcurate.patches.columns import as_column, as_numbers, in_one
from emcurate.patches.hashing import BoolArray
from emcurate.patches.measures import MEASURES
from emcurate.patches.orientations import ORIENTATIONS
from emcurate.patches.parquet import write_parquet
from emcurate.patches.tables import (
    COLUMNS,
    CROP_SIZE_KEY,
    HASH_KIND_KEY,
    HASH_SIZE_KEY,
    MEASURE_COLUMNS,
    OWN_COLUMNS,
    REGION_KEY,
    RESAMPLED_KEY,
    SCHEMA,
    TURNED,
    hashes_of,
    measures_of,
    read_row_groups,
)
from emcurate.writing import atomic_path

SEPARATOR = as_column(["_"], pa.string())[0]  # between what a patch's name is made of

# Rows after which a row group ends: what is held at once when tables are written and read piece by piece.
ROWS_AT_ONCE = 1 << 17


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

    def stored_corners(self) -> set[tuple[int, int]]:
        """Return the rows and columns of the patches that lie in the shard."""
        if self.offsets is None:
            return set()
        return set(map(tuple, self.places[self.offsets >= 0, :2].tolist()))

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
