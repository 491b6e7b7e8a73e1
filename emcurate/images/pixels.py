"""The one rule that turns pixels of any type into uint8.

uint8 stays as it is. Everything else is ``round((v - low) * 255 / (high - low))``, clipped to 0..255, with limits
chosen by one of three methods. A volume has one pair of limits, never one a slice, so `measure` works block by block.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from emcurate.errors import DataWarning, InputError

Method = Literal["dtype", "minmax", "percentile"]
AnyArray = npt.NDArray[Any]
UInt8Array = npt.NDArray[np.uint8]

# ITU-R BT.601 luma weights of red, green and blue, in thousandths so that integer pixels are weighed exactly.
BT601_THOUSANDTHS = (299, 587, 114)

# Percentiles are exact up to this many pixels; of a larger volume every k-th pixel is looked at.
PERCENTILE_SAMPLE = 1 << 26

# Pixels converted at a time, so that the float64 intermediate takes 8 MiB whatever the image's size.
BLOCK_PIXELS = 1 << 20

# Above this, 255 * (high - low) could overflow float64; such pixels are divided first, by a power of two, exactly.
LARGEST_SAFE = 1e305
OVERFLOW_DIVISOR = 1024

# The dtype rule deserves a warning when less than this part of the grey range is used.
NARROW_RANGE = 0.1


@dataclass(frozen=True)
class Rescale:
    """How limits are chosen. `method` None means by type: dtype for integers, minmax for floats."""

    method: Method | None = None
    percentiles: tuple[float, float] = (0.1, 99.9)

    def method_for(self, dtype: np.dtype[Any]) -> Method:
        """Return the method used for a pixel type."""
        if self.method is not None and not (self.method == "dtype" and dtype.kind == "f"):
            return self.method
        return "minmax" if dtype.kind == "f" else "dtype"


@dataclass(frozen=True)
class Sample:
    """Pixels of which percentiles are wanted: each as it is, or for few-bit types each value once with its count.

    `counts` is None where `values` are the pixels themselves; else `values` are ascending and counted in int64.
    """

    values: AnyArray
    counts: npt.NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Statistics:
    """What must be known of the pixels to choose limits; those of blocks can be merged.

    `minimum` and `maximum` are finite extremes (None where no pixel is finite), `nonfinite` counts NaN and
    infinities, `sample` holds every `step`-th finite pixel where percentiles are wanted.
    """

    minimum: float | None
    maximum: float | None
    nonfinite: int = 0
    sample: Sample | None = None


@dataclass(frozen=True)
class Limits:
    """The pixel values that become 0 and 255; equal ones make everything 0. None for uint8, which stays."""

    low: float
    high: float


SIGNED_BYTES = Limits(-128, 127)


def measure(pixels: AnyArray, sample_step: int = 0) -> Statistics:
    """Return the statistics of an array of any shape; with `sample_step` k, keep every k-th finite pixel."""
    nonfinite = 0
    if pixels.dtype.kind == "f":
        finite = np.isfinite(pixels)
        nonfinite = pixels.size - int(np.count_nonzero(finite))
        if nonfinite:
            pixels = pixels[finite]
    if pixels.size == 0:
        return Statistics(None, None, nonfinite)
    sample = _take_sample(pixels.ravel()[::sample_step]) if sample_step else None
    return Statistics(pixels.min().item(), pixels.max().item(), nonfinite, sample)


def merge_statistics(parts: Iterable[Statistics]) -> Statistics:
    """Return the statistics of several blocks taken together; of counted samples only the sum is held."""
    minimum = maximum = None
    nonfinite, counted, samples = 0, None, []
    for part in parts:
        minimum = _extreme(min, minimum, part.minimum)
        maximum = _extreme(max, maximum, part.maximum)
        nonfinite += part.nonfinite
        if part.sample is not None and part.sample.counts is not None:
            counted = part.sample if counted is None else _add_counts(counted, part.sample)
        elif part.sample is not None:
            samples.append(part.sample.values)
    return Statistics(minimum, maximum, nonfinite, Sample(np.concatenate(samples)) if samples else counted)


def sample_step(size: int, dtype: np.dtype[Any], rescale: Rescale) -> int:
    """Return the `sample_step` to measure `size` pixels with: 0 unless percentiles are wanted."""
    if rescale.method_for(dtype) != "percentile":
        return 0
    return max(1, -(-size // PERCENTILE_SAMPLE))


def needs_measuring(dtype: np.dtype[Any]) -> bool:
    """Return whether the pixels must be looked at before they can be converted; uint8 stays as it is."""
    return dtype != np.uint8


def choose_limits(statistics: Statistics, dtype: np.dtype[Any], rescale: Rescale) -> Limits:
    """Return the limits for pixels of a type, by `rescale`. An image of one value gets equal limits."""
    low, high = statistics.minimum, statistics.maximum
    if low is None or high is None or low == high:
        return Limits(0, 0)
    method = rescale.method_for(dtype)
    if method == "percentile":
        if statistics.sample is None:
            raise ValueError("percentile limits need statistics measured with sample_step")
        low, high = _percentiles(statistics.sample, rescale.percentiles)
    elif method == "dtype":
        low, high = _dtype_range(dtype, low)
    return Limits(low, high)


def convert(pixels: AnyArray, limits: Limits) -> UInt8Array:
    """Return pixels as uint8: ``round((v - low) * 255 / (high - low))`` clipped; NaN and infinities become 0.

    Rounding is to the nearest, halves to the even neighbour, computed in float64. uint8 comes back unchanged.
    """
    if pixels.dtype == np.uint8:
        return pixels
    if limits.low == limits.high:
        return np.zeros(pixels.shape, np.uint8)
    if pixels.dtype.kind in "iu" and pixels.dtype.itemsize <= 2:
        if pixels.dtype == np.int8 and limits == SIGNED_BYTES:
            return pixels.view(np.uint8) ^ np.uint8(0x80)  # what the table below says, in a tenth of its time
        native = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
        converted: UInt8Array = _lookup_table(native.dtype, limits)[native.view(f"u{native.dtype.itemsize}")]
        return converted
    source = np.ascontiguousarray(pixels).reshape(-1)
    result = np.empty(source.shape, np.uint8)
    for start in range(0, source.size, BLOCK_PIXELS):
        block = slice(start, start + BLOCK_PIXELS)
        result[block] = _scale(source[block], limits)
    return result.reshape(pixels.shape)


def find_limits(pixels: AnyArray, rescale: Rescale, path: str | os.PathLike[str]) -> Limits:
    """Return the limits of one whole image by the rule, and warn about what its owner may not expect.

    Raises
    ------
    InputError
        For pixels the rule does not know; `path` names the image.
    """
    check_pixel_type(pixels.dtype, path)
    if not needs_measuring(pixels.dtype):
        return Limits(0, 255)
    statistics = measure(pixels, sample_step(pixels.size, pixels.dtype, rescale))
    limits = choose_limits(statistics, pixels.dtype, rescale)
    warn_of_oddities(statistics, limits, pixels.dtype, rescale, path)
    return limits


def to_uint8(pixels: AnyArray, rescale: Rescale, path: str | os.PathLike[str]) -> UInt8Array:
    """Convert one whole image by the rule, as `find_limits` and `convert` do; `path` names it."""
    return convert(pixels, find_limits(pixels, rescale, path))


def check_pixel_type(dtype: np.dtype[Any], path: str | os.PathLike[str]) -> None:
    """Raise `InputError` for pixels the rule does not know, such as complex numbers."""
    if dtype.kind not in "biuf":
        raise InputError(
            path, "integer, floating-point or boolean pixels", f"{dtype} pixels", "convert them (say, to magnitudes)"
        )


def warn_of_oddities(
    statistics: Statistics,
    limits: Limits,
    dtype: np.dtype[Any],
    rescale: Rescale,
    path: str | os.PathLike[str],
) -> None:
    """Warn of NaN and infinities, of percentiles that are one value, and of a type's range filled under a tenth."""
    name = os.fspath(path)
    if statistics.nonfinite:
        message = f"{name}: {statistics.nonfinite:,} pixels are NaN or infinite and become 0"
        warnings.warn(message, DataWarning, stacklevel=2)
    low, high = statistics.minimum, statistics.maximum
    if low is None or high is None or low == high:
        return
    method = rescale.method_for(dtype)
    if method == "percentile" and limits.low == limits.high:
        first, second = rescale.percentiles
        message = (
            f"{name}: percentiles {first:g} and {second:g} are both {limits.low:g}, of values {low:g} to {high:g}, so "
            "that all become 0 (black); give --percentiles further apart, or use --rescale minmax"
        )
        warnings.warn(message, DataWarning, stacklevel=2)
    if method != "dtype":
        return
    used = (high - low) / (limits.high - limits.low)
    if used < NARROW_RANGE:
        message = (
            f"{name}: {dtype} values {low:g} to {high:g} fill {used:.1%} of the type's range and so "
            "of the grey values; --rescale percentile would use all of them"
        )
        warnings.warn(message, DataWarning, stacklevel=2)


