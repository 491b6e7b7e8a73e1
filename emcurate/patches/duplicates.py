"""Groups of near-duplicates: which patch stands for which others, found by sequential greedy cover."""

from __future__ import annotations

import csv
import io
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emcurate.errors import InputError
from emcurate.patches.hashing import BoolArray, WordArray, hamming_distance, pack_hashes

# Hashes compared with all exemplars at once; inside a block they are settled one after another.
BLOCK = 4096

HEADING = b"patch,exemplar,distance\n"

# Rows of a table that are text at once, so that ten million need no more memory than their bytes.
ROWS_AT_ONCE = 100_000


@dataclass(frozen=True)
class Groups:
    """The groups of near-duplicates among n patches.

    Attributes
    ----------
    patches : sequence of str
        The patches' names.
    exemplar : (n,) int64
        The position of each patch's exemplar; an exemplar's own is its own.
    distance : (n,) int64
        The Hamming distance, in bits, of each patch's hash to its exemplar's.
    """

    patches: Sequence[str]
    exemplar: npt.NDArray[np.int64]
    distance: npt.NDArray[np.int64]

    def exemplars(self) -> list[str]:
        """Return the names of the exemplars, in the order of `patches`."""
        return [self.patches[i] for i in np.unique(self.exemplar)]

    def table(self) -> bytes:
        """Return the groups as csv (patch, exemplar, distance): each exemplar is followed by its duplicates."""
        is_duplicate = self.exemplar != np.arange(len(self.exemplar))
        # The last key counts most; a stable sort leaves equals in the order of `patches`.
        order = np.lexsort((self.distance, is_duplicate, self.exemplar))
        parts = [self._format_rows(order[start : start + ROWS_AT_ONCE]) for start in range(0, len(order), ROWS_AT_ONCE)]
        return b"".join([HEADING, *parts])

    def _format_rows(self, places: npt.NDArray[np.int64]) -> bytes:
        """Return some rows of the table, byte for byte what `csv.writer` makes of them, in half its time."""
        names, exemplars, distances = self.patches, self.exemplar[places].tolist(), self.distance[places].tolist()
        rows = zip(places.tolist(), exemplars, distances, strict=True)
        text = "".join([f"{names[i]},{names[e]},{bits}\n" for i, e, bits in rows])
        if text.count(",") > 2 * len(places) or text.count("\n") > len(places) or '"' in text or "\r" in text:
            quoted = io.StringIO()  # a name holds what has to be quoted
            rows = zip(places.tolist(), exemplars, distances, strict=True)
            csv.writer(quoted, lineterminator="\n").writerows((names[i], names[e], bits) for i, e, bits in rows)
            text = quoted.getvalue()
        return text.encode()

    def largest(self, groups: int, members: int) -> list[tuple[int, list[tuple[str, int]]]]:
        """Return the largest groups with duplicates: the size of each, and a list of (patch, distance).

        The exemplar comes first, then at most `members` duplicates, those that differ most from it first.
        """
        sizes = np.bincount(self.exemplar, minlength=len(self.exemplar))
        chosen = []
        for e in np.argsort(-sizes, kind="stable")[:groups]:
            duplicates = np.flatnonzero((self.exemplar == e) & (np.arange(len(sizes)) != e))
            farthest = duplicates[np.argsort(-self.distance[duplicates], kind="stable")][:members]
            if duplicates.size:
                chosen.append((int(sizes[e]), [(self.patches[i], int(self.distance[i])) for i in (e, *farthest)]))
        return chosen


def choose_largest(groups: Iterable[Groups], count: int, members: int) -> list[list[tuple[str, int]]]:
    """Return the `count` largest groups of several datasets, each as `Groups.largest` gives it."""
    found = [pair for each in groups for pair in each.largest(count, members)]
    return [group for _, group in sorted(found, key=lambda pair: -pair[0])[:count]]


def read_groups(path: Path) -> Groups:
    """Read the groups that `Groups.table` wrote.

    Raises
    ------
    InputError
        If the file is no such table.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = sorted((row["patch"], row["exemplar"], int(row["distance"])) for row in csv.DictReader(file))
        patches = [patch for patch, _, _ in rows]
        place = {patch: i for i, patch in enumerate(patches)}
        exemplar = np.array([place[name] for _, name, _ in rows], np.int64)
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        found = f"another or damaged one ({type(error).__name__}: {error})"
        raise InputError(path, "a table of patch, exemplar and distance", found, "delete it and run again") from None
    return Groups(patches, exemplar, np.array([distance for _, _, distance in rows], np.int64))


def order_patches(
    name: str, count: int, order: str, seed: int, sharpness: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """Return the order in which the patches of a dataset are taken, as positions in alphabetical order.

    The random order depends on the seed and the dataset's name only, not on which other datasets there are.
    """
    if order == "random":
        return np.random.default_rng([seed, zlib.crc32(name.encode())]).permutation(count)
    if order == "sharpest":
        return np.argsort(-sharpness, kind="stable")
    return np.arange(count)


def find_groups(
    patches: Sequence[str], hashes: BoolArray, order: npt.NDArray[np.int64], distance: int, threads: int = 1
) -> Groups:
    """Group patches whose hashes are at most `distance` bits apart.

    Parameters
    ----------
    patches : sequence of n str
    hashes : (n, side, side) bool
    order : (n,) int64
        The positions of the patches in the order in which they are taken.
    distance, threads : int
        As for `cover_greedily`.
    """
    packed = pack_hashes(hashes)
    exemplar = np.empty(len(order), np.int64)
    exemplar[order] = order[cover_greedily(packed[order], distance, threads)]
    return Groups(patches, exemplar, hamming_distance(packed, packed[exemplar]))


def cover_greedily(hashes: WordArray, distance: int, threads: int = 1) -> npt.NDArray[np.int64]:
    """Return, for each hash in turn, the position of the exemplar that stands for it.

    A hash within `distance` of an exemplar already kept belongs to the first such exemplar; otherwise it becomes an
    exemplar and stands for itself. This equals taking the first hash, removing all others within `distance` of it,
    and going on with the first that is left.

    Parameters
    ----------
    hashes : (n, words) uint64
        Packed hashes in the order in which they are to be taken.
    distance : int
        Largest Hamming distance, in bits, of a duplicate.
    threads : int
        Threads to search with; the result does not depend on it.

    Returns
    -------
    (n,) int64
        Positions into `hashes`; exemplars are where ``result == arange(n)``.
    """
    from emcurate.patches.exemplars import Exemplars  # here, since it loads a compiler

    owner = np.empty(len(hashes), np.int64)
    with ThreadPoolExecutor(threads) as pool:
        exemplars = Exemplars(np.ascontiguousarray(hashes), distance, pool, threads)
        for start in range(0, len(hashes), BLOCK):
            exemplars.cover_block(start, owner[start : start + BLOCK])
    return exemplars.positions[owner]
