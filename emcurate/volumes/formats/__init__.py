"""One small reader a volume format.

A reader is a module with ``open_voxels(path) -> Opened``, which reads headers only; one whose volumes may hold several
resolutions, channels or times is entered in `VIEWING` and has ``open_voxels(path, view)``. To add a format, write such
a module and enter its suffixes here: in `FILE_READERS`, or in `DIRECTORY_READERS` for volumes that are directories.
What lies on a server is opened by `servers`.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy.typing as npt

from emcurate.addresses import SEPARATOR, Address, Place
from emcurate.files import is_directory, is_there
from emcurate.volumes.layouts import Opened
from emcurate.volumes.views import View

# Modules by name, imported when a file of theirs turns up: nibabel alone takes longer to load than most headers.
FILE_READERS = {
    **dict.fromkeys((".tif", ".tiff", ".tf8", ".btf"), "tiff"),
    **dict.fromkeys((".mrc", ".map", ".rec", ".st", ".mrcs"), "mrc"),
    **dict.fromkeys((".mrc.gz", ".map.gz", ".rec.gz", ".st.gz", ".mrcs.gz"), "mrc"),
    **dict.fromkeys((".mrc.bz2", ".map.bz2", ".rec.bz2", ".st.bz2", ".mrcs.bz2"), "mrc"),
    **dict.fromkeys((".nrrd", ".nhdr"), "nrrd"),
    **dict.fromkeys((".nii", ".nii.gz"), "nifti"),
    **dict.fromkeys((".h5", ".hdf5", ".ims"), "hdf5"),
}

# Directories that are one volume in a format of their own, by suffix.
DIRECTORY_READERS = {".zarr": "ome_zarr", ".n5": "n5", ".precomputed": "precomputed"}

# What lies in other directories that are one, whatever these are called.
DIRECTORY_SIGNS = {"zarr.json": "ome_zarr", ".zgroup": "ome_zarr", ".zarray": "ome_zarr", "info": "precomputed"}

# Readers of formats of which a part may be chosen.
VIEWING = ("ome_zarr", "n5", "precomputed", "hdf5")

# Any other directory is a volume if it holds 2D slices.
SLICES_READER = "slices"

VOLUME_SUFFIXES = tuple(FILE_READERS)

Opener = Callable[[View], Opened]

# What volumes are written as, by their suffixes.
FORMATS = ("tif", "nrrd", "mrc")


def find_opener(place: Place) -> Opener | None:
    """Return what opens a volume by its suffix in any case, given what is to be read; None where no reader knows it."""
    if isinstance(place, Address):
        return functools.partial(importlib.import_module(f"{__name__}.servers").open_voxels, place)
    name = _find_module(place)
    if name is None:
        return None
    module = importlib.import_module(f"{__name__}.{name}")
    if name in VIEWING:
        return functools.partial(module.open_voxels, place)
    return functools.partial(_open_whole, module.open_voxels, place)


def _open_whole(open_voxels: Callable[[Path], Opened], path: Path, view: View) -> Opened:
    """Open a volume of a format that holds one of them."""
    importlib.import_module(f"{__name__}.arrays").refuse_choices(path, view)
    return open_voxels(path)


def write_stack(
    path: Path,
    planes: Iterable[npt.NDArray[Any]],
    format: str,
    voxel_size_nm: tuple[float, float, float] | None,
    label: str,
    expected_bytes: int | None,
) -> int:
    """Write (y, x) planes as they come as a volume; return how many there were. Without any, no file is made.

    Parameters
    ----------
    path : Path
    planes : iterable of (y, x) array
        All of one shape and type: uint8, int16, uint16 or float32.
    format : str
        One of `FORMATS`.
    voxel_size_nm : (z, y, x), optional
    label : str
        Says how it was made, where the format has room for that.
    expected_bytes : int, optional
        How large it will be, where that is known.
    """
    # Here, as the readers are: each loads a library of its own.
    if format == "tif":
        from emcurate.volumes.formats import tiff

        return tiff.write_stack(path, planes, voxel_size_nm, expected_bytes)
    if format == "nrrd":
        from emcurate.volumes.formats import nrrd

        return nrrd.write_stack(path, planes, voxel_size_nm)
    from emcurate.volumes.formats import mrc

    return mrc.write_stack(path, planes, voxel_size_nm, label)


def file_of(path: Path) -> Path:
    """Return the file of an address such as ``file.h5::/volumes/raw``; any other path as it is."""
    file, separator, _ = str(path).partition(SEPARATOR)
    # A directory may have such a name of its own.
    return Path(file) if separator and file.lower().endswith(_HOLDS_SEVERAL) else path


_HOLDS_SEVERAL = tuple(
    suffix for suffix, module in [*FILE_READERS.items(), *DIRECTORY_READERS.items()] if module in VIEWING
)


def may_hold_several(place: Place) -> bool:
    """Return whether a volume may hold several resolutions, channels or times, of which one is chosen."""
    return isinstance(place, Address) or _find_module(place) in VIEWING


def is_slices_directory(place: Place) -> bool:
    """Return whether a path is a directory that is no volume in a format of its own, and so may hold slices."""
    return isinstance(place, Path) and _find_module(place) == SLICES_READER


def _find_module(path: Path) -> str | None:
    path = file_of(path)
    directory = is_directory(path)
    readers = DIRECTORY_READERS if directory else FILE_READERS
    name = path.name.lower()
    # The longest suffix first: .nii.gz before .gz.
    suffix = max((s for s in readers if name.endswith(s)), key=len, default=None)
    if suffix is not None:
        return readers[suffix]
    if not directory:
        return None
    return next((module for sign, module in DIRECTORY_SIGNS.items() if _is_sign(path, sign)), SLICES_READER)


def _is_sign(path: Path, sign: str) -> bool:
    """Return whether a directory has a file that says of what format it is."""
    if not is_there(path / sign):
        return False
    # Anything may be called info.
    return sign != "info" or importlib.import_module(f"{__name__}.precomputed").is_info(path / sign)
