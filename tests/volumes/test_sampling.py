"""Regions drawn from volumes: the same on any machine, none overlapping, spread, in even shares."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emcurate import naming
from emcurate.volumes.sampling import (
    coarse_box,
    draw_regions,
    fraction_inside,
    is_fine_enough,
    region_name,
    share_bytes,
    share_evenly,
)


def test_a_seed_draws_the_same_regions_everywhere():
    """Computed once by hand, in Python's whole numbers, from the formula: whatever changes these changes results."""
    drawn = [region.start for region in itertools.islice(draw_regions(7, "fly", (1000, 2000, 3000), 256), 4)]
    assert drawn == by_hand(7, "fly", (1000, 2000, 3000), 256, 4)
    assert drawn != [r.start for r in itertools.islice(draw_regions(8, "fly", (1000, 2000, 3000), 256), 4)]
    assert drawn != [r.start for r in itertools.islice(draw_regions(7, "wasp", (1000, 2000, 3000), 256), 4)]


def by_hand(seed, name, shape, size, count):
    """The recurrence with fractions of any length, and its constants from their definition."""
    import hashlib
    from fractions import Fraction

    root = Fraction(122, 100)
    for _ in range(8):  # Newton's
        root -= (root**4 - root - 1) / (4 * root**3 - 1)
        root = root.limit_denominator(10**40)
    digest = hashlib.sha512(f"{seed}\n{name}".encode()).digest()
    numbers = [int.from_bytes(digest[8 * i : 8 * i + 8], "big") for i in range(8)]
    starts = []
    for draw in range(count):
        start = []
        for axis, side in enumerate(shape):
            cells = side // size
            offset = numbers[3 + axis] * (side - cells * size + 1) // 2**64
            step = int(2**64 / root ** (axis + 1))
            start.append(offset + (numbers[axis] + draw * step) % 2**64 * cells // 2**64 * size)
        starts.append(tuple(start))
    return starts


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(*[st.integers(1, 16)] * 3),
    st.integers(1, 12),
    st.integers(0, 5),
    st.tuples(*[st.sampled_from([1, 4, 16])] * 3),
)
def test_regions_lie_in_the_volume_never_overlap_and_fill_their_grid(shape, size, seed, chunk):
    taken = np.zeros(shape, int)
    regions = list(draw_regions(seed, "a", shape, size, chunk))
    for region in regions:
        assert region.shape == tuple(min(size, side) for side in shape)
        assert all(
            at >= 0 and at + side <= whole for at, side, whole in zip(region.start, region.shape, shape, strict=True)
        )
        taken[region.slices] += 1
    assert taken.max() == 1
    assert len(regions) == np.prod([max(1, side // size) for side in shape])


def test_regions_begin_with_chunks_where_their_size_allows():
    for region in draw_regions(3, "a", (300, 300, 300), 64, (32, 64, 16)):
        assert all(at % part == 0 for at, part in zip(region.start, (32, 64, 16), strict=True))


def test_the_first_regions_are_spread_over_the_volume():
    """Of 64 among 4096, each eighth of the volume has about its share: by chance it would be 8 ± 2.6."""
    for seed in range(5):
        first = itertools.islice(draw_regions(seed, "a", (1024,) * 3, 64), 64)
        counts = np.zeros((2, 2, 2), int)
        for region in first:
            counts[tuple(at // 512 for at in region.start)] += 1
        assert counts.min() >= 5 and counts.max() <= 11


@given(st.integers(0, 500), st.lists(st.integers(0, 100), min_size=1, max_size=8))
def test_shares_are_even_and_take_all_that_there_is(total, most):
    shares = share_evenly(total, most)
    assert sum(shares) == min(total, sum(most))
    assert all(0 <= share <= limit for share, limit in zip(shares, most, strict=True))
    largest = max(shares)
    assert all(share == limit or share >= largest - 1 for share, limit in zip(shares, most, strict=True))


@given(st.integers(0, 10_000), st.lists(st.tuples(st.integers(1, 300), st.integers(0, 50)), min_size=1, max_size=6))
def test_shares_of_bytes_stay_in_the_budget_and_none_takes_all(total, kinds):
    each, most = zip(*kinds, strict=True)
    counts = share_bytes(total, each, most)
    used = [count * one for count, one in zip(counts, each, strict=True)]
    assert sum(used) <= total and all(0 <= count <= limit for count, limit in zip(counts, most, strict=True))
    for number, (count, limit) in enumerate(zip(counts, most, strict=True)):
        if count < limit:  # who could give more has no less than others but for a box
            assert used[number] + 2 * max(each) >= max(used)


def test_padding_is_some_values_and_what_is_no_number():
    array = np.array([[0, 0, 255, 9]], np.uint8)
    assert fraction_inside(array, [0]) == 0.5 and fraction_inside(array, [0, 255]) == 0.25
    assert fraction_inside(array, []) == 1 and fraction_inside(array[:0], [0]) == 0
    assert fraction_inside(np.array([np.nan, 0.0, -1.0, 2.0]), []) == 0.75


@pytest.mark.parametrize("factor", [1, 2, 3, 7])
def test_a_box_in_a_coarse_level_is_all_that_it_touches(factor):
    shape, coarse = (70, 84, 21), tuple(-(-side // factor) for side in (70, 84, 21))
    for region in draw_regions(1, "a", shape, 10):
        for part, start, side, whole, few in zip(
            coarse_box(region, shape, coarse), region.start, region.shape, shape, coarse, strict=True
        ):
            assert 0 <= part.start < part.stop <= few
            assert part.start * whole <= start * few and (start + side) * few <= part.stop * whole
    assert is_fine_enough((25, 25, 25), (100, 100, 100), 16) and not is_fine_enough((24, 25, 25), (100, 100, 100), 16)


def test_names_of_regions_say_where_they_begin():
    region = next(iter(draw_regions(0, "a-ROI-b", (10, 1001, 99), 10)))
    name = region_name("a-ROI-b", region, (10, 1001, 99))
    assert naming.parse_region(name).start == region.start
    assert naming.parse_region(name).dataset == "a-ROI-b"
    for other in ("a", "a-ROI-", "a-ROI-1_2", "-ROI-1_2_3", "a-ROI-1_2_3x", "a-ROI-1_2_-3"):
        with pytest.raises(naming.GrammarError):
            naming.parse_region(other)
