"""Keep one exemplar of each group of near-duplicate patches, dataset by dataset.

Reads:   PATCHDIR/{section}_{y}_{x}.npy, the hashes crop_patches.py writes, each beside its patch.
Writes:  SAVEDIR/{dataset}_exemplars.npy, the paths of the exemplars;
         SAVEDIR/{dataset}_groups.csv, for every patch its exemplar and the distance between their hashes;
         SAVEDIR/{dataset}_groups.png, a picture of the largest groups, where there are duplicates;
         SAVEDIR/deduplicated_fpaths.npz/, the path list of the exemplars of all datasets.
Example: python deduplicated/deduplicate.py work/patches work/deduplicated

Patches are taken one after another. One whose hash differs in at most --min_distance bits from that of an exemplar
already kept is that exemplar's duplicate; otherwise it becomes an exemplar itself. Datasets are never compared with
each other. A later run does only datasets that are new or whose patches or parameters have changed.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emcurate import cli
from emcurate.errors import InputError
from emcurate.files import describe_content, make_output_directory, npy_bytes, read_npy, write_once
from emcurate.patches.datasets import list_datasets, read_hashes
from emcurate.patches.duplicates import find_groups
from emcurate.patches.pathlists import same_paths, write_path_list
from emcurate.pictures.contact_sheets import DROPPED, KEPT, Group, Tile, draw_contact_sheet
from emcurate.running.jobs import Workers, progress
from emcurate.running.ledger import Entry, Ledger, Plan
from emcurate.running.report import Report

STAGE = "deduplicate"
MIN_DISTANCE = 12  # bits of the 64 of a hash of side 8, as published
ORDERS = ("random", "name", "sharpest")
SEED = 0
PATH_LIST = "deduplicated_fpaths.npz"

FILES_PER_DATASET = 3  # exemplars, table, picture; the picture only where there are duplicates
PICTURE_GROUPS = 12  # largest groups in a dataset's picture
PICTURE_MEMBERS = 9  # duplicates shown of each
LISTED_DATASETS = 20  # datasets named in the closing report


@dataclass(frozen=True)
class PictureJob:
    """A dataset's largest groups, to be drawn: each a list of patches and distances, the exemplar first."""

    dataset: str
    path: Path
    patchdir: Path
    groups: tuple[list[tuple[str, int]], ...]


