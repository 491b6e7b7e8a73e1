"""How fast exemplars are found, beside the published loop: python benchmarks/deduplicate.py [PATCHES ...].

The published loop takes the first hash that is left, compares it with all others by numpy, and drops those close to it.
Both are given the same hashes in the same order, must agree, and are timed in turn in one run.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from emcurate.patches.duplicates import cover_greedily
from emcurate.patches.hashing import pack_hashes
from emcurate.running.jobs import default_processes

DISTANCE = 12
REPEATS = 3
SIDE = 8


def make_hashes(count: int) -> np.ndarray:
    """Hashes of which about a third are near-duplicates of another, as in real volumes."""
    rng = np.random.default_rng(0)
    centres = rng.random((max(1, count * 2 // 3), SIDE, SIDE)) < 0.5
    return centres[rng.integers(0, len(centres), count)] ^ (rng.random((count, SIDE, SIDE)) < 0.05)


def published_loop(hashes: np.ndarray, distance: int) -> np.ndarray:
    flat = hashes.reshape(len(hashes), -1)
    owner, left = np.empty(len(flat), np.int64), np.arange(len(flat))
    while left.size:
        close = np.count_nonzero(flat[left] != flat[left[0]], axis=1) <= distance
        owner[left[close]] = left[0]
        left = left[~close]
    return owner


def best_time(function, *arguments):
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        result = function(*arguments)
        times.append(time.perf_counter() - start)
    return min(times), result


def main() -> None:
    counts = [int(word) for word in sys.argv[1:]] or [1_000, 4_000, 16_000]
    threads = default_processes()
    cover_greedily(pack_hashes(make_hashes(10)), DISTANCE, threads)  # compiles
    print(f"{'patches':>9} {'exemplars':>9} {'loop s':>9} {'1 thread':>9} {f'{threads} threads':>9} {'ratio':>7}")
    for count in counts:
        hashes = make_hashes(count)
        start = time.perf_counter()
        expected = published_loop(hashes, DISTANCE)
        loop = time.perf_counter() - start
        one, first = best_time(lambda h: cover_greedily(pack_hashes(h), DISTANCE, 1), hashes)
        all_, second = best_time(lambda h: cover_greedily(pack_hashes(h), DISTANCE, threads), hashes)
        if not (np.array_equal(first, expected) and np.array_equal(second, expected)):
            raise SystemExit("the results differ")
        exemplars = len(np.unique(expected))
        print(f"{count:>9,} {exemplars:>9,} {loop:>9.2f} {one:>9.3f} {all_:>9.3f} {loop / all_:>6.0f}x")


if __name__ == "__main__":
    main()
