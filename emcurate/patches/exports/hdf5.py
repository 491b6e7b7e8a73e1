"""HDF5 files for each split, of many patches each: `images` (patches, size, size) uint8, and what is known of them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pyarrow as pa

from emcurate.outputs import Output, note_output
from emcurate.patches.columns import in_one
from emcurate.patches.exports.pieces import PIECE_DIGITS, ROWS_ARE, Format, How, Index, Piece, Split, piece_key
from emcurate.writing import path_once

_FILE = re.compile(rf"(?P<split>.+)-(?P<piece>\d{{{PIECE_DIGITS},}})\.h5")


def file_name(split: str, piece: int) -> str:
    """Return the name of a piece's file.

    >>> file_name("val", 0)
    'val-00000.h5'
    """
    return f"{split}-{piece:0{PIECE_DIGITS}d}.h5"


def place(how: How, split: Split, number: int) -> tuple[str, int | None]:
    """Return the file that holds a patch, and its index there."""
    piece, row = divmod(number, split.piece_rows)
    return file_name(split.name, piece), row


def write(piece: Piece) -> list[Output]:
    """Write the file of a piece, a patch at a time."""
    import h5py  # here, since it takes a while to load

    path = piece.outdir / file_name(piece.split, piece.number)
    size, count = piece.how.size, len(piece.paths)
    assert size is not None
    # The oldest format that has what is needed, so that every reader knows it; it holds no times.
    with path_once(path, overwrite=piece.replace) as partial, h5py.File(partial, "w", libver="earliest") as file:
        file.attrs["rows"] = ROWS_ARE
        images = file.create_dataset("images", (count, size, size), np.uint8)
        for i, pixels in enumerate(piece.pixels()):
            images[i] = pixels
        for name in piece.rows.column_names:
            column = in_one(piece.rows[name])
            if name != "number" and column.null_count < count:
                _write_column(file, name, column)
    return [note_output(path, piece.outdir)]


def _write_column(file: Any, name: str, column: pa.Array) -> None:
    """Write a column: texts as UTF-8, numbers that are not known as NaN or -1."""
    import h5py

    if pa.types.is_string(column.type):
        texts = [text or "" for text in column.to_pylist()]
        file.create_dataset(name, data=texts, dtype=h5py.string_dtype())
    else:
        missing = float("nan") if pa.types.is_floating(column.type) else -1
        file.create_dataset(name, data=column.fill_null(missing).to_numpy(zero_copy_only=False))


def write_index(index: Index) -> list[Output]:
    """Write nothing: the files are whole by themselves."""
    return []


def owner_of(name: str) -> str | None:
    """Return the ledger's key of what lies in OUTDIR."""
    match = _FILE.fullmatch(name)
    return piece_key(match["split"], int(match["piece"])) if match else None


HDF5 = Format(write, write_index, place, owner_of, piece_bytes=1 << 30, piece_rows=1 << 30, needs_one_size=True)
