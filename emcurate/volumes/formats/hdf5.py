"""HDF5: ``.h5 .hdf5 .ims``, its only 3D dataset or the raw data of a known layout, read by h5py.

Known are CREMI (``volumes/raw``), Imaris, BigDataViewer, and ilastik's arrays of up to five axes. Links to other files
are never followed, nor is storage in other files used, since whoever made the file could name any file of this computer
there.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from emcurate.addresses import SEPARATOR
from emcurate.errors import DAMAGE, InputError
from emcurate.files import natural_key
from emcurate.images.hdf5_files import is_hard as _is_hard
from emcurate.images.hdf5_files import open_hdf5 as _open_file
from emcurate.images.hdf5_files import step_to as _step_to
from emcurate.images.units import nanometres_per
from emcurate.volumes.formats import file_of
from emcurate.volumes.formats.arrays import (
    SPACE,
    ChosenAxes,
    choose_axes,
    pick,
    pick_level,
    refuse_choices,
    refuse_several,
)
from emcurate.volumes.formats.bigdataviewer import read_setup_size
from emcurate.volumes.formats.chunked import MOST_CHUNK_BYTES, MOST_CHUNKS_A_FILE, is_plausible
from emcurate.volumes.layouts import (
    COPY_AGAIN,
    AnyArray,
    Opened,
    Shape,
    SizeNm,
    check_side_lengths,
    checked_voxel_size,
    describe_shape,
)
from emcurate.volumes.views import View

# Decoded chunks that HDF5 keeps while a box is read.
CACHE_BYTES = 1 << 26

# Objects in a file that are looked at; a volume's file has dozens, BigDataViewer's of many times thousands.
MOST_OBJECTS = 100_000

CREMI_RAW = "volumes/raw"
IMARIS_LEVEL = "DataSet/ResolutionLevel {}"
_IMARIS_DATA = "Data"

# BigDataViewer's name of a level of a setup at a time, and of the table of by how much levels are smaller (x, y, z).
_BIGDATAVIEWER = re.compile(r"t([0-9]{5,9})/s([0-9]{2,6})/([0-9]{1,3})/cells")
_RESOLUTIONS = "s{}/resolutions"

# The attribute in which ilastik, and vigra, name the axes of a dataset.
_AXISTAGS = "axistags"


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
    axes : (int, int, int)
        Which of its axes are z, y and x.
    index : tuple of int
        What is read of the others.
    """

    path: Path
    dataset: str
    shape: Shape
    stored_dtype: np.dtype[Any]
    axes: tuple[int, int, int] = (0, 1, 2)
    index: tuple[int, ...] = (0, 0, 0)

    random_access = True
    sequential = False

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.stored_dtype.newbyteorder("=")

    def read(self, z: slice, y: slice, x: slice) -> AnyArray:
        """Return the voxels of a box, (z, y, x), of type `dtype`."""
        box: list[Any] = list(self.index)
        for axis, part, side in zip(self.axes, (z, y, x), self.shape, strict=True):
            start, stop, step = part.indices(side)
            box[axis] = slice(start, max(start, stop), step)
        with _open_file(self.path) as file:
            found = _step_to(self.path, file, self.dataset)
            same = found.dtype == self.stored_dtype and len(found.shape) == len(box)
            if not same or any(found.shape[axis] < side for axis, side in zip(self.axes, self.shape, strict=True)):
                expected = f"{describe_shape(self.shape)} voxels of {self.stored_dtype.name}, as when it was opened"
                raise InputError(self.path, expected, describe_shape(found.shape), COPY_AGAIN)
            voxels = np.asarray(found[tuple(box)])
        kept = sorted(self.axes)
        return np.ascontiguousarray(
            voxels.transpose([kept.index(axis) for axis in self.axes]).astype(self.dtype, copy=False)
        )

    def iter_planes(self, start: int, stop: int) -> Iterator[AnyArray]:
        for index in range(start, stop):
            yield self.read(slice(index, index + 1), slice(None), slice(None))[0]


