"""Colours as print and television keep them, turned into red, green and blue: CMYK, YCbCr, CIE L*a*b*.

Every function takes and returns arrays whose last axis is the channels. The result has the type of the input and the
whole range of it, as RGB images have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

AnyArray = npt.NDArray[Any]

# Parts of red, green and blue in the luma of YCbCr, where a file does not say: ITU-R BT.601, as TIFF 6.0 has it.
BT601_LUMA = (0.299, 0.587, 0.114)

# Linear red, green and blue of sRGB from CIE XYZ relative to D50, the white of L*a*b* in files and colour profiles:
# the inverse of sRGB's primaries adapted from D65 with the Bradford matrix (IEC 61966-2-1; ICC.1:2022, annex E).
SRGB_FROM_XYZ_D50 = np.array(
    [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.0334540],
        [0.0719453, -0.2289914, 1.4052427],
    ]
)
D50_WHITE = np.array([0.96422, 1.0, 0.82521])

# CIE 15: below this the cube root of L*a*b* goes over into a line of that slope and height.
LAB_LINE_BELOW = 6 / 29
LAB_LINE_SLOPE = 3 * LAB_LINE_BELOW**2
LAB_LINE_OFFSET = 4 / 29


def cmyk_to_rgb(inks: AnyArray) -> AnyArray:
    """Return what is left of white under cyan, magenta and yellow ink (0..all of the unsigned type) and black.

    ``(white - ink) * (white - black) / white``, as Pillow and libtiff have it, without a colour profile.
    """
    white = int(np.iinfo(inks.dtype).max)
    wide = inks.astype(np.uint64)
    paper, uncovered = white - wide[..., :3], white - wide[..., 3:4]
    # White is odd, so no quotient lies half way between two integers.
    rounded: AnyArray = ((paper * uncovered + white // 2) // white).astype(inks.dtype)
    return rounded


def ycbcr_to_rgb(
    samples: AnyArray,
    luma: Sequence[float] = BT601_LUMA,
    reference: Sequence[float] | None = None,
) -> AnyArray:
    """Return luma and two chroma differences of an unsigned type as red, green and blue (TIFF 6.0, section 21).

    Parameters
    ----------
    samples : (..., 3) array
    luma : (red, green, blue)
        Their parts in the luma; tag YCbCrCoefficients.
    reference : six numbers, optional
        What stands for black and white in Y, and for 0 and the most in Cb and in Cr; tag ReferenceBlackWhite.
    """
    white = int(np.iinfo(samples.dtype).max)
    middle = (white + 1) // 2
    black_y, white_y, zero_cb, most_cb, zero_cr, most_cr = reference or (0, white, middle, white, middle, white)
    y, cb, cr = np.moveaxis(samples[..., :3].astype(np.float64), -1, 0)
    y = (y - black_y) * white / (white_y - black_y)
    cb = (cb - zero_cb) * (white - middle) / (most_cb - zero_cb)
    cr = (cr - zero_cr) * (white - middle) / (most_cr - zero_cr)
    red = cr * (2 - 2 * luma[0]) + y
    blue = cb * (2 - 2 * luma[2]) + y
    green = (y - luma[0] * red - luma[2] * blue) / luma[1]
    return _to_integers(np.stack([red, green, blue], axis=-1), samples.dtype)


def lab_to_rgb(lab: AnyArray, dtype: np.dtype[Any]) -> AnyArray:
    """Return CIE L* (0..100), a*, b* relative to D50, as sRGB of an unsigned type; what sRGB cannot show is clipped."""
    lightness = (lab[..., 0] + 16) / 116
    roots = np.stack([lightness + lab[..., 1] / 500, lightness, lightness - lab[..., 2] / 200], axis=-1)
    line = LAB_LINE_SLOPE * (roots - LAB_LINE_OFFSET)
    xyz = D50_WHITE * np.where(roots > LAB_LINE_BELOW, roots**3, line)
    linear = np.clip(xyz @ SRGB_FROM_XYZ_D50.T, 0, 1)
    # IEC 61966-2-1: the transfer function of sRGB.
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return _to_integers(encoded * np.iinfo(dtype).max, dtype)


def cielab_values(samples: AnyArray) -> AnyArray:
    """Return L* a* b* of 8- or 16-bit samples as TIFF's CIELab stores them: a* and b* are signed."""
    signed = samples[..., 1:3].view(f"i{samples.dtype.itemsize}")
    steps = 1 << (8 * samples.dtype.itemsize - 8)
    lightness = samples[..., :1] * (100 / np.iinfo(samples.dtype).max)
    return np.concatenate([lightness, signed / steps], axis=-1)


def icclab_values(samples: AnyArray) -> AnyArray:
    """Return L* a* b* of 8- or 16-bit samples as ICC profiles, and so TIFF's ICCLab, store them: a*, b* plus 128."""
    steps = 1 << (8 * samples.dtype.itemsize - 8)
    # 100 is 255 in 8 bits and 255 * 256 in 16 (ICC.1:2001, annex A).
    return np.concatenate([samples[..., :1] * (100 / (255 * steps)), samples[..., 1:3] / steps - 128], axis=-1)


def join_subsampled(data: bytes, height: int, width: int, horizontal: int, vertical: int) -> npt.NDArray[np.uint8]:
    """Return the (height, width, 3) samples of 8-bit YCbCr whose chroma stands once for several pixels.

    Each unit holds the luma of `vertical` rows of `horizontal` pixels, then one Cb and one Cr, which are repeated
    for all of them (TIFF 6.0, section 21). Units reach beyond the right and the lower edge.

    Raises
    ------
    ValueError
        If there are fewer data than the units take.
    """
    across, down, lumas = -(-width // horizontal), -(-height // vertical), horizontal * vertical
    units = np.frombuffer(data, np.uint8, across * down * (lumas + 2)).reshape(down, across, lumas + 2)
    samples = np.empty((down, vertical, across, horizontal, 3), np.uint8)
    samples[..., 0] = units[..., :lumas].reshape(down, across, vertical, horizontal).transpose(0, 2, 1, 3)
    samples[..., 1:] = units[:, None, :, None, lumas:]
    return samples.reshape(down * vertical, across * horizontal, 3)[:height, :width]


def _to_integers(values: AnyArray, dtype: np.dtype[Any]) -> AnyArray:
    return np.clip(np.rint(values), 0, np.iinfo(dtype).max).astype(dtype)
