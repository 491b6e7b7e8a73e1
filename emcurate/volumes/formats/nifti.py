"""NIfTI-1 and NIfTI-2 in one file: ``.nii``, or ``.nii.gz`` compressed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from emcurate.errors import InputError
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
from emcurate.volumes.units import MILLIMETRE_NM

# xyzt_units as nibabel names them, in nm.
_UNITS_NM = {"meter": 1e9, "mm": MILLIMETRE_NM, "micron": 1e3}

_GZIP_MAGIC = b"\x1f\x8b"
_RGB_FIELDS = ("R", "G", "B", "A")
_SAVE_PLAIN = "save it as a volume of numbers"


def open_voxels(path: Path) -> Opened:
    """Open a NIfTI file; read its header only."""
    try:
        return _open(path)
    except (HeaderDataError, ImageFileError, ValueError) as error:
        raise InputError(path, "a NIfTI header", f"a damaged one ({error})", "copy it again") from None


def _open(path: Path) -> Opened:
    compressed = _is_compressed(path)
    header = _read_header(path, compressed)
    shape = _find_shape(path, header)
    dtype = header.get_data_dtype()
    channels = 0
    if dtype.names is not None and dtype.names == _RGB_FIELDS[: len(dtype.names)]:
        channels, dtype = len(dtype.names), np.dtype(np.uint8)
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise InputError(path, "integer or floating-point voxels", f"{dtype} voxels", _SAVE_PLAIN)
    offset = int(header.get_data_offset())
    if offset < header.template_dtype.itemsize:
        raise InputError(path, "voxels after the header", f"vox_offset {offset}", "check how it was written")
    voxels: Any
    if compressed:
        voxels = PackedStream(path, "gzip", shape, dtype, skip=offset, channels=channels)
    else:
        voxels = FlatFile(path, shape, dtype, (offset,), channels).check_complete()
    slope, intercept = header.get_slope_inter()
    # nibabel gives None where the file asks for no scaling.
    slope, intercept = 1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)
    if not channels and (slope, intercept) != (1.0, 0.0):
        voxels = Scaled(voxels, slope, intercept)
    return Opened(voxels, _voxel_size(header))


def _is_compressed(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == _GZIP_MAGIC


def _read_header(path: Path, compressed: bool) -> Any:
    opened: Any = open_packed(path, "gzip") if compressed else open(path, "rb")  # noqa: SIM115 - closed below
    # nibabel reports in its log what it mends in a header; what matters is checked and said here.
    logging.getLogger("nibabel").setLevel(logging.CRITICAL)
    with opened as stream:
        start = stream.read(nibabel.Nifti2Header.template_dtype.itemsize)
        kinds: tuple[Any, ...] = (nibabel.Nifti1Header, nibabel.Nifti2Header)
        kind = next((kind for kind in kinds if kind.may_contain_header(start)), None)
        if kind is None:
            raise InputError(path, "a NIfTI header", f"{len(start)} bytes that are none", "check what the file is")
        # Unchecked: the check would mend a voxel size of 0 to 1.
        return kind(start[: kind.template_dtype.itemsize], check=False)


def _find_shape(path: Path, header: Any) -> tuple[int, int, int]:
    # The first axis is the fastest, x; then y and z; a fourth is time and must be single, as must all after it.
    sides = [int(side) for side in header.get_data_shape()]
    if len(sides) < 2 or any(side != 1 for side in sides[3:]):
        raise InputError(path, "one volume of 3 axes", describe_shape(tuple(sides)), "save its volumes one by one")
    x, y, z = (*sides, 1)[:3]
    return check_side_lengths(path, (z, y, x))


def _voxel_size(header: Any) -> tuple[float, float, float] | None:
    x, y, z = (*(float(step) for step in header.get_zooms()), 0.0)[:3]
    unit = header.get_xyzt_units()[0]
    if unit == "unknown" and (z, y, x) != (1, 1, 1):
        unit = "mm"  # as for NRRD: the habit is millimetres, and steps of exactly 1 are what a file says by default
    scale = _UNITS_NM.get(unit)
    return None if scale is None else checked_voxel_size((z * scale, y * scale, x * scale))
