"""NIfTI-1 and NIfTI-2 in one file: ``.nii``, or ``.nii.gz`` compressed."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from emcurate.errors import DAMAGE, InputError, describe_damage
from emcurate.files import open_regular
from emcurate.images.units import MILLIMETRE_NM
from emcurate.volumes.layouts import (
    FlatFile,
    Opened,
    PackedStream,
    Scaled,
    check_side_lengths,
    checked_voxel_size,
    describe_shape,
    open_packed,
)

# xyzt_units as nibabel names them, in nm.
_UNITS_NM = {"meter": 1e9, "mm": MILLIMETRE_NM, "micron": 1e3}

_GZIP_MAGIC = b"\x1f\x8b"
_RGB_FIELDS = ("R", "G", "B", "A")
_SAVE_PLAIN = "save it as a volume of numbers"


def open_voxels(path: Path) -> Opened:
    """Open a NIfTI file; read its header only."""
    compressed = _is_compressed(path)
    header = _read_header(path, compressed)
    shape = _find_shape(path, header.sides)
    dtype, channels = header.dtype, 0
    if dtype.names is not None and dtype.names == _RGB_FIELDS[: len(dtype.names)]:
        channels, dtype = len(dtype.names), np.dtype(np.uint8)
    if dtype.kind not in "iuf" or not 0 < dtype.itemsize <= 8:
        raise InputError(path, "integer or floating-point voxels", f"{dtype} voxels", _SAVE_PLAIN)
    if header.offset < header.length:
        raise InputError(path, "voxels after the header", f"vox_offset {header.offset}", "check how it was written")
    voxels: Any
    if compressed:
        packed = PackedStream(path, "gzip", shape, dtype, skip=header.offset, channels=channels)
        voxels = packed.check_plausible()
    else:
        voxels = FlatFile(path, shape, dtype, (header.offset,), channels).check_complete()
    if not channels and (header.slope, header.intercept) != (1.0, 0.0):
        voxels = Scaled(voxels, header.slope, header.intercept)
    return Opened(voxels, _voxel_size(header))


@dataclass(frozen=True)
class _Header:
    """What a header says, in plain values: the sides and steps of the axes, the fastest first; bytes; scaling."""

    length: int
    sides: tuple[int, ...]
    steps: tuple[float, ...]
    unit: str
    dtype: np.dtype[Any]
    offset: int
    slope: float
    intercept: float


def _is_compressed(path: Path) -> bool:
    with open_regular(path) as file:
        return file.read(2) == _GZIP_MAGIC


def _read_header(path: Path, compressed: bool) -> _Header:
    opened: Any = open_packed(path, "gzip") if compressed else open_regular(path)
    # nibabel reports in its log what it mends in a header; what matters is checked and said here.
    logging.getLogger("nibabel").setLevel(logging.CRITICAL)
    with opened as stream:
        start = stream.read(nibabel.Nifti2Header.template_dtype.itemsize)
    kinds: tuple[Any, ...] = (nibabel.Nifti1Header, nibabel.Nifti2Header)
    kind = next((kind for kind in kinds if kind.may_contain_header(start)), None)
    if kind is None:
        raise InputError(path, "a NIfTI header", f"{len(start)} bytes that are none", "check what the file is")
    length = kind.template_dtype.itemsize
    try:
        # Unchecked: the check would mend a voxel size of 0 to 1.
        header = kind(start[:length], check=False)
        slope, intercept = header.get_slope_inter()
        return _Header(
            length,
            tuple(int(side) for side in header.get_data_shape()),
            tuple(float(step) for step in header.get_zooms()),
            str(header.get_xyzt_units()[0]),
            header.get_data_dtype(),
            int(header.get_data_offset()),
            # nibabel gives None where the file asks for no scaling.
            1.0 if slope is None else float(slope),
            0.0 if intercept is None else float(intercept),
        )
    except (*DAMAGE, HeaderDataError, ImageFileError) as error:
        raise describe_damage(error, path, "a NIfTI header", "copy it again") from None


def _find_shape(path: Path, sides: tuple[int, ...]) -> tuple[int, int, int]:
    # The first axis is the fastest, x; then y and z; a fourth is time and must be single, as must all after it.
    if len(sides) < 2 or any(side != 1 for side in sides[3:]):
        raise InputError(path, "one volume of 3 axes", describe_shape(sides) or "none", "save its volumes one by one")
    x, y, z = (*sides, 1)[:3]
    return check_side_lengths(path, (z, y, x))


def _voxel_size(header: _Header) -> tuple[float, float, float] | None:
    x, y, z = (*header.steps, 0.0)[:3]
    unit = header.unit
    if unit == "unknown" and (z, y, x) != (1, 1, 1):
        unit = "mm"  # as for NRRD: the habit is millimetres, and steps of exactly 1 are what a file says by default
    scale = _UNITS_NM.get(unit)
    return None if scale is None else checked_voxel_size((z * scale, y * scale, x * scale))
