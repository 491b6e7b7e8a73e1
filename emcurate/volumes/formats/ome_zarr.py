"""Zarr: OME-Zarr 0.4 (Zarr 2) and 0.5 (Zarr 3), or one plain array; https://ngff.openmicroscopy.org."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emcurate.errors import DAMAGE, InputError, describe_damage
from emcurate.images.units import nanometres_per
from emcurate.volumes.formats.arrays import (
    SPACE,
    ArrayHeader,
    Axis,
    pick_level,
    refuse_choices,
    refuse_several,
    take_volume,
)
from emcurate.volumes.formats.stores import Files, store_of
from emcurate.volumes.layouts import COPY_AGAIN, Opened, SizeNm, checked_voxel_size, describe_shape
from emcurate.volumes.views import View

_EXPORT_AGAIN = "export it again as OME-Zarr 0.4 or 0.5"

# Axes before version 0.4: five in this order, later with names only.
_FIRST_AXES = ("t", "c", "z", "y", "x")

# What tells that a directory is Zarr's.
METADATA = ("zarr.json", ".zattrs", ".zarray", ".zgroup")

# All metadata of a store in one file, where a server does not tell what it holds.
_CONSOLIDATED = ".zmetadata"

# Levels of directories that are looked through for arrays.
_MOST_DEPTH = 8


@dataclass(frozen=True)
class _Image:
    """A multiscale image: the directory of its metadata, and what these say."""

    group: str
    multiscale: dict[str, Any]

    def array(self, files: Files, level: int) -> str:
        return files.store.join(self.group, self.multiscale["datasets"][level]["path"])

    def axes(self, files: Files) -> list[Axis]:
        if "coordinateSystems" in self.multiscale and "axes" not in self.multiscale:
            found = "coordinate systems, as of version 0.6"
            raise InputError(files.store.place, "the axes of an OME-Zarr image", found, _EXPORT_AGAIN)
        return [_read_axis(axis) for axis in self.multiscale.get("axes") or _FIRST_AXES]

    def voxel_size(self, files: Files, level: int) -> SizeNm | None:
        """Return a level's voxel size (z, y, x) in nm; None where it is not known."""
        axes, own = self.axes(files), self.multiscale["datasets"][level].get("coordinateTransformations")
        common = self.multiscale.get("coordinateTransformations")
        if own is None and common is None:
            return None
        scale = np.ones(len(axes))
        for transformations in (own, common):
            scale = scale * _read_scale(files, transformations, len(axes))
        places = {axis.name: number for number, axis in enumerate(axes)}
        if not all(name in places for name in SPACE):
            return None
        z, y, x = (scale[places[name]] * (axes[places[name]].unit_nm or math.nan) for name in SPACE)
        return checked_voxel_size((z, y, x))


def open_voxels(path: Path, view: View = View()) -> Opened:
    """Open a level of an OME-Zarr directory, or a plain Zarr array; read metadata only.

    Raises
    ------
    InputError
        If it is neither, is not three-dimensional, has several images, channels or times of which none is chosen, or
        names anything outside of it.
    """
    store, key = store_of(path)
    return open_files(Files(store), key, view)


def open_files(files: Files, key: str, view: View) -> Opened:
    """Open what lies in a directory of a store, as `open_voxels` does."""
    try:
        return _open_group(files, key, view)
    except DAMAGE as error:
        if isinstance(error, OSError):
            raise
        raise describe_damage(error, files.store.place, "OME-Zarr metadata", _EXPORT_AGAIN) from None


def _open_group(files: Files, group: str, view: View) -> Opened:
    files.fetch([_join(group, name) for name in METADATA], is_search=True)
    if _is_array(files, group):
        return _open_array(files, group, view)
    attributes = _read_attributes(files, group)
    multiscales = attributes.get("multiscales")
    if multiscales:
        if len(multiscales) > 1:
            images = [_Image(group, multiscale) for multiscale in multiscales]
            names = [image.array(files, 0) for image in images]
            raise refuse_several(files.store.place, "one image (multiscales)", names)
        return _open_level(files, _Image(group, multiscales[0]), view)
    if "bioformats2raw.layout" in attributes and not group:
        return _open_group(files, _only_image(files), view)
    if "plate" in attributes:
        found = "a plate of many images"
        raise InputError(files.store.place, "the image of an OME-Zarr, or one array", found, "name one of its images")
    return _open_group(files, _only_volume(files, group), view)


