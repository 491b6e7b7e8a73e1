import importlib

import numpy as np
import pytest

from emcurate.patches import search
from emcurate.patches.hashing import pack_hashes

RNG = np.random.default_rng(0)


def find_first_within(queries, exemplars, distance, compiled=search):
    columns = search.make_columns(exemplars.shape[1], len(exemplars))
    columns[:, : len(exemplars)] = exemplars.T
    first = np.full(len(queries), -1)
    compiled.search_range(queries, columns, 0, len(exemplars), np.uint64(distance), first)
    return first


@pytest.mark.parametrize("side", [4, 8, 10, 16])
@pytest.mark.parametrize("count", [1, 7, 8, 9, search.TILE + 300])
def test_first_exemplar_within_distance(side, count):
    # The sides take a quarter of a word, one word, two and four; the last count takes several tiles.
    exemplars, queries = RNG.random((count, side, side)) < 0.5, RNG.random((70, side, side)) < 0.5
    queries[::2] = exemplars[RNG.integers(0, count, 35)]
    queries[::4, 0, 0] ^= True
    for distance in (0, 1, side * side // 3):
        close = (queries[:, None] != exemplars[None]).sum(axis=(2, 3)) <= distance
        expected = np.where(close.any(axis=1), close.argmax(axis=1), -1)
        assert np.array_equal(find_first_within(pack_hashes(queries), pack_hashes(exemplars), distance), expected)


def test_no_exemplars_yet():
    hashes = pack_hashes(np.ones((3, 8, 8), bool))
    assert find_first_within(hashes, hashes[:0], 5).tolist() == [-1, -1, -1]


@pytest.mark.parametrize("stop", range(1, 20))
def test_exemplars_beyond_the_range_and_what_is_found_already_are_left_alone(stop):
    columns = np.full((1, 20 + search.LANES), 7, np.uint64)
    columns[0, :stop] = 2**40 - 1
    first = np.array([-1, -1, 3])
    search.search_range(np.array([[7], [0], [7]], np.uint64), columns, 0, stop, np.uint64(3), first)
    assert first.tolist() == [-1, -1, 3]


def test_hashes_close_in_one_word_only_are_not_close():
    exemplars = np.array([[0, 2**64 - 1], [3, 3], [0, 0]], np.uint64)
    queries = np.array([[0, 0], [0, 2**64 - 2], [0, 15]], np.uint64)
    assert find_first_within(queries, exemplars, 1).tolist() == [2, 0, -1]
    assert find_first_within(queries, exemplars, 4).tolist() == [1, 0, 1]


def test_the_search_is_compiled_where_nothing_can_be_cached(monkeypatch):
    import numba.core.caching

    monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", [])
    try:
        reloaded = importlib.reload(search)
        found = find_first_within(np.array([[5], [0]], np.uint64), np.array([[1], [4]], np.uint64), 1, reloaded)
    finally:
        monkeypatch.undo()
        importlib.reload(search)
    assert found.tolist() == [0, 0]
