"""One table of every patch: where it came from, what became of it, and why; put together from what the stages wrote.

Everything is matched by the patches' names, never by places in a list, so that a stage that was not run again yet says
nothing wrong of patches that it has not seen. Tables of any size are read and written piece by piece.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from emcurate.files import atomic_path, list_files
from emcurate.patches.columns import as_column, as_numbers, in_one
from emcurate.patches.decided import DECIDED_COLUMNS, THRESHOLD_KEY, read_decided
from emcurate.patches.duplicates import GROUPS_SUFFIX, read_groups
from emcurate.patches.names import parse_names
from emcurate.patches.tables import COLUMNS, TABLE_SUFFIX, read_row_groups, read_schema

JOINED_NAME = "patches.parquet"

GROUP_COLUMNS: dict[str, pa.DataType] = {"exemplar": pa.string(), "distance": pa.int32()}
OUTCOME_COLUMNS: dict[str, pa.DataType] = {"outcome": pa.string(), "why": pa.string()}

# What the last stage that has seen a patch made of it.
OUTCOMES = (CUT, DUPLICATE, EXEMPLAR, INFORMATIVE, UNINFORMATIVE, UNREADABLE) = (
    "cut",
    "duplicate",
    "exemplar",
    "informative",
    "uninformative",
    "unreadable",
)

# Rows at a time of a dataset of which only names are known.
ROWS_AT_ONCE = 1 << 17


class Lookup:
    """What is known of some patches, to be found by their names.

    Parameters
    ----------
    table : pyarrow.Table
        A row a patch, with a column `patch`; of two rows of one name the first counts.
    """

    def __init__(self, table: pa.Table) -> None:
        self.table = table.take(pc.sort_indices(in_one(table["patch"]))).combine_chunks()
        self.names = in_one(self.table["patch"])

    def find(self, names: pa.Array) -> pa.Array:
        """Return the places in `table` of some patches, int64; null where a patch is not known.

        Names come in order, some at a time: only those between the first and the last of them are looked at.
        """
        if not len(names):
            return as_column([], pa.int64())
        ends = pc.min_max(names)
        start = self._place(ends["min"].as_py(), after=False)
        stop = self._place(ends["max"].as_py(), after=True)
        return pc.add(pc.index_in(names, value_set=self.names.slice(start, stop - start)).cast(pa.int64()), start)

    def _place(self, name: str, *, after: bool) -> int:
        """Return where a name stands, or would; `after` all of that name, or before them."""
        low, high, wanted = 0, len(self.names), name.encode()  # as Arrow sorts them
        while low < high:
            middle = (low + high) // 2
            there = self.names[middle].as_py().encode()
            low, high = (middle + 1, high) if there < wanted or (after and there == wanted) else (low, middle)
        return low


@dataclass(frozen=True)
class Results:
    """Where the stages' results lie, as far as they have run.

    Attributes
    ----------
    patchdir : Path, optional
        Of crop_patches.py, with the tables.
    groups : Path, optional
        Of deduplicate.py.
    decided : Path, optional
        The table of what was decided of patches, by classify_nn.py or another filter.
    """

    patchdir: Path | None = None
    groups: Path | None = None
    decided: Path | None = None

    def files(self) -> list[Path]:
        """Return the files that the table is made of, as far as they are there."""
        tables = list_files(self.patchdir, [TABLE_SUFFIX]) if self.patchdir and self.patchdir.is_dir() else []
        groups = list_files(self.groups, [GROUPS_SUFFIX]) if self.groups and self.groups.is_dir() else []
        return [*tables, *groups, *([self.decided] if self.decided and self.decided.is_file() else [])]


@dataclass(frozen=True)
class Addition:
    """What else is said of patches, by name; those that no stage knows get a row too.

    Attributes
    ----------
    columns : mapping of str to pyarrow.DataType
        Those that come after all others.
    lookup : Lookup
        Has these; and maybe `outcome` and `why`, which count before what the stages say where they are not null, and
        columns of the patches' tables, for patches that have no row there.
    """

    columns: Mapping[str, pa.DataType]
    lookup: Lookup


def write_joined(path: Path, results: Results, addition: Addition | None = None) -> int:
    """Write the table of all patches atomically, dataset by dataset in the order of names; return how many they are.

    The same results give the same bytes. In memory are the names and groups of one dataset, and a piece of its table.

    Raises
    ------
    InputError
        If a file of a stage is damaged.
    """
    files = results.files()
    tables = {file.name.removesuffix(TABLE_SUFFIX): file for file in files if file.name.endswith(TABLE_SUFFIX)}
    groups = {file.name.removesuffix(GROUPS_SUFFIX): file for file in files if file.name.endswith(GROUPS_SUFFIX)}
    fields = dict(COLUMNS)
    for table in tables.values():
        # Columns that others add, such as measures, come along.
        fields |= {each.name: each.type for each in read_schema(table) if each.name not in fields}
    own = pa.schema(list(fields.items()))
    fields |= {**GROUP_COLUMNS, **DECIDED_COLUMNS, **OUTCOME_COLUMNS, **(addition.columns if addition else {})}
    schema = pa.schema(list(fields.items()))
    decided = Lookup(read_decided(files[-1])) if files and files[-1] == results.decided else None
    rows = 0
    with (
        atomic_path(path) as partial,
        open(partial, "wb") as file,
        pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer,
    ):
        for some, of_groups in _iter_rows(tables, groups, own, addition):
            joined = _join(some, of_groups, decided, addition, schema)
            writer.write_table(joined, row_group_size=max(1, len(joined)))
            rows += len(joined)
    return rows


def _iter_rows(
    tables: Mapping[str, Path], groups: Mapping[str, Path], own: pa.Schema, addition: Addition | None
) -> Iterator[tuple[pa.Table, Lookup | None]]:
    """Yield the rows of one dataset after another, some at a time, each with what is known of its groups."""
    unseen = np.ones(len(addition.lookup.names) if addition else 0, np.bool_)
    for dataset in sorted({*tables, *groups}):
        known = Lookup(read_groups(groups[dataset])) if dataset in groups else None
        if dataset in tables:
            others = [name for name in own.names if name != "patch"]
            pieces = read_row_groups(tables[dataset], ["patch"], also=others)
        else:
            assert known is not None
            pieces = (_rows_of_names(known.table.slice(at, ROWS_AT_ONCE)) for at in _starts(len(known.names)))
        for some in pieces:
            if addition is not None:
                unseen[as_numbers(addition.lookup.find(in_one(some["patch"])).drop_null())] = False
            yield some, known
    if addition is not None and unseen.any():
        rest = addition.lookup.table.filter(as_column(unseen.view(np.uint8), pa.uint8()).cast(pa.bool_()))
        for at in _starts(len(rest)):
            yield _rows_of_names(rest.slice(at, ROWS_AT_ONCE)), None


def _starts(count: int) -> range:
    return range(0, count, ROWS_AT_ONCE)


def _rows_of_names(known: pa.Table) -> pa.Table:
    """Return rows of patches that have none in a table of theirs: what their names say, and what else is known."""
    names = in_one(known["patch"])
    said = parse_names(names)
    more = {name: in_one(known[name]) for name in COLUMNS if name in known.column_names and name != "patch"}
    both = {name: pc.coalesce(said[name], more[name]) for name in said.keys() & more.keys()}
    return pa.table({"patch": names, **said, **more, **both})


def _join(
    rows: pa.Table, groups: Lookup | None, decided: Lookup | None, addition: Addition | None, schema: pa.Schema
) -> pa.Table:
    """Return rows with what the stages made of each patch."""
    names = in_one(rows["patch"])
    columns = {name: in_one(rows[name]) for name in rows.column_names if name in schema.names}
    columns |= _take(groups, names, GROUP_COLUMNS) | _take(decided, names, DECIDED_COLUMNS)
    outcome, why = _judge(columns, decided, names)
    if addition is not None:
        columns |= _take(addition.lookup, names, addition.columns)
        said = _take(addition.lookup, names, OUTCOME_COLUMNS)
        # Both or neither: a reason belongs to its outcome.
        counts = pc.is_valid(said["outcome"])
        outcome, why = pc.if_else(counts, said["outcome"], outcome), pc.if_else(counts, said["why"], why)
    columns |= {"outcome": outcome, "why": why}
    arrays = [columns[field.name] if field.name in columns else pa.nulls(len(names), field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _take(lookup: Lookup | None, names: pa.Array, kinds: Mapping[str, pa.DataType]) -> dict[str, pa.Array]:
    """Return some columns of what is known of patches; null where nothing is."""
    known = [] if lookup is None else [name for name in kinds if name in lookup.table.column_names]
    found = {name: pa.nulls(len(names), kind) for name, kind in kinds.items() if name not in known}
    if lookup is not None and known:
        places = lookup.find(names)
        found |= {name: in_one(lookup.table[name]).take(places) for name in known}
    return found


def _judge(columns: Mapping[str, pa.Array], decided: Lookup | None, names: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return what the last stage that has seen each patch made of it, and why."""
    exemplar, distance, score, label = (columns[name] for name in ("exemplar", "distance", "score", "label"))
    is_duplicate = pc.not_equal(exemplar, names)
    outcome = pc.if_else(is_duplicate, DUPLICATE, EXEMPLAR)
    why = pc.if_else(is_duplicate, _text(distance, " bits from its exemplar"), "not judged yet")
    outcome, why = pc.fill_null(outcome, CUT), pc.fill_null(why, "deduplicate.py has not seen it")
    if decided is None:
        return outcome, why
    kept = columns["kept"]
    metadata = decided.table.schema.metadata or {}
    threshold = metadata.get(THRESHOLD_KEY, b"the threshold").decode()
    reason = _take(decided, names, {"why": pa.string()})["why"]
    side = pc.if_else(kept, f" above {threshold}", f" not above {threshold}")
    by_score = _text(pc.round(score.cast(pa.float64()), 6), "", before="score ")
    reason = pc.coalesce(
        reason, pc.if_else(pc.is_valid(label), "labelled so", None), pc.binary_join_element_wise(by_score, side, "")
    )
    # Of what could not be read there is no score, and where nobody labelled it no reason.
    seen = pc.if_else(kept, INFORMATIVE, pc.if_else(pc.is_valid(reason), UNINFORMATIVE, UNREADABLE))
    is_seen = pc.is_valid(kept)
    reason = pc.fill_null(reason, "it could not be read")
    return pc.if_else(is_seen, seen, outcome), pc.if_else(is_seen, reason, why)


def _text(numbers: pa.Array, after: str, before: str = "") -> pa.Array:
    return pc.binary_join_element_wise(before, numbers.cast(pa.string()), after, "")