def to_grey(pixels: AnyArray) -> AnyArray:
    """Return the grey of an image stored with channels, of the same type.

    Parameters
    ----------
    pixels : (..., C) array, C = 1, 2, 3 or 4
        Grey, grey and alpha, RGB, or RGB and alpha. Alpha is dropped.

    Returns
    -------
    (...) array
        The common value where red, green and blue are equal everywhere, else their BT.601 luminance.
    """
    channels = pixels.shape[-1]
    red = pixels[..., 0]
    if channels < 3:
        return np.ascontiguousarray(red)
    green, blue = pixels[..., 1], pixels[..., 2]
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return np.ascontiguousarray(red)
    weights = np.array(BT601_THOUSANDTHS)
    if pixels.dtype in (np.uint8, np.uint16):
        thousandfold = pixels[..., :3].astype(np.uint32) @ weights.astype(np.uint32)
        return ((thousandfold + 500) // 1000).astype(pixels.dtype)
    luma = pixels[..., :3].astype(np.float64) @ (weights / 1000)
    return (luma if pixels.dtype.kind == "f" else np.rint(luma)).astype(pixels.dtype)


def _take_sample(pixels: AnyArray) -> Sample:
    """Return pixels as a sample: copied, or counted by value where there are at most 65,536 values."""
    if pixels.dtype.kind not in "biu" or pixels.dtype.itemsize > 2:
        return Sample(pixels.copy())
    lowest = 0 if pixels.dtype.kind == "b" else int(np.iinfo(pixels.dtype).min)
    counts = np.zeros(1 << (8 * pixels.dtype.itemsize), np.int64)
    for start in range(0, pixels.size, BLOCK_PIXELS):
        offsets = pixels[start : start + BLOCK_PIXELS].astype(np.int64) - lowest
        counts += np.bincount(offsets, minlength=counts.size)
    used = np.flatnonzero(counts)
    return Sample((used + lowest).astype(np.int32), counts[used])


def _add_counts(one: Sample, other: Sample) -> Sample:
    assert one.counts is not None and other.counts is not None
    values, places = np.unique(np.concatenate([one.values, other.values]), return_inverse=True)
    counts = np.zeros(values.size, np.int64)
    np.add.at(counts, places, np.concatenate([one.counts, other.counts]))
    return Sample(values, counts)


def _percentiles(sample: Sample, percentiles: tuple[float, float]) -> tuple[float, float]:
    """Return two percentiles of a sample, interpolated linearly in float64, bit for bit as `np.percentile` does."""
    if sample.counts is None:
        # float64 first: percentiles of float16 are interpolated between values and would be rounded.
        low, high = np.percentile(sample.values.astype(np.float64), percentiles, overwrite_input=True).tolist()
        return low, high
    ends = np.cumsum(sample.counts)
    last = int(ends[-1]) - 1
    rank = last * np.true_divide(percentiles, 100)
    before = np.floor(rank)
    # The pixel of rank r, counted from 0, is the first value whose pixels end after r.
    lower, upper = (
        sample.values[np.searchsorted(ends, np.minimum(at, last), side="right")].astype(np.float64)
        for at in (before, before + 1)
    )
    part = rank - before
    step = upper - lower
    # From the nearer of the two, which decides how the sum is rounded.
    low, high = np.where(part < 0.5, lower + step * part, upper - step * (1 - part)).tolist()
    return low, high


def _extreme(choose: Callable[[float, float], float], one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    return choose(one, other)


def _dtype_range(dtype: np.dtype[Any], minimum: float) -> tuple[float, float]:
    if dtype.kind == "b":
        return 0, 1
    info = np.iinfo(dtype)
    # A signed type is often only a container: without a negative value it holds 0..max.
    return (0 if minimum >= 0 else int(info.min)), int(info.max)


def _lookup_table(dtype: np.dtype[Any], limits: Limits) -> UInt8Array:
    # Indexed by the value's bits read as unsigned, which is what a view of the pixels gives.
    every_value = np.arange(1 << (8 * dtype.itemsize)).astype(f"u{dtype.itemsize}").view(dtype)
    return _scale(every_value, limits)


def _scale(values: AnyArray, limits: Limits) -> UInt8Array:
    low, high = limits.low, limits.high
    scaled = values.astype(np.float64)
    if max(abs(low), abs(high)) > LARGEST_SAFE:
        scaled, low, high = scaled / OVERFLOW_DIVISOR, low / OVERFLOW_DIVISOR, high / OVERFLOW_DIVISOR
    with np.errstate(invalid="ignore"):
        # In the order the rule is written: a product with 255 / (high - low) would miss exact halves.
        scaled -= low
        scaled *= 255
        scaled /= high - low
        np.rint(scaled, out=scaled)
    finite = np.isfinite(values) if values.dtype.kind == "f" else True
    return np.where(finite, np.clip(scaled, 0, 255), 0).astype(np.uint8)
