from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emcurate.patches import substrings
from emcurate.patches.search import make_columns
from emcurate.patches.substrings import choose_split, list_exemplars, list_flips, list_splits, make_tables, order_bits


def as_columns(hashes):
    columns = make_columns(hashes.shape[1], len(hashes))
    columns[:, : len(hashes)] = hashes.T
    return columns


def make_words(rng, count, words, flips):
    """A few hashes, many times over with some bits flipped."""
    hashes = rng.integers(0, 2**64, (max(1, count // 5), words), np.uint64)[rng.integers(0, max(1, count // 5), count)]
    for _ in range(flips):
        hashes[np.arange(count), rng.integers(0, words, count)] ^= np.uint64(1) << rng.integers(0, 64, count, np.uint64)
    return hashes


def first_within(queries, hashes, distance):
    close = np.bitwise_count(queries[:, None] ^ hashes).sum(axis=2) <= distance
    return np.where(close.any(axis=1), close.argmax(axis=1), -1)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), count=st.integers(2, 120), words=st.integers(1, 5), distance=st.integers(0, 13))
def test_every_way_to_deal_out_bits_finds_the_first_exemplar(seed, count, words, distance):
    rng = np.random.default_rng(seed)
    hashes = make_words(rng, count, words, rng.integers(0, 12))
    listed = hashes[: max(1, count - 20)]
    expected = first_within(hashes, listed, distance)
    order = order_bits(as_columns(listed)[:, : len(listed)])
    with ThreadPoolExecutor(2) as pool:
        for split in list_splits(len(order), distance, len(listed)):
            tables = list_exemplars(as_columns(hashes), len(listed), order, split, pool)
            first = np.full(count, -1)
            tables.search(hashes, np.uint64(distance), first)
            assert np.array_equal(first, expected)


@given(bits=st.integers(1, 300), distance=st.integers(0, 60))
def test_what_is_far_in_every_substring_is_far(bits, distance):
    for split in list_splits(bits, distance, 1000):
        assert sum(radius + 1 for radius in split.radii) == distance + 1
        assert min(split.radii) >= 0
        assert 1 <= min(split.widths) <= max(split.widths) <= substrings.LONGEST_BITS
        assert sum(split.widths) <= bits


@pytest.mark.parametrize(("width", "radius"), [(1, 0), (1, 1), (5, 2), (9, 9), (18, 3)])
def test_flips_are_all_words_with_few_ones(width, radius):
    flips = list_flips(width, radius)
    assert sorted(flips) == [word for word in range(1 << width) if word.bit_count() <= radius]
    assert len(flips) == substrings.count_lists(width, radius)


def test_bits_that_never_differ_are_not_listed_by():
    hashes = np.array([[0b0000, 8], [0b0010, 0], [0b0110, 8], [0b0110, 8]], np.uint64)
    assert order_bits(hashes.T).tolist() == [2, 1, 67]
    assert order_bits(hashes[:1].T).tolist() == []


def test_tables_are_made_where_they_save_comparisons_only():
    rng = np.random.default_rng(0)
    random = rng.integers(0, 2**64, (20_000, 1), np.uint64)
    # Few lists hold nearly all of these: each has at most one of the first bits set.
    alike = (np.uint64(1) << rng.integers(0, 64, (20_000, 1), np.uint64)) & np.uint64(2**60 - 1)
    with ThreadPoolExecutor(1) as pool:
        assert make_tables(as_columns(random), 20_000, 4, pool) is not None
        assert make_tables(as_columns(random), 20_000, 30, pool) is None
        assert make_tables(as_columns(alike), 20_000, 4, pool) is None
        assert make_tables(as_columns(np.zeros_like(random)), 20_000, 4, pool) is None
        # One word of four says nothing where more bits may differ than two random words do.
        wide = rng.integers(0, 2**64, (20_000, 4), np.uint64)
        assert make_tables(as_columns(wide), 20_000, 12, pool) is not None
        assert make_tables(as_columns(wide), 20_000, 40, pool) is None


def test_tables_keep_to_their_memory(monkeypatch):
    assert choose_split(64, 12, 11_000_000) is not None
    monkeypatch.setattr(substrings, "TABLES_BYTES", 3 * 12 * 1_000_000)
    assert max(len(split.widths) for split in list_splits(64, 12, 1_000_000)) == 3
    assert list(list_splits(64, 12, 4_000_000)) == []
