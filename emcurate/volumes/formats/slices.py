"""A directory of equally sized 2D images: one volume, its slices in natural order (2.png before 10.png)."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from emcurate.errors import InputError
from emcurate.files import list_files, open_regular
from emcurate.images.reading import (
    EXPORTED_SUFFIXES,
    FORMATS,
    RECORDED_SUFFIXES,
    TIFF_SUFFIXES,
    SeveralImagesError,
    read_image,
)
from emcurate.images.tiff_files import TIFF_DAMAGE, open_tiff
from emcurate.volumes.layouts import Opened, Shape, describe_shape, read_by_planes


@dataclass(frozen=True)
class SliceFiles:
    """One 2D image a plane. `names` are those of the files in `path`, in order of z."""

    path: Path
    names: tuple[str, ...]
    plane_shape: tuple[int, int]
    dtype: np.dtype[Any]

    random_access = False
    sequential = False

    @property
    def shape(self) -> Shape:
        return (len(self.names), *self.plane_shape)

    def read(self, z: slice, y: slice, x: slice) -> npt.NDArray[Any]:
        """Return the voxels of a box, (z, y, x)."""
        return read_by_planes(self, z, y, x)

    def iter_planes(self, start: int, stop: int) -> Iterator[npt.NDArray[Any]]:
        for name in self.names[start:stop]:
            plane = _read_slice(self.path / name)
            if plane.shape != self.plane_shape or plane.dtype != self.dtype:
                raise _odd_one_out(
                    self.path / name,
                    f"{describe_shape(self.plane_shape)} pixels of {self.dtype}",
                    f"{describe_shape(plane.shape)} of {plane.dtype}",
                )
            yield plane


def list_slices(directory: Path) -> list[Path]:
    """Return the 2D images directly in a directory, in natural order; of those a microscope recorded only if alone."""
    return list_files(directory, EXPORTED_SUFFIXES) or list_files(directory, RECORDED_SUFFIXES)


def open_voxels(path: Path) -> Opened:
    """Open a directory of slices: read the first, compare the sizes in the headers of the others."""
    slices = list_slices(path)
    if not slices:
        raise InputError(path, "2D slices (png, tif, ...)", "no image", "name the directory that holds them")
    sizes = {file: _peek_size(file) for file in slices}
    usual = Counter(sizes.values()).most_common(1)[0][0]
    for file, size in sizes.items():
        if size != usual:
            raise _odd_one_out(file, f"{describe_shape(usual)} pixels", describe_shape(size))
    first = _read_slice(slices[0])
    dtype = first.dtype.newbyteorder("=")
    height, width = first.shape
    return Opened(SliceFiles(path, tuple(file.name for file in slices), (height, width), dtype), None)


def _read_slice(path: Path) -> npt.NDArray[Any]:
    try:
        pixels = read_image(path)
    except SeveralImagesError as error:
        advice = "a directory is read as the slices of one volume: move volumes and films out of it"
        raise InputError(path, "a 2D slice", error.found, advice) from None
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def _peek_size(path: Path) -> tuple[int, ...]:
    """Return (height, width), by the header alone where that can be read."""
    with contextlib.suppress(*TIFF_DAMAGE, InputError):
        if path.suffix.lower() not in TIFF_SUFFIXES:
            with open_regular(path) as file, Image.open(file, formats=FORMATS) as image:
                return image.height, image.width
        with open_tiff(path) as tiff:
            page = tiff.pages.first
            return page.imagelength, page.imagewidth
    return _read_slice(path).shape  # which says what is wrong with it


def _odd_one_out(path: Path, expected: str, found: str) -> InputError:
    return InputError(path, f"{expected}, as the other slices have", found, "take it out, or make all slices alike")
