"""The formats that patches can be exported in, by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from emcurate.outputs import Output
from emcurate.patches.exports.hdf5 import HDF5
from emcurate.patches.exports.imagefolder import IMAGEFOLDER
from emcurate.patches.exports.pieces import PIECE_DIGITS, Format, Piece, Split
from emcurate.patches.exports.webdataset import WEBDATASET
from emcurate.patches.exports.zarr import ZARR
from emcurate.patches.joined import JOINED_NAME

FORMATS: dict[str, Format] = {"imagefolder": IMAGEFOLDER, "webdataset": WEBDATASET, "zarr": ZARR, "h5": HDF5}

# What every export has beside its splits; each is a key of its own in the ledger.
FOR_ALL = (JOINED_NAME,)


def write_piece(piece: Piece) -> list[Output]:
    """Write a piece in its format; return the files."""
    return FORMATS[piece.how.format].write(piece)


def owner_of(name: str) -> str | None:
    """Return the ledger's key of what lies directly in an export's directory, in whatever format; None if none's."""
    if name in FOR_ALL:
        return name
    return next((key for each in FORMATS.values() if (key := each.owner_of(name)) is not None), None)


def describe(format: str, outdir: Path, splits: Sequence[Split]) -> str:
    """Return how a person reads an export in Python."""
    first = splits[0].name
    if format == "imagefolder":
        return f"datasets.load_dataset('imagefolder', data_dir={str(outdir)!r})"
    if format == "webdataset":
        last = splits[0].pieces[-1]
        shards = f"{first}-{{{0:0{PIECE_DIGITS}d}..{last:0{PIECE_DIGITS}d}}}.tar"
        return f"webdataset.WebDataset({f'{outdir}/{shards}'!r}).decode('l8').to_tuple('png;tiff', 'json')"
    if format == "zarr":
        return f"zarr.open({f'{outdir}/{first}.zarr'!r})"
    return f"h5py.File({f'{outdir}/{first}-{0:0{PIECE_DIGITS}d}.h5'!r})['images']"
