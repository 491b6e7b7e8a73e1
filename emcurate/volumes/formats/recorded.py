"""Stacks of images as programs of microscopes record them: ``.dm3 .dm4``, ``.ser`` and ``.emd``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emcurate.errors import InputError
from emcurate.images.emd import EmdImages
from emcurate.images.hdf5_files import open_hdf5, step_to
from emcurate.images.reading import open_recorded
from emcurate.volumes.formats.hdf5 import check_stored
from emcurate.volumes.layouts import AnyArray, FlatFile, Opened, Shape, UpsideDown, Voxels, checked_voxel_size


@dataclass(frozen=True)
class EmdVoxels:
    """Voxels of a dataset in an EMD file, which is opened anew at each read."""

    images: EmdImages

    random_access = True
    sequential = False

    @property
    def shape(self) -> Shape:
        return self.images.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.images.dtype.newbyteorder("=")

    def read(self, z: slice, y: slice, x: slice) -> AnyArray:
        """Return the voxels of a box, (z, y, x), of type `dtype`."""
        return self.images.read_box(z, y, x)

    def iter_planes(self, start: int, stop: int) -> Iterator[AnyArray]:
        for index in range(start, stop):
            yield self.read(slice(index, index + 1), slice(None), slice(None))[0]


def open_voxels(path: Path) -> Opened:
    """Open a stack; read what describes it only. Its voxel size is known if each of its axes is a length."""
    found = open_recorded(path)
    if found.shape[0] == 1:
        advice = "move it to the 2D corpus and run raw/cleanup2d.py"
        raise InputError(path, "a stack of images", "a single 2D image", advice)
    z, y, x = found.size_nm
    size = None if z is None or y is None or x is None else checked_voxel_size((z, y, x))
    voxels: Voxels
    if isinstance(found, EmdImages):
        with open_hdf5(path) as file:
            check_stored(path, found.dataset, step_to(path, file, found.dataset))
        voxels = EmdVoxels(found)
    elif found.channels:
        raise InputError(path, "a stack of grey images", "one of colours", "save it as a TIFF stack")
    else:
        voxels = FlatFile(path, found.shape, found.stored_dtype, found.offsets).check_complete()
        voxels = UpsideDown(voxels) if found.upside_down else voxels
    return Opened(voxels, size)
