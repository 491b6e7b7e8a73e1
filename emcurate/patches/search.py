"""Compiled loops that find the first exemplar close to a hash, one after another or in lists of likely ones.

All that is compiled stands in this module, since what is kept on disk is only made anew when its own file has changed.
Nothing imports it at its top but what needs it at once, so that the many processes that only make or read hashes, and
runs in which nothing is left to do, need not load a compiler.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from emcurate.patches.hashing import WORD_BITS, WordArray

# Hashes compared by one vector instruction where the processor has 512-bit vectors; LLVM splits them where it has not.
LANES = 8

# Exemplars that all queries of a part are compared with before the next are fetched: 32 KiB, what the first cache
# holds (exemplars read from farther away halve the speed).
TILE = 4096

# Lists whose exemplars are asked for ahead, since waiting for memory takes longer than comparing.
LISTS_AHEAD = 8


def make_columns(words: int, count: int) -> WordArray:
    """Return room for `count` exemplars, a row a word, and for the vector that begins at the last of them."""
    return np.zeros((words, count + LANES), np.uint64)


def compiled(function: Any) -> Any:
    """Compile a function that lets other threads run; kept on disk for the next run where any place can be written."""
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # neither beside this file nor in the user's home
        return numba.njit(nogil=True)(function)


@intrinsic
def close_lanes(_context: Any, row: Any, start: Any, word: Any, distance: Any) -> Any:
    """Return a bit for each of the eight words from `start` on that differs from `word` in at most `distance` bits.

    Written as vector instructions, since a loop with a way out is none that LLVM would turn into such.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        counts = _count_differences(builder, array.data, arguments[1], arguments[2])
        close = builder.icmp_unsigned("<=", counts, _spread(builder, arguments[3]))
        return builder.bitcast(close, ir.IntType(LANES))

    return types.uint8(row, types.intp, types.uint64, types.uint64), generate


_VECTOR = ir.VectorType(ir.IntType(WORD_BITS), LANES)


def _spread(builder: Any, value: Any) -> Any:
    """Return a vector that holds a value in each of its lanes."""
    undefined, place = ir.Constant(_VECTOR, ir.Undefined), ir.IntType(32)
    one = builder.insert_element(undefined, value, ir.Constant(place, 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(place, LANES), [0] * LANES))


