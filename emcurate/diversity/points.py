"""Features as points of unit length, in a file, so that millions of them need no memory and every worker sees them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emcurate.partials import partial_path
from emcurate.running.made import MadeWhenAsked
from emcurate.writing import create_for_arrays

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

# Points of a job: enough that a sum for each cluster is a small part of what is added up.
JOB_ROWS = 1 << 14

# Shorter than any features of a network: what has this length has no direction.
SHORTEST = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class Points:
    """Points in an ``.npy`` file, or some of them.

    Attributes
    ----------
    path : Path
        Of (n, width) numbers.
    rows : (m,) int64, optional
        Which of them; all by default.
    unit : bool
        Whether each is divided by its length, as features are.
    """

    path: Path
    rows: Rows | None = None
    unit: bool = False

    def __len__(self) -> int:
        return len(self._open()) if self.rows is None else len(self.rows)

    @property
    def width(self) -> int:
        """How many numbers a point has."""
        return int(self._open().shape[1])

    def some(self, rows: Rows) -> Points:
        """Return some of these points."""
        return Points(self.path, rows if self.rows is None else self.rows[rows], self.unit)

    def read(self, start: int, stop: int) -> Floats:
        """Return points by their places, (stop - start, width) float32."""
        array = self._open()
        found = array[start:stop] if self.rows is None else array[self.rows[start:stop]]
        points: Floats = np.ascontiguousarray(found, np.float32)
        return make_unit(points) if self.unit else points

    def take(self, places: Rows) -> Floats:
        """Return some points, (m, width) float32."""
        some = self.some(places)
        return some.read(0, len(places))

    def _open(self) -> npt.NDArray[np.floating]:
        array: npt.NDArray[np.floating] = np.load(self.path, mmap_mode="r", allow_pickle=False)
        return array


def make_unit(points: npt.ArrayLike) -> Floats:
    """Return points divided by their lengths; one without length stays where it is."""
    points = np.asarray(points, np.float32)
    lengths = np.sqrt(np.einsum("ij,ij->i", points, points, dtype=np.float64))
    units: Floats = (points / np.maximum(lengths, SHORTEST)[:, None]).astype(np.float32)
    return units


@dataclass(frozen=True)
class Span:
    """A job's points, by their places."""

    points: Points
    start: int
    stop: int

    @property
    def name(self) -> str:
        return f"points {self.start:,} to {self.stop:,}"

    def read(self, count: int) -> Iterator[tuple[int, Floats]]:
        """Yield so many points at a time, each time with the place of the first in the job."""
        for start in range(self.start, self.stop, count):
            yield start - self.start, self.points.read(start, min(start + count, self.stop))


class Spans(MadeWhenAsked[Span]):
    """All points, divided into jobs."""

    def __init__(self, points: Points) -> None:
        self._points, self._count = points, len(points)

    def __len__(self) -> int:
        return -(-self._count // JOB_ROWS)

    def make(self, index: int) -> Span:
        """Return some of the points."""
        start, stop = index * JOB_ROWS, min((index + 1) * JOB_ROWS, self._count)
        rows = self._points.rows
        # A job is sent: only with the rows that it is about.
        if rows is None:
            return Span(self._points, start, stop)
        return Span(Points(self._points.path, rows[start:stop], self._points.unit), 0, stop - start)


def write_points(path: Path, points: npt.ArrayLike) -> Points:
    """Write points as they are, and return them."""
    partial = partial_path(path.parent)
    try:
        with create_for_arrays(partial) as file:
            np.save(file, np.asarray(points), allow_pickle=False)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return Points(path)
