"""Drawing patches: shares of datasets by properties that tell them apart from others, places against brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emcurate.patches.drawing import POWERS, allot, order_by_place, spread, weigh
from emcurate.patches.splits import hold_back

sizes = st.lists(st.integers(0, 300), min_size=1, max_size=12).map(lambda values: np.array(values, np.int64))


@given(sizes, st.integers(0, 2000), st.sampled_from(sorted(POWERS)))
def test_shares_add_up_and_nobody_gives_more_than_it_has(available, total, balance):
    taken = allot(available, total, POWERS[balance])
    assert taken.sum() == min(total, available.sum())
    assert (taken <= available).all() and (taken >= 0).all()


@given(sizes, st.integers(0, 2000))
def test_even_shares_differ_by_one_at_most_but_where_a_dataset_has_fewer(available, total):
    taken = allot(available, total, 0)
    not_full = taken[taken < available]
    if len(not_full):
        assert not_full.max() - not_full.min() <= 1
        assert taken.max() <= not_full.max() + 1


def test_square_root_shares_are_those_of_square_roots():
    assert allot(np.array([100, 10_000, 400]), 130, POWERS["sqrt"]).tolist() == [10, 100, 20]
    # The first has too few for its share, so that the others' grow in their proportion.
    assert allot(np.array([9, 1_000_000, 250_000]), 309, POWERS["sqrt"]).tolist() == [1, 205, 103]
    assert allot(np.array([1, 90, 0]), 46, POWERS["size"]).tolist() == [1, 45, 0]


@given(sizes, st.integers(0, 2000), st.sampled_from(sorted(POWERS)), st.sampled_from(sorted(POWERS)))
def test_drawing_by_weight_gives_datasets_the_shares_they_should_have(offered, total, drawn_by, balance):
    counts = allot(offered, total, POWERS[drawn_by])
    if not counts.any():
        return
    mass = counts * weigh(counts, offered, POWERS[balance])
    assert mass.sum() == pytest.approx(counts.sum())
    there = counts > 0
    expected = offered[there].astype(float) ** POWERS[balance]
    assert not mass[~there].any()
    np.testing.assert_allclose(mass[there] / mass.sum(), expected / expected.sum())


def make_grid(planes=3, sections=20, side=8):
    strata, places = [], []
    for plane, section, y, x in itertools.product(range(planes), range(sections), range(side), range(side)):
        strata.append(plane)
        places.append((section * 10, y * 32, x * 32))
    return np.array(strata), np.array(places)


@pytest.mark.parametrize("count", [0, 1, 2, 30, 384, 3839, 3840])
def test_what_is_drawn_is_spread_over_planes_and_places(count):
    strata, places = make_grid()
    chosen = spread(strata, places, count, 0, "fly")
    assert len(set(chosen.tolist())) == count and (np.diff(chosen) > 0).all()
    of_plane = np.bincount(strata[chosen], minlength=3)
    assert of_plane.max() - of_plane.min() <= 1
    if count >= 30:
        # Of every octant of each plane as many as its share, give or take little; by lot it would be thrice that.
        for plane in range(3):
            mine = places[chosen[strata[chosen] == plane]]
            octants = (mine >= np.array([100, 128, 128])).astype(int) @ [4, 2, 1]
            found = np.bincount(octants, minlength=8)
            assert abs(found - len(mine) / 8).max() <= 2.5


def test_another_seed_or_name_draws_others_and_the_same_the_same():
    strata, places = make_grid()
    drawn = [spread(strata, places, 50, seed, name).tolist() for seed, name in ((0, "a"), (0, "a"), (1, "a"), (0, "b"))]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2] != drawn[3] != drawn[0]


def test_places_in_order_are_close_to_their_neighbours():
    _, places = make_grid(planes=1)
    ordered = places[np.argsort(order_by_place(places), kind="stable")]
    steps = np.linalg.norm(np.diff(ordered, axis=0), axis=1)
    shuffled = np.random.default_rng(0).permutation(places)
    assert np.median(steps) < np.median(np.linalg.norm(np.diff(shuffled, axis=0), axis=1)) / 3
    assert len(order_by_place(np.zeros((0, 3), np.int64))) == 0


@pytest.mark.parametrize("seed", range(5))
def test_datasets_are_held_back_whole_and_as_near_to_the_part_as_can_be(seed):
    counts = np.random.default_rng(seed).integers(1, 100, 8)
    held = hold_back(counts[:, None], 0.2, seed)
    assert 0 < len(held) < 8 and len(set(held.tolist())) == len(held)
    subsets = itertools.chain.from_iterable(itertools.combinations(range(8), n) for n in range(1, 8))
    best = min(abs(counts[list(subset)].sum() / counts.sum() - 0.2) for subset in subsets)
    assert abs(counts[held].sum() / counts.sum() - 0.2) <= best + 0.02
    assert hold_back(np.array([[5]]), 0.2, 0) is None
