"""The patches of a path list with all that their tables, their names and their files tell, as columns."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from emcurate.errors import InputError, describe_os_error
from emcurate.files import list_files
from emcurate.patches.columns import as_column, as_numbers, in_one
from emcurate.patches.joined import Lookup
from emcurate.patches.names import parse_names, stems_of
from emcurate.patches.pathlists import PathList
from emcurate.patches.reading import find_patch_shape, guess_roots, read_patch, spell_reroot, stat_patch
from emcurate.patches.shards import SHARD_SUFFIX, split_member
from emcurate.patches.tables import COLUMNS, TABLE_SUFFIX, read_row_groups
from emcurate.running.claims import Notes
from emcurate.running.jobs import Workers
from emcurate.running.made import MadeWhenAsked
from emcurate.running.report import Report

# Paths that are Python strings at once.
PATHS_AT_ONCE = 100_000

# Patches looked at in a job: a tenth of a second.
LOOKED_AT_ONCE = 2000

# What a table tells of a patch that is handed on with it: neither where in a shard it is, nor on whose disk it was.
KNOWN_COLUMNS = (
    *("dataset", "kind", "plane", "index", "y", "x", "height", "width"),
    *("pixel_size_y_nm", "pixel_size_x_nm", "step_nm"),
)


@dataclass(frozen=True)
class Listing:
    """The patches of a path list, each once.

    Attributes
    ----------
    paths : PathList
    positions : (n,) int64
        Where in the list each patch stands first.
    directories : list of Path
        Those that patches, or shards with patches, lie in.
    table : pyarrow.Table
        A row a patch, with `patch` and the columns that were asked for; null where nothing tells.
    """

    paths: PathList
    positions: npt.NDArray[np.int64]
    directories: list[Path]
    table: pa.Table

    def __len__(self) -> int:
        return len(self.positions)

    def path(self, row: int) -> str:
        """Return the path of the patch in a row of the table."""
        return self.paths[int(self.positions[row])]


class SomeOf(MadeWhenAsked[str]):
    """Some of many paths, by their places, without a Python string for each."""

    def __init__(self, paths: Sequence[str], places: npt.NDArray[np.int64]) -> None:
        self._paths, self._places = paths, places

    def __len__(self) -> int:
        return len(self._places)

    def make(self, index: int) -> str:
        """Return a path."""
        return self._paths[int(self._places[index])]


def list_patches(paths: PathList, columns: Sequence[str] = KNOWN_COLUMNS) -> Listing:
    """Return the patches of a path list with what is known of them, `dataset` and other columns.

    Raises
    ------
    InputError
        If it is empty, two different patches have one name, or a table beside them is damaged.
    """
    if not len(paths):
        raise InputError(paths.directory, "a path list with patches", "an empty one", "run the stages before first")
    names, said, numbers = [], [], []
    directories: dict[str, int] = {}
    for some in _batched(paths):
        stems = stems_of(np.array(some, np.str_))
        owners = list(map(_owner_of, some))
        numbers.append(np.array([directories.setdefault(owner, len(directories)) for owner, _ in owners], np.int32))
        parsed = parse_names(stems)
        # What does not follow the grammar belongs to its directory, or shard.
        folder = as_column([within for _, within in owners], pa.string())
        said.append(pa.table(parsed | {"dataset": pc.coalesce(parsed["dataset"], folder)}))
        names.append(stems)
    patches = in_one(pa.chunked_array(names))
    positions = _first_of_each(patches, paths)
    by_name, owner = pa.concat_tables(said).combine_chunks(), np.concatenate(numbers)
    del names, said, numbers
    if len(positions) < len(patches):
        first = as_column(positions, pa.int64())
        patches, by_name, owner = patches.take(first), by_name.take(first), owner[positions]
    known = _read_known(patches, list(map(Path, directories)), owner, columns)
    told = {
        name: pc.coalesce(known[name], in_one(by_name[name])) if name in by_name.column_names else known[name]
        for name in known
    }
    listing = Listing(paths, positions, sorted(map(Path, directories)), pa.table({"patch": patches, **told}))
    # Arrow keeps what it has freed, which of many patches is more than is used.
    pa.default_memory_pool().release_unused()
    return listing


def _batched(paths: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(paths)
    while some := list(itertools.islice(rest, PATHS_AT_ONCE)):
        yield some


def _owner_of(path: str) -> tuple[str, str]:
    """Return the directory of a patch, or of its shard, and the name of what it lies directly in, spelt in UTF-8."""
    member = split_member(path)
    directory, _, _ = (path if member is None else member[0]).rpartition(os.sep)
    within = (directory if member is None else member[0].removesuffix(SHARD_SUFFIX)).rpartition(os.sep)[2]
    if not within.isascii():
        within = within.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return directory or os.sep, within


def _first_of_each(names: pa.StringArray, paths: PathList) -> npt.NDArray[np.int64]:
    """Return where each name stands first; a patch may be listed twice, but no name may stand for two."""
    _, first, inverse = np.unique(as_numbers(names.dictionary_encode().indices), return_index=True, return_inverse=True)
    for again in np.flatnonzero(first[inverse] != np.arange(len(names))).tolist():
        one, other = paths[int(first[inverse[again]])], paths[again]
        if one != other:
            advice = "give each a name of its own, or put them into two lists"
            raise InputError(paths.directory, "a name for each patch", f"{one} and {other} of one name", advice)
    return np.sort(first)


def _read_known(
    names: pa.StringArray, directories: Sequence[Path], owners: npt.NDArray[np.int32], columns: Sequence[str]
) -> dict[str, pa.Array]:
    """Return what the tables in each patch's own directory say of it, by column; null where there is none."""
    rows = as_column(np.arange(len(names)), pa.int64())
    lookup = Lookup(pa.table({"patch": names, "row": rows}))
    row_of, pieces, found_rows = as_numbers(in_one(lookup.table["row"])), [], []
    for number, directory in enumerate(directories):
        tables = list_files(directory, [TABLE_SUFFIX]) if directory.is_dir() else []
        notes = Notes(directory, TABLE_SUFFIX) if tables else None
        for path in tables:
            for some in read_row_groups(path, ["patch"], lookup.has_between, columns, "patch"):
                places = lookup.find(in_one(some["patch"]))
                at = np.flatnonzero(as_numbers(places.is_valid()))
                here = row_of[as_numbers(places.drop_null())]
                own = owners[here] == number
                if notes is not None and own.any():
                    notes.refuse_altered(path)
                pieces.append(some.take(as_column(at[own], pa.int64())))
                found_rows.append(here[own])
    where = np.full(len(names), -1, np.int64)
    where[np.concatenate([np.zeros(0, np.int64), *found_rows])] = np.arange(sum(map(len, found_rows)))
    wanted = as_column(where, pa.int64(), where < 0)
    said = pa.concat_tables(pieces, promote_options="default") if pieces else pa.table({})
    return {
        name: in_one(said[name]).take(wanted) if name in said.column_names else pa.nulls(len(names), COLUMNS[name])
        for name in columns
    }


