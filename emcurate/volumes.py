"""Open a volume of any format lazily: its voxels (z, y, x), its voxel size, its name; and choose its grey limits."""

from __future__ import annotations

import contextlib
import math
import shutil
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emcurate import claims, naming
from emcurate.errors import DataWarning, InputError
from emcurate.files import fingerprint, list_entries, partial_path
from emcurate.jobs import Report, run_jobs
from emcurate.pixels import (
    Limits,
    Rescale,
    Statistics,
    check_pixel_type,
    choose_limits,
    measure,
    merge_statistics,
    needs_measuring,
    sample_step,
    warn_of_oddities,
)
from emcurate.readers import VOLUME_SUFFIXES, find_opener, is_slices_directory
from emcurate.readers.layouts import FlatFile, Shape, Voxels
from emcurate.readers.slices import list_slices
from emcurate.readers.tiff import is_single_image

VoxelSize = tuple[float, float, float]

# Voxels measured or unpacked at a time: enough to be worth a job, little enough for a few dozen processes.
BLOCK_BYTES = 1 << 27


@dataclass(frozen=True)
class Volume:
    """An opened volume: what its headers say, and how to read any box of it. Small, and picklable.

    Parameters
    ----------
    path : Path
        The file, or the directory of slices.
    name : str
        The dataset's name.
    voxels : Voxels
        How the voxels lie on disk.
    voxel_size_nm : (z, y, x) or None
        None where it is unknown.
    """

    path: Path
    name: str
    voxels: Voxels
    voxel_size_nm: VoxelSize | None

    @property
    def shape(self) -> Shape:
        """Voxels along (z, y, x)."""
        return self.voxels.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the grey values that `read` returns, in native byte order."""
        return self.voxels.dtype

    @property
    def size(self) -> int:
        """The number of voxels."""
        return math.prod(self.shape)

    @property
    def random_access(self) -> bool:
        """Whether any box is read at the cost of that box alone; if not, see `unpacked`."""
        return self.voxels.random_access

    @property
    def sequential(self) -> bool:
        """Whether a box costs all that lies before it in the file, as in a compressed stream."""
        return self.voxels.sequential

    def read(self, z: slice = slice(None), y: slice = slice(None), x: slice = slice(None)) -> npt.NDArray[Any]:
        """Return the voxels of a box as a (z, y, x) array of `dtype`; slices may have a positive step."""
        return self.voxels.read(z, y, x)


def list_volumes(directory: Path, exclude: Iterable[Path] = ()) -> list[Path]:
    """List the volumes directly in a directory, in natural order: volume files, and sub-directories of slices.

    `exclude` are directories to leave out, such as an output directory that lies among the volumes.

    Raises
    ------
    InputError
        If the directory seems to hold the slices of one volume.
    """
    left_out = set(exclude)
    found = [path for path in list_entries(directory) if path not in left_out and _may_be_volume(path)]
    slices = list_slices(directory)
    if len(slices) >= 2 and all(path in slices and is_single_image(path) for path in found):
        raise InputError(
            directory,
            "volume files, or a sub-directory of slices for each volume",
            f"{len(slices)} 2D images directly in it",
            f"name {directory.parent} instead, if they are the slices of one volume",
        )
    return found


def open_volume(path: Path, voxel_size_nm: VoxelSize | None = None) -> Volume:
    """Open a volume file or a directory of slices; headers only are read.

    Parameters
    ----------
    path : Path
    voxel_size_nm : (z, y, x), optional
        Overrides what the file says.

    Raises
    ------
    InputError
        If it cannot be used as a volume: no known format, damaged, incomplete, or not three-dimensional.
    """
    opener = find_opener(path)
    if opener is None:
        known = ", ".join(suffix for suffix in VOLUME_SUFFIXES if not suffix.endswith((".gz", ".bz2")))
        raise InputError(path, f"a volume ({known} or a directory of slices)", "another kind of file", "convert it")
    opened = opener(path)
    volume = Volume(path, dataset_name(path), opened.voxels, voxel_size_nm or opened.voxel_size_nm)
    check_pixel_type(volume.dtype, path)
    return volume


def dataset_name(path: Path) -> str:
    """Return the dataset's name: a file's name without its extension, or the directory's name."""
    # A directory of slices may be called "sample 1.5"; what follows its last dot is no extension.
    return path.name if is_slices_directory(path) else naming.strip_extension(path.name)


