import warnings
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from emcurate.errors import DataWarning, InputError
from emcurate.images.pixels import (
    Rescale,
    choose_limits,
    convert,
    measure,
    merge_statistics,
    sample_step,
    to_grey,
    to_uint8,
)

INTEGERS = ["int8", "int16", "int32", "uint16", "uint32"]
FLOATS = ["float16", "float32", "float64"]


def literal_rule(pixels, low, high):
    """SPEC's formula in exact rational arithmetic, pixel by pixel; Python rounds halves to even."""
    result = np.zeros(pixels.shape, np.uint8)
    for place, value in np.ndenumerate(pixels):
        if np.isfinite(value) and low != high:
            scaled = (Fraction(value.item()) - Fraction(low)) * 255 / (Fraction(high) - Fraction(low))
            result[place] = min(255, max(0, round(scaled)))
    return result


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        yield


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2)))
def test_uint8_stays_bit_for_bit(pixels):
    for method in (None, "minmax", "percentile"):
        assert np.array_equal(to_uint8(pixels, Rescale(method), "a"), pixels)


@pytest.mark.parametrize("dtype", INTEGERS)
@given(data=st.data())
def test_integers_use_the_range_of_their_type(dtype, data):
    info = np.iinfo(dtype)
    pixels = data.draw(hnp.arrays(dtype, (3, 4), elements=st.integers(info.min, info.max)))
    if pixels.min() == pixels.max():
        expected = np.zeros((3, 4), np.uint8)
    else:
        expected = literal_rule(pixels, 0 if pixels.min() >= 0 else int(info.min), int(info.max))
    assert np.array_equal(to_uint8(pixels, Rescale(), "a"), expected)


@pytest.mark.parametrize("dtype", INTEGERS + FLOATS)
@given(data=st.data())
def test_minmax_uses_the_finite_extremes(dtype, data):
    if dtype in INTEGERS:
        elements = st.integers(np.iinfo(dtype).min, np.iinfo(dtype).max)
    else:
        elements = st.sampled_from([0.0, 0.5, 1.0, 2.5, -7.25, 100.0, np.nan, np.inf, -np.inf])
    pixels = data.draw(hnp.arrays(dtype, (3, 4), elements=elements))
    finite = pixels[np.isfinite(pixels)]
    low, high = (finite.min().item(), finite.max().item()) if finite.size else (0, 0)
    assert np.array_equal(to_uint8(pixels, Rescale("minmax"), "a"), literal_rule(pixels, low, high))


