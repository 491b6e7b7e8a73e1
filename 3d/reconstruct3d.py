"""Go back from informative patches to the volumes they were cut from, and save the subvolumes around them.

Reads:   FILTERED, a path list of informative patches (nn_filtered_fpaths.npz), and the patches' own sizes;
         VOLDIR, the volumes, of which only the boxes that are saved are read.
Writes:  SAVEDIR/{dataset}-LOC-3d-{ISO or ANISO}-{z}_{y}_{x}_{axes}.npy, the voxels of a box as they are in the
         volume: z_y_x is the box's first voxel, axes the order in which its axes are stored.
Example: python 3d/reconstruct3d.py work/filtered/nn_filtered_fpaths.npz corpus/volumes work/subvolumes

Patches at one place of one plane make a column. Each column is divided into stretches of -nz sections; a stretch with
more than nz // 10 informative patches is a candidate. Of candidates that overlap, in whatever planes, the one with
most informative patches is kept. ANISO marks a volume of which only plane 0 occurs.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from emcurate import cli, naming
from emcurate.errors import InputError
from emcurate.files import describe_content, make_output_directory, npy_bytes, write_once
from emcurate.images.sections import read_size
from emcurate.patches.pathlists import PathList
from emcurate.running.jobs import Workers
from emcurate.running.ledger import Entry, Ledger
from emcurate.running.report import Report
from emcurate.volumes.boxes import Box, Column, find_candidates, suppress_overlapping
from emcurate.volumes.scratch import all_unpacked
from emcurate.volumes.volume import (
    Volume,
    dataset_name,
    fingerprint_volume,
    list_volumes,
    open_volume,
    refuse_bad_names,
)

STAGE = "reconstruct3d"
NZ = 224  # sections of a column that make a box, as published
IOU_THRESHOLD = 0.1  # boxes that share more than this are taken for one


@dataclass
class Informative:
    """The informative patches of one dataset: by plane and place, the sections and one of the patches' paths."""

    sections: dict[tuple[int, int, int], set[int]] = field(default_factory=lambda: defaultdict(set))
    example: dict[tuple[int, int, int], str] = field(default_factory=dict)

    @property
    def isotropic(self) -> bool:
        """Whether patches of other planes than 0 occur."""
        return any(plane != 0 for plane, _, _ in self.sections)

    def fingerprint(self) -> str:
        """Return what changes when the set of patches does."""
        text = repr(sorted((place, sorted(sections)) for place, sections in self.sections.items()))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class BoxJob:
    """One box to save."""

    path: Path  # the subvolume's, to be written
    volume: Volume
    box: Box
    axes: str
    overwrite: bool


def group_patches(paths: Iterable[str], report: Report) -> dict[str, Informative]:
    """Return the informative patches of volumes by dataset; those of 2D images are counted and left out."""
    datasets: dict[str, Informative] = defaultdict(Informative)
    for path in paths:
        try:
            patch = naming.parse_patch(Path(path).stem)
        except naming.GrammarError as error:
            report.fail(f"{path}: {error}; only patches of raw/crop_patches.py belong in the path list")
            continue
        if isinstance(patch.section, naming.ImageSection):
            report.count("patches of 2D images left out")
            continue
        place = patch.section.plane, patch.y, patch.x
        datasets[patch.dataset].sections[place].add(patch.section.index)
        datasets[patch.dataset].example.setdefault(place, path)
    return datasets


