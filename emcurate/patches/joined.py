"""One table of every patch: where it came from, what became of it, and why; put together from what the stages wrote.

Everything is matched by the patches' names, never by places in a list, so that a stage that was not run again yet says
nothing wrong of patches that it has not seen. Tables of any size are read and written piece by piece.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from emcurate.files import list_files
from emcurate.naming import MARK
from emcurate.outputs import digest_bytes
from emcurate.patches.columns import as_column, as_numbers, as_scalar, in_one
from emcurate.patches.decided import DECIDED_COLUMNS, THRESHOLD_KEY, read_decided
from emcurate.patches.duplicates import GROUPS_SUFFIX, read_groups
from emcurate.patches.leaks import LEAK_COLUMNS, LEAKS_SUFFIX, read_leaks
from emcurate.patches.names import parse_names
from emcurate.patches.parquet import write_parquet
from emcurate.patches.selected import REASON, SELECTED_COLUMNS, read_selected
from emcurate.patches.tables import COLUMNS, TABLE_SUFFIX, TURNED, read_row_groups, read_schema
from emcurate.running.claims import Notes
from emcurate.writing import path_once

JOINED_NAME = "patches.parquet"

GROUP_COLUMNS: dict[str, pa.DataType] = {"exemplar": pa.string(), "distance": pa.int32()}
OUTCOME_COLUMNS: dict[str, pa.DataType] = {"outcome": pa.string(), "why": pa.string()}

# What the last stage that has seen a patch made of it.
OUTCOMES = (CUT, DUPLICATE, EXEMPLAR, INFORMATIVE, UNINFORMATIVE, UNREADABLE, SELECTED, PASSED_OVER) = (
    "cut",
    "duplicate",
    "exemplar",
    "informative",
    "uninformative",
    "unreadable",
    "selected",
    "passed over",
)

# Why nothing more is known of a patch.
UNSEEN = "deduplicate.py has not seen it"

# Of which a selection selects.
SELECTED_AMONG = (EXEMPLAR, INFORMATIVE)

# Rows at a time of a dataset of which only names are known, or of many small ones.
ROWS_AT_ONCE = 1 << 17

# A dataset of no more rows is a small one.
FEW_ROWS = 1 << 12


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
        places = pc.index_in(names, value_set=self.names.slice(start, stop - start))
        return pc.add(places.cast(pa.int64()), as_scalar(start))

    def has_between(self, first: str, last: str) -> bool:
        """Return whether any patch's name is one of these or between them."""
        return self._place(first, after=False) < self._place(last, after=True)

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
    patchdirs : tuple of Path
        Of crop_patches.py, with the tables.
    groups : Path, optional
        Of deduplicate.py.
    decided : Path, optional
        The table of what was decided of patches, by classify_nn.py or another filter.
    selected : Path, optional
        The table of what was selected of those that are left, by select_diverse.py.
    """

    patchdirs: tuple[Path, ...] = ()
    groups: Path | None = None
    decided: Path | None = None
    selected: Path | None = None

    def tables(self) -> list[tuple[str, Path]]:
        """Return the tables that are there, each with its dataset's name."""
        return [found for directory in self.patchdirs for found in _list(directory, TABLE_SUFFIX)]

    def group_tables(self) -> dict[str, Path]:
        """Return the tables of groups that are there, by dataset."""
        return dict(_list(self.groups, GROUPS_SUFFIX)) if self.groups is not None else {}

    def leak_tables(self) -> dict[str, Path]:
        """Return the tables of leaks that are there, by dataset."""
        return dict(_list(self.groups, LEAKS_SUFFIX)) if self.groups is not None else {}

    def decided_table(self) -> Path | None:
        """Return the table of what was decided, if it is there."""
        return self.decided if self.decided is not None and self.decided.is_file() else None

    def selected_table(self) -> Path | None:
        """Return the table of what was selected, if it is there."""
        return self.selected if self.selected is not None and self.selected.is_file() else None

    def directories(self) -> list[Path]:
        """Return where they lie."""
        judged = [path.parent for path in (self.decided, self.selected) if path is not None]
        return [*self.patchdirs, *([] if self.groups is None else [self.groups]), *judged]

    def files(self) -> list[Path]:
        """Return the files that the table is made of, as far as they are there."""
        judged = [path for path in (self.decided_table(), self.selected_table()) if path is not None]
        of_groups = [*self.group_tables().values(), *self.leak_tables().values()]
        return [*(path for _, path in self.tables()), *of_groups, *judged]

    def digest(self) -> str:
        """Return what changes when the content of any file does; as the stages noted it, where they did."""
        by_directory: dict[tuple[Path, str], list[Path]] = defaultdict(list)
        for file in self.files():
            # Notes on a million patches are in the same ledger: only those on files like these are kept.
            by_directory[file.parent, file.name[file.name.rindex("_") :]].append(file)
        lines = []
        for (directory, ending), some in by_directory.items():
            notes = Notes(directory, ending)
            lines += [f"{file.name} {notes.fingerprint(file)}" for file in some]
        return digest_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))


