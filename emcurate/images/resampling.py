"""Resample sections to one pixel size: exact averages of areas on the way down, straight lines on the way up.

A new pixel is the mean of the area that it covers, pixels at its border counted by the part of them that lies in it.
Its size is exactly the one asked for: what is left at the far edges, less than a new pixel, is dropped.

scikit-image's `resize_local_mean` takes the same averages, but stretches them so that they reach the far edges, which
makes a pixel size that differs from image to image, and multiplies with matrices of the size of the image.
"""

from __future__ import annotations

import functools
import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from emcurate.errors import InputError

Factors = tuple[float, float]
FloatArray = npt.NDArray[np.float64]

# Part of a pixel size by which two of them may differ and still be the same: files round them (see `SIZE_ROUNDING`).
SAME_SIZE = 5e-5

# Source pixels that are worked on at a time: as float64 they take 16 MiB.
BLOCK_PIXELS = 1 << 21


@dataclass(frozen=True)
class Scale:
    """The pixel size that sections are brought to.

    Parameters
    ----------
    pixel_size_nm : float, optional
        None to leave them as they are.
    allow_upsampling : bool
        Whether pixels may become smaller than those of the source, which shows no more than that.
    """

    pixel_size_nm: float | None = None
    allow_upsampling: bool = False

    @property
    def settings(self) -> dict[str, float]:
        """What decides over the result, as ledgers keep it; nothing where nothing is resampled."""
        return {} if self.pixel_size_nm is None else {"pixel_size": self.pixel_size_nm}


@dataclass(frozen=True)
class Resampled:
    """How the sections of a volume became coarser, or finer: their pixel size, and the (z, y, x) voxel size before.

    Of images, whose pixel sizes differ, there is no voxel size.
    """

    pixel_size_nm: float
    voxel_size_nm: tuple[float, float, float] | None = None

    def factors(self, plane: int) -> Factors | None:
        """Return how many voxels along the rows and columns of a plane make a pixel; None where each makes one."""
        if self.voxel_size_nm is None:
            return None
        y, x = (_round_factor(self.pixel_size_nm / size) for size in in_plane(self.voxel_size_nm, plane))
        return None if (y, x) == (1, 1) else (y, x)


@dataclass(frozen=True)
class Weights:
    """How the pixels along an axis are weighed.

    Attributes
    ----------
    at : (n, k) int
        The old pixels that each of n new ones is made of.
    parts : (n, k) float64
        How much of each.
    total : float
        What the parts of one new pixel add up to; kept apart so that means of whole pixels are exact.
    """

    at: npt.NDArray[np.int64]
    parts: FloatArray
    total: float


def find_factors(
    scale: Scale,
    size_nm: tuple[float, float] | None,
    shape: tuple[int, int],
    path: str | os.PathLike[str],
    how_to_give: str,
) -> Factors | None:
    """Return how many pixels along (y, x) make a new one; None where nothing is to be resampled.

    Parameters
    ----------
    scale : Scale
    size_nm : (y, x), optional
        The pixel size of the source; None where it is unknown.
    shape : (rows, columns)
    path : path
        Of the source, for messages.
    how_to_give : str
        How a user can tell the pixel size of the source, for the message that it is unknown.

    Raises
    ------
    InputError
        If the source's pixel size is unknown, larger than the one asked for and not to be made smaller, or so small
        that nothing is left.
    """
    wanted = scale.pixel_size_nm
    if wanted is None:
        return None
    expected = f"a pixel size, to bring it to --pixel-size {wanted:g}"
    if size_nm is None:
        raise InputError(path, expected, "none that is known", how_to_give)
    y, x = (_round_factor(wanted / size) for size in size_nm)
    if min(y, x) < 1 and not scale.allow_upsampling:
        found = f"one of {size_nm[0]:g} x {size_nm[1]:g} nm (y, x), which shows less detail"
        advice = "ask for a coarser one, or give --allow-upsampling"
        raise InputError(path, f"pixels of at most --pixel-size {wanted:g} nm", found, advice)
    if 0 in resampled_shape(shape, (y, x)):
        found = f"{shape[0]} x {shape[1]} pixels of {size_nm[0]:g} x {size_nm[1]:g} nm (y, x)"
        raise InputError(path, f"at least one pixel of --pixel-size {wanted:g} nm", found, "ask for a finer one")
    return None if (y, x) == (1, 1) else (y, x)


def in_plane(sizes: tuple[float, float, float], plane: int) -> tuple[float, float]:
    """Return of three sizes along (z, y, x) those along the rows and columns of a plane.

    >>> in_plane((40, 4, 5), 0), in_plane((40, 4, 5), 1), in_plane((40, 4, 5), 2)
    ((4, 5), (40, 5), (40, 4))
    """
    first, second = (size for axis, size in enumerate(sizes) if axis != plane)
    return first, second


def resampled_shape(shape: tuple[int, int], factors: Factors | None) -> tuple[int, int]:
    """Return how many new pixels there are along (y, x).

    >>> resampled_shape((1001, 500), (8 / 3, 2)), resampled_shape((3, 3), None)
    ((375, 250), (3, 3))
    """
    if factors is None:
        return shape
    return _count(shape[0], factors[0]), _count(shape[1], factors[1])


