"""The table of what was decided of patches: a row for each that was looked at, by its name.

classify_nn.py and filter_measures.py write it; whatever else decides which patches are kept may, with these columns
and its reasons.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from emcurate.errors import InputError
from emcurate.patches.columns import as_column
from emcurate.patches.labels import CODE_INFORMATIVE, CODE_UNINFORMATIVE, LABELS
from emcurate.patches.names import stems_of
from emcurate.patches.parquet import open_parquet

# classify_nn.py's, and filter_measures.py's.
DECIDED_FILES = (DECIDED_FILE, DECIDED_BY_MEASURES) = ("nn_decisions.parquet", "measures_decisions.parquet")

# `score` is a probability of being informative, null where there is none; `label` a person's word, null where nobody
# has decided.
DECIDED_COLUMNS: dict[str, pa.DataType] = {"score": pa.float32(), "label": pa.string(), "kept": pa.bool_()}
SCHEMA = pa.schema([("patch", pa.string()), *DECIDED_COLUMNS.items()])

THRESHOLD_KEY = b"emcurate.threshold"


def encode_decided(
    paths: Iterable[npt.NDArray[np.str_]],
    scores: npt.NDArray[np.float32],
    codes: npt.NDArray[np.uint8],
    kept: npt.NDArray[np.uint8],
    threshold: float,
) -> bytes:
    """Return the table as a Parquet file; the same decisions give the same bytes.

    Parameters
    ----------
    paths : iterable of str arrays
        The patches', of files or members of shards, some at a time, n in all.
    scores : (n,) float32
        NaN where there is none.
    codes : (n,) uint8
        Labels, as `emcurate.patches.labels` codes them.
    kept : (n,) uint8
        1 where a patch was kept.
    threshold : float
        Scores above it are informative.
    """
    schema = SCHEMA.with_metadata({THRESHOLD_KEY: repr(threshold).encode()})
    words = as_column(list(LABELS), pa.string())
    file, start = io.BytesIO(), 0
    with pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer:
        for some in paths:
            part = slice(start, start + len(some))
            undecided = (codes[part] != CODE_INFORMATIVE) & (codes[part] != CODE_UNINFORMATIVE)
            columns = [
                stems_of(some),
                as_column(scores[part], pa.float32(), np.isnan(scores[part])),
                words.take(as_column(codes[part], pa.uint8(), undecided)),
                as_column(kept[part], pa.uint8()).cast(pa.bool_()),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema), row_group_size=max(1, len(some)))
            start = part.stop
    return file.getvalue()


def encode_reasons(names: pa.StringArray, kept: npt.NDArray[np.bool_], why: Sequence[str]) -> bytes:
    """Return the table of what was decided without scores and labels; the same decisions give the same bytes.

    Parameters
    ----------
    names : StringArray of n
        The patches'.
    kept : (n,) bool
    why : sequence of n str
        The reasons; empty for a patch that could not be read.
    """
    columns = {"patch": names, "kept": as_column(kept.astype(np.uint8), pa.uint8()).cast(pa.bool_())}
    columns["why"] = as_column([reason or None for reason in why], pa.string())
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, compression="zstd", write_page_checksum=True)
    return file.getvalue()


def read_decided(path: Path) -> pa.Table:
    """Return the table: `patch` and `DECIDED_COLUMNS`, those that it does not have null; its metadata are kept.

    Raises
    ------
    InputError
        If the file is no such table.
    """
    try:
        with open_parquet(path) as file:
            table = file.read(use_threads=False)
        wrong = [name for name in ("patch", "kept") if name not in table.column_names]
        if wrong:
            raise KeyError(f"no column {', '.join(wrong)}")
        columns: Mapping[str, pa.DataType] = {"patch": pa.string(), **DECIDED_COLUMNS}
        found = {
            name: table[name].cast(kind) if name in table.column_names else pa.nulls(len(table), kind)
            for name, kind in columns.items()
        }
        if "why" in table.column_names:
            found["why"] = table["why"].cast(pa.string())
        return pa.table(found).replace_schema_metadata(table.schema.metadata)
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(path, "a table of what was decided", f"a damaged or other file ({said})", _ADVICE) from None


def read_threshold(path: Path) -> float | None:
    """Return the score above which patches were kept, as the table notes it; None if it does not."""
    try:
        with open_parquet(path) as parquet:
            return float((parquet.schema_arrow.metadata or {})[THRESHOLD_KEY])
    except (pa.ArrowException, OSError, ValueError, KeyError):
        return None


_ADVICE = "run filtered/classify_nn.py or filtered/filter_measures.py again"
