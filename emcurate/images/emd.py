"""EMD: HDF5 files of two kinds, Thermo Fisher's Velox and the openNCEM's, that hold an image or a stack of images.

The layouts are those that Velox writes, and that https://emdatasets.com/format describes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from emcurate.errors import InputError
from emcurate.images.hdf5_files import is_hard, open_hdf5, step_to
from emcurate.images.units import nanometres_per

EMD_SUFFIX = ".emd"

VELOX_IMAGES = "Data/Image"

# Objects in a file that are looked at; Velox's have hundreds.
MOST_OBJECTS = 10_000

# What Velox writes of a frame, in bytes at most.
MOST_METADATA_BYTES = 1 << 24

# Datasets that a message lists.
MOST_LISTED = 10

_SAVE_ONE = "save one of them by itself, as TIFF for instance"


@dataclass(frozen=True)
class EmdImages:
    """Where in an EMD file images are.

    Attributes
    ----------
    path : Path
    dataset : str
        Its name in the file.
    shape : (planes, rows, columns)
    dtype : numpy dtype
    frames_last : bool
        Whether the dataset's axes are rows, columns, planes.
    size_nm : (z, y, x)
        None along each axis where it is unknown, or no length.
    by : str
        What says so.
    """

    path: Path
    dataset: str
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    frames_last: bool
    size_nm: tuple[float | None, float | None, float | None]
    by: str

    def read_box(self, z: slice, y: slice, x: slice) -> npt.NDArray[Any]:
        """Return the pixels of a box, (z, y, x), in native byte order; the step of slices must be positive."""
        box = [slice(*part.indices(side)) for part, side in zip((z, y, x), self.shape, strict=True)]
        with open_hdf5(self.path) as file:
            found = step_to(self.path, file, self.dataset)
            if found.ndim == 2:
                pixels = np.asarray(found[box[1], box[2]])[None][box[0]]
            elif self.frames_last:
                pixels = np.moveaxis(np.asarray(found[box[1], box[2], box[0]]), 2, 0)
            else:
                pixels = np.asarray(found[tuple(box)])
        return np.ascontiguousarray(pixels.astype(self.dtype.newbyteorder("="), copy=False))


def open_emd(path: Path) -> EmdImages:
    """Return where the image or the stack of images of an EMD file is; metadata only are read.

    Raises
    ------
    InputError
        If it holds none, several, or ones of complex numbers or in other files.
    """
    with open_hdf5(path) as file:
        found = list(_list_velox(path, file) if VELOX_IMAGES in file else _list_ncem(path, file))
    if len(found) != 1:
        listed = ", ".join(f"/{some.dataset} ({' x '.join(map(str, some.shape))})" for some in found[:MOST_LISTED])
        held = f"{len(found)}: {listed}" if found else "none"
        raise InputError(path, "one image or stack of images", held, _SAVE_ONE)
    return found[0]


def _list_velox(path: Path, file: Any) -> Iterator[EmdImages]:
    group = step_to(path, file, VELOX_IMAGES)
    for name in sorted(group)[:MOST_OBJECTS]:
        dataset = _pixels_at(path, file, f"{VELOX_IMAGES}/{name}/Data", (3,))
        if dataset is None:
            continue
        rows, columns, frames = dataset.shape
        size = _velox_size(step_to(path, group, name))
        shape = (frames, rows, columns)
        yield EmdImages(path, dataset.name.strip("/"), shape, dataset.dtype, True, (None, *size), "Velox metadata")


def _velox_size(image: Any) -> tuple[float | None, float | None]:
    """Return the (y, x) size in nm of an image's pixels, from the JSON that Velox writes of its first frame."""
    try:
        metadata = image["Metadata"]
        if metadata.shape[0] > MOST_METADATA_BYTES or metadata.dtype != np.uint8:
            return None, None
        said = msgspec.json.decode(bytes(metadata[:, 0]).rstrip(b"\0"))["BinaryResult"]
        sizes = [
            float(said["PixelSize"][side]) * (nanometres_per(said[f"PixelUnit{axis}"]) or math.nan)
            for side, axis in (("height", "Y"), ("width", "X"))
        ]
    except (KeyError, TypeError, ValueError, AttributeError):  # of another version, or none
        return None, None
    y, x = (size if size > 0 and math.isfinite(size) else None for size in sizes)
    return y, x


def _list_ncem(path: Path, file: Any) -> Iterator[EmdImages]:
    waiting, seen = [""], 0
    while waiting:
        prefix = waiting.pop()
        group = step_to(path, file, prefix.rstrip("/")) if prefix else file
        if "emd_group_type" in group.attrs and "data" in group:
            dataset = _pixels_at(path, file, f"{prefix}data", (2, 3))
            if dataset is not None:
                shape = (1, *dataset.shape) if dataset.ndim == 2 else dataset.shape
                sizes = [_ncem_step(group, number + 1, side) for number, side in enumerate(dataset.shape)]
                size = (None if dataset.ndim == 2 else sizes[0], sizes[-2], sizes[-1])
                yield EmdImages(path, dataset.name.strip("/"), shape, dataset.dtype, False, size, "EMD dimensions")
            continue
        for name in sorted(group, reverse=True):
            seen += 1
            if seen > MOST_OBJECTS:
                raise InputError(path, f"at most {MOST_OBJECTS:,} objects", "more", _SAVE_ONE)
            if is_hard(group, name) and hasattr(group[name], "keys") and prefix.count("/") < 8:
                waiting.append(f"{prefix}{name}/")


def _ncem_step(group: Any, number: int, side: int) -> float | None:
    """Return what a pixel along an axis measures in nm, from where the first two are; None if that is no length."""
    dimension = group.get(f"dim{number}") if is_hard(group, f"dim{number}") else None
    # Where each pixel is, or only the first two.
    if dimension is None or dimension.shape not in ((side,), (2,)) or min(dimension.shape) < 2:
        return None
    if dimension.dtype.kind not in "iuf":
        return None
    unit = dimension.attrs.get("units", "")
    unit = unit.decode("utf-8", "replace") if isinstance(unit, bytes) else str(unit)
    # "[n_m]" is how the format spells nanometres.
    per_unit = nanometres_per(unit.strip("[]").replace("_", ""))
    first, second = (float(place) for place in dimension[:2])
    step = abs(second - first) * per_unit if per_unit else math.nan
    return step if step > 0 and math.isfinite(step) else None


def _pixels_at(path: Path, file: Any, name: str, axes: tuple[int, ...]) -> Any:
    """Return a dataset of numbers that lies in this file; None where there is no image."""
    dataset = step_to(path, file, name)
    if getattr(dataset, "ndim", 0) not in axes or dataset.dtype.kind not in "iufb" or not dataset.size:
        return None
    if dataset.is_virtual or dataset.external or not dataset.id.get_storage_size():
        raise InputError(path, f"the pixels of /{name} in the file itself", "none there", "copy them into it")
    return dataset
