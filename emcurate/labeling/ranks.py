"""Ranks of a list of patches, as filtered/select_diverse.py writes them: any beginning is a diverse selection."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from emcurate.errors import InputError
from emcurate.patches.columns import as_numbers, in_one
from emcurate.patches.names import stems_of
from emcurate.patches.selected import SELECTED_FILE, read_selected


def read_ranks(path: Path, chunks: Iterable[npt.NDArray[np.str_]]) -> npt.NDArray[np.int64]:
    """Read the ranks of a list of patches; they are matched by name.

    Parameters
    ----------
    path : Path
        ``diverse_decisions.parquet``, or its directory.
    chunks : iterable of string arrays
        The list's paths, n in all.

    Returns
    -------
    (n,) int64
        -1 where a patch has none: near-duplicates, and those that the selection has not seen.

    Raises
    ------
    InputError
        If it is no such table, or one of other patches.
    """
    file = path / SELECTED_FILE if path.is_dir() else path
    table = read_selected(file)
    names, ranks = in_one(table["patch"]), pc.fill_null(in_one(table["rank"]), -1)
    parts = [pc.index_in(stems_of(chunk), value_set=names) for chunk in chunks if len(chunk)]
    found = [pc.fill_null(ranks.take(places), -1) for places in parts]
    by_list = np.concatenate([np.zeros(0, np.int64), *map(as_numbers, found)])
    if len(by_list) and (by_list < 0).all():
        advice = "run filtered/select_diverse.py on this list, or on what was left of it"
        raise InputError(file, "ranks of this list's patches", "those of others", advice)
    return by_list
