"""Find the first exemplar close enough to each of many packed hashes without comparing with all; compiled.

Multi-index hashing (Norouzi, Punjani and Fleet, "Fast search in Hamming space with multi-index hashing", CVPR 2012):
the bits are dealt out to some substrings, and for each a table lists the exemplars by what it is in them. Two hashes
that differ in few bits differ in very few in at least one of the substrings, so a query is compared only with the
exemplars in the few lists of substrings close to its own.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from emcurate.patches.hashing import WORD_BITS, WordArray
from emcurate.patches.search import (
    LANES,
    close_lanes,
    compiled,
    count_ones,
    lowest_one,
    prefetch,
)

# What finding a list costs, in comparisons of a vector of words: measured, 2 to 3 ns beside 1.2.
LIST_COST = 2

# By how much lists must lower the number of comparisons: they are read here and there in memory, which takes three
# times as long as one after another.
GAIN = 3

# Lists whose exemplars are asked for ahead, since waiting for memory takes longer than comparing.
LISTS_AHEAD = 8

# Bits of the longest substring: 256 thousand lists, 1 MiB, which the second cache holds.
LONGEST_BITS = 18

# Lists looked at a query and substring at most; more are never cheaper.
MOST_LISTS = 20_000

# Memory of all tables at most. 10 million exemplars of 64 bits fit into it.
TABLES_BYTES = 512 << 20
ENTRY_BYTES = 12

# Exemplars from which it is taken how evenly a bit divides them.
BITS_SAMPLE = 10_000

# Exemplars for which the comparisons are counted before the lists are used.
SAMPLE = 256


@dataclass(frozen=True)
class Split:
    """How the bits of a hash are dealt out to substrings.

    Attributes
    ----------
    widths : tuple of int
        Bits of each substring.
    radii : tuple of int
        In how many bits a list's substring may differ from a query's to be looked at.
    """

    widths: tuple[int, ...]
    radii: tuple[int, ...]

    def cost(self, exemplars: int) -> float:
        """Return the comparisons of vectors that a query takes if the exemplars are spread evenly over the lists."""
        return sum(
            count_lists(width, radius) * (LIST_COST + exemplars / 2**width / LANES)
            for width, radius in zip(self.widths, self.radii, strict=True)
        )


def count_lists(width: int, radius: int) -> int:
    """Return how many words of some bits are within a distance of a given one."""
    return sum(math.comb(width, ones) for ones in range(radius + 1))


def list_splits(bits: int, distance: int, exemplars: int) -> Iterator[Split]:
    """Yield the ways to deal out bits such that no hash within a distance is missed.

    If hashes differed by more than r_i bits in each of m substrings they would differ in at least the sum of r_i + 1
    bits. So it is enough that the radii add up to ``distance - m + 1``.
    """
    for tables in range(1, distance + 2):
        share, rest = divmod(distance - tables + 1, tables)
        radii = tuple(share + (table < rest) for table in range(tables))
        widths = tuple(min(LONGEST_BITS, len(range(table, bits, tables))) for table in range(tables))
        if tables > bits or tables * exemplars * ENTRY_BYTES > TABLES_BYTES:
            return
        if all(count_lists(*pair) <= MOST_LISTS for pair in zip(widths, radii, strict=True)):
            yield Split(widths, radii)


def choose_split(bits: int, distance: int, exemplars: int) -> Split | None:
    """Return the cheapest way to deal out bits, or None if comparing with all exemplars is cheaper."""
    splits = list(list_splits(bits, distance, exemplars))
    best = min(splits, key=lambda split: split.cost(exemplars), default=None)
    return best if best and best.cost(exemplars) * GAIN < exemplars / LANES else None


@dataclass(frozen=True)
class Table:
    """Exemplars listed by one of their substrings.

    Attributes
    ----------
    bits : (width,) int64
        Which bits of a hash make up the substring.
    flips : (lists,) uint32
        What may differ between a query's substring and those whose lists are looked at.
    starts : (2**width + 1,) int32
        Where each list begins, and where the last one ends.
    members : (count,) int32
        The exemplars of each list, in order.
    filters : (count + LANES,) uint64
        One word of each of them, number `filter_word`.
    """

    bits: npt.NDArray[np.int64]
    flips: npt.NDArray[np.uint32]
    starts: npt.NDArray[np.int32]
    members: npt.NDArray[np.int32]
    filters: WordArray
    filter_word: int


@dataclass(frozen=True)
class Tables:
    """The first `count` of some exemplars, listed by each of their substrings.

    Attributes
    ----------
    columns : (words, capacity) uint64
        The exemplars, a row a word.
    count : int
    tables : list of Table
    """

    columns: WordArray
    count: int
    tables: list[Table]

    def search(self, queries: WordArray, distance: np.uint64, first: npt.NDArray[np.int64]) -> None:
        """Enter into `first` the first listed exemplar within a distance of each query that has one."""
        best = np.full(len(queries), self.count)
        # Table by table, so that what all queries look up stays in the cache.
        for each in self.tables:
            _search_table(
                queries, each.bits, each.flips, each.starts, each.members, each.filters, each.filter_word,
                self.columns, distance, best,
            )  # fmt: skip
        found = best < self.count
        first[found] = best[found]

    def measure_cost(self, queries: WordArray) -> float:
        """Return the comparisons of vectors that one of these queries takes, as `Split.cost` counts them."""
        lists = sum(len(each.flips) for each in self.tables)
        vectors = sum(_count_vectors(queries, each.bits, each.flips, each.starts) for each in self.tables)
        return lists * LIST_COST + vectors / len(queries)


def make_tables(columns: WordArray, count: int, distance: int, pool: Executor) -> Tables | None:
    """List the first `count` exemplars by their substrings, unless comparing with all of them is cheaper.

    Parameters
    ----------
    columns : (words, capacity) uint64
        The exemplars, a row a word.
    count, distance : int
    pool : Executor
        Threads to do it on.
    """
    order = order_bits(columns[:, :count])
    split = choose_split(len(order), distance, count)
    if split is None:
        return None
    tables = list_exemplars(columns, count, order, split, pool)
    sample = np.ascontiguousarray(columns[:, : count : max(1, count // SAMPLE)].T)
    return tables if tables.measure_cost(sample) * GAIN < count / LANES else None


def list_exemplars(
    columns: WordArray, count: int, order: npt.NDArray[np.int64], split: Split, pool: Executor
) -> Tables:
    """List the first `count` exemplars by substrings that take turns at the bits in `order`."""

    def list_by(table: int) -> Table:
        bits = order[table :: len(split.widths)][: split.widths[table]].copy()
        filter_word = table % len(columns)
        starts, members, filters = _list_by_substring(columns, count, bits, filter_word)
        return Table(bits, list_flips(len(bits), split.radii[table]), starts, members, filters, filter_word)

    return Tables(columns, count, list(pool.map(list_by, range(len(split.widths)))))


def order_bits(columns: WordArray) -> npt.NDArray[np.int64]:
    """Return the bits in which exemplars differ, those that are set in half of them first: they divide them best.

    What hashes differ by in some of the bits is never more than in all, so the others need not be listed by.
    """
    some = columns[:, :: max(1, columns.shape[1] // BITS_SAMPLE)]
    place = np.arange(WORD_BITS, dtype=np.uint64)[:, None]
    ones = np.concatenate([np.count_nonzero(word >> place & np.uint64(1), axis=1) for word in some])
    order = np.argsort(np.abs(ones - some.shape[1] / 2), kind="stable")
    return order[(ones[order] > 0) & (ones[order] < some.shape[1])]


@functools.cache
def list_flips(width: int, radius: int) -> npt.NDArray[np.uint32]:
    """Return the words of some bits with at most `radius` ones, those with fewer first."""
    places = itertools.chain.from_iterable(itertools.combinations(range(width), ones) for ones in range(radius + 1))
    return np.array([sum(1 << place for place in each) for each in places], np.uint32)


@compiled
def _substring(columns: Any, place: Any, bits: Any) -> Any:
    """Return the bits of the hash in a column that make up a substring."""
    found = np.int64(0)
    for i in range(len(bits)):
        word = columns[bits[i] // WORD_BITS, place]
        found |= np.int64((word >> np.uint64(bits[i] % WORD_BITS)) & np.uint64(1)) << i
    return found


@compiled
def _list_by_substring(columns: Any, count: Any, bits: Any, filter_word: Any) -> Any:
    """Return the `starts`, `members` and `filters` of a `Table`."""
    starts = np.zeros((1 << len(bits)) + 1, np.int32)
    for exemplar in range(count):
        starts[_substring(columns, exemplar, bits) + 1] += 1
    for i in range(1, len(starts)):
        starts[i] += starts[i - 1]
    members, filters = np.empty(count, np.int32), np.zeros(count + LANES, np.uint64)
    free = starts[:-1].copy()
    for exemplar in range(count):
        substring = _substring(columns, exemplar, bits)
        members[free[substring]] = exemplar
        filters[free[substring]] = columns[filter_word, exemplar]
        free[substring] += 1
    return starts, members, filters


@compiled
def _confirm(
    close: Any, place: Any, stop: Any, columns: Any, members: Any, queries: Any, query: Any, distance: Any
) -> Any:
    """Return which of the lanes that are close in one word are so in all."""
    confirmed = np.uint8(0)
    for lane in range(min(LANES, stop - place)):
        if close >> lane & 1:
            differing = np.uint64(0)
            for word in range(len(columns)):
                differing += count_ones(columns[word, members[place + lane]] ^ queries[query, word])
            if differing <= distance:
                confirmed |= np.uint8(1 << lane)
    return confirmed


@compiled
def _search_table(
    queries: Any, bits: Any, flips: Any, starts: Any, members: Any, filters: Any, filter_word: Any, columns: Any,
    distance: Any, best: Any,
) -> None:  # fmt: skip
    """Lower each query's `best` to the first close exemplar in a table's lists, if that comes before it."""
    by_word = queries.T
    one_word = len(columns) == 1
    count = len(members)
    last = len(flips) - 1
    for query in range(len(queries)):
        substring = _substring(by_word, query, bits)
        word = queries[query, filter_word]
        found = best[query]
        for i in range(last + 1):
            prefetch(filters, np.int64(starts[substring ^ np.int64(flips[min(i + LISTS_AHEAD, last)])]))
            each = substring ^ np.int64(flips[i])
            place, stop = np.int64(starts[each]), np.int64(starts[each + 1])
            while place < stop:
                if found < count and members[place] >= found:
                    break
                close = close_lanes(filters, place, word, distance)
                if close and not one_word:
                    close = _confirm(close, place, stop, columns, members, queries, query, distance)
                if close:
                    entry = place + np.int64(lowest_one(close))
                    if entry < stop:
                        found = min(found, np.int64(members[entry]))
                    break
                place += LANES
        best[query] = found


@compiled
def _count_vectors(queries: Any, bits: Any, flips: Any, starts: Any) -> Any:
    """Return how many vectors of words `_search_table` compares with queries that are close to nothing."""
    by_word = queries.T
    vectors = 0
    for query in range(len(queries)):
        substring = _substring(by_word, query, bits)
        for flip in flips:
            each = substring ^ np.int64(flip)
            vectors += (starts[each + 1] - starts[each] + LANES - 1) // LANES
    return vectors
