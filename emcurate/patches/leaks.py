"""Leaks: patches that are near-duplicates of another set's, such as a benchmark's, and the table of them.

A model that is trained on them has seen what it is tested with.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from emcurate.errors import InputError
from emcurate.files import open_regular
from emcurate.patches.columns import as_column, as_numbers
from emcurate.patches.duplicates import allow_bits
from emcurate.patches.hashing import WordArray
from emcurate.patches.names import take_names
from emcurate.patches.nearest import find_nearest
from emcurate.patches.other_sets import OtherSet

LEAKS_SUFFIX = "_leaks.csv"
HEADING = ("patch", "leak_of", "row", "column", "leak_distance")

LEAK_COLUMNS: dict[str, pa.DataType] = {"leak_of": pa.string(), "leak_distance": pa.int32()}

# Bits up to which leaks are counted, and looked at, together: the nearer, the surer.
BANDS = (4, 8, 12)

# Leaks of a dataset from which those to be looked at are chosen, of each kind.
LOOKED_AT = 300

# Rows that are Python objects at once.
ROWS_AT_ONCE = 50_000

# A patch, what it is nearest to (a patch's name, or an image's with row and column), and the distance in bits.
Leak = tuple[str, str, int | None, int | None, int]


@dataclass(frozen=True)
class Leaks:
    """The patches of a dataset that are near-duplicates of another set's.

    Attributes
    ----------
    patches : LargeStringArray of n
        All patches of the dataset.
    rows : (m,) int64
        The places of those that are.
    other : OtherSet
    place, bits : (m,) int64
        The place in `other` of what each is nearest to, and the distance.
    """

    patches: pa.LargeStringArray
    rows: npt.NDArray[np.int64]
    other: OtherSet
    place: npt.NDArray[np.int64]
    bits: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def table(self) -> Iterator[bytes]:
        """Yield the table as csv: `HEADING`, a row a leak, in the order of the patches."""
        yield f"{','.join(HEADING)}\n".encode()
        for start in range(0, len(self.rows), ROWS_AT_ONCE):
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows(self.name(slice(start, start + ROWS_AT_ONCE)))
            yield text.getvalue().encode()

    def name(self, which: slice | npt.NDArray[np.int64]) -> list[Leak]:
        """Return some of the leaks by names."""
        patches = take_names(self.patches, self.rows[which]).to_pylist()
        others = take_names(self.other.names, self.place[which]).to_pylist()
        found = zip(
            patches, others, self.other.places[self.place[which]].tolist(), self.bits[which].tolist(), strict=True
        )
        return [
            (patch, other, *((row, column) if row >= 0 else (None, None)), bits)
            for patch, other, (row, column), bits in found
        ]

    def some(self) -> list[Leak]:
        """Return some leaks of each of `BANDS`, those that differ most first: what they are is least sure."""
        return self.name(choose_some(self.bits))


def find_leaks(
    patches: pa.LargeStringArray,
    hashes: WordArray,
    other: OtherSet,
    distance: int,
    threads: int,
    blank: npt.NDArray[np.float64] | None = None,
) -> Leaks:
    """Return which patches are near-duplicates of another set's.

    Parameters
    ----------
    patches : LargeStringArray of n
    hashes : (n, words) or (n, orientations, words) uint64
        Of several orientations the nearest counts.
    other : OtherSet
    distance, threads : int
        As for `emcurate.patches.nearest.find_nearest`.
    blank : (n,) float64, optional
        The share of each patch that is blank, where that is to count: it may differ by as many fewer bits.
    """
    place, bits = find_nearest(hashes, other.words, distance, threads)
    allowed = np.full(len(bits), distance) if blank is None else allow_bits(distance, blank)
    rows = np.flatnonzero((place >= 0) & (bits <= allowed))
    return Leaks(patches, rows, other, place[rows], bits[rows])


def read_leaks(path: Path) -> pa.Table:
    """Return the table that `Leaks.table` was written of.

    Raises
    ------
    InputError
        If the file is no such table.
    """
    import pyarrow.csv  # here, since few runs read any

    kinds = {"patch": pa.string(), "row": pa.int32(), "column": pa.int32(), **LEAK_COLUMNS}
    try:
        with open_regular(path) as file:
            return pyarrow.csv.read_csv(
                file,
                parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
                convert_options=pyarrow.csv.ConvertOptions(include_columns=list(HEADING), column_types=kinds),
            )
    except (pa.ArrowException, ValueError, KeyError) as error:
        found = f"another or damaged one ({type(error).__name__}: {str(error).splitlines()[0]})"
        raise InputError(path, f"a table of {', '.join(HEADING)}", found, "delete it and run again") from None


def choose_some(bits: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return places of some leaks of each of `BANDS`, by their distances, those that differ most first."""
    order, bands = np.argsort(-bits, kind="stable"), np.searchsorted(BANDS, bits)
    return np.concatenate([order[bands[order] == band][:LOOKED_AT] for band in range(len(BANDS) + 1)])


def name_bands() -> list[str]:
    """Return what kinds of leaks are called, by their distances in bits.

    >>> name_bands()
    ['0 to 4', '5 to 8', '9 to 12', '13 or more']
    """
    starts = [0, *(band + 1 for band in BANDS)]
    return [f"{start} to {band}" for start, band in zip(starts, BANDS, strict=False)] + [f"{starts[-1]} or more"]


class LeaksShown:
    """How many leaks of several datasets differ by how much, and some of each kind to be looked at.

    Of each image, or other patch, one is shown, so that they are different ones.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._numbers = np.zeros(len(BANDS) + 1, np.int64)
        self._found: list[list[Leak]] = [[] for _ in self._numbers]

    def add(self, bits: npt.NDArray[np.int64], leaks: Iterable[Leak]) -> None:
        """Take in a dataset's: the distances of all, and some of them."""
        bands = np.searchsorted(BANDS, bits)
        self._numbers += np.bincount(bands, minlength=len(self._numbers))
        by_band: list[list[Leak]] = [[] for _ in self._numbers]
        for leak in leaks:
            by_band[int(np.searchsorted(BANDS, leak[4]))].append(leak)
        for band, some in enumerate(by_band):
            ranked = sorted([*self._found[band], *some], key=lambda leak: (-leak[4], leak[0]))
            first_of_each = {leak[1]: leak for leak in reversed(ranked)}
            self._found[band] = [leak for leak in ranked if first_of_each[leak[1]] is leak][: self._count]

    def add_table(self, path: Path) -> None:
        """Take in what was written of a dataset; raises `InputError`."""
        table = read_leaks(path)
        bits = as_numbers(table["leak_distance"]).astype(np.int64)
        some = table.take(as_column(choose_some(bits), pa.int64()))
        self.add(bits, zip(*(some[name].to_pylist() for name in HEADING), strict=True))

    def rows(self) -> dict[str, list[Leak]]:
        """Return those to be looked at, under what is said of all of their kind."""
        kinds = zip(name_bands(), self._numbers.tolist(), self._found, strict=True)
        return {f"{name} bits apart: {number:,} leaks": found for name, number, found in kinds if number}
