"""The exemplars found so far, searched one after another while they are few and by tables of their bits beyond."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor

import numpy as np
import numpy.typing as npt

from emcurate.patches.hashing import WordArray
from emcurate.patches.search import make_columns, search_range, settle_block
from emcurate.patches.substrings import Tables, make_tables

# Exemplars from which on it is tried whether tables are faster: below, comparing with all of them takes a microsecond
# or two, and tables no less.
TABLES_FROM = 50_000

# Tables are made anew when they lack this part of the exemplars: comparing with a larger part one after another would
# take longer than the tables, and making them for every smaller part as well.
UNLISTED_PART = 1 / 16


# Comparisons from which on threads are worth starting: a fraction of a millisecond.
THREADS_FROM = 4_000_000


# Parts of the queries that each thread gets, so that one that is held up does not keep the others waiting for long.
PARTS_A_THREAD = 4

# Queries of a part at least: starting it takes as long as some ten.
PART_QUERIES = 256


class Exemplars:
    """Exemplars in the order in which they were found.

    Parameters
    ----------
    hashes : (n, words) or (n, orientations, words) uint64
        All hashes in the order in which they are to be taken. Of several orientations the first is an exemplar's own,
        and any may be close to it.
    distance : int
        As for `emcurate.patches.duplicates.cover_greedily`.
    pool : Executor
        Threads to search on.
    threads : int
        How many they are.

    Attributes
    ----------
    positions : (n,) int64
        The position in `hashes` of each exemplar, in the order in which they were found; undefined beyond.
    """

    def __init__(self, hashes: WordArray, distance: int, pool: Executor, threads: int) -> None:
        self._each = 1 if hashes.ndim == 2 else hashes.shape[1]
        self._hashes = hashes.reshape(-1, hashes.shape[-1])
        self._distance, self._pool, self._threads = np.uint64(distance), pool, threads
        self._columns = make_columns(hashes.shape[-1], len(hashes))
        self._count = 0
        self._tables: Tables | None = None
        self._next_tables = TABLES_FROM
        self.positions: npt.NDArray[np.int64] = np.empty(len(hashes), np.int64)

    def cover_block(self, start: int, owner: npt.NDArray[np.int64]) -> None:
        """Enter into `owner` which exemplar stands for each hash from `start` on; those far from all become exemplars.

        Parameters
        ----------
        start : int
        owner : (length,) int64
            Numbers of exemplars, in the order in which they were found.
        """
        owner[:] = -1
        if self._count >= self._next_tables:
            self._make_tables()
        queries = self._hashes[self._each * start : self._each * (start + len(owner))]
        found = owner if self._each == 1 else np.full(len(queries), -1)
        listed = self._tables.count if self._tables else 0

        def search(part: slice) -> None:
            if self._tables:
                self._tables.search(queries[part], self._distance, found[part])
            search_range(queries[part], self._columns, listed, self._count, self._distance, found[part])

        if self._threads > 1 and len(queries) * self._count >= THREADS_FROM:
            divide(search, len(queries), self._pool, self._threads)
        elif self._count:
            search(slice(None))
        if self._each > 1:
            found[found < 0] = self._count
            first = found.reshape(-1, self._each).min(axis=1)
            owner[:] = np.where(first < self._count, first, -1)
        self._count = settle_block(
            self._hashes, start, self._each, self._distance, owner, self.positions, self._columns, self._count
        )

    def _make_tables(self) -> None:
        self._tables = None  # so that old and new ones are not in memory at a time
        self._tables = make_tables(self._columns, self._count, int(self._distance), self._pool)
        # Where they are of no use, as where all hashes are alike, it takes many more exemplars until they may be.
        self._next_tables = int(self._count * (1 + UNLISTED_PART)) if self._tables else 2 * self._count


def divide(search: Callable[[slice], None], queries: int, pool: Executor, threads: int) -> None:
    """Call a function on all parts of the queries, on several threads; what it calls has to release the lock."""
    size = max(PART_QUERIES, -(-queries // (threads * PARTS_A_THREAD)))
    parts = [slice(start, start + size) for start in range(0, queries, size)]
    for _ in pool.map(search, parts):
        pass


class Fixed:
    """Hashes that are all known before, among which others are looked for.

    Parameters
    ----------
    hashes : (m, words) uint64
    distance : int
        The largest that `find_first` is asked for.
    pool : Executor
        Threads to search on.
    threads : int
        How many they are.
    """

    def __init__(self, hashes: WordArray, distance: int, pool: Executor, threads: int) -> None:
        self._count, self._pool, self._threads = len(hashes), pool, threads
        self._columns = make_columns(hashes.shape[1], len(hashes))
        self._columns[:, : len(hashes)] = hashes.T
        has_many = len(hashes) >= TABLES_FROM
        self._tables = make_tables(self._columns, self._count, distance, pool) if has_many else None

    def find_first(self, hashes: WordArray, distance: int) -> npt.NDArray[np.int64]:
        """Return the first that is within a distance of each hash, or of any of its orientations; -1 if none is.

        Parameters
        ----------
        hashes : (n, words) or (n, orientations, words) uint64
        distance : int
        """
        queries = np.ascontiguousarray(hashes.reshape(-1, hashes.shape[-1]))
        found = np.full(len(queries), -1)

        def search(part: slice) -> None:
            if self._tables:
                self._tables.search(queries[part], np.uint64(distance), found[part])
            else:
                search_range(queries[part], self._columns, 0, self._count, np.uint64(distance), found[part])

        divide(search, len(queries), self._pool, self._threads)
        found[found < 0] = self._count
        first: npt.NDArray[np.int64] = found.reshape(len(hashes), -1).min(axis=1)
        return np.where(first < self._count, first, -1)
