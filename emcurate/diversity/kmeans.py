"""k-means of points in a file, the same for any number of threads or workers, and for a run that was interrupted.

Source: S. Lloyd, "Least squares quantization in PCM", 1982; starts as of D. Arthur and S. Vassilvitskii, "k-means++",
2007. Measured against faiss-cpu, it takes as long on the same cores; it needs no memory for the points.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from emcurate.diversity.points import JOB_ROWS, Floats, Points, Span, Spans
from emcurate.errors import InputError
from emcurate.partials import partial_path
from emcurate.running.jobs import Workers
from emcurate.running.made import MadeWhenAsked
from emcurate.running.report import Report
from emcurate.writing import create_for_arrays

Labels = npt.NDArray[np.int32]

# Steps at most; and the part of the sum of squares below which a step counts as none.
STEPS = 20
LEAST_GAIN = 1e-4

# Points among which the first centres are sought, for each of them.
SOUGHT_AMONG = 10

# Points whose distances to all centres are held at once, in numbers.
DISTANCES_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Assigned:
    """The nearest centre of each of n points: `labels` (n,) int32, and `squares` (n,) float32, of the distances."""

    labels: Labels
    squares: Floats


@dataclass(frozen=True)
class _Job:
    """Points, and the centres that are sought for them: an array, or for the workers of a cluster a file."""

    index: int
    span: Span
    centres: Floats | Path

    @property
    def name(self) -> str:
        return self.span.name


class _Jobs(MadeWhenAsked[_Job]):
    def __init__(self, points: Points, centres: Floats | Path) -> None:
        self._spans, self._centres = Spans(points), centres

    def __len__(self) -> int:
        return len(self._spans)

    def make(self, index: int) -> _Job:
        """Return a job."""
        return _Job(index, self._spans[index], self._centres)


@dataclass(frozen=True)
class _Part:
    """What a job found: its points' centres, and the sum of the points of each centre that has any of them."""

    assigned: Assigned
    found: npt.NDArray[np.int64]
    sums: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]


def nearest(points: Floats, centres: Floats, squares: Floats) -> tuple[Labels, Floats]:
    """Return the nearest centre of each point, of equals the first, and the square of its distance.

    Parameters
    ----------
    points : (n, width) float32
    centres : (k, width) float32
    squares : (k,) float32
        Of the lengths of the centres.
    """
    products = points @ centres.T
    products *= -2
    products += squares
    labels = products.argmin(axis=1)
    own = np.einsum("ij,ij->i", points, points)
    return labels.astype(np.int32), np.maximum(products[np.arange(len(points)), labels] + own, 0)


def measure(points: Floats) -> Floats:
    """Return the squares of lengths, (n,) float32."""
    found: Floats = np.einsum("ij,ij->i", points, points)
    return found


