"""Find the first exemplar close enough to each of many packed hashes, by comparing with one after another; compiled.

Only modules that compile themselves import this one at their top, so that the many processes that only make or read hashes, and runs in which
nothing is left to do, need not load a compiler.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from emcurate.patches.hashing import WORD_BITS, WordArray

# Hashes compared by one vector instruction where the processor has 512-bit vectors; LLVM splits them where it has not.
LANES = 8

# Exemplars that all queries of a part are compared with before the next are fetched: 32 KiB, what the first cache
# holds (exemplars read from farther away halve the speed).
TILE = 4096

# Parts of the queries that each thread gets, so that one that is held up does not keep the others waiting for long.
PARTS_A_THREAD = 4

# Queries of a part at least: starting it takes as long as some ten.
PART_QUERIES = 256


def find_first_within(
    queries: WordArray, exemplars: WordArray, distance: int, threads: int = 1
) -> npt.NDArray[np.int64]:
    """Return, for each of (n, words) hashes, the first of (m, words) exemplars within `distance`, or -1.

    The result does not depend on the number of threads.
    """
    first = np.full(len(queries), -1, np.int64)
    columns = make_columns(exemplars.shape[1], len(exemplars))
    columns[:, : len(exemplars)] = exemplars.T

    def search(part: slice) -> None:
        search_range(queries[part], columns, 0, len(exemplars), np.uint64(distance), first[part])

    with ThreadPoolExecutor(threads) as pool:
        divide(search, len(queries), pool, threads)
    return first


def divide(search: Callable[[slice], None], queries: int, pool: Executor, threads: int) -> None:
    """Call a function on all parts of the queries, on several threads; what it calls has to release the lock."""
    size = max(PART_QUERIES, -(-queries // (threads * PARTS_A_THREAD)))
    parts = [slice(start, start + size) for start in range(0, queries, size)]
    for _ in pool.map(search, parts):
        pass


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
        close = close_lanes(row, place, word, distance)
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
def settle_block(queries: Any, start: Any, distance: Any, owner: Any, kept: Any, columns: Any, count: Any) -> Any:
    """Cover, one after another, those hashes of a block that no earlier exemplar covers; return the new `count`.

    Parameters
    ----------
    queries : (n, words) uint64
        All hashes; the block begins at `start` and is as long as `owner`.
    start : int
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
            owner[i] = first_in_span(columns, before, count, queries, query, distance)
            if owner[i] < 0:
                owner[i], kept[count] = count, query
                for word in range(len(columns)):
                    columns[word, count] = queries[query, word]
                count += 1
    return count
