"""Zarr directories: OME-Zarr 0.4 (Zarr 2) and 0.5 (Zarr 3), or one plain array; https://ngff.openmicroscopy.org."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emcurate.errors import DAMAGE, InputError, describe_damage
from emcurate.files import is_there
from emcurate.images.units import nanometres_per
from emcurate.volumes.formats.chunked import Chunks, read_json, step_into
from emcurate.volumes.layouts import COPY_AGAIN, Opened, check_side_lengths, checked_voxel_size, describe_shape

SPACE = ("z", "y", "x")
_EXPORT_AGAIN = "export it again as OME-Zarr 0.4 or 0.5"

# Axes before version 0.4: five in this order, later with names only.
_FIRST_AXES = ("t", "c", "z", "y", "x")

# What must be given to choose one index of an axis that is not of space.
_CHOICES = {"c": "--channel", "channel": "--channel", "t": "--time", "time": "--time"}


@dataclass(frozen=True)
class Axis:
    """An axis as the metadata describe it: its name in small letters, and the nanometres of its unit or None."""

    name: str
    unit_nm: float | None


@dataclass(frozen=True)
class ArrayHeader:
    """What an array's own metadata say; `names` are those of its axes, empty where it does not name them."""

    driver: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    has_fill: bool
    names: tuple[str, ...]
    state: str


def open_voxels(path: Path) -> Opened:
    """Open the full resolution of an OME-Zarr directory, or a plain Zarr array; read metadata only.

    Raises
    ------
    InputError
        If it is neither, is not three-dimensional, has several channels or times, or names anything outside of it.
    """
    try:
        return _open_group(path, path)
    except DAMAGE as error:
        if isinstance(error, OSError):
            raise
        raise describe_damage(error, path, "OME-Zarr metadata", _EXPORT_AGAIN) from None


def _open_group(store: Path, group: Path) -> Opened:
    if is_there(group / ".zarray"):
        return _open_plain(store, group)
    attributes: dict[str, Any] = {}
    if is_there(group / "zarr.json"):
        metadata = read_json(group / "zarr.json", store)
        if metadata.get("node_type") == "array":
            return _open_plain(store, group)
        found = metadata.get("attributes") or {}
        attributes = found.get("ome") or found
    elif is_there(group / ".zattrs"):
        attributes = read_json(group / ".zattrs", store)
    multiscales = attributes.get("multiscales")
    if multiscales:
        return _open_multiscale(store, group, multiscales[0])
    if "bioformats2raw.layout" in attributes and group == store:
        return _open_group(store, _only_image(store))
    found = "a plate of many images" if "plate" in attributes else "none (multiscales) in its metadata"
    raise InputError(store, "the image of an OME-Zarr, or one array", found, "save each image as a .zarr of its own")


def _only_image(store: Path) -> Path:
    """Return the one image of a directory that bioformats2raw wrote, which numbers them."""
    images = sorted(entry.name for entry in store.iterdir() if entry.name.isdecimal())
    if len(images) != 1:
        found = f"{len(images)} ({', '.join(images[:20])})" if images else "none"
        raise InputError(store, "one image", found, "give each of these directories a name of its own ending in .zarr")
    return step_into(store, images[0])


def _open_plain(store: Path, array: Path) -> Opened:
    header = read_array_header(store, array)
    names = header.names or (SPACE if len(header.shape) == 3 else ())
    if not names:
        raise InputError(store, "an array of 3 axes", describe_shape(header.shape), _EXPORT_AGAIN)
    return Opened(take_volume(store, array, header, [Axis(name.lower(), None) for name in names]), None)


