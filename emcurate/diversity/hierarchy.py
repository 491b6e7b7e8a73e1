"""Clusters of features, clusters of their centres, and so on: every structure gets its clusters, however common it is.

Source: H. V. Vo et al., "Automatic data curation for self-supervised learning: a clustering-based approach", TMLR 2024,
arXiv:2405.15613.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emcurate.contents import npy_bytes
from emcurate.diversity.kmeans import Clustering, Labels, Progress, begin
from emcurate.diversity.points import Floats, Points, Rows, write_points
from emcurate.errors import InputError
from emcurate.files import read_regular
from emcurate.outputs import digest_bytes
from emcurate.running.jobs import progress
from emcurate.writing import write_bytes

# Clusters of n patches: as many as there are patches in each times `PER_ROOT` squared, so that the work grows with
# n to the power of 1.5; of few patches, so many that a cluster has `LEAST_PATCHES`.
PER_ROOT = 4
LEAST_PATCHES = 10

# How many clusters of one level make one of the next, and the fewest that are clustered once more.
LEVEL_RATIO = 8
LEAST_CLUSTERED = 24

# The part of a cluster of mean size that is left of every cluster where it is clustered again.
RESAMPLED_PART = 0.5


@dataclass(frozen=True)
class Hierarchy:
    """Clusters of n patches, level by level.

    Attributes
    ----------
    levels : list of int32 arrays
        Of each patch its cluster; of each of these the one on the next level; and so on.
    squares : (n,) float32
        The squares of the patches' distances from their own centres.
    """

    levels: list[Labels]
    squares: Floats


def choose_counts(patches: int) -> list[int]:
    """Return how many clusters each level has, for so many patches.

    >>> choose_counts(2000), choose_counts(1_000_000), choose_counts(5)
    ([179, 22], [4000, 500, 62, 8], [1])
    """
    counts = [max(1, min(round(patches / LEAST_PATCHES), round(PER_ROOT * patches**0.5)))]
    while counts[-1] >= LEAST_CLUSTERED:
        counts.append(round(counts[-1] / LEVEL_RATIO))
    return counts


class Kept:
    """How far each k-means of a hierarchy has come, in files, so that a run that was killed goes on there.

    Parameters
    ----------
    directory : Path
        Of this very hierarchy.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def save(self, name: str, now: Progress, *, is_done: bool) -> None:
        """Keep what a k-means has come to, in the place of what it had before."""
        data = npy_bytes(now.centres)
        head = {"steps": now.steps, "squares": now.squares, "done": is_done, "digest": digest_bytes(data)}
        write_bytes(self._directory / f"{name}.centres", json.dumps(head).encode() + b"\n" + data)

    def load(self, name: str) -> tuple[Progress, bool] | None:
        """Return what a k-means had come to, and whether that was its end; None where nothing whole is kept."""
        path = self._directory / f"{name}.centres"
        try:
            head, _, data = read_regular(path).partition(b"\n")
            said = json.loads(head)
            if said["digest"] != digest_bytes(data):
                return None
            centres: Floats = np.load(io.BytesIO(data), allow_pickle=False)
            return Progress(int(said["steps"]), float(said["squares"]), centres), bool(said["done"])
        except (InputError, ValueError, KeyError, TypeError, EOFError):
            return None


