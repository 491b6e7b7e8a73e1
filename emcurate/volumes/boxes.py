"""Boxes of voxels: where columns of informative patches become subvolumes, and which of them are kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product

Triple = tuple[int, int, int]


@dataclass(frozen=True, order=True)
class Box:
    """A box of voxels in (z, y, x): its start, its end (exclusive), and how many informative patches speak for it."""

    start: Triple
    stop: Triple
    score: int = 0

    @property
    def shape(self) -> Triple:
        """Sides in voxels, (z, y, x)."""
        (z0, y0, x0), (z1, y1, x1) = self.start, self.stop
        return z1 - z0, y1 - y0, x1 - x0

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The box as an index into a (z, y, x) array."""
        (z0, y0, x0), (z1, y1, x1) = self.start, self.stop
        return slice(z0, z1), slice(y0, y1), slice(x0, x1)


@dataclass(frozen=True, order=True)
class Column:
    """The patches at one place of one plane, through all its sections; sizes in pixels, which are voxels."""

    plane: int
    y: int
    x: int
    height: int
    width: int


def score_stretches(columns: Mapping[Column, Iterable[int]], shape: Triple, depth: int) -> list[Box]:
    """Return a box for each stretch of a column that has any informative patch, scored by their number.

    Each column is divided, along its plane's axis, into stretches of `depth` sections from 0 on.

    Parameters
    ----------
    columns : mapping of Column to iterable of int
        The sections in which each column's patch is informative.
    shape : (z, y, x)
        The volume's sides in voxels.
    depth : int
        Sections a stretch; the last stretch may have fewer.
    """
    boxes = []
    for column, sections in columns.items():
        scores: dict[int, int] = defaultdict(int)
        for index in set(sections):
            scores[index // depth] += 1
        for stretch, score in scores.items():
            along = (stretch * depth, min((stretch + 1) * depth, shape[column.plane]))
            spans = [(column.y, column.y + column.height), (column.x, column.x + column.width)]
            # A section's rows and columns run along the two other axes, in the order z, y, x.
            spans.insert(column.plane, along)
            (z0, z1), (y0, y1), (x0, x1) = spans
            boxes.append(Box((z0, y0, x0), (z1, y1, x1), score))
    return boxes


def find_candidates(stretches: Iterable[Box], depth: int) -> list[Box]:
    """Return the stretches that have enough informative patches: more than ``depth // 10``."""
    return [box for box in stretches if box.score > depth // 10]


def measure_overlap(first: Box, second: Box) -> float:
    """Return the intersection over union of two boxes, from 0 to 1."""
    shared = 1
    for a0, a1, b0, b1 in zip(first.start, first.stop, second.start, second.stop, strict=True):
        shared *= max(0, min(a1, b1) - max(a0, b0))
    return shared / (_size(first) + _size(second) - shared)


def suppress_overlapping(boxes: Iterable[Box], threshold: float) -> list[Box]:
    """Return the boxes that non-maximum suppression keeps, the best first.

    Boxes are taken by falling score, ties by position; one that overlaps a kept one by more than `threshold`
    (intersection over union) is dropped.
    """
    ordered = sorted(boxes, key=lambda box: (-box.score, box.start, box.stop))
    # Cells as large as the largest box: two boxes that overlap share one, and no box lies in more than eight.
    cell = max((max(box.shape) for box in ordered), default=1)
    kept: list[Box] = []
    kept_in_cell: dict[Triple, list[Box]] = defaultdict(list)
    for box in ordered:
        cells = _cells(box, cell)
        if any(measure_overlap(box, other) > threshold for c in cells for other in kept_in_cell[c]):
            continue
        kept.append(box)
        for c in cells:
            kept_in_cell[c].append(box)
    return kept


def _cells(box: Box, side: int) -> list[Triple]:
    ranges = [range(a // side, (b - 1) // side + 1) for a, b in zip(box.start, box.stop, strict=True)]
    return [(z, y, x) for z, y, x in product(*ranges)]


def _size(box: Box) -> int:
    z, y, x = box.shape
    return z * y * x