def _assign_some(job: _Job) -> _Part:
    centres: Floats = np.load(job.centres, allow_pickle=False) if isinstance(job.centres, Path) else job.centres
    count = job.span.stop - job.span.start
    labels, squares = np.empty(count, np.int32), np.empty(count, np.float32)
    sums = np.zeros(centres.shape)
    of_centres = measure(centres)
    for start, points in job.span.read(max(1, DISTANCES_AT_ONCE // len(centres))):
        some = slice(start, start + len(points))
        labels[some], squares[some] = nearest(points, centres, of_centres)
        order = np.argsort(labels[some], kind="stable")
        found, first = np.unique(labels[some][order], return_index=True)
        sums[found] += np.add.reduceat(points[order].astype(np.float64), first, axis=0)
    counts = np.bincount(labels, minlength=len(centres))
    there = np.flatnonzero(counts)
    return _Part(Assigned(labels, squares), there, sums[there], counts[there])


def _assign_remotely(job: _Job) -> _Part:
    _use_one_thread()
    return _assign_some(job)


@functools.cache
def _use_one_thread() -> None:
    # For good: in a worker, several jobs would else end each other's limits.
    threadpool_limits(1, "blas")


@dataclass(frozen=True)
class Progress:
    """How far a k-means has come: its steps, the sum of squares that the last of them found, and its centres."""

    steps: int
    squares: float
    centres: Floats


class Clustering:
    """Who does the work of k-means, and where.

    Parameters
    ----------
    workers : Workers
        Threads of this process, or the workers of a cluster.
    report : Report
    scratch : Path
        A directory that all workers see.
    """

    def __init__(self, workers: Workers, report: Report, scratch: Path) -> None:
        self._workers, self._report, self._scratch = workers, report, scratch

    def assign(self, points: Points, centres: Floats) -> Assigned:
        """Return the nearest centre of each point."""
        return self._assign(points, centres)[0]

    def run(self, points: Points, start: Progress, keep: Callable[[Progress], None] = lambda progress: None) -> Floats:
        """Return the centres that k-means ends with.

        A centre that has no points goes where a point is farthest from its own.

        Parameters
        ----------
        points : Points
        start : Progress
            Where to begin or to go on.
        keep : callable
            Is told after each step.
        """
        now = start
        while now.steps < STEPS:
            assigned, sums, counts = self._assign(points, now.centres)
            squares = float(assigned.squares.sum(dtype=np.float64))
            if now.squares - squares <= LEAST_GAIN * squares:
                break
            centres = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
            empty = np.flatnonzero(counts == 0)
            farthest = np.argsort(-assigned.squares, kind="stable")[: len(empty)]
            centres[empty[: len(farthest)]] = points.take(farthest)
            now = Progress(now.steps + 1, squares, centres)
            keep(now)
        return now.centres

    def _assign(
        self, points: Points, centres: Floats
    ) -> tuple[Assigned, npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        labels, squares = np.empty(len(points), np.int32), np.empty(len(points), np.float32)
        sums, counts = np.zeros(centres.shape), np.zeros(len(centres), np.int64)
        waiting: dict[int, _Part] = {}
        added = 0
        for job, part in self._run(points, centres):
            waiting[job.index] = part
            # In their own order, since a sum hangs on it in its last digits.
            while added in waiting:
                found = waiting.pop(added)
                some = slice(added * JOB_ROWS, added * JOB_ROWS + len(found.assigned.labels))
                labels[some], squares[some] = found.assigned.labels, found.assigned.squares
                sums[found.found] += found.sums
                counts[found.found] += found.counts
                added += 1
        if added < -(-len(points) // JOB_ROWS):
            found_, advice = "; ".join(self._report.failures[:1]), "run the same command again"
            raise InputError(points.path, "features that all workers can read", found_, advice)
        return Assigned(labels, squares), sums, counts

    def _run(self, points: Points, centres: Floats) -> Iterator[tuple[_Job, _Part]]:
        if self._workers.scheduler is None:
            with threadpool_limits(1, "blas"):  # sums would hang on the number of threads
                jobs = _Jobs(points, centres)
                yield from self._workers.run(_assign_some, jobs, self._report, in_threads=True, bar=False)
            return
        path = partial_path(self._scratch)  # a new name each time: no worker takes the last ones for these
        try:
            with create_for_arrays(path) as file:
                np.save(file, centres, allow_pickle=False)
            yield from self._workers.run(_assign_remotely, _Jobs(points, path), self._report, bar=False)
        finally:
            path.unlink(missing_ok=True)


def begin(points: Points, count: int, seed: Sequence[int]) -> Progress:
    """Return where a k-means begins: points that are far from each other, drawn by lot.

    Points are drawn with a chance that grows with the square of their distance from those chosen before, among
    `SOUGHT_AMONG` points a centre; of a few that are drawn the one is chosen that leaves the least sum of squares, as
    scikit-learn does.

    Parameters
    ----------
    points : Points
    count : int
        At most as many as there are points.
    seed : sequence of int
    """
    random = np.random.default_rng(seed)
    among = min(len(points), SOUGHT_AMONG * count)
    some = points.take(np.sort(random.choice(len(points), among, replace=False)))
    own = measure(some)
    few = 2 + int(np.log(count))
    chosen = np.zeros(count, np.int64)
    chosen[0] = random.integers(among)
    with threadpool_limits(1, "blas"):
        squares = _squares_from(some, own, chosen[:1])[0]
        for at in range(1, count):
            total = np.cumsum(squares, dtype=np.float64)
            # Where all are equal to one that was chosen, it counts for nothing which comes next.
            drawn = np.searchsorted(total, random.random(few) * total[-1], side="right") % among
            nearer = np.minimum(_squares_from(some, own, drawn), squares)
            best = int(nearer.sum(axis=1, dtype=np.float64).argmin())
            chosen[at], squares = drawn[best], nearer[best]
    return Progress(0, np.inf, some[chosen])


def _squares_from(points: Floats, own: Floats, places: npt.NDArray[np.int64]) -> Floats:
    """Return the squares of the distances of all points from some of them, (m, n) float32; none from themselves."""
    squares: Floats = np.maximum(own + own[places, None] - 2 * (points[places] @ points.T), 0)
    squares[np.arange(len(places)), places] = 0
    return squares
