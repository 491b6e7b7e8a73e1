"""Cut every volume of a directory into sections: grey uint8 TIFFs along its planes xy (0), xz (1) and yz (2).

Reads:   volumes in VOLDIR: TIFF stacks, MRC (.mrc .map .rec .st .mrcs, also .gz .bz2), NRRD, NIfTI, and each
         sub-directory of equally sized 2D slices, taken in natural order.
Writes:  SAVEDIR/{volume}-LOC-{plane}_{index}.tiff, the index padded with zeros so that names sort by place.
Example: python raw/cross_section3d.py corpus/volumes work/sections
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from emcurate import cli
from emcurate.errors import InputError
from emcurate.files import (
    Output,
    TakenError,
    describe_content,
    make_output_directory,
    refuse_same_directory,
    write_files,
)
from emcurate.images.pixels import Rescale
from emcurate.images.sections import encode_section
from emcurate.running.claims import Notes
from emcurate.running.jobs import Workers
from emcurate.running.ledger import Ledger, Source
from emcurate.running.report import Report
from emcurate.volumes.corpus import fingerprint_volume, list_volumes, refuse_bad_names
from emcurate.volumes.scratch import make_batches
from emcurate.volumes.sections import choose_planes, dataset_of
from emcurate.volumes.slabs import Slab, cut_volumes, describe_volume
from emcurate.volumes.volume import Volume, VoxelSize, dataset_name, open_volume, warn_of_unknown_voxel_size

STAGE = "cross_section3d"

# Published: beyond a fifth, sections across z show stretched structures.
ANISOTROPY = 0.2


@dataclass(frozen=True)
class OpenJob:
    """One volume to open; its key is its dataset's name."""

    key: str
    path: Path
    voxel_size: VoxelSize | None
    axes: tuple[int, ...]


@dataclass(frozen=True)
class CutJob:
    """Some sections to write."""

    slab: Slab
    savedir: Path
    replace: bool

    @property
    def path(self) -> Path:
        return self.slab.volume.path


def open_for_cutting(job: OpenJob) -> Volume:
    """Open a volume; warn if its voxel size is unknown and that matters."""
    volume = open_volume(job.path, job.voxel_size)
    if any(plane != 0 for plane in job.axes):
        warn_of_unknown_voxel_size(volume)
    return volume


def cut_sections(job: CutJob) -> tuple[list[Output], int]:
    """Write the sections of a job; return all of them and how many were not there yet."""
    files = ((f"{section.stem}.tiff", encode_section(pixels)) for section, pixels in job.slab.sections())
    try:
        return write_files(job.savedir, files, overwrite=job.replace)
    except TakenError as error:
        # Named after the volume, not the section: else every job of it would add a line of its own.
        expected = f"no sections of {job.slab.volume.name} in {job.savedir}, or the ones this run would write"
        raise InputError(job.path, expected, "others of the same name", error.advice) from None


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
    prune: bool = False,
    workers: Workers = Workers(),
) -> Report:
    """Cut every volume of `voldir`; see the module's docstring."""
    report = Report(STAGE)
    size = None if voxel_size is None else (voxel_size[0], voxel_size[1], voxel_size[2])
    axes = tuple(sorted(set(axes)))
    refuse_same_directory(voldir, savedir)
    paths = list_volumes(voldir, report, exclude=[savedir])
    if not paths:
        expected = "volumes (tif, mrc, map, rec, nrrd, nii, ... or sub-directories of slices)"
        raise InputError(voldir, expected, describe_content(voldir), "name the directory that holds the volumes")
    make_output_directory(savedir)
    notes = Notes(voldir)
    said_of_each = {"axes": axes, "voxel_size": size}
    sources = {
        dataset_name(path): Source(path, fingerprint_volume(path), dataset_name(path), settings=said_of_each)
        for path in refuse_bad_names(paths, report)
    }
    parameters = {"spacing": spacing, "anisotropy": anisotropy, **asdict(rescale)}
    ledger = Ledger(savedir, STAGE, parameters, product="sections", owner_of=dataset_of)
    plan = ledger.plan(sources, report, root=voldir, overwrite=overwrite, prune=prune)
    report.count("sections written", 0)
    report.count("volumes already done", len(plan.done))
    opening = [OpenJob(key, sources[key].path, size, axes) for key in plan.todo]
    opened = {job.key: volume for job, volume in workers.run(open_for_cutting, opening, report, unit="volume")}
    for batch in make_batches(opened[key] for key in plan.todo if key in opened):
        planes = {volume.path: choose_planes(volume, axes, anisotropy, report) for volume in batch}

        def make_job(slab: Slab) -> CutJob:
            return CutJob(slab, savedir, ledger.replaces(slab.volume.name))

        cut = cut_volumes(batch, planes, spacing, rescale, savedir, make_job, cut_sections, report, workers)
        for volume, limits, slabs in cut:
            outputs = [output for outputs, _ in slabs for output in outputs]
            written = sum(written for _, written in slabs)
            ledger.finish(volume.name, outputs, describe_volume(volume, limits, notes))
            report.count("sections written", written)
            if written < len(outputs):
                report.count("sections already there", len(outputs) - written)
            report.count("volumes cut")
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
    cli.add_ledger_flags(parser, "savedir")
    cli.add_job_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    return cli.run_stage(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
