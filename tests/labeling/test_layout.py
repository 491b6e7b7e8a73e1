"""How many patches a window has room for."""

import itertools

import pytest

from emcurate.labeling.layout import GRID_SIDES, TILE_SIZES, Room, fit_grid


@pytest.mark.parametrize("width", [150, 400, 850, 1080, 1450, 1910, 3800])
@pytest.mark.parametrize("wanted", [64, 150, 224, 400, 640])
def test_what_is_fitted_is_seen_whole_and_leaves_no_room_for_another_column(width, wanted):
    for height in (130, 390, 610, 770, 1000, 2100):
        room = Room(width, height, 16, 38)
        rows, columns, size = fit_grid(room, wanted)
        assert TILE_SIZES[0] <= size <= max(wanted, TILE_SIZES[0])
        assert columns * (size + 16) <= width
        assert rows * (size + 38) <= height
        assert (columns + 1) * (size + 16) > width or columns == GRID_SIDES[1]


def test_a_window_too_small_for_a_tile_still_gets_one():
    assert fit_grid(Room(20, 10, 16, 38), 224) == (1, 1, TILE_SIZES[0])
    assert fit_grid(Room(-5, -40, 16, 38), 224) == (1, 1, TILE_SIZES[0])


def test_a_taller_window_never_shows_fewer_rows_and_tiles_shrink_to_half_at_most():
    found = [fit_grid(Room(1000, height, 16, 38), 224) for height in range(160, 2000, 10)]
    assert all(before[0] <= after[0] for before, after in itertools.pairwise(found))
    assert min(size for _, _, size in found) >= 224 / 2


def test_a_page_is_more_than_a_few_patches_where_smaller_tiles_allow_it():
    assert fit_grid(Room(1100, 620, 16, 38), 224) == (2, 4, 224), "enough as they are"
    rows, columns, size = fit_grid(Room(700, 340, 16, 38), 224)
    assert rows * columns >= 6 and size >= 112
    assert fit_grid(Room(300, 262, 16, 38), 224) == (1, 1, 224), "half the size would not do either"
