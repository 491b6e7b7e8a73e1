"""The table of features: a row a patch, with its name and what a network sees in it, numbers of float16."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from emcurate.errors import InputError
from emcurate.patches.columns import as_column, in_one
from emcurate.patches.parquet import open_parquet, write_parquet
from emcurate.writing import path_once

FEATURES_FILE = "features.parquet"

# What the metadata of the table begin with, and what they say: which network this is of.
METADATA_PREFIX = "emcurate."

# Rows that are read and written at once: of 2,048 numbers, 32 MB.
ROWS_AT_ONCE = 8192

_ADVICE = "name the features.parquet that filtered/embed.py wrote"

Halves = npt.NDArray[np.float16]


def write_features(
    path: Path,
    names: pa.StringArray,
    width: int,
    read: Callable[[slice], Halves],
    about: Mapping[str, str],
    *,
    overwrite: bool,
) -> None:
    """Write the table atomically, unless it is there with the same bytes; the same features give the same.

    Parameters
    ----------
    path : Path
    names : pyarrow array of n strings
    width : int
        Numbers of a patch.
    read : callable
        Gives the (m, width) float16 features of some patches.
    about : mapping of str to str
        Which network they are of.
    overwrite : bool
        Whether another file may be replaced.

    Raises
    ------
    InputError
        If another file is there and `overwrite` is not set.
    """
    metadata = {f"{METADATA_PREFIX}{key}": value for key, value in about.items()}
    schema = pa.schema([("patch", pa.string()), ("features", pa.list_(pa.float16(), width))], metadata)
    packing = {"patch": "zstd", "features.list.element": "none"}  # numbers of a network do not pack
    how = {"compression": packing, "use_dictionary": False, "write_statistics": ["patch"]}
    with path_once(path, overwrite=overwrite) as partial, write_parquet(partial, schema, **how) as writer:
        for start in range(0, max(1, len(names)), ROWS_AT_ONCE):
            some = slice(start, min(start + ROWS_AT_ONCE, len(names)))
            numbers = as_column(read(some).ravel(), pa.float16())
            lists = pa.FixedSizeListArray.from_arrays(numbers, width)
            writer.write_table(pa.Table.from_arrays([names[some], lists], schema=schema))


class FeatureTable:
    """A table of features that is open; names are held, features are read some at a time.

    Attributes
    ----------
    path : Path
    names : pyarrow array of n strings
    width : int
    about : dict of str to str
        Which network they are of.

    Raises
    ------
    InputError
        If the file is no such table.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with open_parquet(path) as parquet:
                schema = parquet.schema_arrow
                kind = schema.field("features").type if "features" in schema.names else None
                if kind is None or not pa.types.is_fixed_size_list(kind) or "patch" not in schema.names:
                    raise InputError(path, "a table with `patch` and `features`", "another", _ADVICE)
                self.width = int(kind.list_size)
                self.names = in_one(parquet.read(["patch"], use_threads=False)["patch"])
                said = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self._damaged(error) from None
        self.about = {k.removeprefix(METADATA_PREFIX): v for k, v in said.items() if k.startswith(METADATA_PREFIX)}

    def __len__(self) -> int:
        return len(self.names)

    def read(self) -> Iterator[Halves]:
        """Yield the features, (m, width) float16, some patches at a time, in the order of the names.

        Raises
        ------
        InputError
            If the file is damaged.
        """
        try:
            with open_parquet(self.path) as parquet:
                for group in range(parquet.num_row_groups):
                    lists = in_one(parquet.read_row_group(group, ["features"], use_threads=False)["features"])
                    numbers = lists.flatten().to_numpy().astype(np.float16, copy=False)
                    found = numbers.reshape(len(lists), self.width)
                    if lists.null_count or not np.isfinite(found).all():
                        raise ValueError("features that are no numbers")
                    yield found
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> InputError:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        return InputError(self.path, "a table of features", f"a damaged or other file ({said})", _ADVICE)
