"""HDF5: ``.h5 .hdf5 .ims``, its only 3D dataset or the raw data of a known layout, read by h5py.

Known are CREMI (``volumes/raw``), Imaris and BigDataViewer. Links to other files are never followed, nor is storage in
other files used, since whoever made the file could name any file of this computer there.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emcurate.errors import DAMAGE, InputError, describe_damage
from emcurate.files import check_regular
from emcurate.images.units import nanometres_per
from emcurate.volumes.formats import SEPARATOR, file_of
from emcurate.volumes.formats.chunked import MOST_CHUNK_BYTES, MOST_CHUNKS_A_FILE
from emcurate.volumes.layouts import (
    COPY_AGAIN,
    AnyArray,
    Opened,
    Shape,
    check_side_lengths,
    checked_voxel_size,
    describe_shape,
)

# Decoded chunks that HDF5 keeps while a box is read.
CACHE_BYTES = 1 << 26

# Objects in a file that are looked at; a volume's file has dozens, BigDataViewer's of many times thousands.
MOST_OBJECTS = 100_000

# Datasets that a message lists.
MOST_LISTED = 20

CREMI_RAW = "volumes/raw"
IMARIS_LEVEL = "DataSet/ResolutionLevel 0"
_IMARIS_DATA = "Data"


@dataclass(frozen=True)
class Hdf5Voxels:
    """Voxels of a dataset in an HDF5 file, which is opened anew at each read.

    Parameters
    ----------
    path : Path
    dataset : str
        Its name in the file.
    shape : (z, y, x)
        What is read of it, from its first voxel on: Imaris pads.
    stored_dtype : numpy dtype
    """

    path: Path
    dataset: str
    shape: Shape
    stored_dtype: np.dtype[Any]

    random_access = True
    sequential = False

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.stored_dtype.newbyteorder("=")

    def read(self, z: slice, y: slice, x: slice) -> AnyArray:
        """Return the voxels of a box, (z, y, x), of type `dtype`."""
        box = tuple(
            slice(start, max(start, stop), step)
            for part, side in zip((z, y, x), self.shape, strict=True)
            for start, stop, step in [part.indices(side)]
        )
        with _open_file(self.path) as file:
            found = _step_to(self.path, file, self.dataset)
            if found.dtype != self.stored_dtype or any(
                side < taken for side, taken in zip(found.shape, self.shape, strict=True)
            ):
                expected = f"{describe_shape(self.shape)} voxels of {self.stored_dtype.name}, as when it was opened"
                raise InputError(self.path, expected, describe_shape(found.shape), COPY_AGAIN)
            return np.asarray(found[box]).astype(self.dtype, copy=False)

    def iter_planes(self, start: int, stop: int) -> Iterator[AnyArray]:
        for index in range(start, stop):
            yield self.read(slice(index, index + 1), slice(None), slice(None))[0]


def open_voxels(path: Path) -> Opened:
    """Open an HDF5 file, or the dataset that follows ``::`` after its name; read metadata only.

    Raises
    ------
    InputError
        If it holds no volume or several, or the volume lies in another file.
    """
    path, name = split_address(path)
    with _open_file(path) as file:
        size: tuple[float, float, float] | None = None
        sides: tuple[int, ...] | None = None
        if name is None and "DataSetInfo" in file and _is_hard(file, "DataSet"):
            name, sides, size = _find_imaris(path, file)
        elif name is None:
            name = CREMI_RAW if _is_dataset(path, file, CREMI_RAW) else _find_only(path, file)
        dataset = _step_to(path, file, name)
        _check_volume(path, name, dataset)
        shape = check_side_lengths(path, sides or dataset.shape)
        if any(taken > side for taken, side in zip(shape, dataset.shape, strict=True)):
            expected = f"at least {describe_shape(shape)} voxels, as its DataSetInfo says"
            raise InputError(path, expected, describe_shape(dataset.shape), COPY_AGAIN)
        return Opened(Hdf5Voxels(path, name, shape, dataset.dtype), size or _read_voxel_size(dataset))


def split_address(path: Path) -> tuple[Path, str | None]:
    """Return the file, and the dataset in it that an address names, if it does.

    >>> split_address(Path("a.h5::/volumes/raw"))[1], split_address(Path("a.h5"))[1]
    ('volumes/raw', None)
    """
    file = file_of(path)
    return file, str(path)[len(str(file)) :].removeprefix(SEPARATOR).strip("/") or None


@contextlib.contextmanager
def _open_file(path: Path) -> Iterator[Any]:
    """Open a file for reading; what is wrong with it is raised as `InputError`."""
    import h5py

    check_regular(path)
    try:
        with h5py.File(path, "r", rdcc_nbytes=CACHE_BYTES, locking=False) as file:
            yield file
    except DAMAGE as error:
        raise describe_damage(error, path, "an HDF5 file of a volume", COPY_AGAIN) from None


def _is_hard(group: Any, name: str) -> bool:
    import h5py

    return isinstance(group.get(name, getlink=True), h5py.HardLink)


def _step_to(path: Path, file: Any, name: str) -> Any:
    """Return an object in a file, to which no link of a name leads."""
    found = file
    for step in name.split("/"):
        if not hasattr(found, "keys") or step not in found.keys():  # noqa: SIM118 - `in` would follow links
            raise InputError(path, f"a dataset {name} in it", f"no {step}", "list what it holds with h5ls -r")
        if not _is_hard(found, step):
            raise InputError(
                path, f"{name} in the file itself", f"{step}, a link", "copy what it leads to in its place"
            )
        found = found[step]
    return found


def _is_dataset(path: Path, file: Any, name: str) -> bool:
    try:
        return hasattr(_step_to(path, file, name), "dtype")
    except InputError:
        return False


def _find_only(path: Path, file: Any) -> str:
    """Return the name of the only 3D dataset, or of BigDataViewer's only volume."""
    found, outside = _list_volumes(path, file)
    # BigDataViewer: t00000/s00/LEVEL/cells, of which level 0 is the full resolution.
    full = [name for name in found if not _is_coarse(name)]
    if len(full) == 1:
        return full[0]
    if not full:
        what = f"none but links to other files, such as {outside[0]}" if outside else "none"
        raise InputError(path, "a 3D dataset of numbers", what, "save the volume as one dataset of 3 axes")
    listed = ", ".join(f"/{name} ({describe_shape(found[name])})" for name in full[:MOST_LISTED])
    more = f" and {len(full) - MOST_LISTED:,} more" if len(full) > MOST_LISTED else ""
    advice = f"copy one to a file of its own with h5copy; in Python, open_volume takes {path.name}{SEPARATOR}/{full[0]}"
    raise InputError(path, "one 3D dataset", f"{len(full)}: {listed}{more}", advice)


