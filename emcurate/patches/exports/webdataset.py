"""Shards that the `webdataset` library streams: tars in which an image and a JSON text of one name are one sample.

Patches come in an order drawn by lot, since shards are read one after another. Names are numbers: the library takes
what stands before the first dot for a sample's name, and names of datasets may have dots.
"""

from __future__ import annotations

import re

import msgspec

from emcurate.outputs import Output
from emcurate.patches.exports.pieces import (
    PIECE_DIGITS,
    Format,
    How,
    Index,
    Piece,
    Split,
    name_number,
    piece_key,
    plain_rows,
)
from emcurate.patches.shards import ShardWriter, shard_name

_SHARD = re.compile(rf"(?P<split>.+)-(?P<piece>\d{{{PIECE_DIGITS},}})\.tar")


def place(how: How, split: Split, number: int) -> tuple[str, int | None]:
    """Return the shard and the member of it that hold a patch, as path lists name them."""
    shard = shard_name(split.name, number // split.piece_rows)
    return f"{shard}/{name_number(number)}.{how.image}", None


def write(piece: Piece) -> list[Output]:
    """Write the shard of a piece."""
    # In the order in which they lie on the disk: patches come from everywhere, and the shard is small.
    order = sorted(range(len(piece.paths)), key=piece.paths.__getitem__)
    images = {i: piece.encode(piece.read(piece.paths[i])) for i in order}
    with ShardWriter(piece.outdir / shard_name(piece.split, piece.number), overwrite=piece.replace) as writer:
        for i, row in enumerate(plain_rows(piece.rows)):
            name = name_number(piece.first + i)
            writer.add(f"{name}.{piece.how.image}", images[i])
            writer.add(f"{name}.json", msgspec.json.encode(row))
    assert writer.output is not None
    return [writer.output]


def write_index(index: Index) -> list[Output]:
    """Write nothing: shards are whole by themselves."""
    return []


def owner_of(name: str) -> str | None:
    """Return the ledger's key of what lies in OUTDIR."""
    match = _SHARD.fullmatch(name)
    return piece_key(match["split"], int(match["piece"])) if match else None


WEBDATASET = Format(write, write_index, place, owner_of, shuffles=True)
