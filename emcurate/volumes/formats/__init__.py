"""One small reader a volume format.

A reader is a module with ``open_voxels(path) -> Opened``, which reads headers only. To add a format, write such a
module and enter its suffixes here: in `FILE_READERS`, or in `DIRECTORY_READERS` for one whose volumes are directories.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy.typing as npt

from emcurate.files import is_directory
from emcurate.volumes.layouts import Opened

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
DIRECTORY_READERS = {".zarr": "ome_zarr", ".n5": "n5"}

# Any other directory is a volume if it holds 2D slices.
SLICES_READER = "slices"

# What stands between a file and what is meant in it, in a format that holds several.
SEPARATOR = "::"

VOLUME_SUFFIXES = tuple(FILE_READERS)

# What volumes are written as, by their suffixes.
FORMATS = ("tif", "nrrd", "mrc")


def find_opener(path: Path) -> Callable[[Path], Opened] | None:
    """Return the function that opens a path, by its suffix in any case; None where no reader knows it."""
    module = _find_module(path)
    if module is None:
        return None
    opener: Callable[[Path], Opened] = importlib.import_module(f"{__name__}.{module}").open_voxels
    return opener


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
    holds_several = tuple(suffix for suffix, module in FILE_READERS.items() if module == "hdf5")
    return Path(file) if separator and file.lower().endswith(holds_several) else path


def is_slices_directory(path: Path) -> bool:
    """Return whether a path is a directory that is no volume in a format of its own, and so may hold slices."""
    return _find_module(path) == SLICES_READER


def _find_module(path: Path) -> str | None:
    path = file_of(path)
    directory = is_directory(path)
    readers = DIRECTORY_READERS if directory else FILE_READERS
    name = path.name.lower()
    # The longest suffix first: .nii.gz before .gz.
    suffix = max((s for s in readers if name.endswith(s)), key=len, default=None)
    if suffix is None:
        return SLICES_READER if directory else None
    return readers[suffix]