def find_boxes(informative: Informative, volume: Volume, nz: int) -> list[Box]:
    """Return the boxes to save of one volume, the best first."""
    columns = {}
    for (plane, y, x), sections in informative.sections.items():
        height, width = read_size(Path(informative.example[plane, y, x]))
        column = Column(plane, y, x, height, width)
        check_column(column, max(sections), volume, informative.example[plane, y, x])
        columns[column] = sections
    kept = suppress_overlapping(find_candidates(columns, volume.shape, nz), IOU_THRESHOLD)
    return [box for box in kept if min(box.shape) >= nz // 2]


def check_column(column: Column, last_section: int, volume: Volume, patch: str) -> None:
    """Raise `InputError` unless the patches of a column lie inside the volume."""
    sides = [side for axis, side in enumerate(volume.shape) if axis != column.plane]
    inside = column.y + column.height <= sides[0] and column.x + column.width <= sides[1]
    if not inside or last_section >= volume.shape[column.plane]:
        raise InputError(
            volume.path,
            f"a volume that {Path(patch).name} can have been cut from",
            "one of " + " x ".join(map(str, volume.shape)) + " voxels (z, y, x)",
            "name the directory of the volumes the sections were cut from",
        )


def choose_axes(shape: Sequence[int], cross_plane: bool) -> str:
    """Return the order in which a box's axes are stored: zyx, or with `cross_plane` the shortest axis first."""
    if not cross_plane:
        return "zyx"
    shortest = int(np.argmin(shape))
    return "zyx"[shortest] + "zyx"[:shortest] + "zyx"[shortest + 1 :]


def save_box(job: BoxJob) -> bool:
    """Write the voxels of a box; return whether they were not there yet."""
    voxels = job.volume.read(*job.box.slices)
    stored = np.ascontiguousarray(voxels.transpose(["zyx".index(axis) for axis in job.axes]))
    return write_once(job.path, npy_bytes(stored), overwrite=job.overwrite)


def plan_jobs(
    volume: Volume, informative: Informative, nz: int, cross_plane: bool, savedir: Path, overwrite: bool
) -> list[BoxJob]:
    """Return the jobs that save the boxes of one volume."""
    z, y, x = (naming.index_width(side) for side in volume.shape)
    jobs = []
    for box in find_boxes(informative, volume, nz):
        axes = choose_axes(box.shape, cross_plane)
        name = naming.Subvolume(volume.name, informative.isotropic, box.start, axes, (z, y, x)).stem
        jobs.append(BoxJob(savedir / f"{name}.npy", volume, box, axes, overwrite))
    return jobs


def list_subvolumes(savedir: Path) -> dict[str, list[Path]]:
    """Return the subvolumes in a directory by dataset."""
    found: dict[str, list[Path]] = defaultdict(list)
    for name in os.listdir(savedir):
        dataset, mark, place = name.partition(naming.MARK)
        if mark and place.startswith("3d-") and name.endswith(".npy"):
            found[dataset].append(savedir / name)
    return found


def run(
    filtered: Path,
    voldir: Path,
    savedir: Path,
    *,
    nz: int = NZ,
    cross_plane: bool = False,
    reroot: tuple[str, str] | None = None,
    overwrite: bool = False,
    workers: Workers = Workers(),
) -> Report:
    """Save the subvolumes of every volume in `voldir` that has informative patches; see the module's docstring."""
    report = Report(STAGE)
    report.count("subvolumes written", 0)
    datasets = group_patches(PathList(filtered, reroot), report)
    paths = {dataset_name(path): path for path in refuse_bad_names(list_volumes(voldir, [savedir]), report)}
    if not paths and not report.failures:
        raise InputError(voldir, "volumes", describe_content(voldir), "name the directory the sections were cut from")
    make_output_directory(savedir)
    for noun, left_out in (
        ("volumes without informative patches", paths.keys() - datasets.keys()),
        ("datasets without a volume here", datasets.keys() - paths.keys()),
    ):
        if left_out:
            report.count(noun, len(left_out))

    names = sorted(paths.keys() & datasets.keys())
    ledger = Ledger(savedir, STAGE)
    parameters = {"nz": nz, "cross_plane": cross_plane}
    prints = {name: f"{fingerprint_volume(paths[name])}; {datasets[name].fingerprint()}" for name in names}
    present = list_subvolumes(savedir)
    plan = ledger.plan(prints, parameters, {name: len(present[name]) for name in names})
    report.count("volumes already done", len(plan.done))
    if not overwrite:
        for name, reason in plan.stale.items():
            report.fail(
                InputError(
                    savedir,
                    f"subvolumes of {name} made from these patches",
                    f"those of an earlier run ({reason})",
                    "use another output directory, or --overwrite to replace them",
                )
            )
    todo = [*plan.new, *(plan.stale if overwrite else ())]

    jobs: dict[str, list[BoxJob]] = {}
    with ExitStack() as scratch:
        for volume in open_for_boxes([paths[name] for name in todo], savedir, scratch, report, workers):
            try:
                jobs[volume.name] = plan_jobs(volume, datasets[volume.name], nz, cross_plane, savedir, overwrite)
            except InputError as error:
                report.fail(error)
        saved: dict[str, int] = defaultdict(int)
        everything = [job for boxes in jobs.values() for job in boxes]
        for job, written in workers.run(save_box, everything, report, unit="subvolume"):
            saved[job.volume.name] += 1
            report.count("subvolumes written" if written else "subvolumes already there")
    for name, boxes in jobs.items():
        if saved[name] == len(boxes):
            for path in set(present[name] if overwrite else ()) - {job.path for job in boxes}:
                path.unlink()
            ledger.record(name, Entry(prints[name], parameters, len(boxes)))
    return report


def open_for_boxes(
    paths: Sequence[Path], scratch_directory: Path, scratch: ExitStack, report: Report, workers: Workers
) -> list[Volume]:
    """Open volumes; one that can only be read from its start is unpacked, until `scratch` closes."""
    opened = []
    for path in paths:
        try:
            opened.append(open_volume(path))
        except InputError as error:
            report.fail(error)
    sequential = [volume for volume in opened if volume.voxels.sequential]
    unpacked = scratch.enter_context(all_unpacked(sequential, scratch_directory, report, workers))
    return [volume for volume in opened if not volume.voxels.sequential] + unpacked


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = cli.make_parser(__doc__, "reconstruct3d.py")
    parser.add_argument("filtered", type=cli.existing_directory, metavar="FILTERED", help="path list of patches")
    parser.add_argument("voldir", type=cli.existing_directory, metavar="VOLDIR", help="directory of volumes")
    parser.add_argument("savedir", type=cli.output_directory, metavar="SAVEDIR", help="directory for the subvolumes")
    parser.add_argument(
        "-nz",
        "--nz",
        type=cli.positive_int,
        default=NZ,
        metavar="SECTIONS",
        help="sections of a column that make a box (default: %(default)s)",
    )
    parser.add_argument(
        "--cross-plane", action="store_true", help="store each box with its shortest axis first; the name tells how"
    )
    cli.add_reroot_flag(parser)
    cli.add_overwrite_flag(parser)
    cli.add_job_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    return cli.run_stage(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
