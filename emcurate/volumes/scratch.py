"""Random access to packed volumes, and to those on servers: copies in scratch files, batch by batch."""

from __future__ import annotations

import contextlib
import shutil
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from emcurate.addresses import Place
from emcurate.errors import InputError, describe_os_error
from emcurate.partials import partial_path
from emcurate.running.jobs import Workers
from emcurate.running.report import Report
from emcurate.volumes.fetched import all_fetched, is_remote
from emcurate.volumes.formats.copies import Box
from emcurate.volumes.layouts import FlatFile
from emcurate.volumes.volume import Volume, iter_plane_blocks

# Voxels whose volumes are worked on together: many small volumes share the processes, and the scratch copies of
# compressed ones never take more disk than this (or than the largest volume).
BATCH_VOXELS = 1 << 35


@contextlib.contextmanager
def ready_to_read(
    volumes: Sequence[Volume],
    scratch_directory: Path,
    report: Report,
    workers: Workers = Workers(),
    *,
    by_planes: Collection[Place] = (),
    wanted: Mapping[Place, Sequence[Box]] | None = None,
) -> Iterator[list[Volume]]:
    """Give volumes of which any part can be read without reading much else, some of them copies unpacked to scratch.

    Parameters
    ----------
    volumes : sequence of Volume
    scratch_directory : Path
        For the copies, which are removed at the end of the block.
    report : Report
        Receives those that cannot be unpacked, which are left out.
    workers : Workers
    by_planes : collection of Path
        Volumes of which only whole (y, x) planes, or few boxes, are wanted: these are unpacked only where every plane
        costs all that lies before it in the file.
    wanted : mapping of Path or Address to sequence of boxes, optional
        Boxes outside of which nothing is going to be read of volumes on servers, which are fetched first.
    """
    remote = [volume for volume in volumes if is_remote(volume)]
    local = [volume for volume in volumes if volume not in remote]
    packed = [volume for volume in local if volume.sequential or volume.path not in by_planes]
    with (
        all_fetched(remote, scratch_directory, report, wanted) as fetched,
        all_unpacked(packed, scratch_directory, report, workers) as ready,
    ):
        yield ready + [volume for volume in local if volume not in packed] + fetched


@contextlib.contextmanager
def unpacked(volume: Volume, scratch_directory: Path) -> Iterator[Volume]:
    """Give the same volume with random access: itself, or a copy unpacked to a hidden file in `scratch_directory`.

    The copy is uncompressed grey voxels, as large as the volume; it is written block by block, never held in memory,
    and removed at the end of the block.
    """
    if volume.random_access:
        yield volume
        return
    copy, file = _reserve(volume, scratch_directory)
    try:
        for job in _unpacking_jobs(volume, file):
            unpack_block(job)
        yield copy
    finally:
        file.unlink(missing_ok=True)


@contextlib.contextmanager
def all_unpacked(
    volumes: Sequence[Volume],
    scratch_directory: Path,
    report: Report,
    workers: Workers = Workers(),
) -> Iterator[list[Volume]]:
    """Give several volumes with random access, like `unpacked`, the work divided over processes.

    A volume that cannot be unpacked is reported and left out.
    """
    copies: dict[Place, tuple[Volume, Path]] = {}
    jobs: list[UnpackJob] = []
    promised = 0
    try:
        for volume in volumes:
            if not volume.random_access:
                try:
                    copies[volume.path] = _reserve(volume, scratch_directory, promised)
                except InputError as error:
                    report.fail(error)
                    continue
                promised += _unpacked_bytes(volume)
                jobs += _unpacking_jobs(volume, copies[volume.path][1])
        waiting: dict[Place, int] = defaultdict(int)
        for job in jobs:
            waiting[job.path] += 1
        if jobs:
            for job, _ in workers.run(unpack_block, jobs, report, unit="unpacked block"):
                waiting[job.path] -= 1
        ready = [copies[v.path][0] if v.path in copies else v for v in volumes if v.random_access or v.path in copies]
        yield [volume for volume in ready if not waiting[volume.path]]
    finally:
        for _, file in copies.values():
            file.unlink(missing_ok=True)


@dataclass(frozen=True)
class UnpackJob:
    """Planes `start` to `stop` of a volume, to be written at their place in an uncompressed file."""

    volume: Volume
    start: int
    stop: int
    file: Path

    @property
    def path(self) -> Place:
        return self.volume.path


def unpack_block(job: UnpackJob) -> None:
    """Write some planes of a volume to the file that holds its unpacked copy."""
    _, height, width = job.volume.shape
    # Not buffered, so that what does not fit is said of the volume that it belongs to, and not later.
    with open(job.file, "r+b", buffering=0) as file:
        file.seek(job.start * height * width * job.volume.dtype.itemsize)
        for plane in job.volume.voxels.iter_planes(job.start, job.stop):
            data = np.ascontiguousarray(plane).data.cast("B")
            try:
                while data:
                    data = data[file.write(data) :]
            except OSError as error:
                raise _describe_no_room(job.volume, job.file.parent, error) from None


def _unpacked_bytes(volume: Volume) -> int:
    return volume.size * volume.dtype.itemsize


def _describe_no_room(volume: Volume, directory: Path, error: OSError) -> InputError:
    """Return what the system said of the scratch file of a volume as an error of the volume."""
    said = describe_os_error(error, directory)
    wanted = f"room for {_unpacked_bytes(volume):,} bytes in {directory}, to unpack it"
    return InputError(volume.path, wanted, said.found, said.advice)


def _reserve(volume: Volume, directory: Path, promised: int = 0) -> tuple[Volume, Path]:
    """Return a volume of flat voxels in a fresh scratch file of the right size, and that file.

    `promised` are the bytes that other scratch files are going to take.
    """
    needed, free = _unpacked_bytes(volume), shutil.disk_usage(directory).free - promised
    if needed > free:
        wanted = f"room for {needed:,} bytes in {directory}, to unpack it"
        raise InputError(volume.path, wanted, f"{max(0, free):,} bytes", "make room, or write to another disk")
    file = partial_path(directory)
    try:
        with open(file, "wb") as created:
            created.truncate(needed)
    except OSError as error:
        file.unlink(missing_ok=True)
        raise _describe_no_room(volume, directory, error) from None
    return replace(volume, voxels=FlatFile(file, volume.shape, volume.dtype, (0,))), file


def _unpacking_jobs(volume: Volume, file: Path) -> list[UnpackJob]:
    if volume.voxels.sequential:
        return [UnpackJob(volume, 0, volume.shape[0], file)]
    return [UnpackJob(volume, start, stop, file) for start, stop in iter_plane_blocks(volume)]


def make_batches(volumes: Iterable[Volume]) -> Iterator[list[Volume]]:
    """Yield volumes in groups of at most `BATCH_VOXELS`, or of one volume larger than that."""
    batch: list[Volume] = []
    voxels = 0
    for volume in volumes:
        if batch and voxels + volume.size > BATCH_VOXELS:
            yield batch
            batch, voxels = [], 0
        batch.append(volume)
        voxels += volume.size
    if batch:
        yield batch
