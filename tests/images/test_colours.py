"""Colours of print and television: against Pillow, littleCMS and the formulas of TIFF 6.0 written out."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from PIL import Image, ImageCms

from emcurate.images.colours import (
    cielab_values,
    cmyk_to_rgb,
    icclab_values,
    join_subsampled,
    lab_to_rgb,
    ycbcr_to_rgb,
)

RNG = np.random.default_rng(4)


def test_cmyk_of_8_bits_is_pillows():
    inks = RNG.integers(0, 256, (50, 70, 4)).astype(np.uint8)
    np.testing.assert_array_equal(cmyk_to_rgb(inks), np.asarray(Image.fromarray(inks, "CMYK").convert("RGB")))


def test_cmyk_of_16_bits_is_the_fraction_of_white_left():
    inks = RNG.integers(0, 65536, (5, 6, 4)).astype(np.uint16)
    inks[0, 0] = 0
    inks[0, 1] = 65535
    found = cmyk_to_rgb(inks)
    assert found.dtype == np.uint16
    for place in np.ndindex(5, 6, 3):
        ink, black = int(inks[place]), int(inks[(*place[:2], 3)])
        assert found[place] == round(Fraction((65535 - ink) * (65535 - black), 65535))


def test_ycbcr_is_pillows_but_for_its_rounding():
    samples = RNG.integers(0, 256, (50, 70, 3)).astype(np.uint8)
    expected = np.asarray(Image.fromarray(samples, "YCbCr").convert("RGB")).astype(int)
    assert np.abs(ycbcr_to_rgb(samples) - expected).max() <= 1


def test_ycbcr_of_other_luma_and_of_studio_range():
    # BT.709 in studio range: black is 16, white 235, and chroma goes 112 steps to either side of 128.
    luma, reference = (0.2126, 0.7152, 0.0722), (16, 235, 128, 240, 128, 240)
    red = np.array([[0.2126 * 219 + 16, 128 - 0.2126 / 1.8556 * 224, 240]])
    samples = np.rint([[16, 128, 128], [235, 128, 128], *red.tolist()]).astype(np.uint8)
    found = ycbcr_to_rgb(samples, luma, reference).astype(int)
    assert found[:2].tolist() == [[0, 0, 0], [255, 255, 255]]
    assert np.abs(found[2] - [255, 0, 0]).max() <= 2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_ycbcr_without_chroma_is_its_luma(dtype):
    middle = (int(np.iinfo(dtype).max) + 1) // 2
    luma = np.linspace(0, np.iinfo(dtype).max, 40).astype(dtype)
    samples = np.stack([luma, *np.full((2, 40), middle, dtype)], axis=-1)
    np.testing.assert_array_equal(ycbcr_to_rgb(samples), np.repeat(luma[:, None], 3, axis=-1))


def test_lab_is_littlecms_srgb():
    lightness, colour = RNG.integers(60, 200, (60, 60, 1)), RNG.integers(-20, 21, (60, 60, 2))
    samples = np.concatenate([lightness, colour], axis=-1).astype(np.uint8)
    transform = ImageCms.buildTransform(
        ImageCms.createProfile("LAB"),
        ImageCms.createProfile("sRGB"),
        "LAB",
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        0x0100,  # cmsFLAGS_NOOPTIMIZE: else it interpolates between the nodes of a coarse table
    )
    # Raw bytes of Pillow's mode LAB are those of TIFF's CIELab.
    expected = np.asarray(ImageCms.applyTransform(Image.frombytes("LAB", (60, 60), samples.tobytes()), transform))
    found = lab_to_rgb(cielab_values(samples), np.dtype(np.uint8)).astype(int)
    # What sRGB cannot show, littleCMS clips by a rule of its own.
    shown = ((found > 0) & (found < 255)).all(axis=-1)
    assert shown.mean() > 0.9
    assert np.abs(found - expected)[shown].max() <= 1


def test_lab_without_colour_is_grey_and_of_the_whole_range():
    lightness = np.linspace(0, 100, 101)
    lab = np.stack([lightness, 0 * lightness, 0 * lightness], axis=-1)
    for dtype in (np.uint8, np.uint16):
        rgb = lab_to_rgb(lab, np.dtype(dtype)).astype(int)
        assert rgb[0].tolist() == [0, 0, 0] and rgb[-1].tolist() == [np.iinfo(dtype).max] * 3
        assert np.ptp(rgb, axis=-1).max() <= np.iinfo(dtype).max * 1e-4 + 1
        # L* 50 is a luminance of 18.4 %, which sRGB encodes as 46.6 %.
        assert rgb[50, 1] == pytest.approx(0.4663 * np.iinfo(dtype).max, abs=np.iinfo(dtype).max * 2e-3)


@pytest.mark.parametrize(
    ("values_of", "dtype", "samples", "expected"),
    [
        (cielab_values, np.uint8, (255, 0, 0), (100, 0, 0)),
        (cielab_values, np.uint8, (51, 5, 251), (20, 5, -5)),
        (cielab_values, np.uint16, (65535, 256, 65536 - 512), (100, 1, -2)),
        (icclab_values, np.uint8, (255, 128, 128), (100, 0, 0)),
        (icclab_values, np.uint8, (51, 133, 123), (20, 5, -5)),
        (icclab_values, np.uint16, (65280, 32768 + 256, 32768 - 512), (100, 1, -2)),
    ],
)
def test_lab_samples_as_tiff_and_icc_define_them(values_of, dtype, samples, expected):
    assert values_of(np.array([samples], dtype))[0].tolist() == pytest.approx(expected)


def test_shared_chroma_goes_to_all_pixels_of_its_unit():
    # Two units of 2 x 2 pixels beside each other, of an image one column and one row smaller.
    data = bytes([1, 2, 3, 4, 100, 200, 5, 6, 7, 8, 101, 201])
    found = join_subsampled(data, 1, 3, 2, 2)
    assert found.tolist() == [[[1, 100, 200], [2, 100, 200], [5, 101, 201]]]
    found = join_subsampled(data, 2, 4, 2, 2)
    assert found[..., 0].tolist() == [[1, 2, 5, 6], [3, 4, 7, 8]]
    with pytest.raises(ValueError):
        join_subsampled(data[:-1], 2, 4, 2, 2)
