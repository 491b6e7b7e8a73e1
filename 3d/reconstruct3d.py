"""Go back from informative patches to the volumes they were cut from, and save the subvolumes around them.

Reads:   FILTERED, a path list of informative patches (nn_filtered_fpaths.npz), and the patches' own sizes;
         VOLDIR, the volumes, of which only the boxes that are saved are read.
Writes:  SAVEDIR/{dataset}-LOC-3d-{ISO or ANISO}-{z}_{y}_{x}_{axes}.npy, the voxels of a box as they are in the
         volume: z_y_x is the box's first voxel, axes the order in which its axes are stored. Where several boxes start
         at one voxel, all but the best have their sides (z, y, x) in the name too;
         or, by --format, ….zarr, an OME-Zarr image, or ….tiff, a stack, both with voxel size;
         with --animate also ….webp, which shows one section after another.
Example: python 3d/reconstruct3d.py work/classify_nn/nn_filtered_fpaths.npz corpus/volumes work/reconstruct3d

Patches at one place of one plane make a column. Each column is divided into stretches of -nz sections; a stretch with
more than nz // 10 informative patches is a candidate. Of candidates that overlap, in whatever planes, the one with
most informative patches is kept. ANISO marks a volume of which only plane 0 occurs.

With --centre each box is a flipbook instead: -nz sections around one patch, its own in the middle and first axis.
"""

from __future__ import annotations

import emcurate.start  # noqa: F401 - before all that takes its time to load

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from emcurate import cli, naming
from emcurate.addresses import Place
from emcurate.errors import InputError
from emcurate.files import describe_content, make_output_directory
from emcurate.outputs import Output, note_output, note_outputs
from emcurate.patches.drawing import spread
from emcurate.patches.pathlists import PathList
from emcurate.patches.reading import fingerprint_patch, read_patch, read_patch_size, read_resampling, refuse_moved
from emcurate.running.jobs import Workers
from emcurate.running.ledger import Ledger
from emcurate.running.ledger_lines import Line
from emcurate.running.report import Report
from emcurate.running.sources import Source
from emcurate.volumes.again import Spot
from emcurate.volumes.boxes import Box
from emcurate.volumes.columns import (
    Choice,
    Informative,
    NotedViews,
    account_for,
    choose_boxes,
    group_patches,
    lacks_patches,
)
from emcurate.volumes.corpus import find_volumes, fingerprint_sources
from emcurate.volumes.cut_settings import VoxelSize
from emcurate.volumes.flipbooks import Flipbooks, account_for_flipbooks, encode_webp, find_flipbooks
from emcurate.volumes.formats import may_hold_several
from emcurate.volumes.formats.boxes import FORMATS, NPY, encode_box
from emcurate.volumes.likeness import boxes_of, choose_samples, refuse_unlike
from emcurate.volumes.scratch import ready_to_read
from emcurate.volumes.sources import VolumeSource
from emcurate.volumes.views import View
from emcurate.volumes.volume import Volume
from emcurate.writing import write_directory_once, write_once

STAGE = "reconstruct3d"
NZ = 224  # sections of a column that make a box, as published
ANIMATION = ".webp"
SEED = 0  # of which flipbooks are drawn

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
    format: str
    animate: bool
    replace: bool


def choose_axes(shape: Sequence[int], cross_plane: bool) -> str:
    """Return the order in which a box's axes are stored: zyx, or with `cross_plane` the shortest axis first."""
    return put_first(int(np.argmin(shape))) if cross_plane else "zyx"


def save_box(job: BoxJob) -> tuple[list[Output], bool]:
    """Write the voxels of a box; return what was written, and whether it was not there yet."""
    voxels = job.volume.read(*job.box.slices)
    stored = np.ascontiguousarray(voxels.transpose(["zyx".index(axis) for axis in job.axes]))
    path, directory = job.path, job.path.parent
    files = encode_box(stored, job.format, job.axes, job.box.start, job.volume.voxel_size_nm, str(path))
    if "" in files:
        written = write_once(path, files[""], overwrite=job.replace)
        outputs = [note_output(path, directory, files[""])]
    else:
        written = write_directory_once(path, files, overwrite=job.replace)
        outputs = note_outputs(directory, path)
    if job.animate:
        animation = path.with_name(path.name.removesuffix(FORMATS[job.format]) + ANIMATION)
        data = encode_webp(stored, str(animation))
        write_once(animation, data, overwrite=job.replace)
        outputs.append(note_output(animation, directory, data))
    return outputs, written