def order_patches(
    name: str, count: int, order: str, seed: int, sharpness: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """Return the order in which the patches of a dataset are taken, as positions in alphabetical order.

    The random order depends on the seed and the dataset's name only, not on which other datasets there are.
    """
    if order == "random":
        return np.random.default_rng([seed, zlib.crc32(name.encode())]).permutation(count)
    if order == "sharpest":
        return np.argsort(-sharpness, kind="stable")
    return np.arange(count)


def draw_groups(job: PictureJob) -> int:
    """Draw a dataset's largest groups, if it has any; return how many files the dataset now has."""
    if not job.groups:
        job.path.unlink(missing_ok=True)
        return FILES_PER_DATASET - 1
    sheet = []
    for (exemplar, _), *duplicates in job.groups:
        tiles = [Tile(job.patchdir / f"{exemplar}.tiff", "exemplar", KEPT)]
        tiles += [Tile(job.patchdir / f"{name}.tiff", f"{bits} bits away", DROPPED) for name, bits in duplicates]
        sheet.append(Group(exemplar, tiles))
    title = f"{job.dataset}: largest groups of near-duplicates, those that differ most first"
    draw_contact_sheet(job.path, title, sheet, columns=PICTURE_MEMBERS + 1)
    return FILES_PER_DATASET


def exemplars_path(savedir: Path, dataset: str) -> Path:
    """Return where the paths of a dataset's exemplars are kept."""
    return savedir / f"{dataset}_exemplars.npy"


def groups_path(savedir: Path, dataset: str) -> Path:
    """Return where a dataset's table of groups is kept."""
    return savedir / f"{dataset}_groups.csv"


def picture_path(savedir: Path, dataset: str) -> Path:
    """Return where the picture of a dataset's groups is kept."""
    return savedir / f"{dataset}_groups.png"


def count_outputs(savedir: Path, dataset: str) -> int:
    """Return how many of a dataset's files are there."""
    return sum(path(savedir, dataset).exists() for path in (exemplars_path, groups_path, picture_path))


def write_path_list_of_all(datasets: Sequence[str], savedir: Path, report: Report) -> None:
    """Write the path list of the exemplars of all datasets, unless it is there already."""
    paths: list[str] = []
    for name in datasets:
        paths.extend(read_npy(exemplars_path(savedir, name)).tolist())
    report.count("exemplars in all", len(paths))
    if not same_paths(savedir / PATH_LIST, paths):
        write_path_list(savedir / PATH_LIST, paths)


def describe_plan(plan: Plan, report: Report) -> None:
    """Say which datasets are done and why; long lists are cut short."""
    reasons = {**dict.fromkeys(plan.new, "new"), **{key: f"again: {why}" for key, why in plan.stale.items()}}
    for name in sorted(reasons)[:LISTED_DATASETS]:
        report.note(f"{name}: {reasons[name]}")
    if len(reasons) > LISTED_DATASETS:
        report.note(f"... and {len(reasons) - LISTED_DATASETS:,} more datasets")
    report.count("datasets done", 0)
    report.count("datasets unchanged", len(plan.done))


def run(
    patchdir: Path,
    savedir: Path,
    *,
    min_distance: int = MIN_DISTANCE,
    order: str = "random",
    seed: int = SEED,
    overwrite: bool = False,
    workers: Workers = Workers(),
) -> Report:
    """Deduplicate every dataset in `patchdir`; see the module's docstring."""
    report = Report(STAGE)
    with_pixels = order == "sharpest"
    datasets = list_datasets(patchdir, with_pixels, report)
    if not datasets and not report.failures:
        raise InputError(patchdir, "patches and hashes", describe_content(patchdir), "run raw/crop_patches.py first")
    make_output_directory(savedir)
    ledger = Ledger(savedir, STAGE)
    parameters = {"min_distance": min_distance, "order": order, "seed": seed if order == "random" else None}
    fingerprints = {name: dataset.fingerprint(patchdir) for name, dataset in datasets.items()}
    plan = ledger.plan(fingerprints, parameters, {name: count_outputs(savedir, name) for name in datasets})
    describe_plan(plan, report)
    todo = [datasets[name] for name in (*plan.new, *plan.stale)]

    pictures = []
    hashes = read_hashes(todo, patchdir, with_pixels, report, workers)
    for name, read in progress(hashes.items(), total=len(hashes), label=STAGE, unit="dataset"):
        taken = order_patches(name, len(read.stems), order, seed, read.sharpness)
        groups = find_groups(read.stems, read.bits, taken, min_distance, workers.cores)
        exemplars = [str(patchdir / f"{stem}.tiff") for stem in groups.exemplars()]
        replace = overwrite or name in ledger.entries
        try:
            write_once(groups_path(savedir, name), groups.table(), overwrite=replace)
            write_once(exemplars_path(savedir, name), npy_bytes(np.array(exemplars)), overwrite=replace)
        except InputError as error:
            report.fail(error)
            continue
        report.count("datasets done")
        report.count("patches", len(read.stems))
        report.count("duplicates", len(read.stems) - len(exemplars))
        largest = tuple(groups.largest(PICTURE_GROUPS, PICTURE_MEMBERS))
        pictures.append(PictureJob(name, picture_path(savedir, name), patchdir, largest))
        if not read.complete:
            fingerprints.pop(name)  # so that it is done again when what is missing is mended
    for job, outputs in workers.run(draw_groups, pictures, report, unit="picture"):
        if job.dataset in fingerprints:
            ledger.record(job.dataset, Entry(fingerprints[job.dataset], parameters, outputs))
    finished = sorted(name for name in datasets if exemplars_path(savedir, name).exists())
    write_path_list_of_all(finished, savedir, report)
    for name in sorted(ledger.entries.keys() - datasets.keys()):
        report.warn(f"{name}: its patches are gone from {patchdir}; its exemplars are left out of {PATH_LIST}")
    return report


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = cli.make_parser(__doc__, "deduplicate.py")
    parser.add_argument("patchdir", type=cli.existing_directory, metavar="PATCHDIR", help="directory of patches")
    parser.add_argument("savedir", type=cli.output_directory, metavar="SAVEDIR", help="directory for the results")
    parser.add_argument(
        "-d",
        "--min_distance",
        "--min-distance",
        type=cli.natural_int,
        default=MIN_DISTANCE,
        metavar="BITS",
        help="patches at most so many bits apart are near-duplicates (default: %(default)s)",
    )
    parser.add_argument(
        "--order",
        choices=ORDERS,
        default="random",
        help="take patches in seeded random order, by name, or the sharpest first (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=cli.natural_int,
        default=SEED,
        metavar="N",
        help="seed of the random order (default: %(default)s)",
    )
    cli.add_overwrite_flag(parser)
    cli.add_job_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    return cli.run_stage(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