def open_voxels(path: Path, view: View = View()) -> Opened:
    """Open an HDF5 file, or the dataset that follows ``::`` after its name; read metadata only.

    Raises
    ------
    InputError
        If it holds no volume or several, or the volume lies in another file.
    """
    path, name = split_address(path)
    with _open_file(path) as file:
        if name is None and "DataSetInfo" in file and _is_hard(file, "DataSet"):
            found = _find_imaris(path, file, view)
        elif name is None and not _is_dataset(path, file, CREMI_RAW):
            found = _find_only(path, file, view)
        else:
            found = _Found(name or CREMI_RAW, view)
        dataset = _step_to(path, file, found.name)
        axes = _check_volume(path, found.name, dataset, found.view)
        shape = check_side_lengths(path, found.sides or axes.shape_of(dataset.shape))
        if any(taken > side for taken, side in zip(shape, axes.shape_of(dataset.shape), strict=True)):
            expected = f"at least {describe_shape(shape)} voxels, as its DataSetInfo says"
            raise InputError(path, expected, describe_shape(dataset.shape), COPY_AGAIN)
        voxels = Hdf5Voxels(path, found.name, shape, dataset.dtype, axes.space, axes.index)
        return Opened(voxels, found.voxel_size_nm or _read_voxel_size(dataset), found.levels)


@dataclass(frozen=True)
class _Found:
    """A dataset that was found in a layout that is known: what is still to be chosen of it, and what is known of it."""

    name: str
    view: View = field(default_factory=View)
    sides: tuple[int, ...] | None = None
    voxel_size_nm: SizeNm | None = None
    levels: int = 1


def split_address(path: Path) -> tuple[Path, str | None]:
    """Return the file, and the dataset in it that an address names, if it does.

    >>> split_address(Path("a.h5::/volumes/raw"))[1], split_address(Path("a.h5"))[1]
    ('volumes/raw', None)
    """
    file = file_of(path)
    return file, str(path)[len(str(file)) :].removeprefix(SEPARATOR).strip("/") or None


def _is_dataset(path: Path, file: Any, name: str) -> bool:
    try:
        return hasattr(_step_to(path, file, name), "dtype")
    except InputError:
        return False


def _find_only(path: Path, file: Any, view: View) -> _Found:
    """Return the only volume, or that of BigDataViewer's that is chosen."""
    found, outside = _list_volumes(path, file)
    views = {name: match for name in found if (match := _BIGDATAVIEWER.fullmatch(name))}
    if views and len(views) == len(found):
        return _find_bigdataviewer(path, file, views, view)
    names = list(found)
    if len(names) == 1:
        return _Found(names[0], view)
    if not names:
        what = f"none but links to other files, such as {outside[0]}" if outside else "none"
        raise InputError(path, "a 3D dataset of numbers", what, "save the volume as one dataset of 3 axes")
    raise refuse_several(path, "one 3D dataset", names, lambda name: f"/{name} ({describe_shape(found[name])})")


def _find_bigdataviewer(path: Path, file: Any, views: Mapping[str, re.Match[str]], view: View) -> _Found:
    """Return a level of BigDataViewer's, t00000/s00/LEVEL/cells, with the voxel size of the XML beside the file."""
    times, setups = ({match[number] for match in views.values()} for number in (1, 2))
    time = sorted(times)[pick(path, "timepoint", len(times), "time", view.time)]
    setup = sorted(setups)[pick(path, "setup", len(setups), "channel", view.channel)]
    levels = {int(m[3]): name for name, m in views.items() if (m[1], m[2]) == (time, setup)}
    names = list(itertools.takewhile(bool, (levels.get(level, "") for level in itertools.count())))
    if not names:
        raise InputError(path, f"a setup {setup} at timepoint {time}", "none", "choose others")
    full, table = read_setup_size(path, int(setup)), _RESOLUTIONS.format(setup)
    sizes: list[SizeNm | None] = [full, *[None] * (len(names) - 1)]
    if full is not None and _is_dataset(path, file, table):
        factors = np.asarray(_step_to(path, file, table))
        if factors.shape == (len(names), 3):
            sizes = [checked_voxel_size((full[0] * z, full[1] * y, full[2] * x)) for x, y, z in factors.tolist()]
    level = pick_level(path, view, sizes, names)
    return _Found(names[level], View(), None, sizes[level], len(names))


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
            elif isinstance(entry, h5py.Dataset) and entry.dtype.kind in "iufb" and _is_volume(entry):
                found[prefix + name] = entry.shape
    return dict(sorted(found.items())), outside


def _is_volume(dataset: Any) -> bool:
    """Return whether a dataset has axes z, y and x: by ilastik's names of them, or because there are three."""
    names = _axis_names(dataset)
    return set(SPACE) <= set(names) if names else dataset.ndim == len(SPACE)


