"""One Zarr 3 array for each split, (patches, size, size) uint8, in shards of which any patch can be read alone.

Shards are made in memory by tensorstore and written as every other file. The array's metadata come last: without a
shard, Zarr reads zeros, and says nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from emcurate.outputs import Output
from emcurate.partials import partial_path
from emcurate.patches.exports.pieces import ROWS_ARE, Format, How, Index, Piece, Split
from emcurate.writing import move_once, write_pieces

# Zstandard's fastest: its stronger levels save a few per cent of patches and take several times as long.
COMPRESSION_LEVEL = 1

AXES = ("patch", "y", "x")
METADATA = "zarr.json"


def array_name(split: str) -> str:
    """Return the name of a split's array.

    >>> array_name("train")
    'train.zarr'
    """
    return f"{split}.zarr"


def place(how: How, split: Split, number: int) -> tuple[str, int | None]:
    """Return the array that holds a patch, and its index there."""
    return array_name(split.name), number


def write(piece: Piece) -> list[Output]:
    """Write the shard of a piece."""
    size = piece.how.size
    assert size is not None
    patches = np.empty((len(piece.paths), size, size), np.uint8)
    for i, pixels in enumerate(piece.pixels()):
        patches[i] = pixels
    # The first shard of an array of its own, whose bytes are those of the shard in the whole one.
    store = _open_in_memory(len(patches), size, piece.piece_rows)
    store.write(patches).result()
    found = store.kvstore.read("c/0/0/0").result().value
    if not found:  # of zeros only, which Zarr does not keep
        return []
    return [_write(piece.outdir, f"{array_name(piece.split)}/c/{piece.number}/0/0", found, replace=piece.replace)]


def write_index(index: Index) -> list[Output]:
    """Write the metadata of a split's array."""
    size = index.how.size
    assert size is not None
    store = _open_in_memory(len(index.split.members), size, index.split.piece_rows)
    metadata = msgspec.json.decode(store.kvstore.read(METADATA).result().value)
    data = msgspec.json.format(msgspec.json.encode(metadata | {"attributes": {"rows": ROWS_ARE}}), indent=2)
    return [_write(index.outdir, f"{array_name(index.split.name)}/{METADATA}", data, replace=index.replace)]


def _write(outdir: Path, name: str, data: bytes, *, replace: bool) -> Output:
    """Write a file of an array; what a kill leaves of it lies in OUTDIR, where it is swept away."""
    path = outdir / name
    path.parent.mkdir(parents=True, exist_ok=True)
    output = write_pieces(partial_path(outdir), [data])
    move_once(outdir / output.name, path, overwrite=replace)
    return output._replace(name=name, mtime_ns=path.stat().st_mtime_ns)


def _open_in_memory(count: int, size: int, shard_rows: int) -> Any:
    import tensorstore  # here, since it takes a while to load

    sharding = {
        "chunk_shape": [1, size, size],
        "codecs": [{"name": "bytes"}, {"name": "zstd", "configuration": {"level": COMPRESSION_LEVEL}}],
        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
    }
    metadata = {
        "shape": [count, size, size],
        "data_type": "uint8",
        "fill_value": 0,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [shard_rows, size, size]}},
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "dimension_names": AXES,
    }
    spec = {"driver": "zarr3", "kvstore": {"driver": "memory"}, "metadata": metadata}
    return tensorstore.open(spec, create=True, context=tensorstore.Context()).result()


def owner_of(name: str) -> str | None:
    """Return the ledger's key of what lies in OUTDIR."""
    return name.removesuffix(".zarr/") if name.endswith(".zarr/") else None


ZARR = Format(write, write_index, place, owner_of, needs_one_size=True)