def _count_differences(builder: Any, data: Any, place: Any, word: Any) -> Any:
    """Return how many bits of the eight words from a place on differ from a word."""
    pointer = builder.bitcast(builder.gep(data, [place]), _VECTOR.as_pointer())
    found = builder.load(pointer, align=WORD_BITS // 8)
    count = ir.FunctionType(_VECTOR, [_VECTOR])
    function = builder.module.declare_intrinsic(f"llvm.ctpop.v{LANES}i{WORD_BITS}", (), count)
    return builder.call(function, [builder.xor(found, _spread(builder, word))])


@intrinsic
def close_lanes_in_all(_context: Any, columns: Any, start: Any, queries: Any, query: Any, distance: Any) -> Any:
    """Return what `close_lanes` does for hashes of several words, a row of `columns` each."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        columns, queries = (context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 2))
        words, capacity = cgutils.unpack_tuple(builder, columns.shape)
        first_word = builder.mul(arguments[3], words)
        total = cgutils.alloca_once_value(builder, ir.Constant(_VECTOR, [0] * LANES))
        with cgutils.for_range(builder, words) as loop:
            word = builder.load(builder.gep(queries.data, [builder.add(first_word, loop.index)]))
            place = builder.add(builder.mul(loop.index, capacity), arguments[1])
            counts = _count_differences(builder, columns.data, place, word)
            builder.store(builder.add(builder.load(total), counts), total)
        close = builder.icmp_unsigned("<=", builder.load(total), _spread(builder, arguments[4]))
        return builder.bitcast(close, ir.IntType(LANES))

    return types.uint8(columns, types.intp, queries, types.intp, types.uint64), generate


@intrinsic
def lowest_one(_context: Any, lanes: Any) -> Any:
    """Return the place of the lowest bit that is set."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return lanes(lanes), generate


@intrinsic
def prefetch(_context: Any, row: Any, place: Any) -> Any:
    """Ask for a word of a row to be brought into the cache, without waiting for it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        flag, byte = ir.IntType(32), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
        function = builder.module.declare_intrinsic("llvm.prefetch.p0", (), kind)
        pointer = builder.bitcast(builder.gep(array.data, [arguments[1]]), byte)
        reading, keep, data = (ir.Constant(flag, value) for value in (0, 3, 1))
        builder.call(function, [pointer, reading, keep, data])
        return context.get_dummy_value()

    return types.void(row, types.intp), generate


@intrinsic
def count_ones(_context: Any, word: Any) -> Any:
    """Return the number of ones of a uint64."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return word(word), generate


@compiled
def first_in_span(columns: Any, start: Any, stop: Any, queries: Any, query: Any, distance: Any) -> Any:
    """Return the first of ``columns[:, start:stop]`` within a distance of a query, or -1."""
    row, word = columns[0], queries[query, 0]
    one_word = len(columns) == 1
    for place in range(start, stop, LANES):
        close: Any = close_lanes(row, place, word, distance)  # type: ignore[call-arg]
        if close and not one_word:  # often it is not: what differs too much in one word does so in all
            close = close_lanes_in_all(columns, place, queries, query, distance)
        if close:
            found = place + np.int64(lowest_one(close))
            return found if found < stop else np.int64(-1)
    return np.int64(-1)


@compiled
def search_range(queries: Any, columns: Any, start: Any, stop: Any, distance: Any, first: Any) -> None:
    """Look for the queries whose `first` is -1 among the exemplars ``start:stop`` and enter what is found.

    Parameters
    ----------
    queries : (n, words) uint64
    columns : (words, capacity) uint64
        Exemplars as `make_columns` lays them out.
    start, stop : int
    distance : uint64
    first : (n,) int64
        Changed in place.
    """
    left = np.flatnonzero(first < 0)
    for tile in range(start, stop, TILE):
        end = min(stop, tile + TILE)
        for query in left:
            first[query] = first_in_span(columns, tile, end, queries, query, distance)
        left = left[first[left] < 0]
        if not len(left):
            break


@compiled
def settle_block(
    queries: Any, start: Any, each: Any, distance: Any, owner: Any, kept: Any, columns: Any, count: Any
) -> Any:
    """Cover, one after another, those hashes of a block that no earlier exemplar covers; return the new `count`.

    Parameters
    ----------
    queries : (n * each, words) uint64
        All hashes; the block begins at number `start` and is as long as `owner`.
    start : int
    each : int
        Hashes that each has: any of them may be close to an exemplar's, which is the first it has.
    distance : uint64
    owner : (length,) int64
        Of each hash of the block the number of its exemplar, or -1; changed in place.
    kept : (capacity,) int64
        Positions of the exemplars in `queries`; changed in place.
    columns : (words, capacity + LANES) uint64
        The exemplars; changed in place.
    count : int
        Exemplars so far.
    """
    before = count
    for i in range(len(owner)):
        if owner[i] < 0:
            query = start + i
            for turned in range(each * query, each * (query + 1)):
                found = first_in_span(columns, before, count, queries, turned, distance)
                if found >= 0 and (owner[i] < 0 or found < owner[i]):
                    owner[i] = found
            if owner[i] < 0:
                owner[i], kept[count] = count, query
                for word in range(len(columns)):
                    columns[word, count] = queries[each * query, word]
                count += 1
    return count


@compiled
def _substring(columns: Any, place: Any, bits: Any) -> Any:
    """Return the bits of the hash in a column that make up a substring."""
    found = np.int64(0)
    for i in range(len(bits)):
        word = columns[bits[i] // WORD_BITS, place]
        found |= np.int64((word >> np.uint64(bits[i] % WORD_BITS)) & np.uint64(1)) << i
    return found


@compiled
def list_by_substring(columns: Any, count: Any, bits: Any, filter_word: Any) -> Any:
    """Return the `starts`, `members` and `filters` of a `Table`."""
    starts, substrings = np.zeros((1 << len(bits)) + 1, np.int32), np.empty(count, np.int32)
    for exemplar in range(count):
        substrings[exemplar] = _substring(columns, exemplar, bits)
        starts[substrings[exemplar] + 1] += 1
    for i in range(1, len(starts)):
        starts[i] += starts[i - 1]
    members, filters = np.empty(count, np.int32), np.zeros(count + LANES, np.uint64)
    free = starts[:-1].copy()
    for exemplar in range(count):
        substring = substrings[exemplar]
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
                there = columns[word, members[place + lane]]
                differing += count_ones(there ^ queries[query, word])  # type: ignore[call-arg]
            if differing <= distance:
                confirmed |= np.uint8(1 << lane)
    return confirmed


@compiled
def search_table(
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
            ahead = substring ^ np.int64(flips[min(i + LISTS_AHEAD, last)])
            prefetch(filters, np.int64(starts[ahead]))  # type: ignore[call-arg]
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
def count_comparisons(
    queries: Any, bits: Any, flips: Any, starts: Any, filters: Any, filter_word: Any, distance: Any
) -> Any:
    """Return how many vectors of words `search_table` compares for queries, and how many hashes it has to confirm."""
    by_word = queries.T
    vectors, confirmed = np.int64(0), np.int64(0)
    for query in range(len(queries)):
        substring = _substring(by_word, query, bits)
        word = queries[query, filter_word]
        for flip in flips:
            each = substring ^ np.int64(flip)
            place, stop = np.int64(starts[each]), np.int64(starts[each + 1])
            vectors += (stop - place + LANES - 1) // LANES
            if len(by_word) > 1:
                for entry in range(place, stop):
                    confirmed += count_ones(filters[entry] ^ word) <= distance  # type: ignore[call-arg]
    return vectors, confirmed
