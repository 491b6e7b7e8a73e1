"""Cut every volume of a directory into sections: grey uint8 TIFFs along its planes xy (0), xz (1) and yz (2).

Reads:   volumes in VOLDIR: TIFF stacks, MRC (.mrc .map .rec .st .mrcs, also .gz .bz2), NRRD, NIfTI, and each
         sub-directory of equally sized 2D slices, taken in natural order.
Writes:  SAVEDIR/{volume}-LOC-{plane}_{index}.tiff, the index padded with zeros so that names sort by place.
Example: python raw/cross_section3d.py corpus/volumes work/sections
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emcurate import cli
from emcurate.errors import InputError
from emcurate.files import (
    describe_content,
    describe_kinds,
    list_entries,
    make_output_directory,
    refuse_same_directory,
)
from emcurate.images.pixels import Limits, Rescale, convert
from emcurate.images.sections import write_section
from emcurate.running.jobs import Workers
from emcurate.running.ledger import Entry, Ledger, Plan
from emcurate.running.report import Report
from emcurate.volumes.limits import find_limits
from emcurate.volumes.scratch import all_unpacked, make_batches
from emcurate.volumes.sections import count_sections, divide, name_sections, remove_other_sections, section_name
from emcurate.volumes.volume import (
    Volume,
    VoxelSize,
    dataset_name,
    fingerprint_volume,
    is_anisotropic,
    list_volumes,
    open_volume,
    refuse_bad_names,
    warn_of_unknown_voxel_size,
)

STAGE = "cross_section3d"

# Published: beyond a fifth, sections across z show stretched structures.
ANISOTROPY = 0.2


# What the ledger holds for a volume while it is being cut: more sections than there can be.
UNFINISHED = sys.maxsize


@dataclass(frozen=True)
class Settings:
    """What decides which sections a volume gives, and how they look."""

    axes: tuple[int, ...]
    spacing: int
    anisotropy: float
    voxel_size: VoxelSize | None
    rescale: Rescale

    def as_parameters(self) -> dict[str, Any]:
        """Return the settings as the ledger keeps them."""
        return {**asdict(self), "axes": sorted(self.axes)}


@dataclass(frozen=True)
class OpenJob:
    """One volume to open."""

    path: Path
    settings: Settings


@dataclass(frozen=True)
class CutJob:
    """Some sections of one plane of a volume: those at `indices` of axis `plane`."""

    volume: Volume
    plane: int
    indices: range
    limits: Limits
    savedir: Path
    overwrite: bool

    @property
    def path(self) -> Path:
        return self.volume.path


def choose_planes(volume: Volume, settings: Settings, report: Report | None = None) -> tuple[int, ...]:
    """Return the planes to cut: those asked for, or only xy where z differs too much from x, which is reported."""
    left = settings.axes
    if any(left) and is_anisotropic(volume.voxel_size_nm, settings.anisotropy):
        left = tuple(plane for plane in settings.axes if plane == 0)
        if report is not None:
            z, y, x = volume.voxel_size_nm or (0, 0, 0)
            cut = "only plane 0 (xy) is cut" if left else "nothing is cut, since --axes leaves plane 0 (xy) out"
            report.note(f"{volume.path}: voxels of {z:g} x {y:g} x {x:g} nm (z, y, x) are anisotropic; {cut}")
    return left


def open_for_cutting(job: OpenJob) -> Volume:
    """Open a volume; warn if its voxel size is unknown and that matters."""
    volume = open_volume(job.path, job.settings.voxel_size)
    if any(plane != 0 for plane in job.settings.axes):
        warn_of_unknown_voxel_size(volume)
    return volume


def cut_sections(job: CutJob) -> int:
    """Write the sections of a job; return how many were not there yet."""
    box = [slice(None)] * 3
    box[job.plane] = slice(job.indices[0], job.indices[-1] + 1, job.indices.step)
    slab = np.moveaxis(convert(job.volume.read(*box), job.limits), job.plane, 0)
    written = 0
    for index, section in zip(job.indices, slab, strict=True):
        path = job.savedir / section_name(job.volume, job.plane, index)
        try:
            written += write_section(path, np.ascontiguousarray(section), overwrite=job.overwrite)
        except InputError as error:
            # Named after the volume, not the section: else every job of it would add a line of its own.
            expected = f"no sections of {job.volume.name} in {job.savedir}, or the ones this run would write"
            raise InputError(job.path, expected, "others of the same name", error.advice) from None
    return written


def cut_volumes(
    volumes: Sequence[Volume],
    settings: Settings,
    savedir: Path,
    report: Report,
    overwrite: bool,
    workers: Workers,
) -> Iterator[Volume]:
    """Cut some volumes, the work divided over processes within each; yield those that are finished."""
    planes = {volume.path: choose_planes(volume, settings) for volume in volumes}
    # Whole planes of a TIFF or of a directory of slices are read as they are; anything else is decoded once first.
    packed = [v for v in volumes if v.sequential or any(planes[v.path])]
    with all_unpacked(packed, savedir, report, workers) as unpacked:
        ready = unpacked + [volume for volume in volumes if volume not in packed]
        limits = find_limits([v for v in ready if planes[v.path]], settings.rescale, report, workers)
        jobs = [
            CutJob(volume, plane, indices, limits[volume.path], savedir, overwrite)
            for volume in ready
            if volume.path in limits
            for plane, indices in divide(volume, planes[volume.path], settings.spacing)
        ]
        missing = Counter(job.path for job in jobs)
        for job, written in workers.run(cut_sections, jobs, report, unit="slab"):
            report.count("sections written", written)
            if written < len(job.indices):
                report.count("sections already there", len(job.indices) - written)
            missing[job.path] -= 1
    done = {volume.path for volume in ready if not planes[volume.path] or volume.path in limits}
    yield from (volume for volume in volumes if volume.path in done and not missing[volume.path])


def run(
    voldir: Path,
    savedir: Path,
    *,
    axes: Sequence[int] = (0, 1, 2),
    spacing: int = 1,
    anisotropy: float = ANISOTROPY,
    voxel_size: Sequence[float] | None = None,
    rescale: Rescale = Rescale(),
    overwrite: bool = False,
    workers: Workers = Workers(),
) -> Report:
    """Cut every volume of `voldir`; see the module's docstring."""
    report = Report(STAGE)
    size = None if voxel_size is None else (voxel_size[0], voxel_size[1], voxel_size[2])
    settings = Settings(tuple(sorted(set(axes))), spacing, anisotropy, size, rescale)
    paths = list_volumes(voldir, exclude=[savedir])
    if not paths:
        raise InputError(
            voldir,
            "volumes (tif, mrc, map, rec, nrrd, nii, ... or sub-directories of slices)",
            describe_content(voldir),
            "name the directory that holds the volumes",
        )
    refuse_same_directory(voldir, savedir)
    if ignored := [entry for entry in list_entries(voldir) if entry != savedir and entry not in set(paths)]:
        report.note(f"left alone, not volumes by their extension or content: {describe_kinds(ignored)}")
    make_output_directory(savedir)
    ledger, parameters = Ledger(savedir, STAGE), settings.as_parameters()
    jobs = {path.name: OpenJob(path, settings) for path in refuse_bad_names(paths, report)}
    sections = count_sections(savedir)
    present = {key: sections[dataset_name(job.path)] for key, job in jobs.items()}
    fingerprints = {key: fingerprint_volume(job.path) for key, job in jobs.items()}
    plan = ledger.plan(fingerprints, parameters, present)
    todo = [*plan.new, *plan.stale]
    if not overwrite:
        # An interrupted volume counts as new, but what it has left must not be mixed with other sections either.
        begun = {key: "begun" for key in todo if present[key] and key in ledger.entries}
        ledger.refuse_other_parameters(Plan([], begun, []), parameters)
    report.count("sections written", 0)
    report.count("volumes already done", len(plan.done))
    opening = [jobs[key] for key in todo]
    opened = workers.run(open_for_cutting, opening, report, unit="volume")
    order = {path: at for at, path in enumerate(paths)}
    volumes = sorted((volume for _, volume in opened), key=lambda volume: order[volume.path])
    for batch in make_batches(volumes):
        names = {v.path: name_sections(v, choose_planes(v, settings, report), spacing) for v in batch}
        for volume in batch:
            # Noted before the first section: should the run be interrupted, other settings are still refused.
            key = volume.path.name
            ledger.record(key, Entry(fingerprints[key], parameters, UNFINISHED))
        if overwrite:
            remove_other_sections(savedir, batch, names)
        for volume in cut_volumes(batch, settings, savedir, report, overwrite, workers):
            key = volume.path.name
            ledger.record(key, Entry(fingerprints[key], parameters, len(names[volume.path])))
            report.count("volumes cut")
    report.failures[:] = dict.fromkeys(report.failures)
    return report


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = cli.make_parser(__doc__, "cross_section3d.py")
    parser.add_argument("voldir", type=cli.existing_directory, metavar="VOLDIR", help="directory of volumes")
    parser.add_argument("savedir", type=cli.output_directory, metavar="SAVEDIR", help="directory for the sections")
    parser.add_argument(
        "-a",
        "--axes",
        nargs="+",
        type=int,
        choices=(0, 1, 2),
        default=(0, 1, 2),
        metavar="PLANE",
        help="planes to cut: 0 is xy, 1 xz, 2 yz (default: 0 1 2)",
    )
    parser.add_argument(
        "-s",
        "--spacing",
        type=cli.positive_int,
        default=1,
        metavar="N",
        help="cut every N-th index, and the last (default: %(default)s)",
    )
    parser.add_argument(
        "--anisotropy",
        type=cli.non_negative_float,
        default=ANISOTROPY,
        metavar="PART",
        help="cut plane 0 only where voxels differ in z from x by more than this part of x (default: %(default)s)",
    )
    cli.add_voxel_size_flag(parser)
    cli.add_rescale_flags(parser)
    cli.add_overwrite_flag(parser)
    cli.add_job_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    return cli.run_stage(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
