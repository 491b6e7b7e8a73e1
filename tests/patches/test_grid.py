import pytest

from emcurate.patches.grid import iter_grid


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
