"""Cutting volumes: slabs of neighbouring sections, converted to grey values, for jobs that divide a volume."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from emcurate import naming
from emcurate.images.pixels import Limits, Rescale, convert
from emcurate.running.claims import Notes
from emcurate.running.jobs import Workers
from emcurate.running.report import Report
from emcurate.volumes.limits import find_limits
from emcurate.volumes.scratch import ready_to_read
from emcurate.volumes.sections import divide
from emcurate.volumes.volume import Volume

# What a volume is in the tables, unless the stage that made it says otherwise.
VOLUME_KIND = "volume"

Value = TypeVar("Value")


@dataclass(frozen=True)
class Slab:
    """Some sections of one plane of a volume, those at `indices` of axis `plane`, and the volume's grey limits."""

    volume: Volume
    plane: int
    indices: range
    limits: Limits

    def sections(self) -> Iterator[tuple[naming.VolumeSection, npt.NDArray[np.uint8]]]:
        """Yield each section's name and pixels, (rows, columns) uint8; the slab's voxels are read once."""
        box = [slice(None)] * 3
        box[self.plane] = slice(self.indices[0], self.indices[-1] + 1, self.indices.step)
        pixels = np.moveaxis(convert(self.volume.read(*box), self.limits), self.plane, 0)
        width = naming.index_width(self.volume.shape[self.plane])
        for index, section in zip(self.indices, pixels, strict=True):
            yield naming.VolumeSection(self.volume.name, self.plane, index, width), section


class SlabJob(Protocol):
    """A job about a slab."""

    @property
    def slab(self) -> Slab: ...


Job = TypeVar("Job", bound=SlabJob)


def cut_volumes(
    volumes: Sequence[Volume],
    planes: Mapping[Path, Sequence[int]],
    spacing: int,
    rescale: Rescale,
    scratch_directory: Path,
    make_job: Callable[[Slab], Job],
    function: Callable[[Job], Value],
    report: Report,
    workers: Workers,
) -> Iterator[tuple[Volume, Limits | None, list[Value]]]:
    """Do a job on every slab of some volumes, the work divided over processes within each; yield the finished volumes.

    Parameters
    ----------
    volumes : sequence of Volume
    planes : mapping of Path to sequence of int
        The planes to cut, by the volume's path.
    spacing : int
        Cut every so many-th index, and the last.
    rescale : Rescale
    scratch_directory : Path
        Where packed volumes are unpacked meanwhile.
    make_job, function : callables
        `make_job` makes a job of a slab; `function`, at the top level of its module, does it.
    report : Report
        Receives what fails; a volume of which any slab fails is not yielded.
    workers : Workers

    Yields
    ------
    (Volume, Limits or None, list)
        A volume, its grey limits (None where no plane is cut), and what `function` returned for its slabs, in the order
        of planes and indices.
    """
    # Whole planes of a TIFF or of a directory of slices are read as they are; anything else is decoded once first.
    by_planes = [volume.path for volume in volumes if not any(planes[volume.path])]
    with ready_to_read(volumes, scratch_directory, report, workers, by_planes=by_planes) as ready:
        limits = find_limits([volume for volume in ready if planes[volume.path]], rescale, report, workers)
        jobs = [
            make_job(Slab(volume, plane, indices, limits[volume.path]))
            for volume in ready
            if volume.path in limits
            for plane, indices in divide(volume, planes[volume.path], spacing)
        ]
        missing = Counter(job.slab.volume.path for job in jobs)
        values: dict[Path, list[tuple[int, int, Value]]] = defaultdict(list)
        for job, value in workers.run(function, jobs, report, unit="slab"):
            slab = job.slab
            values[slab.volume.path].append((slab.plane, slab.indices[0], value))
            missing[slab.volume.path] -= 1
    whole = {volume.path for volume in ready if not planes[volume.path] or volume.path in limits}
    for volume in volumes:
        if volume.path in whole and not missing[volume.path]:
            found = sorted(values.pop(volume.path, []), key=lambda place: place[:2])
            yield volume, limits.get(volume.path), [value for _, _, value in found]


def describe_volume(volume: Volume, limits: Limits | None, notes: Notes) -> dict[str, Any]:
    """Return what later stages want to know of a volume that was cut, as the ledger keeps it."""
    made = notes.origin(volume.path)
    return {
        "kind": VOLUME_KIND if made is None else made.details.get("kind", VOLUME_KIND),
        "voxel_size_nm": volume.voxel_size_nm,
        "limits": limits and (limits.low, limits.high),
    }