def _list(directory: Path, suffix: str) -> list[tuple[str, Path]]:
    found = list_files(directory, [suffix]) if directory.is_dir() else []
    return [(path.name.removesuffix(suffix), path) for path in found]


@dataclass(frozen=True)
class Addition:
    """What else is said of patches, by name; those that no stage knows get a row too.

    Attributes
    ----------
    columns : mapping of str to pyarrow.DataType
        Those that come after all others.
    names : StringArray of n
        The patches that something is said of.
    describe : callable
        Gives, for some of them by their places in `names`, these columns; and maybe `outcome` and `why`, which count
        before what the stages say where they are not null, and columns of the patches' tables, for patches that have
        no row there.
    name_source : callable, optional
        Gives what the table has for the path of a source.
    unseen : str
        Why there is no more to say of patches that deduplicate.py tells nothing of.
    """

    columns: Mapping[str, pa.DataType]
    names: pa.StringArray
    describe: Callable[[npt.NDArray[np.int64]], Mapping[str, pa.Array]]
    name_source: Callable[[str], str] | None = None
    unseen: str = UNSEEN


def write_joined(path: Path, results: Results, addition: Addition | None = None, *, overwrite: bool = False) -> int:
    """Write the table of all patches atomically, dataset by dataset in the order of names; return how many they are.

    The same results give the same bytes. In memory are the names and groups of one dataset, and a piece of its table.

    Raises
    ------
    InputError
        If a file of a stage is damaged, or another file is at `path` that is not to be overwritten.
    """
    tables: dict[str, list[Path]] = defaultdict(list)
    for dataset, table in results.tables():
        tables[dataset].append(table)
    groups, leaks = results.group_tables(), results.leak_tables()
    fields = dict(COLUMNS)
    for table in (table for some in tables.values() for table in some):
        # Columns that others add, such as measures, come along.
        fields |= {each.name: each.type for each in read_schema(table) if each.name not in {*fields, TURNED}}
    own = pa.schema(list(fields.items()))
    selected_table = results.selected_table()
    selected = None if selected_table is None else Lookup(read_selected(selected_table))
    # Of leaks, and of a selection, something is only said where there was one: else the table is as it always was.
    of_selection = {} if selected is None else SELECTED_COLUMNS
    fields |= {**GROUP_COLUMNS, **(LEAK_COLUMNS if leaks else {}), **DECIDED_COLUMNS, **of_selection, **OUTCOME_COLUMNS}
    fields |= addition.columns if addition else {}
    schema = pa.schema(list(fields.items()))
    decided_table = results.decided_table()
    decided = None if decided_table is None else Lookup(read_decided(decided_table))
    rows = 0
    with path_once(path, overwrite=overwrite) as partial, write_parquet(partial, schema) as writer:
        added = None if addition is None else _Added(addition)
        for some, known in _iter_rows(tables, groups, leaks, own, added):
            joined = _join(some, known, Judged(decided, selected), added, schema)
            writer.write_table(joined, row_group_size=max(1, len(joined)))
            rows += len(joined)
    return rows


@dataclass(frozen=True)
class _Known:
    """What deduplicate.py said of some patches: of their groups, and of their leaks."""

    groups: Lookup | None = None
    leaks: Lookup | None = None


def _look_up(groups: Sequence[pa.Table], leaks: Sequence[pa.Table]) -> _Known:
    """Return what some tables say together."""
    return _Known(*(Lookup(pa.concat_tables(some)) if some else None for some in (groups, leaks)))


