"""Which regions of a volume are worth having: surveyed on its coarsest level, and looked at again when read."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from emcurate.addresses import Place
from emcurate.volumes.formats.chunked import Chunks
from emcurate.volumes.layouts import AnyArray, Shape
from emcurate.volumes.sampling import (
    Region,
    coarse_box,
    draw_regions,
    fraction_inside,
    is_fine_enough,
    region_name,
    share_bytes,
    share_evenly,
)
from emcurate.volumes.sources import VolumeSource
from emcurate.volumes.volume import Volume

# A coarse level of up to so many bytes is read whole; of a larger one only what regions touch.
WHOLE_LEVEL_BYTES = 1 << 27

# Regions that may turn out to be padding in a row before a volume is taken for nothing but that.
MOST_IN_VAIN = 10_000

# Cubes surveyed beyond those wanted, since what a coarse level shows as tissue may turn out to be padding.
SPARE_CUBES = 16

GIGABYTE = 10**9


@dataclass(frozen=True)
class SurveyJob:
    """A volume to draw regions from.

    `most` regions are wanted, or, if `gigabytes` is given, as many as have so many bytes and
    some to spare.
    """

    source: VolumeSource
    size: int
    seed: int
    min_fraction: float
    padding: tuple[float, ...]
    most: int
    gigabytes: float | None

    @property
    def path(self) -> Place:
        return self.source.path


@dataclass(frozen=True)
class Survey:
    """What may be had of a volume: regions in the order in which they were drawn, of the voxels as they are stored.

    `cube_bytes` is what one has, the volume being at least as large as a cube or thinner.
    """

    volume: Volume
    regions: tuple[Region, ...]
    padding: tuple[float, ...]
    cube_bytes: int


def survey(job: SurveyJob) -> Survey:
    """Draw regions from a volume, and leave out those that its coarsest level shows to be padding."""
    view = replace(job.source.view, inverted=False)  # padding is said of the values as they are stored
    volume = replace(job.source, view=view).open()
    drawn = draw_regions(job.seed, job.source.name, volume.shape, job.size, chunk_of(volume))
    cube_bytes = math.prod(min(job.size, side) for side in volume.shape) * volume.dtype.itemsize
    most = job.most if job.gigabytes is None else int(job.gigabytes * GIGABYTE) // cube_bytes + SPARE_CUBES
    coarse = _coarse_level(job, volume)
    kept = drawn if coarse is None else _leave_out_padding(job, drawn, volume.shape, coarse)
    return Survey(volume, tuple(itertools.islice(kept, most)), job.padding, cube_bytes)


def read_region(survey: Survey, region: Region, min_fraction: float) -> AnyArray | None:
    """Return the voxels of a region as they are stored; None if it is padding after all."""
    voxels = survey.volume.read(*region.slices)
    return voxels if fraction_inside(voxels, survey.padding) >= min_fraction else None


def chunk_of(volume: Volume) -> Shape:
    """Return what of a volume is read at once, (z, y, x) voxels."""
    return volume.voxels.chunk if isinstance(volume.voxels, Chunks) else (1, 1, 1)


def _leave_out_padding(job: SurveyJob, drawn: Iterator[Region], shape: Shape, coarse: Volume) -> Iterator[Region]:
    read = _reader_of(coarse)
    in_vain = 0
    for region in drawn:
        if fraction_inside(read(coarse_box(region, shape, coarse.shape)), job.padding) >= job.min_fraction:
            in_vain = 0
            yield region
        else:
            in_vain += 1
            if in_vain == MOST_IN_VAIN:
                return


def _coarse_level(job: SurveyJob, volume: Volume) -> Volume | None:
    """Return the coarsest level that still shows regions; None if there is none but that which is read."""
    first = job.source.view.level or 0
    for level in range(volume.levels - 1, first, -1):
        view = replace(job.source.view, level=level, inverted=False)
        coarse = replace(job.source, view=view).open()
        if is_fine_enough(coarse.shape, volume.shape, job.size):
            return coarse
    return None


def _reader_of(coarse: Volume) -> Callable[[tuple[slice, slice, slice]], AnyArray]:
    if coarse.size * coarse.dtype.itemsize > WHOLE_LEVEL_BYTES:
        return lambda box: coarse.read(*box)
    whole = coarse.read()
    return lambda box: whole[box]


def share(surveys: Sequence[Survey], count: int, gigabytes: float | None) -> dict[str, int]:
    """Return how many cubes each volume is to give, by its name."""
    most = [len(found.regions) for found in surveys]
    if gigabytes is None:
        shares = share_evenly(count, most)
    else:
        shares = share_bytes(int(gigabytes * GIGABYTE), [found.cube_bytes for found in surveys], most)
    return {found.volume.name: number for found, number in zip(surveys, shares, strict=True)}


def choose_cubes(found: Survey, wanted: int, made: Mapping[str, bool]) -> dict[str, Region]:
    """Return the first regions of a volume, and some to spare, by the names of what they become.

    `made` tells of those that earlier runs have looked at whether a cube came of them: it is taken as one of those
    wanted, and none to spare.
    """
    chosen: dict[str, Region] = {}
    left, spare = wanted, SPARE_CUBES
    for region in found.regions:
        key = region_name(found.volume.name, region, found.volume.shape)
        if left:
            left -= made.get(key, True)
        elif made.get(key) or not spare:
            continue
        else:
            spare -= 1
        chosen[key] = region
    return chosen


def next_cubes(
    waiting: Sequence[str],
    cubes: Mapping[str, tuple[str, Region]],
    shares: Mapping[str, int],
    accepted: Mapping[str, int],
) -> list[str]:
    """Return the first of those that wait, as many of each volume as it still lacks."""
    missing = {name: number - accepted[name] for name, number in shares.items()}
    todo = []
    for key in waiting:
        name = cubes[key][0]
        if missing[name] > 0:
            missing[name] -= 1
            todo.append(key)
    return todo