def _is_coarse(name: str) -> bool:
    """Return whether a name is that of a lower resolution of BigDataViewer's."""
    steps = name.split("/")
    return len(steps) == 4 and steps[3] == "cells" and steps[2].isdecimal() and steps[2] != "0"


def _list_volumes(path: Path, file: Any) -> tuple[dict[str, Shape], list[str]]:
    """Return the shapes of all 3D datasets of numbers by their names, and the names of links to other files."""
    import h5py

    found: dict[str, Shape] = {}
    outside: list[str] = []
    # Hard links may lead round, so each object is looked at once.
    seen = {h5py.h5o.get_info(file.id).addr}
    waiting: list[tuple[str, Any]] = [("", file)]
    while waiting:
        prefix, group = waiting.pop()
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                outside.append(prefix + name)
            if not isinstance(link, h5py.HardLink):
                continue
            entry = group[name]
            address = h5py.h5o.get_info(entry.id).addr
            if address in seen:
                continue
            seen.add(address)
            if len(seen) > MOST_OBJECTS:
                raise InputError(path, f"at most {MOST_OBJECTS:,} objects", "more", "save the volume by itself")
            if isinstance(entry, h5py.Group):
                waiting.append((f"{prefix}{name}/", entry))
            elif isinstance(entry, h5py.Dataset) and entry.ndim == 3 and entry.dtype.kind in "iufb":
                found[prefix + name] = entry.shape
    return dict(sorted(found.items())), outside


