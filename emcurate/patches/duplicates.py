"""Groups of near-duplicates: which patch stands for which others, found by sequential greedy cover."""

from __future__ import annotations

import csv
import functools
import io
import os
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from emcurate.contents import npy_header
from emcurate.errors import InputError
from emcurate.files import open_regular
from emcurate.patches.columns import as_numbers
from emcurate.patches.hashing import WordArray, least_distance
from emcurate.patches.names import as_array, as_names, bytes_of, longest, take_names
from emcurate.patches.table_hashes import Shards

# Hashes compared with all exemplars at once; inside a block they are settled one after another.
BLOCK = 4096

GROUPS_SUFFIX = "_groups.csv"
HEADING = b"patch,exemplar,distance\n"

# Rows of a table that are text at once, so that ten million need no more memory than their names.
ROWS_AT_ONCE = 50_000

# Bytes of a table that are rows at once when it is read.
CSV_BYTES_AT_ONCE = 1 << 22

# Hashes up to which numpy may cover them, and what it may take for all of a run together, in comparisons: as long as
# loading the compiler, with which everything else is covered, and what it compiled before.
FEW, COMPARISONS = 30_000, 700_000_000

# Those already covered are compared in vain until they are this part, since taking them out takes as long as several
# comparisons.
COVERED_PART = 1 / 4

# What numpy takes for an exemplar beside the comparisons with those that are left, in the same: 3.5 us and 0.5 ns.
STEP_COST = 7_000

# A group as people look at it: patches and their distances in bits, the exemplar first.
Group = list[tuple[str, int]]


