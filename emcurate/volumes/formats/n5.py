"""N5 directories: the full resolution of their only volume; https://github.com/saalfeldlab/n5.

N5 counts axes from the fastest: dimensions, and what is said of them, are those of x, y, z. Only COSEM's ``transform``
names its axes, in whatever order.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from emcurate.errors import DAMAGE, InputError, describe_damage
from emcurate.files import is_there
from emcurate.images.units import nanometres_per
from emcurate.volumes.formats.chunked import read_json
from emcurate.volumes.formats.ome_zarr import SPACE, ArrayHeader, Axis, take_volume
from emcurate.volumes.layouts import COPY_AGAIN, Opened, checked_voxel_size, describe_shape

ATTRIBUTES = "attributes.json"
_AXES = ("x", "y", "z", "c", "t")
_COARSE = re.compile(r"s[1-9][0-9]*")
_MOST_LISTED = 20


def open_voxels(path: Path) -> Opened:
    """Open the only volume of an N5 directory, or the full resolution of it; read metadata only.

    Raises
    ------
    InputError
        If it holds none or several, is not three-dimensional, or anything in it leads outside of it.
    """
    try:
        found = dict(_list_arrays(path, path))
        full = {array: attributes for array, attributes in found.items() if not _COARSE.fullmatch(array.name)}
        if len(full) != 1:
            names = [f"{array.relative_to(path)} ({_describe(full[array])})" for array in list(full)[:_MOST_LISTED]]
            listed = f"{len(full)}: {', '.join(names)}" if names else "none"
            raise InputError(path, "one volume", listed, "copy one to a directory of its own whose name ends in .n5")
        array, attributes = next(iter(full.items()))
        shape = tuple(int(side) for side in attributes["dimensions"])
        state = hashlib.sha256(json.dumps(attributes, sort_keys=True).encode()).hexdigest()
        # What N5 does not store is 0.
        header = ArrayHeader("n5", shape, np.dtype(str(attributes["dataType"])), True, (), state)
        voxels = take_volume(path, array, header, [Axis(name, None) for name in _AXES[: len(shape)]])
        return Opened(voxels, _read_voxel_size(path, array, attributes))
    except DAMAGE as error:
        if isinstance(error, OSError):
            raise
        raise describe_damage(error, path, "N5 metadata of an array of numbers", COPY_AGAIN) from None


def _list_arrays(store: Path, directory: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the arrays in a directory and below it, with their attributes, in the order of their names."""
    if is_there(directory / ATTRIBUTES):
        attributes = read_json(directory / ATTRIBUTES, store)
        if "dimensions" in attributes:
            yield directory, attributes
            return  # below it lie its chunks
    with os.scandir(directory) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    for name in names:
        yield from _list_arrays(store, directory / name)


def _describe(attributes: dict[str, Any]) -> str:
    return describe_shape(tuple(reversed(attributes["dimensions"])))


def _read_voxel_size(store: Path, array: Path, attributes: dict[str, Any]) -> tuple[float, float, float] | None:
    """Return the voxel size (z, y, x) in nm from an array's attributes, or those of the group of its resolutions."""
    groups = [array.parent, array.parent.parent] if array != store else []
    around = [read_json(group / ATTRIBUTES, store) for group in groups if _lies_in(group, store)]
    for found in (attributes, *around):
        if isinstance(transform := found.get("transform"), dict):
            steps = {
                str(axis): float(scale) * (nanometres_per(str(unit)) or math.nan)
                for axis, scale, unit in zip(transform["axes"], transform["scale"], transform["units"], strict=True)
            }
            return checked_voxel_size((steps[SPACE[0]], steps[SPACE[1]], steps[SPACE[2]]))
        # A list without a unit, which is seen too, is left unknown: some mean nanometres, others micrometres.
        if isinstance(resolution := found.get("pixelResolution"), dict):
            unit = nanometres_per(resolution.get("unit")) or math.nan
            factors = attributes.get("downsamplingFactors") or [1, 1, 1]
            steps_of_axes = zip(resolution["dimensions"][:3], factors[:3], strict=True)
            x, y, z = (float(step) * float(factor) * unit for step, factor in steps_of_axes)
            return checked_voxel_size((z, y, x))
    return None


def _lies_in(group: Path, store: Path) -> bool:
    return group.is_relative_to(store) and is_there(group / ATTRIBUTES)
