"""Opening Parquet files, of which a corpus of many small datasets has thousands."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from emcurate.files import open_at_once, refuse_odd_kind

# Bytes of a file that is read whole first: column by column from the disk, a small one takes three times as long.
SMALL_BYTES = 1 << 20


class Checked(pq.ParquetFile):  # type: ignore[misc]
    """A Parquet file that is only read as what it says it is: a text that is none is an error here, and nowhere later.

    Checksums do not cover all of a file, and not every file has them.
    """

    def read(self, *words: Any, **more: Any) -> pa.Table:
        """Return the whole table, or some of its columns."""
        return _valid(super().read(*words, **more))

    def read_row_group(self, *words: Any, **more: Any) -> pa.Table:
        """Return a group of rows, or some of its columns."""
        return _valid(super().read_row_group(*words, **more))

    def read_row_groups(self, *words: Any, **more: Any) -> pa.Table:
        """Return some groups of rows, or some of their columns."""
        return _valid(super().read_row_groups(*words, **more))

    def iter_batches(self, *words: Any, **more: Any) -> Iterator[pa.RecordBatch]:
        """Yield rows, or some of their columns, some at a time."""
        return map(_valid, super().iter_batches(*words, **more))


def _valid(rows: Any) -> Any:
    """Return rows; raises `pyarrow.ArrowInvalid` if what is in them is not of their types, such as a text no UTF-8."""
    rows.validate(full=True)
    return rows


@contextlib.contextmanager
def open_parquet(path: Path) -> Iterator[Checked]:
    """Give an open Parquet file, whose pages are held to their checksums where it has any, and all to its types.

    Raises
    ------
    InputError
        If it is a pipe, a socket or a device.
    FileNotFoundError, pyarrow.ArrowException, OSError, ValueError
        If it is not there, or no such file.
    MemoryError
        If there is too little memory to read it, which says nothing of the file.
    """
    with open(path, "rb", opener=open_at_once) as file:
        about = os.fstat(file.fileno())
        refuse_odd_kind(path, about.st_mode)
        source = pa.BufferReader(file.read()) if about.st_size <= SMALL_BYTES else file
        try:
            with Checked(source, page_checksum_verification=True, pre_buffer=False) as parquet:
                yield parquet
        except pa.ArrowMemoryError as error:  # which is an ArrowException too, as what is damaged raises
            raise MemoryError(str(error)) from None


@contextlib.contextmanager
def write_parquet(path: Path, schema: pa.Schema, **how: Any) -> Iterator[pq.ParquetWriter]:
    """Give what writes rows into a new Parquet file, which has checksums and is packed by zstd unless `how` says else.

    The library gets no path: it takes only those that are text, and some for addresses.
    """
    options = {"compression": "zstd", "write_page_checksum": True, **how}
    with open(path, "wb") as file, pq.ParquetWriter(file, schema, **options) as writer:
        yield writer
