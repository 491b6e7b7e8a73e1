"""The grey limits of a volume: one pair for all of it, measured block by block."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from emcurate.addresses import Place
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
    def path(self) -> Place:
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


@dataclass(frozen=True)
class FoundLimits:
    """The limits of a volume, and what its owner may not expect of it."""

    limits: Limits
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Block:
    """A block to be measured for `find_limits`; `whole` if it is all of its volume."""

    job: MeasureJob
    rescale: Rescale
    whole: bool

    @property
    def path(self) -> Place:
        return self.job.path


def find_limits(
    volumes: Sequence[Volume],
    rescale: Rescale,
    report: Report,
    workers: Workers = Workers(),
) -> dict[Place, Limits]:
    """Measure volumes, the work divided over processes, and return the limits of each by its path.

    A volume that cannot be read is reported and left out. Statistics are held only of volumes under way: a volume of
    one block has its limits chosen where it is measured, those of another are dropped when its limits are known.
    """
    blocks: list[_Block] = []
    under_way: dict[Place, _UnderWay] = {}
    found: dict[Place, FoundLimits] = {}
    for volume in volumes:
        jobs = measuring_jobs(volume, rescale)
        blocks += [_Block(job, rescale, whole=len(jobs) == 1) for job in jobs]
        under_way[volume.path] = _UnderWay(volume, len(jobs))
        if not jobs:
            found[volume.path] = _finish(volume, rescale, [])
    if blocks:
        for block, measured in workers.run(_measure_block, blocks, report, unit="measured block"):
            if isinstance(measured, FoundLimits):
                found[block.path] = measured
                continue
            of_volume = under_way[block.path]
            of_volume.add(block.job.start, measured)
            if not of_volume.blocks_left:
                found[block.path] = _finish(of_volume.volume, rescale, of_volume.take_statistics())
    # In the order of the volumes, whichever was measured first.
    limits = {}
    for volume in volumes:
        if volume.path in found:
            limits[volume.path] = found[volume.path].limits
            for message in found[volume.path].warnings:
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

    def take_statistics(self) -> list[Statistics]:
        """Return what is known of the blocks in the order of z, and hold it no longer."""
        parts, self.parts = sorted(self.parts, key=lambda part: part[0]), []
        return [statistics for _, statistics in parts]


def _measure_block(block: _Block) -> Statistics | FoundLimits:
    statistics = measure_block(block.job)
    return _finish(block.job.volume, block.rescale, [statistics]) if block.whole else statistics


def _finish(volume: Volume, rescale: Rescale, statistics: Iterable[Statistics]) -> FoundLimits:
    """Return the limits of a volume from the statistics of all its blocks, warnings kept for the order of volumes."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DataWarning)
        limits = choose_volume_limits(volume, rescale, statistics)
    return FoundLimits(limits, tuple(str(warning.message) for warning in caught))