def resample(pixels: npt.NDArray[np.uint8], factors: Factors | None) -> npt.NDArray[np.uint8]:
    """Return a (rows, columns) uint8 section with other pixels, rounded to the nearest, halves to the even neighbour.

    Parameters
    ----------
    pixels : (rows, columns) uint8
    factors : (y, x), optional
        How many old pixels make a new one; None leaves them as they are.
    """
    if factors is None:
        return pixels
    rows, columns = weigh(pixels.shape[0], factors[0]), weigh(pixels.shape[1], factors[1])
    found = np.empty((len(rows.at), len(columns.at)), np.uint8)
    at_once = max(1, int(BLOCK_PIXELS / pixels.shape[1] / max(1.0, factors[0])))
    for start in range(0, len(rows.at), at_once):
        some = slice(start, start + at_once)
        found[some] = np.rint(average(pixels, slice_weights(rows, some), columns))
    return found


def find_window(
    shape: tuple[int, int], factors: Factors | None, rows: tuple[int, int], columns: tuple[int, int]
) -> tuple[slice, slice]:
    """Return the old pixels that a window of new ones is made of.

    Parameters
    ----------
    shape : (rows, columns)
        Of the whole section, in old pixels.
    factors : (y, x), optional
    rows, columns : (start, stop)
        The window in new pixels.
    """
    if factors is None:
        return slice(*rows), slice(*columns)
    found = [
        weigh(length, factor).at[slice(*ends)]
        for length, factor, ends in zip(shape, factors, (rows, columns), strict=True)
    ]
    down, across = (slice(int(at.min()), int(at.max()) + 1) if at.size else slice(0, 0) for at in found)
    return down, across


def resample_window(
    pixels: npt.NDArray[np.uint8],
    shape: tuple[int, int],
    factors: Factors | None,
    rows: tuple[int, int],
    columns: tuple[int, int],
) -> npt.NDArray[np.uint8]:
    """Return a window of what `resample` makes of a section, from the pixels that `find_window` names."""
    if factors is None:
        return pixels
    box = find_window(shape, factors, rows, columns)
    weights = []
    for length, factor, ends, taken in zip(shape, factors, (rows, columns), box, strict=True):
        some = slice_weights(weigh(length, factor), slice(*ends))
        weights.append(Weights(some.at - taken.start, some.parts, some.total))
    return np.rint(average(pixels, *weights)).astype(np.uint8)


def average(pixels: npt.NDArray[Any], rows: Weights, columns: Weights) -> FloatArray:
    """Return weighed means of the pixels of a (rows, columns) array, (n rows, n columns) float64."""
    summed = _sum_rows(pixels, rows)
    summed = _sum_rows(np.ascontiguousarray(summed.T), columns).T
    return np.asarray(summed / (rows.total * columns.total))


def slice_weights(weights: Weights, some: slice) -> Weights:
    """Return the weights of some new pixels only."""
    return Weights(weights.at[some], weights.parts[some], weights.total)


@functools.lru_cache(maxsize=64)
def weigh(length: int, factor: float) -> Weights:
    """Return the weights by which `factor` pixels along an axis become one: means, or below 1 straight lines."""
    count = _count(length, factor)
    if factor < 1:
        # Between the middles of pixels; before the first and after the last they go on as they end.
        middles = (np.arange(count) + 0.5) * factor - 0.5
        first = np.floor(middles)
        parts = np.stack([1 - (middles - first), middles - first], axis=1)
        total = 1.0
    else:
        edges = np.arange(count + 1) * factor
        first = np.floor(edges[:-1])
        # Each new pixel reaches into one old one more than its size at most.
        old = first[:, None] + np.arange(math.ceil(factor) + 1)
        parts = np.minimum(edges[1:, None], old + 1) - np.maximum(edges[:-1, None], old)
        parts = parts.clip(0, 1)
        parts = parts[:, : 1 + np.flatnonzero(parts.any(axis=0))[-1]] if count else parts
        total = factor
    at = (first[:, None] + np.arange(parts.shape[1])).clip(0, length - 1).astype(np.int64)
    for array in (at, parts):
        array.flags.writeable = False  # shared by all sections of this size
    return Weights(at, parts, total)


def _sum_rows(pixels: npt.NDArray[Any], weights: Weights) -> FloatArray:
    """Return weighed sums of the rows of an array, (n, columns) float64."""
    summed = np.zeros((len(weights.at), *pixels.shape[1:]))
    for rows, parts in zip(weights.at.T, weights.parts.T, strict=True):
        summed += pixels[rows] * parts[:, None]
    return summed


def _round_factor(factor: float) -> float:
    """Return a factor, a whole one where it is that within `SAME_SIZE`."""
    whole = round(factor)
    return float(whole) if whole and abs(factor / whole - 1) <= SAME_SIZE else factor


def _count(length: int, factor: float) -> int:
    # A count that is whole but for the rounding of the division is that.
    return math.floor(length / factor * (1 + 1e-12) + 1e-9)
