"""Volumes of fewer, larger voxels: each the mean of the block that it covers, plane after plane.

A plane of the source, two of the result and a block of `iter_plane_blocks` are in memory, whatever the volume's depth.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from emcurate.errors import InputError
from emcurate.images.resampling import FloatArray, Weights, round_factor, sum_areas, weigh
from emcurate.volumes.cut_settings import VoxelSize
from emcurate.volumes.volume import Volume, iter_plane_blocks

Triple = tuple[float, float, float]

# Types that all formats that are written have; others become float32, and bits grey.
WRITTEN_TYPES = (np.uint8, np.int16, np.uint16, np.float32)

NOT_FINER = "ask for a coarser one, or take the volume as it is"


@dataclass(frozen=True)
class Binning:
    """How many voxels along (z, y, x) become one: so many, or as many as make voxels of a size in nm."""

    factor: tuple[int, int, int] | None = None
    pixel_size_nm: float | None = None

    def factors(self, volume: Volume) -> Triple:
        """Return how many voxels of a volume along (z, y, x) become one.

        With a size, sections that are thicker already keep their thickness.

        Raises
        ------
        InputError
            If the voxel size is unknown, or larger than the one asked for along y or x, or if no voxel is left.
        """
        if self.pixel_size_nm is None:
            found: Triple = self.factor or (1, 1, 1)
        else:
            found = self._factors_to_size(volume, self.pixel_size_nm)
        if any(side < factor for side, factor in zip(volume.shape, found, strict=True)):
            expected = "sides of at least " + " x ".join(f"{factor:g}" for factor in found) + " voxels (z, y, x)"
            raise InputError(volume.path, expected, " x ".join(map(str, volume.shape)), "ask for smaller blocks")
        return found

    def _factors_to_size(self, volume: Volume, size_nm: float) -> Triple:
        wanted = f"voxels of at most --pixel-size {size_nm:g} nm along y and x"
        if volume.voxel_size_nm is None:
            advice = "give their size with --voxel-size Z Y X (nm), or use --factor"
            raise InputError(volume.path, wanted, "an unknown voxel size", advice)
        z, y, x = (round_factor(size_nm / size) for size in volume.voxel_size_nm)
        if min(y, x) < 1:
            found = " x ".join(f"{size:g}" for size in volume.voxel_size_nm) + " nm (z, y, x)"
            raise InputError(volume.path, wanted, found, NOT_FINER)
        return max(z, 1.0), y, x


def binned_size(volume: Volume, factors: Triple) -> VoxelSize | None:
    """Return the (z, y, x) size in nm of the new voxels."""
    if volume.voxel_size_nm is None:
        return None
    z, y, x = (size * factor for size, factor in zip(volume.voxel_size_nm, factors, strict=True))
    return z, y, x


def binned_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type of the new voxels: that of the old where it is one of `WRITTEN_TYPES`.

    >>> [str(binned_type(np.dtype(name))) for name in ("bool", "uint8", "int8", "uint16", "int32", "float64")]
    ['uint8', 'uint8', 'int16', 'uint16', 'float32', 'float32']
    """
    if dtype == np.bool_:
        return np.dtype(np.uint8)
    if dtype == np.int8:
        return np.dtype(np.int16)
    return dtype if dtype.type in WRITTEN_TYPES else np.dtype(np.float32)


def binned_shape(volume: Volume, factors: Triple) -> tuple[int, int, int]:
    """Return the sides (z, y, x) of the new volume; what is less than a voxel at the far edges is dropped."""
    z, y, x = (len(weigh(side, factor).at) for side, factor in zip(volume.shape, factors, strict=True))
    return z, y, x


def iter_binned_planes(volume: Volume, factors: Triple) -> Iterator[npt.NDArray[Any]]:
    """Yield the planes (y, x) of the new volume, of type `binned_type`.

    Means are taken in float64, and rounded to the nearest where the type has whole numbers, halves to the even one. A
    NaN makes NaN of the block that holds it; of bits, 255 is what True is worth.
    """
    depths, rows, columns = (weigh(side, factor) for side, factor in zip(volume.shape, factors, strict=True))
    dtype = binned_type(volume.dtype)
    total = depths.total * rows.total * columns.total
    white = 255 if volume.dtype == np.bool_ else 1
    for summed in _sum_planes(volume, depths, rows, columns):
        means = summed * white / total
        yield (np.rint(means) if dtype.kind in "iu" else means).astype(dtype)


def _sum_planes(volume: Volume, depths: Weights, rows: Weights, columns: Weights) -> Iterator[FloatArray]:
    """Yield weighed sums of blocks, plane after plane."""
    parts: dict[int, list[tuple[int, float]]] = defaultdict(list)  # by old plane: new ones, and how much it is of them
    last: dict[int, int] = {}
    for new, (olds, some) in enumerate(zip(depths.at.tolist(), depths.parts.tolist(), strict=True)):
        for old, part in zip(olds, some, strict=True):
            if part > 0:
                parts[old].append((new, part))
                last[new] = old
    growing: dict[int, FloatArray] = {}
    for old, plane in enumerate(_iter_planes(volume, max(last.values()) + 1)):
        for new, _ in parts[old]:
            if new not in growing:
                growing[new] = np.zeros((len(rows.at), len(columns.at)))
        for some_rows, summed in sum_areas(plane, rows, columns):
            for new, part in parts[old]:
                growing[new][some_rows] += summed * part
        for new, _ in parts[old]:
            if last[new] == old:
                yield growing.pop(new)


def _iter_planes(volume: Volume, count: int) -> Iterator[npt.NDArray[Any]]:
    """Yield the first planes of a volume, read in one go where that is how they lie."""
    if not volume.random_access:
        yield from volume.voxels.iter_planes(0, count)
        return
    for start, stop in iter_plane_blocks(volume):
        if start < count:
            yield from volume.read(slice(start, min(stop, count)))
