"""The grey limits of a volume: one pair for all of it, measured block by block."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from emcurate.errors import DataWarning
from emcurate.images.pixels import (
    Limits,
    Rescale,
    Statistics,
    choose_limits,
    measure,
    merge_statistics,
    needs_measuring,
    sample_step,
    warn_of_oddities,
)
from emcurate.running.jobs import Report, run_jobs
from emcurate.volumes.volume import Volume, iter_plane_blocks


@dataclass(frozen=True)
class MeasureJob:
    """Planes `start` to `stop` of a volume, of which statistics are wanted."""

    volume: Volume
    start: int
    stop: int
    sample_step: int

    @property
    def path(self) -> Path:
        return self.volume.path


def measure_block(job: MeasureJob) -> Statistics:
    """Return the statistics of some planes of a volume."""
    return measure(job.volume.read(slice(job.start, job.stop)), job.sample_step)


def measuring_jobs(volume: Volume, rescale: Rescale) -> list[MeasureJob]:
    """Divide a volume into blocks to be measured. The blocks do not depend on how many processes there are."""
    if not needs_measuring(volume.dtype):
        return []
    step = sample_step(volume.size, volume.dtype, rescale)
    return [MeasureJob(volume, start, stop, step) for start, stop in iter_plane_blocks(volume)]


def choose_volume_limits(volume: Volume, rescale: Rescale, statistics: Iterable[Statistics]) -> Limits:
    """Return a volume's one pair of limits from the statistics of its blocks; warn of what its owner may not expect."""
    if not needs_measuring(volume.dtype):
        return Limits(0, 255)
    merged = merge_statistics(statistics)
    limits = choose_limits(merged, volume.dtype, rescale)
    warn_of_oddities(merged, limits, volume.dtype, rescale, volume.path)
    return limits


def find_limits(
    volumes: Sequence[Volume],
    rescale: Rescale,
    report: Report,
    *,
    processes: int | None = None,
    scheduler: str | None = None,
) -> dict[Path, Limits]:
    """Measure volumes, the work divided over processes, and return the limits of each by its path.

    A volume that cannot be read is reported and left out. Statistics are held only of volumes under way: those of a
    volume are dropped when its limits are known.
    """
    jobs = {volume.path: measuring_jobs(volume, rescale) for volume in volumes}
    under_way = {volume.path: _UnderWay(volume, len(jobs[volume.path])) for volume in volumes}
    found: dict[Path, tuple[Limits, list[str]]] = {}
    for volume in volumes:
        if not jobs[volume.path]:
            found[volume.path] = under_way.pop(volume.path).finish(rescale)
    all_jobs = [job for volume in volumes for job in jobs[volume.path]]
    if all_jobs:
        for job, statistics in run_jobs(
            measure_block, all_jobs, report, processes=processes, scheduler=scheduler, unit="measured block"
        ):
            under_way[job.path].add(job.start, statistics)
            if not under_way[job.path].blocks_left:
                found[job.path] = under_way.pop(job.path).finish(rescale)
    # In the order of the volumes, whichever was measured first.
    limits = {}
    for volume in volumes:
        if volume.path in found:
            limits[volume.path], messages = found[volume.path]
            for message in messages:
                report.warn(message)
    return limits


@dataclass
class _UnderWay:
    """A volume of which some blocks are measured: how many are left, and by first plane what is known of the others."""

    volume: Volume
    blocks_left: int
    parts: list[tuple[int, Statistics]] = field(default_factory=list)

    def add(self, start: int, statistics: Statistics) -> None:
        """Take the statistics of the block that begins with plane `start`."""
        self.blocks_left -= 1
        self.parts.append((start, statistics))
        if statistics.sample is None or statistics.sample.counts is not None:
            # Extremes and counts are the same in whatever order they come, so one sum is enough.
            self.parts = [(0, merge_statistics(part for _, part in self.parts))]

    def finish(self, rescale: Rescale) -> tuple[Limits, list[str]]:
        """Return the limits of the volume, all of it being measured, and what its owner may not expect."""
        measured = [statistics for _, statistics in sorted(self.parts, key=lambda part: part[0])]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", DataWarning)
            limits = choose_volume_limits(self.volume, rescale, measured)
        return limits, [str(warning.message) for warning in caught]
