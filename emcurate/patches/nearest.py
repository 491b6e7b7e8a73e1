"""For each of many hashes the nearest of some others, if it is near enough: an exact search."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from emcurate.patches.hashing import WordArray, hamming_distance, least_distance

# Comparisons of words that numpy may do: as long as loading the compiler, which does everything else.
COMPARISONS = 200_000_000

# Comparisons whose results are in memory at once.
AT_ONCE = 1 << 22


def find_nearest(
    hashes: WordArray, others: WordArray, distance: int, threads: int = 1
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return, for each hash, which of the others is nearest, of equals the first, and in how many bits it differs.

    Parameters
    ----------
    hashes : (n, words) or (n, orientations, words) uint64
        Of several orientations the one that is nearest to any counts.
    others : (m, words) uint64
    distance : int
        What differs in more bits is not near.
    threads : int
        Threads to search with; the result does not depend on it.

    Returns
    -------
    place, bits : (n,) int64
        The place in `others`, -1 where none is near, and the distance, which is 0 there.
    """
    place, bits = np.full(len(hashes), -1), np.zeros(len(hashes), np.int64)
    if not len(hashes) or not len(others):
        return place, bits
    if hashes.size * len(others) <= COMPARISONS:
        _compare_all(hashes, others, distance, place, bits)
        return place, bits
    from emcurate.patches.exemplars import Fixed  # here, since it loads a compiler

    with ThreadPoolExecutor(threads) as pool:
        fixed = Fixed(others, distance, pool, threads)
        left, reach = np.arange(len(hashes)), np.full(len(hashes), distance)
        # What is found first is near enough, but one farther on may be nearer: it is looked for until there is none.
        while len(left):
            found = np.full(len(left), -1)
            for bound in np.unique(reach):
                asked = np.flatnonzero(reach == bound)
                found[asked] = fixed.find_first(hashes[left[asked]], int(bound))
            left, found = left[found >= 0], found[found >= 0]
            place[left] = found
            bits[left] = least_distance(hashes[left], others[found])
            reach = bits[left] - 1
            left, reach = left[reach >= 0], reach[reach >= 0]
    return place, bits


def _compare_all(
    hashes: WordArray, others: WordArray, distance: int, place: npt.NDArray[np.int64], bits: npt.NDArray[np.int64]
) -> None:
    seen = hashes.reshape(len(hashes), -1, hashes.shape[-1])
    step = max(1, AT_ONCE // (others.size * seen.shape[1]))
    for start in range(0, len(hashes), step):
        some = seen[start : start + step]
        differing = hamming_distance(some[:, :, None], others[None, None]).min(axis=1)
        nearest = differing.argmin(axis=1)
        least = differing[np.arange(len(some)), nearest]
        is_near = least <= distance
        place[start : start + step] = np.where(is_near, nearest, -1)
        bits[start : start + step] = np.where(is_near, least, 0)
