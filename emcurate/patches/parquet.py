"""Opening Parquet files, of which a corpus of many small datasets has thousands."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from emcurate.files import open_at_once, refuse_odd_kind

# Bytes of a file that is read whole first: column by column from the disk, a small one takes three times as long.
SMALL_BYTES = 1 << 20


@contextlib.contextmanager
def open_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    """Give an open Parquet file, whose pages are held to their checksums where it has any.

    Raises
    ------
    InputError
        If it is a pipe, a socket or a device.
    FileNotFoundError, pyarrow.ArrowException, OSError, ValueError
        If it is not there, or no such file.
    """
    with open(path, "rb", opener=open_at_once) as file:
        about = os.fstat(file.fileno())
        refuse_odd_kind(path, about.st_mode)
        source = pa.BufferReader(file.read()) if about.st_size <= SMALL_BYTES else file
        with pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=False) as parquet:
            yield parquet