def _iter_rows(
    tables: Mapping[str, list[Path]],
    groups: Mapping[str, Path],
    leaks: Mapping[str, Path],
    own: pa.Schema,
    added: _Added | None,
) -> Iterator[tuple[pa.Table, _Known]]:
    """Yield the rows of one dataset after another, some at a time, with what is known of their groups and leaks.

    Small datasets come many at a time: the rows of each by themselves would cost as much as thousands.
    """
    others = [name for name in own.names if name != "patch"]
    small = _Small()
    for dataset in sorted({*tables, *groups}):
        grouped = [read_groups(groups[dataset])] if dataset in groups else []
        leaked = [read_leaks(leaks[dataset])] if dataset in leaks else []
        known = None
        if dataset in tables:
            pieces = (some for table in tables[dataset] for some in read_row_groups(table, ["patch"], also=others))
        else:
            known = _look_up(grouped, leaked)
            assert known.groups is not None
            named = known.groups.table
            pieces = (_rows_of_names(rows) for rows in [named.slice(at, ROWS_AT_ONCE) for at in _starts(len(named))])
        for some in pieces:
            if known is None and max(map(len, (some, *grouped, *leaked))) <= FEW_ROWS:
                small.add(some, grouped, leaked)
                continue
            yield from small.take()
            known = known or _look_up(grouped, leaked)
            yield some, known
        if small.count >= ROWS_AT_ONCE:
            yield from small.take()
    yield from small.take()
    if added is not None:
        yield from ((rest, _Known()) for rest in added.rest())