def _join(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name


def _is_array(files: Files, key: str) -> bool:
    if files.has(_join(key, "zarr.json")):
        return (files.read_json(_join(key, "zarr.json")) or {}).get("node_type") == "array"
    return files.has(_join(key, ".zarray"))


def _read_attributes(files: Files, group: str) -> dict[str, Any]:
    new = files.read_json(_join(group, "zarr.json"))
    if new is not None:
        found = new.get("attributes") or {}
        attributes = found.get("ome") or found
    else:
        attributes = files.read_json(_join(group, ".zattrs")) or {}
    return attributes if isinstance(attributes, dict) else {}


def _only_image(files: Files) -> str:
    """Return the one image of a directory that bioformats2raw wrote, which numbers them."""
    listed = files.store.list_directories("")
    if listed is None:  # a server tells nothing, so the first two are asked for
        files.fetch(["0/.zattrs", "0/zarr.json", "1/.zattrs", "1/zarr.json"], is_search=True)
        listed = [name for name in "01" if files.has(f"{name}/.zattrs") or files.has(f"{name}/zarr.json")]
    images = [name for name in listed if name.isdecimal()]
    if len(images) > 1:
        raise refuse_several(files.store.place, "one image", images)
    if not images:
        raise InputError(files.store.place, "one image", "none", COPY_AGAIN)
    return files.store.join("", images[0])


def _only_volume(files: Files, group: str) -> str:
    """Return the only image or array of three axes or more in a group that is none itself, or below it."""
    place, expected = files.store.place, "the image of an OME-Zarr, or one array"
    if files.store.is_remote and not any(files.has(_join(group, name)) for name in METADATA):
        raise InputError(place, expected, "none (multiscales) in its metadata", "save each image as a .zarr of its own")
    found = _list_known(files, group)
    if found is None:
        found = list(_list_volumes(files, group, _MOST_DEPTH))
    if len(found) > 1:
        raise refuse_several(place, "one image or array", found)
    if not found:
        advice = f"name the group of the image, as {place}::/path"
        raise InputError(place, expected, "none (multiscales) in its metadata", advice)
    return found[0]


def _list_volumes(files: Files, group: str, depth: int) -> Iterator[str]:
    """Yield the images and arrays of three axes or more below a group here, in the order of their names."""
    for name in files.store.list_directories(group) or ():
        key = files.store.join(group, name)
        if _is_array(files, key):
            if len(read_array_header(files, key).shape) >= len(SPACE):
                yield key
        elif _read_attributes(files, key).get("multiscales"):
            yield key
        elif depth and any(files.has(_join(key, file)) for file in METADATA):
            yield from _list_volumes(files, key, depth - 1)


def _list_known(files: Files, group: str) -> list[str] | None:
    """Return the images and arrays of three axes or more below a group as its consolidated metadata tell, if any do."""
    if files.store.list_directories(group) is not None:
        return None
    new = files.read_json(_join(group, "zarr.json"))
    if new is not None:
        known = ((new.get("consolidated_metadata") or {}).get("metadata")) or None
        nodes = {key: (node, node.get("attributes") or {}) for key, node in (known or {}).items()}
    else:
        known = (files.read_json(_join(group, _CONSOLIDATED)) or {}).get("metadata")
        known = known if isinstance(known, dict) else None
        nodes = {}
        for name, content in (known or {}).items():
            directory, _, file = name.rpartition("/")
            node, attributes = nodes.get(directory, ({}, {}))
            nodes[directory] = (content, attributes) if file == ".zarray" else (node, attributes)
            if file == ".zattrs":
                nodes[directory] = (node, content)
    if known is None:
        return None
    images = [key for key, (_, about) in nodes.items() if (about.get("ome") or about).get("multiscales") and key]
    arrays = [key for key, (node, _) in nodes.items() if len(node.get("shape") or ()) >= len(SPACE)]
    alone = [key for key in arrays if not any(key.startswith(f"{image}/") for image in images)]
    return [files.store.join(group, key) for key in sorted({*images, *alone})]


def _open_array(files: Files, key: str, view: View) -> Opened:
    """Open an array that was named: as the level of an image if a group above it says that it is one."""
    for image in _images_above(files, key):
        levels = [image.array(files, number) for number in range(len(image.multiscale["datasets"]))]
        if key in levels:
            if view.level is not None:
                found, advice = f"the array of level {levels.index(key)} in its address", "give one of the two"
                raise InputError(files.store.place, f"an image, for --level {view.level}", found, advice)
            opened = _open_level(files, image, View(levels.index(key), view.channel, view.time))
            return Opened(opened.voxels, opened.voxel_size_nm)
    header = read_array_header(files, key)
    names = header.names or (SPACE if len(header.shape) == len(SPACE) else ())
    if not names:
        raise InputError(files.store.place, "an array of 3 axes", describe_shape(header.shape), _EXPORT_AGAIN)
    axes = [Axis(name.lower(), None) for name in names]
    refuse_choices(files.store.place, View(view.level))
    return Opened(take_volume(files, key, header, axes, view, _EXPORT_AGAIN), None)


def _images_above(files: Files, key: str) -> Iterator[_Image]:
    """Yield the images of the groups in which an array lies, the nearest first."""
    while key:
        key = key.rpartition("/")[0]
        files.fetch([_join(key, name) for name in ("zarr.json", ".zattrs")], is_search=True)
        for multiscale in _read_attributes(files, key).get("multiscales") or ():
            yield _Image(key, multiscale)


def _open_level(files: Files, image: _Image, view: View) -> Opened:
    datasets = image.multiscale["datasets"]
    sizes = [image.voxel_size(files, number) for number in range(len(datasets))]
    level = pick_level(files.store.place, view, sizes, [str(dataset["path"]) for dataset in datasets])
    key = image.array(files, level)
    header = read_array_header(files, key)
    voxels = take_volume(files, key, header, image.axes(files), view, _EXPORT_AGAIN)
    return Opened(voxels, sizes[level], len(datasets))


def _read_axis(axis: Any) -> Axis:
    if isinstance(axis, str):
        return Axis(axis.lower(), None)
    return Axis(str(axis["name"]).lower(), nanometres_per(axis.get("unit")))


def _read_scale(files: Files, transformations: Any, axes: int) -> Any:
    """Return the product of the scales; a translation moves voxels without changing their size."""
    scale = np.ones(axes)
    for transformation in transformations or ():
        kind = transformation.get("type")
        if kind in ("identity", "translation"):
            continue
        values = transformation.get("scale")
        if kind != "scale" or not isinstance(values, list) or len(values) != axes:
            found = json.dumps(transformation)[:200]
            raise InputError(files.store.place, f"a scale or translation of {axes} values", found, _EXPORT_AGAIN)
        scale = scale * np.array(values, np.float64)
    return scale


def read_array_header(files: Files, key: str) -> ArrayHeader:
    """Read the metadata of a Zarr 2 or 3 array."""
    old, new = _join(key, ".zarray"), _join(key, "zarr.json")
    files.fetch([old, new], is_search=True)
    file = new if files.has(new) else old
    metadata = files.read_json(file)
    if metadata is None:
        raise InputError(files.store.place, f"an array {key} in it, as its metadata say", "none", COPY_AGAIN)
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
        expected = f"the metadata of a Zarr array of numbers ({file})"
        raise describe_damage(error, files.store.place, expected, _EXPORT_AGAIN) from None
    state = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest()
    return ArrayHeader(driver, shape, dtype, has_fill, named, state)
