"""Semantic near-duplicates: patches whose features point in almost the same direction.

Source: A. Abbas et al., "SemDeDup: data-efficient learning at web-scale through semantic deduplication", 2023,
arXiv:2303.09540: they are sought in each cluster by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from emcurate.diversity.points import Floats, Points, Rows
from emcurate.running.jobs import Workers
from emcurate.running.made import MadeWhenAsked
from emcurate.running.report import Report

# Points that are compared at once with those that were kept, and those of a job at least.
BLOCK, JOB_POINTS = 512, 4096

# Cosines above which near-duplicates are counted, for whoever has to choose.
SHOWN = (0.9, 0.95, 0.98, 0.99, 0.995, 0.999)

# Points among which they are counted.
LOOKED_AT = 20_000


@dataclass(frozen=True)
class Near:
    """Near-duplicates among n points.

    Attributes
    ----------
    like : (n,) int64
        The point that each is like, -1 where it is like none that was kept.
    cosines : (n,) float32
        To that point; NaN where there is none.
    """

    like: npt.NDArray[np.int64]
    cosines: Floats


@dataclass(frozen=True)
class _Job:
    points: Points
    clusters: list[Rows]
    cosine: float

    @property
    def name(self) -> str:
        return f"{sum(map(len, self.clusters)):,} patches of {len(self.clusters):,} clusters"


class _Jobs(MadeWhenAsked[_Job]):
    def __init__(self, points: Points, groups: list[list[Rows]], cosine: float) -> None:
        self._points, self._groups, self._cosine = points, groups, cosine

    def __len__(self) -> int:
        return len(self._groups)

    def make(self, index: int) -> _Job:
        """Return a job."""
        return _Job(self._points, self._groups[index], self._cosine)


def find_near(points: Points, labels: npt.NDArray[np.int32], cosine: float, workers: Workers, report: Report) -> Near:
    """Return the near-duplicates in each cluster: in the order of the points, one that is like one kept is not kept.

    Parameters
    ----------
    points : Points
        Of unit length.
    labels : (n,) int32
        Their clusters; pairs of two clusters are not compared.
    cosine : float
        At least that of near-duplicates.
    workers : Workers
        Whose threads compare.
    report : Report
    """
    near = Near(np.full(len(points), -1, np.int64), np.full(len(points), np.nan, np.float32))
    order = np.argsort(labels, kind="stable")
    clusters = np.split(order, np.cumsum(np.bincount(labels))[:-1])
    groups: list[list[Rows]] = [[]]
    for cluster in clusters:
        if sum(map(len, groups[-1])) >= JOB_POINTS:
            groups.append([])
        groups[-1].append(cluster)
    with threadpool_limits(1, "blas"):  # cosines would hang on the number of threads
        jobs = _Jobs(points, groups, cosine)
        for job, found in Workers(workers.cores).run(_find_in_some, jobs, report, in_threads=True, bar=False):
            for rows, (like, cosines) in zip(job.clusters, found, strict=True):
                near.like[rows] = np.where(like < 0, -1, rows[like])
                near.cosines[rows] = cosines
    return near


def _find_in_some(job: _Job) -> list[tuple[Rows, Floats]]:
    return [find_in_cluster(job.points.take(rows), job.cosine) for rows in job.clusters]


def find_in_cluster(units: Floats, cosine: float) -> tuple[Rows, Floats]:
    """Return of each of some unit vectors the first one kept that it is like, by its place, and the cosine.

    Parameters
    ----------
    units : (n, width) float32
    cosine : float
        A vector with at least this cosine to one kept before is not kept.

    Returns
    -------
    like : (n,) int64
        -1 where a vector is kept.
    cosines : (n,) float32
        NaN where it is.
    """
    like, cosines = np.full(len(units), -1, np.int64), np.full(len(units), np.nan, np.float32)
    kept = np.zeros(0, np.int64)
    for start in range(0, len(units), BLOCK):
        some = units[start : start + BLOCK]
        _take_first(like, cosines, start, some @ units[kept].T, kept, cosine)
        inside = some @ some.T
        for at in range(len(some)):
            row = start + at
            before = np.flatnonzero((like[start:row] < 0) & (inside[at, :at] >= cosine))
            # One kept in an earlier block comes first.
            if like[row] < 0 and len(before):
                like[row], cosines[row] = start + before[0], inside[at, before[0]]
        kept = np.concatenate([kept, start + np.flatnonzero(like[start : start + len(some)] < 0)])
    return like, cosines


def _take_first(like: Rows, cosines: Floats, start: int, products: Floats, kept: Rows, cosine: float) -> None:
    if not len(kept):
        return
    is_near = products >= cosine
    first = is_near.argmax(axis=1)
    rows = np.flatnonzero(is_near.any(axis=1))
    like[start + rows] = kept[first[rows]]
    cosines[start + rows] = products[rows, first[rows]]


def count_near(points: Points, labels: npt.NDArray[np.int32], workers: Workers, report: Report) -> list[float]:
    """Return the part of the points that are near-duplicates, for each cosine of `SHOWN`; of many points, a guess.

    Whole clusters are looked at, evenly spread over all, until there are `LOOKED_AT` points.
    """
    sizes = np.bincount(labels)
    step = max(1, -(-len(labels) // LOOKED_AT))
    few = np.flatnonzero(np.isin(labels, np.flatnonzero(sizes)[::step]))
    some, of_some = points.some(few), labels[few]
    return [float((find_near(some, of_some, cosine, workers, report).like >= 0).mean()) for cosine in SHOWN]
