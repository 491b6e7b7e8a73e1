import csv
import importlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emcurate.patches import duplicates as groups
from emcurate.patches.duplicates import Groups, cover_greedily, find_groups
from emcurate.patches.hashing import pack_hashes


def naive_cover(hashes, order, distance):
    """The rule as SPEC words it, one patch and one exemplar at a time."""
    exemplar, kept = {}, []
    for i in order:
        for k in kept:
            if np.count_nonzero(hashes[i] != hashes[k]) <= distance:
                exemplar[i] = k
                break
        else:
            kept.append(i)
            exemplar[i] = i
    return [exemplar[i] for i in range(len(hashes))]


def published_loop(hashes, order, distance):
    """Take the first that is left, remove all that are close to it, go on with what is left."""
    exemplar, left = {}, list(order)
    while left:
        first = left[0]
        close = [i for i in left if np.count_nonzero(hashes[i] != hashes[first]) <= distance]
        exemplar |= dict.fromkeys(close, first)
        left = [i for i in left if i not in exemplar]
    return [exemplar[i] for i in range(len(hashes))]


def make_hashes(rng, count, side=6):
    """Hashes in clouds: copies of a few with some bits flipped, so that there is something to cover."""
    centres = rng.random((max(1, count // 6), side, side)) < 0.5
    return centres[rng.integers(0, len(centres), count)] ^ (rng.random((count, side, side)) < 0.08)


@settings(deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 60), distance=st.integers(0, 14), block=st.integers(1, 20))
def test_cover_equals_both_naive_loops(seed, count, distance, block):
    rng = np.random.default_rng(seed)
    hashes, order = make_hashes(rng, count), rng.permutation(count)
    before, groups.BLOCK = groups.BLOCK, block
    try:
        found = find_groups([str(i) for i in range(count)], hashes, order, distance)
    finally:
        groups.BLOCK = before
    assert found.exemplar.tolist() == naive_cover(hashes, order, distance)
    assert found.exemplar.tolist() == published_loop(hashes, order, distance)
    assert found.distance.tolist() == [np.count_nonzero(hashes[i] != hashes[e]) for i, e in enumerate(found.exemplar)]


def test_threads_and_block_borders_change_nothing(monkeypatch):
    rng = np.random.default_rng(5)
    packed = pack_hashes(make_hashes(rng, 5000, side=8))
    expected = cover_greedily(packed, 6)
    assert 100 < len(np.unique(expected)) < 4900
    for block, threads in [(64, 1), (1000, 2), (10_000, 2)]:
        monkeypatch.setattr(groups, "BLOCK", block)
        assert np.array_equal(cover_greedily(packed, 6, threads), expected)


@pytest.fixture
def three_groups():
    return Groups(["a", "b", "c, d", "e", "f"], np.array([0, 1, 0, 0, 1]), np.array([0, 0, 2, 5, 1]))


def test_exemplars_and_table(three_groups):
    assert three_groups.exemplars() == ["a", "b"]
    rows = list(csv.reader(io.StringIO(three_groups.table().decode())))
    assert rows == [
        ["patch", "exemplar", "distance"],
        ["a", "a", "0"],
        ["c, d", "a", "2"],
        ["e", "a", "5"],
        ["b", "b", "0"],
        ["f", "b", "1"],
    ]


def test_largest_groups_show_what_differs_most(three_groups):
    assert three_groups.largest(5, 5) == [(3, [("a", 0), ("e", 5), ("c, d", 2)]), (2, [("b", 0), ("f", 1)])]
    assert three_groups.largest(1, 1) == [(3, [("a", 0), ("e", 5)])]
    assert Groups(["a"], np.array([0]), np.array([0])).largest(3, 3) == []


def test_the_search_is_compiled_where_nothing_can_be_cached(monkeypatch):
    import numba.core.caching

    from emcurate.patches import search

    monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", [])
    try:
        reloaded = importlib.reload(search)
        found = reloaded.find_first_within(np.array([[5], [0]], np.uint64), np.array([[1], [4]], np.uint64), 1)
    finally:
        monkeypatch.undo()
        importlib.reload(search)
    assert found.tolist() == [0, 0]
