"""Holding back whole datasets, so that no near-identical neighbours are on both sides."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# Orders of the datasets that are tried; the best is taken.
TRIES = 2000


def hold_back(sizes: npt.NDArray[np.int64], part: float, seed: int) -> npt.NDArray[np.int64] | None:
    """Return which datasets to hold back, as positions; None if no choice leaves every class on both sides.

    Of many random choices the one is taken that comes closest to `part` of each class.

    Parameters
    ----------
    sizes : (datasets, classes) int64
        Patches of each class that each dataset has.
    part : float
    seed : int
    """
    totals = sizes.sum(axis=0)
    random = np.random.default_rng(seed)
    best, least = None, np.inf
    for _ in range(TRIES):
        order = random.permutation(len(sizes))
        held = np.cumsum(sizes[order], axis=0)
        both = ((held > 0) & (held < totals)).all(axis=1)
        distance = np.where(both, np.abs(held / np.maximum(totals, 1) - part).max(axis=1), np.inf)
        stop = int(distance.argmin())
        if distance[stop] < least:
            least, best = float(distance[stop]), order[: stop + 1]
    return best
