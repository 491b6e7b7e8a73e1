"""In which order patches are shown, and which of them: pure functions of arrays, quick for millions of patches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from threadpoolctl import threadpool_limits

from emcurate.naming import MARK
from emcurate.patches.listed import Listed

IntArray = npt.NDArray[np.int64]

# Patches that are put in a row by going from each to the nearest that is left; more are parted first.
CHAINED = 16

# The least share of the patches that a part gets, so that the work does not grow with the square of their number.
SMALLEST_PART = 0.2

# Steps after which the direction in which patches differ most is known well enough to part them.
POWER_STEPS = 20

# What patches whose file name does not follow the grammar count as.
NO_DATASET = "(no dataset)"


def number_datasets(chunks: Iterable[npt.NDArray[np.str_]]) -> tuple[npt.NDArray[np.int32], list[str]]:
    """Return the dataset of each path as a number, and the datasets' names.

    Parameters
    ----------
    chunks : iterable of (n,) string arrays
        The paths of patches.

    Returns
    -------
    codes : (N,) int32 array
        Places in `names`, for the paths of all chunks.
    names : list of str
        In the order in which they first occur.
    """
    table: dict[str, int] = {}
    codes = [np.empty(0, np.int32)]
    for chunk in chunks:
        before, mark, after = np.strings.rpartition(np.asarray(chunk), MARK)
        # A mark in a directory's name is none of the file's.
        nameless = (mark == "") | (np.strings.find(after, "/") >= 0) | (np.strings.find(after, "\\") >= 0)
        before[nameless] = ""
        # Lists mostly hold one dataset after another, so few strings need to be looked at one by one.
        starts = np.flatnonzero(np.concatenate([[len(before) > 0], before[1:] != before[:-1]]))
        run_codes, prefixes = pd.factorize(np.array(before[starts].tolist(), dtype=object))
        numbers = [table.setdefault(_dataset_name(prefix), len(table)) for prefix in prefixes]
        lengths = np.diff(np.append(starts, len(before)))
        codes.append(np.repeat(np.array(numbers, np.int32)[run_codes], lengths))
    return np.concatenate(codes), list(table)


def order_randomly(count: int, seed: int) -> IntArray:
    """Return the numbers under `count`, shuffled."""
    return np.random.default_rng(seed).permutation(count)


def order_by_dataset(datasets: npt.NDArray[np.int32], seed: int) -> IntArray:
    """Return patches so that the datasets take turns, each with its patches shuffled; small ones run out first.

    Those of dataset -1 are left out; they take part in the shuffling alone, so that the others keep their places.

    >>> 3 in order_by_dataset(np.array([0, 0, 0, 1], np.int32), seed=0)[:2]
    True
    """
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(len(datasets))
    shuffled = shuffled[datasets[shuffled] >= 0]
    grouped = shuffled[np.argsort(datasets[shuffled], kind="stable")]
    sizes = np.bincount(datasets[shuffled])
    starts = np.cumsum(sizes) - sizes
    turn = np.arange(len(grouped)) - starts[datasets[grouped]]
    seat = generator.permutation(len(sizes))[datasets[grouped]]
    return grouped[np.argsort(turn * len(sizes) + seat, kind="stable")]


def order_as_they_came(listed: Listed, order: Callable[[IntArray], IntArray]) -> IntArray:
    """Return the places of a list so that patches that a later list added come after those that were there before.

    Whoever is in the middle of the first list goes on there, on the same page, when the list has grown.

    Parameters
    ----------
    listed : Listed
        With which list each patch came.
    order : callable
        Returns the order of the patches that came with one list, as numbers into its argument: their places in the
        list as it is now, -1 for those no longer in it.
    """
    starts = np.flatnonzero(np.diff(listed.generations, prepend=-1))
    parts = [rows[order(rows)] for rows in np.split(listed.places, starts[1:])]
    places = np.concatenate([np.empty(0, np.int64), *parts])
    return places[places >= 0]


def order_by_uncertainty(scores: npt.NDArray[Any], threshold: float) -> IntArray:
    """Return patches from the least to the most certain score; those without one (NaN) come last."""
    distance = np.abs(np.asarray(scores, np.float32) - np.float32(threshold))
    return np.argsort(np.where(np.isnan(distance), np.inf, distance), kind="stable")


def order_by_rank(ranks: IntArray) -> IntArray:
    """Return patches by their ranks; those without one (-1) come last, as they are listed."""
    return np.argsort(np.where(ranks < 0, np.iinfo(np.int64).max, ranks), kind="stable")


def order_by_similarity(features: npt.NDArray[np.float32]) -> IntArray:
    """Return patches so that those like one another are neighbours, for any features whose distance means something.

    The patches are parted in two at the widest gap along the direction in which they differ most, the parts again, and
    so on; a few are put in a row, each next to the nearest. Of two parts that comes first which is nearer to what
    stands before it. For n patches it takes time n log n, and a page of neighbours is closer together than if each
    patch were followed by its nearest among all, whose rows end in leftovers.

    Parameters
    ----------
    features : (n, d) float32
        A row a patch; those of patches without any (NaN) come last.
    """
    known = np.flatnonzero(~np.isnan(features).any(axis=1))
    # Thousands of small products, which more threads only hold up; and whose sums would hang on their number.
    with threadpool_limits(1, "blas"):
        ordered = _walk(features, known)
    lost = np.setdiff1d(np.arange(len(features)), known)
    return np.concatenate([*ordered, lost]).astype(np.int64)


def _walk(features: npt.NDArray[np.float32], known: IntArray) -> list[IntArray]:
    ordered: list[IntArray] = []
    before = None
    waiting = [known] if len(known) else []
    while waiting:
        members = waiting.pop()
        some = features[members]
        if len(members) <= CHAINED:
            row = _chain(some, before)
            ordered.append(members[row])
            before = some[row[-1]]
            continue
        centre = some.mean(axis=0)
        axis = _main_direction(some - centre)
        place = (some - centre) @ axis
        along = np.argsort(place, kind="stable")
        least = int(SMALLEST_PART * len(members))
        gaps = np.diff(place[along[least : len(along) - least]])
        cut = least + 1 + int(np.argmax(gaps))
        # In the order of the list again, so that nothing hangs on how ties were broken above.
        parts = [members[np.sort(along[:cut])], members[np.sort(along[cut:])]]
        if before is not None and (before - centre) @ axis > 0:
            parts.reverse()
        waiting += reversed(parts)
    return ordered


def _main_direction(centred: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return about the direction of the largest variance, by the power method."""
    wide = centred.astype(np.float64)
    products = wide.T @ wide
    axis: npt.NDArray[np.float64] = products[:, np.argmax(np.diagonal(products))]
    for _ in range(POWER_STEPS):
        length = np.linalg.norm(axis)
        if not length:
            break
        axis = products @ (axis / length)
    return axis


def _chain(some: npt.NDArray[np.float32], before: npt.NDArray[np.float32] | None) -> list[int]:
    """Return a few patches in a row that begins with the nearest to `before`, each followed by its nearest."""
    squares = np.square(some, dtype=np.float64).sum(axis=1)
    distances = squares[:, None] + squares - 2 * (some.astype(np.float64) @ some.T)
    here = 0 if before is None else int(np.argmin(np.square(some - before).sum(axis=1)))
    row = [here]
    while len(row) < len(some):
        distances[:, here] = np.inf
        here = int(np.argmin(distances[here]))
        row.append(here)
    return row


def _dataset_name(prefix: str) -> str:
    return prefix.replace("\\", "/").rpartition("/")[2] or NO_DATASET
