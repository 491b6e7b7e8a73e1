import itertools

import pytest

from emcurate.patches.grid import count_patches, iter_grid


@pytest.mark.parametrize(
    ("side", "count"), [(560, 2), (336, 2), (335, 1), (100, 1), (337, 2), (784, 4), (783, 3), (224, 1), (1, 1)]
)
def test_grid_rounds_halves_to_even(side, count):
    rows = [r for r, c in iter_grid(side, 1, 224)]
    assert len(rows) == count
    assert [r.start for r in rows] == [224 * i for i in range(count)]
    assert rows[-1].stop == min(224 * count, side)


def test_grid_goes_row_by_row():
    corners = [(rows.start, columns.start) for rows, columns in iter_grid(100, 170, 50)]
    assert corners == [(0, 0), (0, 50), (0, 100), (50, 0), (50, 50), (50, 100)]


@pytest.mark.parametrize("crop_size", [1, 7, 32])
@pytest.mark.parametrize("min_size", [1, 4, 16, 32, 40])
def test_patches_are_counted_as_they_are_cut(crop_size, min_size):
    for height, width in itertools.product([1, 3, 4, 10, 31, 33, 48, 80, 95, 97], [1, 5, 16, 47, 112]):
        sides = [
            (rows.stop - rows.start, columns.stop - columns.start)
            for rows, columns in iter_grid(height, width, crop_size)
        ]
        assert count_patches(height, width, crop_size, min_size) == sum(min(side) >= min_size for side in sides)


@pytest.mark.timeout(5)
def test_patches_of_a_section_that_claims_to_be_endless_are_counted_at_once():
    assert count_patches(2**31, 2**31, 32) == 2**52