def test_floats_are_scaled_by_their_extremes_unless_told_otherwise():
    pixels = np.array([[0.1, 0.2], [0.3, 0.7]], np.float32)
    expected = literal_rule(pixels, pixels.min().item(), pixels.max().item())
    assert np.array_equal(to_uint8(pixels, Rescale(), "a"), expected)
    assert np.array_equal(to_uint8(pixels, Rescale("dtype"), "a"), expected)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_percentile_limits_are_numpys(dtype):
    pixels = (np.random.default_rng(0).normal(1000, 200, (50, 60))).astype(dtype)
    low, high = np.percentile(pixels.astype(np.float64), [1, 98])
    expected = np.clip(np.rint((pixels.astype(np.float64) - low) * 255 / (high - low)), 0, 255)
    assert np.array_equal(to_uint8(pixels, Rescale("percentile", (1, 98)), "a"), expected)


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "uint8", "int16", "uint16", ">u2", ">i2", "int32", "float16", "float32"]
)
@given(data=st.data())
def test_percentiles_of_blocks_are_numpys_bit_for_bit(dtype, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    spread = data.draw(st.sampled_from([1, 3, 40, 3000, 30000]))
    sizes = data.draw(st.lists(st.integers(1, 400), min_size=1, max_size=4))
    step = data.draw(st.integers(1, 5))
    percentiles = data.draw(st.tuples(*[st.floats(0, 100, allow_subnormal=False)] * 2).map(sorted).map(tuple))
    kind = np.dtype(dtype)
    lowest = 0 if kind.kind in "ub" else -spread
    highest = min(spread, 1 if kind.kind == "b" else 120 if kind.itemsize == 1 else spread)
    blocks = [rng.integers(max(lowest, -128 if kind.itemsize == 1 else lowest), highest + 1, size) for size in sizes]
    blocks = [(block / 7 if kind.kind == "f" else block).astype(kind) for block in blocks]
    sample = np.concatenate([block[::step] for block in blocks]).astype(np.float64)
    merged = merge_statistics(measure(block, step) for block in blocks)
    if merged.minimum == merged.maximum:
        return
    found = choose_limits(merged, kind, Rescale("percentile", percentiles))
    assert [found.low, found.high] == np.percentile(sample, percentiles).tolist()


def test_a_counted_sample_does_not_grow_with_the_pixels():
    pixels = np.random.default_rng(0).integers(0, 500, 3_000_000).astype(np.uint16)
    sample = measure(pixels, 1).sample
    assert sample.values.size == sample.counts.size == 500
    assert sample.counts.tolist() == np.bincount(pixels).tolist()


def test_percentiles_that_are_one_value_are_noticed():
    pixels = np.zeros((40, 50), np.float32)
    pixels[0, 0] = 9
    with pytest.warns(
        DataWarning, match=r"a\.tif: percentiles 1 and 99 are both 0, of values 0 to 9.*black.*--rescale"
    ):
        assert not to_uint8(pixels, Rescale("percentile", (1, 99)), "a.tif").any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        to_uint8(pixels, Rescale("minmax"), "a.tif")
        to_uint8(np.zeros((4, 5), np.float32), Rescale("percentile"), "a.tif")


def test_bool_becomes_black_and_white():
    assert to_uint8(np.array([[True, False]]), Rescale(), "a").tolist() == [[255, 0]]


@pytest.mark.parametrize("dtype", ["bool", *INTEGERS, *FLOATS])
@pytest.mark.parametrize("method", [None, "minmax", "percentile"])
def test_a_constant_image_becomes_zero(dtype, method):
    assert not to_uint8(np.ones((4, 5), dtype), Rescale(method), "a").any()


@pytest.mark.parametrize("dtype", [">u2", ">i2", ">f4", ">u4"])
def test_byte_order_does_not_matter(dtype):
    pixels = np.array([[0, 1, 257], [1000, 30000, 32767]], dtype)
    native = pixels.astype(pixels.dtype.newbyteorder("="))
    assert np.array_equal(to_uint8(pixels, Rescale(), "a"), to_uint8(native, Rescale(), "a"))


def test_extremes_that_overflow():
    pixels = np.array([[-1.7e308, 0, 1.7e308]])
    assert to_uint8(pixels, Rescale(), "a").tolist() == [[0, 128, 255]]


def test_nan_and_infinities_are_counted_and_become_zero():
    pixels = np.array([[np.nan, np.inf, -np.inf, 1, 2]], np.float32)
    with pytest.warns(DataWarning, match=r"a\.tif: 3 pixels are NaN or infinite"):
        assert to_uint8(pixels, Rescale(), "a.tif").tolist() == [[0, 0, 0, 0, 255]]


def test_twelve_bits_in_sixteen_are_noticed():
    pixels = np.linspace(0, 4095, 100).astype(np.uint16).reshape(10, 10)
    with pytest.warns(DataWarning, match="--rescale percentile"):
        to_uint8(pixels, Rescale(), "a.tif")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        to_uint8(pixels * 16, Rescale(), "a.tif")
        to_uint8(pixels, Rescale("minmax"), "a.tif")


def test_complex_pixels_are_refused():
    with pytest.raises(InputError, match=r"a\.mrc.*complex64"):
        to_uint8(np.zeros((2, 2), np.complex64), Rescale(), "a.mrc")


@pytest.mark.parametrize("method", ["dtype", "minmax", "percentile"])
def test_blocks_give_the_limits_of_the_whole(method):
    volume = np.random.default_rng(1).normal(0, 500, (9, 20, 30)).astype(np.int16)
    rescale = Rescale(method)
    step = sample_step(volume.size, volume.dtype, rescale)
    whole = choose_limits(measure(volume, step), volume.dtype, rescale)
    blocks = choose_limits(merge_statistics(measure(b, step) for b in np.split(volume, 3)), volume.dtype, rescale)
    assert whole == blocks
    assert np.array_equal(convert(volume, whole)[4], convert(volume[4], blocks))


def test_grey_stored_as_colour_is_taken_as_it_is():
    grey = np.random.default_rng(2).integers(0, 256, (6, 7)).astype(np.uint8)
    alpha = np.full_like(grey, 17)
    for channels in ([grey], [grey, alpha], [grey] * 3, [grey, grey, grey, alpha]):
        assert np.array_equal(to_grey(np.stack(channels, axis=-1)), grey)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_colour_becomes_bt601_luminance(dtype):
    colour = np.random.default_rng(3).integers(0, np.iinfo(dtype).max, (40, 50, 4)).astype(dtype)
    red, green, blue = (colour[..., c].astype(float) for c in range(3))
    grey = to_grey(colour)
    assert grey.dtype == dtype
    assert np.abs(grey - (0.299 * red + 0.587 * green + 0.114 * blue)).max() <= 0.5 + 1e-9
    if dtype == "uint8":
        # Pillow weighs with 16-bit fractions and may round the other way.
        assert np.abs(grey.astype(int) - np.asarray(Image.fromarray(colour[..., :3]).convert("L"))).max() <= 1
