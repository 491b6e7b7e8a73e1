"""From a table of features and a listing of patches to what was selected: everything between reading and writing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from emcurate.diversity.hierarchy import Hierarchy, Kept, build, choose_counts, rank_evenly
from emcurate.diversity.kmeans import Clustering
from emcurate.diversity.near import SHOWN, count_near, find_near
from emcurate.diversity.points import Points, Rows
from emcurate.errors import InputError
from emcurate.files import make_output_directory
from emcurate.partials import partial_path
from emcurate.patches.columns import as_column, as_numbers, in_one
from emcurate.patches.features import FeatureTable
from emcurate.patches.joined import Lookup
from emcurate.running.jobs import Workers
from emcurate.running.report import Report
from emcurate.writing import create_for_arrays

POINTS_FILE = "points.npy"


@dataclass(frozen=True)
class How:
    """What decides a selection.

    Attributes
    ----------
    budget : int, optional
        Patches to select; all that are no near-duplicates by default.
    near_duplicates : float, optional
        The least cosine of near-duplicates; none are sought by default.
    clusters : tuple of int, optional
        Of each level; chosen by the number of patches by default.
    resamplings : int
    seed : int
    """

    budget: int | None = None
    near_duplicates: float | None = None
    clusters: tuple[int, ...] | None = None
    resamplings: int = 3
    seed: int = 0


@dataclass(frozen=True)
class Chosen:
    """What was made of n patches, all of them or those of a listing: see `emcurate.diversity.choice.Selection`."""

    levels: list[npt.NDArray[np.int32]]
    ranks: Rows
    like: Rows
    cosines: npt.NDArray[np.float32]


def match(names: pa.StringArray, table: FeatureTable) -> Rows:
    """Return the row of each patch in a table of features, (n,) int64; -1 of those that have none.

    Raises
    ------
    InputError
        If most have none, so that the table is one of other patches; or the table has two of one name.
    """
    if pc.count_distinct(table.names).as_py() != len(table):
        found = "one with two rows for a patch"
        raise InputError(table.path, "a table of features with a row a patch", found, "run filtered/embed.py again")
    lookup = Lookup(pa.table({"patch": table.names, "row": as_column(np.arange(len(table)), pa.int64())}))
    places = lookup.find(names) if len(names) else as_column([], pa.int64())
    rows = as_numbers(pc.fill_null(in_one(lookup.table["row"]).take(places), -1))
    lacking = int((rows < 0).sum())
    if lacking > len(rows) / 2:
        found = f"{lacking:,} of {len(rows):,} patches without, such as {names[int(np.flatnonzero(rows < 0)[0])]}"
        raise InputError(table.path, "features of the listed patches", found, "run filtered/embed.py on this list")
    return rows


def write_matched(path: Path, table: FeatureTable, rows: Rows) -> Points:
    """Write the features of patches, by their rows in a table, as points of unit length in this order.

    Parameters
    ----------
    path : Path
    table : FeatureTable
    rows : (n,) int64
        None of them twice, none of them -1.
    """
    wanted = np.full(len(table), -1, np.int64)
    wanted[rows] = np.arange(len(rows))
    partial = partial_path(path.parent)
    try:
        with create_for_arrays(partial) as file:
            header = {"descr": "<f2", "fortran_order": False, "shape": (len(rows), table.width)}
            np.lib.format.write_array_header_1_0(file, header)
            start = file.tell()
        array = np.memmap(partial, np.float16, "r+", start, (len(rows), table.width))
        at = 0
        for some in table.read():
            places = wanted[at : at + len(some)]
            array[places[places >= 0]] = some[places >= 0]
            at += len(some)
        array.flush()
        del array
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return Points(path, unit=True)


def select(table: FeatureTable, rows: Rows, how: How, scratch: Path, workers: Workers, report: Report) -> Chosen:
    """Select patches by their features.

    Parameters
    ----------
    table : FeatureTable
    rows : (n,) int64
        Their rows in the table; -1 of those that have none, which are not selected.
    how : How
    scratch : Path
        A directory for what is kept until the selection is made, of this very selection.
    workers : Workers
    report : Report
    """
    make_output_directory(scratch)
    there = np.flatnonzero(rows >= 0)
    points = write_matched(scratch / POINTS_FILE, table, rows[there])
    counts = list(how.clusters) if how.clusters else choose_counts(len(points))
    clustering = Clustering(workers, report, scratch)
    hierarchy = build(points, counts, how.resamplings, how.seed, clustering, Kept(scratch), scratch)
    report.note(f"clusters by level: {', '.join(f'{len(np.unique(labels)):,}' for labels in hierarchy.levels)}")
    lowest = hierarchy.levels[0]
    like, cosines = np.full(len(points), -1, np.int64), np.full(len(points), np.nan, np.float32)
    if how.near_duplicates is not None:
        near = find_near(points, lowest, how.near_duplicates, workers, report)
        like, cosines = near.like, near.cosines
    else:
        shares = count_near(points, lowest, workers, report)
        told = ", ".join(f"{least:g} {share:.1%}" for least, share in zip(SHOWN, shares, strict=True))
        report.note(f"near-duplicates that --near-duplicates COSINE would leave out: {told}")
    ranks = rank_evenly(hierarchy.levels, like < 0, how.seed)
    nowhere, nothing = np.full(len(rows), -1, np.int64), np.full(len(rows), np.nan, np.float32)
    chosen = Chosen(_of_all(hierarchy, there, len(rows)), nowhere, nowhere.copy(), nothing)
    chosen.ranks[there] = ranks
    chosen.like[there] = np.where(like < 0, -1, there[like])
    chosen.cosines[there] = cosines
    return chosen


def _of_all(hierarchy: Hierarchy, there: Rows, count: int) -> list[npt.NDArray[np.int32]]:
    """Return the cluster of each patch on each level; -1 of those without features."""
    levels: list[npt.NDArray[np.int32]] = []
    cluster: npt.NDArray[np.int32] = np.arange(len(there), dtype=np.int32)
    for labels in hierarchy.levels:
        cluster = labels[cluster]
        levels.append(np.full(count, -1, np.int32))
        levels[-1][there] = cluster
    return levels
