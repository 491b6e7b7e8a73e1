"""Cutting volumes: slabs of neighbouring sections, converted to grey values, for jobs that divide a volume."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emcurate import naming
from emcurate.addresses import Address, Place
from emcurate.images.origins import VOLUME
from emcurate.images.pixels import Limits, Rescale, convert, needs_measuring
from emcurate.images.resampling import Factors, Scale, resample
from emcurate.running.claims import Notes
from emcurate.running.jobs import Workers
from emcurate.running.ledger_lines import Line
from emcurate.running.report import Report
from emcurate.volumes.formats.copies import Box
from emcurate.volumes.layouts import FlatFile
from emcurate.volumes.limits import find_limits
from emcurate.volumes.scratch import ready_to_read
from emcurate.volumes.volume import Volume

# Bytes of voxels up to which threads cut them: these are half done before processes have been started, but hinder one
# another wherever Python itself is at work.
THREADED_BYTES = 1 << 28


@dataclass(frozen=True)
class Slab:
    """Some sections of one plane of a volume, those at `indices` of axis `plane`, and the volume's grey limits.

    The indices rise. All that lies between the first and the last is read, in steps that they have in common. With
    `factors`, so many voxels along rows and columns become one pixel.
    """

    volume: Volume
    plane: int
    indices: Sequence[int]
    limits: Limits
    factors: Factors | None = None

    def sections(self) -> Iterator[tuple[naming.VolumeSection, npt.NDArray[np.uint8]]]:
        """Yield each section's name and pixels, (rows, columns) uint8; the slab's voxels are read once."""
        first, last = self.indices[0], self.indices[-1]
        step = math.gcd(*(index - first for index in self.indices)) or 1
        box = [slice(None)] * 3
        box[self.plane] = slice(first, last + 1, step)
        pixels = separate_sections(convert(self.volume.read(*box), self.limits), self.plane)
        width = naming.index_width(self.volume.shape[self.plane])
        for index in self.indices:
            section = naming.VolumeSection(self.volume.name, self.plane, index, width)
            yield section, resample(pixels[(index - first) // step], self.factors)


def separate_sections(box: npt.NDArray[np.uint8], plane: int) -> npt.NDArray[np.uint8]:
    """Return the sections of a box of voxels along an axis, (sections, rows, columns), each by itself in memory.

    Pixels of a yz section lie far from one another in a box, where all that follows would be slow.
    """
    sections = np.moveaxis(box, plane, 0)
    if plane == 0:
        return sections
    separate = np.empty(sections.shape, np.uint8)
    for z, rows in enumerate(box):  # while the cache holds both: all at once takes twice as long
        separate[:, z] = rows if plane == 1 else rows.T
    return separate


@contextlib.contextmanager
def ready_to_cut(
    volumes: Sequence[Volume],
    planes: Mapping[Place, Sequence[int]],
    rescale: Rescale,
    scratch_directory: Path,
    report: Report,
    workers: Workers,
    known: Mapping[Place, Limits] | None = None,
    wanted: Mapping[Place, Sequence[Box]] | None = None,
) -> Iterator[list[tuple[Volume, Limits | None]]]:
    """Give volumes that can be cut now, with their grey limits; those that cannot be read are reported and left out.

    Parameters
    ----------
    volumes : sequence of Volume
    planes : mapping of Path to sequence of int
        The planes to cut, by the volume's path. Where there are none, the limits are not measured, and None.
    rescale : Rescale
    scratch_directory : Path
        Where packed volumes are unpacked meanwhile.
    report : Report
    workers : Workers
    known : mapping of Path to Limits, optional
        Limits that were measured before.
    wanted : mapping of Path or Address to sequence of boxes, optional
        What is going to be cut of volumes on servers; all of them by default.
    """
    known = known or {}
    # What is to be measured is read whole.
    cut_only = [v.path for v in volumes if not planes[v.path] or v.path in known or not needs_measuring(v.dtype)]
    wanted = {path: boxes for path, boxes in (wanted or {}).items() if path in cut_only}
    # Whole planes of a TIFF or of a directory of slices are read as they are; anything else is decoded once first.
    by_planes = [volume.path for volume in volumes if not any(planes[volume.path])]
    with ready_to_read(volumes, scratch_directory, report, workers, by_planes=by_planes, wanted=wanted) as ready:
        unknown = [volume for volume in ready if planes[volume.path] and volume.path not in known]
        limits = {**known, **find_limits(unknown, rescale, report, workers)}
        usable = {volume.path: volume for volume in ready if volume.path in limits or not planes[volume.path]}
        yield [(usable[volume.path], limits.get(volume.path)) for volume in volumes if volume.path in usable]


def suits_threads(volumes: Sequence[Volume]) -> bool:
    """Return whether volumes are sooner cut by threads of this process than by processes: a few, mapped as they are."""
    is_flat = all(isinstance(volume.voxels, FlatFile) for volume in volumes)
    return is_flat and sum(volume.size * volume.dtype.itemsize for volume in volumes) <= THREADED_BYTES


class NotesBeside:
    """What stages noted of volumes, in whatever directories these lie."""

    def __init__(self) -> None:
        self._notes: dict[Path, Notes] = {}

    def origin(self, place: Place) -> Line | None:
        """Return what a volume came of; None if no stage of this computer made it."""
        if isinstance(place, Address):
            return None
        if place.parent not in self._notes:
            self._notes[place.parent] = Notes(place.parent)
        return self._notes[place.parent].origin(place)


def describe_volume(
    volume: Volume, limits: Limits | None, notes: NotesBeside, scale: Scale = Scale()
) -> dict[str, Any]:
    """Return what later stages want to know of a volume that was cut, as the ledger keeps it."""
    made = notes.origin(volume.path)
    resampled = {} if scale.pixel_size_nm is None else {"pixel_size_nm": scale.pixel_size_nm}
    region = {} if made is None or "region_of" not in made.details else {"region_of": made.details["region_of"]}
    return (
        resampled
        | region
        | {
            "kind": VOLUME if made is None else made.details.get("kind", VOLUME),
            "voxel_size_nm": volume.voxel_size_nm,
            "limits": limits and (limits.low, limits.high),
        }
    )