@dataclass(frozen=True)
class Groups:
    """The groups of near-duplicates among n patches.

    Attributes
    ----------
    patches : LargeStringArray of n
        The patches' names.
    exemplar : (n,) int64
        The position of each patch's exemplar; an exemplar's own is its own.
    distance : (n,) int64
        The Hamming distance, in bits, of each patch's hash to its exemplar's.
    shards : Shards, optional
        Where any patch lies in one; of those in `span`.
    span : slice, optional
        The patches that are told of, where these are a part of all: those of one dataset, whose exemplars may be
        others'.
    """

    patches: pa.LargeStringArray
    exemplar: npt.NDArray[np.int64]
    distance: npt.NDArray[np.int64]
    shards: Shards | None = None
    span: slice = field(default_factory=lambda: slice(None))

    def part(self, span: slice, shards: Shards | None) -> Groups:
        """Return what is told of some of the patches."""
        return replace(self, span=span, shards=shards)

    @functools.cached_property
    def places(self) -> npt.NDArray[np.int64]:
        """The positions of the patches that are told of."""
        return np.arange(*self.span.indices(len(self.exemplar)))

    def count_masked(self, blank: npt.NDArray[np.float64], distance: int) -> int:
        """Return how many duplicates might be none: in what is not blank they differ by more than their share of bits.

        Parameters
        ----------
        blank : (n,) float64
            The share of each patch that is blank.
        distance : int
            The most bits that duplicates may differ by.
        """
        allowed = allow_bits(distance, np.maximum(blank, blank[self.exemplar]))
        return int((self.distance > allowed)[self.span].sum())

    @functools.cached_property
    def exemplars(self) -> npt.NDArray[np.int64]:
        """The positions of the exemplars."""
        exemplars: npt.NDArray[np.int64] = self.places[self.exemplar[self.span] == self.places]
        return exemplars

    @functools.cached_property
    def rows(self) -> npt.NDArray[np.int64]:
        """The positions of the patches group by group, each exemplar followed by its duplicates, the closest first."""
        exemplar = self.exemplar[self.span]
        # The last key counts most; a stable sort leaves equals in the order of `patches`.
        return self.places[np.lexsort((self.distance[self.span], exemplar != self.places, exemplar))]

    def exemplars_npy(self, before: str, after: str) -> Iterator[bytes | memoryview]:
        """Yield an ``.npy`` file of the exemplars' names, with their shards, piece by piece, each between two texts."""
        parts = [self.exemplars[start : start + ROWS_AT_ONCE] for start in range(0, len(self.exemplars), ROWS_AT_ONCE)]
        width = max((longest(self._files(part)) for part in parts), default=0) + len(before) + len(after)
        yield npy_header(f"<U{width}", len(self.exemplars))
        for part in parts:
            yield as_array(self._files(part), width, before, after).data.cast("B")

    def _files(self, places: npt.NDArray[np.int64]) -> pa.LargeStringArray:
        """Return the patches at some places by their files' names, or those of shards and members in them."""
        names = take_names(self.patches, places)
        return names if self.shards is None else self.shards.put_before(names, places - (self.span.start or 0))

    def table(self) -> Iterator[bytes | memoryview]:
        """Yield the groups as csv (patch, exemplar, distance), some rows at a time, in the order of `rows`."""
        yield HEADING
        for start in range(0, len(self.rows), ROWS_AT_ONCE):
            yield self._format_rows(self.rows[start : start + ROWS_AT_ONCE])

    def _format_rows(self, places: npt.NDArray[np.int64]) -> bytes:
        """Return some rows of the table, byte for byte what `csv.writer` makes of them, carriage returns in quotes."""
        names, exemplars = take_names(self.patches, places), take_names(self.patches, self.exemplar[places])
        distances = self.distance[places]
        ends = take_names(as_names([f"{bits}\n" for bits in range(distances.max() + 1)]), distances)
        text = bytes(bytes_of(pc.binary_join_element_wise(names, exemplars, ends, as_names([","])[0])))
        if text.count(b",") > 2 * len(places) or text.count(b"\n") > len(places) or b'"' in text or b"\r" in text:
            quoted = io.StringIO()  # a name holds what has to be quoted
            rows = zip(names.to_pylist(), exemplars.to_pylist(), distances.tolist(), strict=True)
            # A carriage return, which ends a line for most readers, Python before 3.13 leaves without quotes.
            writer = csv.writer(quoted, lineterminator="\n")
            if b"\r" in text:
                writer = csv.writer(quoted, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
            writer.writerows(rows)
            text = quoted.getvalue().encode()
        return text

    def largest(self, groups: int, members: int, among: slice = slice(None)) -> list[tuple[int, Group]]:
        """Return the largest groups with duplicates: the size of each, and its exemplar and farthest duplicates.

        There are at most `members` duplicates, those that differ most from the exemplar first. With `among`, only
        groups are told of whose exemplars are among these patches.
        """
        exemplars = self.exemplar[self.rows]
        first, stop, _ = among.indices(len(self.exemplar))
        start, end = np.searchsorted(exemplars, [first, stop])
        starts = start + np.flatnonzero(np.diff(exemplars[start:end], prepend=-1))
        found = []
        for run in find_longest_runs(starts, int(end), groups):
            shown = self.rows[run][pick_farthest(self.distance[self.rows[run]], members)]
            names = take_names(self.patches, shown).to_pylist()
            found.append((run.stop - run.start, list(zip(names, self.distance[shown].tolist(), strict=True))))
        return found


def find_longest_runs(starts: npt.NDArray[np.int64], end: int, count: int) -> list[slice]:
    """Return the longest runs of several rows, the longest first, of those that begin at `starts`."""
    sizes = np.diff(starts, append=end)
    chosen = np.argsort(-sizes, kind="stable")[:count].tolist()
    return [slice(int(starts[i]), int(starts[i] + sizes[i])) for i in chosen if sizes[i] > 1]


def pick_farthest(distance: npt.NDArray[np.int64], members: int) -> npt.NDArray[np.int64]:
    """Return which rows of a group to show: its exemplar, the first, and the farthest of the others."""
    return np.concatenate([[0], 1 + np.argsort(-distance[1:], kind="stable")[:members]])


class Largest:
    """The largest groups of several datasets, whichever order these come in."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._found: list[tuple[int, str, int, Group]] = []

    def add(self, dataset: str, groups: Sequence[tuple[int, Group]]) -> None:
        """Take in the largest groups of a dataset, each with its size."""
        self._found += [(-size, dataset, rank, group) for rank, (size, group) in enumerate(groups)]
        self._found = sorted(self._found)[: self._count]

    @property
    def groups(self) -> list[Group]:
        """Those found so far, the largest first; among equals those of the first dataset."""
        return [group for *_, group in self._found]


def read_largest(path: Path, groups: int, members: int) -> list[tuple[int, Group]]:
    """Return what `Groups.largest` does of the groups that `Groups.table` was written of, without holding its names.

    Raises
    ------
    InputError
        If the file is no such table.
    """
    try:
        starts, distances, end, last = [], [], 0, None
        for batch in _read_columns(path, ["exemplar", "distance"]):
            names = batch["exemplar"]
            differs = np.ones(len(names), np.bool_)
            differs[0] = names[0].as_py() != last
            differs[1:] = as_numbers(pc.not_equal(names[1:], names[:-1]))
            starts.append(end + np.flatnonzero(differs))
            distances.append(as_numbers(batch["distance"]))
            end, last = end + len(names), names[-1].as_py()
        if not end:
            return []
        distance = np.concatenate(distances)
        runs = find_longest_runs(np.concatenate(starts), end, groups)
        shown = [run.start + pick_farthest(distance[run], members) for run in runs]
        wanted = np.unique(np.concatenate(shown)) if shown else np.zeros(0, np.int64)
        names_of: dict[int, str] = {}
        start = 0
        for batch in _read_columns(path, ["patch"]) if shown else ():
            here = wanted[(wanted >= start) & (wanted < start + len(batch))]
            names_of |= zip(here.tolist(), take_names(batch["patch"], here - start).to_pylist(), strict=True)
            start += len(batch)
        return [
            (run.stop - run.start, [(names_of[row], int(distance[row])) for row in rows.tolist()])
            for run, rows in zip(runs, shown, strict=True)
        ]
    except (pa.ArrowException, ValueError, KeyError) as error:
        raise _damaged(path, error) from None


def read_groups(path: Path) -> pa.Table:
    """Return the table that `Groups.table` was written of: patch, exemplar and distance in bits, in its order.

    Raises
    ------
    InputError
        If the file is no such table.
    """
    kinds = pa.schema([("patch", pa.string()), ("exemplar", pa.string()), ("distance", pa.int32())])
    try:
        batches = [batch.select(kinds.names) for batch in _read_columns(path, kinds.names)]
        return pa.Table.from_batches(batches).cast(kinds) if batches else kinds.empty_table()
    except (pa.ArrowException, ValueError, KeyError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> InputError:
    found = f"another or damaged one ({type(error).__name__}: {str(error).splitlines()[0]})"
    return InputError(path, "a table of patch, exemplar and distance", found, "delete it and run again")


def _read_columns(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Yield some rows at a time of a table of groups; an empty one has none."""
    import pyarrow.csv  # here, since most runs read none

    kinds = {"patch": pa.large_string(), "exemplar": pa.large_string(), "distance": pa.int64()}
    with open_regular(path) as file:
        is_large = os.fstat(file.fileno()).st_size > CSV_BYTES_AT_ONCE
        rows = pyarrow.csv.open_csv(
            file,
            # Of one block there is nothing for threads to do, and each table of many would wait for its own.
            pyarrow.csv.ReadOptions(use_threads=is_large, block_size=CSV_BYTES_AT_ONCE),
            pyarrow.csv.ParseOptions(newlines_in_values=True),
            pyarrow.csv.ConvertOptions(include_columns=columns, column_types=kinds),
        )
        yield from (batch for batch in rows if len(batch))


def order_patches(
    name: str, count: int, order: str, seed: int, sharpness: npt.NDArray[np.float64] | None
) -> npt.NDArray[np.int64]:
    """Return the order in which the patches of a dataset are taken, as positions in alphabetical order.

    The random order depends on the seed and the dataset's name only, not on which other datasets there are.
    """
    if order == "random":
        return np.random.default_rng([seed, zlib.crc32(name.encode())]).permutation(count)
    if order == "sharpest" and sharpness is not None:
        return np.argsort(-sharpness, kind="stable")
    return np.arange(count)


class Cover:
    """Covers one set of hashes after another like `cover_greedily`; few of them without its compiler, which takes long.

    Parameters
    ----------
    distance, threads : int
        As for `cover_greedily`.
    """

    def __init__(self, distance: int, threads: int = 1) -> None:
        self.distance, self.threads = distance, threads
        self._comparisons = COMPARISONS

    def find(self, hashes: WordArray, distance: int | None = None) -> npt.NDArray[np.int64]:
        """Return, for each hash in turn, the position of the exemplar that stands for it.

        `distance` takes the place of the usual one.
        """
        distance = self.distance if distance is None else distance
        if len(hashes) <= FEW and self._comparisons > 0:
            owner, taken = cover_by_numpy(hashes, distance, self._comparisons)
            self._comparisons -= taken
            if owner is not None:
                return owner
        return cover_greedily(hashes, distance, self.threads)

    def find_in_bands(
        self, hashes: WordArray, order: npt.NDArray[np.int64], blank: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.int64]:
        """Return, for each hash, the position of its exemplar, those being compared that are about as blank.

        In a blank part no two patches differ. So a patch of which a share is blank may differ by that share of bits
        less, and patches of which another number may differ are not compared.

        Parameters
        ----------
        hashes : (n, words) or (n, orientations, words) uint64
        order : (n,) int64
            Positions in the order in which they are taken.
        blank : (n,) float64
            The share of each patch that is blank.
        """
        bits = allow_bits(self.distance, blank)
        exemplar = np.empty(len(order), np.int64)
        for allowed in np.unique(bits).tolist():
            some = order[bits[order] == allowed]
            exemplar[some] = some[self.find(hashes[some], allowed)]
        return exemplar


def allow_bits(distance: int, blank: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return by how many bits duplicates may differ of which some share is blank, if it is `distance` for none.

    >>> allow_bits(12, np.array([0, 0.01, 0.25, 1])).tolist()
    [12, 12, 9, 0]
    """
    return np.rint(distance * (1 - blank)).astype(np.int64)


def find_groups(
    patches: pa.LargeStringArray,
    hashes: WordArray,
    order: npt.NDArray[np.int64],
    cover: Cover,
    shards: Shards | None = None,
    blank: npt.NDArray[np.float64] | None = None,
) -> Groups:
    """Group patches with near-duplicate hashes.

    Parameters
    ----------
    patches : LargeStringArray of n
    hashes : (n, words) or (n, orientations, words) uint64
        Packed, in the order of `patches`; see `cover_greedily`.
    order : (n,) int64
        The positions of the patches in the order in which they are taken.
    cover : Cover
    shards : Shards, optional
        Where any patch lies in one.
    blank : (n,) float64, optional
        The share of each patch that is blank, where that is to count; see `Cover.find_in_bands`.
    """
    if blank is None:
        exemplar = np.empty(len(order), np.int64)
        exemplar[order] = order[cover.find(hashes[order])]
    else:
        exemplar = cover.find_in_bands(hashes, order, blank)
    upright = hashes if hashes.ndim == 2 else hashes[:, 0]
    return Groups(patches, exemplar, least_distance(hashes, upright[exemplar]), shards)


def cover_by_numpy(hashes: WordArray, distance: int, comparisons: int) -> tuple[npt.NDArray[np.int64] | None, int]:
    """Cover hashes like `cover_greedily`, as long as it takes no more than a number of comparisons of words.

    Returns
    -------
    owner : (n,) int64, or None
        As `cover_greedily` returns it; None if it was given up.
    comparisons : int
        What was taken of them.
    """
    owner, taken = np.full(len(hashes), -1), 0
    # Orientation by orientation, in each a column a word.
    seen = [hashes] if hashes.ndim == 2 else [hashes[:, i] for i in range(hashes.shape[1])]
    turned = [list(np.ascontiguousarray(some.T)) for some in seen]
    left, at, covered = np.arange(len(hashes)), 0, 0
    while at < len(left):
        if owner[left[at]] < 0:
            taken += STEP_COST + (len(left) - at) * len(turned) * len(turned[0])
            if taken > comparisons:
                return None, taken
            is_close = np.zeros(len(left) - at, np.bool_)
            for columns in turned:
                pairs = zip(columns, turned[0], strict=True)
                first, *others = [np.bitwise_count(column[at:] ^ own[at]) for column, own in pairs]
                is_close |= (functools.reduce(np.add, others, first.astype(np.uint32)) if others else first) <= distance
            close = left[at:][is_close]
            close = close[owner[close] < 0]
            owner[close] = left[at]
            covered += len(close)
        at += 1
        if covered > len(left) * COVERED_PART:
            rest = at + np.flatnonzero(owner[left[at:]] < 0)
            turned = [[column[rest] for column in columns] for columns in turned]
            left, at, covered = left[rest], 0, 0
    return owner, taken


def cover_greedily(hashes: WordArray, distance: int, threads: int = 1) -> npt.NDArray[np.int64]:
    """Return, for each hash in turn, the position of the exemplar that stands for it.

    A hash within `distance` of an exemplar already kept belongs to the first such exemplar; otherwise it becomes an
    exemplar and stands for itself. This equals taking the first hash, removing all others within `distance` of it,
    and going on with the first that is left.

    Parameters
    ----------
    hashes : (n, words) or (n, orientations, words) uint64
        Packed hashes in the order in which they are to be taken. Of several orientations the first is that of the
        patch as it is, which an exemplar is known by; a hash is close to it if that of any orientation is.
    distance : int
        Largest Hamming distance, in bits, of a duplicate.
    threads : int
        Threads to search with; the result does not depend on it.

    Returns
    -------
    (n,) int64
        Positions into `hashes`; exemplars are where ``result == arange(n)``.
    """
    from emcurate.patches.exemplars import Exemplars  # here, since it loads a compiler

    owner = np.empty(len(hashes), np.int64)
    with ThreadPoolExecutor(threads) as pool:
        exemplars = Exemplars(np.ascontiguousarray(hashes), distance, pool, threads)
        for start in range(0, len(hashes), BLOCK):
            exemplars.cover_block(start, owner[start : start + BLOCK])
    return exemplars.positions[owner]
