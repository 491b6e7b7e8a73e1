"""The grey limits of a volume: one pair for all of it, measured block by block."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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
from emcurate.running.jobs import Workers
from emcurate.running.report import Report
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
    workers: Workers = Workers(),
) -> dict[Path, Limits]:
    """Measure volumes, the work divided over processes, and return the limits of each by its path.

    A volume that cannot be read is reported and left out.
    """
    jobs = [job for volume in volumes for job in measuring_jobs(volume, rescale)]
    parts: dict[Path, list[tuple[int, Statistics]]] = defaultdict(list)
    if jobs:
        for job, statistics in workers.run(measure_block, jobs, report, unit="measured block"):
            parts[job.path].append((job.start, statistics))
    limits = {}
    for volume in volumes:
        measured = [statistics for _, statistics in sorted(parts[volume.path], key=lambda part: part[0])]
        if len(measured) == len(measuring_jobs(volume, rescale)):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", DataWarning)
                limits[volume.path] = choose_volume_limits(volume, rescale, measured)
            for warning in caught:
                report.warn(str(warning.message))
    return limits
