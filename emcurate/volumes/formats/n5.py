"""N5: a level of its only volume, or of the one that is named; https://github.com/saalfeldlab/n5.

N5 counts axes from the fastest: dimensions, and what is said of them, are those of x, y, z. Only COSEM's ``transform``
names its axes, in whatever order. Levels are arrays s0, s1, … in one group; BigDataViewer has such a group for each
setup and timepoint, of which `View.channel` and `View.time` choose.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emcurate.errors import DAMAGE, InputError, describe_damage
from emcurate.images.units import nanometres_per
from emcurate.volumes.formats.arrays import (
    SPACE,
    ArrayHeader,
    Axis,
    pick,
    pick_level,
    refuse_several,
    take_volume,
)
from emcurate.volumes.formats.bigdataviewer import read_setup_size
from emcurate.volumes.formats.stores import Files, store_of
from emcurate.volumes.layouts import COPY_AGAIN, Opened, SizeNm, checked_voxel_size, describe_shape
from emcurate.volumes.views import View

ATTRIBUTES = "attributes.json"
_AXES = ("x", "y", "z", "c", "t")
_LEVEL = re.compile(r"s(0|[1-9][0-9]{0,2})")
_VIEW = re.compile(r"(?:.*/)?setup([0-9]{1,6})/timepoint([0-9]{1,9})")

# Levels that are asked for at a time where a server does not tell what there is: few volumes have more.
_PROBED = 10

Levels = dict[int, str]


def open_voxels(path: Path, view: View = View()) -> Opened:
    """Open a level of the only volume of an N5 directory, or of the one named; read metadata only.

    Raises
    ------
    InputError
        If it holds none or several, is not three-dimensional, or anything in it leads outside of it.
    """
    store, key = store_of(path)
    return open_files(Files(store), key, view)


def open_files(files: Files, key: str, view: View) -> Opened:
    """Open what lies in a directory of a store, as `open_voxels` does."""
    place = files.store.place
    try:
        own = files.read_json(_join(key, ATTRIBUTES)) or {}
        if "dimensions" in own:
            if view.level:
                found = f"the array {key or 'itself'} in its address"
                raise InputError(place, f"a volume, for --level {view.level}", found, "give one of the two")
            return _open_array(files, {0: key}, View(None, view.channel, view.time))
        volumes = _find_on_server(files, key) if files.store.is_remote else _find_here(files, key)
        group = _choose_volume(files, key, volumes, view)
        view = View(view.level, *((None, None) if _VIEW.fullmatch(group) else (view.channel, view.time)),
                    pixel_size_nm=view.pixel_size_nm)  # fmt: skip
        return _open_array(files, volumes[group], view)
    except DAMAGE as error:
        if isinstance(error, OSError):
            raise
        raise describe_damage(error, place, "N5 metadata of an array of numbers", COPY_AGAIN) from None


def _open_array(files: Files, levels: Levels, view: View) -> Opened:
    keys = [levels[level] for level in sorted(levels)]
    sizes = [_read_voxel_size(files, key) for key in keys]
    level = pick_level(files.store.place, view, sizes, keys)
    attributes = files.read_json(_join(keys[level], ATTRIBUTES)) or {}
    shape = tuple(int(side) for side in attributes["dimensions"])
    state = hashlib.sha256(json.dumps(attributes, sort_keys=True).encode()).hexdigest()
    # What N5 does not store is 0.
    header = ArrayHeader("n5", shape, np.dtype(str(attributes["dataType"])), True, (), state)
    axes = [Axis(name, None) for name in _AXES[: len(shape)]]
    voxels = take_volume(files, keys[level], header, axes, view, COPY_AGAIN)
    return Opened(voxels, sizes[level], len(levels))


def _join(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name


def _find_here(files: Files, key: str) -> dict[str, Levels]:
    """Return the volumes in a directory here and below it: their arrays by level, by the key of the volume."""
    found: dict[str, Levels] = {}
    for array in _list_arrays(files, key):
        group, _, name = array.rpartition("/")
        match = _LEVEL.fullmatch(name)
        if match:
            found.setdefault(group, {})[int(match[1])] = array
        else:
            found[array] = {0: array}
    # A level that stands alone, without the full resolution, is nobody's lower one.
    return {group: levels for group, levels in found.items() if 0 in levels}


def _list_arrays(files: Files, key: str) -> Iterator[str]:
    """Yield the arrays in a directory and below it, in the order of their names."""
    attributes = files.read_json(_join(key, ATTRIBUTES))
    if attributes is not None and "dimensions" in attributes:
        yield key
        return  # below it lie its chunks
    for name in files.store.list_directories(key) or ():
        yield from _list_arrays(files, files.store.join(key, name))


def _find_on_server(files: Files, key: str) -> dict[str, Levels]:
    """Return the volume that lies in a directory of a server, as far as it can be found by asking for usual names."""
    first = [_join(key, f"s{level}") for level in range(_PROBED)]
    views = [_join(key, name) for name in ("setup0/timepoint0", "setup1/timepoint0", "setup0/timepoint1")]
    files.fetch([_join(name, ATTRIBUTES) for name in (*first, *(f"{view}/s0" for view in views))], is_search=True)
    groups = [key] if _is_array(files, first[0]) else [view for view in views if _is_array(files, f"{view}/s0")]
    found: dict[str, Levels] = {}
    for group in groups:
        levels: Levels = {}
        while _is_array(files, name := _join(group, f"s{len(levels)}")):
            levels[len(levels)] = name
        found[group] = levels
    return found


def _is_array(files: Files, key: str) -> bool:
    return "dimensions" in (files.read_json(_join(key, ATTRIBUTES)) or {})


def _choose_volume(files: Files, key: str, volumes: Mapping[str, Levels], view: View) -> str:
    """Return the key of the only volume, or of the one that is chosen by its channel and time."""
    place = files.store.place
    if not volumes:
        within = f" in {key}" if key else ""
        advice = f"name the group or the array, such as {place}::/em/s0" if files.store.is_remote else COPY_AGAIN
        raise InputError(place, "one volume", f"none{within}", advice)
    views = {group: match for group in volumes if (match := _VIEW.fullmatch(group))}
    if len(views) == len(volumes) and (len(volumes) > 1 or view.channel is not None or view.time is not None):
        setups = sorted({int(match[1]) for match in views.values()})
        times = sorted({int(match[2]) for match in views.values()})
        setup = setups[pick(place, "setup", len(setups), "channel", view.channel)]
        time = times[pick(place, "timepoint", len(times), "time", view.time)]
        for group, match in views.items():
            if (int(match[1]), int(match[2])) == (setup, time):
                return group
        raise InputError(place, f"a setup {setup} at timepoint {time}", "none", "choose others")
    if len(volumes) > 1:
        names = list(volumes)
        raise refuse_several(
            place, "one volume", names, lambda name: f"{volumes[name][0]} ({_describe(files, volumes[name][0])})"
        )
    return next(iter(volumes))


def _describe(files: Files, key: str) -> str:
    attributes = files.read_json(_join(key, ATTRIBUTES)) or {}
    return describe_shape(tuple(reversed(attributes["dimensions"])))


def _read_voxel_size(files: Files, key: str) -> SizeNm | None:
    """Return the voxel size (z, y, x) in nm from an array's attributes, or those of the groups around it."""
    parent = key.rpartition("/")[0]
    groups = [parent, parent.rpartition("/")[0]] if key else []
    attributes = files.read_json(_join(key, ATTRIBUTES)) or {}
    around = [files.read_json(_join(group, ATTRIBUTES)) or {} for group in dict.fromkeys(groups)]
    match = _LEVEL.fullmatch(key.rpartition("/")[2])
    level = int(match[1]) if match else 0
    factors = _read_factors(attributes, around, level)
    for number, found in enumerate((attributes, *around)):
        if isinstance(transform := found.get("transform"), dict) and (number == 0 or level == 0):
            steps = {
                str(axis): float(scale) * (nanometres_per(str(unit)) or math.nan)
                for axis, scale, unit in zip(transform["axes"], transform["scale"], transform["units"], strict=True)
            }
            return checked_voxel_size((steps[SPACE[0]], steps[SPACE[1]], steps[SPACE[2]]))
        # A list without a unit, which is seen too, is left unknown: some mean nanometres, others micrometres.
        if isinstance(resolution := found.get("pixelResolution"), dict):
            unit = nanometres_per(resolution.get("unit")) or math.nan
            # Of a group it is that of level 0, and of a lower one unknown if nothing says by how much it is smaller.
            known = factors or ([1, 1, 1] if number == 0 or level == 0 else [math.nan] * 3)
            x, y, z = (
                float(step) * float(factor) * unit
                for step, factor in zip(resolution["dimensions"][:3], known[:3], strict=True)
            )
            return checked_voxel_size((z, y, x))
    setup = _VIEW.fullmatch(parent)
    if setup and isinstance(files.store.root, Path) and (size := read_setup_size(files.store.root, int(setup[1]))):
        x, y, z = (float(factor) for factor in (factors or ([1, 1, 1] if level == 0 else [math.nan] * 3))[:3])
        return checked_voxel_size((size[0] * z, size[1] * y, size[2] * x))
    return None


def _read_factors(attributes: Mapping[str, Any], around: Sequence[Mapping[str, Any]], level: int) -> list[Any] | None:
    """Return by how much a level is smaller than the full resolution along x, y, z, if its attributes or groups say."""
    own = attributes.get("downsamplingFactors")
    if isinstance(own, list):
        return own
    for group in around:
        for name in ("scales", "downsamplingFactors"):
            known = group.get(name)
            if isinstance(known, list) and level < len(known) and isinstance(known[level], list):
                return list(known[level])
    return None