def fingerprint_volume(path: Path) -> str:
    """Return what changes when any file of a volume is changed; see `files.fingerprint`.

    What cannot be read has a fingerprint too: opening it is what reports it, without stopping the others.
    """
    try:
        found = fingerprint(path)
        if path.suffix.lower() == ".nhdr":
            from emcurate.readers.nrrd import data_file

            data = data_file(path)
            found += f"; {fingerprint(data)}" if data else ""
    except (InputError, OSError):
        return "unreadable"
    return found


def refuse_bad_names(paths: Iterable[Path], report: Report) -> list[Path]:
    """Return the volumes whose dataset name can be used and is theirs alone; report the others."""
    return claims.refuse_bad_names({path: [(dataset_name(path), path)] for path in paths}, report)


def is_anisotropic(voxel_size_nm: VoxelSize | None, threshold: float) -> bool:
    """Return whether z differs from x by more than `threshold`, relative to x; an unknown size is isotropic."""
    if voxel_size_nm is None:
        return False
    z, _, x = voxel_size_nm
    return abs(z - x) / x > threshold


def warn_of_unknown_voxel_size(volume: Volume) -> None:
    """Warn, with a `DataWarning`, where a volume's voxel size is unknown and therefore taken as isotropic."""
    if volume.voxel_size_nm is None:
        message = (
            f"{volume.path}: the voxel size is unknown and taken as isotropic; give it with --voxel-size Z Y X (nm)"
        )
        warnings.warn(message, DataWarning, stacklevel=2)


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
    *,
    processes: int | None = None,
    scheduler: str | None = None,
) -> Iterator[list[Volume]]:
    """Give several volumes with random access, like `unpacked`, the work divided over processes.

    A volume that cannot be unpacked is reported and left out.
    """
    copies: dict[Path, tuple[Volume, Path]] = {}
    jobs: list[UnpackJob] = []
    try:
        for volume in volumes:
            if not volume.random_access:
                try:
                    copies[volume.path] = _reserve(volume, scratch_directory)
                except InputError as error:
                    report.fail(error)
                    continue
                jobs += _unpacking_jobs(volume, copies[volume.path][1])
        waiting: dict[Path, int] = defaultdict(int)
        for job in jobs:
            waiting[job.path] += 1
        if jobs:
            for job, _ in run_jobs(
                unpack_block, jobs, report, processes=processes, scheduler=scheduler, unit="unpacked block"
            ):
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
    def path(self) -> Path:
        return self.volume.path


def unpack_block(job: UnpackJob) -> None:
    """Write some planes of a volume to the file that holds its unpacked copy."""
    _, height, width = job.volume.shape
    with open(job.file, "r+b") as file:
        file.seek(job.start * height * width * job.volume.dtype.itemsize)
        for plane in job.volume.voxels.iter_planes(job.start, job.stop):
            file.write(np.ascontiguousarray(plane).data)


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

    A volume that cannot be read is reported and left out.
    """
    jobs = [job for volume in volumes for job in measuring_jobs(volume, rescale)]
    parts: dict[Path, list[tuple[int, Statistics]]] = defaultdict(list)
    if jobs:
        for job, statistics in run_jobs(
            measure_block, jobs, report, processes=processes, scheduler=scheduler, unit="measured block"
        ):
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


def iter_plane_blocks(volume: Volume) -> Iterator[tuple[int, int]]:
    """Yield ``(start, stop)`` of runs of planes that take at most `BLOCK_BYTES`, of one plane at least."""
    depth, height, width = volume.shape
    planes = max(1, BLOCK_BYTES // max(1, height * width * volume.dtype.itemsize))
    for start in range(0, depth, planes):
        yield start, min(start + planes, depth)


def _may_be_volume(path: Path) -> bool:
    if find_opener(path) is None:
        return False
    try:
        return not is_slices_directory(path) or bool(list_slices(path))
    except PermissionError:
        return True  # for opening it to report


def _reserve(volume: Volume, directory: Path) -> tuple[Volume, Path]:
    """Return a volume of flat voxels in a fresh scratch file of the right size, and that file."""
    needed, free = volume.size * volume.dtype.itemsize, shutil.disk_usage(directory).free
    if needed > free:
        raise InputError(
            directory,
            f"{needed:,} bytes free, to unpack {volume.path}",
            f"{free:,} bytes",
            "make room, or write to another disk",
        )
    file = partial_path(directory)
    with open(file, "wb") as created:
        created.truncate(needed)
    return replace(volume, voxels=FlatFile(file, volume.shape, volume.dtype, (0,))), file


def _unpacking_jobs(volume: Volume, file: Path) -> list[UnpackJob]:
    if volume.voxels.sequential:
        return [UnpackJob(volume, 0, volume.shape[0], file)]
    return [UnpackJob(volume, start, stop, file) for start, stop in iter_plane_blocks(volume)]
