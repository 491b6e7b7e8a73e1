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

import numpy as np
import numpy.typing as npt

from emcurate.patches.hashing import WORD_BITS, WordArray
from emcurate.patches.search import LANES, count_comparisons, list_by_substring, search_table

# What finding a list costs, in comparisons of a vector of words: measured, 2 to 3 ns beside 1.2.
LIST_COST = 2

# What comparing all words costs for a hash of several of which one is close enough, in the same: it lies anywhere.
CONFIRM_COST = 20

# By how much lists must lower the number of comparisons: they are read here and there in memory, which takes three
# times as long as one after another.
GAIN = 3

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
        return math.fsum(
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
            search_table(
                queries, each.bits, each.flips, each.starts, each.members, each.filters, each.filter_word,
                self.columns, distance, best,
            )  # fmt: skip
        found = best < self.count
        first[found] = best[found]

    def measure_cost(self, queries: WordArray, distance: np.uint64) -> float:
        """Return the comparisons of vectors that one of these queries takes, as `Split.cost` counts them."""
        lists = sum(len(each.flips) for each in self.tables)
        counts = [
            count_comparisons(queries, each.bits, each.flips, each.starts, each.filters, each.filter_word, distance)
            for each in self.tables
        ]
        compared = sum(vectors + CONFIRM_COST * confirmed for vectors, confirmed in counts)
        return float(lists * LIST_COST + compared / len(queries))


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
    return tables if tables.measure_cost(sample, np.uint64(distance)) * GAIN < count / LANES else None


def list_exemplars(
    columns: WordArray, count: int, order: npt.NDArray[np.int64], split: Split, pool: Executor
) -> Tables:
    """List the first `count` exemplars by substrings that take turns at the bits in `order`."""

    def list_by(table: int) -> Table:
        bits = order[table :: len(split.widths)][: split.widths[table]].copy()
        filter_word = table % len(columns)
        starts, members, filters = list_by_substring(columns, count, bits, filter_word)
        return Table(bits, list_flips(len(bits), split.radii[table]), starts, members, filters, filter_word)

    return Tables(columns, count, list(pool.map(list_by, range(len(split.widths)))))


def order_bits(columns: WordArray) -> npt.NDArray[np.int64]:
    """Return the bits in which exemplars differ, those that are set in half of them first: they divide them best.

    What hashes differ by in some of the bits is never more than in all, so the others need not be listed by.
    """
    some = columns[:, :: max(1, columns.shape[1] // BITS_SAMPLE)]
    place = np.arange(WORD_BITS, dtype=np.uint64)[:, None]
    ones = np.concatenate([np.count_nonzero(word >> place & np.uint64(1), axis=1) for word in some])
    differing = np.flatnonzero((ones > 0) & (ones < some.shape[1]))
    return differing[np.argsort(np.abs(ones[differing] - some.shape[1] / 2), kind="stable")]


@functools.cache
def list_flips(width: int, radius: int) -> npt.NDArray[np.uint32]:
    """Return the words of some bits with at most `radius` ones, those with fewer first."""
    places = itertools.chain.from_iterable(itertools.combinations(range(width), ones) for ones in range(radius + 1))
    flips: npt.NDArray[np.uint32] = np.array([sum(1 << place for place in each) for each in places], np.uint32)
    return flips
