"""Go back from informative patches to the volumes they were cut from, and save the subvolumes around them.

Reads:   FILTERED, a path list of informative patches (nn_filtered_fpaths.npz), and the patches' own sizes;
         VOLDIR, the volumes, of which only the boxes that are saved are read.
Writes:  SAVEDIR/{dataset}-LOC-3d-{ISO or ANISO}-{z}_{y}_{x}_{axes}.npy, the voxels of a box as they are in the
         volume: z_y_x is the box's first voxel, axes the order in which its axes are stored. Where several boxes start
         at one voxel, all but the best have their sides (z, y, x) in the name too.
Example: python 3d/reconstruct3d.py work/classify_nn/nn_filtered_fpaths.npz corpus/volumes work/reconstruct3d

Patches at one place of one plane make a column. Each column is divided into stretches of -nz sections; a stretch with
more than nz // 10 informative patches is a candidate. Of candidates that overlap, in whatever planes, the one with
most informative patches is kept. ANISO marks a volume of which only plane 0 occurs.
"""

from __future__ import annotations

import emcurate.start  # noqa: F401 - before all that takes its time to load

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from emcurate import cli, naming
from emcurate.addresses import Place
from emcurate.errors import InputError
from emcurate.files import Output, describe_content, make_output_directory, note_output, npy_bytes, write_once
from emcurate.patches.pathlists import PathList
from emcurate.patches.reading import fingerprint_patch, read_patch_size, read_resampling, refuse_moved
from emcurate.running.jobs import Workers
from emcurate.running.ledger import Ledger
from emcurate.running.report import Report
from emcurate.running.sources import Source
from emcurate.volumes.boxes import Box
from emcurate.volumes.columns import (
    Choice,
    NotedViews,
    account_for,
    choose_boxes,
    group_patches,
    lacks_patches,
)
from emcurate.volumes.corpus import find_volumes, fingerprint_sources
from emcurate.volumes.formats import may_hold_several
from emcurate.volumes.scratch import ready_to_read
from emcurate.volumes.sources import VolumeSource
from emcurate.volumes.views import View
from emcurate.volumes.volume import Volume

STAGE = "reconstruct3d"
NZ = 224  # sections of a column that make a box, as published

# Noted of what came of a list that lacks patches which could not be read: another list may replace it.
LACKED = "of_a_list_that_lacks_patches"


@dataclass(frozen=True)
class BoxJob:
    """One box to save; its key is its volume's dataset."""

    key: str
    path: Path  # the subvolume's, to be written
    volume: Volume
    box: Box
    axes: str
    replace: bool


def choose_axes(shape: Sequence[int], cross_plane: bool) -> str:
    """Return the order in which a box's axes are stored: zyx, or with `cross_plane` the shortest axis first."""
    if not cross_plane:
        return "zyx"
    shortest = int(np.argmin(shape))
    return "zyx"[shortest] + "zyx"[:shortest] + "zyx"[shortest + 1 :]


def save_box(job: BoxJob) -> tuple[Output, bool]:
    """Write the voxels of a box; return what was written, and whether it was not there yet."""
    voxels = job.volume.read(*job.box.slices)
    data = npy_bytes(np.ascontiguousarray(voxels.transpose(["zyx".index(axis) for axis in job.axes])))
    written = write_once(job.path, data, overwrite=job.replace)
    return note_output(job.path, job.path.parent, data), written


def name_boxes(boxes: Sequence[Box], volume: Volume, isotropic: bool, cross_plane: bool) -> dict[str, Box]:
    """Return the boxes of a volume by the names of their files; of those that start at one voxel the best comes first.

    All but that one have their extent in the name.
    """
    z, y, x = (naming.index_width(side) for side in volume.shape)
    names: dict[str, Box] = {}
    starts: set[tuple[int, int, int]] = set()
    for box in boxes:
        extent = box.shape if box.start in starts else None
        starts.add(box.start)
        axes = choose_axes(box.shape, cross_plane)
        names[f"{naming.Subvolume(volume.name, isotropic, box.start, axes, (z, y, x), extent).stem}.npy"] = box
    return names


def dataset_of(name: str) -> str | None:
    """Return the dataset that a file of this name is a subvolume of, None if it is none."""
    dataset, mark, place = name.partition(naming.MARK)
    return dataset if mark and place.startswith("3d-") and name.endswith(".npy") else None


def open_source(source: VolumeSource) -> Volume:
    """Open a volume."""
    return source.open()