def _axis_names(dataset: Any) -> list[str]:
    """Return the names of a dataset's axes as ilastik keeps them; empty if it does not, or for another array."""
    text = dataset.attrs.get(_AXISTAGS)
    if not isinstance(text, str | bytes):
        return []
    try:
        names = [str(axis["key"]).lower() for axis in json.loads(text)["axes"]]
    except (*DAMAGE, RecursionError):
        return []
    return names if len(names) == dataset.ndim else []


def _find_imaris(path: Path, file: Any, view: View) -> _Found:
    """Return the dataset of an Imaris file, its sides without padding, and its voxel size."""
    top = _step_to(path, file, IMARIS_LEVEL.format(0))
    times = sorted(top, key=natural_key)
    channels = sorted(_step_to(path, top, times[0]), key=natural_key) if times else []
    time = pick(path, "TimePoint", len(times), "time", view.time) if times else 0
    channel = pick(path, "Channel", len(channels), "channel", view.channel) if channels else 0
    if not channels:
        raise InputError(path, "an Imaris file with voxels", "no TimePoint or Channel in it", COPY_AGAIN)
    count = sum(1 for _ in itertools.takewhile(lambda n: IMARIS_LEVEL.format(n) in file, itertools.count()))
    attributes = _step_to(path, file, "DataSetInfo/Image").attrs
    texts = {name: _text(attributes[name]) for name in attributes}
    unit = nanometres_per(texts.get("Unit", "um")) or math.nan
    extent = [(float(texts[f"ExtMax{axis}"]) - float(texts[f"ExtMin{axis}"])) * unit for axis in (2, 1, 0)]
    names = [f"{IMARIS_LEVEL.format(n)}/{times[time]}/{channels[channel]}" for n in range(count)]
    sides = [[int(texts[axis]) for axis in "ZYX"]]
    for name in names[1:]:
        about = _step_to(path, file, name).attrs
        known = all(f"ImageSize{axis}" in about for axis in "ZYX")
        sides.append([int(_text(about[f"ImageSize{axis}"])) for axis in "ZYX"] if known else [])
    sizes = [_divide_extent(extent, some) for some in sides]
    level = pick_level(path, view, sizes)
    return _Found(f"{names[level]}/{_IMARIS_DATA}", View(), tuple(sides[level]) or None, sizes[level], count)


def _divide_extent(extent: Sequence[float], sides: Sequence[int]) -> SizeNm | None:
    if not sides:
        return None
    z, y, x = (length / max(side, 1) for length, side in zip(extent, sides, strict=True))
    return checked_voxel_size((z, y, x))


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


def _check_volume(path: Path, name: str, dataset: Any, view: View) -> ChosenAxes:
    """Return which axes of a dataset are read; raise `InputError` unless it is in this file, and a part was written."""
    import h5py

    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "iufb" or not _is_volume(dataset):
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
    names = _axis_names(dataset)
    axes = ChosenAxes((0, 1, 2), (0, 0, 0))
    if names:
        axes = choose_axes(path, dataset.shape, names, view, "name its axes t, c, z, y, x")
        view = View(view.level)
    refuse_choices(path, view)
    check_stored(path, name, dataset)
    return axes


def check_stored(path: Path, name: str, dataset: Any) -> None:
    """Raise `InputError` unless at least a part of a dataset was written, in chunks that memory holds."""
    import h5py

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
    grid = [-(-side // part) for side, part in zip(dataset.shape, dataset.chunks, strict=True)]
    chunks, written = math.prod(grid), dataset.id.get_num_chunks()
    undefined = dataset.id.get_create_plist().fill_value_defined() == h5py.h5d.FILL_VALUE_UNDEFINED
    if not is_plausible(grid, written, lambda: _chunk_places(dataset)) or (undefined and written < chunks):
        least = "all" if undefined else f"at least one in {MOST_CHUNKS_A_FILE:,}"
        raise InputError(path, f"{least} of the {chunks:,} chunks of /{name}", f"{written:,}", COPY_AGAIN)


def _chunk_places(dataset: Any) -> Iterator[tuple[int, ...]]:
    """Yield where in the grid of chunks those lie that were written."""
    for number in range(dataset.id.get_num_chunks()):
        offset = dataset.id.get_chunk_info(number).chunk_offset
        yield tuple(at // part for at, part in zip(offset, dataset.chunks, strict=True))