def name_boxes(boxes: Mapping[Box, str], volume: Volume, isotropic: bool) -> dict[str, Box]:
    """Return the boxes of a volume, which come with their axes, by the stems of their files' names.

    Of those that start at one voxel the best comes first; all others have their extent in the name.
    """
    z, y, x = (naming.index_width(side) for side in volume.shape)
    names: dict[str, Box] = {}
    starts: set[tuple[int, int, int]] = set()
    for box, axes in boxes.items():
        extent = box.shape if box.start in starts else None
        starts.add(box.start)
        names[naming.Subvolume(volume.name, isotropic, box.start, axes, (z, y, x), extent).stem] = box
    return names


def put_first(axis: int) -> str:
    """Return the order of axes in which one comes first."""
    return "zyx"[axis] + "zyx"[:axis] + "zyx"[axis + 1 :]


def dataset_of(name: str) -> str | None:
    """Return the dataset that a file of this name is a subvolume of, None if it is none."""
    dataset, mark, place = name.rstrip("/").partition(naming.MARK)
    return dataset if mark and place.startswith("3d-") and place.endswith((*FORMATS.values(), ANIMATION)) else None


def limit_boxes(found: Choice | Flipbooks, limit: int | None, name: str) -> list[Box]:
    """Return as many boxes of a volume as are wanted: the best, or flipbooks that are spread over it."""
    if limit is None or limit >= len(found.boxes):
        return found.boxes
    if isinstance(found, Choice):
        return found.boxes[:limit]
    planes = np.array([found.planes[box] for box in found.boxes])
    return [found.boxes[i] for i in spread(planes, np.array([box.start for box in found.boxes]), limit, SEED, name)]


def fingerprint(volume: str, patches: Informative, noted: Line | None) -> str:
    """Return what changes when a volume, by its fingerprint, or any of its patches that boxes come of does.

    Boxes come of places and sizes: a patch that was made again is the same. Earlier versions noted when it was.

    Raises
    ------
    InputError
        If a patch cannot be read.
    """
    found = f"{volume}; {patches.fingerprint(read_patch_size)}"
    earlier = f"{volume}; {patches.fingerprint(fingerprint_patch)}"
    if noted is not None and noted.fingerprint == earlier:
        return earlier
    resampled = read_resampling(patches.first) if patches.example else None
    return found if resampled is None else f"{found} {resampled}"


def open_source(source: VolumeSource) -> Volume:
    """Open a volume."""
    return source.open()


def is_alike(volume: Volume, samples: dict[str, Spot], filtered: Path, report: Report) -> bool:
    """Return whether a volume shows what its patches do, and report it if not."""
    try:
        refuse_unlike(volume, samples, read_patch, filtered)
    except InputError as error:
        report.fail(error)
        return False
    return True


