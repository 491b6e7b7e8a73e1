"""The sections of a volume: at which indices, under which names, and in which slabs they are cut."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from emcurate import naming
from emcurate.errors import InputError
from emcurate.images.resampling import Factors, Scale, find_factors, in_plane
from emcurate.running.report import Report
from emcurate.volumes.volume import Volume, is_anisotropic

# Voxels a job holds at a time, in bytes; a job works on at least one section, however large. Larger slabs read a
# volume fewer times over (a slab of yz sections touches every page of the file), but each process holds one.
SLAB_BYTES = 1 << 27


# What to do where the voxel size of a volume is unknown.
HOW_TO_GIVE = "give its voxel size with --voxel-size Z Y X (nm)"

# Sections a job cuts at most, so that even a small volume keeps every process busy.
SLAB_SECTIONS = 64


def section_indices(size: int, spacing: int) -> list[range]:
    """Return the indices at which an axis is cut: 0, s, 2s, … and the last, as one or two ranges.

    >>> section_indices(10, 3), section_indices(9, 3)
    ([range(0, 10, 3)], [range(0, 9, 3), range(8, 9)])
    """
    regular = range(0, size, spacing)
    return [regular] if regular[-1] == size - 1 else [regular, range(size - 1, size)]


def choose_planes(volume: Volume, axes: Sequence[int], anisotropy: float, report: Report) -> tuple[int, ...]:
    """Return the planes to cut: those asked for, or only xy where z differs too much from x, which is reported."""
    left = find_planes(volume, axes, anisotropy)
    if left == tuple(axes):
        return left
    z, y, x = volume.voxel_size_nm or (0, 0, 0)
    cut = "only plane 0 (xy) is cut" if left else "nothing is cut, since --axes leaves plane 0 (xy) out"
    report.note(f"{volume.path}: voxels of {z:g} x {y:g} x {x:g} nm (z, y, x) are anisotropic; {cut}")
    return left


def find_planes(volume: Volume, axes: Sequence[int], anisotropy: float) -> tuple[int, ...]:
    """Return the planes to cut, as `choose_planes` does, without a word."""
    if not any(axes) or not is_anisotropic(volume.voxel_size_nm, anisotropy):
        return tuple(axes)
    return tuple(plane for plane in axes if plane == 0)


def find_plane_factors(volume: Volume, planes: Iterable[int], scale: Scale) -> dict[int, Factors | None]:
    """Return how many voxels along the rows and columns of each plane make a pixel of the size that is asked for.

    Raises
    ------
    InputError
        If the voxel size is unknown, or too large in one of the planes.
    """
    factors: dict[int, Factors | None] = {}
    for plane in planes:
        size = volume.voxel_size_nm and in_plane(volume.voxel_size_nm, plane)
        try:
            factors[plane] = find_factors(scale, size, section_shape(volume, plane), volume.path, HOW_TO_GIVE)
        except InputError as error:
            where = "" if size is None else f" in plane {plane} ({naming.PLANES[plane]})"
            advice = error.advice if size is None else f"{error.advice}, or leave planes out with --axes"
            raise InputError(volume.path, error.expected, error.found + where, advice) from None
    return factors


def section_shape(volume: Volume, plane: int) -> tuple[int, int]:
    """Return the rows and columns of a volume's sections along a plane, in voxels."""
    rows, columns = (side for axis, side in enumerate(volume.shape) if axis != plane)
    return rows, columns


def leave_out_thin(
    volume: Volume, sizes: Mapping[int, tuple[int, int]], least_side: int, report: Report
) -> tuple[int, ...]:
    """Return the planes whose sections have at least so many pixels a side, and report if these are not all.

    They are all, the one across the thin direction, or, of a volume that is thin in two directions, none.

    Parameters
    ----------
    volume : Volume
    sizes : mapping of int to (height, width)
        Of the sections of each plane, in pixels.
    least_side : int
    report : Report
    """
    left = tuple(plane for plane, size in sizes.items() if min(size) >= least_side)
    thin = [
        f"plane {plane} ({naming.PLANES[plane]}), {height} x {width} pixels"
        for plane, (height, width) in sizes.items()
        if plane not in left
    ]
    if thin:
        cut = f"only plane {left[0]} ({naming.PLANES[left[0]]}) is cut" if left else "nothing is cut"
        found = f"sections of {' and '.join(thin)}, are too thin for patches of {least_side} (--min-size)"
        report.note(f"{volume.path}: {found}; {cut}")
    return left


def divide(volume: Volume, planes: Iterable[int], spacing: int) -> Iterator[tuple[int, range]]:
    """Divide a volume's sections into slabs: yield the plane and the indices of each."""
    for plane in planes:
        at_once = sections_at_once(volume, plane)
        for indices in section_indices(volume.shape[plane], spacing):
            for start in range(0, len(indices), at_once):
                yield plane, indices[start : start + at_once]


def wanted_boxes(volume: Volume, planes: Iterable[int], spacing: int) -> list[tuple[slice, slice, slice]]:
    """Return what is read of a volume to cut its sections along some planes."""
    boxes = []
    for plane in planes:
        for indices in section_indices(volume.shape[plane], spacing):
            for index in indices:
                box = [slice(None)] * 3
                box[plane] = slice(index, index + 1)
                boxes.append((box[0], box[1], box[2]))
    return boxes


def sections_at_once(volume: Volume, plane: int) -> int:
    """Return how many sections of a plane a job reads at a time."""
    section_bytes = volume.size // volume.shape[plane] * volume.dtype.itemsize
    return min(SLAB_SECTIONS, max(1, SLAB_BYTES // max(1, section_bytes)))


def dataset_of(name: str) -> str | None:
    """Return the dataset of the volume that a file of this name is a section of, None if it is none."""
    stem, _, extension = name.rpartition(".")
    with contextlib.suppress(naming.GrammarError):
        if extension == "tiff" and isinstance(section := naming.parse_section(stem), naming.VolumeSection):
            return section.dataset
    return None
