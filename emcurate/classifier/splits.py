"""Divide labelled patches into those trained on and those held back for validation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]

# Ways to choose the datasets held back that are tried; the best one is taken.
TRIES = 2000


def split_random(truth: BoolArray, part: float, seed: int) -> BoolArray:
    """Return which patches to hold back: that part of each class, at least one, leaving at least one.

    Raises
    ------
    ValueError
        If a class has fewer than two patches.
    """
    rng = np.random.default_rng(seed)
    held = np.zeros(len(truth), bool)
    for value in (False, True):
        members = rng.permutation(np.flatnonzero(truth == value))
        if len(members) < 2:
            raise ValueError("each class needs at least two patches")
        held[members[: min(max(1, round(part * len(members))), len(members) - 1)]] = True
    return held


def split_by_dataset(truth: BoolArray, datasets: Sequence[str], part: float, seed: int) -> BoolArray:
    """Return which patches to hold back: whole datasets, so that no near-identical neighbours are on both sides.

    Of many random choices the one is taken that comes closest to `part` of each class.

    Raises
    ------
    ValueError
        If no choice leaves both classes on both sides.
    """
    names, place = np.unique(np.array(datasets), return_inverse=True)
    sizes = np.stack([np.bincount(place[truth == value], minlength=len(names)) for value in (False, True)], axis=1)
    totals = sizes.sum(axis=0)
    rng = np.random.default_rng(seed)
    best, least = None, np.inf
    for _ in range(TRIES):
        order = rng.permutation(len(names))
        held = np.cumsum(sizes[order], axis=0)
        both = ((held > 0) & (held < totals)).all(axis=1)
        distance = np.where(both, np.abs(held / np.maximum(totals, 1) - part).max(axis=1), np.inf)
        stop = int(distance.argmin())
        if distance[stop] < least:
            least, best = float(distance[stop]), order[: stop + 1]
    if best is None:
        raise ValueError("no choice of datasets leaves both classes on both sides")
    return np.isin(place, best)
