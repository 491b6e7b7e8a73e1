"""How fast a greedy cover is found for very many hashes: python benchmarks/cover.py [--large] [NUMBER ...].

Each number of hashes is covered in four ways, which must agree:

loop     the published one, in numpy: the first hash that is left is compared, bit by bit, with all that are left
plain    as version 0.1 did it: a compiled loop compares with 512 exemplars before it looks, numpy settles a block
in turn  what `cover_greedily` does while there are few exemplars: vector instructions, exemplars kept in the cache
chosen   what `cover_greedily` does by itself: the same, and tables where there are many exemplars

The ways take turns, and the median of their times is given; long ones are timed once. The memory is what a process of
its own needs at most for it, beyond the hashes. `--large` adds a million and ten million hashes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable

import numba
import numpy as np
from history import add_flags, compare

from emcurate.patches import exemplars
from emcurate.patches.duplicates import cover_greedily
from emcurate.patches.search import count_ones
from emcurate.running.jobs import default_processes

DISTANCE = 12

NUMBERS, LARGE = [1_000, 25_000, 100_000, 200_000, 400_000], [1_000_000, 10_000_000]

# Times of which the median is taken where one takes less than a second.
REPEATS = 5

# Largest numbers that each way is tried on: beyond, it takes minutes or hours.
AT_MOST = {"loop": 25_000, "plain": 400_000, "in turn": 1_000_000, "chosen": 10**9}


def make_hashes(number: int, kind: str) -> np.ndarray:
    """Return hashes of which a third become exemplars, or nearly all, or one."""
    rng = np.random.default_rng(0)
    if kind == "random":
        return rng.integers(0, 2**64, (number, 1), np.uint64)
    if kind == "equal":
        return np.full((number, 1), 5, np.uint64)
    centres = rng.integers(0, 2**64, number // 3, np.uint64)
    hashes = centres[rng.permutation(np.arange(number) % len(centres))]
    for _ in range(2):  # so that any two with the same centre differ in four bits at most
        hashes ^= np.uint64(1) << rng.integers(0, 64, number, np.uint64)
    return hashes[:, None]


def cover_by_loop(hashes: np.ndarray) -> np.ndarray:
    bits = np.unpackbits(hashes.view(np.uint8), axis=1).astype(bool)
    owner, left = np.empty(len(bits), np.int64), np.arange(len(bits))
    while left.size:
        close = np.count_nonzero(bits[left] != bits[left[0]], axis=1) <= DISTANCE
        owner[left[close]] = left[0]
        left = left[~close]
    return owner


@numba.njit(parallel=True)
def find_plainly(queries, kept, distance):
    first = np.full(len(queries), -1, np.int64)
    for q in numba.prange(len(queries)):
        distances = np.empty(512, np.uint64)
        for start in range(0, len(kept), 512):
            length = min(512, len(kept) - start)
            for e in range(length):
                distances[e] = count_ones(queries[q] ^ kept[start + e])
            hits = 0
            for e in range(length):
                hits += distances[e] <= distance
            if hits:
                for e in range(length):
                    if distances[e] <= distance:
                        first[q] = start + e
                        break
                break
    return first


def cover_plainly(hashes: np.ndarray) -> np.ndarray:
    words, owner = hashes[:, 0], np.arange(len(hashes))
    kept, count = np.empty(len(hashes), np.int64), 0
    for start in range(0, len(words), 1024):
        block = words[start : start + 1024]
        first = find_plainly(block, words[kept[:count]], np.uint64(DISTANCE))
        found, left = np.flatnonzero(first >= 0), np.flatnonzero(first < 0)
        owner[start + found] = kept[first[found]]
        while left.size:
            close = np.bitwise_count(block[left] ^ block[left[0]]) <= DISTANCE
            owner[start + left[close]] = kept[count] = start + left[0]
            count += 1
            left = left[~close]
    return owner


def cover_in_turn(hashes: np.ndarray) -> np.ndarray:
    before, exemplars.TABLES_FROM = exemplars.TABLES_FROM, len(hashes) + 1
    try:
        return cover_as_chosen(hashes)
    finally:
        exemplars.TABLES_FROM = before


def cover_as_chosen(hashes: np.ndarray) -> np.ndarray:
    return cover_greedily(hashes, DISTANCE, default_processes())


WAYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "loop": cover_by_loop,
    "plain": cover_plainly,
    "in turn": cover_in_turn,
    "chosen": cover_as_chosen,
}


def measure_memory(way: str, number: int, kind: str) -> float:
    """Return the MB that a way takes beyond the hashes; to be called in a fresh process."""
    hashes = make_hashes(number, kind)
    WAYS[way](hashes[:100])
    # What made the hashes is still counted in the peak, so it is set back; where that cannot be, it shows.
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = read_peak()
    WAYS[way](hashes)
    return read_peak() - before


def read_peak() -> float:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1000


def time_ways(ways: list[str], hashes: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
    """Return the median seconds of each way, and the cover they agree on."""
    times: dict[str, list[float]] = {way: [] for way in ways}
    expected = None
    for _ in range(REPEATS):
        for way, taken in times.items():
            if taken and taken[0] > 1:
                continue
            start = time.perf_counter()
            found = WAYS[way](hashes)
            taken.append(time.perf_counter() - start)
            if expected is not None and not np.array_equal(found, expected):
                raise SystemExit(f"{way} finds another cover")
            expected = found
    return {way: statistics.median(taken) for way, taken in times.items()}, expected


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", type=int, nargs="*", metavar="NUMBER", help=f"default: {NUMBERS}")
    parser.add_argument("--large", action="store_true", help=f"also {LARGE}")
    parser.add_argument("--kind", choices=["thirds", "random", "equal"], default="thirds", help="of the hashes")
    add_flags(parser)
    options = parser.parse_args()
    for way in WAYS.values():
        way(make_hashes(100, "thirds"))  # compiles
    print(f"{default_processes()} threads, distance {DISTANCE} of 64 bits, {options.kind}")
    print(f"{'hashes':>11} {'exemplars':>10} {'way':>8} {'seconds':>9} {'MB':>6} {'plain / it':>10} {'loop / it':>9}")
    faster = {}
    for number in (options.numbers or NUMBERS) + LARGE * options.large:
        hashes = make_hashes(number, options.kind)
        seconds, owner = time_ways([way for way in WAYS if number <= AT_MOST[way]], hashes)
        count = np.count_nonzero(owner == np.arange(number))
        del hashes, owner
        faster |= {
            f"{number:,} hashes, {way} / chosen": seconds[way] / seconds["chosen"]
            for way in ("loop", "plain")
            if way in seconds
        }
        for way, taken in seconds.items():
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                memory = pool.apply(measure_memory, (way, number, options.kind))
            ratios = "".join(
                f" {seconds[other] / taken:>{width}.1f}" if other in seconds else f" {'':>{width}}"
                for other, width in (("plain", 10), ("loop", 9))
            )
            print(f"{number:>11,} {count:>10,} {way:>8} {taken:>9.4f} {memory:>6.0f}{ratios}", flush=True)
    compare("cover", f"{options.kind}, {default_processes()} threads", faster, options)


if __name__ == "__main__":
    main()