def run(
    filtered: Path,
    voldir: Place,
    savedir: Path,
    *,
    nz: int = NZ,
    cross_plane: bool = False,
    view: View = View(),
    prefer: str | None = None,
    reroot: tuple[str, str] | None = None,
    overwrite: bool = False,
    prune: bool = False,
    workers: Workers = Workers(),
) -> Report:
    """Save the subvolumes of every volume in `voldir` that has informative patches; see the module's docstring."""
    report = Report(STAGE)
    report.count("subvolumes written", 0)
    datasets = group_patches(PathList(filtered, reroot), report)
    corpus = find_volumes(voldir, report, exclude=[savedir], view=view, prefer=prefer)
    volumes = {source.name: source for source in corpus.sources}
    if not volumes and not report.failures and isinstance(voldir, Path):
        raise InputError(voldir, "volumes", describe_content(voldir), "name the directory the sections were cut from")
    refuse_moved([path for dataset in datasets.values() for path in dataset.example.values()], filtered)
    make_output_directory(savedir)
    for noun, left_out in (
        ("volumes without informative patches", volumes.keys() - datasets.keys()),
        ("datasets without a volume here", datasets.keys() - volumes.keys()),
    ):
        if left_out:
            report.count(noun, len(left_out))
    lacked = {LACKED: True} if lacks_patches(filtered) else {}
    parameters = {"nz": nz, "cross_plane": cross_plane}
    ledger = Ledger(savedir, STAGE, parameters, product="subvolumes", owner_of=dataset_of)
    # A volume of which an earlier list had patches and this one has none has lost its subvolumes.
    names, noted = sorted(volumes.keys() & (datasets.keys() | ledger.entries.keys())), NotedViews()
    for name in filter(lambda name: may_hold_several(volumes[name].path), names):
        volumes[name] = replace(volumes[name], view=noted.complete(datasets[name], volumes[name].view))
    sources = {
        name: Source(
            volumes[name].path,
            f"{found}; {datasets[name].fingerprint(fingerprint_patch)}",
            name,
            settings=volumes[name].settings(),
            is_renewed=LACKED in ledger.details_of(name),
        )
        for name, found in fingerprint_sources([volumes[name] for name in names], report).items()
    }
    plan = ledger.plan(sources, report, root=voldir, named=corpus.named, overwrite=overwrite, prune=prune)
    report.count("volumes already done", len(plan.done))

    opened = []
    choices: dict[str, Choice] = {}
    jobs: list[BoxJob] = []
    for source, volume in workers.run(open_source, [volumes[key] for key in plan.todo], report, unit="volume"):
        try:
            noted.refuse_other(datasets[volume.name], volume, source.view)
            patches = datasets[volume.name]
            resampled = read_resampling(patches.first) if patches.example else None
            choices[volume.name] = choose_boxes(patches, volume, nz, read_patch_size, resampled)
            opened.append(volume)
        except InputError as error:
            report.fail(error)
    opened.sort(key=lambda volume: volume.name)
    wanted = {volume.path: [box.slices for box in choices[volume.name].boxes] for volume in opened}
    by_planes = [volume.path for volume in opened]
    with ready_to_read(opened, savedir, report, workers, by_planes=by_planes, wanted=wanted) as ready:
        choices = {volume.name: choices[volume.name] for volume in sorted(ready, key=lambda volume: volume.name)}
        for volume in ready:
            name = volume.name
            named = name_boxes(choices[name].boxes, volume, datasets[name].isotropic, cross_plane)
            for file, box in named.items():
                axes = choose_axes(box.shape, cross_plane)
                jobs.append(BoxJob(name, savedir / file, volume, box, axes, ledger.replaces(name)))
        outputs: dict[str, list[Output]] = defaultdict(list)
        for job, (output, written) in workers.run(save_box, jobs, report, unit="subvolume"):
            outputs[job.key].append(output)
            report.count("subvolumes written" if written else "subvolumes already there")
    for name, choice in choices.items():
        if len(outputs[name]) == len(choice.boxes):
            ledger.finish(name, outputs[name], lacked)
    if choices:
        report.note(account_for(choices.values(), nz))
    return report


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = cli.make_parser(__doc__, "reconstruct3d.py")
    parser.add_argument("filtered", type=cli.path_list, metavar="FILTERED", help="path list of patches")
    cli.add_volumes_argument(parser)
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
    cli.add_view_flags(parser)
    cli.add_prefer_flag(parser)
    cli.add_reroot_flag(parser)
    cli.add_ledger_flags(parser, "savedir")
    cli.add_job_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    return cli.run_stage(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