@dataclass(frozen=True)
class LookJob:
    """Some patches to look at; `rows` are theirs in a listing."""

    rows: npt.NDArray[np.int64]
    paths: tuple[str, ...]

    @property
    def path(self) -> str:
        """The first of them, which stands for all in messages."""
        return self.paths[0]


class LookJobs(MadeWhenAsked[LookJob]):
    """The patches of a listing, some at a time, each job made when it is asked for."""

    def __init__(self, listing: Listing) -> None:
        self._listing = listing

    def __len__(self) -> int:
        return -(-len(self._listing) // LOOKED_AT_ONCE)

    def make(self, index: int) -> LookJob:
        """Return a job."""
        rows = np.arange(index * LOOKED_AT_ONCE, min(len(self._listing), (index + 1) * LOOKED_AT_ONCE))
        return LookJob(rows, tuple(map(self._listing.path, rows.tolist())))


@dataclass
class Seen:
    """What was seen of the patches of a listing, or of a job's.

    Attributes
    ----------
    heights, widths : (n,) int32
        In pixels; 0 where a patch cannot be read.
    states : (n,) uint64
        What changes when the patch's file, or its shard, does.
    errors : list of str
        Why patches cannot be read.
    missing : int
        How many of them are not there.
    """

    heights: npt.NDArray[np.int32]
    widths: npt.NDArray[np.int32]
    states: npt.NDArray[np.uint64]
    errors: list[str] = field(default_factory=list)
    missing: int = 0

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        """Which can be read."""
        return self.heights > 0


def look_at(listing: Listing, report: Report, workers: Workers) -> Seen:
    """Look at every patch of a listing; what cannot be read is reported.

    Raises
    ------
    InputError
        If more than half of the patches are not there: they were moved.
    """
    count = len(listing)
    seen = Seen(np.zeros(count, np.int32), np.zeros(count, np.int32), np.zeros(count, np.uint64))
    for job, some in workers.run(look_at_some, LookJobs(listing), report, unit="look"):
        seen.heights[job.rows], seen.widths[job.rows], seen.states[job.rows] = some.heights, some.widths, some.states
        seen.errors += some.errors
        seen.missing += some.missing
    if seen.missing > count / 2:
        first = seen.errors[0].partition(": expected")[0]
        found = f"{seen.missing:,} of {count:,} not there, such as {first}"
        roots = guess_roots(first, listing.paths.directory) or ("OLD", "NEW")
        advice = f"if they were moved, say so with {spell_reroot(*roots)}"
        raise InputError(listing.paths.directory, "patches where the list says", found, advice)
    report.fail_all(seen.errors)
    return seen


def look_at_some(job: LookJob) -> Seen:
    """Return what is seen of some patches: sizes from their files' heads, where these can be trusted."""
    count = len(job.paths)
    seen = Seen(np.zeros(count, np.int32), np.zeros(count, np.int32), np.zeros(count, np.uint64))
    for row, path in enumerate(job.paths):
        try:
            state = stat_patch(path)
            shape = find_patch_shape(path) or read_patch(path).shape
            seen.heights[row], seen.widths[row] = shape
            seen.states[row] = xxhash.xxh3_64_intdigest(f"{state.st_size} {state.st_mtime_ns}".encode())
        except FileNotFoundError:
            seen.missing += 1
            seen.errors.append(str(InputError(path, "a patch", "no such file", "cut it again, or mend the list")))
        except InputError as error:
            seen.errors.append(str(error))
        except OSError as error:
            seen.errors.append(str(describe_os_error(error, path)))
    return seen