class _Small:
    """Rows of small datasets, with what is known of them, until there are enough."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._rows: list[pa.Table] = []
        self._groups: list[pa.Table] = []
        self._leaks: list[pa.Table] = []
        self.count = 0

    def add(self, rows: pa.Table, groups: Sequence[pa.Table], leaks: Sequence[pa.Table]) -> None:
        """Take the rows of a dataset, or some of them, and all its groups and leaks."""
        self._rows.append(rows)
        self._groups += groups
        self._leaks += leaks
        self.count += max(1, len(rows))

    def take(self) -> Iterator[tuple[pa.Table, _Known]]:
        """Yield what has come together, at once, and begin anew."""
        rows, groups, leaks = self._rows, self._groups, self._leaks
        self._clear()
        if rows:
            # Not all tables have the same columns.
            yield pa.concat_tables(rows, promote_options="default"), _look_up(groups, leaks)


def _starts(count: int) -> range:
    return range(0, count, ROWS_AT_ONCE)


def _rows_of_names(known: pa.Table) -> pa.Table:
    """Return rows of patches that have none in a table of theirs: what their names say, and what else is known."""
    names = in_one(known["patch"])
    said = parse_names(names)
    more = {name: in_one(known[name]) for name in COLUMNS if name in known.column_names and name != "patch"}
    both = {name: pc.coalesce(said[name], more[name]) for name in said.keys() & more.keys()}
    return pa.table({"patch": names, **said, **more, **both})


class _Added:
    """An addition while a table is written: what it says of some patches, and in the end those nobody asked for."""

    def __init__(self, addition: Addition) -> None:
        self.addition = addition
        places = as_column(np.arange(len(addition.names)), pa.int64())
        self._lookup = Lookup(pa.table({"patch": addition.names, "place": places}))
        self._places = as_numbers(in_one(self._lookup.table["place"]))
        self._unseen = np.ones(len(places), np.bool_)

    def describe(self, names: pa.Array, kinds: Mapping[str, pa.DataType]) -> dict[str, pa.Array]:
        """Return what is said of some patches, by column; null where nothing is."""
        found = self._lookup.find(names)
        places = self._places[as_numbers(found.drop_null())]
        self._unseen[places] = False
        said = self.addition.describe(places)
        rank = np.cumsum(is_known := as_numbers(found.is_valid())) - 1
        where = as_column(rank, pa.int64(), ~is_known)
        return {name: said[name].take(where) if name in said else pa.nulls(len(names), kinds[name]) for name in kinds}

    def rest(self) -> Iterator[pa.Table]:
        """Yield rows of the patches that were not asked for."""
        left = np.flatnonzero(self._unseen)
        for at in _starts(len(left)):
            places = left[at : at + ROWS_AT_ONCE]
            names = self.addition.names.take(as_column(places, pa.int64()))
            yield _rows_of_names(pa.table({"patch": names, **self.addition.describe(places)}))


@dataclass(frozen=True)
class Judged:
    """What filters and a selection have noted of patches, as far as they have run."""

    decided: Lookup | None
    selected: Lookup | None


def _join(rows: pa.Table, known: _Known, judged: Judged, added: _Added | None, schema: pa.Schema) -> pa.Table:
    """Return rows with what the stages made of each patch."""
    names = in_one(rows["patch"])
    columns = {name: in_one(rows[name]) for name in rows.column_names if name in schema.names}
    columns |= _take(known.groups, names, GROUP_COLUMNS) | _take(judged.decided, names, DECIDED_COLUMNS)
    columns |= _take(known.leaks, names, LEAK_COLUMNS)
    outcome, why = _judge(columns, judged.decided, names, UNSEEN if added is None else added.addition.unseen)
    if judged.selected is not None:
        columns |= _take(judged.selected, names, SELECTED_COLUMNS)
        outcome, why = _judge_selection(columns["selected"], judged.selected, names, outcome, why)
    if added is not None:
        said = added.describe(names, {**added.addition.columns, **OUTCOME_COLUMNS})
        columns |= {name: said[name] for name in added.addition.columns}
        # Both or neither: a reason belongs to its outcome.
        counts = pc.is_valid(said["outcome"])
        outcome, why = pc.if_else(counts, said["outcome"], outcome), pc.if_else(counts, said["why"], why)
        if added.addition.name_source is not None and "source" in columns:
            sources = columns["source"].dictionary_encode()
            named = as_column(list(map(added.addition.name_source, sources.dictionary.to_pylist())), pa.string())
            columns["source"] = named.take(sources.indices)
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


def _judge(
    columns: Mapping[str, pa.Array], decided: Lookup | None, names: pa.Array, unseen: str
) -> tuple[pa.Array, pa.Array]:
    """Return what the last stage that has seen each patch made of it, and why."""
    exemplar, distance, score, label = (columns[name] for name in ("exemplar", "distance", "score", "label"))
    is_duplicate = pc.not_equal(exemplar, names)
    outcome = pc.if_else(is_duplicate, as_scalar(DUPLICATE), as_scalar(EXEMPLAR))
    is_strange = pc.not_equal(_dataset_of(exemplar), _dataset_of(names))
    where = " bits from its exemplar"
    where = pc.if_else(is_strange, as_scalar(f"{where}, of another dataset"), as_scalar(where))
    why = pc.if_else(is_duplicate, _text(distance, where), as_scalar("not judged yet"))
    outcome = pc.coalesce(outcome, as_scalar(CUT))
    why = pc.coalesce(why, as_scalar(unseen))
    if decided is None:
        return outcome, why
    kept = columns["kept"]
    metadata = decided.table.schema.metadata or {}
    threshold = metadata.get(THRESHOLD_KEY, b"the threshold").decode()
    reason = _take(decided, names, {"why": pa.string()})["why"]
    side = pc.if_else(kept, as_scalar(f" above {threshold}"), as_scalar(f" not above {threshold}"))
    by_score = _text(pc.round(score.cast(pa.float64()), 6), "", before="score ")
    by_label = pc.if_else(pc.is_valid(label), as_scalar("labelled so"), as_scalar(None, pa.string()))
    reason = pc.coalesce(reason, by_label, pc.binary_join_element_wise(by_score, side, as_scalar("")))
    # Of what could not be read there is no score, and where nobody labelled it no reason.
    left_out = pc.if_else(pc.is_valid(reason), as_scalar(UNINFORMATIVE), as_scalar(UNREADABLE))
    seen = pc.if_else(kept, as_scalar(INFORMATIVE), left_out)
    is_seen = pc.is_valid(kept)
    reason = pc.coalesce(reason, as_scalar("it could not be read"))
    return pc.if_else(is_seen, seen, outcome), pc.if_else(is_seen, reason, why)


def _judge_selection(
    is_selected: pa.Array, selected: Lookup, names: pa.Array, outcome: pa.Array, why: pa.Array
) -> tuple[pa.Array, pa.Array]:
    """Return what came of each patch, and why, after a selection among those that the stages before it have left."""
    counts = pc.and_(pc.is_valid(is_selected), pc.is_in(outcome, as_column(SELECTED_AMONG, pa.string())))
    reason = _take(selected, names, {REASON: pa.string()})[REASON]
    seen = pc.if_else(is_selected, as_scalar(SELECTED), as_scalar(PASSED_OVER))
    return pc.if_else(counts, seen, outcome), pc.if_else(counts, reason, why)


def _dataset_of(names: pa.Array) -> pa.Array:
    return pc.list_element(pc.split_pattern(names, MARK, max_splits=1), as_scalar(0))


def _text(numbers: pa.Array, after: str | pa.Array, before: str = "") -> pa.Array:
    end = as_scalar(after) if isinstance(after, str) else after
    return pc.binary_join_element_wise(as_scalar(before), numbers.cast(pa.string()), end, as_scalar(""))
