"""Open a volume of any format lazily: its voxels (z, y, x), its voxel size, its name."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emcurate import naming
from emcurate.errors import DataWarning, InputError
from emcurate.images.pixels import check_pixel_type
from emcurate.running.claims import name_directory
from emcurate.volumes.cut_settings import VoxelSize
from emcurate.volumes.formats import VOLUME_SUFFIXES, file_of, find_opener, is_slices_directory
from emcurate.volumes.layouts import Shape, Voxels
from emcurate.volumes.voxel_sizes import ask_about, spell_size

# What stages call volumes that they make, and others read.
VOLUMES = "volumes"

# Voxels measured or unpacked at a time: enough to be worth a job, little enough for a few dozen processes.
BLOCK_BYTES = 1 << 27

# By how much z over x may miss a threshold and still count as equal to it. Sizes are rounded as files keep them: to
# 1 in 10,000,000 in float32, and ImageJ's pixels per unit to a millionth, which is 1 in 25,000 of a size of 40.
SIZE_ROUNDING = 5e-5


@dataclass(frozen=True)
class Volume:
    """An opened volume: what its headers say, and how to read any box of it. Small, and picklable.

    Parameters
    ----------
    path : Path
        The file, or the directory of slices.
    name : str
        The dataset's name.
    voxels : Voxels
        How the voxels lie on disk.
    voxel_size_nm : (z, y, x) or None
        None where it is unknown.
    """

    path: Path
    name: str
    voxels: Voxels
    voxel_size_nm: VoxelSize | None

    @property
    def shape(self) -> Shape:
        """Voxels along (z, y, x)."""
        return self.voxels.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the grey values that `read` returns, in native byte order."""
        return self.voxels.dtype

    @property
    def size(self) -> int:
        """The number of voxels."""
        return math.prod(self.shape)

    @property
    def random_access(self) -> bool:
        """Whether any box is read at the cost of that box alone; if not, see `unpacked`."""
        return self.voxels.random_access

    @property
    def sequential(self) -> bool:
        """Whether a box costs all that lies before it in the file, as in a compressed stream."""
        return self.voxels.sequential

    def read(self, z: slice = slice(None), y: slice = slice(None), x: slice = slice(None)) -> npt.NDArray[Any]:
        """Return the voxels of a box as a (z, y, x) array of `dtype`; slices may have a positive step."""
        return self.voxels.read(z, y, x)


def open_volume(path: Path, voxel_size_nm: VoxelSize | None = None) -> Volume:
    """Open a volume file or a directory of slices; headers only are read.

    Parameters
    ----------
    path : Path
    voxel_size_nm : (z, y, x), optional
        Overrides what the file says.

    Raises
    ------
    InputError
        If it cannot be used as a volume: no known format, damaged, incomplete, or not three-dimensional.
    """
    opener = find_opener(path)
    if opener is None:
        known = ", ".join(suffix for suffix in VOLUME_SUFFIXES if not suffix.endswith((".gz", ".bz2")))
        raise InputError(path, f"a volume ({known} or a directory of slices)", "another kind of file", "convert it")
    opened = opener(path)
    volume = Volume(path, dataset_name(path), opened.voxels, voxel_size_nm or opened.voxel_size_nm)
    check_pixel_type(volume.dtype, path)
    return volume


def dataset_name(path: Path) -> str:
    """Return the dataset's name: a file's name without its extension, or that of the directory (`name_directory`)."""
    # A directory of slices may be called "sample 1.5"; what follows its last dot is no extension.
    return name_directory(path) if is_slices_directory(path) else naming.strip_extension(file_of(path).name)


def is_anisotropic(voxel_size_nm: VoxelSize | None, threshold: float) -> bool:
    """Return whether z differs from x by more than `threshold`, relative to x; an unknown size is isotropic.

    Whatever the file's format rounds sizes to: exactly the threshold, within `SIZE_ROUNDING`, is not more than it.
    """
    if voxel_size_nm is None:
        return False
    z, _, x = voxel_size_nm
    return abs(z - x) / x > threshold + SIZE_ROUNDING


def warn_of_unknown_voxel_size(volume: Volume) -> None:
    """Warn, with a `DataWarning`, where a volume's voxel size is unknown and therefore taken as isotropic."""
    if volume.voxel_size_nm is None:
        message = (
            f"{volume.path}: the voxel size is unknown and taken as isotropic; give it with --voxel-size Z Y X (nm), "
            "or those of many with --voxel-sizes FILE"
        )
        warnings.warn(message, DataWarning, stacklevel=2)


def warn_of_odd_voxel_size(volume: Volume) -> None:
    """Warn, with a `DataWarning`, where a volume's voxel size looks like another unit or order."""
    size = volume.voxel_size_nm
    if size is not None and (question := ask_about(size)):
        message = f"{volume.path}: its voxel size is {spell_size(size)}: {question}"
        warnings.warn(message, DataWarning, stacklevel=2)


def iter_plane_blocks(volume: Volume) -> Iterator[tuple[int, int]]:
    """Yield ``(start, stop)`` of runs of planes that take at most `BLOCK_BYTES`, of one plane at least."""
    depth, height, width = volume.shape
    planes = max(1, BLOCK_BYTES // max(1, height * width * volume.dtype.itemsize))
    for start in range(0, depth, planes):
        yield start, min(start + planes, depth)
