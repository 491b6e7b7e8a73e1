"""Drawing patches: how many of each dataset, and which, so that they are spread over it."""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

# How a dataset's share grows with its patches: not at all, with their square root, or with their number.
POWERS = {"even": 0.0, "sqrt": 0.5, "size": 1.0}

# Bits of a place along each axis, when places are put in an order in which neighbours stay close: a thousandth of the
# dataset's extent is near enough.
PLACE_BITS = 10


def allot(available: IntArray, total: int, power: float) -> IntArray:
    """Return how many to take of each dataset.

    Shares are proportional to ``available ** power``; of a dataset that has fewer all are taken, and the others share
    what is left. Fractions go to the largest ones, among equals to the first.

    Parameters
    ----------
    available : (n,) int64
    total : int
        If there are not as many, all are taken.
    power : float
        0 for even shares, 1 for shares as large as the datasets.

    >>> allot(np.array([2, 100, 50]), 60, 0).tolist()
    [2, 29, 29]
    """
    if total >= available.sum():
        return available.copy()
    taken = np.zeros(len(available), np.int64)
    weights = np.where(available > 0, np.maximum(available, 1).astype(np.float64) ** power, 0.0)
    open_ = available > 0
    while open_.any():
        left = total - int(taken[~open_].sum())
        ideal = left * weights / weights[open_].sum()
        full = open_ & (ideal >= available)
        if not full.any():
            taken[open_] = np.floor(ideal[open_]).astype(np.int64)
            rest = left - int(taken[open_].sum())
            order = np.lexsort((np.arange(len(ideal)), taken - ideal))
            taken[order[open_[order]][:rest]] += 1
            break
        taken[full], open_ = available[full], open_ & ~full
    return taken


def weigh(counts: IntArray, sizes: IntArray, power: float) -> FloatArray:
    """Return the weight of each patch of a dataset: drawn by weight, datasets come up by their sizes.

    Shares are proportional to ``sizes ** power``, among the datasets that have patches at all, however many there are
    of each: where `allot` has drawn them by the same power, weights only make up for fractions and for datasets that
    had too few. Their mean over all patches is 1.

    Parameters
    ----------
    counts : (n,) int64
        The patches of each dataset that are there to be drawn.
    sizes : (n,) int64
        How many it had before some were drawn.
    power : float
        0 for even shares, 1 for shares as large as the datasets.

    >>> weigh(np.array([1, 3]), np.array([1, 3]), 0).tolist()
    [2.0, 0.6666666666666666]
    >>> weigh(np.array([1, 3]), np.array([100, 900]), 0.5).tolist()
    [1.0, 1.0]
    """
    shares = np.where(counts > 0, np.maximum(sizes, 1).astype(np.float64) ** power, 0.0)
    weights: FloatArray = shares / shares.sum() * counts.sum() / np.maximum(counts, 1)
    return weights


def spread(strata: IntArray, places: IntArray, count: int, seed: int, name: str) -> IntArray:
    """Return which patches of a dataset to take so that they are spread over it, in ascending order.

    Patches are put in an order in which neighbours stay close, stratum by stratum; this is divided into as many
    stretches of equal length as patches are wanted, and of each one is drawn by lot.

    Parameters
    ----------
    strata : (n,) int64
        The plane of each patch of a volume, or the image.
    places : (n, axes) int64
        Where each patch is.
    count : int
        At most n.
    seed : int
    name : str
        The dataset's: which patches are drawn does not depend on what other datasets there are.

    Returns
    -------
    (count,) int64
    """
    random = np.random.default_rng([seed, zlib.crc32(name.encode("utf-8", "surrogateescape"))])
    order = np.lexsort((order_by_place(places), strata))
    ends = np.arange(count + 1) * len(order) // max(1, count)
    at = ends[:-1] + (random.random(count) * np.diff(ends)).astype(np.int64)
    return np.sort(order[at])


def order_by_place(places: IntArray) -> IntArray:
    """Return a number for each place by which neighbours stay close: the bits of its coordinates in turn.

    Source: G. M. Morton, "A computer oriented geodetic data base", IBM, 1966.
    """
    if not len(places):
        return np.zeros(0, np.int64)
    low, extent = places.min(axis=0), np.maximum(1, np.ptp(places, axis=0).max())
    # One scale for all axes, so that a step is as long in each.
    steps = (places - low) * ((1 << PLACE_BITS) - 1) // extent
    axes = places.shape[1]
    found = np.zeros(len(places), np.int64)
    for bit in range(PLACE_BITS):
        for axis in range(axes):
            found |= (steps[:, axis] >> bit & 1) << (bit * axes + axis)
    return found
