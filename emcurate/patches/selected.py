"""The table of what a selection made of patches: a row for each that it has seen, by its name."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from emcurate.errors import InputError
from emcurate.patches.columns import as_column
from emcurate.patches.parquet import open_parquet

# select_diverse.py's.
SELECTED_FILE = "diverse_decisions.parquet"

# `rank` is a patch's place in an order of which any beginning is diverse, null of what is not put in order; `cluster`
# its cluster, null of patches without features.
SELECTED_COLUMNS: dict[str, pa.DataType] = {"selected": pa.bool_(), "rank": pa.int64(), "cluster": pa.int32()}

# Which patch, by name, a near-duplicate is like, and how much; null of others.
LIKENESS_COLUMNS: dict[str, pa.DataType] = {"like": pa.string(), "cosine": pa.float32()}

REASON = "reason"

Rows = npt.NDArray[np.int64]


def encode_selected(
    names: pa.StringArray,
    ranks: Rows,
    budget: int,
    levels: Sequence[npt.NDArray[np.int32]],
    like: Rows,
    cosines: npt.NDArray[np.float32],
) -> bytes:
    """Return the table as a Parquet file; the same selection gives the same bytes.

    Parameters
    ----------
    names : pyarrow array of n strings
    ranks : (n,) int64
        -1 of patches that are not put in order.
    budget : int
        Patches of a lower rank are selected.
    levels : sequence of (n,) int32
        The cluster of each patch, level by level from the lowest; -1 of patches without features.
    like : (n,) int64
        The row of the patch that a near-duplicate is like; -1 of others.
    cosines : (n,) float32
    """
    selected = (ranks >= 0) & (ranks < budget)
    columns = {
        "patch": names,
        "selected": as_column(selected.view(np.uint8), pa.uint8()).cast(pa.bool_()),
        "rank": as_column(ranks, pa.int64(), ranks < 0),
        "cluster": as_column(levels[0], pa.int32(), levels[0] < 0),
        **{
            f"cluster_{level}": as_column(labels, pa.int32(), labels < 0)
            for level, labels in enumerate(levels[1:], start=2)
        },
        "like": names.take(as_column(like, pa.int64(), like < 0)),
        "cosine": as_column(cosines, pa.float32(), like < 0),
        REASON: spell_reasons(ranks, budget, levels[0] < 0, cosines),
    }
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, compression="zstd", write_page_checksum=True)
    return file.getvalue()


def spell_reasons(
    ranks: Rows, budget: int, lacks: npt.NDArray[np.bool_], cosines: npt.NDArray[np.float32]
) -> pa.StringArray:
    """Return in words why each patch was selected, or not; `lacks` tells which have no features."""
    spelt = [
        f"drawn evenly, among the first {budget}",
        f"beyond the first {budget} of an even draw",
        "it has no features",
    ]
    codes = np.where(lacks, 2, np.where(ranks < budget, 0, 1)).astype(np.int8)
    words = as_column(spelt, pa.string()).take(as_column(codes, pa.int8()))
    is_near = (ranks < 0) & ~lacks
    rounded = pc.round(as_column(cosines, pa.float64(), ~is_near), 4).cast(pa.string())
    near = pc.binary_join_element_wise("cosine ", rounded, " to a patch that stays", "")
    return pc.if_else(as_column(is_near.view(np.uint8), pa.uint8()).cast(pa.bool_()), near, words)


def read_selected(path: Path) -> pa.Table:
    """Return the table: `patch`, `SELECTED_COLUMNS`, `LIKENESS_COLUMNS` and `REASON`.

    Raises
    ------
    InputError
        If the file is no such table.
    """
    wanted = {"patch": pa.string(), **SELECTED_COLUMNS, **LIKENESS_COLUMNS, REASON: pa.string()}
    try:
        with open_parquet(path) as parquet:
            table = parquet.read(list(wanted), use_threads=False)
        return pa.table({name: table[name].cast(kind) for name, kind in wanted.items()})
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        advice = "run filtered/select_diverse.py again"
        raise InputError(path, "a table of what was selected", f"a damaged or other file ({said})", advice) from None
