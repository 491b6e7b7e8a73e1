"""Which patches a label file was opened with, as a table beside it: the order of its labels, and that of labelling.

A row a patch, in the order in which the patches came: those of the first list, then those that each later list added.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from emcurate.errors import InputError
from emcurate.patches.columns import as_column, as_numbers
from emcurate.patches.list_names import ListNames, hash_names
from emcurate.patches.parquet import open_parquet, write_parquet
from emcurate.writing import atomic_path

# Rows written at a time: names of 100 letters, 25 MB.
BLOCK_ROWS = 250_000

# What the table says of itself, in Parquet's own place for that.
_DIGEST, _COUNT, _REPLACES = b"emcurate.list_digest", b"emcurate.list_count", b"emcurate.replaces"


@dataclass(frozen=True)
class Listed:
    """The patches a label file was opened with.

    Attributes
    ----------
    generations : (m,) int32 array
        With which list each patch came, counted from 0; never falls.
    places : (m,) int64 array
        Where each is in the list as it is now, -1 for those no longer listed.
    digest, count : str, int
        That list: `ListNames.digest`, and how many it lists.
    replaces : str
        The digest of the labels that stood in the file when this list took the place of another. Found in the file
        still, they are those of the other list: whoever was to write the labels anew did not come to it.
    """

    generations: npt.NDArray[np.int32]
    places: npt.NDArray[np.int64]
    digest: str
    count: int
    replaces: str = ""

    def in_order(self, names: Sequence[str]) -> list[str]:
        """Return the names of the list's patches in its order; `names` are those of all rows."""
        rows = np.argsort(self.places, kind="stable")
        return [names[row] for row in rows[np.count_nonzero(self.places < 0) :].tolist()]


def list_first(names: ListNames) -> Listed:
    """Return the patches of a first list."""
    count = len(names)
    return Listed(np.zeros(count, np.int32), np.arange(count), names.digest, count)


def list_again(listed: Listed, known: list[str], names: ListNames, replaces: str) -> Listed:
    """Return the patches of a list that takes the place of another, after those that were known.

    Parameters
    ----------
    known : list of m str
        The names of the patches in `listed`.
    """
    places = names.places_of(hash_names(known))
    # Of what is known under two names, the first counts.
    _, first = np.unique(places, return_index=True)
    again = np.ones(len(places), bool)
    again[first] = False
    places[again] = -1
    fresh = np.setdiff1d(np.arange(len(names)), places)
    generation = int(listed.generations[-1]) + 1 if len(listed.generations) else 0
    return Listed(
        np.concatenate([listed.generations, np.full(len(fresh), generation, np.int32)]),
        np.concatenate([places, fresh]),
        names.digest,
        len(names),
        replaces,
    )


def write_listed(path: Path, listed: Listed, known: list[str], names: ListNames) -> None:
    """Write the table: atomically, and on the disk when this returns. `known` are the names of its first rows."""
    with atomic_path(path) as partial:
        try:
            _write(partial, listed, known, names, pa.string())
        except UnicodeEncodeError:
            # Names that are no valid Unicode, as a file system may hold them, are kept as their bytes.
            _write(partial, listed, known, names, pa.binary())
        with open(partial, "r+b") as file:
            os.fsync(file.fileno())


def _write(partial: Path, listed: Listed, known: list[str], names: ListNames, kind: pa.DataType) -> None:
    facts = {_DIGEST: listed.digest, _COUNT: str(listed.count), _REPLACES: listed.replaces}
    schema = pa.schema([("patch", kind), ("list", pa.int32()), ("place", pa.int64())], facts)
    with write_parquet(partial, schema, write_page_checksum=False) as writer:
        for start in range(0, len(listed.places), BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, len(listed.places))
            rows = [known[i] if i < len(known) else names[int(listed.places[i])] for i in range(start, stop)]
            if kind == pa.string():
                patches = as_column(rows, kind)
            else:
                patches = pa.array([row.encode("utf-8", "surrogateescape") for row in rows], kind)
            generations = as_column(listed.generations[start:stop], pa.int32())
            places = as_column(listed.places[start:stop], pa.int64())
            writer.write_table(pa.Table.from_arrays([patches, generations, places], schema=schema))


def read_listed(path: Path) -> Listed | None:
    """Return the table without its names; None where there is none.

    Raises
    ------
    InputError
        If it is damaged.
    """
    try:
        with open_parquet(path) as file:
            facts = file.schema_arrow.metadata or {}
            table = file.read(["list", "place"])
            return Listed(
                as_numbers(table.column("list")),
                as_numbers(table.column("place")),
                facts[_DIGEST].decode(),
                int(facts[_COUNT]),
                facts[_REPLACES].decode(),
            )
    except FileNotFoundError:
        return None
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise _damaged(path, error) from None


def read_names(path: Path) -> list[str]:
    """Return the names of the table's patches, row by row.

    Raises
    ------
    InputError
        If it is damaged.
    """
    try:
        with open_parquet(path) as file:
            column = file.read(["patch"]).column("patch")
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise _damaged(path, error) from None
    if pa.types.is_binary(column.type):
        return [name.decode("utf-8", "surrogateescape") for name in column.to_pylist()]
    return list(column.to_pylist())


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(path, "the table of the patches that were labelled", str(error), "restore it, or remove it")
