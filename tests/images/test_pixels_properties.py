"""The rule to uint8 for any pixels at all, against the same sum done in fractions."""

import warnings
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from emcurate.errors import DataWarning
from emcurate.images.pixels import Rescale, convert, find_limits, measure, merge_statistics

TYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "?"]
SHAPES = arrays.array_shapes(min_dims=2, max_dims=2, max_side=6)


@st.composite
def images(draw):
    dtype = np.dtype(draw(st.sampled_from(TYPES)))
    return draw(arrays.arrays(dtype, SHAPES))


def limits_of(pixels, method):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        return find_limits(pixels, Rescale(method), "a.tif")


def by_fractions(value, low, high):
    """Return round((v - low) * 255 / (high - low)), clipped, without any rounding on the way; the nearest two."""
    exact = (Fraction(value) - Fraction(low)) * 255 / (Fraction(high) - Fraction(low))
    exact = min(max(exact, Fraction(0)), Fraction(255))
    return {int(exact), min(int(exact) + 1, 255)} if abs(exact - round(exact)) > Fraction(49, 100) else {round(exact)}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@settings(deadline=None, max_examples=150)
@given(images(), st.sampled_from([None, "dtype", "minmax", "percentile"]))
def test_every_image_becomes_grey_by_the_rule(pixels, method):
    limits = limits_of(pixels, method)
    grey = convert(pixels, limits)
    assert (grey.dtype, grey.shape) == (np.uint8, pixels.shape)
    if pixels.dtype == np.uint8:
        np.testing.assert_array_equal(grey, pixels)
        return
    for value, level in zip(pixels.ravel().tolist(), grey.ravel().tolist(), strict=True):
        if not np.isfinite(value) or limits.low == limits.high:
            assert level == 0
        else:
            assert level in by_fractions(value, limits.low, limits.high)


@settings(deadline=None, max_examples=100)
@given(images())
def test_brighter_pixels_never_become_darker(pixels):
    finite = np.isfinite(pixels) if pixels.dtype.kind == "f" else np.ones(pixels.shape, bool)
    grey = convert(pixels, limits_of(pixels, None))[finite]
    assert (np.diff(grey[np.argsort(pixels[finite], kind="stable")].astype(int)) >= 0).all()


@settings(deadline=None, max_examples=100)
@given(images(), st.integers(1, 5))
def test_a_volume_measured_in_blocks_is_measured_as_one(pixels, rows):
    whole = measure(pixels, 1)
    parts = merge_statistics(measure(pixels[start : start + rows], 1) for start in range(0, len(pixels), rows))
    assert (parts.minimum, parts.maximum, parts.nonfinite) == (whole.minimum, whole.maximum, whole.nonfinite)
    if whole.sample is not None:
        np.testing.assert_array_equal(parts.sample.values, whole.sample.values)
