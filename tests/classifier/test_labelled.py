"""Validation patches: of both classes, about the part asked for, whole datasets where asked for."""

import numpy as np
import pytest

from emcurate.classifier.labelled import split_by_dataset, split_random


@pytest.mark.parametrize(("count", "part"), [(1000, 0.15), (40, 0.15), (5, 0.15), (40, 0.0), (40, 1.0)])
def test_random_split_takes_the_part_of_each_class(count, part):
    truth = np.arange(count) % 5 < 2
    held = split_random(truth, part, seed=1)
    for value in (False, True):
        members = (truth == value).sum()
        assert held[truth == value].sum() == min(max(1, round(part * members)), members - 1)
    np.testing.assert_array_equal(held, split_random(truth, part, seed=1))
    if count == 1000:
        assert not np.array_equal(held, split_random(truth, part, seed=2))


def test_random_split_needs_two_of_each():
    with pytest.raises(ValueError, match="at least two"):
        split_random(np.array([True, True, False]), 0.15, 0)


def test_datasets_stay_whole():
    random = np.random.default_rng(0)
    datasets = [f"set {n}" for n in random.integers(0, 12, 600)]
    truth = random.random(600) < 0.4
    held = split_by_dataset(truth, datasets, 0.15, seed=3)
    sides = {name: {bool(h) for h, d in zip(held, datasets, strict=True) if d == name} for name in set(datasets)}
    assert all(len(side) == 1 for side in sides.values())
    for value in (False, True):
        assert held[truth == value].mean() == pytest.approx(0.15, abs=0.06)
    np.testing.assert_array_equal(held, split_by_dataset(truth, datasets, 0.15, seed=3))


def test_both_classes_are_on_both_sides_wherever_that_can_be():
    # Only a and b together, or c, can be held back.
    truth = np.array([True, False, True, False, True, False])
    held = split_by_dataset(truth, ["a", "b", "a", "b", "c", "c"], 0.15, seed=0)
    assert held.tolist() in ([False] * 4 + [True] * 2, [True] * 4 + [False] * 2)


@pytest.mark.parametrize("datasets", [["a"] * 4, ["a", "b", "a", "b"]])
def test_what_cannot_be_divided_is_refused(datasets):
    with pytest.raises(ValueError, match="no choice of datasets"):
        split_by_dataset(np.array([True, False, True, False]), datasets, 0.15, 0)