def build(
    points: Points,
    counts: Sequence[int],
    resamplings: int,
    seed: int,
    clustering: Clustering,
    kept: Kept,
    scratch: Path,
) -> Hierarchy:
    """Cluster points, then the centres of the clusters, and so on.

    On each level the points nearest to their centres, equally many of each cluster, are clustered again `resamplings`
    times, by which the centres come to lie as evenly over sparse regions as over dense ones.

    Parameters
    ----------
    points : Points
    counts : sequence of int
        Clusters of each level, at most as many as are clustered.
    resamplings : int
    seed : int
    clustering : Clustering
    kept : Kept
    scratch : Path
        A directory for centres, which all workers see.
    """
    levels: list[Labels] = []
    squares = np.zeros(0, np.float32)
    with progress(None, total=len(counts) * (resamplings + 1), label="select_diverse", unit="clustering") as bar:
        for level, wanted in enumerate(counts):
            count = min(wanted, len(points))
            centres = _cluster(points, count, f"{level}-0", [seed, level, 0], clustering, kept)
            bar.update()
            for again in range(1, resamplings + 1):
                assigned = clustering.assign(points, centres)
                few = max(1, round(RESAMPLED_PART * len(points) / count))
                some = points.some(take_nearest(assigned.labels, assigned.squares, few))
                centres = _cluster(
                    some, min(count, len(some)), f"{level}-{again}", [seed, level, again], clustering, kept
                )
                bar.update()
            assigned = clustering.assign(points, centres)
            # Clusters without points would be branches without leaves.
            there, labels = np.unique(assigned.labels, return_inverse=True)
            levels.append(labels.astype(np.int32))
            squares = assigned.squares if level == 0 else squares
            points = write_points(scratch / f"level-{level}.npy", centres[there])
    return Hierarchy(levels, squares)


def _cluster(points: Points, count: int, name: str, seed: Sequence[int], clustering: Clustering, kept: Kept) -> Floats:
    known = kept.load(name)
    if known is not None and known[1]:
        return known[0].centres
    start = begin(points, count, seed) if known is None else known[0]
    last = [start]

    def keep(now: Progress) -> None:
        last[0] = now
        kept.save(name, now, is_done=False)

    centres = clustering.run(points, start, keep)
    kept.save(name, last[0], is_done=True)
    return centres


def take_nearest(labels: Labels, squares: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.int64]:
    """Return the points nearest to the centre of each cluster, so many of each at most, in ascending order.

    >>> take_nearest(np.array([0, 0, 0, 1]), np.float32([3, 1, 2, 9]), 2).tolist()
    [1, 2, 3]
    """
    order = np.lexsort((squares, labels))
    sizes = np.bincount(labels)
    place = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(order[place < count])


def rank_evenly(levels: Sequence[Labels], allowed: npt.NDArray[np.bool_], seed: int) -> npt.NDArray[np.int64]:
    """Return the place of each point in an order of which any beginning is drawn evenly from all clusters.

    In each cluster its parts take turns, until they run out; the points of the lowest clusters come in an order drawn
    by lot. So of n points every cluster gets its share, and what it cannot fill goes to those beside it.

    Parameters
    ----------
    levels : sequence of int32 arrays
        As `Hierarchy`.
    allowed : (n,) bool
        Which points are put in order.
    seed : int

    Returns
    -------
    (n,) int64
        From 0 on; -1 of points that are not allowed.

    >>> rank_evenly([np.array([0, 0, 0, 1, 2]), np.array([0, 0, 1])], np.ones(5, bool), 0).tolist()[3:]
    [2, 1]
    """
    rows = np.flatnonzero(allowed)
    drawn = np.random.default_rng(seed).permutation(len(allowed))[rows]
    cluster = levels[0][rows].astype(np.int64)
    turn = _place_in(cluster, drawn, np.zeros(len(rows), np.int64))
    top = np.zeros(int(levels[-1].max(initial=-1)) + 1, np.int32)
    for labels in [*levels[1:], top]:
        part, cluster = cluster, labels[cluster].astype(np.int64)
        turn = _place_in(cluster, turn, part)
    ranks = np.full(len(allowed), -1, np.int64)
    ranks[rows] = turn
    return ranks


def _place_in(cluster: Rows, turn: Rows, part: Rows) -> Rows:
    """Return the place of each point in its cluster, whose parts take turns."""
    order = np.lexsort((part, turn, cluster))
    sizes = np.bincount(cluster)
    places = np.empty(len(cluster), np.int64)
    places[order] = np.arange(len(cluster)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return places
