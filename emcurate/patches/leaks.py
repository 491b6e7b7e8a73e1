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
from emcurate.patches.hashing import WordArray
from emcurate.patches.names import take_names
from emcurate.patches.nearest import find_nearest
from emcurate.patches.other_sets import OtherSet

LEAKS_SUFFIX = "_leaks.csv"
HEADING = ("patch", "leak_of", "row", "column", "leak_distance")

LEAK_COLUMNS: dict[str, pa.DataType] = {"leak_of": pa.string(), "leak_distance": pa.int32()}

# Leaks of a dataset from which those to be looked at are chosen.
LOOKED_AT = 1000

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

    def farthest(self) -> list[Leak]:
        """Return some leaks, those that differ most first: what they are is least sure."""
        return self.name(np.argsort(-self.bits, kind="stable")[:LOOKED_AT])


def find_leaks(patches: pa.LargeStringArray, hashes: WordArray, other: OtherSet, distance: int, threads: int) -> Leaks:
    """Return which patches are near-duplicates of another set's.

    Parameters
    ----------
    patches : LargeStringArray of n
    hashes : (n, words) or (n, orientations, words) uint64
        Of several orientations the nearest counts.
    other : OtherSet
    distance, threads : int
        As for `emcurate.patches.nearest.find_nearest`.
    """
    place, bits = find_nearest(hashes, other.words, distance, threads)
    rows = np.flatnonzero(place >= 0)
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


def read_farthest(path: Path) -> list[Leak]:
    """Return what `Leaks.farthest` does, from the table; raises `InputError`."""
    table = read_leaks(path)
    far = table.take(np.argsort(-table["leak_distance"].to_numpy(), kind="stable")[:LOOKED_AT])
    return list(zip(*(far[name].to_pylist() for name in HEADING), strict=True))


class LeaksShown:
    """Some leaks of several datasets to be looked at, those that differ most, one of each image or other patch."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._found: list[Leak] = []

    def add(self, leaks: Iterable[Leak]) -> None:
        """Take in leaks of a dataset."""
        ranked = sorted([*self._found, *leaks], key=lambda leak: (-leak[4], leak[0]))
        first_of_each = {leak[1]: leak for leak in reversed(ranked)}
        self._found = [leak for leak in ranked if first_of_each[leak[1]] is leak][: self._count]

    @property
    def leaks(self) -> list[Leak]:
        """Those found so far."""
        return self._found