def _find_imaris(path: Path, file: Any) -> tuple[str, tuple[int, ...], tuple[float, float, float] | None]:
    """Return the dataset of an Imaris file, its sides without padding, and its voxel size."""
    level = _step_to(path, file, IMARIS_LEVEL)
    times = sorted(level)
    channels = sorted(_step_to(path, level, times[0])) if times else []
    if len(times) != 1 or len(channels) != 1:
        found = f"{len(times)} times and {len(channels)} channels"
        later = "(choosing by --time and --channel is not possible yet)"
        raise InputError(path, "one time and one channel", found, f"save each as a volume {later}")
    attributes = _step_to(path, file, "DataSetInfo/Image").attrs
    texts = {name: _text(attributes[name]) for name in attributes}
    sides = [int(texts[axis]) for axis in "ZYX"]
    unit = nanometres_per(texts.get("Unit", "um")) or math.nan
    z, y, x = (
        (float(texts[f"ExtMax{axis}"]) - float(texts[f"ExtMin{axis}"])) / max(side, 1) * unit
        for axis, side in zip((2, 1, 0), sides, strict=True)
    )
    return f"{IMARIS_LEVEL}/{times[0]}/{channels[0]}/{_IMARIS_DATA}", tuple(sides), checked_voxel_size((z, y, x))


def _text(value: Any) -> str:
    """Return an attribute of Imaris, which writes text letter by letter."""
    if isinstance(value, str):
        return value
    return b"".join(np.atleast_1d(np.asarray(value)).astype("S").tolist()).decode("utf-8", "replace")


def _read_voxel_size(dataset: Any) -> tuple[float, float, float] | None:
    """Return the voxel size (z, y, x) of CREMI's attribute, in nm, or ilastik's and ImageJ's, in micrometres."""
    for name, unit in (("resolution", 1.0), ("element_size_um", nanometres_per("um") or 0.0)):
        if name in dataset.attrs:
            values = np.asarray(dataset.attrs[name])
            if values.shape == (3,) and values.dtype.kind in "iuf":
                z, y, x = (float(value) * unit for value in values)
                return checked_voxel_size((z, y, x))
    return None


def _check_volume(path: Path, name: str, dataset: Any) -> None:
    """Raise `InputError` unless a dataset is a volume in this file, of which at least a part was written."""
    import h5py

    if not isinstance(dataset, h5py.Dataset) or dataset.ndim != 3 or dataset.dtype.kind not in "iufb":
        found = (
            f"{describe_shape(dataset.shape)} of {dataset.dtype}"
            if isinstance(dataset, h5py.Dataset)
            else "a group of others"
        )
        raise InputError(path, f"a 3D dataset of numbers at /{name}", found, "name one, or save it so")
    if dataset.is_virtual or dataset.external:
        raise InputError(
            path, f"the voxels of /{name} in the file itself", "voxels in other files", "copy them into it"
        )
    if dataset.size == 0:
        return
    stored, size = dataset.id.get_storage_size(), path.stat().st_size
    if dataset.chunks is None:
        if not 0 < stored <= size:
            expected = f"{dataset.size * dataset.dtype.itemsize:,} bytes of voxels in /{name}"
            raise InputError(path, expected, f"{min(stored, size):,} bytes", COPY_AGAIN)
        return
    if math.prod(dataset.chunks) * dataset.dtype.itemsize > MOST_CHUNK_BYTES:
        expected = f"chunks of at most {MOST_CHUNK_BYTES:,} bytes"
        raise InputError(path, expected, f"{describe_shape(dataset.chunks)} voxels", "save it in smaller chunks")
    chunks = math.prod(-(-side // part) for side, part in zip(dataset.shape, dataset.chunks, strict=True))
    written = dataset.id.get_num_chunks()
    undefined = dataset.id.get_create_plist().fill_value_defined() == h5py.h5d.FILL_VALUE_UNDEFINED
    if written == 0 or chunks > written * MOST_CHUNKS_A_FILE or (undefined and written < chunks):
        least = "all" if undefined else f"at least one in {MOST_CHUNKS_A_FILE:,}"
        raise InputError(path, f"{least} of the {chunks:,} chunks of /{name}", f"{written:,}", COPY_AGAIN)
