"""MRC files as unsigned bytes: what a file needs to become one, and the file that is one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from emcurate.errors import InputError
from emcurate.files import open_regular
from emcurate.images.pixels import Rescale, convert
from emcurate.outputs import fingerprint
from emcurate.partials import partial_path
from emcurate.volumes.formats.mrc import (
    BYTE_VALUES,
    HEADER_BYTES,
    MrcHeader,
    compression_of,
    copy_extended_header,
    encode_byte_header,
)
from emcurate.volumes.limits import choose_volume_limits, measure_block, measuring_jobs
from emcurate.volumes.scratch import unpacked
from emcurate.volumes.volume import Volume, open_volume
from emcurate.writing import move_once

# What a file needs to hold unsigned bytes: "shift" for signed bytes, "convert" for any other pixel type.
Need = Literal["nothing", "shift", "convert"]

# Added to a signed byte, it gives the unsigned byte that IMOD means: -128..127 becomes 0..255.
SIGNED_SHIFT = 128


def judge(header: MrcHeader) -> Need:
    """Return what a file needs to hold unsigned bytes."""
    if header.mode != 0:
        return "convert"
    return "shift" if header.signed else "nothing"


def shift_to_unsigned(plane: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """Return signed bytes plus 128, as unsigned bytes.

    >>> shift_to_unsigned(np.array([-128, -1, 0, 127], np.int8)).tolist()
    [0, 127, 128, 255]
    """
    # The sum is the byte with its highest bit turned over.
    return plane.view(np.uint8) ^ np.uint8(SIGNED_SHIFT)


def unsigned_planes(volume: Volume, need: Need, rescale: Rescale) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the (y, x) planes of a volume as unsigned bytes."""
    planes = volume.voxels.iter_planes(0, volume.shape[0])
    if need == "nothing":
        yield from planes
    elif need == "shift":
        yield from map(shift_to_unsigned, planes)
    else:
        limits = choose_volume_limits(volume, rescale, map(measure_block, measuring_jobs(volume, rescale)))
        yield from (convert(plane, limits) for plane in planes)


def refuse_in_place(header: MrcHeader, need: Need, *, overwrite: bool) -> None:
    """Raise `InputError` where a file must not be changed in place; `overwrite` allows what loses information."""
    path = header.path
    if need == "convert" and not overwrite:
        raise InputError(
            path,
            "bytes (mode 0), which can be made unsigned without loss",
            f"{header.type_name} voxels (mode {header.mode})",
            "use -o OUTDIR to keep the original, or --overwrite to replace it",
        )
    if compression_of(path):
        raise InputError(
            path, "an uncompressed file to change in place", "a compressed one", "use -o OUTDIR, or unpack it first"
        )
    if not os.access(path, os.W_OK):
        raise InputError(path, "a file you may change", "no write permission", "use -o OUTDIR, or allow it")


def write_unsigned(
    header: MrcHeader, need: Need, destination: Path, rescale: Rescale, label: str, state: str, *, overwrite: bool
) -> bool:
    """Write the unsigned version of a file plane by plane; return whether it was not there yet.

    Everything but the voxels and what the header says of them is kept, also what some programs append after the
    voxels. `destination` may be the file itself, which needs `overwrite`; a link stays one, and the file it leads to
    is replaced. `label` is added to the header's.

    Raises
    ------
    InputError
        If the file is no longer as it was when its `emcurate.files.fingerprint` was `state`, which the header is read
        after: somebody else has made it unsigned meanwhile, perhaps, and 128 would be added twice.
    """
    path = header.path
    if destination == path:
        destination = path.resolve()
    partial = partial_path(destination.parent)
    try:
        with unpacked(open_volume(path), destination.parent) as volume, open(partial, "wb") as file:
            file.write(bytes(HEADER_BYTES))
            copy_extended_header(header, file)
            histogram = np.zeros(BYTE_VALUES, np.int64)
            for plane in unsigned_planes(volume, need, rescale):
                file.write(np.ascontiguousarray(plane).data)
                histogram += np.bincount(plane.ravel(), minlength=BYTE_VALUES)
            if compression_of(path) is None:
                with open_regular(path) as source:
                    source.seek(header.data_offset + header.data_bytes)
                    shutil.copyfileobj(source, file)
            file.seek(0)
            file.write(encode_byte_header(header.record, header.byte_order, histogram, label))
            file.flush()
            os.fsync(file.fileno())  # it may be about to replace the only copy
        shutil.copymode(path, partial)
        if fingerprint(path) != state:
            raise InputError(path, "a file that nobody else writes", "one that has changed meanwhile", "run it again")
        return move_once(partial, destination, overwrite=overwrite)
    finally:
        partial.unlink(missing_ok=True)