def run(
    filtered: Path,
    voldir: Place,
    savedir: Path,
    *,
    nz: int = NZ,
    cross_plane: bool = False,
    centre: bool = False,
    limit: int | None = None,
    subvolume_format: str = NPY,
    animate: bool = False,
    voxel_size: VoxelSize | None = None,
    voxel_sizes: Sequence[tuple[str, VoxelSize]] = (),
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
    parameters: dict[str, Any] = {"nz": nz, "cross_plane": cross_plane}
    # What is not asked for is not noted, so that results of earlier versions stay.
    asked = {"centre": centre, "limit": limit, "animate": animate, "format": subvolume_format}
    parameters |= {flag: value for flag, value in asked.items() if value and value != NPY}
    ledger = Ledger(savedir, STAGE, parameters, product="subvolumes", owner_of=dataset_of)
    # A volume of which an earlier list had patches and this one has none has lost its subvolumes.
    names, noted = sorted(volumes.keys() & (datasets.keys() | ledger.entries.keys())), NotedViews()
    for name in filter(lambda name: may_hold_several(volumes[name].path), names):
        volumes[name] = replace(volumes[name], view=noted.complete(datasets[name], volumes[name].view))
    if subvolume_format != NPY:  # which has no room for it
        by_name = dict(voxel_sizes)
        for name in names:
            size = by_name.get(name, voxel_size) or volumes[name].voxel_size_nm
            volumes[name] = replace(volumes[name], voxel_size_nm=size)
    sources = {}
    for name, found in fingerprint_sources([volumes[name] for name in names], report).items():
        try:
            sources[name] = Source(
                volumes[name].path,
                fingerprint(found, datasets[name], ledger.entries.get(name)),
                name,
                settings=volumes[name].settings(),
                # Of too few patches nothing came that another list could replace.
                is_renewed=LACKED in ledger.details_of(name) or not ledger.outputs_of(name),
                is_read_on=True,
                also=f"its patches in {filtered} have",
            )
        except InputError as error:
            report.fail(error)
    plan = ledger.plan(sources, report, root=voldir, named=corpus.named, overwrite=overwrite, prune=prune)
    report.count("volumes already done", len(plan.done))

    opened = []
    choices: dict[str, Choice | Flipbooks] = {}
    boxes: dict[str, dict[Box, str]] = {}
    samples: dict[str, dict[str, Spot]] = {}
    jobs: list[BoxJob] = []
    for source, volume in workers.run(open_source, [volumes[key] for key in plan.todo], report, unit="volume"):
        try:
            noted.refuse_other(datasets[volume.name], volume, source.view)
            patches = datasets[volume.name]
            resampled = read_resampling(patches.first) if patches.example else None
            find = find_flipbooks if centre else choose_boxes
            found = choices[volume.name] = find(patches, volume, nz, read_patch_size, resampled)
            boxes[volume.name] = {
                box: put_first(found.planes[box])
                if isinstance(found, Flipbooks)
                else choose_axes(box.shape, cross_plane)
                for box in limit_boxes(found, limit, volume.name)
            }
            samples[volume.name] = choose_samples(patches, volume, read_patch_size, resampled)
            opened.append(volume)
        except InputError as error:
            report.fail(error)
    opened.sort(key=lambda volume: volume.name)
    wanted = {
        volume.path: [box.slices for box in boxes[volume.name]] + boxes_of([*samples[volume.name].values()], volume)
        for volume in opened
    }
    by_planes = [volume.path for volume in opened]
    with ready_to_read(opened, savedir, report, workers, by_planes=by_planes, wanted=wanted) as ready:
        ready = [volume for volume in ready if is_alike(volume, samples[volume.name], filtered, report)]
        choices = {volume.name: choices[volume.name] for volume in sorted(ready, key=lambda volume: volume.name)}
        for volume in ready:
            name = volume.name
            for stem, box in name_boxes(boxes[name], volume, datasets[name].isotropic).items():
                path, axes = savedir / f"{stem}{FORMATS[subvolume_format]}", boxes[name][box]
                jobs.append(BoxJob(name, path, volume, box, axes, subvolume_format, animate, ledger.replaces(name)))
        outputs: dict[str, list[Output]] = defaultdict(list)
        saved: Counter[str] = Counter()
        for job, (files, written) in workers.run(save_box, jobs, report, unit="subvolume"):
            outputs[job.key] += files
            saved[job.key] += 1
            report.count("subvolumes written" if written else "subvolumes already there")
    for name in choices:
        if saved[name] == len(boxes[name]):
            ledger.finish(name, outputs[name], {"subvolumes": saved[name], **lacked})
    if choices:
        flipbooks = [each for each in choices.values() if isinstance(each, Flipbooks)]
        others = [each for each in choices.values() if isinstance(each, Choice)]
        report.note(account_for_flipbooks(flipbooks, nz) if centre else account_for(others, nz))
        if limit is not None:
            left = sum(len(found.boxes) - len(boxes[name]) for name, found in choices.items())
            report.note(f"{left:,} more were left out by --limit {limit}")
    return report


def check_arguments(parser: argparse.ArgumentParser, arguments: dict[str, Any]) -> None:
    """End the program if the arguments do not fit together."""
    if arguments["centre"] and not arguments["nz"] % 2:
        parser.error(f"argument -nz: expected an odd number for --centre, such as 5, found {arguments['nz']}")
    if arguments["centre"] and arguments["cross_plane"]:
        parser.error("argument --centre: expected no --cross-plane, since the patch's own axis comes first anyway")


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
    parser.add_argument(
        "--centre",
        "--center",
        action="store_true",
        help="make flipbooks: around each patch a stack of -nz sections, an odd number, with its own in the middle",
    )
    parser.add_argument(
        "--limit",
        type=cli.positive_int,
        metavar="N",
        help="of each volume N at most: the best, or flipbooks spread over it (default: all)",
    )
    parser.add_argument(
        "--format",
        dest="subvolume_format",
        choices=FORMATS,
        default=NPY,
        help="write arrays of numpy, OME-Zarr 0.5 or 0.4, or TIFF stacks (default: %(default)s)",
    )
    parser.add_argument(
        "--animate", action="store_true", help="also write each as an animated WebP, one section after another"
    )
    cli.add_voxel_size_flag(parser)
    cli.add_view_flags(parser)
    cli.add_prefer_flag(parser)
    cli.add_reroot_flag(parser)
    cli.add_ledger_flags(parser, "savedir")
    parser.set_defaults(check_arguments=check_arguments)
    cli.add_job_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    return cli.run_stage(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