def _open_multiscale(store: Path, group: Path, multiscale: dict[str, Any]) -> Opened:
    level = multiscale["datasets"][0]
    array = step_into(store, _join(group.relative_to(store).as_posix(), level["path"]))
    header = read_array_header(store, array)
    axes = [_read_axis(axis) for axis in multiscale.get("axes") or _FIRST_AXES]
    voxels = take_volume(store, array, header, axes)
    scale = np.ones(len(axes))
    for transformations in (level.get("coordinateTransformations"), multiscale.get("coordinateTransformations")):
        scale = scale * _read_scale(store, transformations, len(axes))
    if level.get("coordinateTransformations") is None and multiscale.get("coordinateTransformations") is None:
        return Opened(voxels, None)
    sizes = [scale[axis] * (axes[axis].unit_nm or math.nan) for axis in voxels.axes]
    return Opened(voxels, checked_voxel_size((sizes[0], sizes[1], sizes[2])))


def _join(directory: str, name: object) -> object:
    """Return a name in a directory; what is no name is left to be refused."""
    plain = isinstance(name, str) and not name.startswith("/")
    return f"{directory}/{name}" if plain and directory != "." else name


def _read_axis(axis: Any) -> Axis:
    if isinstance(axis, str):
        return Axis(axis.lower(), None)
    return Axis(str(axis["name"]).lower(), nanometres_per(axis.get("unit")))


def _read_scale(store: Path, transformations: Any, axes: int) -> Any:
    """Return the product of the scales; a translation moves voxels without changing their size."""
    scale = np.ones(axes)
    for transformation in transformations or ():
        kind = transformation.get("type")
        if kind in ("identity", "translation"):
            continue
        values = transformation.get("scale")
        if kind != "scale" or not isinstance(values, list) or len(values) != axes:
            found = json.dumps(transformation)[:200]
            raise InputError(store, f"a scale or translation of {axes} values", found, _EXPORT_AGAIN)
        scale = scale * np.array(values, np.float64)
    return scale


def take_volume(store: Path, array: Path, header: ArrayHeader, axes: Sequence[Axis]) -> Chunks:
    """Return an array's voxels, its axes of space in the order z, y, x and all others of one index dropped."""
    names = [axis.name for axis in axes]
    if len(names) != len(header.shape) or len(set(names)) != len(names):
        found = f"axes {', '.join(names)} of an array of {describe_shape(header.shape)}"
        raise InputError(store, "a name for each axis", found, _EXPORT_AGAIN)
    if missing := [name for name in SPACE if name not in names]:
        found = f"axes {', '.join(names)}, without {' and '.join(missing)}"
        raise InputError(store, "a volume with axes z, y and x", found, "save it as a 2D image for cleanup2d.py")
    for name, side in zip(names, header.shape, strict=True):
        if name not in SPACE and side != 1:
            flag = _CHOICES.get(name)
            later = f" (choosing one by {flag} is not possible yet)" if flag else ""
            raise InputError(
                store, "one channel and one time", f"{side} along axis {name}", f"save each as a volume{later}"
            )
    z, y, x = (names.index(name) for name in SPACE)
    check_side_lengths(store, (header.shape[z], header.shape[y], header.shape[x]))
    chunks = Chunks(
        store, array, header.driver, header.shape, (z, y, x), header.dtype, header.has_fill, state=header.state
    )
    return chunks.check_readable()


def read_array_header(store: Path, array: Path) -> ArrayHeader:
    """Read the metadata of a Zarr 2 or 3 array."""
    old, new = array / ".zarray", array / "zarr.json"
    file = new if is_there(new) else old
    if not is_there(file):
        name = array.relative_to(store).as_posix()
        raise InputError(store, f"an array {name} in it, as its metadata say", "none", COPY_AGAIN)
    metadata = read_json(file, store)
    try:
        shape = tuple(int(side) for side in metadata["shape"])
        if file == new:
            names = metadata.get("dimension_names") or ()
            named = tuple(str(name) for name in names) if all(names) else ()
            driver, dtype, has_fill = "zarr3", np.dtype(str(metadata["data_type"])), True
        else:
            named, driver, dtype = (), "zarr", np.dtype(str(metadata["dtype"]))
            has_fill = metadata.get("fill_value") is not None
    except DAMAGE as error:
        raise describe_damage(error, file, "the metadata of a Zarr array of numbers", _EXPORT_AGAIN) from None
    state = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest()
    return ArrayHeader(driver, shape, dtype, has_fill, named, state)
