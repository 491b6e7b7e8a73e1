"""A directory of images for each split, as `datasets.load_dataset("imagefolder")` reads it, with `metadata.parquet`.

Images are called by numbers: what is called after a dataset may hold a word such as "val" or "test", by which the
library takes a file for another split's.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from emcurate.errors import InputError
from emcurate.files import make_output_directory
from emcurate.outputs import Output, note_output
from emcurate.patches.columns import as_column
from emcurate.patches.exports.pieces import Format, How, Index, Piece, Split, name_number, piece_key
from emcurate.writing import path_once, write_files, write_pieces

METADATA = "metadata.parquet"


def place(how: How, split: Split, number: int) -> tuple[str, int | None]:
    """Return the file that holds a patch."""
    return f"{piece_key(split.name, number // split.piece_rows)}/{name_number(number)}.{how.image}", None


def write(piece: Piece) -> list[Output]:
    """Write the images of a piece into a directory of their own."""
    directory = make_output_directory(piece.outdir / piece.key)
    numbers = map(name_number, range(piece.first, piece.first + len(piece.paths)))
    images = (
        (f"{name}.{piece.how.image}", piece.encode(patch)) for name, patch in zip(numbers, piece.pixels(), strict=True)
    )
    outputs, _ = write_files(directory, images, overwrite=piece.replace)
    return [output._replace(name=f"{piece.key}/{output.name}") for output in outputs]


def write_index(index: Index) -> list[Output]:
    """Write what is known of a split's images beside them, and the list of their paths, a line each."""
    directory = index.outdir / index.split.name
    with path_once(directory / METADATA, overwrite=index.replace) as partial, open(partial, "wb") as file:
        writer = None
        for rows in index.rows():
            # Where a row's image is is told from the directory of the table on.
            names = [name.partition("/")[2] for name in _names(index, rows)]
            table = rows.drop_columns(["number"]).add_column(0, "file_name", as_column(names, pa.string()))
            if writer is None:
                writer = pq.ParquetWriter(file, table.schema, compression="zstd", write_page_checksum=True)
            writer.write_table(table, row_group_size=max(1, len(table)))
        if writer is not None:
            writer.close()
    listed = write_pieces(index.outdir / f"{index.split.name}.txt", _lines(index), overwrite=index.replace)
    return [note_output(directory / METADATA, index.outdir), listed]


def _names(index: Index, rows: pa.Table) -> Iterator[str]:
    for number in rows["number"].to_pylist():
        yield place(index.how, index.split, number)[0]


def _lines(index: Index) -> Iterator[bytes]:
    before = "" if index.relative else f"{index.outdir}/"
    if "\n" in before:
        found = "a directory whose name has the end of a line"
        raise InputError(index.outdir, "a name that fits into a line", found, "rename it, or use --relative")
    for rows in index.rows():
        yield "".join(f"{before}{name}\n" for name in _names(index, rows)).encode("utf-8", "surrogateescape")


def owner_of(name: str) -> str | None:
    """Return the ledger's key of what lies in OUTDIR."""
    split = name.removesuffix("/").removesuffix(".txt")
    return split if split != name and "." not in split else None


IMAGEFOLDER = Format(write, write_index, place, owner_of)
