import math

import numpy as np
import pytest
from skimage.transform import downscale_local_mean, resize, resize_local_mean

from emcurate.errors import InputError
from emcurate.images.resampling import Scale, find_factors, resample, resampled_shape

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (120, 90)).astype(np.uint8)


def naive_area_mean(pixels, factors):
    """Every new pixel by itself, from the areas in which it overlaps old ones."""
    rows, columns = (math.floor(side / factor + 1e-9) for side, factor in zip(pixels.shape, factors, strict=True))
    found = np.empty((rows, columns))
    for i in range(rows):
        for j in range(columns):
            total = 0.0
            for y in range(int(i * factors[0]), min(pixels.shape[0], math.ceil((i + 1) * factors[0]))):
                for x in range(int(j * factors[1]), min(pixels.shape[1], math.ceil((j + 1) * factors[1]))):
                    high = min(y + 1, (i + 1) * factors[0]) - max(y, i * factors[0])
                    wide = min(x + 1, (j + 1) * factors[1]) - max(x, j * factors[1])
                    total += max(high, 0) * max(wide, 0) * pixels[y, x]
            found[i, j] = total / (factors[0] * factors[1])
    return found


@pytest.mark.parametrize("factor", [2, 3, 5, 7, 30])
def test_whole_factors_give_the_block_mean_to_the_last_half(factor):
    rows, columns = 120 // factor, 90 // factor
    blocks = PIXELS[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor)
    expected = np.rint(blocks.sum(axis=(1, 3)) / factor**2)
    found = resample(PIXELS, (float(factor), float(factor)))
    assert found.dtype == np.uint8
    assert np.array_equal(found, expected)
    local_mean = downscale_local_mean(PIXELS[: rows * factor, : columns * factor], (factor, factor))
    assert np.abs(found - local_mean).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("factors", [(1.5, 1.5), (8 / 3, 2), (2.3, 1.0), (1.0, 7.7), (1.01, 44.9), (119.5, 90.0)])
def test_other_factors_give_the_mean_of_the_area(factors):
    expected = naive_area_mean(PIXELS, factors)
    found = resample(PIXELS, factors)
    assert found.shape == expected.shape == resampled_shape(PIXELS.shape, factors)
    assert np.abs(found - expected).max() <= 0.5 + 1e-9


@pytest.mark.parametrize(("rows", "columns"), [(80, 60), (48, 36), (100, 75), (1, 1), (119, 90)])
def test_where_the_new_pixels_reach_the_edge_scikit_image_agrees(rows, columns):
    expected = resize_local_mean(PIXELS, (rows, columns), grid_mode=True, preserve_range=True)
    found = resample(PIXELS, (120 / rows, 90 / columns))
    assert found.shape == (rows, columns)
    assert np.abs(found - expected).max() <= 0.5 + 1e-6


@pytest.mark.parametrize(("rows", "columns"), [(240, 180), (180, 135), (121, 91)])
def test_smaller_pixels_are_those_of_scikit_image(rows, columns):
    expected = resize(PIXELS, (rows, columns), order=1, mode="edge", anti_aliasing=False, preserve_range=True)
    found = resample(PIXELS, (120 / rows, 90 / columns))
    assert np.abs(found - expected).max() <= 0.5 + 1e-6


def test_blocks_of_rows_change_nothing(monkeypatch):
    whole = resample(PIXELS, (2.3, 1.7))
    monkeypatch.setattr("emcurate.images.resampling.BLOCK_PIXELS", 500)
    assert np.array_equal(resample(PIXELS, (2.3, 1.7)), whole)


def test_a_constant_stays_what_it_is():
    for factor in (1.1, 2.0, 3.7, 0.4):
        assert (resample(np.full((50, 40), 201, np.uint8), (factor, factor)) == 201).all()


def test_sizes_that_differ_by_rounding_are_the_same():
    for size in (4.0, 4.0001, 3.99985):
        assert find_factors(Scale(4.0), (size, size), (10, 10), "a", "") is None
        assert find_factors(Scale(8.0), (size, 4.0), (10, 10), "a", "") == (2, 2)
    assert resampled_shape((1000, 999), find_factors(Scale(0.3), (0.1, 0.1), (1000, 999), "a", "") or (0, 0)) == (
        333,
        333,
    )


@pytest.mark.parametrize(
    ("size", "shape", "message"),
    [
        (None, (10, 10), "none that is known; say it"),
        ((4.0, 9.0), (10, 10), "--allow-upsampling"),
        ((4.0, 4.0), (1, 10), "at least one pixel of --pixel-size 8 nm"),
    ],
)
def test_what_cannot_be_resampled_is_refused(size, shape, message):
    with pytest.raises(InputError, match=message):
        find_factors(Scale(8.0), size, shape, "a.tif", "say it")


def test_smaller_pixels_must_be_allowed():
    assert find_factors(Scale(8.0, allow_upsampling=True), (4.0, 16.0), (10, 10), "a", "") == (2, 0.5)
