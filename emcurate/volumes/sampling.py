"""Regions of interest: boxes drawn at random from a volume, spread over it, none overlapping, none of mostly padding.

What is drawn depends on the seed, the dataset's name, the volume's shape and the box's size alone: it is computed in
whole numbers, so that it is the same on any machine and with any version of any library.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from emcurate import naming
from emcurate.volumes.layouts import AnyArray, Shape

# The fractions of the additive recurrence R3 (Roberts 2018, "The unreasonable effectiveness of quasirandom sequences"):
# 1/g, 1/g², 1/g³ with g⁴ = g + 1, in units of 2⁻⁶⁴. Points drawn so fill a volume more evenly than chance would.
_BITS = 64
_STEPS = (15_111_065_706_836_454_659, 12_378_569_675_163_806_722, 10_140_184_033_053_478_359)

# Grid cells up to which all are drawn in the end; of more, drawing ends where so many in a row give nothing new.
MOST_CELLS_LISTED = 1 << 16
MOST_DRAWS_IN_VAIN = 1 << 16

# A coarse level tells how much of a box is padding while the box has so many voxels a side in it.
LEAST_COARSE_SIDE = 4


@dataclass(frozen=True)
class Region:
    """A box of voxels of a volume, (z, y, x): where it begins, and its sides."""

    start: Shape
    shape: Shape

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        z, y, x = (slice(at, at + side) for at, side in zip(self.start, self.shape, strict=True))
        return z, y, x


def draw_regions(seed: int, name: str, shape: Shape, size: int, chunk: Shape = (1, 1, 1)) -> Iterator[Region]:
    """Yield boxes of a volume in random order, each once, spread over it: the first few as well as all.

    They are cells of a grid of cubes, which begins at a random place; what is left over at the volume's faces is in
    none. Along an axis that is shorter than a cube they have the volume's side.

    Parameters
    ----------
    seed : int
    name : str
        The dataset's.
    shape : (z, y, x)
        The volume's sides in voxels.
    size : int
        Sides of a cube in voxels.
    chunk : (z, y, x)
        The volume's chunks: the grid begins with one, so that neighbouring cubes share none where their size allows.
    """
    digest = hashlib.sha512(f"{seed}\n{name}".encode()).digest()
    numbers = [int.from_bytes(digest[at : at + 8], "big") for at in range(0, len(digest), 8)]
    sides = [min(size, side) for side in shape]
    counts = [side // part for side, part in zip(shape, sides, strict=True)]
    left_over = [side - count * part for side, count, part in zip(shape, counts, sides, strict=True)]
    first = [
        step * (number * (left // step + 1) >> _BITS)
        for number, left, step in zip(numbers[3:6], left_over, chunk, strict=True)
    ]
    for cell in _draw_cells(numbers[:3], counts):
        z, y, x = (at + number * side for at, number, side in zip(first, cell, sides, strict=True))
        yield Region((z, y, x), (sides[0], sides[1], sides[2]))


def _draw_cells(shift: Sequence[int], counts: Sequence[int]) -> Iterator[tuple[int, ...]]:
    total, mask = math.prod(counts), (1 << _BITS) - 1
    seen: set[tuple[int, ...]] = set()
    in_vain = 0
    for draw in itertools.count():
        cell = tuple(
            (((start + draw * step) & mask) * count) >> _BITS
            for start, step, count in zip(shift, _STEPS, counts, strict=True)
        )
        if cell not in seen:
            seen.add(cell)
            in_vain = 0
            yield cell
        in_vain += 1
        if len(seen) == total or in_vain > MOST_DRAWS_IN_VAIN:
            break
    if len(seen) < total <= MOST_CELLS_LISTED:
        yield from (cell for cell in itertools.product(*map(range, counts)) if cell not in seen)


def region_name(name: str, region: Region, shape: Shape) -> str:
    """Return the name of the dataset that a region of a volume of some shape becomes."""
    z, y, x = (naming.index_width(side) for side in shape)
    return naming.Region(name, region.start, (z, y, x)).stem


def fraction_inside(voxels: AnyArray, padding: Sequence[float]) -> float:
    """Return which part of voxels is no padding: none of some values, and a number.

    >>> fraction_inside(np.array([0.0, 1.0, np.nan, 255.0]), [0, 255])
    0.25
    """
    outside: npt.NDArray[np.bool_] = np.zeros(voxels.shape, np.bool_)
    for value in padding:
        outside |= voxels == value
    if voxels.dtype.kind == "f":
        outside |= np.isnan(voxels)
    return float(1 - outside.mean()) if outside.size else 0.0


def coarse_box(region: Region, shape: Shape, coarse: Shape) -> tuple[slice, slice, slice]:
    """Return where a region of a volume of some shape is in a coarser level of it: all voxels that it touches."""
    spans = []
    for start, side, whole, few in zip(region.start, region.shape, shape, coarse, strict=True):
        first = min(start * few // whole, few - 1)
        spans.append(slice(first, max(first + 1, min(few, -(-(start + side) * few // whole)))))
    return spans[0], spans[1], spans[2]


def is_fine_enough(coarse: Shape, shape: Shape, size: int) -> bool:
    """Return whether a level still shows cubes of a volume in some voxels a side."""
    return all(
        min(size, whole) * few >= LEAST_COARSE_SIDE * whole or few == whole
        for whole, few in zip(shape, coarse, strict=True)
    )


def share_evenly(total: int, most: Sequence[int]) -> list[int]:
    """Return how much each of several gets of a total: the same, or all that it can take if that is less.

    >>> share_evenly(10, [2, 100, 100]), share_evenly(11, [2, 100, 100]), share_evenly(9, [1, 2])
    ([2, 4, 4], [2, 4, 5], [1, 2])
    """
    shares = [0] * len(most)
    left = min(total, sum(most))
    ascending = sorted(range(len(most)), key=lambda number: most[number])
    for place, number in enumerate(ascending):  # what the smallest cannot take is there for the others
        shares[number] = min(most[number], left // (len(most) - place))
        left -= shares[number]
    return shares


def share_bytes(total: int, each: Sequence[int], most: Sequence[int]) -> list[int]:
    """Return how many boxes each of several volumes gives, so that all have about as many bytes of a total.

    Parameters
    ----------
    total : int
        Bytes.
    each : sequence of int
        Bytes of a box of each.
    most : sequence of int
        Boxes that each can give.
    """
    shares = share_evenly(total, [one * number for one, number in zip(each, most, strict=True)])
    counts = [share // one for share, one in zip(shares, each, strict=True)]
    left = total - sum(count * one for count, one in zip(counts, each, strict=True))
    # What is left of shares that are no whole boxes makes some more, the volumes with the fewest bytes first.
    order = sorted(range(len(each)), key=lambda number: (counts[number] * each[number], number))
    for number in order:
        if counts[number] < most[number] and each[number] <= left:
            counts[number] += 1
            left -= each[number]
    return counts


def as_settings(padding: Sequence[float]) -> list[Any]:
    """Return padding as a ledger keeps it."""
    return [int(value) if float(value).is_integer() else float(value) for value in padding]
